"""Topic rules and their HTTP destinations on the local IoT Core: the operations, the confirmation, and the
delivery of messages, to an endpoint of this test's own."""
import contextlib
import http.server
import ipaddress
import itertools
import json
import queue
import ssl
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import psycopg2
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from harness.botomodel import Checked
from harness.broker import Identity
from harness.iotcore import ACCOUNT, REGION, LocalCore
from harness.stack import wait_until

ARN = f"arn:aws:iot:{REGION}:{ACCOUNT}:"
NUMBERS = itertools.count(1)
REGISTERED = "$aws/events/certificates/registered/" + "a" * 64


@pytest.fixture(scope="module")
def core(cluster):
    with LocalCore(cluster, config={"iotcore_rules_insecure_http": "loopback"}) as it:
        yield it


@pytest.fixture(scope="module")
def api(core):
    return Checked(core.client(parameter_validation=False))


class Endpoint:
    """Takes POSTs and answers from a list of statuses (then 200); `seen` holds (path, headers, body)."""

    def __init__(self, authority=None):
        self.seen = queue.Queue()
        self.answers = queue.Queue()
        self.hold = threading.Event()  # cleared: it takes requests and does not answer
        self.hold.set()
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                endpoint.seen.put((self.path, {key.lower(): value for key, value in self.headers.items()}, body))
                endpoint.hold.wait(30)
                try:
                    status = endpoint.answers.get_nowait()
                except queue.Empty:
                    status = 200
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # clients that do not trust us, or went away
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        if authority:
            self.url = self.url.replace("http:", "https:")
            self._serve_tls(authority)

    def _serve_tls(self, authority):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as directory:
            context.load_cert_chain(*authority.issue(
                "destination", eku=ExtendedKeyUsageOID.SERVER_AUTH,
                alternative=[x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]).write(directory))
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def next(self, deadline_s=20):
        return self.seen.get(timeout=deadline_s)


@pytest.fixture
def endpoint():
    with Endpoint() as it:
        yield it


def name():
    return f"rule_{next(NUMBERS)}"


def payload(sql=f"SELECT * FROM '{REGISTERED}'", actions=(), **more):
    return {"sql": sql, "actions": list(actions), **more}


LAMBDA = {"lambda": {"functionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:x"}}
ROLE = f"arn:aws:iam::{ACCOUNT}:role/x"


# ---- rules -----------------------------------------------------------------------------------------------------

def test_a_rule_is_what_was_made_of_it(api):
    made = name()
    actions = [LAMBDA, {"republish": {"roleArn": ROLE, "topic": "$$aws/x", "qos": 1}},
               {"sqs": {"roleArn": ROLE, "queueUrl": "https://sqs/x", "useBase64": False}},
               {"sns": {"roleArn": ROLE, "targetArn": "arn:aws:sns:x", "messageFormat": "RAW"}}]
    api("CreateTopicRule", ruleName=made, tags="owner=me&a%20b=c%2Fd&plus=x+y&empty=", topicRulePayload=payload(
        actions=actions, description="für alle", ruleDisabled=True, awsIotSqlVersion="2016-03-23", errorAction=LAMBDA))
    found = api("GetTopicRule", ruleName=made)
    assert found["ruleArn"] == f"{ARN}rule/{made}" and found["rule"].pop("createdAt")
    assert found["rule"] == {"ruleName": made, "sql": f"SELECT * FROM '{REGISTERED}'", "description": "für alle",
                             "actions": actions, "ruleDisabled": True, "awsIotSqlVersion": "2016-03-23",
                             "errorAction": LAMBDA}
    tags = api("ListTagsForResource", resourceArn=found["ruleArn"])["tags"]
    assert {one["Key"]: one["Value"] for one in tags} == {"owner": "me", "a b": "c/d", "plus": "x y", "empty": ""}
    answer = api.refused("CreateTopicRule", "ResourceAlreadyExistsException", ruleName=made, topicRulePayload=payload())
    assert answer["resourceArn"] == found["ruleArn"]
    api("DeleteTopicRule", ruleName=made)
    api.refused("GetTopicRule", "UnauthorizedException", ruleName=made)


