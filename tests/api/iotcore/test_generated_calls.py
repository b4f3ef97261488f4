"""Generated requests against every operation of the local IoT Core: parameters by the shapes of AWS's service
model, most of them right, some wrong, some of the wrong type. Whatever comes, the answer is one that the model
has: an output of its shape, or an error that the operation knows. Nothing is an internal failure."""
import datetime
import json
import os
import subprocess

import botocore.exceptions
import pytest
from harness.botomodel import FRONT_END, Checked, check
from harness.broker import Identity
from harness.iotcore import ACCOUNT, REGION, LocalCore
from harness.stack import BIN
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

ARN = f"arn:aws:iot:{REGION}:{ACCOUNT}:"
LONG = bool(os.environ.get("JITRCA_TEST_LONG"))
SEED = int(os.environ.get("JITRCA_TEST_SEED", "20261124"))
IDS = ["a" * 64, "b" * 64, "0x" + "c" * 62]
NAMES = ["one", "two", "three"]
UUID = "6f9d0b0e-62a8-4a51-9e0f-2b1f3f3c2c5d"
CA = Identity("generated CA", ca=True)
PEMS = [CA.pem, CA.issue("device").pem, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no PEM"]
RESOURCES = [f"cert/{IDS[0]}", f"cert/{IDS[1]}", f"cacert/{IDS[0]}", "thing/one", "thinggroup/one", "thinggroup/two",
             "thingtype/one", "policy/one", "rule/one", "securityprofile/one", "all/things", "all/registered-things",
             f"ruledestination/http/{UUID}", "client/one"]
# Where they lead, nobody listens: the discard port of this machine.
URLS = ["http://127.0.0.1:9/hook", "https://127.0.0.1:9/hook/a", "http://127.0.0.1:9/", "https://no host/", "x"]
DOCUMENTS = [json.dumps({"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}), "{}", "[]", "not json"]


def operations():
    printed = subprocess.run([str(BIN), "iotcore", "--operations"], capture_output=True, text=True, check=True, timeout=60)
    return sorted(one["name"] for one in json.loads(printed.stdout))


@pytest.fixture(scope="module")
def core(cluster):
    with LocalCore(cluster, config={"iotcore_rules_insecure_http": "loopback"}) as it:
        yield it


# One or two of each, so that not everything ends in ResourceNotFoundException.
FILL = """
    INSERT INTO iotcore.thing_type (name) VALUES ('one'), ('two') ON CONFLICT DO NOTHING;
    INSERT INTO iotcore.thing (name) VALUES ('one'), ('two') ON CONFLICT DO NOTHING;
    INSERT INTO iotcore.thing_group (name) VALUES ('one'), ('two') ON CONFLICT DO NOTHING;
    INSERT INTO iotcore.security_profile (name) VALUES ('one'), ('two') ON CONFLICT DO NOTHING;
    INSERT INTO iotcore.policy (name, default_version, last_version, generation)
        VALUES ('one', 1, 1, repeat('0', 64)), ('two', 1, 1, repeat('0', 64)) ON CONFLICT DO NOTHING;
    INSERT INTO iotcore.policy_version (policy, version, document)
        VALUES ('one', 1, %(document)s), ('two', 1, %(document)s) ON CONFLICT DO NOTHING;
    INSERT INTO iotcore.topic_rule (name, payload, topic) VALUES ('one', %(rule)s, 'a'), ('two', %(rule)s, 'a')
        ON CONFLICT DO NOTHING;
    INSERT INTO iotcore.topic_rule_destination (destination_id, confirmation_url, token, status, confirmation_due)
        VALUES (%(uuid)s, 'https://127.0.0.1:9/one', 'one', 'IN_PROGRESS', false) ON CONFLICT DO NOTHING;
    INSERT INTO iotcore.certificate (certificate_id, pem, status, mode, not_before, not_after)
        SELECT repeat(x, 64), %(pem)s, 'INACTIVE', 'SNI_ONLY', now(), now() FROM (VALUES ('a'), ('b')) AS v(x)
        ON CONFLICT DO NOTHING;
    INSERT INTO iotcore.ca_certificate (certificate_id, pem, der, subject, status, auto_registration, mode, not_before,
        not_after) VALUES (repeat('a', 64), 'PEM', '', '', 'INACTIVE', true, 'SNI_ONLY', now(), now())
        ON CONFLICT DO NOTHING"""


def fill(core):
    core.query(FILL.replace("%(document)s", f"'{DOCUMENTS[0]}'").replace("%(uuid)s", f"'{UUID}'").replace(
        "%(pem)s", f"'{PEMS[1]}'").replace("%(rule)s", """'{"sql": "SELECT * FROM ''a''", "actions": []}'"""))


# ---- values by shape -------------------------------------------------------------------------------------------

# Neither NUL nor half of a character: no client can send them.
TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=12)
ODD = st.one_of(TEXT, st.sampled_from(["", " ", "a b", "x" * 129, "x" * 3000, "../..", "%2F", "a/b/c", "ü", "'", "$", "🦊",
                                       "null", "-1", "SELECT * FROM 'a'"]))


def text(shape):
    name = shape.name.lower()
    if shape.enum:
        good = st.sampled_from(shape.enum)
    elif "pem" in name:
        good = st.sampled_from(PEMS)
    elif "arn" in name or name in ("principal", "policytarget", "target"):
        good = st.sampled_from(RESOURCES).map(ARN.__add__)
    elif name == "sql":
        good = st.sampled_from(["SELECT * FROM 'a/b'", "SELECT * FROM '#'", "SELECT a FROM 'b'"])
    elif "url" in name:
        good = st.sampled_from(URLS)
    elif "policydocument" in name:
        good = st.sampled_from(DOCUMENTS)
    elif "certificateid" in name or "registrationcode" in name:
        good = st.sampled_from(IDS)
    elif "metric" in name and "name" not in name:
        good = st.sampled_from(["aws:num-messages-sent", "aws:source-ip-address", "aws:message-byte-size", "weather"])
    elif "cidr" in name:
        good = st.sampled_from(["10.0.0.0/8", "::/0", "10.0.0.0/33"])
    elif "versionid" in name:
        good = st.sampled_from(["1", "2", "0", "99999999999999999999"])
    elif shape.metadata.get("min", 0) > 12:
        good = st.just("x" * shape.metadata["min"])
    else:
        good = st.sampled_from(NAMES)
    return st.integers(0, 9).flatmap(lambda roll: ODD if roll == 9 else good)


def number(shape):
    least, most = shape.metadata.get("min", -3), shape.metadata.get("max", 5000)
    if shape.name == "DurationSeconds":
        return st.sampled_from([300, 3600, 7])
    inside = st.integers(least, min(most, least + 10))
    return st.integers(0, 9).flatmap(
        lambda roll: st.sampled_from([least - 1, most + 1, 0, 2**31, 2**63 - 1, -2**63]) if roll == 9 else inside)


def value(shape, depth=0):
    kind = shape.type_name
    if kind == "structure":
        return structure(shape, depth)
    if kind == "list":
        least = shape.metadata.get("min", 0)
        return st.lists(value(shape.member, depth + 1), min_size=least, max_size=max(least, 2))
    if kind == "map":
        return st.dictionaries(text(shape.key), value(shape.value, depth + 1), max_size=2)
    return {"string": text, "integer": number, "long": number, "boolean": lambda _: st.booleans(),
            "double": lambda _: st.floats(-1e6, 1e6), "timestamp": lambda _: st.datetimes(
                datetime.datetime(2020, 1, 1), datetime.datetime(2030, 1, 1))}[kind](shape)


def structure(shape, depth=0):
    required = {key: value(member, depth + 1) for key, member in shape.members.items()
                if key in shape.required_members}
    optional = {key: value(member, depth + 1) for key, member in shape.members.items()
                if key not in shape.required_members}
    if len(optional) > 6:  # an action has twenty kinds, of which one is wanted
        one = st.sampled_from(sorted(optional)).flatmap(lambda key: st.fixed_dictionaries({key: optional[key]}))
        return st.builds(lambda a, b: {**a, **b}, st.fixed_dictionaries(required), one)
    return st.fixed_dictionaries(required, optional=optional)


JUNK = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(-2**63, 2**63), st.floats(allow_nan=False), TEXT),
                    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
                    max_leaves=4)


def places(body, path=()):
    """Every place in a body."""
    yield path
    for key, one in (body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()):
        yield from places(one, (*path, key))


def put(body, path, junk):
    if not path:
        return junk
    at = body
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = junk
    return body


# ---- the test --------------------------------------------------------------------------------------------------

class Bare:
    """A client that lets everything through, and spoils the body where it is told to."""

    def __init__(self, core):
        self.checked = Checked(core.client(parameter_validation=False))
        self.client, self.spoil = self.checked.client, None
        self.client.meta.events.register("before-call.iot", self._before)

    def _before(self, params, **_):
        if self.spoil is not None and params["body"]:
            params["body"] = self.spoil(json.loads(params["body"])).encode()

    def call(self, name, parameters, spoil):
        method, operation = self.checked._operation(name)
        self.spoil = spoil
        try:
            method(**parameters)
        except botocore.exceptions.ClientError as error:
            return operation, error.response
        except (botocore.exceptions.ParamValidationError, botocore.exceptions.HTTPClientError, UnicodeError, ValueError,
                TypeError):
            return operation, None  # botocore itself cannot write it down
        return operation, {}


@pytest.fixture(scope="module")
def bare(core):
    return Bare(core)


@pytest.mark.parametrize("name", operations())
def test_whatever_comes_the_answer_is_modelled(core, bare, name):
    shape = bare.client.meta.service_model.operation_model(name).input_shape

    @seed(SEED)
    @settings(max_examples=400 if LONG else 25, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(data):
        parameters = data.draw(structure(shape)) if shape else {}
        spoil = None
        if data.draw(st.integers(0, 3)) == 3:
            junk, roll = data.draw(JUNK), data.draw(st.integers(0, 10**6))

            def spoil(body):
                found = list(places(body))
                return json.dumps(put(body, found[roll % len(found)], junk))
        bare.checked.answered = None
        operation, answer = bare.call(name, parameters, spoil)
        if answer is None or bare.checked.answered is None:
            return
        if not answer:
            body = bare.checked.answered["body"]
            raw = json.loads(body) if body else {}
            check(operation.output_shape, raw, name) if operation.output_shape else None
            return
        known = {one.name for one in operation.error_shapes} | FRONT_END
        code, http = answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]
        assert code in known, f"{name}: {code} is not modelled: {answer['Error']}"
        assert http < 500 and code not in ("InternalFailureException", "InternalException"), answer["Error"]
        assert answer["Error"]["Message"]

    fill(core)
    run()
    assert core.ready()


def test_nothing_of_it_was_our_fault(core):
    assert not [one for one in core.events() if one.get("level") == "error"]
