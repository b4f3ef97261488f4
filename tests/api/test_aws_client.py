"""The client of AWS IoT Core against a double that holds each request against botocore's service model."""
import base64
import contextlib
import json
import os
import pathlib
import re
import ssl
import subprocess
import time

import pytest

from harness.aws_double import ACCOUNT, KEYS, REGION, AwsDouble, certificate_id

PROGRAM = pathlib.Path(os.environ.get("JITRCA_TEST_BIN", "build/hooks/jitrca")).resolve().parent / "tests/harness/iot_call"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": KEYS["AKIDEXAMPLE"]}
# Patience with a busy machine; nothing here waits for it to pass.
PATIENCE_S = 60
FAST = {"attempt_timeout_ms": 20000, "breaker_failures": 1000}
DOCUMENT = json.dumps({"Version": "2012-10-17", "Statement": []})


def pem(number):
    """Not a certificate, but its form: the double looks no deeper."""
    text = base64.b64encode(f"certificate {number}".encode() * 20).decode()
    lines = "\n".join(text[at:at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"


class Client:
    def __init__(self, url, environment=None, **config):
        env = {"PATH": os.environ["PATH"], "TZ": "UTC", **(ENVIRONMENT if environment is None else environment)}
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "GCOV_PREFIX"):
            if name in os.environ:
                env[name] = os.environ[name]
        config = {"endpoint_url": url, "region": REGION, **FAST, **config}
        self.process = subprocess.Popen([PROGRAM, json.dumps(config)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, env=env)
        self.started = json.loads(self.process.stdout.readline())

    def call(self, op, **arguments):
        self.process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def ok(self, op, **arguments):
        answer = self.call(op, **arguments)
        assert answer["status"] == "OK", answer
        return answer["result"]

    def refused(self, code, op, **arguments):
        answer = self.call(op, **arguments)
        assert answer.get("code") == code, answer
        return answer

    def stats(self, operation):
        return self.ok("stats")[operation]

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        code = self.process.wait(PATIENCE_S)
        self.log = self.process.stderr.read()
        if kind is None:
            assert code == 0 or "code" in self.started, self.log
            for secret in (*KEYS.values(), "session-token-canary"):
                assert secret not in self.log


@pytest.fixture
def double():
    with AwsDouble() as it:
        yield it
        assert not it.findings


@pytest.fixture
def client(double):
    with Client(double.url) as it:
        yield it


def test_ca_certificates(client):
    assert client.ok("get_registration_code")["code"] == "ab" * 32
    made = client.ok("register_ca_certificate", ca_pem=pem(1), verification_pem=pem(2), active=True, auto_registration=True)
    assert made == {"arn": f"arn:aws:iot:{REGION}:{ACCOUNT}:cacert/{certificate_id(pem(1))}", "id": certificate_id(pem(1))}
    again = client.refused("iot_exists", "register_ca_certificate", ca_pem=pem(1), verification_pem=pem(2))
    assert again["status"] == "ERR_CONFLICT" and again["failure"]["resource_arn"] == made["arn"]
    found = client.ok("describe_ca_certificate", id=made["id"])
    assert (found["status"], found["mode"], found["auto_registration"], found["pem"]) == ("ACTIVE", 1, 1, pem(1))
    assert found["creation_s"] == 1700000001
    client.refused("iot_state", "delete_ca_certificate", id=made["id"])
    client.ok("update_ca_certificate", id=made["id"], new_status="INACTIVE", auto_registration=2)
    found = client.ok("describe_ca_certificate", id=made["id"])
    assert (found["status"], found["auto_registration"]) == ("INACTIVE", 2)
    client.ok("update_ca_certificate", id=made["id"], auto_registration=1)
    assert client.ok("describe_ca_certificate", id=made["id"])["status"] == "INACTIVE"
    client.ok("register_ca_certificate", ca_pem=pem(3), sni_only=True)
    assert client.ok("list_ca_certificates")["items"] == [certificate_id(pem(1)), certificate_id(pem(3))]
    client.ok("delete_ca_certificate", id=made["id"])
    assert client.refused("iot_not_found", "describe_ca_certificate", id=made["id"])["status"] == "ERR_NOT_FOUND"


def test_certificates(client):
    client.refused("iot_invalid", "register_certificate", pem=pem(10), certificate_status="ACTIVE")
    client.ok("register_ca_certificate", ca_pem=pem(1), verification_pem=pem(2))
    ids = [client.ok("register_certificate", pem=pem(n), ca_pem=pem(1) if n == 10 else None, certificate_status="INACTIVE")["id"]
           for n in range(10, 17)]
    other = client.ok("register_certificate_without_ca", pem=pem(20), certificate_status="ACTIVE")["id"]
    found = client.ok("describe_certificate", id=ids[0])
    assert (found["status"], found["ca_id"], found["mode"], found["pem"]) == ("INACTIVE", certificate_id(pem(1)), 1, pem(10))
    assert (found["not_before_s"], found["not_after_s"]) == (1600000000, 1900000000)
    assert client.ok("describe_certificate", id=other)["mode"] == 2
    client.ok("update_certificate", id=ids[0], new_status="ACTIVE")
    assert client.ok("describe_certificate", id=ids[0])["status"] == "ACTIVE"
    client.ok("update_certificate", id=ids[0], new_status="REVOKED")
    assert client.refused("iot_state", "update_certificate", id=ids[0], new_status="ACTIVE")["status"] == "ERR_CONFLICT"
    for page, pages in ((3, 3), (7, 1), (250, 1)):
        answer = client.ok("list_certificates_by_ca", ca_id=certificate_id(pem(1)), page=page)
        assert answer == {"items": ids, "pages": pages}
    assert client.ok("list_certificates", newest_first=True)["items"] == [other, *ids[::-1]]
    client.refused("iot_state", "delete_certificate", id=other)
    client.ok("delete_certificate", id=ids[1])
    client.refused("iot_not_found", "describe_certificate", id=ids[1])


def test_things(client):
    client.ok("create_thing_type", name="sensor:v1", description="a sensor", searchable=["model"])
    client.refused("iot_exists", "create_thing_type", name="sensor:v1")
    assert client.ok("describe_thing_type", name="sensor:v1")["description"] == "a sensor"
    made = client.ok("create_thing", name="dev:1", type="sensor:v1", attributes={"model": "x", "site": "a/b"})
    assert client.ok("create_thing", name="dev:1", type="sensor:v1", attributes={"site": "a/b", "model": "x"}) == made
    assert client.refused("iot_exists", "create_thing", name="dev:1")["failure"]["resource_arn"] == made["arn"]
    client.refused("iot_not_found", "create_thing", name="dev2", type="none")
    client.ok("update_thing", name="dev:1", attributes={"site": ""}, merge=True, expected_version=1)
    client.refused("iot_version_conflict", "update_thing", name="dev:1", attributes={}, expected_version=1)
    found = client.ok("describe_thing", name="dev:1")
    assert (found["type"], found["version"], found["attributes"]) == ("sensor:v1", 2, {"model": "x"})
    client.ok("update_thing", name="dev:1", remove_type=True, attributes={})
    assert client.ok("describe_thing", name="dev:1")["type"] == ""
    client.ok("create_thing_group", name="quarantine", description="kept apart")
    client.ok("create_thing_group", name="inner", parent="quarantine")
    for _ in range(2):
        client.ok("add_thing_to_thing_group", group="quarantine", thing="dev:1")
    client.ok("add_thing_to_thing_group", group="inner", thing="dev:1")
    assert client.ok("list_thing_groups_for_thing", thing="dev:1", page=1) == {"items": ["quarantine", "inner"], "pages": 2}
    client.ok("remove_thing_from_thing_group", group="quarantine", thing="dev:1")
    assert client.ok("list_thing_groups_for_thing", thing="dev:1")["items"] == ["inner"]
    certificates = [client.ok("register_certificate_without_ca", pem=pem(n), certificate_status="ACTIVE")["arn"] for n in (30, 31)]
    for principal in certificates:
        client.ok("attach_thing_principal", thing="dev:1", principal=principal)
    assert client.ok("list_thing_principals", thing="dev:1")["items"] == certificates
    assert client.ok("list_principal_things", principal=certificates[0])["items"] == ["dev:1"]
    client.refused("iot_invalid", "delete_thing", name="dev:1")
    for principal in certificates:
        client.ok("detach_thing_principal", thing="dev:1", principal=principal)
    client.refused("iot_version_conflict", "delete_thing", name="dev:1", expected_version=1)
    client.ok("delete_thing", name="dev:1")
    client.ok("delete_thing", name="dev:1")
    client.refused("iot_not_found", "describe_thing", name="dev:1")


def test_policies(client):
    name = "p+o=l,i@c.y-1"
    assert client.ok("create_policy", name=name, document=DOCUMENT)["version"] == "1"
    client.refused("iot_exists", "create_policy", name=name, document=DOCUMENT)
    client.refused("iot_invalid", "create_policy", name="bad", document="{")
    versions = [client.ok("create_policy_version", name=name, document=DOCUMENT, set_default=n == 0) for n in range(4)]
    assert versions[0] == {"id": "2", "is_default": 1} and versions[3]["id"] == "5"
    assert client.refused("iot_limit", "create_policy_version", name=name, document=DOCUMENT)["status"] == "ERR_TOO_LARGE"
    client.ok("set_default_policy_version", name=name, version="3")
    assert client.ok("get_policy", name=name)["version"] == "3"
    client.refused("iot_conflict", "delete_policy_version", name=name, version="3")
    client.ok("delete_policy_version", name=name, version="1")
    listed = client.ok("list_policy_versions", name=name)["items"]
    assert [(v["id"], v["is_default"]) for v in listed] == [("2", False), ("3", True), ("4", False), ("5", False)]
    assert all(v["creation_s"] > 0 for v in listed)
    target = client.ok("register_certificate_without_ca", pem=pem(1), certificate_status="ACTIVE")["arn"]
    client.ok("create_policy", name="other", document=DOCUMENT)
    for policy in (name, name, "other"):
        client.ok("attach_policy", name=policy, target=target)
    assert client.ok("list_attached_policies", target=target, page=1) == {"items": [name, "other"], "pages": 2}
    client.ok("detach_policy", name=name, target=target)
    client.ok("detach_policy", name=name, target=target)
    assert client.ok("list_attached_policies", target=target, recursive=True)["items"] == ["other"]
    client.refused("iot_not_found", "attach_policy", name="none", target=target)


def test_rules(client, double):
    assert client.ok("describe_endpoint", type="iot:Data-ATS")["host"] == f"a1b2c3-ats.iot.{REGION}.amazonaws.com"
    made = client.ok("create_topic_rule_destination", url="https://ca.example.com:8443/v1/iot/jitr-events")
    assert made["status"] == 2 and made["reason"] == "Awaiting confirmation."
    client.ok("create_topic_rule_destination", url="https://ca.example.com/other")
    client.refused("iot_invalid", "confirm_topic_rule_destination", token="another")
    client.ok("confirm_topic_rule_destination", token="token/with+odd=chars")
    assert client.ok("get_topic_rule_destination", arn=made["arn"])["status"] == 1
    client.ok("update_topic_rule_destination", arn=made["arn"], destination_status=3)
    assert client.ok("get_topic_rule_destination", arn=made["arn"])["status"] == 3
    assert client.ok("list_topic_rule_destinations", page=1)["pages"] == 2
    payload = {"sql": "SELECT * FROM '$aws/events/certificates/registered/+'", "actions": [{"http": {
        "url": "https://ca.example.com:8443/v1/iot/jitr-events", "headers": [{"key": "X-Secret", "value": "s"}]}}]}
    client.ok("create_topic_rule", name="jitr_1", payload=payload)
    client.refused("iot_exists", "create_topic_rule", name="jitr_1", payload=payload)
    assert client.ok("get_topic_rule", name="jitr_1")["rule"]["sql"] == payload["sql"]
    client.ok("replace_topic_rule", name="jitr_1", payload={**payload, "description": "d"})
    client.ok("delete_topic_rule", name="jitr_1")
    client.refused("iot_denied", "get_topic_rule", name="jitr_1")
    client.ok("update_event_configurations", types=["THING", "CERTIFICATE"], enabled=True)
    assert double.state.events == {"THING": {"Enabled": True}, "CERTIFICATE": {"Enabled": True}}


def test_arguments_are_checked_before_sending(client, double):
    bad = [("describe_certificate", {"id": "ab"}), ("describe_certificate", {"id": "g" * 64}), ("describe_certificate", {}),
           ("describe_thing", {"name": "a/b"}), ("describe_thing", {"name": ""}), ("describe_thing", {"name": "x" * 129}),
           ("get_policy", {"name": "a b"}), ("get_topic_rule", {"name": "a-b"}), ("attach_policy", {"name": "p", "target": "x"}),
           ("attach_thing_principal", {"thing": "t", "principal": "arn:aws:iot:\r\nX: y" + "z" * 20}),
           ("update_certificate", {"id": "a" * 64, "new_status": "PENDING_ACTIVATION"}),
           ("update_ca_certificate", {"id": "a" * 64, "new_status": "REVOKED"}),
           ("register_certificate", {"pem": pem(1), "certificate_status": "REVOKED"}), ("register_certificate", {}),
           ("register_ca_certificate", {"ca_pem": pem(1)}),
           ("register_ca_certificate", {"ca_pem": pem(1), "verification_pem": pem(2), "sni_only": True}),
           ("set_default_policy_version", {"name": "p", "version": "x"}), ("create_policy", {"name": "p", "document": "x" * 65537}),
           ("create_thing", {"name": "t", "type": "a b"}), ("create_thing_type", {"name": "t", "searchable": list("abcd")}),
           ("create_topic_rule_destination", {"url": "https://h/" + "x" * 2000}), ("list_certificates", {"page": 251}),
           ("update_topic_rule_destination", {"arn": "arn:" + "x" * 20, "destination_status": 5}),
           ("confirm_topic_rule_destination", {"token": "x" * 2049}), ("create_topic_rule", {"name": "r"})]
    for op, arguments in bad:
        assert client.refused("iot_argument", op, **arguments)["status"] == "ERR_ARGUMENT"
    assert not double.seen


# ---- faults ----

@pytest.mark.parametrize("kind, details", [
    ("throttle", {}), ("throttle_body", {}), ("status", {"status": 500, "type": "InternalFailureException"}),
    ("status", {"status": 503, "type": "ServiceUnavailableException"}), ("plain_status", {"status": 502}),
    ("plain_status", {"status": 429}), ("reset", {}), ("truncate", {}), ("half_json", {}), ("garble", {}), ("other_type", {}),
    ("oversize", {}), ("late", {}),
])
def test_passing_faults_are_outlived(client, double, kind, details):
    client.ok("create_thing", name="t")
    double.fault("DescribeThing", kind, times=2, **details)
    assert client.ok("describe_thing", name="t")["version"] == 1
    assert double.count("DescribeThing") == 3
    stats = client.stats("DescribeThing")
    # libcurl repeats by itself what died on a kept connection before its first octet.
    own = 2 if kind in ("reset", "late") else 3
    assert own <= stats["attempts"] <= 3 and stats["retries"] == stats["attempts"] - 1
    assert (stats["calls"], stats["results"]) == (1, {"none": 1})
    assert stats["throttles"] == (2 if kind.startswith("throttle") or details.get("status") == 429 else 0)


@pytest.mark.parametrize("kind, details, code, status", [
    ("throttle", {}, "iot_throttled", "ERR_TOO_MANY"), ("status", {"status": 503}, "iot_unavailable", "ERR_UNAVAILABLE"),
    ("reset", {}, "iot_unavailable", "ERR_UNAVAILABLE"), ("garble", {}, "iot_unavailable", "ERR_UNAVAILABLE"),
    ("oversize", {}, "iot_unavailable", "ERR_UNAVAILABLE"), ("truncate", {}, "iot_unavailable", "ERR_UNAVAILABLE"),
])
def test_lasting_faults_end(double, kind, details, code, status):
    double.state.CreateThing({"thingName": "t"})
    double.fault("DescribeThing", kind, times=1000, **details)
    with Client(double.url, attempts_max=3) as client:
        answer = client.refused(code, "describe_thing", name="t")
        assert answer["status"] == status and answer["failure"]["attempts"] == 3
        assert double.count("DescribeThing") == 3


@pytest.mark.parametrize("status, kind, code", [
    (400, "InvalidRequestException", "iot_invalid"), (401, "UnauthorizedException", "iot_denied"),
    (403, "AccessDeniedException", "iot_denied"), (403, "InvalidSignatureException", "iot_denied"),
    (404, "ResourceNotFoundException", "iot_not_found"), (409, "CertificateConflictException", "iot_conflict"),
    (409, "DeleteConflictException", "iot_conflict"), (410, "LimitExceededException", "iot_limit"),
    (410, "TransferAlreadyCompletedException", "iot_state"), (402, "ServiceQuotaExceededException", "iot_limit"),
    (409, "ConflictingResourceUpdateException", "iot_conflict"), (400, "ExceptionOfTomorrow", "iot_invalid"),
    (418, None, "iot_invalid"), (404, None, "iot_not_found"), (302, None, "iot_unavailable"),
])
def test_refusals_are_not_repeated(double, status, kind, code):
    message = 'a "message"\n\u20ac' + "x" * 2000
    with Client(double.url, attempts_max=1 if code == "iot_unavailable" else 5) as client:
        double.fault("DescribeThing", "status", status=status, type=kind, message=message)
        answer = client.refused(code, "describe_thing", name="t")
        assert double.count("DescribeThing") == 1
        assert answer["failure"]["type"] == (kind or "") and answer["failure"]["http_status"] == status
        assert answer["failure"]["message"].startswith("a 'message'?") and len(answer["failure"]["message"]) == 255
        assert re.fullmatch(r"[0-9a-f-]{36}", answer["failure"]["request_id"])


def test_redirects_are_not_followed(double):
    with AwsDouble() as elsewhere, Client(double.url, attempts_max=1) as client:
        double.state.CreateThing({"thingName": "t"})
        double.fault("DescribeThing", "redirect", to=elsewhere.url + "/things/t")
        client.refused("iot_unavailable", "describe_thing", name="t")
        assert not elsewhere.seen


@pytest.mark.parametrize("members", [
    {}, {"thingName": "t"}, {"thingName": 1, "thingArn": "a"}, {"thingName": "x" * 200, "thingArn": "a"},
    {"thingName": "t", "thingArn": "a", "attributes": {"k": 5}},
    {"thingName": "t", "thingArn": "a", "attributes": {"k": "v" * 900}}, {"thingName": "t", "thingArn": "a", "attributes": {"k" * 200: ""}},
    {"thingName": "t", "thingArn": "a", "attributes": {str(n): "" for n in range(51)}},
])
def test_malformed_answers(client, double, members):
    double.state.CreateThing({"thingName": "t"})
    double.fault("DescribeThing", "members", members=members)
    answer = client.refused("iot_answer_malformed", "describe_thing", name="t")
    assert answer["status"] == "ERR_UNAVAILABLE" and answer["failure"]["error"] == "unavailable"


@pytest.mark.parametrize("members", [
    {"certificates": {}}, {"certificates": [{}]}, {"certificates": ["x"]}, {"certificates": [], "nextMarker": "x" * 3000},
    {"certificates": [{"certificateArn": "a", "certificateId": "i"}] * 251},
])
def test_malformed_pages(client, double, members):
    double.fault("ListCertificates", "members", members=members)
    client.refused("iot_answer_malformed", "list_certificates")


def test_pages_do_not_go_round(client, double):
    double.fault("ListCertificates", "members", times=1000, members={"certificates": [], "nextMarker": "MQ=="})
    client.refused("iot_answer_malformed", "list_certificates")
    assert double.count("ListCertificates") == 2


@pytest.mark.parametrize("kind", ["late", "reset", "truncate", "garble"])
def test_what_must_not_be_repeated_is_not(client, double, kind):
    """A policy's version whose answer was lost may be there."""
    client.ok("create_policy", name="p", document=DOCUMENT)
    double.fault("CreatePolicyVersion", kind)
    client.refused("iot_unavailable", "create_policy_version", name="p", document=DOCUMENT)
    assert double.count("CreatePolicyVersion") == 1
    double.fault("CreatePolicyVersion", "throttle", times=2)
    client.ok("create_policy_version", name="p", document=DOCUMENT)
    assert double.count("CreatePolicyVersion") == 4


def test_lost_answers_of_creation(client, double):
    """The thing was made, the answer lost: the repeat finds it."""
    double.fault("CreateThing", "late", times=2)
    assert client.ok("create_thing", name="t", attributes={"a": "b"})["arn"].endswith("thing/t")
    double.fault("RegisterCertificateWithoutCA", "late")
    answer = client.refused("iot_exists", "register_certificate_without_ca", pem=pem(1), certificate_status="ACTIVE")
    assert answer["failure"]["resource_arn"].endswith(certificate_id(pem(1)))


def test_what_is_not_seen_yet_is_said_so(client, double):
    """IoT Core is eventually consistent: waiting for what was just made is the caller's business, who knows that."""
    client.ok("create_thing", name="t")
    double.fault("DescribeThing", "not_found", times=2)
    for _ in range(2):
        client.refused("iot_not_found", "describe_thing", name="t")
    client.ok("describe_thing", name="t")
    assert double.count("DescribeThing") == 3


def test_retry_after_is_honoured(client, double):
    double.state.CreateThing({"thingName": "t"})
    double.fault("DescribeThing", "throttle", retry_after=1500)
    client.ok("describe_thing", name="t")
    first, second = double.times("DescribeThing")
    assert second - first >= 1.4


def test_deadline(double):
    double.fault("DescribeThing", "throttle", times=1000)
    with Client(double.url, attempts_max=1000) as client:
        start = time.monotonic()
        client.refused("iot_throttled", "describe_thing", name="t", timeout_ms=1500)
        assert time.monotonic() - start < 10
        assert 1 <= double.count("DescribeThing") < 10


def test_hanging_service(double):
    double.fault("DescribeThing", "hang", times=2)
    double.state.CreateThing({"thingName": "t"})
    with Client(double.url, attempt_timeout_ms=400) as client:
        client.ok("describe_thing", name="t")
        assert double.count("DescribeThing") == 3


def test_slow_answers_are_awaited(double):
    double.state.CreateThing({"thingName": "t"})
    double.fault("DescribeThing", "delay", s=1)
    with Client(double.url) as client:
        client.ok("describe_thing", name="t")
        assert client.stats("DescribeThing")["attempts"] == 1


def test_nobody_there():
    with AwsDouble() as gone:
        url = gone.url
    with Client(url, attempts_max=3) as client:
        client.refused("iot_unavailable", "describe_thing", name="t")


def test_stop_ends_what_hangs(double):
    double.fault("DescribeThing", "hang", times=1000)
    with Client(double.url) as client:
        answer = client.ok("repeat", call={"op": "describe_thing", "name": "t"}, count=8, threads=8, stop=True)
        assert answer["codes"] == {"iot_stopped": 8} and answer["elapsed_ms"] < 10000
        client.refused("iot_stopped", "describe_thing", name="t")


# ---- pacing, connections, breaker ----

def test_pacing_keeps_the_quota(double):
    double.state.CreateThing({"thingName": "t"})
    with Client(double.url, quotas={"DescribeThing": 20}) as client:
        answer = client.ok("repeat", call={"op": "describe_thing", "name": "t"}, count=50, threads=8)
        assert answer["codes"] == {"ok": 50}
        times = double.times("DescribeThing")
        assert times[-1] - times[0] >= 2.0
        busiest = max(sum(start <= when < start + 1 for when in times) for start in times)
        assert busiest <= 27  # 20 and a burst of a quarter, with a little for the clocks
        assert client.stats("DescribeThing")["paced_ms"] > 1000
        client.ok("repeat", call={"op": "list_certificates"}, count=2, threads=2)  # another operation has its own bucket


def test_connections_are_kept_and_bounded(double):
    double.state.CreateThing({"thingName": "t"})
    with Client(double.url, connections_max=3, quotas={"DescribeThing": 10000}) as client:
        answer = client.ok("repeat", call={"op": "describe_thing", "name": "t"}, count=200, threads=12)
        assert answer["codes"] == {"ok": 200}
        assert double.connections <= 3


def test_waiting_for_a_connection_is_no_time_out(double):
    """Six calls share a connection whose answers take their time: the service is slow, not away."""
    double.state.CreateThing({"thingName": "t"})
    double.fault("DescribeThing", "delay", times=6, s=.4)
    with Client(double.url, connections_max=1, attempt_timeout_ms=1500) as client:
        answer = client.ok("repeat", call={"op": "describe_thing", "name": "t"}, count=6, threads=6)
        assert answer["codes"] == {"ok": 6} and client.stats("DescribeThing")["attempts"] == 6


def test_urgent_calls_pass_the_others(double):
    """One connection, one call hanging on it, many waiting: the urgent one is next."""
    double.state.CreateThing({"thingName": "t"})
    double.fault("DescribeThing", "delay", times=1000, s=.2)
    with Client(double.url, connections_max=1, attempt_timeout_ms=5000, quotas={"DescribeThing": 1000}) as client:
        answer = client.ok("repeat", call={"op": "describe_thing", "name": "t"}, count=12, threads=12,
                           then={"op": "list_certificates", "urgent": True})
        assert answer["codes"] == {"ok": 12} and answer["then"] == "OK"
        assert double.times("ListCertificates")[0] < double.times("DescribeThing")[6]


def test_breaker(double):
    double.state.CreateThing({"thingName": "t"})
    double.fault("DescribeThing", "status", times=4, status=503)
    with Client(double.url, attempts_max=1, breaker_failures=3, breaker_open_ms=400) as client:
        for _ in range(3):
            client.refused("iot_unavailable", "describe_thing", name="t")
        health = client.ok("health")
        assert (health["breaker"], health["opened"]) == ("open", 1)
        answer = client.refused("iot_breaker_open", "describe_thing", name="t")
        assert answer["status"] == "ERR_UNAVAILABLE" and double.count("DescribeThing") == 3
        # The first probe fails, a later one closes it.
        deadline = time.monotonic() + PATIENCE_S
        while client.call("describe_thing", name="t")["status"] != "OK":
            assert time.monotonic() < deadline
            time.sleep(.02)  # the breaker's own pause must pass; there is nothing to wait on
        assert double.count("DescribeThing") == 5
        health = client.ok("health")
        assert (health["breaker"], health["opened"]) == ("closed", 2)
        text = client.ok("metrics")["text"]
        assert 'jitrca_aws_breaker_opened_total{client="eu-west-1"} 2' in text
    assert '"event":"aws_breaker"' in client.log


def test_refusals_do_not_open_the_breaker(double):
    with Client(double.url, breaker_failures=2) as client:
        for _ in range(8):
            client.refused("iot_not_found", "describe_thing", name="none")
        assert client.ok("health")["breaker"] == "closed"


def test_metrics(client, double):
    double.fault("DescribeThing", "throttle")
    client.refused("iot_not_found", "describe_thing", name="none")
    client.ok("list_certificates")
    lines = client.ok("metrics")["text"].splitlines()
    for line in lines:
        assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+\{[^}]+\} [0-9.]+", line), line
    assert len({line for line in lines if line.startswith("# TYPE")}) == 9
    assert 'jitrca_aws_calls_total{client="eu-west-1",operation="DescribeThing",result="not_found"} 1' in lines
    assert 'jitrca_aws_throttles_total{client="eu-west-1",operation="DescribeThing"} 1' in lines
    assert 'jitrca_aws_attempt_seconds_bucket{client="eu-west-1",operation="DescribeThing",le="+Inf"} 2' in lines


# ---- endpoint, TLS ----

@pytest.mark.parametrize("url, code", [
    ("http://iot.eu-west-1.amazonaws.com", "aws_endpoint_insecure"), ("http://10.0.0.1:8080", "aws_endpoint_insecure"),
    ("http://127.0.0.1.example.com", "aws_endpoint_insecure"), ("ftp://127.0.0.1", "aws_endpoint_malformed"),
    ("https://user:pass@h", "aws_endpoint_malformed"), ("https://h/?a=b", "aws_endpoint_malformed"),
    ("https://h/#f", "aws_endpoint_malformed"), ("https://h:99999", "aws_endpoint_malformed"), ("", "aws_endpoint_malformed"),
    ("127.0.0.1:80", "aws_endpoint_malformed"), ("https://h/" + "x" * 300, "aws_endpoint_malformed"),
])
def test_bad_endpoints(url, code):
    with Client(url) as client:
        assert client.started == {"code": code}


@pytest.mark.parametrize("region", ["", "EU", "eu_west", "x" * 33, "eu-west-1.evil.example/"])
def test_bad_regions(region):
    with Client("http://127.0.0.1:1", region=region) as client:
        assert client.started == {"code": "aws_region_malformed"}


def test_prefix_is_kept(double):
    double.prefix = "/base/iot"
    with Client(double.url + "/") as client:
        client.refused("iot_not_found", "describe_thing", name="a:b")


def test_odd_names_are_signed(client):
    """What stands encoded in the path is encoded once more for the signature."""
    client.ok("create_thing", name="a:b_c-d:", attributes={"k.,@/:#-": "v_@,.:/#-"})
    assert client.ok("describe_thing", name="a:b_c-d:")["attributes"] == {"k.,@/:#-": "v_@,.:/#-"}


@pytest.fixture(scope="module")
def tls_files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    for name, host in (("good", "IP:127.0.0.1"), ("wrong", "DNS:elsewhere.example")):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                        "-subj", "/CN=double", "-addext", f"subjectAltName={host}", "-keyout", directory / f"{name}.key",
                        "-out", directory / f"{name}.pem"], check=True, capture_output=True)
    return directory