def test_a_rule_is_replaced_enabled_and_disabled(api):
    made = name()
    api("CreateTopicRule", ruleName=made, topicRulePayload=payload(description="x"))
    first = api("GetTopicRule", ruleName=made)["rule"]
    assert first["ruleDisabled"] is False and first["awsIotSqlVersion"] == "2015-10-08"
    api("DisableTopicRule", ruleName=made)
    api("DisableTopicRule", ruleName=made)
    assert api("GetTopicRule", ruleName=made)["rule"]["ruleDisabled"] is True
    api("EnableTopicRule", ruleName=made)
    api("ReplaceTopicRule", ruleName=made, topicRulePayload=payload("select * from 'a/+/b'", [LAMBDA]))
    found = api("GetTopicRule", ruleName=made)["rule"]
    assert "description" not in found and found["createdAt"] == first["createdAt"] and found["actions"] == [LAMBDA]
    for call, more in (("GetTopicRule", {}), ("DeleteTopicRule", {}), ("EnableTopicRule", {}), ("DisableTopicRule", {}),
                       ("ReplaceTopicRule", {"topicRulePayload": payload()})):
        answer = api.refused(call, "UnauthorizedException", ruleName="nobody", **more)
        assert answer["Error"]["Message"] == "Access to topic rule 'nobody' was denied"
        api.refused(call, "InvalidRequestException", ruleName="no-dash", **more)


@pytest.mark.parametrize("sql", [
    "SELECT * FROM 'a'", "  select  *\n from\t'a/b'  ", 'Select * From "a/#"', "SELECT*FROM'+/b/+'", "SELECT * FROM '#'",
    "SELECT * FROM 'a/b/c/d/e/f/g/h'", f"SELECT * FROM '{'x' * 256}'", f"SELECT * FROM '{REGISTERED[:-64]}+'"])
def test_sql_that_is_understood(api, sql):
    made = name()
    api("CreateTopicRule", ruleName=made, topicRulePayload=payload(sql))
    assert api("GetTopicRule", ruleName=made)["rule"]["sql"] == sql


@pytest.mark.parametrize("sql", [
    "", "SELECT", "SELECT * FROM", "SELECT * FROM a", "SELECT * FROM 'a", "SELECT * FROM ''", "SELECT a FROM 'b'",
    "SELECT * FROM 'a' WHERE b = 1", "SELECT * FROM 'a/#/b'", "SELECT * FROM 'a#'", "SELECT * FROM 'a+/b'",
    "SELECT * FROM 'a/b/c/d/e/f/g/h/i'", f"SELECT * FROM '{'x' * 257}'", "SELECT * FROM 'a';", "DROP TABLE x",
    "SELECT * FROM \"a'", "SELECT ** FROM 'a'"])
def test_other_sql_is_named(api, sql):
    made = name()
    answer = api.refused("CreateTopicRule", "SqlParseException", ruleName=made, topicRulePayload=payload(sql))
    assert answer["Error"]["Message"].startswith("Expected a SQL statement of AWS IoT: ")
    api.refused("GetTopicRule", "UnauthorizedException", ruleName=made)


@pytest.mark.parametrize("bad", [
    {"actions": [LAMBDA] * 11}, {"actions": [{}]}, {"actions": [{**LAMBDA, "sqs": {"roleArn": ROLE, "queueUrl": "x"}}]},
    {"actions": [{"dynamoDBv2": {"roleArn": ROLE, "putItem": {"tableName": "x"}}}]}, {"awsIotSqlVersion": "2020-01-01"},
    {"errorAction": {}}, {"actions": [{"republish": {"roleArn": ROLE, "topic": "x", "qos": 2}}]},
    {"actions": [{"lambda": {}}]},
    *({"actions": [{"http": http}]} for http in (
        {"url": "http://example.com/x"}, {"url": "ftp://127.0.0.1/x"}, {"url": "https://"}, {"url": "https://a b/"},
        {"url": "https://user@host/"}, {"url": "https://host/#x"}, {"url": "https://host/${topic()}"}, {"url": ""},
        {"url": "https://[::1/x"}, {"url": "https://host:/x"}, {"url": "https://host:123456/"}, {"url": "https://host:x/"},
        {"url": "http://127.0.0.1.example.com/"}, {"url": "http://localhost.example.com/"}, {"url": "https://ü/"},
        {"url": "https://" + "x" * 2000}, {"url": "https://a/b", "confirmationUrl": "https://a/c/d"},
        {"url": "https://a.evil/b", "confirmationUrl": "https://a"},
        {"url": "https://a/b", "headers": [{"key": "x y", "value": "z"}]},
        {"url": "https://a/b", "headers": [{"key": "x", "value": "z\r\ny: w"}]},
        {"url": "https://a/b", "headers": [{"key": "x", "value": "${timestamp()}"}]},
        {"url": "https://a/b", "auth": {"sigv4": {"signingRegion": "x", "serviceName": "y", "roleArn": ROLE}}}))])
