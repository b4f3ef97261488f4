"""The sections "receipt" and "blocked" of make bench: how soon each target of a revocation is done, as an outsider sees it,
and what a list of a million blocked keys costs."""
import contextlib
import hashlib
import json
import pathlib
import shutil
import ssl
import tempfile
import time

from harness import client
from harness.client import code
from harness.loop import Loop
from harness.receivers import HttpReceiver
from harness.stack import wait_until

from bench_iot import Victim
from measure import Line, Meter, Peak, pss_kib, quantiles
from revoked import Party, watch

PREREGISTERED = {"device": {"iot": {"policies": ["jitrca-device"], "preregister": True}}}
SECRET = "a-webhook-secret-of-the-measurement"
# What is promised within a second of the request; a webhook is told when all of a receipt is carried out, at the earliest
# a second and a half after it was asked for.
WITHIN_A_SECOND = ("CRL shard", "delta CRL", "OCSP answer", "our listeners", "IoT Core", "session cut")


@contextlib.contextmanager
def told():
    """A webhook's receiver and the file that has it told of receipts."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="jitrca-told-"))
    directory.chmod(0o755)
    try:
        with HttpReceiver() as hook:
            secret, file = directory / "secret", directory / "notify.json"
            secret.write_text(SECRET + "\n")
            secret.chmod(0o600)
            file.write_text(json.dumps({
                "channels": {"hook": {"type": "webhook", "url": hook.url, "secret_file": str(secret),
                                      "rate_per_hour": 100000, "burst": 1000}},
                "rules": [{"channels": ["hook"], "kinds": ["bulk_revocation_done"], "severity": "info"}]}))
            yield hook, file
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Watched(Victim):
    """A device that is about to be revoked, and all that can be asked about it."""

    def __init__(self, loop, hook, issued):
        super().__init__(loop, issued)
        self.hook, self.party, self.receipt = hook, Party(loop.stack, issued.body), ""
        self.link.settimeout(0)

    def is_cut(self):
        try:
            return self.link.recv(1) == b""
        except (ssl.SSLWantReadError, BlockingIOError):
            return False
        except (ConnectionError, ssl.SSLError):
            return True

    def conditions(self):
        party = self.party
        return {"CRL shard": lambda: party.lists(party.shard), "delta CRL": lambda: party.lists(party.delta),
                "OCSP answer": lambda: party.ocsp_status() == "REVOKED",
                "our listeners": lambda: self.rest.get("/v1/rotation").status_code == 401,
                "IoT Core": lambda: self.loop.status(self.issued) == "REVOKED", "session cut": self.is_cut,
                "webhook": lambda: bool(self.hook.kept.all(lambda item: self.receipt.encode() in item[2]))}

    def revoke(self):
        """{target: seconds from the request}."""
        start = time.monotonic()
        answer = self.loop.boss.post("/v1/revocations", json={"selector": {"device_id": self.issued.name},
                                                              "reason": "keyCompromise"})
        assert answer.status_code == 202, answer.text
        self.receipt = answer.json()["revocation_id"]
        return watch(start, self.conditions())


def one_by_one(loop, hook, count):
    took = {}
    for issued in loop.issue_many([f"alone-{n}" for n in range(count)]):
        loop.wait_status(issued, "ACTIVE")
        watched = Watched(loop, hook, issued)
        for target, seconds in watched.revoke().items():
            assert seconds is not None, target
            took.setdefault(target, []).append(seconds)
        watched.close()
    return {target: quantiles(seconds) for target, seconds in took.items()}


def all_at_once(loop, count):
    """By selector: from each certificate's own revocation to its list and to its change in IoT Core, and the whole."""
    loop.issue("bystander")  # what means the whole fleet wants a word
    loop.issue_many([f"many-{n}" for n in range(count)], attributes={"line": "seven"})
    loop.wait_settled(600)
    start = time.monotonic()
    begun = loop.boss.post("/v1/revocations", json={"selector": {"attributes": {"line": "seven"}}, "reason": "keyCompromise"})
    assert begun.status_code == 202 and begun.json()["matched"] == count, begun.text
    path = begun.headers["Location"]
    receipt = wait_until(lambda: (it := loop.boss.get(path, headers={"Prefer": "wait=20"}).json())["complete"] and it,
                         "the receipt", 900)
    whole = time.monotonic() - start
    assert receipt["revoked"] == count
    done = dict(loop.stack.query("SELECT encode(c.sha256, 'hex'), extract(epoch FROM t.done_at)::float8"
                                 " FROM jitrca.revocation_target t JOIN jitrca.certificate c USING (issuer_id, serial)"
                                 " WHERE t.revocation_id = %s", receipt["revocation_id"]))
    changed = loop.broker.sql("SELECT certificate_id, extract(epoch FROM modified_at)::float8 FROM iotcore.certificate"
                              " WHERE status = 'REVOKED'")
    in_iot = [at - done[one] for one, at in changed if one in done]
    assert len(in_iot) == count
    return {"seconds": round(whole, 2), "CRL shard": quantiles([line["crl"]["after_ms"] / 1000 for line in
                                                                client.certificates_of(loop.boss, path)]), "IoT Core": quantiles(in_iot)}


