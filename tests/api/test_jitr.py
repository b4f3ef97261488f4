"""Just-in-time registration: from a device's first knock to ACTIVE, and what becomes of it, on the local IoT Core."""
import json
import re
import subprocess
import time

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from harness.broker import ACCOUNT, REGION
from harness.client import admin, code, csr_pem, device as tls_device, new_key
from harness.described import WITH_IOT, Described
from harness.loop import WEBHOOK_SECRET, Issued, Loop
from harness.stack import BIN, Stack, wait_until


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
    thing = loop.api.describe_thing(thingName="jitr-first")
    assert thing["thingTypeName"] == "sensor" and thing["attributes"]["model"] == "m-1"
    assert loop.principals("jitr-first") == {identity.id}
    assert loop.policies(identity) == {"jitrca-device"}
    loop.wait_settled()


def test_revoked_is_revoked_there(loop):
    identity = loop.enrol("jitr-revoked")
    with loop.device(identity).connect() as device:
        begin = time.monotonic()
        loop.post(f"/v1/certificates/{identity.id}/revoke", reason="keyCompromise")
        assert device.gone.wait(10)
        assert device.gone_at - begin < 5
    loop.wait_status(identity, "REVOKED")
    loop.wait_settled()
    assert loop.principals("jitr-revoked") == set()
    assert loop.policies(identity) == set()
    with loop.device(identity) as device:
        assert not device.try_connect()


def test_a_hold_is_inactive_until_it_is_lifted(loop):
    identity = loop.enrol("jitr-held")
    loop.post(f"/v1/certificates/{identity.id}/revoke", reason="certificateHold")
    loop.wait_status(identity, "INACTIVE")
    loop.wait_settled()
    loop.post(f"/v1/certificates/{identity.id}/unhold")
    loop.wait_status(identity, "ACTIVE")
    loop.wait_settled()
    with loop.device(identity) as device:
        device.connect()


def test_a_held_one_that_knocks_is_reported(loop):
    identity = loop.issue("jitr-held-knocks")
    loop.post(f"/v1/certificates/{identity.id}/revoke", reason="certificateHold")
    with loop.device(identity) as device:
        assert not device.try_connect()
    loop.wait_status(identity, "INACTIVE")
    loop.wait_settled()
    events = loop.events(device_id="jitr-held-knocks")
    assert [one["kind"] for one in events] == ["iot_held_certificate"]
    assert events[0]["certificate_id"] == identity.id and events[0]["target"] == "local"


def test_rotation_overlaps_and_confirm_ends_the_old_one(loop):
    old = loop.enrol("jitr-rotate")
    key = new_key()
    with tls_device(loop.stack, old.key, old.body) as client:
        answer = client.post("/v1/rotation", json={"csr": csr_pem(key)})
    assert answer.status_code in (200, 201), answer.text
    new = Issued(key, answer.json())
    with loop.device(new) as device:
        assert not device.try_connect()
    loop.wait_status(new, "ACTIVE")
    loop.wait_settled()
    assert loop.status(old) == "ACTIVE"
    assert loop.principals("jitr-rotate") == {old.id, new.id}
    with loop.device(new) as device:
        device.connect()
    with tls_device(loop.stack, new.key, new.body) as client:
        assert client.post("/v1/rotation/confirm").status_code == 200
    loop.wait_status(old, "INACTIVE")
    loop.wait_settled()
    assert loop.principals("jitr-rotate") == {new.id}
    assert loop.policies(old) == set()
    with loop.device(new) as device:
        device.connect()