def test_rules_against_the_rules_are_refused(core, api, bad):
    made = name()
    before = core.query("SELECT count(*) FROM iotcore.topic_rule_destination")
    api.refused("CreateTopicRule", "InvalidRequestException", ruleName=made, topicRulePayload={**payload(), **bad})
    assert core.query("SELECT count(*) FROM iotcore.topic_rule_destination") == before


@pytest.mark.parametrize("tags", ["aws:x=y", "x!=y", "a=%zz", "a=%4", "=x", "a=1&a=2", f"a={'x' * 257}"])
def test_tags_of_rules_against_the_rules_are_refused(api, tags):
    made = name()
    api.refused("CreateTopicRule", "InvalidRequestException", ruleName=made, topicRulePayload=payload(), tags=tags)
    api.refused("GetTopicRule", "UnauthorizedException", ruleName=made)


def test_rules_are_listed_by_topic_and_state(cluster):
    with LocalCore(cluster) as fresh:
        api = Checked(fresh.client())
        filters = ["a/b", "a/+", "a/#", "#", "$aws/#", "a"]
        for i, one in enumerate(filters):
            api("CreateTopicRule", ruleName=f"r{i}", topicRulePayload=payload(f"SELECT * FROM '{one}'", ruleDisabled=i == 1))
        pages = api.pages("ListTopicRules", "rules", maxResults=4)
        assert [len(page) for page in pages] == [4, 2]
        assert [one["topicPattern"] for page in pages for one in page] == filters
        assert pages[0][1]["ruleDisabled"] is True and pages[0][0]["ruleArn"] == f"{ARN}rule/r0"

        def listed(**filters_):
            return [one["topicPattern"] for one in api("ListTopicRules", **filters_)["rules"]]

        assert listed(topic="a/b") == ["a/b", "a/+", "a/#", "#"]
        assert listed(topic="a") == ["#", "a"]
        assert listed(topic="$aws/x") == ["$aws/#"]
        assert listed(topic="a/+") == ["a/+", "a/#", "#"]
        assert listed(ruleDisabled=True) == ["a/+"] and "a/+" not in listed(ruleDisabled=False)
        assert api.pages("ListTopicRules", "rules", topic="a/b", maxResults=3) != [] and \
            [len(page) for page in api.pages("ListTopicRules", "rules", topic="a/b", maxResults=3)] == [3, 1]
        for bad in ({"maxResults": 10001}, {"nextToken": "x"}, {"topic": "x" * 257}):
            api.refused("ListTopicRules", "InvalidRequestException", **bad)


# ---- destinations ----------------------------------------------------------------------------------------------

def destination(api, url):
    return api("CreateTopicRuleDestination",
               destinationConfiguration={"httpUrlConfiguration": {"confirmationUrl": url}})["topicRuleDestination"]


def status(api, arn):
    return api("GetTopicRuleDestination", arn=arn)["topicRuleDestination"]["status"]


