"""What a spreadsheet, a header or a stream would take for more than text, in ids, attributes and free texts: refused where it
comes in, or brought out as text and nothing else."""
import csv
import http.client
import io
import json
import ssl
import urllib.parse

import pytest

from harness import client
from harness.client import code, csr_pem, new_key
from harness.stack import wait_until

# What begins a formula, ends a line, leaves a cell or a string; and what is not ASCII.
SIGNS = ["=", "+", "@", "\t", "\r", "\n", "\r\n", '"', "'", ",", ";", "|", "\\", "<", "\x1b", "\x7f", " ", "\u2028", "é"]
DEVICE_IDS = [f"{sign}1" for sign in SIGNS] + [f"d{sign}1" for sign in SIGNS] + ["", "x" * 65, "a\nb,=1+1"]
# Allowed in an attribute, whose text is the customer's own; what controls is not.
FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", '"quoted", "twice"', "a,b;c", "data: x", "é\u2028é", "</script>"]
CONTROLS = ["\t=1", "\r=1", "\n=1", "a\r\nSet-Cookie: b", "\x1b[31m", "\x00"]


@pytest.fixture(scope="module")
def boss(stack):
    with client.admin(stack) as it:
        yield it


@pytest.fixture(scope="module")
def line(stack, boss):
    """A station whose manifest has device ids that a spreadsheet might take for numbers."""
    with client.station(stack, "line-1", device_ids=["-2-3", "-d", "_", "a:b", "1e5"], manifest="m:1") as it:
        yield it


@pytest.mark.parametrize("device_id", DEVICE_IDS, ids=[repr(text) for text in DEVICE_IDS])
def test_no_device_id_holds_more_than_letters(boss, line, device_id):
    """Whichever way it comes: so what brings ids out need not quote them."""
    wanted = {"device_id_malformed", "field_malformed", "field_too_long", "field_missing", "csv_malformed", "field_empty"}
    body = {"csr": csr_pem(new_key()), "device_id": device_id}
    answers = [boss.post("/v1/certificates", json=body),
               boss.post("/v1/manifests", json={"id": "never", "station": "line-1", "quantity": 1, "device_ids": [device_id]})]
    path = "/v1/manifests/m:1/devices"
    for kind, text in (("application/json", json.dumps([device_id])), ("application/x-ndjson", json.dumps(device_id) + "\n"),
                       ("text/csv", "ok\n\"" + device_id.replace('"', '""') + "\"\n")):
        if text != 'ok\n""\n':  # an empty line is no device
            answers.append(boss.request("PUT", path, data=text.encode(), headers={"Content-Type": kind}))
    for answer in answers:
        assert answer.status_code in (400, 413) and code(answer) in wanted, answer.text
    item = boss.post("/v1/certificates/batch", json={"requests": [body]}).json()["results"][0]
    assert item["status"] in (400, 413) and item["problem"]["code"] in wanted, item


def test_an_export_is_what_it_says_and_no_formula(boss, line):
    issued = {name: line.issue(name).json() for name in ("-2-3", "a:b")}
    answer = boss.get("/v1/manifests/m:1/export")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="m_1.csv"'
    assert answer.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.reader(io.StringIO(answer.text, newline=""), strict=True))
    assert rows[0] == ["device_id", "serial", "certificate_id", "status", "issued_at"]
    by_id = {row[0]: row for row in rows[1:]}
    # The one sign that may come first is the dash, and it does not stay the first.
    assert set(by_id) == {"'-2-3", "'-d", "_", "a:b", "1e5"} and all(len(row) == 5 for row in rows)
    for name, body in issued.items():
        assert by_id[name if name[0] != "-" else f"'{name}"][1:4] == [body["serial"], body["certificate_id"], "active"]
    assert not [cell for row in rows for cell in row if cell[:1] in tuple("=+-@\t\r\n")]


