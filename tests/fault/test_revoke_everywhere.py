"""A revocation of many by selector, killed in the middle: what its receipt claims is asked from outside, of each certificate."""
import concurrent.futures
import contextlib
import hashlib
import json
import os
import signal
import statistics

import requests
from cryptography import x509

from harness import client, ocsp
from harness.loop import TARGET, Loop
from harness.stack import wait_until

LONG = bool(os.environ.get("JITRCA_TEST_LONG"))
FLEET, SESSIONS = (10000, 50) if LONG else (450, 6)  # pages are of 200
PREREGISTERED = {"device": {"iot": {"policies": ["jitrca-device"], "preregister": True}}}


def p99(values):
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], 3)


def check_lists(loop, receipt, serials):
    """Every list that it names is served, is the one, and holds what it has to."""
    shown = set()
    claims = receipt["targets"]["crl"]["lists"] + receipt["targets"]["full"]["lists"]
    shards = {f"{serial >> 112 & 0xff:02x}" for serial in serials}
    assert {claim["list"] for claim in claims} == shards | {"delta", "full"}
    for claim in claims:
        name = f"{claim['ca']}.crl" if claim["list"] == "full" else f"{claim['ca']}/{claim['list']}.crl"
        served = requests.get(f"{loop.stack.http_url}/crl/{name}", timeout=10).content
        crl = x509.load_der_x509_crl(served)
        assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == claim["number"], claim
        assert hashlib.sha256(served).hexdigest() == claim["sha256"], claim
        listed = {entry.serial_number for entry in crl}
        if claim["list"] in ("full", "delta"):
            assert serials <= listed, claim["list"]
        else:
            shown |= listed & serials
    assert shown == serials


def check_ocsp(loop, devices):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda one: ocsp.status_of(loop.stack, one.body), devices))
    assert set(said) == {ocsp.CERT.REVOKED}, statistics.mode(said)


def check_iot_core(loop, devices):
    """By its own API, not by what we keep of it; of all at once by its own table."""
    rows = dict(loop.broker.sql("SELECT status, count(*) FROM iotcore.certificate WHERE certificate_id = ANY (%s) GROUP BY 1",
                                [one.id for one in devices]))
    assert rows == {"REVOKED": len(devices)}
    for one in devices[::max(1, len(devices) // 100)]:
        said = loop.api.describe_certificate(certificateId=one.id)["certificateDescription"]
        assert said["status"] == "REVOKED", said


def check_listeners(loop, devices):
    for one in devices[::max(1, len(devices) // 50)]:
        with loop.at_device(one) as device:
            answer = device.get("/v1/rotation")
            assert answer.status_code == 401 and answer.json()["code"] == "certificate_revoked"


def iot_after(loop, revoked_at):
    """Seconds from each certificate's own revocation, as its receipt has it, to its change in IoT Core."""
    rows = loop.broker.sql("SELECT certificate_id, extract(epoch FROM modified_at)::float8 FROM iotcore.certificate")
    return [at - revoked_at[one] for one, at in rows if one in revoked_at]


def test_what_a_receipt_claims_of_thousands_is_so_everywhere(cluster):
    with contextlib.ExitStack() as parts:
        loop = parts.enter_context(Loop(cluster, profiles=PREREGISTERED, target={"quotas": {"*": 100000}},
                                        config={"log_level": "info"}))
        boss = loop.boss
        devices = loop.issue_many([f"many-{n}" for n in range(FLEET)], attributes={"line": "seven"})
        others = loop.issue_many([f"other-{n}" for n in range(3)], attributes={"line": "eight"})
        loop.wait_settled(600)
        sessions = [parts.enter_context(loop.device(one)) for one in devices[::FLEET // SESSIONS][:SESSIONS] + others]
        assert all(session.try_connect() for session in sessions)

        selector = {"selector": {"attributes": {"line": "seven"}}, "reason": "keyCompromise"}
        dry = boss.post("/v1/revocations", json={**selector, "dry_run": True}).json()
        assert dry["certificates"] == dry["cut_off"] == FLEET
        with loop.stack.db() as held:
            # Its page cannot be carried out before the kill, whoever is quicker.
            held.autocommit = False
            held.cursor().execute("SELECT FROM jitrca.certificate WHERE serial = %s FOR UPDATE",
                                  (bytes.fromhex(sorted(one.body["serial"] for one in devices)[FLEET * 2 // 3]),))
            begun = boss.post("/v1/revocations", json=selector)
            assert begun.status_code == 202 and begun.json()["matched"] == FLEET, begun.text
            path = begun.headers["Location"]
            wait_until(lambda: boss.get(path).json()["revoked"] > 0, "some of it", 60)
            pid = loop.stack.pids()["frontend"]
            os.kill(pid, signal.SIGKILL)
        done = loop.stack.query("SELECT count(*) FROM jitrca.revocation_target WHERE outcome IS NOT NULL")[0][0]
        assert 0 < done < FLEET, f"{done} of {FLEET}: the kill came too late to be one in the middle"
        wait_until(lambda: loop.stack.pids().get("frontend") not in (None, pid), "another frontend", 60)
        loop.stack.wait_ready(60)
        receipt = wait_until(lambda: (it := boss.get(path, headers={"Prefer": "wait=20"}).json())["complete"] and it,
                             "the receipt", 600)

        assert receipt["revoked"] == receipt["outcomes"]["revoked"] == FLEET
        assert [(site["target"], site["seen"], site["done"]) for site in receipt["targets"]["iot"]["targets"]] == \
            [(TARGET, FLEET, FLEET)]
        check_lists(loop, receipt, {int(one.body["serial"], 16) for one in devices})
        check_ocsp(loop, devices)
        check_iot_core(loop, devices)
        check_listeners(loop, devices)
        lines = list(client.certificates_of(boss, path))
        assert {line["certificate_id"] for line in lines} == {one.id for one in devices} and len(lines) == FLEET
        assert {line["outcome"] for line in lines} == {"revoked"}
        assert all(line["crl"]["state"] == "done" and line["crl"]["after_ms"] >= 0 for line in lines)
        wait_until(lambda: all(session.gone.is_set() for session in sessions[:-3]), "the sessions' end", 20)
        assert not any(session.gone.is_set() for session in sessions[-3:])  # of those that were not meant
        for one in others:
            assert ocsp.status_of(loop.stack, one.body) == ocsp.CERT.GOOD and loop.status(one) == "ACTIVE"
        assert boss.get("/v1/audit/verify").json()["ok"] is True
        times = dict(loop.stack.query("SELECT encode(c.sha256, 'hex'), extract(epoch FROM t.done_at)::float8"
                                      " FROM jitrca.revocation_target t JOIN jitrca.certificate c USING (issuer_id, serial)"))
        after = iot_after(loop, times)
        print(json.dumps({"certificates": FLEET, "killed_after": done, "p99_s": {
            "crl_shard": p99([line["crl"]["after_ms"] / 1000 for line in lines]), "iot_core": p99(after)}}))
