"""Rotation: window, request, confirm; what a lost answer and a second key do (invariant 13)."""
import datetime
import json
import time

import pytest

from harness import client
from harness.client import code, csr_pem, new_key
from harness.stack import ROOT, Stack, wait_until


@pytest.fixture(scope="module")
def fast(cluster):
    """Certificates that live for seconds, so that expiry and grace are real."""
    profile = {"device": {"validity": {"default": "3s", "max": "1h", "backdate": "1s"},
                          "renewal": {"before": "2s", "overlap": "1s", "grace": "1h"}}}
    with Stack(cluster, profiles=profile) as it:
        yield it


def new_device(stack, device_id, **fields):
    key = new_key()
    with client.admin(stack) as boss:
        answer = boss.issue(device_id, key, **fields)
        assert answer.status_code == 201, answer.text
    return key, answer.json()


def status_of(stack, body):
    with client.admin(stack) as boss:
        return boss.get(f"/v1/certificates/{body['certificate_id']}").json()["status"]


def test_a_device_rotates_and_confirms(stack):
    key, old = new_device(stack, "rot-1")
    with client.device(stack, key, old) as device:
        window = device.get("/v1/rotation").json()
        assert window["due"] is False and window["window"]["start"] < window["window"]["end"] < old["not_after"]
        assert window["retry_after_s"] > 0 and window["server_time"]
        successor_key = new_key()
        answer = device.post("/v1/rotation", json={"csr": csr_pem(successor_key)})
        assert answer.status_code == 201, answer.text
        new = answer.json()
        assert new.get("status", new.get("certificate", {}))
        assert new["status"] == "pending_confirmation" and new["device_id"] == "rot-1"
        assert new["predecessor"] == old["certificate_id"] and new["trust_bundle"]
        assert status_of(stack, old) == "active"
        lost = device.post("/v1/rotation", json={"csr": csr_pem(successor_key)})
        assert lost.status_code == 200 and lost.json()["certificate_id"] == new["certificate_id"]
        early = device.post("/v1/rotation/confirm")
        assert early.status_code == 409 and code(early) == "not_a_successor"
    with client.device(stack, successor_key, new) as device:
        assert device.post("/v1/rotation/confirm").status_code == 200
        assert status_of(stack, new) == "active" and status_of(stack, old) == "superseded"
        assert device.post("/v1/rotation/confirm").status_code == 200
    with client.device(stack, key, old) as device:
        refused = device.get("/v1/rotation")
        assert refused.status_code == 401 and code(refused) == "certificate_superseded"


def test_invariant_13_another_key_replaces_the_unconfirmed_successor(stack):
    key, old = new_device(stack, "rot-2")
    with client.device(stack, key, old) as device:
        first = device.post("/v1/rotation", json={"csr": csr_pem(new_key())}).json()
        second_key = new_key()
        second = device.post("/v1/rotation", json={"csr": csr_pem(second_key)}).json()
        assert status_of(stack, first) == "revoked" and status_of(stack, second) == "pending_confirmation"
        assert status_of(stack, old) == "active"
    with client.device(stack, second_key, second) as device:
        assert device.post("/v1/rotation/confirm").status_code == 200


def test_invariant_13_a_revoked_or_quarantined_device_cannot_rotate(stack):
    key, body = new_device(stack, "rot-3")
    with client.admin(stack) as boss, client.device(stack, key, body) as device:
        assert boss.post("/v1/devices/rot-3/quarantine", json={"reason": "odd"}).status_code == 200
        refused = device.post("/v1/rotation", json={"csr": csr_pem(new_key())})
        assert refused.status_code == 403 and code(refused) == "device_quarantined"
        assert boss.post("/v1/devices/rot-3/release", json={}).status_code == 200
        assert device.post("/v1/rotation", json={"csr": csr_pem(new_key())}).status_code == 201
        assert boss.post("/v1/devices/rot-3/decommission", json={"reason": "end of life"}).status_code == 200
        assert device.get("/v1/rotation").status_code in (401, 403)
        assert status_of(stack, body) == "revoked"


