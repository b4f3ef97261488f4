"""Revocation, hold, CRLs, and who is then refused where."""
import time

import requests
from cryptography import x509

from harness import client
from harness.client import code, new_key
from harness.stack import wait_until


def shard_url(body):
    leaf = x509.load_pem_x509_certificate(body["certificate"].encode())
    points = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    return points[0].full_name[0].value


def crl_at(url):
    answer = requests.get(url, timeout=5)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/pkix-crl"
    return x509.load_der_x509_crl(answer.content)


def entry_of(stack, body, url=None):
    return crl_at(url or shard_url(body)).get_revoked_certificate_by_serial_number(int(body["serial"], 16))


def full_url(stack, body):
    return f"{stack.http_url}/crl/{body['ca']}.crl"


def revoke(boss, body, reason="keyCompromise"):
    return boss.post(f"/v1/certificates/{body['certificate_id']}/revoke", json={"reason": reason, "comment": "test"})


def test_the_first_certificate_names_its_shard(stack):
    with client.admin(stack) as boss:
        body = boss.issue("crl-1").json()
    assert shard_url(body) == f"{stack.http_url}/crl/{body['ca']}/{body['serial'][2:4]}.crl"
    assert entry_of(stack, body) is None


def test_a_revocation_shows_on_shard_and_full_list_within_a_second(stack):
    with client.admin(stack) as boss:
        body = boss.issue("crl-2").json()
        answer = revoke(boss, body)
        committed = time.monotonic()
        assert answer.status_code == 200 and answer.json()["status"] == "revoked"
        wait_until(lambda: entry_of(stack, body), "the shard", 5)
        wait_until(lambda: entry_of(stack, body, full_url(stack, body)), "the full list", 5)
        assert time.monotonic() - committed < 2  # a loose bound: the bench measures it
        entry = entry_of(stack, body)
        assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason == \
            x509.ReasonFlags.key_compromise


def test_invariant_5_revocation_is_final_and_its_date_stays(stack):
    with client.admin(stack) as boss:
        body = boss.issue("crl-3").json()
        first = revoke(boss, body, "superseded").json()
        again = revoke(boss, body, "keyCompromise")
        assert again.status_code == 200
        assert (again.json()["revoked_at"], again.json()["reason"]) == (first["revoked_at"], "superseded")
        # What it did all the same is on record: the key is blocked (invariants 8, 12).
        shown = boss.get(f"/v1/certificates/{body['certificate_id']}").json()
        assert [event.get("change") for event in shown["history"]] == ["issued", "revoked", "key_blocked"]
        unhold = boss.post(f"/v1/certificates/{body['certificate_id']}/unhold", json={})
        assert unhold.status_code == 409 and code(unhold) == "certificate_not_held"
    for sql in ("UPDATE jitrca.certificate SET status = 'active' WHERE device_id = 'crl-3'",
                "DELETE FROM jitrca.revocation WHERE true", "DELETE FROM jitrca.certificate WHERE device_id = 'crl-3'",
                "TRUNCATE jitrca.revocation", "TRUNCATE jitrca.audit_item", "DELETE FROM jitrca.audit_record",
                "UPDATE jitrca.revocation SET revoked_at = now() + interval '1 day'"):
        with stack.db() as connection:
            try:
                connection.cursor().execute(sql)
            except Exception as error:  # noqa: BLE001 - any refusal of SQL's will do
                assert error.pgcode == "23514"
            else:
                raise AssertionError(f"allowed: {sql}")


def test_a_hold_can_be_lifted(stack):
    key = new_key()
    with client.admin(stack) as boss:
        body = boss.issue("crl-4", key).json()
        assert revoke(boss, body, "certificateHold").json()["status"] == "held"
        wait_until(lambda: entry_of(stack, body), "the hold on the list", 5)
        with client.device(stack, key, body) as device:
            refused = device.get("/v1/rotation")
            assert refused.status_code == 401 and code(refused) == "certificate_revoked"
        answer = boss.post(f"/v1/certificates/{body['certificate_id']}/unhold", json={})
        assert answer.status_code == 200 and answer.json()["status"] == "active"
        wait_until(lambda: entry_of(stack, body) is None, "the hold off the list", 5)
        with client.device(stack, key, body) as device:
            assert device.get("/v1/rotation").status_code == 200


