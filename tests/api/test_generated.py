"""Generated good and bad requests against every operation of the description, and each code once on purpose."""
import collections
import concurrent.futures
import datetime
import hashlib
import http.client
import itertools
import json
import os
import pathlib
import random
import re
import socket
import ssl
import time

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from harness import client, described, generate, ocsp
from harness.client import cert_id, csr_pem, new_key
from harness.stack import SANITIZER, Stack, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
ERRORS = {m[1]: set(m[2].replace(" ", "").split(",")) for m in re.finditer(
    r"^\| `(\w+)` \| ([0-9, ]+) \|", (ROOT / "docs" / "errors.md").read_text(), re.M)}
BAD_CSRS = [(path.name.split("--")[0], path.read_bytes()) for path in sorted(
    (ROOT / "tests/unit/ca/csr/bad").iterdir()) if path.suffix == ".pem"]
LONG = bool(os.environ.get("JITRCA_TEST_LONG"))
REQUESTS = 50_000 if LONG else 2_000
SEED = int(os.environ.get("JITRCA_TEST_SEED", "20240117"))
AT_ONCE, SLOTS = 4, 16

# A client cannot bring these about; other tests do, or nobody can.
NOT_BY_A_CLIENT = {
    "iot_target_elsewhere": "wants a server beside ours that has another target; tests/api/test_jitr.py",
    "server_busy": "wants thousands of requests at once; the gate's own tests (http_live.py)",
    "server_stopping": "only while the server stops; tests/fault/test_processes.py",
    "not_ready": "only /readyz, while something is away; tests/fault",
    "out_of_memory": "the server's memory is short",
    "internal": "a bug",
    "certificate_not_yet_valid": "no certificate of ours begins in the future, unless the clock goes back",
    "certificate_lint": "a last guard: the profile's rules are checked before; tests/unit/ca/test_lint.c",
    "certificate_too_large": "a last guard: names are bounded before; tests/unit/ca/test_tbs.c",
    "validity_out_of_range": "a last guard: validity_hours and the profile are bounded before",
    "campaign_pace_over_quota": "wants an IoT Core; tests/unit/server/test_campaign.c",
    "issuance_busy": "a race between two requests for one key; tests/fault",
    "issuance_abandoned": "only after a crash; tests/fault/test_kill.py",
    "intent_closed": "only after a crash; tests/fault/test_kill.py",
    "signer_away": "the signer is away; tests/fault/test_processes.py",
    "signer_full": "wants thousands of requests at once; tests/unit/ca/test_signer.c",
    "ca_expired": "the issuing CA is at its end; tests/unit/ca/test_signer.c",
    "ca_not_yet_valid": "the server's clock is wrong",
    "crl_expired": "lists could not be made for days; tests/unit/server",
    "spool": "the server's disk is full",
    "file_descriptors": "the server has no file descriptor left",
    "spool_unavailable": "the server's disk is full",
    "database_away": "PostgreSQL is away; tests/fault",
    "database_busy": "the pool is drained; tests/unit/db/test_pool.c",
    "database_retry": "transactions meet too often; tests/unit/db/test_run.c",
    **dict.fromkeys(("iot_target_unknown", "iot_ca_not_registered", "iot_ca_template", "outbox_row_unknown", "jitr_malformed",
                     "jitr_wrong_account", "jitr_unknown_ca", "webhook_secret_missing", "webhook_secret_wrong",
                     "webhook_wrong_account", "severity_unknown", "dead_malformed"),
                    "wants an IoT Core; tests/api/test_jitr.py"),
    **dict.fromkeys(("notify_channel_unknown", "notify_queue_full", "notification_unknown", "state_unknown"),
                    "wants channels; tests/api/test_notify.py"),
    **dict.fromkeys(("audit_empty", "audit_broken", "checkpoint_key_absent", "checkpoint_order", "checkpoint_under_way"),
                    "wants a log or a key store that is not as it should be; tests/api/test_audit_checkpoints.py"),
    **dict.fromkeys(("succession_unknown", "successor_unknown", "succession_open", "succession_not_issuing",
                     "succession_no_key", "succession_subject", "succession_key", "succession_ends_earlier",
                     "succession_ca_missing", "succession_order", "succession_changed", "succession_not_registered",
                     "succession_lists_missing", "succession_campaign", "succession_unseen", "succession_live",
                     "succession_key_missing", "succession_uncounted", "issuing_ca_missing"),
                    "wants two CAs; tests/e2e/test_succession.py, test_succession_targets.py"),
    "receipt_followers_full": "wants more followers than there is room for; tests/api/test_receipt_follow.py",
    **dict.fromkeys(("report_under_way", "report_failed"), "made in a moment; tests/api/test_report.py"),
    "commit_unknown": "the link to PostgreSQL breaks within COMMIT; tests/fault/test_kill.py",
}
if not LONG:
    NOT_BY_A_CLIENT["device_has_too_many_certificates"] = "wants 2 000 rotations: in the long form"

# What a good request is never refused for: its form.
FORM = re.compile(r"(json_|field_|query_|header_|body_|fields_|limit_|cursor_|path_|not_found|method_|unsupported_)")

SEEN = collections.Counter()
PROFILES = {
    "named": {"name": "named", "role": "none", "issuable_by": ["admin", "station"], "key_types": ["ec-p256"],
              "key_usage": ["digital_signature"], "extended_key_usage": ["client_auth"],
              "subject": [{"type": "CN", "value": "{device_id}"}, {"type": "O", "value": "{attributes.org}"}],
              "subject_alt_names": [{"type": "dns", "value": "{attributes.host}", "optional": True}],
              "validity": {"default": "1d", "max": "30d", "backdate": "5m"}, "renewal": {"before": "1h", "overlap": "1m"},
              "on_confirm": "supersede", "csr_extensions": "refuse", "one_live": False, "crl_distribution_point": True,
              "authority_information_access": True, "hourly_cap": 1000000},
    "brief": {"name": "brief", "role": "device", "issuable_by": ["admin", "station"], "key_types": ["ec-p256"],
              "key_usage": ["digital_signature"], "extended_key_usage": ["client_auth"],
              "subject": [{"type": "CN", "value": "{device_id}"}],
              "validity": {"default": "2s", "max": "1h", "backdate": "1s"}, "renewal": {"before": "1s", "overlap": "0s"},
              "on_confirm": "supersede", "csr_extensions": "ignore", "one_live": True, "crl_distribution_point": True,
              "authority_information_access": True},
    "service": {"hourly_cap": 3},
}


