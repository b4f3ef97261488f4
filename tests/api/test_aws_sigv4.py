"""Our Signature Version 4 against botocore's, on generated requests: the canonical form and the header."""
import datetime
import json
import os
import pathlib
import random
import subprocess
import urllib.parse

import pytest
from botocore import auth, awsrequest, credentials

PROGRAM = pathlib.Path(os.environ.get("JITRCA_TEST_BIN", "build/hooks/jitrca")).resolve().parent / "tests/harness/sigv4_call"
COUNT = 5000
ODD = ["", "/", "//", "/a//b", "/a/./b/../c", "/..", "/../x/", "/a/..", "/.", "/a/b/..", "/a/.../b", "/a%2Fb", "/%zz",
       "/things/a%3Ab", "/things/%20%20", "/attached-policies/arn%3Aaws%3Aiot%3Aeu-west-1%3A123456789012%3Acert%2Fab",
       "/destinations/arn%3Aaws%3Aiot%3Aeu-west-1%3A1%3Aruledestination/http/1b", "/%C3%A9", "/a b", "/a:b", "/a~b_c-d.e",
       "/%2e%2e/x", "/a+b=c,d@e", "/*", "/'()!"]
PIECES = list("abcXYZ019-._~!$&'()*+,;=:@%/ ") + ["é", "漢", "😀", "\u00fc", "%25", "%3A", "..", ".", "//", "arn:aws:iot"]
SAFE = "!#$%&'*+^`|-._~abcdefghijklmnopqrstuvwxyz0123456789"


class FixedDate(datetime.datetime):
    now_text = ""

    @classmethod
    def utcnow(cls):
        return datetime.datetime.strptime(cls.now_text, "%Y%m%dT%H%M%SZ")


def text(rng, most):
    return "".join(rng.choice(PIECES) for _ in range(rng.randrange(most + 1)))


def header_value(rng):
    gaps = [" ", "  ", "\t", "   \t "]
    words = ["".join(c for c in text(rng, 6) if c != " ") for _ in range(rng.randrange(5))]
    value = rng.choice(["", rng.choice(gaps)])
    for word in words:
        value += word + rng.choice(gaps)
    return value


def generate(rng, number):
    query = [(text(rng, 5), text(rng, 8)) for _ in range(rng.choice([0, 0, 1, 2, 3, 8]))]
    if query and rng.random() < .5:
        query += [(query[0][0], text(rng, 3)), (query[0][0], "")]
    if rng.random() < .2:
        query += [("a", "1"), ("a=", "0"), ("a-", "2"), ("a", "")]
    rng.shuffle(query)
    names = ["".join(rng.choice(SAFE) for _ in range(rng.randrange(1, 12))) for _ in range(rng.randrange(5))]
    names = [name for name in names if name not in ("host", "expect", "user-agent", "x-amzn-trace-id", "authorization", "date")]
    # One name the beginning of another, and one that comes twice.
    names += rng.choice([[], ["content-type"], ["x-amz", "x-amz-tagging"], ["x-amzn-principal"], ["x-a", "x-a"]])
    headers = [(name, header_value(rng)) for name in names]
    path = rng.choice(ODD) if number % 3 == 0 else "/" + "/".join(
        urllib.parse.quote(text(rng, 6), safe=rng.choice(["", "/~", ":@"])) for _ in range(rng.randrange(4)))
    return {
        "method": rng.choice(["GET", "PUT", "POST", "DELETE", "PATCH"]), "path": path.replace("?", "").replace("#", ""),
        "query": query, "headers": headers, "body": text(rng, 40).encode() if rng.random() < .6 else b"",
        "date": rng.choice(["20261124T161402Z", "20240229T235959Z", "19991231T000000Z"]),
        "access_key": "AKIA" + "".join(rng.choice("ABCDEFGH234567") for _ in range(16)),
        "secret_key": text(rng, 30), "region": rng.choice(["eu-west-1", "us-east-1", "cn-north-1"]),
        "service": rng.choice(["iot", "execute-api", "sts", "kms"]),
        "token": rng.choice([None, "token/" + "".join(rng.choice("abc+/=") for _ in range(40))]),
        "host": rng.choice(["iot.eu-west-1.amazonaws.com", "127.0.0.1:8443", "[::1]:90"]),
    }


