"""The recovery lane: claim codes for devices whose certificate has run out; one use, one device, one key."""
import concurrent.futures
import hashlib

import pytest
from cryptography.hazmat.primitives import serialization

from harness import client
from harness.client import code, csr_pem, new_key
from harness.stack import Stack, wait_until


@pytest.fixture(scope="module")
def gone(cluster):
    """Certificates that live for two seconds and have no grace."""
    profile = {"device": {"validity": {"default": "2s", "max": "1h", "backdate": "1s"},
                          "renewal": {"before": "1s", "overlap": "0s", "grace": "0s"}}}
    with Stack(cluster, profiles=profile) as it:
        yield it


def spki(key):
    return hashlib.sha256(key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def expired(stack, boss, device_id, **fields):
    answer = boss.issue(device_id, **fields)
    assert answer.status_code == 201, answer.text
    body = answer.json()
    wait_until(lambda: boss.get(f"/v1/certificates/{body['serial']}").json()["status"] == "expired", "expiry", 10)
    return body


def claim(boss, device_id, key, want=201, **fields):
    answer = boss.post(f"/v1/devices/{device_id}/claim-codes", json={"spki_sha256": spki(key), **fields})
    assert answer.status_code == want, answer.text
    return answer.json()


def patient(stack):
    """Forgets how often this address has asked: what is tried here is the code, not the pace."""
    stack.restart()


def recover(stack, text, key):
    with client.Client(stack.device_url, stack.ca_bundle) as anyone:
        answer = anyone.post("/v1/recovery", json={"claim_code": text, "csr": csr_pem(key)})
    if answer.status_code == 429:
        patient(stack)
        return recover(stack, text, key)
    return answer


def whys(boss):
    return [event["detail"]["why"] for event in boss.get("/v1/events?kind=claim_code_refused").json()["events"]]


def test_a_device_comes_back_with_a_code_and_confirms(gone):
    with client.admin(gone) as boss:
        old = expired(gone, boss, "back-1", thing_type="pump")
        key = new_key()
        issued = claim(boss, "back-1", key)
        assert issued["device_id"] == "back-1" and issued["claim_code"] not in str(gone.query(
            "SELECT * FROM jitrca.claim_code")), "only its hash is kept"
        answer = recover(gone, issued["claim_code"], key)
        assert answer.status_code == 201, answer.text
        new = answer.json()
        assert new["device_id"] == "back-1" and new["predecessor"] == old["certificate_id"]
        assert new["status"] == "pending_confirmation" and new["trust_bundle"]
        with client.device(gone, key, new) as device:
            assert device.post("/v1/rotation/confirm").status_code == 200
        kinds = [event["kind"] for event in boss.get("/v1/events?device_id=back-1").json()["events"]]
        assert kinds == ["claim_code_used", "claim_code_issued"]
        actions = [r["action"] for r in boss.get("/v1/audit?object=device:back-1").json()["records"]]
        assert "claim_code.issue" in actions and "claim_code.use" in actions


def test_every_refusal_is_one_answer_and_its_own_event(gone):
    with client.admin(gone) as boss:
        expired(gone, boss, "no-1")
        key, other = new_key(), new_key()
        first, second, third = (claim(boss, "no-1", key) for _ in range(3))
        assert recover(gone, first["claim_code"], key).status_code == 201
        gone.query("UPDATE jitrca.claim_code SET expires_at = now() WHERE claim_id = %s RETURNING 1", second["claim_id"])
        answers = [recover(gone, text, k) for text, k in (
            (first["claim_code"], key), (second["claim_code"], key), (third["claim_code"], other), ("jrt_none", key))]
        assert {(a.status_code, code(a)) for a in answers} == {(403, "claim_code_invalid")}
        assert len({a.json()["detail"] for a in answers}) == 1
        assert sorted(whys(boss)) == ["another_key", "expired", "unknown", "used_before"]
        # Who lost the answer is given another code, and gets the same certificate, as long as that lives (two seconds).
        assert recover(gone, third["claim_code"], key).status_code in (200, 201)


def test_two_at_once_use_it_once(gone):
    with client.admin(gone) as boss:
        expired(gone, boss, "race-1")
        key = new_key()
        issued = claim(boss, "race-1", key)
        patient(gone)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: recover(gone, issued["claim_code"], key), range(4)))
        assert sorted(a.status_code for a in answers) == [201, 403, 403, 403]


def test_who_may_issue_and_for_whom(gone):
    with client.admin(gone) as boss:
        key = new_key()
        fresh = boss.issue("who-live", validity_hours=1)
        assert fresh.status_code == 201
        refused = claim(boss, "who-live", key, 409)
        assert refused["code"] == "claim_not_needed"
        assert claim(boss, "who-none", key, 404)["code"] == "device_unknown"
        expired(gone, boss, "who-1")
        assert boss.post("/v1/devices/who-1/claim-codes", json={"spki_sha256": "x"}).status_code == 400
        assert claim(boss, "who-1", key, 400, valid_for_s=59)["code"] == "field_out_of_range"
        with client.station(gone, "claim-st", device_ids=["who-2"]) as station:
            assert claim(station, "who-1", key, 403)["code"] == "claim_not_allowed"
            body = station.issue("who-2").json()
            wait_until(lambda: boss.get(f"/v1/certificates/{body['serial']}").json()["status"] == "expired", "expiry", 10)
            assert recover(gone, claim(station, "who-2", key)["claim_code"], key).status_code == 201
        assert boss.post("/v1/devices/who-1/quarantine").status_code == 200
        assert claim(boss, "who-1", new_key(), 409)["code"] == "claim_not_needed"


def test_who_guesses_is_slowed_down(gone):
    patient(gone)
    key = new_key()
    with client.Client(gone.device_url, gone.ca_bundle) as anyone:
        answers = [anyone.post("/v1/recovery", json={"claim_code": "jrt_x", "csr": csr_pem(key)}) for _ in range(15)]
        codes = [code(a) for a in answers]
        assert codes[0] == "claim_code_invalid" and codes[-1] == "rate_limited"
        assert int(answers[-1].headers["Retry-After"]) > 0