def test_quarantine_narrows_and_release_restores(loop):
    identity = loop.enrol("jitr-quarantine")
    loop.post("/v1/devices/jitr-quarantine/quarantine", reason="odd traffic")
    wait_until(lambda: loop.policies(identity) == {"jitrca-quarantine"}, "quarantine's policy alone")
    loop.wait_settled()
    assert loop.status(identity) == "ACTIVE"
    groups = loop.api.list_thing_groups_for_thing(thingName="jitr-quarantine")["thingGroups"]
    assert [one["groupName"] for one in groups] == ["jitrca-quarantine"]
    with loop.device(identity) as device:
        assert not device.try_connect() or not device.publish("devices/jitr-quarantine/up")
    loop.post("/v1/devices/jitr-quarantine/release")
    wait_until(lambda: loop.policies(identity) == {"jitrca-device"}, "the profile's policy")
    loop.wait_settled()
    assert loop.api.list_thing_groups_for_thing(thingName="jitr-quarantine")["thingGroups"] == []
    with loop.device(identity) as device:
        device.connect()
        assert device.publish("devices/jitr-quarantine/up")


def test_a_decommissioned_device_leaves_nothing(loop):
    identity = loop.enrol("jitr-gone")
    loop.post("/v1/devices/jitr-gone/decommission", reason="scrapped")
    loop.wait_status(identity, "REVOKED")
    loop.wait_settled()
    with pytest.raises(loop.api.exceptions.ResourceNotFoundException):
        loop.api.describe_thing(thingName="jitr-gone")


def test_what_was_never_seen_there_is_not_touched(loop):
    identity = loop.issue("jitr-never")
    loop.post(f"/v1/certificates/{identity.id}/revoke", reason="superseded")
    loop.wait_settled()
    assert loop.status(identity) is None
    with loop.device(identity) as device:
        assert not device.try_connect()
    loop.wait_status(identity, "REVOKED")
    wait_until(lambda: [one["kind"] for one in loop.events(device_id="jitr-never")] == ["iot_revoked_certificate"],
               "the event")


def test_the_certificate_says_what_iot_core_said(loop):
    identity = loop.enrol("jitr-shown")
    shown = loop.boss.get(f"/v1/certificates/{identity.id}").json()
    assert shown["iot"]["status"] == "ACTIVE" and shown["iot"]["region"] and shown["iot"]["observed_at"]


def test_each_change_there_is_audited(loop):
    identity = loop.enrol("jitr-audit")
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
        wait_until(lambda: loop.iot_status()["outbox"]["dead_letters"] == 1, "the dead letter")
        row = loop.boss.get("/v1/iot/outbox", params={"dead": "true"}).json()["rows"][0]
        assert row["key"] == "jitr-dead" and row["error"]["code"] == "iot_policy_missing"
        assert "no-such-policy" in row["error"]["text"]
        assert loop.status(identity) == "PENDING_ACTIVATION"
        source = loop.stack.profiles / "policies"
        (source / "no-such-policy.json").write_text((source / "jitrca-device.json").read_text())
        assert loop.post("/v1/iot/outbox/retry", key="jitr-dead") == {"retried": 1}
        loop.wait_status(identity, "ACTIVE")
        assert loop.policies(identity) == {"no-such-policy"}
        loop.wait_settled()


def test_iot_core_away_the_outbox_grows_then_drains(loop):
    live = [loop.enrol(f"jitr-away-{n}") for n in range(3)]
    loop.core.stop()
    fresh = loop.issue("jitr-away-new")
    for identity in live[:2]:
        loop.post(f"/v1/certificates/{identity.id}/revoke", reason="superseded")
    loop.post("/v1/devices/jitr-away-2/quarantine")
    with loop.device(fresh) as device:
        assert not device.try_connect()
    wait_until(lambda: len(loop.outbox()) >= 4, "the outbox to grow")
    wait_until(lambda: loop.iot_status()["targets"][0]["breaker"] != "closed", "the breaker to open")
    assert loop.iot_status()["outbox"]["dead_letters"] == 0
    ready = requests.get(f"{loop.stack.http_url}/readyz", timeout=10)
    assert ready.status_code == 200 and "held back" in ready.json()["checks"]["iot"]
    loop.core.start()
    loop.wait_settled(60)
    assert [loop.status(one) for one in [*live, fresh]] == ["REVOKED", "REVOKED", "ACTIVE", "ACTIVE"]
    assert loop.policies(live[2]) == {"jitrca-quarantine"}
    assert loop.iot_status()["targets"][0]["breaker"] == "closed"


