"""kill -9 at random and at named points, while clients repeat each key until it is answered; then the walk."""
import os
import random
import signal
import threading
import time

import pytest
import requests

from harness import client
from harness.client import csr_pem, new_key
from harness.stack import BIN, Stack, wait_until
from harness.walk import orphans_on_crl, walk

LONG = bool(os.environ.get("JITRCA_TEST_LONG"))
CLIENTS = 16
FAILPOINTS = ("after_prepare", "after_admit", "after_sign", "during_record_commit", "after_record")


class Load:
    """CLIENTS threads, each repeating its key until it is answered, then taking the next one."""

    def __init__(self, stacks, prefix):
        self.stacks = stacks
        self.prefix = prefix
        self.token = stacks[0].admin_token
        self.stop = threading.Event()
        self.receipts = {}
        self.problems = []
        self.unavailable = 0
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(n,)) for n in range(CLIENTS)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.finish()

    def finish(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(90)
        assert not any(thread.is_alive() for thread in self.threads), "a client never got its answer"

    def run(self, number):
        step = 0
        while not self.stop.is_set():
            name = f"{self.prefix}-{number}-{step}"
            step += 1
            body = {"csr": csr_pem(new_key()), "device_id": name}
            first = self.ask(name, body)
            again = self.ask(name, body) if first else None
            with self.lock:
                if first:
                    self.receipts[name] = first
                if first and again and first != again:
                    self.problems.append(f"{name}: the repeat gave another certificate")

    def ask(self, name, body):
        """One key until it is answered; gives up only a minute after the test's end."""
        end = None
        while True:
            stack = random.choice(self.stacks)
            try:
                with client.Client(stack.url, stack.ca_bundle, token=self.token) as station:
                    answer = station.post("/v1/certificates", json=body, headers={"Idempotency-Key": name}, timeout=20)
                if answer.status_code in (200, 201):
                    return answer.json()["certificate"]
                if answer.status_code == 503:
                    with self.lock:
                        self.unavailable += 1
                        if "Retry-After" not in answer.headers:
                            self.problems.append(f"{name}: 503 without Retry-After")
                else:
                    with self.lock:
                        self.problems.append(f"{name}: {answer.status_code} {answer.text}")
                    return None
            except requests.RequestException:
                pass
            if self.stop.is_set():
                end = end or time.monotonic() + 60
                if time.monotonic() > end:
                    with self.lock:
                        self.problems.append(f"{name}: never answered")
                    return None
            self.stop.wait(0.05) if not self.stop.is_set() else time.sleep(0.05)


def kill_one(stack, what):
    """kill -9 of one part, and whatever its keeper (systemd, an administrator) would do about it."""
    if what == "postgres":
        stack.cluster.restart(signal.SIGKILL)
        return
    pids = stack.pids()
    if what not in pids:
        return
    try:
        os.kill(pids[what], signal.SIGKILL)
    except ProcessLookupError:
        return
    if what == "supervisor":
        stack.process.wait()
        for pid in (pids.get("signer"), pids.get("frontend")):
            if pid:
                wait_until(lambda pid=pid: not alive(pid), "the orphans' end", 20)
        stack.start(wait=False)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def check(stack, load):
    assert not load.problems, load.problems[:10]
    stack.wait_ready(60)
    wait_until(lambda: stack.query("SELECT count(*) FROM jitrca.intent")[0][0] == 0, "orphaned intents closed", 60)
    report = walk(stack, load.receipts)
    assert report["receipts"] > 0 and not report["live_twice"], report
    wait_until(lambda: not orphans_on_crl(stack)[1], "orphaned serials on the CRL", 30)
    return report


@pytest.mark.parametrize("servers", [1, 2])
def test_kill_9_at_random_loses_nothing_and_makes_nothing_twice(cluster, servers):
    rng = random.Random(servers)
    with Stack(cluster) as first:
        stacks = [first]
        if servers == 2:
            second = Stack(cluster, share=first)
            second.__enter__()
            stacks.append(second)
        try:
            with Load(stacks, f"kill{servers}") as load:
                for _ in range(100 if LONG else 8):
                    before = len(load.receipts)
                    wait_until(lambda before=before: len(load.receipts) > before + 5, "progress between kills", 60)
                    kill_one(rng.choice(stacks), rng.choice(("frontend", "signer", "supervisor", "postgres")))
                for stack in stacks:
                    stack.wait_ready(60)
            print(check(first, load), "503s:", load.unavailable)
        finally:
            for stack in stacks[1:]:
                stack.stop()
                stack.close()


@pytest.mark.parametrize("point", FAILPOINTS)
def test_a_crash_at_each_named_point(cluster, point):
    if "hooks" not in str(BIN) and not os.environ.get("JITRCA_TEST_HOOKS"):
        pytest.skip("needs a build with TEST_HOOKS=1: JITRCA_TEST_BIN names none")
    rounds = 10 if LONG else 2
    with Stack(cluster, env={"JITRCA_TEST_FAILPOINT": f"{point}:5"}) as it:
        with Load([it], f"fp-{point.replace('_', '-')}") as load:
            def deaths():
                return it.log_path.read_text(errors="replace").count('"process_died"')
            wait_until(lambda: deaths() >= rounds, f"{rounds} deaths at {point}", 120)
            it.stop()
            it.env.pop("JITRCA_TEST_FAILPOINT")
            it.start()
            before = len(load.receipts)
            wait_until(lambda: len(load.receipts) > before + 10, "progress after the crashes", 60)
        print(check(it, load))
