"""The description of the API is valid OpenAPI 3.1 as it is served, and says enough about every answer."""
import json
import pathlib
import re

import jsonschema
import pytest
import requests

from harness import client
from harness.described import DOCUMENT

METHODS = {"get", "put", "post", "delete", "patch", "head", "options", "trace"}
ERRORS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "errors.md"
# Raw octets have no schema (OpenAPI 3.1.0, 4.8.14.2).
BINARY = {"application/pkix-cert", "application/pkix-crl", "application/x-x509-ca-cert", "application/ocsp-request",
          "application/ocsp-response"}

# What OpenAPI 3.1.0 wants of the objects that we use (sections 4.8.1 to 4.8.27), as a schema of our own.
REFERENCE = {"type": "object", "properties": {"$ref": {"type": "string", "pattern": "^#/components/"}},
             "required": ["$ref"], "additionalProperties": False}
EXTENSIONS = {"^x-": True}
MEDIA = {"type": "object", "minProperties": 1, "additionalProperties": {
    "type": "object", "properties": {"schema": {"type": ["object", "boolean"]}, "example": True},
    "additionalProperties": False}}
HEADER = {"type": "object", "properties": {"schema": {"type": "object"}, "description": {"type": "string"},
                                           "required": {"type": "boolean"}},
          "required": ["schema"], "additionalProperties": False}
RESPONSE = {"type": "object", "properties": {
    "description": {"type": "string", "minLength": 1}, "content": MEDIA,
    "headers": {"type": "object", "additionalProperties": {"anyOf": [REFERENCE, HEADER]}}},
    "required": ["description"], "patternProperties": EXTENSIONS, "additionalProperties": False}
PARAMETER = {"type": "object", "properties": {
    "name": {"type": "string", "minLength": 1}, "in": {"enum": ["query", "path", "header", "cookie"]},
    "required": {"type": "boolean"}, "description": {"type": "string"}, "schema": {"type": "object"}, "example": True},
    "required": ["name", "in", "schema"], "additionalProperties": False,
    "if": {"properties": {"in": {"const": "path"}}}, "then": {"properties": {"required": {"const": True}},
                                                             "required": ["required"]}}
OPERATION = {"type": "object", "properties": {
    "operationId": {"type": "string", "minLength": 1}, "tags": {"type": "array", "items": {"type": "string"}},
    "summary": {"type": "string", "minLength": 1}, "description": {"type": "string"},
    "parameters": {"type": "array", "items": {"anyOf": [REFERENCE, PARAMETER]}},
    "requestBody": {"type": "object", "properties": {"required": {"type": "boolean"}, "content": MEDIA,
                                                     "description": {"type": "string"}},
                    "required": ["content"], "additionalProperties": False},
    "responses": {"type": "object", "minProperties": 1, "patternProperties": {
        "^[1-5][0-9][0-9]$": {"anyOf": [REFERENCE, RESPONSE]}}, "additionalProperties": False},
    "security": {"type": "array", "items": {"type": "object", "additionalProperties": {
        "type": "array", "items": {"type": "string"}}}}},
    "required": ["operationId", "summary", "responses"], "patternProperties": EXTENSIONS, "additionalProperties": False}
OPENAPI = {"type": "object", "properties": {
    "openapi": {"type": "string", "pattern": r"^3\.1\.\d+$"},
    "info": {"type": "object", "required": ["title", "version"], "properties": {
        "license": {"type": "object", "required": ["name", "identifier"]}}},
    "jsonSchemaDialect": {"type": "string"},
    "servers": {"type": "array", "items": {"type": "object", "required": ["url"]}},
    "security": {"type": "array"},
    "tags": {"type": "array", "items": {"type": "object", "required": ["name"]}},
    "paths": {"type": "object", "patternProperties": {"^/": {"type": "object", "properties": dict.fromkeys(
        METHODS, OPERATION), "additionalProperties": False}}, "additionalProperties": False},
    "components": {"type": "object", "properties": {
        "schemas": {"type": "object", "additionalProperties": {"type": ["object", "boolean"]}},
        "responses": {"type": "object", "additionalProperties": RESPONSE},
        "parameters": {"type": "object", "additionalProperties": PARAMETER},
        "headers": {"type": "object", "additionalProperties": HEADER},
        "securitySchemes": {"type": "object", "additionalProperties": {
            "type": "object", "required": ["type"], "properties": {
                "type": {"enum": ["apiKey", "http", "mutualTLS", "oauth2", "openIdConnect"]}}}}},
        "additionalProperties": False}},
    "required": ["openapi", "info", "paths"], "patternProperties": EXTENSIONS, "additionalProperties": False}