# ---- what `jitrca doctor` makes of it ----------------------------------------------------------------


def doctor(loop):
    """{(check, severity): texts} of GET /v1/doctor, of what is about IoT Core."""
    found = {}
    for one in loop.boss.get("/v1/doctor").json()["findings"]:
        if one["check"].startswith("iot"):
            assert (one["what_to_do"] is None) == (one["severity"] == "ok"), one
            found.setdefault((one["check"], one["severity"]), []).append(one["finding"])
    return found


def test_the_doctor_finds_all_well(loop):
    loop.wait_settled()
    found = doctor(loop)
    assert {check for check, severity in found if severity == "ok"} >= {
        "iot_registration", "iot_calls", "iot_quotas", "iot_outbox", "iot_broker"}, found
    assert found["iot_registration", "ok"] == [f"local: {loop.ca_id} is ACTIVE there, with auto-registration"]
    assert all("webhook is configured" in text for text in found["iot_rule", "warning"])
    assert not [one for one in found if one[1] in ("error", "unknown")], found


def test_the_doctor_asks_iot_core_itself(loop):
    ca, = loop.api.list_ca_certificates()["certificates"]
    loop.api.update_ca_certificate(certificateId=ca["certificateId"], newAutoRegistrationStatus="DISABLE")
    assert "auto-registration off" in doctor(loop)["iot_registration", "error"][0]
    loop.api.update_ca_certificate(certificateId=ca["certificateId"], newAutoRegistrationStatus="ENABLE")
    with loop.stack.db() as connection:
        cursor = connection.cursor()
        cursor.execute("UPDATE jitrca.iot_ca SET status = 'INACTIVE'")
        assert "is INACTIVE: no new device" in doctor(loop)["iot_registration", "error"][0]
        cursor.execute("UPDATE jitrca.iot_ca SET status = 'ACTIVE'")
    assert ("iot_registration", "ok") in doctor(loop)


def test_the_doctor_finds_the_rule_and_its_destination(loop):
    loop.api.create_topic_rule(ruleName="doctor", topicRulePayload={
        "sql": "SELECT * FROM '$aws/events/certificates/registered/+'", "ruleDisabled": True,
        "actions": [{"http": {"url": "https://127.0.0.1:9/v1/iot/jitr-events"}}]})
    # Its destination was made with it, and nobody answers there.
    wait_until(lambda: loop.core.query("SELECT 1 FROM iotcore.topic_rule_destination WHERE NOT confirmation_due"),
               "the try to confirm it")
    destination, rule = doctor(loop)["iot_rule", "error"]
    assert "the destination is not " in destination and "the rule doctor is disabled" in rule
    loop.api.enable_topic_rule(ruleName="doctor")
    loop.core.query("UPDATE iotcore.topic_rule_destination SET status = 'ENABLED'")
    assert len(doctor(loop)["iot_rule", "ok"]) == 2
    loop.api.delete_topic_rule(ruleName="doctor")
    loop.core.query("DELETE FROM iotcore.topic_rule_destination")


def test_the_doctor_sees_what_waits_too_long(loop):
    with loop.stack.db() as connection:
        cursor = connection.cursor()
        # Nobody leases what is not due yet.
        cursor.execute("INSERT INTO jitrca.outbox (device_id, cause, priority, created_at, due_at, failed_at) VALUES"
                       " ('doctor-1', 'revoke', 0, now() - interval '61 seconds', now() + interval '1 hour', NULL),"
                       " ('doctor-2', 'issue', 1, now() - interval '61 seconds', now() + interval '1 hour', NULL),"
                       " ('doctor-3', 'issue', 1, now(), now() + interval '1 hour', now())")
        found = doctor(loop)
        cursor.execute("DELETE FROM jitrca.outbox WHERE device_id LIKE 'doctor-%'")
    assert found["iot_outbox", "error"][0].startswith("1 revocations and quarantines wait, the oldest for 6")
    assert found["iot_outbox", "warning"] == ["1 dead letters wait for somebody"]


