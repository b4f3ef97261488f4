"""A receipt followed: as a stream of events, by a call that waits, from the command line; and the bounds of all that."""
import concurrent.futures
import contextlib
import json
import os
import subprocess
import time

import pytest
import requests

from harness import client
from harness.client import code
from harness.stack import BIN, Stack, wait_until

OVER = 2
FOLLOWERS = 3
STREAM = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module", name="stack")
def small_stack(cluster):
    with Stack(cluster, config={"revocation_approval_over": OVER, "receipt_followers_max": FOLLOWERS}) as it:
        yield it


@pytest.fixture(scope="module")
def boss(stack):
    with client.admin(stack) as it:
        yield it


@pytest.fixture(scope="module", name="second")
def another_administrator(stack, boss):
    assert boss.post("/v1/principals", json={"id": "second", "role": "admin"}).status_code == 201
    token = boss.post("/v1/principals/second/tokens", json={"description": "test"}).json()["token"]
    with client.Client(stack.url, stack.ca_bundle, token=token) as it:
        yield it


def waiting(boss, name):
    """The path of a receipt that waits for approval: nothing changes it until somebody does."""
    names = [f"{name}-{n}" for n in range(OVER + 1)]
    for one in names:
        assert boss.issue(one).status_code == 201
    answer = boss.post("/v1/revocations", json={"selector": {"device_ids": names}, "reason": "superseded"})
    assert answer.status_code == 202 and answer.json()["state"] == "waiting", answer.text
    return answer.headers["Location"]


@pytest.fixture(scope="module")
def undecided(boss):
    return waiting(boss, "short")


class Events:
    """One link to a receipt's stream, on a connection of its own."""

    def __init__(self, boss, path, last=None):
        self.session = requests.Session()
        headers = {**STREAM, **boss.session.headers, **({"Last-Event-ID": last} if last else {})}
        headers["Accept"] = STREAM["Accept"]
        self.answer = self.session.get(boss.url + path, headers=headers, verify=boss.session.verify, stream=True, timeout=30)
        self.lines = self.answer.iter_lines(chunk_size=1, decode_unicode=True)

    def next(self):
        """(id, receipt) of the next event; None at the end."""
        fields = {}
        for line in self.lines:
            name, _, value = line.partition(": ")
            if name and value:
                fields[name] = value
            if not line and "data" in fields:
                assert fields["event"] == "receipt"
                return fields["id"], json.loads(fields["data"])
        return None

    def close(self):
        self.answer.close()
        self.session.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def admitted(boss, path):
    """A link that has its first event; those whose clients have gone leave their places within moments."""
    def link():
        one = Events(boss, path)
        if one.answer.status_code == 200:
            return one
        one.close()
        return None
    one = wait_until(link, "a free place", 10)
    assert one.next()[1]["state"] == "waiting"
    return one


def test_a_stream_tells_each_change_and_ends_with_the_receipt(boss, second):
    path = waiting(boss, "stream")
    with Events(boss, path) as events:
        assert events.answer.status_code == 200
        assert events.answer.headers["Content-Type"] == "text/event-stream"
        assert events.answer.headers["Cache-Control"] == "no-store" and "Content-Length" not in events.answer.headers
        first, receipt = events.next()
        assert receipt["state"] == "waiting" and receipt == boss.get(path).json()
        with Events(boss, path, last=first) as other:  # it has that; it hears of what comes
            assert second.post(f"{path}/approve", json={}).status_code == 200
            told, before = [], first
            while (event := events.next()) is not None:
                assert event[0] != before, "the same twice"
                before, receipt = event
                told.append(receipt)
            assert other.next()[1]["state"] != "waiting"
    states = [one["state"] for one in told]
    assert states == sorted(states, key=["waiting", "running", "done"].index), states
    assert [one["complete"] for one in told] == [False] * (len(told) - 1) + [True]
    assert told[-1] == boss.get(path).json() and told[-1]["revoked"] == OVER + 1
    # One that comes again with all that there is to know is told to stay away (WHATWG HTML 9.2.3).
    with Events(boss, path, last=before) as again:
        assert again.answer.status_code == 204
    with Events(boss, path) as late:
        assert late.next()[1]["complete"] and late.next() is None
    assert boss.request("HEAD", path, headers=STREAM).headers["Content-Type"] == "application/json"
    unknown = boss.get(f"/v1/revocations/{'0' * 32}", headers=STREAM)
    assert unknown.status_code == 404 and code(unknown) == "revocation_unknown"
    assert requests.get(boss.url + path, headers=STREAM, verify=boss.session.verify, timeout=10).status_code == 401


@pytest.mark.parametrize("prefer", ["respond-async, wait=20", "WAIT = \"20\"; x=1", "wait=20,wait=1", "wait=99999999999999999999"])
def test_a_call_waits_until_nothing_is_left_to_wait_for(boss, prefer):
    path = waiting(boss, f"poll-{len(prefer)}")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        asked = pool.submit(boss.request, "GET", path, headers={"Prefer": prefer})
        with client.Client(boss.url, boss.session.verify, token=boss.session.headers["Authorization"].split()[1]) as same:
            wait_until(lambda: asked.running(), "the call", 5)
            assert same.post(f"{path}/reject", json={}).status_code == 200
        answer = asked.result(15)
    assert answer.status_code == 200 and answer.json()["state"] == "rejected" and time.monotonic() - began < 15
    # In the rare case that it was rejected before the call came, there was nothing to wait for.
    assert answer.headers.get("Preference-Applied") in (None, "wait=20", "wait=60")