@pytest.fixture(scope="module")
def served(stack):
    answer = requests.get(f"{stack.url}/v1/openapi.json", verify=stack.ca_bundle, timeout=10)
    assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("application/json")
    return answer.json()


def operations(document):
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", path, operation


def resolved(document, value):
    """value, or what its $ref points at."""
    while "$ref" in value:
        at = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            at = at[part.replace("~1", "/").replace("~0", "~")]
        value = at
    return value


def nodes(value):
    yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(child)


def test_what_is_served_is_what_is_in_the_tree(served):
    assert served == DOCUMENT


def test_it_is_openapi_3_1(served):
    jsonschema.Draft202012Validator(OPENAPI).validate(served)
    ids = [operation["operationId"] for _, _, operation in operations(served)]
    assert len(ids) == len(set(ids))
    known = {tag["name"] for tag in served["tags"]}
    for name, path, operation in operations(served):
        assert set(operation["tags"]) <= known, name
        parameters = [resolved(served, parameter) for parameter in operation.get("parameters", [])]
        assert {p["name"] for p in parameters if p["in"] == "path"} == set(re.findall(r"\{(\w+)\}", path)), name
        assert len({(p["in"], p["name"]) for p in parameters}) == len(parameters), name
        for wanted in operation.get("security", served["security"]):
            assert set(wanted) <= set(served["components"]["securitySchemes"]), name
        assert "requestBody" not in operation or not name.startswith(("GET", "DELETE")), name


def test_the_check_itself_can_fail(served):
    for break_it in (lambda d: d.pop("info"), lambda d: d["paths"].update(nothing={}),
                     lambda d: d["paths"]["/healthz"]["get"].pop("responses"),
                     lambda d: d["paths"]["/v1/devices/{id}"]["get"]["parameters"][0].update(required=False)):
        copy = json.loads(json.dumps(served))
        break_it(copy)
        assert not jsonschema.Draft202012Validator(OPENAPI).is_valid(copy)


def test_every_reference_resolves_and_every_schema_is_one(served):
    references = [node["$ref"] for node in nodes(served) if isinstance(node, dict) and isinstance(node.get("$ref"), str)]
    assert len(references) > 100
    for reference in references:
        assert resolved(served, {"$ref": reference}) is not None
    for schema in served["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for node in nodes(served):
        if isinstance(node, dict) and isinstance(node.get("schema"), dict):
            jsonschema.Draft202012Validator.check_schema(node["schema"])
    used = {reference.split("/")[-1] for reference in references}
    assert set(served["components"]["schemas"]) <= used, "schemas that nothing uses"


def test_every_answer_has_a_schema(served):
    for name, _, operation in operations(served):
        assert any(status.startswith("2") for status in operation["responses"]), name
        for status, response in operation["responses"].items():
            response = resolved(served, response)
            if status in ("204", "304"):
                assert "content" not in response, (name, status)
                continue
            assert response["content"], (name, status)
            for kind, media in response["content"].items():
                assert "schema" in media or kind in BINARY, (name, status, kind)
            if int(status) >= 400 and not (name.endswith(("/readyz", "/healthz")) and status == "503"):
                assert set(response["content"]) == {"application/problem+json"}, (name, status)
            if status in ("429", "503") and "application/problem+json" in response["content"]:
                assert "Retry-After" in response["headers"], (name, status)


def test_every_code_is_explained(served):
    explained = set(re.findall(r"^\| `(\w+)` \|", ERRORS.read_text(), re.M))
    for name, _, operation in operations(served):
        assert operation["x-codes"] == sorted(set(operation["x-codes"])), name
        assert set(operation["x-codes"]) <= explained, (name, set(operation["x-codes"]) - explained)


def test_examples_of_requests_are_taken(stack, served):
    """The least that each schema of a request allows is not refused for its form."""
    minimal = {"IssueRequest": {"csr": client.csr_pem(client.new_key()), "device_id": "least-1"},
               "PrincipalRequest": {"id": "least-p", "role": "auditor"}, "StationRequest": {"id": "least-s"},
               "ManifestRequest": {"id": "least-m", "station": "least-s", "quantity": 1}}
    paths = {"IssueRequest": "/v1/certificates", "PrincipalRequest": "/v1/principals", "StationRequest": "/v1/stations",
             "ManifestRequest": "/v1/manifests"}
    with client.admin(stack) as boss:
        for name, body in minimal.items():
            schema = served["components"]["schemas"][name]
            assert set(schema["required"]) == set(body)
            assert boss.post(paths[name], json=body).status_code == 201, name