def test_the_doctor_reads_the_last_comparison(loop):
    loop.post("/v1/iot/reconcile")
    wait_until(lambda: all(one["state"] == "done" for one in loop.boss.get("/v1/iot/reconcile").json()["walks"]),
               "the comparison")
    assert ("iot_compared", "ok") in doctor(loop)
    loop.core.query("UPDATE jitrca.iot_walk SET drift = '{\"a\": 2, \"b\": 1}' WHERE kind = 'reconcile'")
    assert "found 3 differences" in doctor(loop)["iot_compared", "warning"][0]
    loop.core.query("UPDATE jitrca.iot_walk SET drift = '{}' WHERE kind = 'reconcile'")


# ---- the other ways of hearing -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def deaf(cluster):
    """Nobody subscribes: the webhook and the sweep alone bring events."""
    with Loop(cluster, mqtt=False) as it:
        yield it


def event_of(identity, **changes):
    return {"certificateId": identity.id, "caCertificateId": ca_id(identity), "timestamp": int(time.time() * 1000),
            "certificateStatus": "PENDING_ACTIVATION", "awsAccountId": ACCOUNT,
            "certificateRegistrationTimestamp": str(int(time.time() * 1000)), **changes}


def ca_id(identity):
    return x509.load_pem_x509_certificate(identity.body["chain"].encode()).fingerprint(hashes.SHA256()).hex()


def deliver(loop, body, secret=WEBHOOK_SECRET, **headers):
    if secret is not None:
        headers["x-jitrca-webhook-secret"] = secret
    return requests.post(f"{loop.stack.url}/v1/iot/jitr-events", data=body if isinstance(body, bytes) else json.dumps(body),
                         headers={"Content-Type": "application/json", **headers}, verify=loop.stack.ca_bundle, timeout=10)


def knock(loop, device_id):
    identity = loop.issue(device_id)
    with loop.device(identity) as device:
        assert not device.try_connect()
    wait_until(lambda: loop.status(identity) == "PENDING_ACTIVATION", "the registration")
    return identity


def test_a_delivery_activates(deaf):
    one, two = knock(deaf, "hook-1"), knock(deaf, "hook-2")
    assert deliver(deaf, event_of(one)).json() == {"accepted": 1}
    deaf.wait_status(one, "ACTIVE")
    answer = deliver(deaf, [event_of(two), event_of(one, timestamp=1000)])
    assert answer.status_code == 200 and answer.json() == {"accepted": 2}
    deaf.wait_status(two, "ACTIVE")
    deaf.wait_settled()
    # Replayed and overtaken: nothing is done again.
    applied = "SELECT r.at FROM jitrca.audit_record r JOIN jitrca.audit_item USING (lane, seq)" \
              " WHERE r.action = 'iot.apply' AND object IN ('device:hook-1', %s) ORDER BY 1"
    before = deaf.stack.query(applied, f"certificate:{one.id}")
    assert before and deliver(deaf, event_of(one, timestamp=1000)).status_code == 200
    deaf.wait_settled()
    assert deaf.stack.query(applied, f"certificate:{one.id}") == before