def test_invariant_7_a_revoked_device_is_refused_at_mutual_tls(stack):
    key = new_key()
    with client.admin(stack) as boss:
        body = boss.issue("crl-5", key).json()
        with client.device(stack, key, body) as device:
            assert device.get("/v1/rotation").status_code == 200
            revoke(boss, body)
            refused = device.get("/v1/rotation")
            assert refused.status_code == 401 and code(refused) == "certificate_revoked"


def test_invariant_6_numbers_grow_and_caches_are_told(stack):
    with client.admin(stack) as boss:
        body = boss.issue("crl-6").json()
        before = requests.get(shard_url(body), timeout=5)
        number = x509.load_der_x509_crl(before.content).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        assert before.headers["ETag"] and before.headers["Last-Modified"]
        directives = before.headers["Cache-Control"]
        assert int(directives.split("max-age=")[1].split(",")[0]) <= 60
        same = requests.get(shard_url(body), headers={"If-None-Match": before.headers["ETag"]}, timeout=5)
        assert same.status_code == 304 and not same.content
        assert same.headers["Content-Length"] == before.headers["Content-Length"]  # RFC 9110 8.6
        revoke(boss, body)
        wait_until(lambda: entry_of(stack, body), "the shard", 5)
        after = crl_at(shard_url(body))
        assert after.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number > number
        idp = after.extensions.get_extension_for_class(x509.IssuingDistributionPoint)
        assert idp.critical and idp.value.full_name[0].value == shard_url(body)
        full = crl_at(full_url(stack, body))
        assert not any(extension.oid == x509.oid.ExtensionOID.ISSUING_DISTRIBUTION_POINT for extension in full.extensions)


def test_bulk_revocation_shows_first_whom_it_cuts_off(stack):
    with client.station(stack, "st-bulk", device_ids=[f"bulk-{i}" for i in range(12)]) as st:
        bodies = [st.issue(f"bulk-{i}").json() for i in range(12)]
    with client.admin(stack) as boss:
        empty = boss.post("/v1/revocations", json={"selector": {}, "reason": "superseded"})
        assert empty.status_code == 400 and code(empty) == "selector_empty"
        dry = boss.post("/v1/revocations", json={"selector": {"station": "st-bulk"}, "reason": "keyCompromise",
                                                 "dry_run": True})
        assert dry.status_code == 200, dry.text
        assert dry.json()["certificates"] == 12 and dry.json()["devices"] == 12
        assert dry.json()["iot"] == []  # no target is configured
        assert boss.get(f"/v1/certificates/{bodies[0]['certificate_id']}").json()["status"] == "active"
        real = boss.post("/v1/revocations", json={"selector": {"station": "st-bulk"}, "reason": "keyCompromise",
                                                  "dry_run": False})
        assert real.status_code == 202, real.text
        receipt = real.json()["revocation_id"]
        wait_until(lambda: boss.get(f"/v1/revocations/{receipt}").json()["state"] == "done", "the bulk", 10)
        assert boss.get(f"/v1/revocations/{receipt}").json()["revoked"] == 12
        for body in bodies:
            assert boss.get(f"/v1/certificates/{body['certificate_id']}").json()["status"] == "revoked"
            wait_until(lambda body=body: entry_of(stack, body), "the shard", 5)


def test_a_bulk_that_cannot_be_read_keeps_nobody_waiting(stack):
    with stack.db() as connection:
        connection.cursor().execute(
            "INSERT INTO jitrca.bulk_revocation (revocation_id, state, actor, request_id, reason, selector, matched,"
            " issued_until) VALUES (%s, 'running', 'admin', 'r', 4, '{\"ca\": \"gone\"}', 1, now())", ("0" * 32,))
    with client.admin(stack) as boss:
        body = boss.issue("after-the-unreadable").json()
        real = boss.post("/v1/revocations", json={"selector": {"device_id": "after-the-unreadable"},
                                                  "reason": "superseded", "dry_run": False}).json()
        wait_until(lambda: boss.get(f"/v1/revocations/{real['revocation_id']}").json()["state"] == "done", "the bulk", 10)
        assert boss.get(f"/v1/certificates/{body['certificate_id']}").json()["status"] == "revoked"
        # It is read when its second look is due, which may be a moment after the other's.
        wait_until(lambda: boss.get(f"/v1/revocations/{'0' * 32}").json()["state"] == "done", "its end", 10)
    assert any(event["event"] == "bulk_revocation_unreadable" for event in stack.events())
