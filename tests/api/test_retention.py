"""Retention lets go whole months of certificates, and of the audit log what a signed checkpoint holds; nothing unless told."""
import re
import subprocess

import psycopg2
import pytest

from harness import audit, client
from harness.stack import Stack, wait_until

OLD_MONTH = 2024 * 12  # January 2024, as serials have it

OLD_CERTIFICATE = """
SELECT jitrca.ensure_month(%(month)s);
INSERT INTO jitrca.certificate (expiry_month, issuer_id, serial, status, profile, device_id, subject, principal_id,
	not_before, not_after, issued_at, sha256, spki_sha256, status_at, der)
SELECT %(month)s, issuer_id, set_byte(set_byte(serial, 2, %(month)s / 256), 3, %(month)s %% 256), 'active', profile,
	device_id, subject, principal_id, '2023-01-01Z', '2024-01-15Z', '2023-01-01Z', sha256(der || 'x'), spki_sha256,
	'2023-01-01Z', der FROM jitrca.certificate LIMIT 1;
UPDATE jitrca.device_slot s SET successor_issuer = c.issuer_id, successor_serial = c.serial FROM jitrca.certificate c
	WHERE c.expiry_month = %(month)s AND c.device_id = s.device_id;
"""


def old_notes(own):
    """As if they had been signed forty days ago: as a superuser alone can."""
    with own.db() as connection:
        connection.cursor().execute("ALTER TABLE jitrca.audit_note DISABLE TRIGGER USER;"
                                    "UPDATE jitrca.audit_note SET at = at - interval '40 days'")


def old_receipts(own, boss):
    """Two that were finished forty days ago, and one of yesterday."""
    made = [boss.post("/v1/revocations", json={"selector": {"device_id": f"gone-{n}"}, "reason": "superseded"}).json()
            for n in range(3) if boss.issue(f"gone-{n}").status_code == 201]
    wait_until(lambda: own.query("SELECT count(*) FROM jitrca.bulk_revocation WHERE settled_at IS NOT NULL") == [(3,)],
               "the receipts")
    with own.db() as connection:
        cursor = connection.cursor()
        for receipt, days in zip(made, (40, 40, 1)):
            cursor.execute("UPDATE jitrca.bulk_revocation SET finished_at = now() - %s * interval '1 day'"
                           " WHERE revocation_id = %s", (days, receipt["revocation_id"]))
        # One of many targets: it goes page by page.
        cursor.execute("INSERT INTO jitrca.revocation_target (revocation_id, issuer_id, serial)"
                       " SELECT %s, 1, substring(sha256(n::text::bytea) FOR 16) FROM generate_series(1, 12000) n",
                       (made[0]["revocation_id"],))


@pytest.fixture(scope="module")
def aged(cluster):
    """A server on which nothing is configured, with an old certificate and an old checkpoint."""
    with Stack(cluster, config={"idempotency_retention": "30d"}) as it, client.admin(it) as boss:
        assert boss.issue("kept").status_code == 201
        note = boss.post("/v1/audit/checkpoints").json()
        with it.db() as connection:
            connection.cursor().execute(OLD_CERTIFICATE, {"month": OLD_MONTH})
        old_notes(it)
        old_receipts(it, boss)
        assert boss.issue("newer").status_code == 201
        yield it, note


OLD_ROWS = """
INSERT INTO jitrca.security_event (kind, severity, at) VALUES ('old_one', 'low', now() - interval '400 days 1 minute'),
	('young_one', 'low', now() - interval '399 days 23 hours');
INSERT INTO jitrca.notification (notification_id, channel, kind, severity, body, state, ended_at, revocation_id) VALUES
	(repeat('a', 32), 'c', 'k', 'low', '{}', 'sent', now() - interval '30 days 1 minute', NULL),
	(repeat('b', 32), 'c', 'k', 'low', '{}', 'dead', now() - interval '30 days 1 minute', NULL),
	(repeat('c', 32), 'c', 'k', 'low', '{}', 'sent', now() - interval '29 days 23 hours', NULL),
	(repeat('d', 32), 'c', 'k', 'low', '{}', 'waiting', NULL, NULL),
	(repeat('e', 32), 'c', 'k', 'low', '{}', 'sent', now() - interval '31 days', repeat('0', 32));
"""


def lanes_of(note):
    return {int(lane): int(seq) for lane, seq in re.findall(r"^lane (\d+) (\d+) ", note["note"], re.M)}


def test_nothing_is_dropped_unless_configured_and_the_preview_says_what_would_be(aged):
    own, note = aged
    with client.admin(own) as boss:
        said = boss.get("/v1/retention").json()
        assert said["certificates"] == {"retention_s": None, "months": [], "count": 0}
        assert said["audit"] == {"retention_s": None, "lanes": [], "count": 0}
        assert said["receipts"] == {"retention_s": None, "count": 0}
        assert boss.get("/v1/retention?receipts=31d").json()["receipts"] == {"retention_s": 31 * 86400, "count": 2}
        assert boss.get("/v1/retention?receipts=41d").json()["receipts"]["count"] == 0
        assert said["events"] == {"retention_s": 400 * 86400, "count": 0}
        assert said["notifications"] == {"retention_s": 30 * 86400, "count": 0}
        # Housekeeping lets these go by itself, so they are looked at under its lock.
        with own.db() as held:
            held.cursor().execute("SELECT pg_advisory_lock(1785, 2)")
            held.cursor().execute(OLD_ROWS)
            said = boss.get("/v1/retention").json()
            assert (said["events"]["count"], said["notifications"]["count"]) == (1, 2)
        said = boss.get("/v1/retention?certificates=31d&audit=31d").json()
        assert said["certificates"]["months"] == [{"month": "2024-01", "certificates": 1}]
        wanted = [{"lane": lane, "from_seq": 1, "through_seq": seq} for lane, seq in sorted(lanes_of(note).items())]
        assert said["audit"]["lanes"] == wanted and said["audit"]["count"] == sum(lanes_of(note).values())
        assert boss.get("/v1/retention?audit=41d").json()["audit"]["count"] == 0
        assert boss.get("/v1/retention?audit=soon").json()["code"] == "retention_malformed"
    assert own.query("SELECT count(*) FROM jitrca.certificate WHERE expiry_month = %s", OLD_MONTH) == [(1,)]