def test_what_is_no_delivery_changes_nothing(deaf):
    def heard(source, result):
        metrics = requests.get(f"{deaf.stack.http_url}/metrics", timeout=10).text
        found = re.search(rf'jitrca_jitr_events_total\{{source="{source}",result="{result}"\}} (\d+)', metrics)
        return int(found.group(1)) if found else 0

    before = {what: heard(*what) for what in (("webhook", "accepted"), ("webhook", "refused"), ("sweep", "accepted"))}
    identity = knock(deaf, "hook-bad")
    deaf.wait_settled()
    good = event_of(identity)
    cases = [
        ({"secret": None}, good, 401, "webhook_secret_missing"),
        ({"secret": WEBHOOK_SECRET[:-1]}, good, 403, "webhook_secret_wrong"),
        ({"secret": ""}, good, 403, "webhook_secret_wrong"),
        ({}, {**good, "awsAccountId": "999999999999"}, 403, "jitr_wrong_account"),
        ({}, {**good, "awsAccountId": 999999999999}, 400, "jitr_malformed"),
        ({}, {**good, "caCertificateId": "0" * 64}, 403, "jitr_unknown_ca"),
        ({}, {**good, "certificateId": "zz"}, 400, "jitr_malformed"),
        ({}, {**good, "certificateStatus": "ACTIVE"}, 400, "jitr_malformed"),
        ({}, {**good, "timestamp": "1"}, 400, "jitr_malformed"),
        ({}, {**good, "timestamp": -1}, 400, "jitr_malformed"),
        ({}, b"{", 400, "jitr_malformed"),
        ({}, b"", 400, "jitr_malformed"),
        ({}, b'"text"', 400, "jitr_malformed"),
        ({}, [good] * 101, 400, "jitr_malformed"),
        ({}, b"[" * 20000, 400, "jitr_malformed"),
    ]
    for options, body, status, want in cases:
        answer = deliver(deaf, body, **options)
        assert (answer.status_code, code(answer)) == (status, want), (options, body)
    untouched = deaf.outbox() == [] and deaf.status(identity) == "PENDING_ACTIVATION"
    # The sweep, once a minute, may have come by and found the device that waits.
    assert untouched or heard("sweep", "accepted") > before["sweep", "accepted"]
    assert heard("webhook", "accepted") == before["webhook", "accepted"]
    assert heard("webhook", "refused") >= before["webhook", "refused"] + len(cases)


def test_one_bad_event_does_not_keep_the_others_out(deaf):
    identity = knock(deaf, "hook-mixed")
    answer = deliver(deaf, [{"nonsense": True}, event_of(identity)])
    assert (answer.status_code, code(answer)) == (400, "jitr_malformed")
    deaf.wait_status(identity, "ACTIVE")


def test_a_confirmation_is_answered_for_our_account_alone(deaf):
    arn = f"arn:aws:iot:{REGION}:{ACCOUNT}:ruledestination/http/00000000-0000-0000-0000-000000000000"
    url = f"https://iot.{REGION}.amazonaws.com/confirmdestination/token"
    good = {"arn": arn, "confirmationToken": "token", "enableUrl": url, "messageType": "DestinationConfirmation"}
    confirming = {"secret": None, "x-amz-rules-engine-message-type": "DestinationConfirmation"}
    for change in ({"arn": arn.replace(ACCOUNT, "999999999999")}, {"arn": arn.replace(REGION, "us-east-1")},
                   {"enableUrl": "https://evil.example/confirmdestination/token"},
                   {"enableUrl": url.replace("https", "http")},
                   {"enableUrl": f"https://iot.{REGION}.amazonaws.com.evil.example/confirmdestination/token"}):
        answer = deliver(deaf, {**good, **change}, **confirming)
        assert (answer.status_code, code(answer)) == (403, "webhook_wrong_account"), change
    # Asked of IoT Core itself, which does not know the token.
    answer = deliver(deaf, good, **confirming)
    assert code(answer).startswith("iot_"), answer.text


def test_the_doctor_says_that_nobody_subscribes(deaf):
    assert "nobody subscribes" in doctor(deaf)["iot_broker", "note"][0]


def test_the_sweep_finds_what_nobody_told(deaf):
    identity = knock(deaf, "swept")
    deaf.stack.query("UPDATE jitrca.iot_walk SET started_at = NULL WHERE kind = 'sweep' RETURNING 1")
    deaf.stack.restart()
    deaf.wait_status(identity, "ACTIVE", 30)


