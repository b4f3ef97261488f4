"""Answers held against server/api/openapi.json: status, content type, schema and code must be described."""
import collections
import json
import pathlib
import re

import jsonschema

DOCUMENT = json.loads((pathlib.Path(__file__).resolve().parents[2] / "server/api/openapi.json").read_text())
OPERATIONS = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}
# What wants an IoT Core beside the server: tests/api/test_jitr.py has it.
WITH_IOT = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item
            if "iot" in item[method]["tags"]}


def template_of(path):
    """The path of the document that a request's path is an instance of; the most literal one wins."""
    plain = path.split("?")[0]
    found = [template for template in DOCUMENT["paths"]
             if re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template)), plain)]
    return min(found, key=lambda template: template.count("{"), default=None)


class Described:
    """A Client whose every answer is checked; calls counts the operations that were tried."""

    calls = collections.Counter()

    def __init__(self, client):
        self.client = client

    def __call__(self, method, path, status, code=None, **options):
        answer = self.client.request(method, path, **options)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        template = template_of(path)
        assert template, f"{path} is not described"
        self.calls[method, template] += 1
        check(DOCUMENT["paths"][template][method.lower()], answer)
        if code:
            assert answer.json()["code"] == code, answer.text
        return answer


def check(operation, answer):
    described = operation["responses"].get(str(answer.status_code))
    assert described, f"{answer.url}: {answer.status_code} is not described"
    if "$ref" in described:
        described = DOCUMENT["components"]["responses"][described["$ref"].rsplit("/", 1)[1]]
    if not answer.content:
        return
    kind = answer.headers["Content-Type"].split(";")[0]
    assert kind in described["content"], f"{answer.url}: {kind} is not described for {answer.status_code}"
    if kind.endswith("json") and kind != "application/x-ndjson":  # that is lines
        schema = {"components": DOCUMENT["components"], "allOf": [described["content"][kind]["schema"]]}
        jsonschema.Draft202012Validator(schema).validate(answer.json())
    if kind == "application/problem+json":
        assert answer.json()["code"] in operation["x-codes"], f"{answer.url}: {answer.text} is not among x-codes"