@pytest.fixture(scope="module")
def stack(cluster):
    with Stack(cluster, profiles=PROFILES, config={"log_level": "info"}) as it:
        yield it


def judge(answer, what):
    """What holds for every answer whatsoever; returns the code of a problem, or None."""
    status = answer.status_code
    assert status < 500 or (status == 503 and int(answer.headers["Retry-After"]) >= 1), (what, status, answer.text[:300])
    if status < 400:
        return None
    code = client.code(answer)
    assert str(status) in ERRORS.get(code, ()), (what, status, code)
    assert status != 429 or int(answer.headers["Retry-After"]) >= 1, what
    assert status != 405 or answer.headers["Allow"], what
    assert status != 401 or answer.headers["WWW-Authenticate"], what
    SEEN[code] += 1
    return code


class Elsewhere(requests.adapters.HTTPAdapter):
    """From an address of its own, where what is counted by address is not counted for others."""

    def init_poolmanager(self, *args, **options):
        super().init_poolmanager(*args, source_address=("127.0.0.9", 0), **options)


class Raw:
    """The answer to octets that no ordinary client would send; looks like an answer of requests."""

    def __init__(self, stack, octets, patience_s=20):
        context = ssl.create_default_context(cafile=stack.ca_bundle)
        self.status_code, self.url = None, "raw"
        with socket.create_connection(("127.0.0.1", stack.ports["stations"]), timeout=patience_s) as plain, \
                context.wrap_socket(plain, server_hostname="localhost") as tls:
            tls.sendall(octets)
            answer = http.client.HTTPResponse(tls)
            answer.begin()
            self.status_code, self.headers = answer.status, dict(answer.getheaders())
            self.content = answer.read()
        self.text = self.content.decode(errors="replace")
        # What libmicrohttpd cannot even read as a request it answers by itself.
        self.ours = "X-Request-Id" in self.headers

    def json(self):
        return json.loads(self.text)


def waiting_receipt(stack, actor, state="waiting"):
    """A receipt that waits for a second administrator, as a server with that configured would have made it."""
    return stack.query("INSERT INTO jitrca.bulk_revocation (revocation_id, state, actor, request_id, reason, selector, matched,"
                       " issued_until, decide_until) VALUES (encode(sha256(random()::text::bytea), 'hex')::char(32), %s, %s, 'r', 4,"
                       " '{\"device_id\": \"nobody\"}', 0, now(), now() + interval '1 hour') RETURNING revocation_id", state, actor)[0][0]


class Device:
    """A device at mutual TLS, one for each slot of a batch, so that its requests do not overtake each other."""

    def __init__(self, world, number):
        self.world, self.device_id, self.key = world, f"dev-{number}-{world.unique()}", new_key()
        body = world.boss.issue(self.device_id, self.key).json()
        self.client, self.successor = client.device(world.stack, self.key, body), None
        world.remember("certificates", body["certificate_id"])

    def asks(self, name):
        if name == "POST /v1/rotation/confirm" and self.successor:
            self.client.close()
            (self.key, body), self.successor = self.successor, None
            self.client = client.device(self.world.stack, self.key, body)
        return self.client


# What needs a channel, or a device whose certificate has run out: test_notify.py, test_recovery.py.
ELSEWHERE_TRIED = {"GET /v1/notifications/{id}", "POST /v1/notifications/test", "POST /v1/recovery",
                   "POST /v1/devices/{id}/claim-codes", "POST /v1/campaigns/{id}/resume"}