def test_a_stranger_of_our_ca_is_inactive_and_reported(deaf):
    """In IoT Core's books but not in ours."""
    identity = knock(deaf, "stranger")
    ghost = x509.load_pem_x509_certificate(identity.body["certificate"].encode())
    with deaf.stack.db() as connection:
        cursor = connection.cursor()
        # As after a restore that lost it: no guard of ours would let it go.
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("DELETE FROM jitrca.certificate WHERE sha256 = %s", (ghost.fingerprint(hashes.SHA256()),))
    assert deliver(deaf, event_of(identity)).status_code == 200
    deaf.wait_status(identity, "INACTIVE")
    deaf.wait_settled()
    events = [one for one in deaf.events(kind="iot_unknown_certificate") if one["certificate_id"] == identity.id]
    assert len(events) == 1 and events[0]["severity"] == "critical" and events[0]["device_id"] is None
    assert deaf.events(kind="iot_unknown_certificate", severity="low") == []


def test_reconciliation_tells_drift_and_repairs_it_when_asked(deaf):
    good, off = knock(deaf, "drift-good"), knock(deaf, "drift-off")
    revoked = knock(deaf, "drift-revoked")
    for identity in (good, off, revoked):
        assert deliver(deaf, event_of(identity)).status_code == 200
        deaf.wait_status(identity, "ACTIVE")
    deaf.post(f"/v1/certificates/{revoked.id}/revoke", reason="keyCompromise")
    deaf.wait_status(revoked, "REVOKED")
    deaf.wait_settled()

    def walked(**body):
        deaf.post("/v1/iot/reconcile", **body)
        wait_until(lambda: deaf.boss.get("/v1/iot/reconcile").json()["walks"][0]["state"] == "done", "the walk", 30)
        return deaf.boss.get("/v1/iot/reconcile").json()["walks"][0]

    walked(repair=True)  # what other tests have left waiting
    deaf.wait_settled()
    deaf.api.update_certificate(certificateId=off.id, newStatus="INACTIVE")
    walk = walked()
    assert walk["drift"]["inactive_wanted_active"] == 1 and walk["drift"]["changed_there"] == 1
    assert walk["seen"] >= 3 and not walk["repair"]
    assert deaf.status(off) == "INACTIVE"
    walk = walked(repair=True)
    assert walk["drift"] == {"inactive_wanted_active": 1} and walk["repair"]
    deaf.wait_status(off, "ACTIVE")
    deaf.wait_settled()
    assert walked()["drift"] == {}


def test_a_server_without_the_target_leaves_its_rows_to_those_that_have_it(deaf):
    identity = knock(deaf, "elsewhere-1")
    assert deliver(deaf, event_of(identity)).status_code == 200
    deaf.wait_status(identity, "ACTIVE")
    deaf.wait_settled()
    deaf.stack.stop()
    with Stack(deaf.cluster, share=deaf.stack) as other, admin(other) as boss:
        left = "the outbox is left to servers that have local as well"
        wait_until(lambda: requests.get(f"http://{other.settings['http']}/readyz", timeout=10).json()["checks"].get("iot") == left,
                   "the target to be seen")
        # By whose quotas would it go?
        assert code(boss.post("/v1/campaigns", json={"selector": {"device_ids": ["elsewhere-1"]}})) == "iot_target_elsewhere"
        answer = boss.post("/v1/revocations", json={"selector": {"device_id": "elsewhere-1"}, "reason": "keyCompromise"})
        assert answer.status_code == 202, answer.text
        path = f"/v1/revocations/{answer.json()['revocation_id']}"
        wait_until(lambda: boss.get(path).json()["state"] == "done", "the revocation")
        # It was told of the row at once, and goes through all targets of a receipt in one round.
        wait_until(lambda: boss.get(path).json()["targets"]["crl"]["state"] == "done", "the list's part of the receipt")
        assert boss.get(path).json()["targets"]["iot"]["state"] == "running"
        assert boss.get("/v1/iot/outbox").json()["rows"][0]["key"] == "elsewhere-1"
    deaf.stack.start()
    deaf.wait_status(identity, "REVOKED")
    deaf.wait_settled()
    wait_until(lambda: deaf.boss.get(path).json()["targets"]["iot"]["state"] == "done", "the receipt")