def bench_receipt(bench):
    alone, many = bench.pick((3, 20), (100, 10000))
    with bench.cluster() as cluster, told() as (hook, file), \
            Loop(cluster, profiles=PREREGISTERED, config={"log_level": "info", "notify_file": file},
                 core={"log_level": "warn"}, target={"quotas": {"*": 100000}}) as loop:
        bench.say(f"{alone} receipts of one certificate each")
        figures = one_by_one(loop, hook, alone)
        bench.figure("one by one", figures)
        for target in WITHIN_A_SECOND:
            bench.must(f"from the request to {target}: p99", figures[target]["p99_ms"] / 1000, at_most=1, unit=" s")
        bench.figure("webhook", figures["webhook"], "from the request to the webhook: p50 {p50_ms} ms, p99 {p99_ms} ms"
                     .format(**figures["webhook"]))
        bench.say(f"a receipt of {many}")
        figures = all_at_once(loop, many)
        bench.figure(f"{many} at once", figures,
                     f"complete in {figures['seconds']} s; from a certificate's revocation to its shard p99"
                     f" {figures['CRL shard']['p99_ms']} ms, to IoT Core p99 {figures['IoT Core']['p99_ms']} ms")


# ---- blocked keys ----


def digest(number):
    return hashlib.sha256(b"blocked %d" % number).hexdigest()


def load_list(bench, stack, boss, count):
    text = "".join(f"{digest(number)}\n" for number in range(count))
    pids = stack.pids()
    with Peak(pids["frontend"], pids["signer"]) as peak, Meter(stack) as meter:
        start = time.monotonic()
        answer = boss.request("POST", "/v1/blocked-keys", params={"reason": "measured"}, data=text, timeout=1800,
                              headers={"Content-Type": "text/plain"})
        seconds = time.monotonic() - start
    assert answer.status_code == 200 and answer.json()["added"] == count, answer.text
    bench.figure("list loaded", {"keys": count, "seconds": seconds, "memory_mib": peak.mib, **meter.per(count)},
                 f"{count} keys in {seconds:.1f} s; {meter.per(count)['postgresql_us']} us of PostgreSQL each")
    bench.must(f"loading {count} keys: extra memory of frontend and signer", peak.mib, at_most=32, unit=" MiB")


def compromise(bench, stack, count):
    """As many keys that were revoked for compromise: those the signer is told of when it starts."""
    stack.query("WITH made AS (INSERT INTO jitrca.key_claim (spki_sha256, identity, profile, blocked_at)"
                " SELECT sha256(('compromised ' || n)::bytea), 'gone-' || n, 'device', now() FROM generate_series(1, %s) n"
                " RETURNING 1) SELECT count(*) FROM made", count)
    before = pss_kib(stack.pids()["signer"])
    stack.stop()
    start = time.monotonic()
    stack.start()
    with client.admin(stack) as boss:
        wait_until(lambda: boss.issue("first-after").status_code in (201, 409), "a certificate", 300)
    seconds = time.monotonic() - start
    grown = (pss_kib(stack.pids()["signer"]) - before) / 1024
    bench.figure("signer told", {"keys": count, "start_to_certificate_s": seconds, "signer_grown_mib": grown},
                 f"{count} compromised keys: from the start to a certificate {seconds:.1f} s")
    bench.must(f"{count} compromised keys: the signer's memory", grown, at_most=96, unit=" MiB")


def cost(figures):
    return figures["server_us"]["median"] + figures["postgresql_us"]["median"]


def bench_blocked(bench):
    keys, each = bench.pick((6000, 40), (1000000, 2000))
    with bench.stack() as stack, client.admin(stack) as boss:
        line = Line(bench, stack, each * (3 * bench.runs + 2))
        line.issue(each, 8)  # what is done once only is done
        empty = bench.repeat("issuing, nothing blocked", lambda: line.issue(each, 8))
        bench.say(f"loading {keys} keys")
        load_list(bench, stack, boss, keys)
        listed = bench.repeat(f"issuing, {keys} keys listed", lambda: line.issue(each, 8))
        bench.say(f"{keys} compromised keys")
        compromise(bench, stack, keys)
        line.issue(each, 8)
        told_of = bench.repeat(f"issuing, {keys} more in the signer", lambda: line.issue(each, 8))
        bench.figure("issuing", {"empty": empty, "listed": listed, "compromised": told_of})
        bench.must(f"cost per certificate (CPU) with {keys} listed over that with none", cost(listed) / cost(empty),
                   at_most=1.1)
        bench.must(f"cost per certificate (CPU) with {keys} compromised as well over that with none",
                   cost(told_of) / cost(empty), at_most=1.15)
        answer = boss.get(f"/v1/blocked-keys/{digest(keys // 2)}")
        bench.must_hold("a listed key is found", answer.status_code == 200, str(answer.status_code))
        answer = boss.get(f"/v1/blocked-keys/{digest(keys)}")
        bench.must_hold("one that is not listed is not", answer.status_code == 404 and code(answer) == "blocked_key_unknown",
                        str(answer.status_code))