def test_a_destination_is_asked_and_confirms_by_its_url(core, api, endpoint):
    url = f"{endpoint.url}/hooks/confirm?who=me"
    made = destination(api, url)
    assert made["arn"].startswith(f"{ARN}ruledestination/http/") and made["status"] == "IN_PROGRESS"
    assert made["httpUrlProperties"] == {"confirmationUrl": url} and "Awaiting confirmation" in made["statusReason"]
    path, headers, body = endpoint.next()
    asked = json.loads(body)
    token = asked["confirmationToken"]
    assert path == f"/hooks/confirm?who=me&confirmationToken={token}"
    assert asked == {"arn": made["arn"], "confirmationToken": token, "messageType": "DestinationConfirmation",
                     "enableUrl": f"{core.url}/confirmdestination/{token}"}
    assert headers["x-amz-rules-engine-message-type"] == "DestinationConfirmation"
    assert headers["x-amz-rules-engine-destination-arn"] == made["arn"]
    assert headers["content-type"] == "application/json"

    def reason():
        return api("GetTopicRuleDestination", arn=made["arn"])["topicRuleDestination"]["statusReason"]

    wait_until(lambda: "message sent on 20" in reason(), "the record of what was sent")
    # A GET without any signature, as the endpoint makes it.
    with urllib.request.urlopen(asked["enableUrl"], timeout=10) as answer:
        assert answer.status == 200
    found = api("GetTopicRuleDestination", arn=made["arn"])["topicRuleDestination"]
    assert found["status"] == "ENABLED" and "statusReason" not in found
    api("UpdateTopicRuleDestination", arn=made["arn"], status="ENABLED")
    answer = api.refused("CreateTopicRuleDestination", "ResourceAlreadyExistsException",
                         destinationConfiguration={"httpUrlConfiguration": {"confirmationUrl": url}})
    assert answer["resourceArn"] == made["arn"]
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(f"{core.url}/confirmdestination/{token[:-1]}{'1' if token[-1] == '0' else '0'}", timeout=10)


def test_a_destination_goes_through_its_states(core, api, endpoint):
    made = destination(api, f"{endpoint.url}/states")
    token = json.loads(endpoint.next()[2])["confirmationToken"]
    for wanted in ("ENABLED", "DISABLED", "ERROR", "DELETING"):
        api.refused("UpdateTopicRuleDestination", "InvalidRequestException", arn=made["arn"], status=wanted)
    api("ConfirmTopicRuleDestination", confirmationToken=token)
    assert status(api, made["arn"]) == "ENABLED"
    api("UpdateTopicRuleDestination", arn=made["arn"], status="DISABLED")
    assert status(api, made["arn"]) == "DISABLED"
    # The token again enables nothing that was disabled since.
    api("ConfirmTopicRuleDestination", confirmationToken=token)
    assert status(api, made["arn"]) == "DISABLED"
    api("UpdateTopicRuleDestination", arn=made["arn"], status="ENABLED")
    assert status(api, made["arn"]) == "ENABLED"
    # IN_PROGRESS asks anew, with another token; the old one is worth nothing any more.
    api("UpdateTopicRuleDestination", arn=made["arn"], status="IN_PROGRESS")
    assert status(api, made["arn"]) == "IN_PROGRESS"
    again = json.loads(endpoint.next()[2])["confirmationToken"]
    assert again != token
    api.refused("ConfirmTopicRuleDestination", "InvalidRequestException", confirmationToken=token)
    core.query("UPDATE iotcore.topic_rule_destination SET token_at = now() - interval '73 h' WHERE token = %s", again)
    api.refused("ConfirmTopicRuleDestination", "InvalidRequestException", confirmationToken=again)
    core.query("UPDATE iotcore.topic_rule_destination SET token_at = now() - interval '71 h' WHERE token = %s", again)
    api("ConfirmTopicRuleDestination", confirmationToken=again)
    api("DeleteTopicRuleDestination", arn=made["arn"])
    for call, more in (("GetTopicRuleDestination", {}), ("DeleteTopicRuleDestination", {}),
                       ("UpdateTopicRuleDestination", {"status": "ENABLED"})):
        api.refused(call, "UnauthorizedException", arn=made["arn"], **more)
        for bad in ("x", f"{ARN}rule/x", f"{ARN}ruledestination/vpc/x", made["arn"].replace(ACCOUNT, "9" * 12)):
            api.refused(call, "InvalidRequestException", arn=bad, **more)
        api.refused(call, "UnauthorizedException", arn=f"{ARN}ruledestination/http/no-uuid", **more)


