"""A fleet's first connections while every part is killed at random; and IoT Core away for long."""
import os
import random
import shutil
import time

import pytest

from harness import client
from harness.broker import PLUGIN
from harness.crowd import Crowd, check
from harness.loop import Loop
from harness.stack import wait_until

pytestmark = pytest.mark.skipif(shutil.which("mosquitto") is None or not PLUGIN.exists(),
                                reason="needs mosquitto and the plugin: make deps-test build")

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
        assert loop.stack.query("SELECT count(*) FROM jitrca.security_event") == [(0,)]
        with client.admin(loop.stack) as boss:
            answer = boss.get("/v1/audit/verify")
            assert answer.status_code == 200 and answer.json()["ok"] is True, answer.text
        print(f"{len(victims)} kills: {figures}")
