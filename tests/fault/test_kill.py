"""kill -9 at random and at named points, while clients repeat each key until it is answered; then the walk."""
import json
import os
import random
import signal

import pytest

from harness.load import Load, check
from harness.stack import Stack, alive, wait_until
from harness.walk import orphans_on_crl

LONG = bool(os.environ.get("JITRCA_TEST_LONG"))
KILLS = 100 if LONG else 5
VICTIMS = ("frontend", "signer", "supervisor", "postgres", "backend")
# Where the process is killed, and what must then have become of the certificates that were under way:
# before Admit nothing was claimed; between Admit and Record the serial is revoked; after Record the
# client's repeat finds its certificate. In the midst of the COMMIT either may be.
FAILPOINTS = {
    "after_prepare": {"orphans": False},
    "after_admit": {"orphans": True},
    "after_sign": {"orphans": True},
    "during_record_commit": {},
    "after_record": {"orphans": False, "recovered": True},
}
CRASHES = 10 if LONG else 2


def kill_one(stack, what, rng):
    """kill -9 of one part, and whatever its keeper (systemd, an administrator) would do about it."""
    if what == "postgres":
        stack.cluster.restart(signal.SIGKILL)
        return
    pids = stack.pids()
    if what == "backend":  # one session dies; the postmaster then resets all others
        pids[what] = rng.choice(stack.cluster.backends())[0]
    # A part that is just being restarted is awaited, so that each kill counts.
    pid = pids.get(what) or wait_until(lambda: stack.pids().get(what), f"a {what} to kill", 30)
    os.kill(pid, signal.SIGKILL)
    if what == "supervisor":
        stack.process.wait()
        for orphan in (pids.get("signer"), pids.get("frontend")):
            if orphan:
                wait_until(lambda orphan=orphan: not alive(orphan), "the orphans' end", 20)
        stack.start(wait=False)


@pytest.mark.parametrize("servers", [1, 2])
def test_kill_9_at_random_loses_nothing_and_makes_nothing_twice(cluster, servers):
    rng = random.Random(servers)
    with Stack(cluster) as first:
        stacks = [first]
        try:
            if servers == 2:
                stacks.append(Stack(cluster, share=first))
                stacks[1].start()
            victims = [what for _ in range(KILLS) for what in VICTIMS][:KILLS]
            rng.shuffle(victims)
            with Load(stacks, f"kill{servers}") as load:
                for what in victims:
                    before = len(load.receipts)
                    wait_until(lambda before=before: len(load.receipts) > before + 5 or load.problems,
                               f"progress before the kill of {what}", 60)
                    kill_one(rng.choice(stacks), what, rng)
                for stack in stacks:
                    stack.wait_ready(60)
            print(f"{servers} server(s), {len(victims)} kills:", check(first, load))
        finally:
            for stack in stacks[1:]:
                stack.stop()
                stack.close()


@pytest.fixture(name="crashing", scope="module")
def crashing_stack(cluster, hooks):
    """One stack for all named points: what one crash left behind must not disturb the next."""
    with Stack(cluster) as it:
        yield it


def crashes(stack):
    """How often the frontend was killed. The signer follows each time, which is not counted."""
    count = 0
    for line in stack.log_path.read_text(errors="replace").splitlines():
        if '"process_died"' in line and '"frontend"' in line:
            event = json.loads(line)
            count += event["child"] == "frontend" and event.get("signal") == signal.SIGKILL
    return count


def orphanings(stack):
    """How often somebody found intents of a dead server. A crash in a batch of mere repeats leaves none."""
    return stack.query("SELECT count(*) FROM jitrca.audit_record WHERE action = 'intent.orphan'")[0][0]


@pytest.mark.parametrize("point", FAILPOINTS)
def test_a_crash_at_each_named_point(crashing, point):
    wanted = FAILPOINTS[point]
    count = orphanings if wanted.get("orphans") else crashes
    orphans, _ = orphans_on_crl(crashing)
    already, died = count(crashing), crashes(crashing)
    with Load([crashing], f"fp-{point.replace('_', '-')}") as load:
        wait_until(lambda: len(load.receipts) > 10 or load.problems, "progress before the crashes", 60)
        crashing.stop()
        crashing.env["JITRCA_TEST_FAILPOINT"] = f"{point}:5"
        crashing.start(wait=False)
        wait_until(lambda: count(crashing) >= already + CRASHES, f"{CRASHES} crashes at {point}", 150)
        crashing.stop()
        del crashing.env["JITRCA_TEST_FAILPOINT"]
        died = crashes(crashing) - died
        crashing.start()
        before = len(load.receipts)
        wait_until(lambda: len(load.receipts) > before + 10 or load.problems, "progress after the crashes", 60)
    report = check(crashing, load)
    report["orphans"] -= len(orphans)
    print(f"{point}, {died} crashes:", report)
    assert died >= CRASHES
    for what, some in wanted.items():
        assert report[what] >= CRASHES if some else report[what] == 0, (what, report)
