"""A campaign over a fleet at the local IoT Core: each device connects at every step, and none is ever without a certificate that works."""
import concurrent.futures
import json
import os
import socket
import ssl
import time

import pytest

from harness import client
from harness.client import csr_pem, new_key
from harness.crowd import connect_packet
from harness.loop import Issued, Loop
from harness.stack import wait_until

LONG = bool(os.environ.get("JITRCA_TEST_LONG"))
FLEET, BROKEN = (5000, 1000) if LONG else (24, 60)
PREREGISTERED = {"device": {"iot": {"policies": ["jitrca-device"], "preregister": True}}}
AT_ONCE = 4


@pytest.fixture(scope="module", name="loop")
def loop_of_the_fleet(cluster):
    with Loop(cluster, profiles=PREREGISTERED, target={"quotas": {"*": 100000}}) as it:
        it.issue_many(["bystander"], thing_type="bystander")  # so that no campaign means everything
        yield it


def connects(loop, issued):
    """TLS and CONNECT at the broker, as IoT Core would be asked."""
    context = ssl.create_default_context(cafile=str(loop.broker.ca_file))
    context.load_cert_chain(*issued.write(loop.broker.dir))
    try:
        with socket.create_connection(("127.0.0.1", loop.broker.port), timeout=20) as plain, \
                context.wrap_socket(plain, server_hostname="localhost") as link:
            link.sendall(connect_packet(issued.name))
            return link.recv(4) == b"\x20\x02\x00\x00"
    except (OSError, ssl.SSLError):
        return False


class Device:
    """Keeps its old certificate until the new one has connected; firmware that cannot use new ones stays with it."""

    def __init__(self, loop, issued, good=True):
        self.loop, self.issued, self.good = loop, issued, good
        self.asked = self.rotated = False
        self.checks = 0

    def works(self, issued, deadline_s=0):
        if deadline_s:
            wait_until(lambda: connects(self.loop, issued), f"{issued.name} let in", deadline_s, 0.1)
        else:
            assert connects(self.loop, issued), f"{issued.name} has no certificate that works"
        self.checks += 1

    def turn(self):
        old = self.issued
        self.works(old)
        with self.loop.at_device(old) as link:
            if not link.get("/v1/rotation").json()["due"]:
                return
            key = new_key()
            answer = link.post("/v1/rotation", json={"csr": csr_pem(key)})
            assert answer.status_code == 201, answer.text
        self.asked = True
        new = Issued(key, answer.json())
        self.works(old)
        if not self.good:
            return
        self.works(new, 60)  # IoT Core hears of it in a moment
        self.works(old)
        with self.loop.at_device(new) as link:
            assert link.post("/v1/rotation/confirm").status_code == 200
        self.issued, self.rotated = new, True
        self.works(new)


def play(loop, campaign, devices):
    url = f"/v1/campaigns/{campaign['campaign_id']}"
    by_name = {one.issued.name: one for one in devices}
    end = time.monotonic() + (3600 if LONG else 120)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        while time.monotonic() < end:
            said = loop.boss.get(url).json()
            if said["state"] not in ("filling", "running"):
                return said
            members = loop.boss.get(url + "/members", params={"state": "waiting", "limit": 1000}).json()["members"]
            due = [by_name[m["device_id"]] for m in members if m["asked"] and not by_name[m["device_id"]].asked]
            list(pool.map(Device.turn, due))
            if not due:
                time.sleep(0.1)  # the next wave is the server's to begin, and tells of itself nowhere else
    raise AssertionError(f"the campaign has not ended: {said}")


def fleet_of(loop, prefix, count, good=True):
    issued = loop.issue_many([f"{prefix}-{n}" for n in range(count)], thing_type=prefix)
    loop.wait_settled(1200)
    return [Device(loop, one, good) for one in issued]


def everybody_connects(devices):
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda one: one.works(one.issued), devices))


def test_a_fleet_is_rotated_and_nobody_is_ever_without(loop):
    devices = fleet_of(loop, "pump", FLEET)
    began = time.monotonic()
    campaign = loop.post("/v1/campaigns", selector={"thing_type": "pump"}, pace_per_hour=10000000,
                         canary={"devices": 3, "soak_s": 0}, wave={"percent": 20})
    end = play(loop, campaign, devices)
    assert end["state"] == "done" and end["progress"]["confirmed"] == FLEET, end
    assert all(one.rotated for one in devices)
    took = time.monotonic() - began
    loop.wait_settled(600)
    everybody_connects(devices)
    # What they had before is worth nothing any more: REVOKED or INACTIVE, as the table of statuses has it.
    active = loop.broker.sql("SELECT count(*) FROM iotcore.certificate WHERE status = 'ACTIVE' AND certificate_id IN"
                             " (SELECT encode(sha256, 'hex') FROM jitrca.certificate WHERE device_id LIKE 'pump-%%')")
    assert active == [(FLEET,)]
    print(json.dumps({"devices": FLEET, "seconds": round(took, 1), "connections": sum(one.checks for one in devices)}))


def test_firmware_that_cannot_use_the_new_one_halts_it_before_five_percent(loop):
    devices = fleet_of(loop, "valve", BROKEN, good=False)
    campaign = loop.post("/v1/campaigns", selector={"thing_type": "valve"}, pace_per_hour=10000000, canary={"soak_s": 0},
                         halt={"confirm_within_s": 1})
    end = play(loop, campaign, devices)
    touched = sum(one.asked for one in devices)
    assert end["state"] == "halted" and 0 < touched < BROKEN / 20, (end, touched)
    everybody_connects(devices)
    with client.device(loop.stack, devices[-1].issued.key, devices[-1].issued.body) as link:
        assert link.get("/v1/rotation").json()["due"] is False or devices[-1].asked
    print(json.dumps({"devices": BROKEN, "touched": touched}))
    assert loop.boss.post(f"/v1/campaigns/{campaign['campaign_id']}/abort", json={}).status_code == 200
