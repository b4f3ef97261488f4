"""Principals, stations, tokens, manifests, devices, CAs, audit, bulk revocation: each call, good and bad, as described."""
import base64
import hashlib
import json

import jsonschema
import pytest
import requests

from harness import client, ocsp
from harness.client import csr_pem, new_key
from harness.described import OPERATIONS, WITH_IOT, Described, check
from harness.stack import wait_until


@pytest.fixture(scope="module")
def boss(stack):
    with client.admin(stack) as it:
        yield Described(it)


def with_token(stack, boss, path, **fields):
    token = boss("POST", f"{path}/tokens", 201, json=fields).json()
    return Described(client.Client(stack.url, stack.ca_bundle, token=token["token"])), token["token_id"]


def kind(name):
    return {"Content-Type": name}


def test_the_check_itself_can_fail(stack):
    with client.admin(stack) as it:
        answer = it.get("/v1/cas")
    with pytest.raises(jsonschema.ValidationError):
        check({"responses": {"200": {"content": {"application/json": {"schema": {
            "$ref": "#/components/schemas/Station"}}}}}}, answer)


def test_principals(stack, boss):
    boss("POST", "/v1/principals", 201, json={"id": "op-1", "role": "operator", "description": "Ö"})
    boss("POST", "/v1/principals", 201, json={"id": "aud-1", "role": "auditor"})
    for code, status, body in (("principal_exists", 409, {"id": "op-1", "role": "operator"}),
                               ("role_unknown", 400, {"id": "x", "role": "station"}),
                               ("id_malformed", 400, {"id": "x y", "role": "admin"}),
                               ("field_malformed", 400, {"id": "x", "role": "admin", "description": "a\nb"}),
                               ("field_too_long", 400, {"id": "x", "role": "admin", "description": "a" * 257}),
                               ("field_unknown", 400, {"id": "x", "role": "admin", "color": "red"})):
        boss("POST", "/v1/principals", status, code, json=body)
    first = boss("GET", "/v1/principals?limit=1", 200).json()
    second = boss("GET", f"/v1/principals?limit=1&cursor={first['next_cursor']}", 200).json()
    assert first["principals"][0]["id"] < second["principals"][0]["id"]
    boss("GET", f"/v1/stations?cursor={first['next_cursor']}", 400, "cursor_malformed")
    boss("GET", "/v1/principals?role=x", 400, "role_unknown")
    boss("GET", "/v1/principals/op-1", 200)
    boss("GET", "/v1/principals/nope", 404, "principal_unknown")
    admins = boss("GET", "/v1/principals?role=admin", 200).json()["principals"]
    boss("POST", f"/v1/principals/{admins[0]['id']}/disable", 409, "last_admin")


def test_roles_and_tokens(stack, boss):
    operator, _ = with_token(stack, boss, "/v1/principals/op-1", valid_for="1d")
    auditor, _ = with_token(stack, boss, "/v1/principals/aud-1")
    operator("GET", "/v1/devices", 200)
    operator("GET", "/v1/audit", 403, "role_not_allowed")
    operator("POST", "/v1/principals", 403, "role_not_allowed", json={"id": "z", "role": "admin"})
    auditor("GET", "/v1/audit", 200)
    for code, body in (("valid_for_malformed", {"valid_for": "1y"}), ("token_validity_too_long", {"valid_for": "36000d"}),
                       ("token_expiry_past", {"expires_at": "2020-01-01T00:00:00Z"}),
                       ("fields_exclusive", {"expires_at": "2030-01-01T00:00:00Z", "valid_for": "1d"})):
        boss("POST", "/v1/principals/op-1/tokens", 400, code, json=body)
    short, token_id = with_token(stack, boss, "/v1/principals/op-1")
    short("GET", "/v1/devices", 200)
    boss("DELETE", f"/v1/principals/aud-1/tokens/{token_id}", 404, "token_unknown")
    boss("DELETE", f"/v1/principals/op-1/tokens/{token_id}", 204)
    boss("DELETE", f"/v1/principals/op-1/tokens/{token_id}", 204)
    short("GET", "/v1/devices", 401, "token_invalid")
    listed = boss("GET", "/v1/principals/op-1/tokens", 200).json()["tokens"]
    assert len(listed) == 2 and not any("token" in one for one in listed)
    boss("POST", "/v1/principals/op-1/disable", 200, json={})
    operator("GET", "/v1/devices", 401, "token_invalid")
    boss("POST", "/v1/principals/op-1/enable", 200)
    operator("GET", "/v1/devices", 200)