def test_every_answer_is_as_described(deaf):
    boss = Described(deaf.boss)
    ca = "/v1/cas/issuing-1/iot-registration"
    identity = knock(deaf, "described")
    hook = {"x-jitrca-webhook-secret": WEBHOOK_SECRET}
    boss("POST", "/v1/iot/jitr-events", 200, json=event_of(identity), headers=hook)
    deaf.wait_status(identity, "ACTIVE")
    boss("POST", "/v1/iot/jitr-events", 401, "webhook_secret_missing", json={})
    boss("POST", "/v1/iot/jitr-events", 403, "webhook_secret_wrong", json={}, headers={"x-jitrca-webhook-secret": "no"})
    boss("POST", "/v1/iot/jitr-events", 400, "jitr_malformed", json={}, headers=hook)
    boss("GET", "/v1/iot/status", 200)
    boss("GET", "/v1/iot/outbox", 200)
    boss("GET", "/v1/iot/outbox?dead=maybe", 400, "dead_malformed")
    boss("GET", "/v1/iot/outbox?cursor=x", 400, "cursor_malformed")
    boss("POST", "/v1/iot/outbox/retry", 200)
    boss("POST", "/v1/iot/outbox/retry", 404, "outbox_row_unknown", json={"key": "nobody"})
    boss("GET", "/v1/iot/reconcile", 200)
    boss("POST", "/v1/iot/reconcile", 202, json={"target": "local"})
    boss("POST", "/v1/iot/reconcile", 404, "iot_target_unknown", json={"target": "other"})
    boss("GET", "/v1/events", 200)
    boss("GET", "/v1/events?severity=odd", 400, "severity_unknown")
    boss("GET", f"/v1/certificates/{identity.id}", 200)
    boss("POST", f"{ca}/deactivate", 200)
    boss("DELETE", ca, 200)
    boss("POST", ca, 200, json={"target": "local"})
    boss("GET", ca, 200)
    boss("GET", "/v1/cas/none/iot-registration", 404, "ca_unknown")
    # A whole succession is in tests/e2e/test_succession.py.
    boss("POST", "/v1/cas/issuing-1/successor", 404, "successor_unknown", json={"successor": "nobody"})
    boss("GET", "/v1/cas/issuing-1/succession", 404, "succession_unknown")
    boss("POST", "/v1/cas/issuing-1/succession", 404, "succession_unknown", json={"to": "registered"})
    assert WITH_IOT <= set(Described.calls), WITH_IOT - set(Described.calls)
    pages, query = [], {"limit": 1}
    while True:
        page = boss("GET", "/v1/events", 200, params=query).json()
        pages += page["events"]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    ids = [one["event_id"] for one in pages]
    assert ids == sorted(ids, reverse=True) and len(set(ids)) == len(ids)


