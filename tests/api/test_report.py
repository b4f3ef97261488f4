"""Compliance reports: every finding provoked by what was done or by a row that was moved, the three forms, the proof."""
import base64
import csv
import hashlib
import html.parser
import io
import json
import os
import pathlib
import subprocess

import pytest

from harness import client
from harness.client import code, csr_pem, new_key
from harness.stack import Stack, wait_until

BROAD = {"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": "iot:Connect", "Resource": "arn:aws:iot:*:*:client/${iot:ClientId}"},
    {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}
# What the evaluator alone finds: no statement is a wildcard as it is written.
SLY = {"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": "arn:aws:iot:eu-central-1:*:topicfilter/?"}]}
LIVE = {"device_id", "profile", "ca", "certificate_id", "state", "not_after", "detail"}


@pytest.fixture(scope="module")
def fleet(cluster, tmp_path_factory):
    """A server with a target that nothing answers for, and policies that are its profiles'."""
    targets = tmp_path_factory.mktemp("report") / "targets.json"
    targets.write_text(json.dumps([{"name": "far", "region": "eu-central-1", "account": "123456789012",
                                    "endpoint_url": "http://127.0.0.1:9", "certificate_mode": "SNI_ONLY"}]))
    profiles = {"device": {"renewal": {"before": "360d", "overlap": "7d"}}}
    with Stack(cluster, profiles=profiles, config={"iot_targets_file": targets}, env={
            "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_EC2_METADATA_DISABLED": "true"}) as it:
        yield it


def sql(stack, *statements):
    with stack.db() as connection:
        for statement, *values in statements:
            connection.cursor().execute(statement, values)


def report(boss):
    """Asks for one and waits for it; the answer with its document."""
    asked = boss.post("/v1/reports")
    assert asked.status_code == 202, asked.text
    path = f"/v1/reports/{asked.json()['report_id']}"
    return wait_until(lambda: (lambda a: a if a.status_code != 202 else None)(boss.get(path)), "the report")


def findings(document):
    return {finding["id"]: finding for finding in document["findings"]}


def counts(boss):
    return {name: finding["count"] for name, finding in findings(report(boss).json()).items() if finding["count"]}