def test_a_station_and_its_manifest(stack, boss):
    boss("POST", "/v1/stations", 201, json={"id": "st-1", "rate_per_minute": 100000, "profiles": ["device"]})
    for code, body in (("id_malformed", {"id": "self"}), ("profile_unknown", {"id": "y", "profiles": ["nope"]}),
                       ("profile_not_for_stations", {"id": "y", "profiles": ["admin"]}), ("field_empty", {"id": "y", "profiles": []})):
        boss("POST", "/v1/stations", 400, code, json=body)
    boss("PATCH", "/v1/stations/st-1", 200, json={"rate_per_minute": 200000})
    assert boss("GET", "/v1/stations/st-1", 200).json()["rate_per_minute"] == 200000
    boss("PATCH", "/v1/stations/st-1", 400, "field_out_of_range", json={"rate_per_minute": 0})
    boss("GET", "/v1/principals/st-1", 404, "principal_unknown")
    boss("GET", "/v1/stations", 200)
    station, token_id = with_token(stack, boss, "/v1/stations/st-1", description="line 1")
    boss("GET", "/v1/stations/st-1/tokens", 200)

    boss("POST", "/v1/manifests", 201, json={"id": "m-1", "station": "st-1", "quantity": 1000, "device_ids": ["d-1", "d-2"]})
    for code, status, change in (("manifest_exists", 409, {"id": "m-1"}), ("station_unknown", 404, {"station": "nope"}),
                                 ("manifest_dates", 400, {"not_after": "2020-01-01T00:00:00Z"}),
                                 ("device_id_malformed", 400, {"device_ids": ["a b"]}), ("field_out_of_range", 400, {"quantity": 0})):
        boss("POST", "/v1/manifests", status, code, json={"id": "m-2", "station": "st-1", "quantity": 1, **change})
    boss("GET", "/v1/manifests/m-2", 404, "manifest_unknown")
    lines = "/v1/manifests/m-1/devices"
    added = boss("PUT", lines, 200, data="device_id\r\nd-2\r\nd-3\r\n", headers=kind("text/csv")).json()
    assert (added["lines"], added["added"], added["line_count"]) == (2, 1, 3)
    boss("POST", lines, 200, data='["d-4"]', headers=kind("application/json"))
    boss("PUT", lines, 200, data='"-5"\n', headers=kind("application/x-ndjson"))
    refused = boss("PUT", lines, 400, "device_id_malformed", data="d-6\nd 7\n", headers=kind("text/csv"))
    assert "line 2" in refused.json()["detail"]
    boss("PUT", lines, 415, "unsupported_media_type", data="d-6\n", headers=kind("text/plain"))
    assert boss("GET", "/v1/manifests/m-1", 200).json()["line_count"] == 5, "all or nothing"

    issued = {name: station.client.issue(name).json() for name in ("d-1", "d-3")}
    assert station("GET", "/v1/stations/self", 200).json()["quota"] == {"quantity": 1000, "used": 2, "left": 998}
    assert boss("GET", "/v1/stations/self", 403, "role_not_allowed").json()["detail"].endswith("of admin: admin")
    rows = boss("GET", "/v1/manifests/m-1/export", 200).text.split("\r\n")
    assert len(rows) == 7 and rows[2].startswith(f"d-1,{issued['d-1']['serial']},{issued['d-1']['certificate_id']},active,")
    assert rows[1] == "'-5,,,,"  # no spreadsheet takes it for a formula
    assert len(boss("GET", "/v1/manifests/m-1/export?issued=true", 200).text.split("\r\n")) == 4
    boss("GET", "/v1/manifests?station=st-1", 200)
    boss("POST", "/v1/manifests/m-1/close", 200)
    boss("POST", "/v1/manifests/m-1/close", 200, json={})
    boss("PUT", lines, 409, "manifest_is_closed", data="d-6\n", headers=kind("text/csv"))
    boss("POST", "/v1/stations/st-1/disable", 200)
    station("GET", "/v1/stations/self", 401, "token_invalid")
    boss("POST", "/v1/stations/st-1/enable", 200)
    boss("DELETE", f"/v1/stations/st-1/tokens/{token_id}", 204)


