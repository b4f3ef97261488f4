"""Just-in-time registration: from a device's first knock to ACTIVE, and what becomes of it, on the local IoT Core."""
import shutil
import time

import pytest

from harness.broker import PLUGIN
from harness.client import csr_pem, device as tls_device, new_key
from harness.jitr import IssuedIdentity, Loop
from harness.stack import wait_until

pytestmark = pytest.mark.skipif(shutil.which("mosquitto") is None or not PLUGIN.exists(),
                                reason="needs mosquitto and the plugin: make deps-test build")


@pytest.fixture(scope="module")
def loop(cluster):
    with Loop(cluster) as it:
        yield it


def test_the_second_connection_gets_in(loop):
    identity = loop.issue("jitr-first", thing_type="sensor", attributes={"model": "m-1"})
    with loop.device(identity) as device:
        assert not device.try_connect()
    loop.wait_status(identity, "ACTIVE")
    with loop.device(identity) as device:
        device.connect()
        assert device.publish("devices/jitr-first/up")
        assert not device.publish("devices/jitr-other/up")
    thing = loop.iot.describe_thing(thingName="jitr-first")
    assert thing["thingTypeName"] == "sensor" and thing["attributes"]["model"] == "m-1"
    assert loop.principals("jitr-first") == [identity.id]
    assert loop.policies(identity) == ["jitrca-device"]
    loop.wait_drained()


def test_revoked_is_revoked_there(loop):
    identity = loop.onboard("jitr-revoked")
    with loop.device(identity).connect() as device:
        begin = time.monotonic()
        loop.post(f"/v1/certificates/{identity.id}/revoke", reason="keyCompromise")
        assert device.gone.wait(10)
        assert device.gone_at - begin < 5
    loop.wait_status(identity, "REVOKED")
    loop.wait_drained()
    assert loop.principals("jitr-revoked") == []
    assert loop.policies(identity) == []
    with loop.device(identity) as device:
        assert not device.try_connect()


def test_a_hold_is_inactive_until_it_is_lifted(loop):
    identity = loop.onboard("jitr-held")
    loop.post(f"/v1/certificates/{identity.id}/revoke", reason="certificateHold")
    loop.wait_status(identity, "INACTIVE")
    loop.wait_drained()
    loop.post(f"/v1/certificates/{identity.id}/unhold")
    loop.wait_status(identity, "ACTIVE")
    loop.wait_drained()
    with loop.device(identity) as device:
        device.connect()


def test_a_held_one_that_knocks_is_reported(loop):
    identity = loop.issue("jitr-held-knocks")
    loop.post(f"/v1/certificates/{identity.id}/revoke", reason="certificateHold")
    with loop.device(identity) as device:
        assert not device.try_connect()
    loop.wait_status(identity, "INACTIVE")
    loop.wait_drained()
    events = loop.events(device_id="jitr-held-knocks")
    assert [one["kind"] for one in events] == ["iot_held_certificate"]
    assert events[0]["certificate_id"] == identity.id and events[0]["target"] == "local"


def test_rotation_overlaps_and_confirm_ends_the_old_one(loop):
    old = loop.onboard("jitr-rotate")
    key = new_key()
    with tls_device(loop.stack, old.key, old.certificate) as client:
        answer = client.post("/v1/rotation", json={"csr": csr_pem(key)})
    assert answer.status_code in (200, 201), answer.text
    new = IssuedIdentity(key, answer.json())
    with loop.device(new) as device:
        assert not device.try_connect()
    loop.wait_status(new, "ACTIVE")
    loop.wait_drained()
    assert loop.cert_status(old) == "ACTIVE"
    assert loop.principals("jitr-rotate") == sorted([old.id, new.id])
    with loop.device(new) as device:
        device.connect()
    with tls_device(loop.stack, new.key, new.certificate) as client:
        assert client.post("/v1/rotation/confirm").status_code == 200
    loop.wait_status(old, "INACTIVE")
    loop.wait_drained()
    assert loop.principals("jitr-rotate") == [new.id]
    assert loop.policies(old) == []
    with loop.device(new) as device:
        device.connect()