def test_sql_itself_keeps_what_no_checkpoint_holds_and_what_is_not_over(aged):
    own, _ = aged
    for sql, why in (("DELETE FROM jitrca.audit_record", "only added to"),
                     ("INSERT INTO jitrca.audit_dropped (lane, seq) VALUES (1000, 999999)", "audit_dropped_lane_seq_fkey"),
                     ("SELECT jitrca.drop_month((SELECT max(expiry_month) FROM jitrca.certificate))", "is not over for long")):
        with own.db() as connection, pytest.raises(psycopg2.Error, match=why):
            connection.cursor().execute(sql)


def test_what_is_configured_is_dropped_and_the_rest_holds(aged, tmp_path):
    own, note = aged
    own.stop()
    own.settings.update(certificate_retention="31d", audit_retention="31d", receipt_retention="31d")
    own.write_config()
    own.start()
    env = {**own.env, "JITRCA_URL": own.url, "JITRCA_CA_BUNDLE": own.ca_bundle, "JITRCA_ADMIN_TOKEN": own.admin_token}

    def jitrca(*args, want=0):
        done = subprocess.run([str(own.binary), *map(str, args)], env=env, capture_output=True, text=True, timeout=60,
                              check=False)
        assert done.returncode == want, done.stdout + done.stderr
        return done.stdout

    def left():
        return own.query("SELECT count(*) FROM jitrca.audit_record r JOIN jitrca.audit_dropped d USING (lane)"
                         " WHERE r.seq <= d.seq")[0][0]
    wait_until(lambda: own.query("SELECT count(*) FROM jitrca.audit_dropped")[0][0] and not left(), "the drop")
    assert dict(own.query("SELECT lane, seq FROM jitrca.audit_dropped")) == lanes_of(note)
    assert own.query("SELECT count(*) FROM jitrca.audit_item i JOIN jitrca.audit_dropped d USING (lane)"
                     " WHERE i.seq <= d.seq") == [(0,)]
    assert own.query("SELECT to_regclass(%s)", f"jitrca.certificate_{OLD_MONTH}") == [(None,)]
    assert own.query("SELECT count(*) FROM jitrca.device_slot WHERE successor_serial IS NOT NULL") == [(0,)]
    wait_until(lambda: own.query("SELECT count(*) FROM jitrca.bulk_revocation") == [(1,)], "the receipts' end")
    assert own.query("SELECT count(*) FROM jitrca.revocation_target") == [(1,)]
    assert own.query("SELECT count(DISTINCT revocation_id) FROM jitrca.revocation_list") == [(1,)]
    wait_until(lambda: own.query("SELECT kind FROM jitrca.security_event WHERE kind IN ('old_one', 'young_one')")
               == [("young_one",)], "the old event's end")
    wait_until(lambda: [key for key, in own.query("SELECT left(notification_id, 1) FROM jitrca.notification ORDER BY 1")]
               == ["c", "d", "e"], "the old notifications' end")
    with client.admin(own) as boss:
        assert len(boss.get("/v1/revocations").json()["revocations"]) == 1
        gone = [item["object"] for record in boss.get("/v1/audit?action=retention.drop&items=true").json()["records"]
                for item in record["items"] if item["object"].startswith("revocation:")]
        assert len(gone) == len(set(gone)) == 2
        kinds = [item["object"] for record in boss.get("/v1/audit?action=retention.drop&items=true").json()["records"]
                 for item in record["items"] if not item["object"].startswith("revocation:")]
        assert sorted(kinds) == sorted(["certificates:2024-01", *(f"audit:{lane}" for lane in lanes_of(note))])
        assert boss.get("/v1/retention").json()["certificates"]["count"] == 0
        # Housekeeping may have been quicker: the last one looks forty days old.
        assert boss.post("/v1/audit/checkpoints").status_code in (200, 201)
        proof = boss.get("/v1/audit/proof", params={"certificate_id": boss.issue("last").json()["certificate_id"]})
        assert proof.json()["code"] == "checkpoint_pending"
    assert jitrca("audit", "verify").split()[:2] == ["ok", "yes"]
    for name, verb in (("key", "key"), ("notes", "notes"), ("export", "export")):
        jitrca("audit", verb, "--out", tmp_path / name)
    offline = ("audit", "verify", "--offline", tmp_path / "export", "--key", tmp_path / "key", tmp_path / "notes")
    assert ": dropped" in jitrca(*offline, want=1)
    assert jitrca(*offline, "--dropped-ok").startswith("holds: ")
    assert len(audit.read_notes((tmp_path / "notes").read_text(), audit.load_key((tmp_path / "key").read_bytes()))) >= 2
    assert "2024-01" not in jitrca("retention", "preview")