@pytest.mark.parametrize("prefer,least", [("wait=1", 1), ("wait=0", 0), ("wait=x", 0), ("wait=1x", 0), ("wait", 0), ("await=9", 0),
                                          ('wait="9', 0), ("waiter=9", 0), ("wait=-1", 0)])
def test_a_call_waits_no_longer_than_it_said(boss, undecided, prefer, least):
    path = undecided
    began = time.monotonic()
    answer = boss.get(path, headers={"Prefer": prefer})
    took = time.monotonic() - began
    assert answer.status_code == 200 and answer.json()["state"] == "waiting"
    assert ("Preference-Applied" in answer.headers) == (least > 0) and took >= least and took < 8


def test_followers_are_few_and_keep_nobody_waiting(stack, boss):
    path = waiting(boss, "full")
    with contextlib.ExitStack() as links:
        for _ in range(FOLLOWERS):
            links.enter_context(admitted(boss, path))
        for headers in (STREAM, {"Prefer": "wait=5"}):
            full = boss.get(path, headers=headers)
            assert full.status_code == 503 and code(full) == "receipt_followers_full" and int(full.headers["Retry-After"]) >= 1
        # No worker and no thread of a listener is theirs.
        for n in range(30):
            assert boss.get(path).status_code == 200
        assert boss.issue("full-other").status_code == 201
        assert requests.get(f"{stack.http_url}/readyz", timeout=5).status_code == 200
    began = time.monotonic()
    with contextlib.ExitStack() as links:
        for _ in range(FOLLOWERS):
            links.enter_context(admitted(boss, path))
    assert time.monotonic() - began < 5  # that they have gone is noticed before the next heartbeat


def test_the_command_line_follows(stack, boss, second):
    env = {**os.environ, "JITRCA_URL": stack.url, "JITRCA_CA_BUNDLE": str(stack.ca_bundle),
           "JITRCA_ADMIN_TOKEN": stack.admin_token}

    def run(*arguments, want=0):
        done = subprocess.run([str(BIN), *arguments], capture_output=True, text=True, timeout=60, check=False, env=env)
        assert done.returncode == want, (arguments, done.stdout, done.stderr)
        return done

    body = boss.issue("cli-follow").json()
    done = run("cert", "revoke", body["certificate_id"], "--reason", "superseded", "--follow", "--json")
    assert json.loads(done.stdout)["complete"] and "crl done" in done.stderr.splitlines()[-1]
    assert "revocation_id" in run("receipt", "follow", json.loads(done.stdout)["revocation_id"]).stdout
    path = waiting(boss, "cli")
    with subprocess.Popen([str(BIN), "revocation", "follow", path.rsplit("/", 1)[1]], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, env=env) as follower:
        lines = [follower.stderr.readline()]
        assert second.post(f"{path}/approve", json={}).status_code < 300
        lines += follower.communicate(timeout=60)[1].splitlines()
        assert follower.returncode == 0
    assert lines[0].startswith("waiting: 0 of 3 revoked") and lines[-1].startswith("done: 3 of 3 revoked"), lines
    assert len(lines) == len(set(lines))
    path = waiting(boss, "cli-no")
    assert boss.post(f"{path}/reject", json={}).status_code == 200
    assert "(revocation_void)" in run("receipt", "follow", path.rsplit("/", 1)[1], want=1).stderr
    assert "(revocation_unknown)" in run("receipt", "follow", "0" * 32, want=1).stderr
    dry = run("revocation", "create", "--device-id", "cli-0", "--reason", "superseded", "--dry-run", "--follow")
    assert "cut_off" in dry.stdout


def test_a_stop_waits_for_no_follower(stack, boss):
    path = waiting(boss, "stop")
    with admitted(boss, path) as events, admitted(boss, path), concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(wait_for_all, boss, path)
        with client.Client(boss.url, boss.session.verify, token=boss.session.headers["Authorization"].split()[1]) as same:
            wait_until(lambda: same.get(path, headers={"Prefer": "wait=1"}).status_code == 503, "the call that waits", 20)
        began = time.monotonic()
        stack.stop()
        assert time.monotonic() - began < 8
        assert events.next() is None  # it ends as a body does, not in the middle
        assert asked.result(5).json()["state"] == "waiting"
    stack.start()


def wait_for_all(boss, path):
    """The last place may be another's for a moment."""
    return wait_until(lambda: (answer := boss.get(path, headers={"Prefer": "wait=60"})).status_code == 200 and answer,
                      "a free place", 20)


@pytest.mark.long  # a heartbeat's time
def test_a_silent_stream_says_that_it_lives(stack):
    with client.admin(stack) as boss, admitted(boss, waiting(boss, "beat")) as events:
        began = time.monotonic()
        assert next(line for line in events.lines if line.startswith(":"))
        assert time.monotonic() - began < 15