def test_a_destination_that_refuses_is_in_error(api, endpoint):
    endpoint.answers.put(403)
    made = destination(api, f"{endpoint.url}/refuses")
    wait_until(lambda: status(api, made["arn"]) == "ERROR", "the destination's error")
    assert "answered 403" in api("GetTopicRuleDestination", arn=made["arn"])["topicRuleDestination"]["statusReason"]
    assert endpoint.seen.qsize() == 1


@pytest.mark.parametrize("bad", [
    {}, {"httpUrlConfiguration": {}}, {"vpcConfiguration": {"subnetIds": [], "vpcId": "x", "roleArn": "y"}},
    {"httpUrlConfiguration": {"confirmationUrl": "http://example.com/"}},
    {"httpUrlConfiguration": {"confirmationUrl": "https://" + "x" * 1993}},
    {"httpUrlConfiguration": {"confirmationUrl": "https://host/${x}"}}])
def test_destinations_against_the_rules_are_refused(api, bad):
    api.refused("CreateTopicRuleDestination", "InvalidRequestException", destinationConfiguration=bad)


def test_plain_http_is_refused_unless_it_was_allowed(cluster):
    with LocalCore(cluster) as fresh:
        answer = Checked(fresh.client()).refused(
            "CreateTopicRuleDestination", "InvalidRequestException",
            destinationConfiguration={"httpUrlConfiguration": {"confirmationUrl": "http://127.0.0.1/x"}})
        assert "https://" in answer["Error"]["Message"]


def test_destinations_are_listed(api, endpoint):
    made = {destination(api, f"{endpoint.url}/{i}")["arn"] for i in range(3)}
    pages = api.pages("ListTopicRuleDestinations", "destinationSummaries", maxResults=2)
    found = {one["arn"]: one for page in pages for one in page}
    assert made <= set(found) and all(len(page) == 2 for page in pages[:-1])
    assert found[min(made)]["httpUrlSummary"]["confirmationUrl"].startswith(endpoint.url)
    api.refused("ListTopicRuleDestinations", "InvalidRequestException", maxResults=1001)


# ---- delivery --------------------------------------------------------------------------------------------------

def confirmed(api, endpoint, path):
    made = destination(api, endpoint.url + path)
    api("ConfirmTopicRuleDestination", confirmationToken=json.loads(endpoint.next()[2])["confirmationToken"])
    return made["arn"]


def publish(core, topic, text):
    """As the broker does it: in a transaction of its own (db/iotcore_rule.h)."""
    core.query("INSERT INTO iotcore.rule_event (topic, payload) SELECT %s, %s"
               " WHERE EXISTS (SELECT FROM iotcore.topic_rule WHERE NOT disabled)", topic, text)


def settled(core):
    wait_until(lambda: core.query("SELECT count(*) FROM iotcore.rule_event") == [(0,)], "every message's end")


@pytest.fixture
def no_rules(core, api):
    """Delivery looks at all rules: those of other tests are gone."""
    for page in api.pages("ListTopicRules", "rules"):
        for one in page:
            api("DeleteTopicRule", ruleName=one["ruleName"])
    core.query("DELETE FROM iotcore.rule_event")


def http_action(url, *headers, **more):
    return {"http": {"url": url, "headers": [{"key": key, "value": value} for key, value in headers], **more}}


@pytest.mark.usefixtures("no_rules")
def test_matching_messages_are_delivered_with_the_rules_headers(core, api, endpoint):
    confirmed(api, endpoint, "/hooks/")
    api("CreateTopicRule", ruleName=name(), topicRulePayload=payload(
        f"SELECT * FROM '{REGISTERED[:-64]}+'",
        [http_action(f"{endpoint.url}/hooks/jitr", ("X-Secret", "s3cret: with, signs"), ("x-other", ""))]))
    api("CreateTopicRule", ruleName=name(), topicRulePayload=payload(
        "SELECT * FROM 'else/#'", [http_action(f"{endpoint.url}/hooks/other", ("Content-Type", "text/plain"))]))
    text = json.dumps({"certificateId": "b" * 64, "ü": 1}, ensure_ascii=False)
    publish(core, REGISTERED, text)
    path, headers, body = endpoint.next()
    assert (path, body.decode()) == ("/hooks/jitr", text)
    assert headers["x-secret"] == "s3cret: with, signs" and headers["content-type"] == "application/json"
    publish(core, "else/x", "not json")
    path, headers, body = endpoint.next()
    assert (path, headers["content-type"], body) == ("/hooks/other", "text/plain", b"not json")
    publish(core, "nobody/listens", "{}")
    settled(core)
    assert endpoint.seen.empty()
    assert "s3cret" not in core.log_tail(10**7)