def theirs(case):
    """What botocore signs: the canonical request, the Authorization, and the headers as they are sent."""
    request = awsrequest.AWSRequest(method=case["method"], url=f"https://{case['host']}{case['path']}", data=case["body"])
    request.params = case["query"]
    for name, value in case["headers"]:
        request.headers.add_header(name, value)
    FixedDate.now_text = case["date"]
    signer = auth.SigV4Auth(credentials.Credentials(case["access_key"], case["secret_key"] or "x", case["token"]),
                            case["service"], case["region"])
    signer.add_auth(request)
    authorization = request.headers["Authorization"]
    del request.headers["Authorization"]
    return signer.canonical_request(request), authorization, list(request.headers.items())


def line(case, headers):
    def pairs(items):
        return [[name.encode().hex(), value.encode().hex()] for name, value in items]
    octets = {name: case[name].encode().hex() for name in ("method", "path", "access_key", "region", "service")}
    return json.dumps({**octets, "secret_key": (case["secret_key"] or "x").encode().hex(), "body": case["body"].hex(),
                       "date": case["date"], "query": pairs(case["query"]), "headers": pairs(headers)})


@pytest.fixture(autouse=True)
def fixed_date(monkeypatch):
    monkeypatch.setattr(auth.datetime, "datetime", FixedDate)


def run(lines):
    done = subprocess.run([PROGRAM], input="\n".join(lines), capture_output=True, text=True, check=True, timeout=120)
    return [json.loads(text) for text in done.stdout.splitlines()]


def test_signatures_equal_botocores():
    rng = random.Random(20261124)
    cases = [generate(rng, number) for number in range(COUNT)]
    wanted, lines = [], []
    for case in cases:
        canonical, authorization, headers = theirs(case)
        headers = [("host", case["host"])] + [(name.lower(), value) for name, value in headers]
        # The order of repeats is the caller's; all else may come in any.
        place = {name: rng.random() for name, _ in headers}
        headers.sort(key=lambda item: place[item[0]])
        wanted.append((canonical, authorization))
        lines.append(line(case, headers))
    answers = run(lines)
    assert len(answers) == COUNT
    for case, (canonical, authorization), answer in zip(cases, wanted, answers):
        assert bytes.fromhex(answer["canonical"]).decode() == canonical, case
        assert answer["authorization"] == authorization, case
    # The generator must not run dry.
    assert sum("%" in case["path"] for case in cases) > COUNT / 5
    assert sum(len(case["query"]) != len(dict(case["query"])) for case in cases) > COUNT / 10


@pytest.mark.parametrize("change", [
    {"date": "20261124T161402"}, {"date": "2026-11-24T16:14"}, {"headers": []}, {"headers": [["48", "61"]]},
    {"headers": [["613a", "61"]]}, {"headers": [["610a62", "61"]]}, {"headers": [["", "61"]]}, {"headers": [["c3a9", "61"]]},
    {"secret_key": "61" * 257},
])
def test_refused(change):
    case = generate(random.Random(1), 0)
    good = json.loads(line(case, [("host", "h")]))
    assert "authorization" in run([json.dumps(good)])[0]
    assert run([json.dumps({**good, **change})]) == [{"code": "aws_sigv4_malformed"}]


def test_bounded():
    case = generate(random.Random(1), 0)
    case["query"] = [("a", "x" * 30000), ("b", "y" * 40000)]
    assert run([line(case, [("host", "h")])]) == [{"code": "buffer_limit"}]