class World:
    """What the server holds for us by now, and how to put it into a request."""

    def __init__(self, stack):
        self.stack, self.counter = stack, itertools.count()
        self.boss = client.admin(stack)
        self.ca = self.boss.get("/v1/cas").json()["cas"]
        self.pools = collections.defaultdict(lambda: collections.deque(maxlen=300))
        self.clients = [client.admin(stack) for _ in range(AT_ONCE * 4)]
        self.anyone = client.Client(stack.device_url, stack.ca_bundle)
        self.anyone.session.mount("https://", Elsewhere())
        self.station = client.station(stack, "gen-st", device_ids=[f"gen-{i}" for i in range(2000)], quantity=10**6)
        self.station_scope = itertools.count()
        self.operator = self.of_role("operator")
        for kind, path, extra in (("principals", "/v1/principals", {"role": "operator"}), ("stations", "/v1/stations", {})):
            for _ in range(4):
                self.remember(kind, self.boss.post(path, json={"id": self.unique(), **extra}).json()["id"])
        for station in list(self.pools["stations"]):
            manifest = self.boss.post("/v1/manifests", json={"id": self.unique(), "station": station, "quantity": 9}).json()
            self.remember("manifests", manifest["id"])
        self.devices = [Device(self, i) for i in range(SLOTS)]
        for _ in range(4):
            body = self.boss.issue(self.unique()).json()
            self.remember("devices", body["device_id"])
            self.remember("proved", body["certificate_id"])
            self.remember("renewals", cert_id(body["certificate"]))
            self.issuing_ca = body["ca"]
        assert self.boss.post("/v1/audit/checkpoints").status_code in (200, 201)
        self.issued, self.exported = set(), 0

    def of_role(self, role):
        name = self.unique()
        assert self.boss.post("/v1/principals", json={"id": name, "role": role}).status_code == 201
        token = self.boss.post(f"/v1/principals/{name}/tokens", json={}).json()["token"]
        return client.Client(self.stack.url, self.stack.ca_bundle, token=token)

    def unique(self):
        return f"g{next(self.counter)}"

    def remember(self, kind, value):
        self.pools[kind].append(value)

    def one(self, rng, kind):
        return rng.choice(list(self.pools[kind]))

    def bind_item(self, rng, body, at_batch=False):
        body["csr"] = csr_pem(new_key(), rng.choice(("x", "evil", "ü")))
        body["device_id"] = self.unique() if rng.random() < 0.9 else self.one(rng, "devices")
        body.pop("profile", None)
        if rng.random() < 0.3:
            body["profile"] = rng.choice(("device", "device", "device", "station", "named", "server"))
        if body.get("validity_hours", 0) > 720:
            body["validity_hours"] = rng.choice((1, 24, 720))
        if at_batch and "idempotency_key" in body:
            body["idempotency_key"] = self.unique()

    def bind(self, plan):
        """Puts what exists where the description only says what it looks like."""
        rng, name, body, parameters = plan.rng, plan.name, plan.body, plan.parameters
        pool = {"devices": "devices", "certificates": "certificates", "stations": "stations", "principals": "principals",
                "manifests": "manifests", "revocations": "revocations", "campaigns": "campaigns", "plans": "plans", "reports": "reports",
                "renewal-info": "renewals"}.get(name.split("/")[2] if name.count("/") > 1 else "")
        if pool and ("path", "id") in parameters and rng.random() < 0.92 and self.pools[pool]:
            parameters["path", "id"] = self.one(rng, pool)
        if name.endswith(("/approve", "/reject")) and rng.random() < 0.9:
            parameters["path", "id"] = waiting_receipt(self.stack, "somebody")
        if ("path", "spki_sha256") in parameters and self.pools["blocked"] and rng.random() < 0.9:
            parameters["path", "spki_sha256"] = self.one(rng, "blocked")
        if name.endswith("/unhold") and self.pools["held"] and rng.random() < 0.7:
            parameters["path", "id"] = self.pools["held"].pop()
        if ("path", "token_id") in parameters and self.pools["tokens"] and rng.random() < 0.9:
            kind, owner, token = self.one(rng, "tokens")
            if kind == pool:
                parameters["path", "id"], parameters["path", "token_id"] = owner, token
        for key in (("path", "id"), ("path", "ca")):
            if key in parameters and ("cas" in name or "crl" in name) and rng.random() < 0.95:
                parameters[key] = rng.choice(self.ca)["id"] if "cas" in name else self.issuing_ca
        for key, kind in (("device_id", "devices"), ("station", "stations"), ("manifest", "manifests")):
            if ("query", key) in parameters and rng.random() < 0.7:
                parameters["query", key] = self.one(rng, kind)
        if name == "GET /v1/crl-bundle" and rng.random() < 0.9:  # one of the two
            parameters.pop(("query", "thing_group"), None)
            parameters["query", "profile"] = rng.choice(("device", "server"))
        if ("query", "certificate_id") in parameters and rng.random() < 0.9:
            parameters["query", "certificate_id"] = self.one(rng, "proved")
        if ("query", "ca") in parameters:
            parameters["query", "ca"] = self.ca[0]["id"]
        parameters.pop(("query", "cursor"), None)
        if any(one.get("name") == "limit" for one in generate.OPERATIONS[name].get("parameters", [])):
            parameters["query", "limit"] = rng.choice((1, 2, 5, 20))
        if ("header", "Idempotency-Key") in parameters:  # a header's value has no blanks around it
            parameters["header", "Idempotency-Key"] = self.unique() + parameters["header", "Idempotency-Key"] + "."
        if isinstance(body, dict):
            self.bind_body(plan, rng, name, body)

    def bind_body(self, plan, rng, name, body):
        if name == "POST /v1/certificates":
            self.bind_item(rng, body)
        elif name == "POST /v1/certificates/batch":
            for item in body["requests"]:
                self.bind_item(rng, item, at_batch=True)
        elif name == "POST /v1/rotation":
            body["csr"] = csr_pem(new_key())
        elif name == "POST /v1/revocations":
            kind = rng.choice(("device_id", "manifest"))
            body["selector"] = {kind: self.one(rng, {"device_id": "devices", "manifest": "manifests"}[kind])}
        elif name == "POST /v1/campaigns":
            body.clear()
            body["selector"] = {"device_ids": [self.one(rng, "devices")]}
        elif name.endswith("/revoke") and rng.random() < 0.4:
            body["reason"] = "certificateHold"
        elif name in ("POST /v1/stations", "POST /v1/principals", "POST /v1/manifests") and rng.random() < 0.95:
            body["id"] = self.unique()
        if name == "POST /v1/manifests":
            body["station"] = self.one(rng, "stations")
            for key in ("profile", "not_before"):
                body.pop(key, None)
        if "profiles" in body:
            body["profiles"] = rng.choice((["device"], ["device", "named"]))
        if "valid_for" in body:
            body.pop("expires_at", None)
        if "expires_at" in body:
            body["expires_at"] = (datetime.datetime.utcnow() + datetime.timedelta(days=rng.randint(1, 300))).strftime(
                "%Y-%m-%dT%H:%M:%SZ")

    def learn(self, name, answer):
        """Keeps what the answer names, for later requests."""
        kind = {"POST /v1/stations": "stations", "POST /v1/principals": "principals", "POST /v1/manifests": "manifests"}
        body = answer.json()
        if name in kind:
            self.remember(kind[name], body["id"])
        elif name in ("POST /v1/certificates", "POST /v1/rotation"):
            self.take(body)
        elif name == "POST /v1/certificates/batch":
            for result in body["results"]:
                if "certificate" in result:
                    self.take(result["certificate"])
                else:
                    SEEN[result["problem"]["code"]] += 1
                    assert str(result["status"]) in ERRORS[result["problem"]["code"]], result
        elif name.endswith("/revoke") and body["status"] == "held":
            self.remember("held", body["certificate_id"])
        elif name.endswith("/tokens") and name.startswith("POST"):
            self.remember("tokens", (name.split("/")[2], body["principal"], body["token_id"]))
        elif name == "POST /v1/revocations" and answer.status_code == 202:
            self.remember("revocations", body["revocation_id"])
        elif name == "POST /v1/campaigns" and answer.status_code == 202:
            self.remember("campaigns", body["campaign_id"])
        elif name == "POST /v1/plans":
            self.remember("plans", body["plan_id"])
        elif name == "POST /v1/reports" and answer.status_code == 202:
            self.remember("reports", body["report_id"])

    def take(self, certificate):
        self.issued.add(certificate["certificate_id"])
        self.remember("certificates", certificate["certificate_id"])
        if certificate["profile"] == "device" and not certificate["device_id"].startswith("dev-"):
            self.remember("devices", certificate["device_id"])

    def close(self):
        for one in [*self.clients, self.boss, self.station, self.anyone, self.operator, *(device.client for device in self.devices)]:
            one.close()