def test_a_devices_life(stack, boss):
    certificate = boss("POST", "/v1/certificates", 201, json={"csr": csr_pem(new_key()), "device_id": "life-1"}).json()
    boss("GET", "/v1/devices?status=active&limit=1", 200)
    boss("GET", "/v1/devices?status=x", 400, "status_unknown")
    device = boss("GET", "/v1/devices/life-1", 200).json()
    assert device["current"]["serial"] == certificate["serial"]
    for verb, status in (("quarantine", "quarantined"), ("release", "active"), ("decommission", "decommissioned")):
        device = boss("POST", f"/v1/devices/life-1/{verb}", 200, json={"reason": f"test {verb}"}).json()
        assert device["status"] == status
    assert [(c["status"], c["reason"]) for c in device["certificates"]] == [("revoked", "cessationOfOperation")]
    boss("POST", "/v1/devices/life-1/decommission", 200)
    boss("POST", "/v1/devices/life-1/release", 409, "device_decommissioned")
    boss("GET", "/v1/devices/nope", 404, "device_unknown")
    records = boss("GET", "/v1/audit?object=device:life-1", 200).json()["records"]
    assert [r["action"] for r in records][-3:] == ["device.quarantine", "device.release", "device.decommission"]


def test_cas_also_on_the_plain_listener(stack, boss):
    for ca in boss("GET", "/v1/cas", 200).json()["cas"]:
        path = f"/v1/cas/{ca['id']}"
        boss("GET", path, 200)
        boss("GET", f"{path}/chain", 200)
        boss("GET", f"{path}/certificate", 200)
        der = boss("GET", f"{path}/certificate", 200, headers={"Accept": "application/pkix-cert"}).content
        assert hashlib.sha256(der).hexdigest() == ca["certificate_id"]
        boss("GET", f"{path}/certificate", 406, "not_acceptable", headers={"Accept": "image/png"})
        text = boss("GET", f"{path}/certificate", 200, headers={"Accept": "application/x-pem-file"}).text
        assert text == ca["certificate"]
        # What an AIA leads to is DER (RFC 5280 4.2.2.1).
        assert requests.get(f"{stack.http_url}{path}/certificate", timeout=5).content == der
    boss("GET", "/v1/cas/nope", 404, "ca_unknown")


def test_bulk_revocation_and_its_receipt(boss):
    boss("POST", "/v1/certificates", 201, json={"csr": csr_pem(new_key()), "device_id": "bulk-1"})
    ask = {"selector": {"device_id": "bulk-1"}, "reason": "superseded", "comment": "two\nlines"}
    assert boss("POST", "/v1/revocations", 200, json={**ask, "dry_run": True}).json()["certificates"] == 1
    receipt = boss("POST", "/v1/revocations", 202, json=ask)
    path = receipt.headers["Location"]
    wait_until(lambda: boss("GET", path, 200).json()["targets"]["crl"]["state"] == "done", "the bulk", 10)
    assert boss("GET", path, 200).json()["revoked"] == 1
    wait_until(lambda: boss("GET", path, 200).json()["complete"], "OCSP's second", 10)
    assert boss("GET", path + "/certificates?limit=5", 200).json()["certificates"][0]["outcome"] == "revoked"
    assert boss("GET", "/v1/revocations?limit=1", 200).json()["revocations"][0]["matched"] == 1
    boss("POST", path + "/approve", 403, "approval_by_requester", json={"comment": "mine"})
    boss("POST", path + "/reject", 409, "revocation_decided")
    boss("GET", f"/v1/revocations/{'0' * 32}/certificates", 404, "revocation_unknown")
    boss("POST", "/v1/revocations", 400, "selector_field", json={**ask, "selector": {"x": "y"}})
    boss("POST", "/v1/revocations", 400, "reason_unknown", json={**ask, "reason": "x"})
    boss("GET", f"/v1/revocations/{'0' * 32}", 404, "revocation_unknown")