def test_the_command_line_steers_it(deaf):
    def run(*words):
        environment = {"JITRCA_URL": deaf.stack.url, "JITRCA_CA_BUNDLE": deaf.stack.ca_bundle,
                       "JITRCA_ADMIN_TOKEN": deaf.stack.admin_token}
        done = subprocess.run([str(BIN), *words], env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout
    assert '"ACTIVE"' in run("iot", "register-ca", "issuing-1", "--json")
    assert "breaker" in run("iot", "status", "--json")
    run("iot", "outbox")
    run("iot", "retry")
    assert "local" in run("iot", "reconcile", "--repair")
    run("iot", "reconciled")
    run("event", "list")
    assert "INACTIVE" in run("iot", "deactivate-ca", "issuing-1", "--target", "local")
    assert "DELETED" in run("iot", "delete-ca", "issuing-1")
    assert "ACTIVE" in run("iot", "register-ca", "issuing-1")


def test_a_ca_is_adopted_switched_off_and_deleted(deaf):
    first = deaf.boss.get("/v1/cas/issuing-1/iot-registration").json()["registrations"]
    assert len(first) == 1 and first[0]["status"] == "ACTIVE" and first[0]["auto_registration"]
    issued = "SELECT count(*) FROM jitrca.certificate WHERE profile = 'iot-verification'"
    proofs = deaf.stack.query(issued)
    assert deaf.post("/v1/cas/issuing-1/iot-registration")["ca_certificate_id"] == first[0]["ca_certificate_id"]
    assert deaf.stack.query(issued) == proofs  # no second proof
    off = deaf.post("/v1/cas/issuing-1/iot-registration/deactivate")
    assert off["status"] == "INACTIVE" and not off["auto_registration"]
    there = deaf.api.describe_ca_certificate(certificateId=off["ca_certificate_id"])["certificateDescription"]
    assert there["status"] == "INACTIVE" and there["autoRegistrationStatus"] == "DISABLE"
    gone = deaf.boss.request("DELETE", "/v1/cas/issuing-1/iot-registration")
    assert gone.status_code == 200 and gone.json()["status"] == "DELETED"
    assert deaf.post("/v1/cas/issuing-1/iot-registration")["status"] == "ACTIVE"
    answer = deaf.boss.post("/v1/cas/issuing-1/iot-registration", json={"target": "elsewhere"})
    assert (answer.status_code, code(answer)) == (404, "iot_target_unknown")


# ---- registration beforehand -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["DEFAULT", "SNI_ONLY"])
def test_what_is_registered_beforehand_gets_in_at_once(cluster, mode):
    profiles = {"device": {"iot": {"policies": ["jitrca-device"], "thing_groups": ["early", "all:meters"], "preregister": True}}}
    with Loop(cluster, mqtt=False, profiles=profiles, target={"certificate_mode": mode}) as loop:
        identity = loop.issue("early-1")
        assert loop.status(identity) == "ACTIVE"  # before the answer came
        with loop.device(identity) as device:
            device.connect()
            assert device.publish("devices/early-1/up")
        loop.wait_settled()
        groups = loop.api.list_thing_groups_for_thing(thingName="early-1")["thingGroups"]
        assert {one["groupName"] for one in groups} == {"early", "all:meters"}
        # IoT Core away: the answer waits for a while, not for ever.
        loop.core.stop()
        begin = time.monotonic()
        late = loop.issue("early-2")
        assert 1.5 < time.monotonic() - begin < 10
        announced = f"SELECT 1 FROM jitrca.iot_certificate WHERE sha256 = '\\x{late.id}' AND under_way AND status = 'DELETED'"
        assert loop.stack.query(announced)  # before the call: its outcome may never be recorded
        loop.core.start()
        loop.wait_status(late, "ACTIVE", 60)
        loop.wait_settled()
        assert not loop.stack.query(announced)
        # Killed between the call and its record: what it did there is found and taken back all the same.
        loop.stack.query("UPDATE jitrca.iot_certificate SET status = 'DELETED', activated_at = NULL, under_way = true"
                         f" WHERE sha256 = '\\x{late.id}' RETURNING 1")
        loop.post(f"/v1/certificates/{late.id}/revoke", reason="keyCompromise")
        loop.wait_status(late, "REVOKED")
        loop.wait_settled()


def test_a_hold_holds_though_nobody_recorded_what_came_before(loop):
    identity = loop.enrol("jitr-doubt")
    loop.post(f"/v1/certificates/{identity.id}/revoke", reason="certificateHold")
    loop.wait_status(identity, "INACTIVE")
    loop.wait_settled()
    # Lifted, told to IoT Core, killed before that was on record, and held again: its row is in the outbox still.
    loop.api.update_certificate(certificateId=identity.id, newStatus="ACTIVE")
    loop.stack.query(f"UPDATE jitrca.iot_certificate SET under_way = true WHERE sha256 = '\\x{identity.id}' RETURNING 1")
    loop.stack.query("INSERT INTO jitrca.outbox (device_id, cause) VALUES ('jitr-doubt', 'revocation') RETURNING 1")
    loop.wait_status(identity, "INACTIVE")
    loop.wait_settled()
    assert not loop.stack.query(f"SELECT 1 FROM jitrca.iot_certificate WHERE sha256 = '\\x{identity.id}' AND under_way")