class Sender:
    """Turns a plan into one request, and its answer into a verdict."""

    def __init__(self, world):
        self.world, self.refused, self.succeeded = world, collections.Counter(), collections.Counter()

    def build(self, plan, slot):
        """(client, method, path, options, must it be refused) or octets for a raw socket; on the main thread."""
        world, rng, fault = self.world, plan.rng, plan.fault
        world.bind(plan)
        method, path = generate.path_of(plan)
        headers = {name: value for (where, name), value in plan.parameters.items() if where == "header"}
        operation, options, bad = generate.OPERATIONS[plan.name], {}, False
        who = world.clients[slot]
        if plan.name.startswith(("GET /v1/rotation", "POST /v1/rotation")):
            if plan.name == "POST /v1/rotation/confirm" and not world.devices[slot].successor and fault is None:
                plan.name, plan.body = "GET /v1/rotation", None  # nothing to confirm yet
                return self.build(plan, slot)
            who = world.devices[slot].asks(plan.name)
            if plan.name == "POST /v1/rotation":
                key = new_key()
                plan.body["csr"], plan.key = csr_pem(key), key
        elif plan.name == "GET /v1/stations/self":
            who = world.station
        elif plan.name == "POST /v1/recovery":
            who = world.anyone
        content = operation.get("requestBody", {}).get("content", {})
        data = json.dumps(plan.body, ensure_ascii=rng.random() < 0.5).encode() if plan.body is not None else None
        kind = "application/json"
        if "text/csv" in content:
            ids = [world.unique() for _ in range(rng.randint(1, 4))]
            kind = rng.choice(sorted(content))
            data = {"text/csv": "\n".join(ids) + "\n", "application/json": json.dumps(ids),
                    "application/x-ndjson": "".join(f'"{i}"\n' for i in ids)}[kind].encode()
        if "text/plain" in content:  # digests of keys
            kind, data = "text/plain", "".join(rng.randbytes(32).hex() + "\n" for _ in range(rng.randint(1, 4))).encode()
            world.remember("blocked", data[:64].decode())
        if "application/ocsp-request" in content:  # of a CA that nobody knows, or anything
            kind = "application/ocsp-request"
            foreign = ocsp.sequence(ocsp.sequence(ocsp.oid(ocsp.HASHES["sha1"])), ocsp.octets(rng.randbytes(20)),
                                    ocsp.octets(rng.randbytes(20)), ocsp.integer(rng.getrandbits(64)))
            data = rng.choice((ocsp.request(foreign), rng.randbytes(rng.randint(1, 90))))
        if fault in generate.BODY_FAULTS and plan.body is not None:
            schema = generate.resolved(content["application/json"]["schema"])
            broken = generate.mutate_body(fault, rng, plan.body, schema.get("required", ()))
            data, bad = (broken, fault != "control") if broken is not None else (data, False)
            # A fault can be none: an optional body that is not there, 1e3 for an integer of a profile's range.
            bad = bad and broken != b"" and fault not in ("number", "empty", "long", "type", "syntax")
        elif fault == "content_type" and data is not None:
            kind, bad = rng.choice(("text/html" if "text/plain" in content else "text/plain", "application/xml", "application/jsonx", "multipart/form-data", "x")), True
        elif fault == "no_token" and who is not world.station and "rotation" not in plan.name:
            headers["Authorization"], bad = "", bool(operation["security"])
        elif fault == "bad_token":
            headers["Authorization"] = rng.choice(("Bearer x", "Bearer jrt_" + "A" * 43, "Bearer ", "Basic eDp5", "x" * 500))
            bad = bool(operation["security"]) and "rotation" not in plan.name
        elif fault == "role" and operation["security"]:
            who = rng.choice((world.station, world.operator, world.devices[slot].client))
        elif fault == "method":
            method = rng.choice(("PUT", "PATCH", "DELETE", "OPTIONS", "FOO", "post", "TRACE", "HEAD"))
            plan.name = None
        elif fault == "path":
            plan.name = None  # requests would mend it
            return self.raw(method, rng.choice(generate.PATHS), b"", True)
        elif fault == "query":
            path += ("&" if "?" in path else "?") + rng.choice(generate.QUERIES)
            if method == "GET" and who in world.clients and rng.random() < 0.3:
                return self.raw(method, path, b"", True)
        elif fault == "accept":
            headers["Accept"] = rng.choice(("image/png", "*/*;q=0", "application/pkix-cert", ";;;", "x" * 300, "text/html"))
        elif fault == "key":
            headers["Idempotency-Key"] = rng.choice(("", "x" * 256, "x" * 255, "\u00fc".encode("latin1"), "a\tb"))
        elif fault == "large" and data is not None:
            size = rng.choice((70_000, 300_000, 2_000_000)) if rng.random() < 0.3 else 40_000
            data, bad = b'{"x": "' + b"y" * size + b'"}', kind == "application/json"
        elif fault == "csr" and plan.body and "csr" in plan.body:
            wanted, text = rng.choice(BAD_CSRS)
            data, bad = json.dumps({**plan.body, "csr": text.decode("latin1")}).encode(), True
        elif fault == "absent":
            data = None
        elif fault == "raw" and rng.random() < 0.5:
            plan.name = None
            return self.raw(method, path, rng.choice(generate.RAWS), rng.random() < 0.5)
        if data is not None:
            headers["Content-Type"] = kind
        return who, method, path, {"data": data, "headers": headers, **options}, bad

    def raw(self, method, path, head, authorized):
        host = b"" if head is None else b"Host: localhost\r\n"
        token = f"Authorization: Bearer {self.world.stack.admin_token}\r\n".encode() if authorized else b""
        return f"{method} {path} HTTP/1.1\r\n".encode() + host + b"Connection: close\r\n" + (head or b"") + token + b"\r\n"

    def send(self, built):
        if isinstance(built, bytes):
            return Raw(self.world.stack, built)
        who, method, path, options, _ = built
        return who.request(method, path, **options)

    def settle(self, plan, built, answer, slot):
        what = (plan, built if isinstance(built, bytes) else built[1:4])
        if isinstance(answer, Raw) and not answer.ours:
            assert 400 <= answer.status_code < 500, what
            return
        code = None
        if built[1] == "HEAD":
            assert answer.status_code < 500 and not answer.content, what
        else:
            code = judge(answer, what)
        if plan.name:
            described.check(generate.OPERATIONS[plan.name], answer)
        if answer.status_code < 400:
            assert isinstance(built, bytes) or not built[4], (what, answer.status_code, answer.text[:300])
            self.succeeded[plan.name] += 1
            if plan.name and answer.content and re.search("[/+]json", answer.headers["Content-Type"]):
                self.world.learn(plan.name, answer)
                if plan.name == "POST /v1/rotation" and hasattr(plan, "key") and built[0] is self.world.devices[slot].client:
                    self.world.devices[slot].successor = (plan.key, answer.json())
        else:
            self.refused[plan.name] += 1
            assert plan.fault is not None or not FORM.match(code), (what, answer.text)
            if code == "certificate_revoked" or code == "certificate_superseded" or code == "device_decommissioned":
                self.world.devices[slot].client.close()
                self.world.devices[slot] = Device(self.world, slot)


