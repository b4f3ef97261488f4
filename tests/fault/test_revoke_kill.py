"""kill -9 in the midst of a revocation of ten thousand: nothing half done, and the restarted server does the rest."""
import collections
import hashlib
import os
import signal
import statistics

import pytest
import requests
from cryptography import x509

from harness import client
from harness.stack import Stack, wait_until

LONG = bool(os.environ.get("JITRCA_TEST_LONG"))
FLEET = 10000 if LONG else 3000
KILLS = 5 if LONG else 2

# A certificate that was issued is made into many: the rows are what a revocation works on.
CLONE = """
WITH t AS (SELECT * FROM jitrca.certificate WHERE device_id = 'template'),
 n AS (SELECT n, set_byte(set_byte(substring(sha256(('kill' || n)::bytea) FOR 16), 2, get_byte(t.serial, 2)), 3,
  get_byte(t.serial, 3)) AS raw FROM generate_series(1, %s) n, t),
 m AS (SELECT n, set_byte(raw, 0, get_byte(raw, 0) %% 127 + 1) AS serial FROM n),
 d AS (INSERT INTO jitrca.device (device_id) SELECT 'kill-' || n FROM m),
 s AS (INSERT INTO jitrca.device_slot (device_id, current_issuer, current_serial)
  SELECT 'kill-' || n, t.issuer_id, m.serial FROM m, t)
INSERT INTO jitrca.certificate (expiry_month, issuer_id, serial, status, profile, device_id, subject, principal_id,
  not_before, not_after, issued_at, sha256, spki_sha256, status_at, der)
 SELECT t.expiry_month, t.issuer_id, m.serial, 'active', t.profile, 'kill-' || n, t.subject, 'kill-station', t.not_before,
  t.not_after, t.issued_at, sha256(('c' || n)::bytea), sha256(('k' || n)::bytea), t.status_at, t.der FROM m, t
"""


@pytest.fixture(name="stack")
def stack_of_many(cluster):
    with Stack(cluster) as it:
        with client.admin(it) as boss:
            assert boss.issue("template").status_code == 201
        with it.db() as connection:
            connection.cursor().execute(CLONE, (FLEET,))
            connection.cursor().execute("ANALYZE")
        yield it


def half_done(stack):
    """Rows that say one thing of a certificate's revocation and not the other; each page is one transaction."""
    return stack.query(
        "SELECT t.serial FROM jitrca.revocation_target t JOIN jitrca.certificate c USING (issuer_id, serial)"
        " LEFT JOIN jitrca.revocation r USING (issuer_id, serial)"
        " LEFT JOIN jitrca.device_slot s ON s.device_id = c.device_id"
        " LEFT JOIN jitrca.outbox o ON o.device_id = c.device_id"
        " WHERE NOT (CASE WHEN t.outcome = 'revoked' THEN c.status = 'revoked' AND r.serial IS NOT NULL"
        " AND s.current_serial IS NULL AND o.priority = 0"
        " ELSE c.status = 'active' AND r.serial IS NULL AND s.current_serial = c.serial END)")


def test_a_revocation_of_thousands_survives_kill_9(stack):
    with client.admin(stack) as boss:
        dry = boss.post("/v1/revocations", json={"selector": {"station": "kill-station"}, "reason": "cessationOfOperation",
                                                 "dry_run": True}).json()
        assert (dry["certificates"], dry["cut_off"]) == (FLEET, FLEET)
        begun = boss.post("/v1/revocations", json={"selector": {"station": "kill-station"}, "reason": "cessationOfOperation"})
        assert begun.status_code == 202 and begun.json()["matched"] == FLEET
        path = begun.headers["Location"]
        done = 0
        for _ in range(KILLS):
            seen = done
            wait_until(lambda seen=seen: boss.get(path).json()["revoked"] > seen, "some of it", 60)
            pid = stack.pids()["frontend"]
            os.kill(pid, signal.SIGKILL)
            done = stack.query("SELECT count(*) FROM jitrca.revocation_target WHERE outcome IS NOT NULL")[0][0]
            assert 0 < done < FLEET, "the kill came too late to be one in the middle"
            assert half_done(stack) == []
            wait_until(lambda pid=pid: stack.pids().get("frontend") not in (None, pid), "another frontend", 60)
            stack.wait_ready(60)
        wait_until(lambda: boss.get(path).json()["complete"], "the rest", 300)
        receipt = boss.get(path).json()
        assert receipt["revoked"] == FLEET and receipt["outcomes"]["revoked"] == FLEET and half_done(stack) == []
        # Each has one audit item, and one alone.
        assert stack.query("SELECT count(*), count(DISTINCT object) FROM jitrca.audit_item WHERE object LIKE 'certificate:%%'"
                           " AND convert_from(body, 'UTF8') LIKE '%%cessationOfOperation%%'")[0] == (FLEET, FLEET)
        assert boss.get("/v1/audit/verify").json()["ok"] is True
        listed = collections.Counter()
        for claim in receipt["targets"]["crl"]["lists"] + receipt["targets"]["full"]["lists"]:
            name = f"{claim['ca']}.crl" if claim["list"] == "full" else f"{claim['ca']}/{claim['list']}.crl"
            served = requests.get(f"{stack.http_url}/crl/{name}", timeout=10).content
            assert hashlib.sha256(served).hexdigest() == claim["sha256"], claim
            kind = claim["list"] if claim["list"] in ("full", "delta") else "shard"
            listed[kind] += sum(1 for _ in x509.load_der_x509_crl(served))
        assert listed["shard"] == FLEET and listed["full"] == FLEET and listed["delta"] >= FLEET, listed
        after = sorted(line["after_ms"] for line in receipt["targets"]["crl"]["lists"])
        print(f"{FLEET} in shards and delta after p50 {statistics.median(after):.0f} ms,"
              f" p99 {after[len(after) * 99 // 100]} ms, {KILLS} kills")
