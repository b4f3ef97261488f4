"""A fleet's first connections while every part is killed at random; and IoT Core away for long."""
import os
import random
import signal
import time

import requests

from harness import client
from harness.crowd import Crowd, check
from harness.loop import Loop
from harness.stack import wait_until

LONG = bool(os.environ.get("JITRCA_TEST_LONG"))
DEVICES = 10000 if LONG else 150
KILLS = 60 if LONG else 8
LIMIT_S = 3000 if LONG else 240
VICTIMS = ("frontend", "postgres", "broker", "core")


def test_a_fleet_onboards_while_every_part_is_killed(cluster):
    rng = random.Random(7)
    victims = [what for _ in range(KILLS) for what in VICTIMS][:KILLS]
    rng.shuffle(victims)
    with Loop(cluster) as loop:
        devices = loop.issue_many([f"fleet-{n}" for n in range(DEVICES)], thing_type="sensor")
        loop.wait_settled()
        crowd = Crowd(loop, devices, LIMIT_S)
        crowd.start()
        for number, what in enumerate(victims):
            # Spread over the whole fleet, so that each kill meets devices on their way.
            share = DEVICES * number // (KILLS + 1)
            wait_until(lambda share=share: crowd.accepted >= share or not crowd.is_alive(), "progress", LIMIT_S, 0.05)
            if what == "frontend":
                wait_until(lambda: "frontend" in loop.stack.pids(), "a frontend to kill", 30)
            loop.kill(what)
        figures = crowd.finish()
        loop.wait_well()
        loop.wait_settled(120)
        check(loop, devices)
        assert loop.stack.query("SELECT count(*) FROM jitrca.security_event WHERE starts_with(kind, 'iot_')") == [(0,)]
        with client.admin(loop.stack) as boss:
            answer = boss.get("/v1/audit/verify")
            assert answer.status_code == 200 and answer.json()["ok"] is True, answer.text
        print(f"{len(victims)} kills: {figures}")


FRESH, VICTIMS_OF_THE_NIGHT = 60, 20
PER_S = 20  # of UpdateCertificate, ours and, a little above, that of IoT Core
WORKERS = 8  # so many calls may be on their way


def throttled(loop):
    """How often IoT Core said that we ask too often."""
    text = requests.get(f"{loop.stack.http_url}/metrics", timeout=10).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("jitrca_aws_throttles_total"))


def modified(loop, devices):
    return sorted(row[0] for row in loop.stack.query(
        "SELECT extract(epoch FROM modified_at)::float8 FROM iotcore.certificate WHERE certificate_id = ANY (%s)",
        [issued.id for issued in devices]))


def waiting(loop, why):
    return sum(cause == why for _, cause, *_ in loop.outbox())


def passes(loop, victims, crowd):
    loop.core.process.send_signal(signal.SIGSTOP)  # so that all workers are at it when the revocations come
    try:
        for issued in crowd:
            assert not loop.device(issued).try_connect()
        wait_until(lambda: waiting(loop, "registered") == len(crowd), "the events in the outbox", 60)
        for issued in victims:
            loop.revoke(issued)
    finally:
        loop.core.process.send_signal(signal.SIGCONT)
    loop.wait_settled(120)
    revoked, active = modified(loop, victims), modified(loop, crowd)
    assert {loop.status(one) for one in victims} == {"REVOKED"}
    check(loop, crowd)
    assert revoked[-1] < active[WORKERS], [round(at - revoked[0], 2) for at in revoked + active]


def test_iot_core_away_for_long(cluster):
    """
    Issuance goes on, the outbox grows; then it drains, what takes away first, and within the quota. Later, what is
    revoked passes a crowd whose rows are in the workers' hands already.
    """
    with Loop(cluster, target={"quotas": {"*": 500, "UpdateCertificate": PER_S}},
              core_quotas=f"UpdateCertificate {PER_S + 5}\n* 1000\n") as loop:
        victims = loop.issue_many([f"victim-{n}" for n in range(VICTIMS_OF_THE_NIGHT)])
        crowd = Crowd(loop, victims, 120)
        crowd.start()
        crowd.finish()
        loop.wait_settled()
        loop.core.stop()

        fresh = loop.issue_many([f"fresh-{n}" for n in range(FRESH)])
        for issued in fresh:
            assert not loop.device(issued).try_connect()
        wait_until(lambda: waiting(loop, "registered") == FRESH, "the events in the outbox", 60)
        for issued in victims:
            loop.revoke(issued, "superseded")
        later = loop.issue_many([f"later-{n}" for n in range(FRESH)])  # who is never seen there waits for nothing
        assert waiting(loop, "registered") == FRESH and len(loop.outbox()) >= FRESH + VICTIMS_OF_THE_NIGHT
        # Tries have failed, and nothing is asked for a while; nothing is given up, and the server is well but for that.
        wait_until(lambda: loop.boss.get("/v1/iot/status").json()["targets"][0]["breaker"] != "closed", "the breaker", 60)
        assert any(attempts > 0 for _, _, attempts, *_ in loop.outbox())
        assert all(failed_at is None for *_, failed_at in loop.outbox())
        assert requests.get(f"{loop.stack.http_url}/readyz", timeout=10).status_code == 200
        start = time.time()
        loop.core.start()
        loop.wait_settled(180)

        revoked, active = modified(loop, victims), modified(loop, fresh)
        assert {loop.status(one) for one in victims} == {"REVOKED"}
        check(loop, fresh)
        assert start - 1 < revoked[0] and revoked[-1] < active[WORKERS], (revoked[-1] - start, active[WORKERS] - start)
        # A full bucket and what runs in meanwhile: no more calls than that.
        took = active[-1] - revoked[0]
        assert FRESH + VICTIMS_OF_THE_NIGHT <= PER_S * (took + 1.5), took
        assert throttled(loop) == 0
        passes(loop, fresh[:VICTIMS_OF_THE_NIGHT], later)
        print(f"{FRESH + VICTIMS_OF_THE_NIGHT} rows drained in {took:.1f} s; revocations after {revoked[-1] - start:.1f} s,"
              f" activations after {active[-1] - start:.1f} s")