def found_in_the_database(stack, issued):
    held = {bytes(row[0]).hex() for row in stack.query("SELECT sha256 FROM jitrca.certificate")}
    return issued - held


# ---- each code on purpose -----------------------------------------------------------------------------------------

SCENARIOS = {}


def provokes(*codes):
    """Marks a generator of answers; each of the codes must be among theirs."""
    def mark(function):
        for code in codes:
            SCENARIOS[code] = function
        return function
    return mark


@provokes("manifest_closed", "manifest_not_yet_valid", "manifest_expired", "manifest_is_closed", "manifest_dates",
          "manifest_empty", "manifest_exists", "manifest_unknown", "csv_malformed", "device_not_in_manifest",
          "quota_exhausted", "replace_not_allowed", "profile_not_of_station", "station_unknown", "device_id_malformed")
def manifests(stack, boss):
    end = datetime.datetime.utcnow().replace(microsecond=0) + datetime.timedelta(seconds=2)
    with client.station(stack, "sc-m") as st_, client.station(stack, "sc-m2") as late:
        for name, more in (("sc-closed", {}), ("sc-future", {"not_before": "2039-01-01T00:00:00Z"}),
                           ("sc-small", {"quantity": 1})):
            boss.post("/v1/manifests", json={"id": name, "station": "sc-m", "quantity": 9, **more,
                                             "device_ids": [f"{name}-1", f"{name}-2"]})
        boss.post("/v1/manifests", json={"id": "sc-late", "station": "sc-m2", "quantity": 9, "not_after": f"{end.isoformat()}Z",
                                         "device_ids": ["sc-late-1"]})
        boss.post("/v1/manifests/sc-closed/close")
        yield from (st_.issue("sc-closed-1"), st_.issue("sc-future-1"), st_.issue("sc-none"), st_.issue("sc-small-1"),
                    st_.issue("sc-small-2"), st_.issue("sc-small-1", replace=True))
        body = {"id": "sc-x", "station": "sc-m", "quantity": 1}
        for change in ({"id": "sc-small"}, {"station": "none"}, {"not_after": "2020-01-01T00:00:00Z"}, {"profile": "named"}):
            yield boss.post("/v1/manifests", json={**body, **change})
        for manifest, data in (("sc-small", b"a,b\n"), ("sc-small", b"\n"), ("sc-closed", b"x\n"), ("none", b"x\n"),
                               ("sc-small", b"a b\n")):
            yield boss.request("PUT", f"/v1/manifests/{manifest}/devices", data=data, headers={"Content-Type": "text/csv"})
        wait_until(lambda: datetime.datetime.utcnow() > end, "the manifest's end", 10)
        yield late.issue("sc-late-1")


@provokes("station_rate_exceeded", "profile_not_allowed", "profile_not_allowed_for_station", "role_not_allowed",
          "device_quarantined", "profile_not_for_stations", "principal_disabled")
def stations(stack, boss):
    with client.station(stack, "sc-s", device_ids=["sc-s-1", "sc-s-2"], rate_per_minute=1) as st_:
        yield from (st_.issue("sc-s-1"), st_.issue("sc-s-2"), st_.issue("sc-s-1", profile="admin"), st_.get("/v1/audit"))
    with client.station(stack, "sc-s2", device_ids=["sc-s2-1"]) as st_:
        yield from (st_.issue("sc-s2-1", profile="named", attributes={"org": "x"}), boss.issue("sc-s2-1"))
        boss.post("/v1/devices/sc-s2-1/quarantine")
        yield st_.issue("sc-s2-1")
    yield boss.post("/v1/stations", json={"id": "sc-s3", "profiles": ["admin"]})
    boss.post("/v1/stations/sc-s2/disable")
    yield boss.issue("sc-s2", profile="station")