def test_a_list_of_blocked_keys(boss):
    digest, text = "ab" * 32, {"Content-Type": "text/plain"}
    assert boss("POST", "/v1/blocked-keys?reason=weak", 200, data=digest + "\n", headers=text).json()["added"] == 1
    boss("POST", "/v1/blocked-keys?reason=weak", 400, "blocked_key_malformed", data="x", headers=text)
    boss("POST", "/v1/blocked-keys", 400, "field_missing", data=digest, headers=text)
    assert boss("GET", "/v1/blocked-keys", 200).json()["blocked_keys"][0]["reason"] == "weak"
    boss("GET", f"/v1/blocked-keys/{digest}", 200)
    boss("POST", f"/v1/blocked-keys/{digest}/remove", 200, json={"reason": "not ours"})
    boss("GET", f"/v1/blocked-keys/{digest}", 404, "blocked_key_unknown")


def test_the_audit_log_can_be_recomputed_by_anyone(boss):
    first = boss("GET", "/v1/audit?limit=2&items=true", 200).json()
    more = boss("GET", f"/v1/audit?limit=1000&cursor={first['next_cursor']}", 200).json()
    records = first["records"] + more["records"]
    heads = {}
    for record in sorted(records, key=lambda r: (r["lane"], r["seq"])):
        digest = hashlib.blake2b(heads.get(record["lane"], bytes(32)) + record["body"].encode(), digest_size=32)
        assert digest.hexdigest() == record["hash"]
        heads[record["lane"]] = digest.digest()
    report = boss("GET", "/v1/audit/verify", 200).json()
    assert report["ok"] and report["records"] >= len(records)
    boss("POST", "/v1/audit/verify", 200)
    boss("GET", "/v1/audit?since=x", 400, "since_malformed")
    assert boss.client.post("/v1/audit/checkpoints").status_code in (200, 201)
    boss("POST", "/v1/audit/checkpoints", 200)
    for path in ("checkpoints", "checkpoints/notes", "export", "key"):
        boss("GET", f"/v1/audit/{path}", 200)
    issued = next(item["object"] for record in boss("GET", "/v1/audit?action=certificate.issue&items=true", 200).json()["records"]
                  for item in record["items"] if item["object"].startswith("certificate:"))
    boss("GET", f"/v1/audit/proof?certificate_id={issued.removeprefix('certificate:')}", 200)
    boss("GET", "/v1/audit/proof?certificate_id=x", 400, "certificate_id_malformed")
    boss("GET", "/v1/retention?certificates=400d&audit=800d", 200)