@pytest.mark.usefixtures("no_rules")
def test_only_enabled_rules_and_confirmed_destinations_get_messages(core, api, endpoint):
    rule, url = name(), f"{endpoint.url}/strict/x"
    # The rule makes its destination, which is asked; until it confirms, nothing is sent.
    api("CreateTopicRule", ruleName=rule, topicRulePayload=payload(actions=[http_action(url)]))
    asked = json.loads(endpoint.next()[2])
    publish(core, REGISTERED, "1")
    settled(core)
    assert endpoint.seen.empty()
    api("ConfirmTopicRuleDestination", confirmationToken=asked["confirmationToken"])
    publish(core, REGISTERED, "2")
    assert endpoint.next()[2] == b"2"
    for stop, go in ((("DisableTopicRule", {"ruleName": rule}), ("EnableTopicRule", {"ruleName": rule})),
                     (("UpdateTopicRuleDestination", {"arn": asked["arn"], "status": "DISABLED"}),
                      ("UpdateTopicRuleDestination", {"arn": asked["arn"], "status": "ENABLED"}))):
        api(stop[0], **stop[1])
        publish(core, REGISTERED, "3")
        settled(core)
        assert endpoint.seen.empty()
        api(go[0], **go[1])
    api("ReplaceTopicRule", ruleName=rule, topicRulePayload=payload(actions=[http_action(f"{endpoint.url}/strict/y")]))
    publish(core, REGISTERED, "4")
    assert endpoint.next()[::2] == ("/strict/y", b"4")
    settled(core)


@pytest.mark.usefixtures("no_rules")
def test_refusals_that_may_pass_are_tried_three_times(core, api, endpoint):
    confirmed(api, endpoint, "/retry/")
    api("CreateTopicRule", ruleName=name(), topicRulePayload=payload(actions=[http_action(f"{endpoint.url}/retry/x")]))
    for answers, want in (([500, 429, 200], 3), ([503, 503, 503, 200], 3), ([404], 1), ([302], 1)):
        for one in answers:
            endpoint.answers.put(one)
        publish(core, REGISTERED, "{}")
        settled(core)
        assert endpoint.seen.qsize() == want, answers
        for _ in range(want):
            endpoint.next()
        while not endpoint.answers.empty():
            endpoint.answers.get()