@provokes("name_empty", "name_invalid", "name_too_long", "csr_extensions_refused", "csr_key_not_allowed",
          "profile_hourly_cap", "validity_too_long", "attributes_too_many", "attributes_too_large", "attribute_name_malformed",
          "thing_type_malformed", "profile_unknown", "principal_unknown", "idempotency_key_malformed",
          "idempotency_key_reused", "public_key_in_use", "public_key_blocked", "device_has_certificate")
def issuing(stack, boss):
    org = {"org": "x"}
    yield from (boss.issue("sc-n", profile="named"), boss.issue("sc-n", profile="named", attributes={**org, "host": "a b"}),
                boss.issue("sc-n", profile="named", attributes={"org": "x" * 65}))
    extended = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(
        x509.BasicConstraints(True, None), True).sign(new_key(), hashes.SHA256())
    pem = extended.public_bytes(serialization.Encoding.PEM).decode()
    yield boss.post("/v1/certificates", json={"csr": pem, "device_id": "sc-n", "profile": "named", "attributes": org})
    ed = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(ed25519.Ed25519PrivateKey.generate(), None)
    yield boss.post("/v1/certificates", json={"csr": ed.public_bytes(serialization.Encoding.PEM).decode(), "device_id": "sc-n"})
    yield from (boss.issue(f"sc-cap-{i}", profile="service") for i in range(5))
    yield from (boss.issue("sc-n", validity_hours=878400), boss.issue("sc-n", attributes={f"a{i}": "x" for i in range(17)}),
                boss.issue("sc-n", attributes={f"a{i}": "x" * 128 for i in range(16)}),
                boss.issue("sc-n", attributes={f"a{i}": "\\" * 128 for i in range(16)}),
                boss.issue("sc-n", attributes={"A!": "x"}), boss.issue("sc-n", thing_type="a b"),
                boss.issue("sc-n", profile="none"), boss.issue("sc-nobody", profile="station"),
                boss.issue("sc-n", idempotency_key="x" * 256), boss.issue("sc-k", idempotency_key="sc-key"),
                boss.issue("sc-k2", idempotency_key="sc-key"), boss.issue("sc-k"))
    key = new_key()
    yield from (boss.issue("sc-p", key), boss.issue("sc-p2", key))
    boss.post(f"/v1/certificates/{boss.issue('sc-q', key := new_key()).json()['serial']}/revoke",
              json={"reason": "keyCompromise"})
    yield boss.issue("sc-q", key)


@provokes("csr_not_pem", "csr_malformed", "csr_bad_signature", "csr_signature_algorithm", "csr_weak_hash", "csr_key_too_small",
          "csr_key_type", "csr_key_invalid", "csr_too_large")
def bad_csrs(stack, boss):
    for want, text in BAD_CSRS:
        answer = boss.post("/v1/certificates", json={"csr": text.decode("latin1"), "device_id": "sc-csr"})
        assert 400 <= answer.status_code < 500, want
        yield answer


@provokes("batch_empty", "batch_too_large", "json_malformed", "json_duplicate_key", "json_too_deep", "json_too_many_values",
          "json_not_utf8", "json_not_object", "field_unknown", "field_missing", "field_type", "field_empty", "field_too_long",
          "field_malformed", "field_out_of_range", "field_too_many", "body_missing", "body_too_large", "unsupported_media_type")
def bodies(stack, boss):
    item = {"csr": "x", "device_id": "y"}
    for body in ({"requests": []}, {"requests": [item] * 1001}, {"requests": [[1] * 1000] * 70}, {"requests": [7]}):
        yield boss.post("/v1/certificates/batch", json=body)
    deep = b"[" * 40 + b"]" * 40
    for body in (b"{", b'{"a":1,"a":1}', b'{"a":' + deep + b"}", b'{"a":"\xff"}', b"[]", b"", b"x" * 40_000,
                 *(json.dumps({**item, **change}).encode() for change in (
                     {"color": 1}, {"csr": 7}, {"csr": ""}, {"csr": "x" * 20_000}, {"validity_hours": 0})), b'{"csr":"x"}'):
        yield boss.request("POST", "/v1/certificates", data=body, headers={"Content-Type": "application/json"})
    yield from (boss.post("/v1/principals", json={"id": "sc-b", "role": "admin", "description": text}) for text in ("\x01", "x" * 999))
    yield boss.post("/v1/stations", json={"id": "sc-b", "profiles": ["device"] * 20})
    yield boss.request("POST", "/v1/stations", data="x", headers={"Content-Type": "text/plain"})


@provokes("query_unknown", "query_repeated", "query_malformed", "limit_out_of_range", "cursor_malformed", "station_malformed",
          "manifest_malformed", "profile_malformed", "ca_malformed", "issued_after_malformed", "issued_before_malformed",
          "expires_after_malformed", "expires_before_malformed", "since_malformed", "until_malformed", "items_malformed",
          "issued_malformed", "status_unknown", "role_unknown", "ca_unknown", "crl_unknown", "not_acceptable", "not_found",
          "method_not_allowed", "path_malformed", "uri_too_long", "certificate_unknown", "certificate_id_malformed",
          "revocation_unknown", "campaign_unknown", "plan_unknown", "report_unknown", "format_unknown", "renewal_id_malformed", "device_unknown", "id_malformed", "late_malformed", "late_not_alone", "bundle_selection",
          "thing_group_unknown")