def test_campaigns_and_plans(boss):
    boss("POST", "/v1/certificates", 201, json={"csr": csr_pem(new_key()), "device_id": "many-1"})
    ask = {"selector": {"device_ids": ["many-1"]}}
    boss("POST", "/v1/campaigns", 200, json={**ask, "dry_run": True})
    boss("POST", "/v1/campaigns", 400, "selector_empty", json={"selector": {}})
    path = f"/v1/campaigns/{boss('POST', '/v1/campaigns', 202, json=ask).json()['campaign_id']}"
    wait_until(lambda: boss("GET", path, 200).json()["state"] != "filling", "its members")
    for call in ("pause", "resume", "abort"):
        boss("POST", f"{path}/{call}", 200, json={"reason": "tried"})
    boss("GET", path, 200)
    boss("GET", f"{path}/members", 200)
    boss("GET", "/v1/campaigns", 200)
    plan = boss("POST", "/v1/plans", 201).json()
    boss("GET", f"/v1/plans/{plan['plan_id']}", 200)
    boss("GET", "/v1/plans", 200)
    path = f"/v1/reports/{boss('POST', '/v1/reports', 202).json()['report_id']}"
    wait_until(lambda: boss("GET", "/v1/reports", 200).json()["reports"][0]["state"] == "done", "the report")
    for form in ("json", "csv", "html"):
        boss("GET", f"{path}?format={form}", 200)
    boss("GET", "/v1/reports", 200)


def test_coming_back_and_being_told(stack, boss):
    boss("POST", "/v1/certificates", 201, json={"csr": csr_pem(new_key()), "device_id": "back-1"})
    boss("POST", "/v1/devices/back-1/claim-codes", 400, "field_malformed", json={"spki_sha256": "x"})
    with client.Client(stack.device_url, stack.ca_bundle) as anyone:
        Described(anyone)("POST", "/v1/recovery", 403, json={"claim_code": "x", "csr": csr_pem(new_key())})
    boss("GET", "/acme/renewal-info/x.y", 400, "renewal_id_malformed")
    boss("GET", "/v1/notifications", 200)
    boss("GET", "/v1/notifications/channels", 200)
    boss("GET", f"/v1/notifications/{'0' * 32}", 404)
    boss("POST", "/v1/notifications/test", 404, json={"channel": "nobody"})
    boss("POST", "/v1/notifications/retry", 404, json={"notification_id": "0" * 32})


def test_the_rest_is_as_described(stack, boss):
    key, successor_key = new_key(), new_key()
    certificate = boss("POST", "/v1/certificates", 201, json={"csr": csr_pem(key), "device_id": "rest-1"}).json()
    boss("GET", "/v1/certificates?device_id=rest-1", 200)
    boss("GET", f"/v1/certificates/{certificate['serial']}", 200)
    boss("POST", f"/v1/certificates/{certificate['serial']}/revoke", 200, json={"reason": "certificateHold"})
    boss("POST", f"/v1/certificates/{certificate['serial']}/unhold", 200)
    boss("POST", "/v1/certificates/batch", 200, json={"requests": [{"csr": "x", "device_id": "y"}]})
    device = Described(client.device(stack, key, certificate))
    device("GET", "/v1/rotation", 200)
    successor = device("POST", "/v1/rotation", 201, json={"csr": csr_pem(successor_key)}).json()
    device("POST", "/v1/rotation/confirm", 409, "not_a_successor")
    Described(client.device(stack, successor_key, successor))("POST", "/v1/rotation/confirm", 200)
    for path in ("/healthz", "/readyz", "/metrics", f"/crl/{certificate['ca']}.crl", f"/crl/{certificate['ca']}/00.crl"):
        boss("GET", path, 200)
    # A delta has a full list to go on from once something changed after it.
    wait_until(lambda: boss.client.get(f"/crl/{certificate['ca']}/delta.crl").status_code == 200, "a delta", 10)
    boss("GET", f"/crl/{certificate['ca']}/delta.crl", 200)
    boss("GET", "/v1/crl-bundle?profile=device", 200)
    asked = ocsp.request_of(certificate)
    boss("POST", "/ocsp", 200, data=asked, headers={"Content-Type": "application/ocsp-request"})
    boss("POST", "/ocsp", 415, "unsupported_media_type", json={})
    boss("GET", "/ocsp/" + base64.urlsafe_b64encode(asked).decode(), 200)
    boss("GET", "/v1/doctor", 200)
    assert json.loads(boss("GET", "/v1/openapi.json", 200).text)["openapi"].startswith("3.1")
    assert OPERATIONS - WITH_IOT == set(Described.calls) - WITH_IOT, OPERATIONS - set(Described.calls)