@pytest.mark.parametrize("served, trusted, good", [("good", "good", True), ("good", "wrong", False), ("wrong", "wrong", False),
                                                   ("good", None, False)])
def test_tls_is_verified(tls_files, served, trusted, good):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls_files / f"{served}.pem", tls_files / f"{served}.key")
    with AwsDouble(tls=context) as double:
        config = {"ca_file": str(tls_files / f"{trusted}.pem")} if trusted else {}
        with Client(double.url, attempts_max=2, **config) as client:
            client.refused("iot_not_found" if good else "iot_unavailable", "describe_thing", name="t")
        assert bool(double.seen) == good and not double.findings


def test_denied_keys_are_looked_up_again_once(double, tmp_path):
    """Keys that were replaced in the file: the service refuses the old ones, the file gives the new."""
    path = tmp_path / "credentials"
    path.write_text("[default]\naws_access_key_id = AKIDOLD\naws_secret_access_key = old\n")
    double.keys["AKIDNEW"] = "new"
    double.keys["AKIDOLD"] = "old"
    with Client(double.url, {"AWS_SHARED_CREDENTIALS_FILE": str(path)}) as client:
        client.refused("iot_not_found", "describe_thing", name="t")
        del double.keys["AKIDOLD"]
        path.write_text("[default]\naws_access_key_id = AKIDNEW\naws_secret_access_key = new\n")
        client.ok("credentials", ahead_s=6)
        client.refused("iot_not_found", "describe_thing", name="t")
        del double.keys["AKIDNEW"]
        answer = client.refused("iot_denied", "describe_thing", name="t", ahead_s=6)
        assert answer["failure"]["attempts"] == 2


def test_session_token_is_sent_and_signed(double):
    double.keys["ASIAX"] = "secret-of-session"
    double.tokens["ASIAX"] = "session-token-canary=="
    with Client(double.url, {"AWS_ACCESS_KEY_ID": "ASIAX", "AWS_SECRET_ACCESS_KEY": "secret-of-session",
                             "AWS_SESSION_TOKEN": "session-token-canary=="}) as client:
        client.refused("iot_not_found", "describe_thing", name="t")