@pytest.mark.parametrize("text", CONTROLS, ids=repr)
def test_what_controls_is_in_no_name(boss, text):
    assert boss.issue("plain").status_code in (201, 409)
    quoted = urllib.parse.quote(text, safe="")
    asks = [
        ("POST", "/v1/certificates", {"csr": csr_pem(new_key()), "device_id": "never", "attributes": {"note": text}}),
        ("POST", "/v1/certificates", {"csr": csr_pem(new_key()), "device_id": "never", "thing_type": text}),
        ("POST", "/v1/principals", {"id": text, "role": "auditor"}),
        ("POST", "/v1/principals/boss/tokens", {"description": text}),
        ("POST", f"/v1/devices/{quoted}/release", {}),
        ("GET", f"/v1/manifests/{quoted}/export", None),
        ("GET", f"/v1/audit?object={quoted}", None),
        ("GET", f"/v1/devices?cursor={quoted}", None),
    ]
    for method, path, body in asks:
        answer = boss.request(method, path, json=body)
        assert 400 <= answer.status_code < 500, (method, path, body, answer.text)
        assert code(answer) and "Set-Cookie" not in answer.headers
        # What is said about it shows it escaped.
        assert not [c for c in answer.json()["detail"] if c < " "], answer.text


def test_no_name_becomes_a_header(stack, boss):
    """Not by what a client may put on the line either: requests would not send it."""
    context = ssl.create_default_context(cafile=stack.ca_bundle)
    context.check_hostname = False
    link = http.client.HTTPSConnection("127.0.0.1", stack.ports["stations"], context=context, timeout=10)
    for path in ("/v1/manifests/m%0d%0aSet-Cookie:%20a=b/export", "/v1/cas/%0aX-A:b/certificate", "/crl/%0d%0aX-A:b.crl"):
        link.request("GET", path, headers={"Authorization": f"Bearer {stack.admin_token}", "X-Request-Id": "a\tb"})
        answer = link.getresponse()
        answer.read()
        assert answer.status in (400, 404) and not {"set-cookie", "x-a"} & {key.lower() for key, _ in answer.getheaders()}
    link.close()


def test_formulas_are_brought_out_as_the_text_that_they_are(boss):
    """Through certificate, device, receipt, its stream, the audit log's records and export: JSON each, one line a thing."""
    for number, text in enumerate(FORMULAS):
        answer = boss.issue(f"formula-{number}", attributes={"note": text})
        assert answer.status_code == 201, (text, answer.text)
        assert boss.get(f"/v1/devices/formula-{number}").json()["attributes"] == {"note": text}
    # A comment may have lines.
    comments = {"-1+1": "=1+1\r\ndata: x\n\n\tevent: y", '"quoted", "twice"': '"quoted", \'twice\'\u2028'}
    for text, comment in comments.items():
        asked = boss.post("/v1/revocations", json={"selector": {"attributes": {"note": text}}, "reason": "superseded",
                                                   "comment": comment})
        assert asked.status_code == 202 and asked.json()["matched"] == 1, asked.text
        path = asked.headers["Location"]
        receipt = wait_until(lambda at=path: (it := boss.get(at).json())["state"] == "done" and it, "the receipt")
        assert receipt["comment"] == comment and receipt["selector"] == {"attributes": {"note": text}}
        with boss.get(path, headers={"Accept": "text/event-stream"}, stream=True) as stream:
            found = next(line for line in stream.iter_lines(delimiter=b"\n") if line.startswith(b"data:"))
            assert json.loads(found[5:])["comment"] == comment
    exported = boss.get("/v1/audit/export")
    records = [json.loads(line) for line in exported.content.split(b"\n") if line]
    assert len(records) > len(FORMULAS) and b"\r" not in exported.content
    listed = boss.get("/v1/audit", params={"items": "true", "limit": 1000}).json()["records"]
    said = json.dumps([item for record in listed for item in record["items"]], ensure_ascii=False)
    assert [comment for comment in comments.values() if json.dumps(comment, ensure_ascii=False) not in said] == []
    assert boss.get("/v1/audit/verify").json()["ok"] is True