def paths(stack, boss):
    boss.post("/v1/manifests", json={"id": "sc-p", "station": "gen-st", "quantity": 1})
    ca = boss.get("/v1/cas").json()["cas"][-1]["id"]
    for path in (*("/v1/certificates?" + query for query in (
            "x=1", "limit=1&limit=1", "limit=0", "cursor=x", "station=a%20b", "manifest=a%20b", "profile=a%20b",
            "ca=A%20", "issued_after=x", "issued_before=x", "expires_after=x", "expires_before=x", "status=x")),
            "/v1/audit?since=x", "/v1/audit?until=x", "/v1/audit?items=x", "/v1/manifests/sc-p/export?issued=x",
            "/v1/principals?role=x", "/v1/cas/none", "/v1/none", "/v1/" + "x" * 3000,
            f"/v1/certificates/{'0' * 64}", "/v1/certificates/x", f"/v1/revocations/{'0' * 32}", f"/v1/campaigns/{'0' * 32}",
            "/acme/renewal-info/x", f"/v1/plans/{'0' * 32}", f"/v1/reports/{'0' * 32}",
            f"/v1/reports/{'0' * 32}?format=x", "/v1/devices/none",
            *(f"/crl/{one}/zz.crl" for one in {ca, *(c["id"] for c in boss.get("/v1/cas").json()["cas"])}),
            "/v1/devices?status=x", "/v1/devices?late=x", "/v1/devices?late=true&status=active", "/v1/devices/a%20b",
            "/v1/stations/a%20b", "/v1/crl-bundle", "/v1/crl-bundle?profile=device&thing_group=x",
            "/v1/crl-bundle?thing_group=none", "/v1/crl-bundle?profile=none"):
        yield boss.get(path)
    for path in ("/v1/cas/%zz", "/v1/devices?status=%zz"):  # requests would mend the escapes
        yield Raw(stack, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    yield boss.get(f"/v1/cas/{ca}/certificate", headers={"Accept": "image/png"})
    yield boss.request("DELETE", "/v1/cas")
    yield boss.post("/v1/stations", json={"id": "a b"})


@provokes("header_malformed", "header_repeated", "header_too_large", "host_missing", "length_ambiguous",
          "transfer_encoding_unsupported")
def heads(stack, boss):
    line, host = b"GET /v1/cas HTTP/1.1\r\n", b"Host: x\r\nConnection: close\r\n"
    for head in (host + b"X: a\x01b\r\n", host + b"Host: y\r\n", host + b"X: 1\r\n" * 100, b"Connection: close\r\n",
                 host + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", host + b"Transfer-Encoding: gzip\r\n"):
        yield Raw(stack, line + head + b"\r\n")


@provokes("rate_limited")
def hurried(stack, boss):
    for _ in range(14):
        yield requests.post(stack.url + "/v1/iot/jitr-events", verify=stack.ca_bundle, timeout=10, json={},
                            headers={"x-amz-rules-engine-message-type": "DestinationConfirmation"})


@provokes("credentials_missing", "token_invalid", "token_unknown", "token_expiry_past", "token_validity_too_long",
          "valid_for_malformed", "fields_exclusive", "last_admin", "principal_exists")
def tokens(stack, boss):
    url = stack.url + "/v1/devices"
    yield requests.get(url, verify=stack.ca_bundle, timeout=10)
    yield requests.get(url, verify=stack.ca_bundle, timeout=10, headers={"Authorization": "Bearer x"})
    boss.post("/v1/principals", json={"id": "sc-t", "role": "operator"})
    yield boss.post("/v1/principals", json={"id": "sc-t", "role": "operator"})
    yield boss.request("DELETE", f"/v1/principals/sc-t/tokens/{'0' * 16}")
    for body in ({"expires_at": "2020-01-01T00:00:00Z"}, {"valid_for": "400d"}, {"valid_for": "1y"},
                 {"valid_for": "1d", "expires_at": "2039-01-01T00:00:00Z"}):
        yield boss.post("/v1/principals/sc-t/tokens", json=body)
    admins = boss.get("/v1/principals?role=admin").json()["principals"]
    enabled = [one["id"] for one in admins if one["disabled_at"] is None]
    assert enabled == ["admin"], enabled
    yield boss.post("/v1/principals/admin/disable")


@provokes("claim_code_invalid", "claim_not_needed", "claim_not_allowed")
def claims(stack, boss):
    body = boss.issue("sc-claim", profile="brief").json()
    spki = {"spki_sha256": "0" * 64}
    yield boss.post("/v1/devices/sc-claim/claim-codes", json=spki)
    wait_until(lambda: boss.get(f"/v1/certificates/{body['serial']}").json()["status"] == "expired", "expiry", 10)
    with client.station(stack, "sc-claim-st") as station:
        yield station.post("/v1/devices/sc-claim/claim-codes", json=spki)
    with client.Client(stack.device_url, stack.ca_bundle) as anyone:
        anyone.session.mount("https://", Elsewhere())
        yield anyone.post("/v1/recovery", json={"claim_code": "x", "csr": csr_pem(new_key())})


@provokes("campaign_empty", "campaign_everything", "campaign_overlap", "campaign_state")
def campaigns(stack, boss):
    boss.issue("sc-c")
    for selector in ({"device_id": "none"}, {"issued_before": "2999-01-01T00:00:00Z"}):
        yield boss.post("/v1/campaigns", json={"selector": selector})
    one = boss.post("/v1/campaigns", json={"selector": {"device_id": "sc-c"}}).json()
    wait_until(lambda: boss.get(f"/v1/campaigns/{one['campaign_id']}").json()["state"] == "running", "running")
    yield boss.post("/v1/campaigns", json={"selector": {"device_id": "sc-c"}})
    for verb in ("abort", "resume"):
        yield boss.post(f"/v1/campaigns/{one['campaign_id']}/{verb}")


@provokes("certificate_foreign", "certificate_expired", "certificate_revoked", "certificate_superseded",
          "certificate_not_current", "not_a_successor", "rotation_same_key", "device_decommissioned", "certificate_not_held",
          "reason_unknown", "selector_empty", "selector_everything", "selector_field")
def lives(stack, boss):
    def device(device_id, **fields):
        key = new_key()
        body = boss.issue(device_id, key, **fields).json()
        return key, body, client.device(stack, key, body)

    key, body, old = device("sc-l")
    yield from (old.post("/v1/rotation/confirm"), old.post("/v1/rotation", json={"csr": csr_pem(key)}))
    successor_key = new_key()
    with client.device(stack, successor_key, old.post("/v1/rotation", json={"csr": csr_pem(successor_key)}).json()) as new:
        yield new.post("/v1/rotation", json={"csr": csr_pem(new_key())})
        new.post("/v1/rotation/confirm")
    yield old.get("/v1/rotation")
    old.close()
    key, body, gone = device("sc-g")
    yield boss.post(f"/v1/certificates/{body['serial']}/unhold")
    yield boss.post(f"/v1/certificates/{body['serial']}/revoke", json={"reason": "x"})
    boss.post(f"/v1/certificates/{body['serial']}/revoke", json={"reason": "superseded"})
    yield gone.get("/v1/rotation")
    gone.close()
    boss.post("/v1/devices/sc-g/decommission")
    yield boss.post("/v1/devices/sc-g/release")
    for selector in ({}, {"x": "y"}, {"issued_before": "2100-01-01T00:00:00Z"}):
        yield boss.post("/v1/revocations", json={"selector": selector, "reason": "superseded"})
    name = x509.Name([])
    now = datetime.datetime.utcnow()
    foreign = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(
        1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    with client.Client(stack.device_url, stack.ca_bundle, certificate=(
            foreign.public_bytes(serialization.Encoding.PEM).decode(), client.key_pem(key))) as stranger:
        yield stranger.get("/v1/rotation")
    _, body, brief = device("sc-e", profile="brief")
    wait_until(lambda: boss.get(f"/v1/certificates/{body['serial']}").json()["status"] == "expired", "expiry", 10)
    yield brief.get("/v1/rotation")
    brief.close()


@provokes("revocation_decided", "approval_by_requester", "requester_disabled")
def approving(stack, boss):
    boss.post("/v1/principals", json={"id": "sc-asks", "role": "admin"})
    boss.post("/v1/principals/sc-asks/disable")
    for actor, state in (("admin", "waiting"), ("sc-asks", "waiting"), ("sc-other", "expired")):
        yield boss.post(f"/v1/revocations/{waiting_receipt(stack, actor, state)}/approve")


@provokes("blocked_key_unknown", "blocked_key_malformed", "key_compromised")
def listing(stack, boss):
    yield boss.get(f"/v1/blocked-keys/{'0' * 64}")
    yield boss.post("/v1/blocked-keys?reason=x", data="x", headers={"Content-Type": "text/plain"})
    body = boss.issue("sc-comp").json()
    boss.post(f"/v1/certificates/{body['serial']}/revoke", json={"reason": "keyCompromise"})
    key = x509.load_pem_x509_certificate(body["certificate"].encode()).public_key()
    digest = hashlib.sha256(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    yield boss.post(f"/v1/blocked-keys/{digest.hexdigest()}/remove", json={"reason": "x"})


@provokes("checkpoint_pending", "audit_record_unknown", "retention_malformed")
def audited(stack, boss):
    boss.post("/v1/audit/checkpoints")
    fresh = boss.issue("sc-audited").json()["certificate_id"]
    for certificate_id in (fresh, "0" * 64):
        yield boss.get("/v1/audit/proof", params={"certificate_id": certificate_id})
    yield boss.get("/v1/retention?audit=soon")


@provokes("device_has_too_many_certificates")
def too_many(stack, boss):
    """What was superseded is not revoked, so a device that rotates often keeps its past."""
    key = new_key()
    body = boss.issue("sc-many", key).json()
    for _ in range(2000 if LONG else 0):
        with client.device(stack, key, body) as one:
            one.post("/v1/rotation/confirm")
            key = new_key()
            body = one.post("/v1/rotation", json={"csr": csr_pem(key)}).json()
    yield boss.post("/v1/devices/sc-many/decommission")


def test_each_code_that_a_client_can_provoke(stack):
    """Before anything else is made: one of them wants that there is one administrator."""
    said = {code for operation in generate.OPERATIONS.values() for code in operation["x-codes"]}
    assert said <= set(SCENARIOS) | set(NOT_BY_A_CLIENT), said - set(SCENARIOS) - set(NOT_BY_A_CLIENT)
    with client.admin(stack) as boss:
        assert boss.post("/v1/stations", json={"id": "gen-st0"}).status_code == 201
        for scenario in dict.fromkeys(SCENARIOS.values()):
            for answer in scenario(stack, boss):
                judge(answer, (scenario.__name__, answer.url))
    wanted = set(ERRORS) - set(NOT_BY_A_CLIENT)
    assert not wanted - set(SEEN), f"never seen: {sorted(wanted - set(SEEN))}"
    assert set(SEEN) <= set(ERRORS)


def test_generated_requests(stack):
    print(f"seed {SEED}; JITRCA_TEST_SEED takes another")
    world = World(stack)
    sender = Sender(world)
    pids = stack.pids()
    began = time.monotonic()
    seen_before = set(SEEN)

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        @seed(SEED)
        @settings(max_examples=REQUESTS // SLOTS, deadline=None, database=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))
        @given(st.tuples(*[generate.plans()] * SLOTS))
        def run(batch):
            built = [sender.build(plan, slot) for slot, plan in enumerate(batch)]
            for slot, answer in enumerate(pool.map(sender.send, built)):
                sender.settle(batch[slot], built[slot], answer, slot)

        run()
    good, bad = sum(sender.succeeded.values()), sum(sender.refused.values())
    total = good + bad
    print(f"{total} requests in {time.monotonic() - began:.1f} s, {good} succeeded ({100 * good // total} %), "
          f"{len(world.issued)} certificates, {len(SEEN)} codes seen ({sorted(set(SEEN) - seen_before)} only here)")
    assert total >= REQUESTS * 0.9
    assert good >= 0.3 * total
    never = set(generate.OPERATIONS) - set(sender.succeeded) - ELSEWHERE_TRIED
    assert not never, never
    assert world.issued and not found_in_the_database(stack, world.issued)
    assert stack.query("SELECT count(*) FROM jitrca.intent")[0][0] == 0
    assert world.boss.post("/v1/audit/verify").json()["ok"]
    assert requests.get(f"{stack.http_url}/readyz", timeout=10).status_code == 200
    assert stack.pids() == pids, "a process died"
    assert SANITIZER or not [event for event in stack.events() if event.get("code") == "internal"]
    assert not [event for event in stack.events() if event["level"] == "error"]
    world.close()