def issue(boss, device_id, **fields):
    answer = boss.issue(device_id, **fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


def of(column):
    return f"(SELECT {column} FROM jitrca.certificate WHERE device_id = %s)"


def test_a_sound_fleet_has_no_findings_and_the_log_proves_the_report(fleet):
    with client.admin(fleet) as boss:
        issue(boss, "sound")
        answer = report(boss)
        document = answer.json()
        assert {name: f["examples"] for name, f in findings(document).items() if f["count"]} == {}
        assert document["finding_count"] == 0 and document["worst_severity"] == ""
        digest = hashlib.sha256(answer.content).hexdigest()
        assert answer.headers["ETag"] == f'"{digest}"'
        made = boss.get("/v1/audit?action=report.make&items=true").json()["records"][-1]["items"][0]
        assert made["object"] == f"report:{document['report_id']}" and made["sha256"] == digest
        listed = boss.get("/v1/reports").json()["reports"][0]
        assert (listed["state"], listed["sha256"], listed["actor"]) == ("done", digest, document["actor"])
        assert boss.get("/v1/events?kind=report_made").json()["events"][0]["detail"]["sha256"] == digest
        audit = document["audit"]
        assert audit["verification"]["ok"] and audit["verification"]["extent"] == "every record that is kept"
        note = boss.get("/v1/audit/checkpoints?limit=1000").json()["checkpoints"][-1]
        assert audit["last_checkpoint"]["number"] == note["number"]
        assert audit["last_checkpoint"]["sha256"] == hashlib.sha256(note["note"].encode()).hexdigest()
        # The inventory is what the rows say.
        rows = fleet.query("SELECT profile, count(*) FROM jitrca.certificate GROUP BY 1")
        said = {line["profile"]: line["valid"] for line in document["inventory"]["by_ca_and_profile"]}
        assert said == dict(rows) and document["inventory"]["certificates"] == sum(said.values())
        assert {k["key_type"] for k in document["inventory"]["key_types"]} == {"ec-p256"}
        assert {s["algorithm"] for s in document["inventory"]["signature_algorithms"]} == {"ecdsa-with-SHA256"}
        ends = boss.get("/v1/certificates?device_id=sound").json()["certificates"][0]["not_after"]
        assert ends[:7] in {month["month"] for month in document["expiries"]["months"]}
        assert len(document["expiries"]["weeks"]) == 54
        assert document["retention_days"]["certificates"] is None and document["retention_days"]["reports"] == 3650
        with fleet.db() as connection, pytest.raises(Exception, match="does not change"):
            connection.cursor().execute("UPDATE jitrca.report SET findings = 0")


def test_keys_that_are_not_ones_own(fleet):
    with client.admin(fleet) as boss:
        for name in ("shared", "blocked", "orphan", "two"):
            issue(boss, f"key-{name}")
        # Blocked as well, but revoked: that is as it should be.
        dead = issue(boss, "key-dead")
        assert boss.post(f"/v1/certificates/{dead['certificate_id']}/revoke", json={"reason": "keyCompromise"}).status_code == 200
        spki = of("spki_sha256")
        sql(fleet, (f"UPDATE jitrca.key_claim SET identity = 'another' WHERE spki_sha256 = {spki}", "key-shared"),
            (f"UPDATE jitrca.key_claim SET blocked_at = now() WHERE spki_sha256 = {spki}", "key-blocked"),
            (f"DELETE FROM jitrca.key_claim WHERE spki_sha256 = {spki}", "key-orphan"),
            ("UPDATE jitrca.key_claim SET issuer_id = (SELECT issuer_id FROM jitrca.issuer WHERE kind = 'root')"
             f" WHERE spki_sha256 = {spki}", "key-two"))
        document = report(boss).json()
        assert document["worst_severity"] == "critical" and document["finding_count"] == 4
        found = findings(document)
        for name, device in (("key_shared", "key-shared"), ("key_blocked_live", "key-blocked"),
                             ("key_orphaned", "key-orphan"), ("key_under_two_cas", "key-two")):
            assert found[name]["count"] == 1 and found[name]["examples"][0]["device_id"] == device, name
            assert set(found[name]["examples"][0]) == LIVE
        assert found["key_shared"]["examples"][0]["detail"] == "another"
        assert found["key_shared"]["severity"] == "critical" and found["key_shared"]["advice"]


# One that was revoked and ran out years ago.
OVER = """
INSERT INTO jitrca.certificate (expiry_month, issuer_id, serial, status, profile, device_id, subject, principal_id,
	not_before, not_after, issued_at, sha256, spki_sha256, status_at, der)
SELECT 24288, issuer_id, set_byte(set_byte(serial, 2, 24288 / 256), 3, 24288 %% 256), 'revoked', profile, %s, subject,
	principal_id, '2023-01-01Z', '2024-01-15Z', '2023-01-01Z', sha256(der || 'x'), spki_sha256, '2023-01-01Z', der
FROM jitrca.certificate WHERE device_id = 'sound'
"""


def test_what_iot_core_says_otherwise(fleet):
    with client.admin(fleet) as boss:
        bodies = {name: issue(boss, f"iot-{name}") for name in ("revoked", "held", "there", "same")}
        for name, reason in (("revoked", "superseded"), ("held", "certificateHold"), ("same", "superseded")):
            answer = boss.post(f"/v1/certificates/{bodies[name]['certificate_id']}/revoke", json={"reason": reason})
            assert answer.status_code == 200, answer.text
        seen = ("INSERT INTO jitrca.iot_certificate (target, sha256, issuer_id, serial, device_id, status)"
                " SELECT 'far', sha256, issuer_id, serial, device_id, %s FROM jitrca.certificate WHERE device_id = %s")
        sql(fleet, (seen, "ACTIVE", "iot-revoked"), (seen, "ACTIVE", "iot-held"), (seen, "REVOKED", "iot-there"),
            (seen, "REVOKED", "iot-same"),
            ("INSERT INTO jitrca.iot_certificate (target, sha256, issuer_id, status) SELECT 'far', sha256(n::text::bytea),"
             " issuer_id, CASE n WHEN 0 THEN 'INACTIVE' ELSE 'ACTIVE' END FROM jitrca.issuer, generate_series(0, 101) n"
             " WHERE kind = 'issuing'",),
            # What has run out is refused there by itself.
            ("SELECT jitrca.ensure_month(24288)",), (OVER, "iot-over"), (seen, "ACTIVE", "iot-over"))
        found = findings(report(boss).json())
        for name, device in (("revoked_active_in_iot", "iot-revoked"), ("ended_active_in_iot", "iot-held"),
                             ("live_revoked_in_iot", "iot-there")):
            assert [e["device_id"] for e in found[name]["examples"]] == [device], name
            assert found[name]["examples"][0]["detail"] == "far"
        stranger = found["stranger_active_in_iot"]
        assert stranger["count"] == 101 and stranger["examples_more"] and len(stranger["examples"]) == 100
        assert {e["certificate_id"] for e in stranger["examples"]} < {
            hashlib.sha256(str(n).encode()).hexdigest() for n in range(1, 102)}


def test_policies_that_allow_more_than_their_own(fleet):
    policies = pathlib.Path(fleet.profiles, "policies")
    with client.admin(fleet) as boss:
        assert "iot_policy_over_broad" not in counts(boss)
        (policies / "jitrca-device.json").write_text(json.dumps(BROAD))
        (policies / "jitrca-service.json").unlink()
        sql(fleet, ("INSERT INTO iotcore.policy (name, default_version, last_version, generation) VALUES"
                    " ('sly', 2, 2, 'g'), ('torn', 1, 1, 'g')",),
            ("INSERT INTO iotcore.policy_version (policy, version, document) VALUES ('sly', 2, %s), ('sly', 1, %s),"
             " ('torn', 1, '{')", json.dumps(SLY), json.dumps(BROAD)),
            ("INSERT INTO iotcore.policy_attachment (policy, target) VALUES ('sly', 'cert/x')",))
        found = findings(report(boss).json())
        said = {(e["policy"], e["source"], e["detail"]) for e in found["iot_policy_over_broad"]["examples"]}
        device = {detail for policy, source, detail in said if (policy, source) == ("jitrca-device", "profile")}
        assert {"Allow of all actions", "Allow on all resources of a kind", "iot:Connect as any client id",
                "iot:Publish to any topic", "iot:Subscribe to #"} <= device
        assert {s for s in said if s[0] == "sly"} == {("sly", "local IoT Core, attached", "iot:Subscribe to #")}
        assert {e["policy"] for e in found["iot_policy_unread"]["examples"]} == {"jitrca-service", "torn"}


def test_what_is_late_too_long_and_all_at_once(fleet):
    with client.admin(fleet) as boss:
        key, body = new_key(), None
        body = issue(boss, "late", key=key)
        with client.device(fleet, key, body) as device:
            assert device.post("/v1/rotation", json={"csr": csr_pem(new_key())}).status_code == 201
        issue(boss, "long")
        gone = issue(boss, "long-gone")
        assert boss.post(f"/v1/certificates/{gone['certificate_id']}/revoke", json={"reason": "superseded"}).status_code == 200
        assert "rotation_unconfirmed" not in counts(boss)
        sql(fleet, ("UPDATE jitrca.certificate SET issued_at = now() - interval '8 days'"
                    " WHERE status = 'pending_confirmation'",),
            ("UPDATE jitrca.certificate SET issued_at = now() - interval '2000 days' WHERE device_id IN ('long', 'long-gone')",))
        for n in range(20):
            issue(boss, f"cliff-{n}")
        sql(fleet, ("ALTER TABLE jitrca.certificate DISABLE TRIGGER USER",),
            ("UPDATE jitrca.certificate SET der = 'x' WHERE device_id = 'cliff-0'",),
            ("ALTER TABLE jitrca.certificate ENABLE TRIGGER USER",))
        document = report(boss).json()
        found = findings(document)
        assert [e["device_id"] for e in found["rotation_unconfirmed"]["examples"]] == ["late"]
        assert [e["device_id"] for e in found["validity_over_profile"]["examples"]] == ["long"]
        assert [e["device_id"] for e in found["certificate_unreadable"]["examples"]] == ["cliff-0"]
        cliff = found["expiry_cliff"]["examples"][0]
        assert cliff["certificates"] >= 20 and cliff["percent"] >= 25
        assert [w["week"] for w in document["expiries"]["weeks"] if w["cliff"]] == [cliff["week"]]


class Page(html.parser.HTMLParser):
    """Every element that must be closed is, in order; what is text, and what is an attribute."""

    VOID = {"meta", "br", "link"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.captions, self.tables = [], [], "", 0, 0
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


EVIL = "<script>alert(1)</script>\"'&"


def test_no_form_lets_a_foreign_text_act(fleet):
    """Our own ids hold no such signs; rows of another hand do."""
    with client.admin(fleet) as boss:
        sql(fleet, ("INSERT INTO iotcore.policy (name, default_version, last_version, generation) VALUES (%s, 1, 1, 'g'),"
                    " ('=cmd|x', 1, 1, 'g')", EVIL),
            ("INSERT INTO iotcore.policy_version (policy, version, document) VALUES (%s, 1, '{'), ('=cmd|x', 1, '{')", EVIL),
            ("UPDATE jitrca.key_claim SET identity = '-1+1' WHERE identity = 'another'",))
        leads = ["=1", "+1", "@1", "\r1", "\n1"]
        for number, lead in enumerate(leads):
            issue(boss, f"lead-{number}")
            sql(fleet, (f"UPDATE jitrca.key_claim SET identity = %s WHERE spki_sha256 = {of('spki_sha256')}", lead,
                        f"lead-{number}"))
        issue(boss, "-2-3")
        spki = of("spki_sha256")
        sql(fleet, (f"UPDATE jitrca.key_claim SET identity = E'\\t=1' WHERE spki_sha256 = {spki}", "-2-3"))
        path = f"/v1/reports/{report(boss).json()['report_id']}"
        table = boss.get(path, headers={"Accept": "text/csv"})
        assert table.headers["Content-Type"].startswith("text/csv") and "attachment" in table.headers["Content-Disposition"]
        assert table.text.endswith("\r\n")
        rows = list(csv.reader(io.StringIO(table.text, newline=""), strict=True))
        assert all(len(row) == len(rows[0]) for row in rows)
        assert not [c for row in rows for c in row if c[:1] in tuple("=+-@\t\r\n")]
        assert {"'-2-3", "'-1+1", "'\t=1", *(f"'{lead}" for lead in leads)} <= {c for row in rows for c in row}
        assert any(c.startswith("'=cmd|x") for row in rows for c in row) and any(EVIL in c for row in rows for c in row)
        page = boss.get(path + "?format=html")
        policy = page.headers["Content-Security-Policy"]
        assert page.headers["Content-Type"].startswith("text/html") and "script" not in policy
        assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
        read = Page(page.text)
        names = [tag for tag, _ in read.tags]
        assert not {"script", "img", "iframe", "link", "form", "object"} & set(names)
        assert not [a for _, attrs in read.tags for a in attrs if a.startswith("on") or a in ("style", "src", "href")]
        assert names.count("table") == names.count("caption") >= 8 and names.count("style") == 1
        assert all(attrs.get("scope") for tag, attrs in read.tags if tag == "th")
        assert EVIL in read.text and "=cmd|x" in read.text
        style = page.text.split("<style>")[1].split("</style>")[0]
        assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in policy
        assert "@media print" in style and "@page" in style


def test_one_at_a_time_and_who_may_look(fleet):
    with client.admin(fleet) as boss, fleet.db() as connection:
        # The job's lock is another's, so nothing is made.
        wait_until(lambda: not fleet.query("SELECT 1 FROM jitrca.report WHERE state = 'running'"), "rest")
        cursor = connection.cursor()
        cursor.execute("SELECT pg_advisory_lock(1785, 7)")
        asked = boss.post("/v1/reports").json()
        assert asked["state"] == "running" and asked["sha256"] is None
        assert code(boss.post("/v1/reports")) == "report_under_way"
        for form in ("json", "csv", "html"):
            answer = boss.get(f"/v1/reports/{asked['report_id']}?format={form}")
            assert answer.status_code == 202 and answer.json()["report_id"] == asked["report_id"]
        for role, status in (("operator", 403), ("auditor", 202)):
            assert boss.post("/v1/principals", json={"id": f"an-{role}", "role": role}).status_code == 201
            token = boss.post(f"/v1/principals/an-{role}/tokens", json={}).json()["token"]
            with client.Client(fleet.url, fleet.ca_bundle, token=token) as somebody:
                assert somebody.get(f"/v1/reports/{asked['report_id']}").status_code == status
        cursor.execute("SELECT pg_advisory_unlock(1785, 7)")
        cursor.execute("UPDATE jitrca.report SET state = 'failed', error_code = 'test' WHERE state = 'running'")


def test_what_is_refused_and_the_command_line(fleet):
    with client.admin(fleet) as boss:
        assert code(boss.get("/v1/reports/" + "0" * 32)) == "report_unknown"
        assert code(boss.get("/v1/reports/x")) == "report_unknown"
        made = [r for r in boss.get("/v1/reports").json()["reports"] if r["state"] == "done"][0]["report_id"]
        assert code(boss.get(f"/v1/reports/{made}", headers={"Accept": "image/png"})) == "not_acceptable"
        assert code(boss.get(f"/v1/reports/{made}?format=pdf")) == "format_unknown"
        assert code(boss.post("/v1/reports", json={"x": 1})) == "field_unknown"
        sql(fleet, ("INSERT INTO jitrca.report (report_id, actor, state, error_code) VALUES"
                    " (repeat('e', 32), 'x', 'failed', 'internal')",))
        assert code(boss.get("/v1/reports/" + "e" * 32)) == "report_failed"
        page = boss.get("/v1/reports?limit=2").json()
        rest = boss.get("/v1/reports", params={"cursor": page["next_cursor"], "limit": 1}).json()
        assert len({r["report_id"] for r in page["reports"] + rest["reports"]}) == 3
    env = {**fleet.env, "JITRCA_URL": fleet.url, "JITRCA_CA_BUNDLE": fleet.ca_bundle, "JITRCA_ADMIN_TOKEN": fleet.admin_token}

    def jitrca(*args):
        return subprocess.run([str(fleet.binary), "report", *args], env=env, capture_output=True, text=True, timeout=60,
                              check=True).stdout
    assert made in jitrca("list")
    assert jitrca("show", made, "--format", "csv").startswith('"section","item"')
    assert json.loads(jitrca("show", made))["report_id"] == made
    assert "report_id" in jitrca("make") or os.environ.get("JITRCA_TEST_SANITIZER")


BREAK = ("UPDATE jitrca.audit_record SET body = body || ' '::bytea WHERE (lane, seq) ="
         " (SELECT lane, seq FROM jitrca.audit_record ORDER BY {} LIMIT 1)")
MEND = ("UPDATE jitrca.audit_record SET body = substring(body FOR length(body) - 1)"
        " WHERE substring(body FROM length(body)) = ' '::bytea")


def test_by_schedule_after_a_kill_and_with_what_changed_in_the_configuration(fleet):
    """Half a walk is on record; another server, with other rules and without the key of checkpoints, goes on from there."""
    with client.admin(fleet) as boss:
        wait_until(lambda: not fleet.query("SELECT 1 FROM jitrca.report WHERE state = 'running'"), "rest")
        # While no checkpoint can be signed, the last one grows old: two intervals are too much.
        issue(boss, "unsigned")
        sql(fleet, ("ALTER TABLE jitrca.audit_record DISABLE TRIGGER USER",),
            ("ALTER TABLE jitrca.audit_note DISABLE TRIGGER USER",), (BREAK.format("at DESC, seq DESC"),),
            ("UPDATE jitrca.audit_note SET at = at - interval '40 days'",))
        found = findings(report(boss).json())
        assert found["audit_broken"]["count"] == 1
        assert found["audit_unsigned"]["examples"][0]["detail"] == "the last checkpoint is older than two intervals"
        sql(fleet, (MEND,), ("UPDATE jitrca.audit_note SET at = at + interval '40 days'",))
        fleet.stop()
        before = {r[0] for r in fleet.query("SELECT report_id FROM jitrca.report")}
        half = fleet.query("SELECT expiry_month, issuer_id, serial FROM jitrca.certificate ORDER BY 1, 2, 3 LIMIT 5")
        sql(fleet, ("INSERT INTO jitrca.report (report_id, actor, place_month, place_issuer, place_serial, seen, work)"
                    " VALUES (repeat('a', 32), 'x', %s, %s, %s, 5, %s)", *half[-1],
                    json.dumps({"groups": {f"{half[0][1]} walked": {"valid": 5}}})),
            ("UPDATE jitrca.issuer SET created_at = now() - interval '31 days'",))
        for suffix in ("pub", "key"):
            pathlib.Path(fleet.data, "keys", f"audit_checkpoint.{suffix}").unlink()
        profile = pathlib.Path(fleet.profiles, "device.json")
        profile.write_text(json.dumps({**json.loads(profile.read_text()), "key_types": ["rsa-2048"]}))
        fleet.settings.update(report_ca_expiring="36500d")
        fleet.write_config()
        fleet.start()
        done = wait_until(lambda: [r for r in boss.get("/v1/reports").json()["reports"] if r["report_id"] == "a" * 32
                                   and r["state"] == "done"], "the rest of it")[0]
        total = fleet.query("SELECT count(*) FROM jitrca.certificate")[0][0]
        document = boss.get("/v1/reports/" + "a" * 32).json()
        assert done["certificates"] == document["inventory"]["certificates"] == total
        found = findings(document)
        assert found["ca_expiring"]["count"] == len(document["cas"]) and found["key_type_not_allowed"]["count"] > 3
        assert found["audit_unsigned"]["examples"][0]["detail"] == "there is no checkpoint key"
        assert not found["audit_broken"]["count"]
        # That one was under way when the next was due.
        scheduled = wait_until(lambda: [r for r in boss.get("/v1/reports").json()["reports"]
                                        if r["report_id"] not in before and r["actor"] == "server"], "one by schedule", 60)
        assert len(scheduled) == 1
        wait_until(lambda: not fleet.query("SELECT 1 FROM jitrca.report WHERE state = 'running'"), "its end")
        sql(fleet, (BREAK.format("lane, seq"),))
        broken = report(boss).json()
        assert findings(broken)["audit_broken"]["count"] == 1 and broken["worst_severity"] == "critical"
        assert not broken["audit"]["verification"]["ok"]