def test_the_same_key_is_no_rotation(stack):
    key, body = new_device(stack, "rot-4")
    with client.device(stack, key, body) as device:
        answer = device.post("/v1/rotation", json={"csr": csr_pem(key)})
        assert answer.status_code in (400, 409), answer.text


def test_a_late_device_is_told_to_rotate_at_once_and_grace_lets_it(fast):
    key, old = new_device(fast, "late-1")
    with client.device(fast, key, old) as device:
        wait_until(lambda: device.get("/v1/rotation").json()["due"], "due", 10)
        wait_until(lambda: status_of(fast, old) == "expired", "expiry", 10)
        late = device.get("/v1/rotation")
        assert late.status_code == 200 and late.json()["due"] is True and late.json()["retry_after_s"] == 0
        answer = device.post("/v1/rotation", json={"csr": csr_pem(new_key())})
        assert answer.status_code == 201, answer.text


def stamp(at):
    return datetime.datetime.fromtimestamp(at, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_an_expired_device_is_let_in_for_its_grace_and_not_a_second_longer(cluster):
    profile = {"device": {"validity": {"default": "2s", "max": "1h", "backdate": "1s"},
                          "renewal": {"before": "1s", "overlap": "0s", "grace": "0s"}}}
    profile["patient"] = {**json.loads((ROOT / "certs" / "device.json").read_text()), **profile["device"], "name": "patient"}
    profile["patient"]["renewal"] = {"before": "1s", "overlap": "0s", "grace": "2s"}
    with Stack(cluster, profiles=profile) as it:
        made = {name: new_device(it, f"late-{name}", profile=name) for name in ("patient", "device")}
        for name, grace_s in (("device", 0), ("patient", 2)):
            key, old = made[name]
            ends = datetime.datetime.fromisoformat(old["not_after"].replace("Z", "+00:00")).timestamp() + grace_s
            reasons = set()
            with client.device(it, key, old) as device:
                while (answer := device.get("/v1/rotation")).status_code == 200:
                    assert answer.json()["server_time"] < stamp(ends), "beyond its grace"
                    reasons.add(answer.json()["reason"])
                    time.sleep(0.02)  # there is no event: it is the clock's doing
                assert code(answer) == "certificate_expired" and time.time() >= ends, "within its grace"
                assert ("expired" in reasons) == (grace_s > 0), reasons


def test_invariant_13_who_does_not_confirm_is_listed_as_late(cluster):
    profile = {"device": {"validity": {"default": "120s", "max": "1h", "backdate": "1s"},
                          "renewal": {"before": "119s", "overlap": "118s", "grace": "0s"}}}
    with Stack(cluster, profiles=profile) as it, client.admin(it) as boss:
        def late():
            return [d["device_id"] for d in boss.get("/v1/devices?late=true").json()["devices"]]
        keys = {name: new_device(it, name) for name in ("late-a", "late-b")}
        wait_until(lambda: sorted(late()) == ["late-a", "late-b"], "both are late", 10)
        page = boss.get("/v1/devices?late=true&limit=1").json()
        names = [d["device_id"] for d in page["devices"]]
        page = boss.get("/v1/devices", params={"late": "true", "limit": 1, "cursor": page["next_cursor"]}).json()
        names += [d["device_id"] for d in page["devices"]]
        assert sorted(names) == ["late-a", "late-b"]
        key, old = keys["late-a"]
        with client.device(it, key, old) as device:
            fresh = new_key()
            answer = device.post("/v1/rotation", json={"csr": csr_pem(fresh)})
            assert answer.status_code == 201, answer.text
        assert sorted(late()) == ["late-a", "late-b"]
        with client.device(it, fresh, answer.json()) as device:
            assert device.post("/v1/rotation/confirm").status_code == 200
        assert late()[0] == "late-b"
        refused = boss.get("/v1/devices?late=true&status=active")
        assert refused.status_code == 400 and code(refused) == "late_not_alone"
        assert code(boss.get("/v1/devices?late=yes")) == "late_malformed"