def test_quarantine_narrows_and_release_restores(loop):
    identity = loop.onboard("jitr-quarantine")
    loop.post("/v1/devices/jitr-quarantine/quarantine", reason="odd traffic")
    wait_until(lambda: loop.policies(identity) == ["jitrca-quarantine"], "quarantine's policy alone")
    loop.wait_drained()
    assert loop.cert_status(identity) == "ACTIVE"
    groups = loop.iot.list_thing_groups_for_thing(thingName="jitr-quarantine")["thingGroups"]
    assert [one["groupName"] for one in groups] == ["jitrca-quarantine"]
    with loop.device(identity) as device:
        assert not device.try_connect() or not device.publish("devices/jitr-quarantine/up")
    loop.post("/v1/devices/jitr-quarantine/release")
    wait_until(lambda: loop.policies(identity) == ["jitrca-device"], "the profile's policy")
    loop.wait_drained()
    assert loop.iot.list_thing_groups_for_thing(thingName="jitr-quarantine")["thingGroups"] == []
    with loop.device(identity) as device:
        device.connect()
        assert device.publish("devices/jitr-quarantine/up")


def test_a_decommissioned_device_leaves_nothing(loop):
    identity = loop.onboard("jitr-gone")
    loop.post("/v1/devices/jitr-gone/decommission", reason="scrapped")
    loop.wait_status(identity, "REVOKED")
    loop.wait_drained()
    with pytest.raises(loop.iot.exceptions.ResourceNotFoundException):
        loop.iot.describe_thing(thingName="jitr-gone")


def test_what_was_never_seen_there_is_not_touched(loop):
    identity = loop.issue("jitr-never")
    loop.post(f"/v1/certificates/{identity.id}/revoke", reason="superseded")
    loop.wait_drained()
    assert loop.cert_status(identity) is None
    with loop.device(identity) as device:
        assert not device.try_connect()
    loop.wait_status(identity, "REVOKED")
    wait_until(lambda: [one["kind"] for one in loop.events(device_id="jitr-never")] == ["iot_revoked_certificate"],
               "the event")


def test_the_certificate_says_what_iot_core_said(loop):
    identity = loop.onboard("jitr-shown")
    shown = loop.boss.get(f"/v1/certificates/{identity.id}").json()
    assert shown["iot"]["status"] == "ACTIVE" and shown["iot"]["region"] and shown["iot"]["observed_at"]


def test_each_change_there_is_audited(loop):
    identity = loop.onboard("jitr-audit")
    records = loop.boss.get("/v1/audit", params={"object": f"certificate:{identity.id}", "items": "true"}).json()["records"]
    assert [one["action"] for one in records] == ["certificate.issue", "iot.apply"]
    assert loop.boss.get("/v1/audit/verify").json()["ok"]


# ---- when things fail --------------------------------------------------------------------------------


def test_a_dead_letter_has_a_reason_and_lives_again(cluster):
    profiles = {"device": {"iot": {"policies": ["no-such-policy"]}}}
    with Loop(cluster, profiles=profiles) as loop:
        identity = loop.issue("jitr-dead")
        with loop.device(identity) as device:
            assert not device.try_connect()
        wait_until(lambda: loop.status()["outbox"]["dead_letters"] == 1, "the dead letter")
        row = loop.boss.get("/v1/iot/outbox", params={"dead": "true"}).json()["rows"][0]
        assert row["key"] == "jitr-dead" and row["error"]["code"] == "iot_policy_missing"
        assert "no-such-policy" in row["error"]["text"]
        assert loop.cert_status(identity) == "PENDING_ACTIVATION"
        source = loop.stack.profiles / "policies"
        (source / "no-such-policy.json").write_text((source / "jitrca-device.json").read_text())
        assert loop.post("/v1/iot/outbox/retry", key="jitr-dead") == {"retried": 1}
        loop.wait_status(identity, "ACTIVE")
        assert loop.policies(identity) == ["no-such-policy"]
        loop.wait_drained()


def test_iot_core_away_the_outbox_grows_then_drains(loop):
    live = [loop.onboard(f"jitr-away-{n}") for n in range(3)]
    loop.core.stop()
    fresh = loop.issue("jitr-away-new")
    for identity in live[:2]:
        loop.post(f"/v1/certificates/{identity.id}/revoke", reason="superseded")
    loop.post("/v1/devices/jitr-away-2/quarantine")
    with loop.device(fresh) as device:
        assert not device.try_connect()
    wait_until(lambda: len(loop.outbox()) >= 4, "the outbox to grow")
    wait_until(lambda: loop.status()["targets"][0]["breaker"] != "closed", "the breaker to open")
    assert loop.status()["outbox"]["dead_letters"] == 0
    loop.core.start()
    loop.wait_drained(60)
    loop.iot = loop.core.client()
    assert [loop.cert_status(one) for one in [*live, fresh]] == ["REVOKED", "REVOKED", "ACTIVE", "ACTIVE"]
    assert loop.policies(live[2]) == ["jitrca-quarantine"]
    assert loop.status()["targets"][0]["breaker"] == "closed"