@pytest.mark.usefixtures("no_rules")
def test_an_endpoint_that_hangs_costs_three_seconds_and_holds_up_nobody(core, api, endpoint):
    """The endpoint takes connections and never answers; messages to another one are delivered meanwhile."""
    confirmed(api, endpoint, "/lively/")
    released = threading.Event()

    class Deaf(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            released.wait(60)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Deaf) as deaf:
        deaf.daemon_threads, deaf.block_on_close = True, False
        deaf.handle_error = lambda *_: None
        threading.Thread(target=deaf.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{deaf.server_address[1]}/x"
        core.query("INSERT INTO iotcore.topic_rule_destination (confirmation_url, token, status, confirmed,"
                   " confirmation_due) VALUES (%s, %s, 'ENABLED', true, false)", url, name())
        api("CreateTopicRule", ruleName=name(), topicRulePayload=payload("SELECT * FROM 'deaf'", [http_action(url)]))
        api("CreateTopicRule", ruleName=name(), topicRulePayload=payload(
            "SELECT * FROM 'lively'", [http_action(f"{endpoint.url}/lively/x")]))
        start = time.monotonic()
        publish(core, "deaf", "{}")
        publish(core, "lively", "{}")
        endpoint.next()
        assert core.query("SELECT count(*) FROM iotcore.rule_event WHERE topic = 'deaf'") == [(1,)]
        settled(core)
        assert 9 <= time.monotonic() - start < 60  # three tries
        released.set()
        deaf.shutdown()


@pytest.mark.usefixtures("no_rules")
def test_messages_wait_for_a_core_that_was_away(core, api, endpoint):
    confirmed(api, endpoint, "/away/")
    api("CreateTopicRule", ruleName=name(), topicRulePayload=payload(actions=[http_action(f"{endpoint.url}/away/x")]))
    assert core.stop() == 0
    for i in range(20):
        publish(core, REGISTERED, str(i))
    core.query("UPDATE iotcore.rule_event SET at = now() - interval '11 min' WHERE payload = '7'")
    core.start()
    settled(core)
    assert sorted(int(endpoint.next()[2]) for _ in range(19)) == [i for i in range(20) if i != 7]
    assert any(one["event"] == "rule_event_dropped" for one in core.events())


@pytest.mark.usefixtures("no_rules")
def test_what_was_under_way_is_sent_after_a_restart(core, api, endpoint):
    """The core is stopped while its endpoint thinks; what it gives back is due at once."""
    confirmed(api, endpoint, "/slow/")
    api("CreateTopicRule", ruleName=name(), topicRulePayload=payload(actions=[http_action(f"{endpoint.url}/slow/x")]))
    endpoint.hold.clear()
    publish(core, REGISTERED, "1")
    endpoint.next()
    try:
        assert core.stop() == 0
    finally:
        endpoint.hold.set()
    core.start()
    assert endpoint.next(10)[2] == b"1"
    settled(core)


@pytest.mark.parametrize("trusted", [True, False])
def test_the_certificate_of_a_destination_is_verified(cluster, tmp_path, trusted):
    authority = Identity("Destinations", ca=True)
    served, other = tmp_path / "served.pem", tmp_path / "other.pem"
    served.write_text(authority.pem)
    other.write_text(Identity("Somebody else", ca=True).pem)
    with LocalCore(cluster, config={"iotcore_rules_ca_file": served if trusted else other}) as fresh, \
            Endpoint(authority) as it:
        api = Checked(fresh.client())
        made = destination(api, f"{it.url}/x")
        if trusted:
            assert json.loads(it.next()[2])["arn"] == made["arn"]
            return
        wait_until(lambda: status(api, made["arn"]) == "ERROR", "the destination's error")
        assert it.seen.empty()


@pytest.mark.usefixtures("no_rules")
def test_without_rules_nothing_is_written_down(core):
    publish(core, REGISTERED, "{}")
    with contextlib.closing(psycopg2.connect(core.database_url)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT count(*) FROM iotcore.rule_event")
        assert cursor.fetchone() == (0,)


@pytest.mark.long  # each call starts the command line anew; test_iot_life.py has the main ones
def test_debians_aws_works_unchanged(core, endpoint):
    made = core.aws("create-topic-rule-destination", "--destination-configuration",
                    json.dumps({"httpUrlConfiguration": {"confirmationUrl": f"{endpoint.url}/cli/"}}))
    arn = made["topicRuleDestination"]["arn"]
    token = json.loads(endpoint.next()[2])["confirmationToken"]
    core.aws("confirm-topic-rule-destination", "--confirmation-token", token)
    assert core.aws("get-topic-rule-destination", "--arn", arn)["topicRuleDestination"]["status"] == "ENABLED"
    rule = name()
    core.aws("create-topic-rule", "--rule-name", rule, "--tags", "a=b", "--topic-rule-payload",
             json.dumps(payload(actions=[http_action(f"{endpoint.url}/cli/x")])))
    assert rule in [one["ruleName"] for one in core.aws("list-topic-rules")["rules"]]
    core.aws("disable-topic-rule", "--rule-name", rule)
    assert core.aws("get-topic-rule", "--rule-name", rule)["rule"]["ruleDisabled"] is True
    core.aws("delete-topic-rule", "--rule-name", rule)
    core.aws("delete-topic-rule-destination", "--arn", arn)
    assert urllib.parse.quote(arn, safe="")  # the CLI sent it so, in the path
