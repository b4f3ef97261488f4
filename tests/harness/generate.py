"""Requests by Hypothesis out of the OpenAPI description: good ones, and good ones with one thing broken."""
import json
import random
import re
import string
import urllib.parse

from hypothesis import strategies as st

from harness.described import DOCUMENT

WORD = string.ascii_letters + string.digits + ":_-"
SAFE = st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\u2028\u2029")

# How often each operation is asked; the rest once. What walks a whole table is asked seldom.
WEIGHTS = {"POST /v1/certificates": 14, "POST /v1/certificates/batch": 3, "POST /v1/rotation": 4, "GET /v1/rotation": 3,
           "POST /v1/rotation/confirm": 3, "POST /v1/certificates/{id}/revoke": 3, "POST /v1/manifests": 2,
           "GET /v1/certificates": 3, "GET /v1/audit": 2, "POST /v1/certificates/{id}/unhold": 2,
           "DELETE /v1/stations/{id}/tokens/{token_id}": 2}
SELDOM = {"GET /v1/audit/verify", "POST /v1/audit/verify", "GET /v1/manifests/{id}/export"}
OPERATIONS = {f"{method.upper()} {path}": operation for path, item in DOCUMENT["paths"].items()
              for method, operation in item.items() if "iot" not in operation["tags"]}  # those: test_jitr.py
NAMES = sorted(name for name in OPERATIONS for _ in range(3 * WEIGHTS.get(name, 1) if name not in SELDOM else 2))


def resolved(value):
    while "$ref" in value:
        value = DOCUMENT["components"][value["$ref"].split("/")[2]][value["$ref"].split("/")[3]]
    return value


def times(draw):
    moment = draw(st.integers(0, 9999))
    return f"20{30 + moment % 40:02}-{1 + moment % 12:02}-{1 + moment % 28:02}T{moment % 24:02}:00:{moment % 60:02}" + (
        "Z" if moment % 2 else "+02:00")


def draw_string(draw, schema):
    if schema.get("format") == "date-time":
        return times(draw)
    if "enum" in schema:
        return draw(st.sampled_from(schema["enum"]))
    least, most = schema.get("minLength", 0), min(schema.get("maxLength", 40), 40)
    pattern = schema.get("pattern", "")
    if pattern in ("^[ -~]+$",):
        return draw(st.text(string.ascii_letters + string.digits + " !#/", min_size=1, max_size=most))
    if pattern.startswith("^[^"):
        return draw(st.text(SAFE, min_size=max(least, 1), max_size=most // 4))
    if pattern == "^[1-9][0-9]*[smhd]$":
        return draw(st.sampled_from(("1d", "12h", "90m", "3600s", "30d")))
    if pattern.startswith("^[A-Za-z0-9:_-]"):
        return draw(st.text(WORD, min_size=1, max_size=30))
    if pattern:
        return draw(st.from_regex(pattern, fullmatch=True))
    return draw(st.text(SAFE, min_size=least, max_size=most // 4))


def draw_value(draw, schema):
    """A value that the schema allows; what names things of the server is put in afterwards (World.bind)."""
    schema = resolved(schema)
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type")
    if kind == "string":
        return draw_string(draw, schema)
    if kind == "integer":
        return draw(st.integers(schema.get("minimum", 0), min(schema.get("maximum", 10**6), 10**6)))
    if kind == "boolean":
        return draw(st.booleans())
    if kind == "array":
        least = schema.get("minItems", 0)
        return [draw_value(draw, schema["items"]) for _ in range(draw(st.integers(least, least + 2)))]
    if kind == "object":
        value = {}
        for name, member in schema.get("properties", {}).items():
            if name in schema.get("required", ()) or (
                    len(value) < schema.get("maxProperties", 99) and draw(st.booleans())):
                value[name] = draw_value(draw, member)
        if isinstance(schema.get("additionalProperties"), dict):
            for name in draw(st.lists(st.text(string.ascii_lowercase + "_", min_size=1, max_size=8), max_size=3)):
                value[name] = draw_value(draw, schema["additionalProperties"])
        return value
    raise AssertionError(f"no strategy for {schema}")


# ---- one thing broken ---------------------------------------------------------------------------------------------

NOT_UTF8 = (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82")


def wrong_type(rng, value):
    return rng.choice([other for other in (None, 7, 1.5, True, "text", [], {}, [1], {"a": "b"})
                       if not isinstance(other, type(value)) or isinstance(other, bool) != isinstance(value, bool)])


def some_member(rng, body):
    return rng.choice(sorted(body)) if body else None


def string_member(rng, body):
    names = [name for name in sorted(body) if isinstance(body[name], str)]
    return rng.choice(names) if names else None


def mutate_body(how, rng, body, required):
    """(octets, must it be refused) of a JSON object with one fault; None where the fault does not apply."""
    if not isinstance(body, dict):
        return None
    body = dict(body)
    if how == "type":
        name = some_member(rng, body)
        if name is None:
            return None
        body[name] = wrong_type(rng, body[name])
    elif how == "missing":
        if not required:
            return None
        body.pop(rng.choice(sorted(required)))
    elif how == "unknown":
        body[rng.choice(("color", "Csr", "id ", "", "__proto__", "x" * 300))] = rng.choice((1, "x", None, [], {}))
    elif how == "duplicate":
        name = some_member(rng, body)
        if name is None:
            return None
        text = json.dumps(body)
        return (text[:-1] + f", {json.dumps(name)}: {json.dumps(body[name])}}}").encode()
    elif how in ("long", "control", "nul", "empty"):
        name = string_member(rng, body)
        if name is None:
            return None
        body[name] = {"long": "x" * rng.choice((257, 1000, 17000)), "empty": "",
                      "control": body[name][:5] + rng.choice("\x01\x1b\x7f\x85") + "x",
                      "nul": body[name][:5] + "\0" + "x"}[how]
    elif how == "not_utf8":
        name = string_member(rng, body)
        if name is None:
            return None
        body[name] = "@@@"
        return json.dumps(body).encode().replace(b"@@@", b"a" + rng.choice(NOT_UTF8) + b"b")
    elif how == "lone_surrogate":
        name = string_member(rng, body)
        if name is None:
            return None
        body[name] = "@@@"
        return json.dumps(body).replace("@@@", "\\ud800").encode()
    elif how == "deep":
        depth = rng.choice((17, 60, 200))
        body["x"] = "@@@"
        return json.dumps(body).replace('"@@@"', "[" * depth + "]" * depth).encode()
    elif how == "not_object":
        return rng.choice((b"[]", b"null", b"7", b'"x"', b"true", b"[{}]"))
    elif how == "syntax":
        text = json.dumps(body).encode()
        return rng.choice((text[:-1], text + b"}", text + b" {}", b"\xef\xbb\xbf" + text, text.replace(b'"', b"'") + b"'",
                           b"{,}", b"{" + text, b"", text + b"\0", b'{"a": 01}', b'{"a": NaN}', b"// x\n" + text))
    elif how == "number":
        names = [name for name in sorted(body) if isinstance(body[name], int) and not isinstance(body[name], bool)]
        if not names:
            return None
        text = json.dumps({**body, rng.choice(names): "@@@"})
        return text.replace('"@@@"', rng.choice(("0", "-1", "99999999999", "9" * 40, "1e400", "1e3", "1.5"))).encode()
    return json.dumps(body).encode()


BODY_FAULTS = ("type", "missing", "unknown", "duplicate", "long", "control", "nul", "empty", "not_utf8", "lone_surrogate",
               "deep", "not_object", "syntax", "number")
OTHER_FAULTS = ("content_type", "no_token", "bad_token", "role", "method", "path", "query", "accept", "key", "large", "csr",
                "raw", "absent")
FAULTS = BODY_FAULTS + OTHER_FAULTS

QUERIES = ("color=red", "limit=0", "limit=1001", "limit=x", "limit=", "limit=1&limit=2", "cursor=nonsense", "cursor=%ff",
           "a=%zz", "limit=%", "%00=1", "limit=1%00", "status=nonsense", "role=nobody", "issued_after=yesterday",
           "issued_before=2020-13-01T00:00:00Z", "expires_after=1", "expires_before=x", "since=x", "until=%20", "items=maybe",
           "issued=2", "device_id=a%20b", "station=%2F", "manifest=", "profile=%0a", "ca=A%20", "thing_type=%7f",
           "&".join(f"p{i}=1" for i in range(40)), "actor=" + "x" * 100, "cursor=" + "A" * 190)
PATHS = ("//", "/v1//certificates", "/v1/certificates/", "/v1/certificates/%zz", "/v1/certificates/%00", "/v1/../v1/cas",
         "/v1/certificates/%2e%2e", "/v1/devices/%ff", "/v1/devices/" + "x" * 65, "/v1/nothing", "/V1/cas", "/v1/cas/%41",
         "/crl/.crl", "/crl/x.crl", "/crl/x/zz.crl", "/v1/certificates/" + "g" * 64, "/v1/certificates/" + "0" * 64,
         "/v1/certificates/" + "0" * 63, "/v1/revocations/x", "/v1/devices/none", "/v1/stations/none", "/v1/manifests/none",
         "/v1/principals/none", "/v1/principals/none/tokens", "/v1/" + "a" * 3000, "/%", "/v1/cas/none", "*")
RAWS = (b"X y: z\r\n", b"X: a\x01b\r\n", b": x\r\n", b"Content-Type: text/plain\r\nContent-Type: application/json\r\n",
        b"Authorization: Bearer x\r\nAuthorization: Bearer y\r\n", b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\n", b"Content-Length: -1\r\n", b"X: " + b"y" * 9000 + b"\r\n", b"X: 1\r\n" * 70,
        b"Content-Length: 3\r\nContent-Length: 3\r\n", b"Content-Length: 1e3\r\n", b"X: \xff\xfe\r\n", b"X: a\r\n b\r\n", None)


class Plan:
    """One request to be: an operation, its values, and the fault (or None)."""

    def __init__(self, name, parameters, body, fault, number):
        self.name, self.parameters, self.body, self.fault = name, parameters, body, fault
        self.rng = random.Random(number)
        self.number = number

    def __repr__(self):
        return f"{self.name} fault={self.fault} number={self.number}"


@st.composite
def plans(draw):
    name = draw(st.sampled_from(NAMES))
    operation = OPERATIONS[name]
    parameters = {}
    for parameter in operation.get("parameters", []):
        parameter = resolved(parameter)
        if parameter["in"] == "path" or (parameter["in"] == "query" and parameter.get("required")) or \
                draw(st.integers(0, 3)) == 0:
            parameters[parameter["in"], parameter["name"]] = draw_value(draw, parameter["schema"])
    content = operation.get("requestBody", {}).get("content", {})
    body = draw_value(draw, content["application/json"]["schema"]) if "application/json" in content else None
    fault = draw(st.one_of(st.none(), st.sampled_from(FAULTS)))
    return Plan(name, parameters, body, fault, draw(st.integers(0, 2**32 - 1)))


def path_of(plan):
    method, template = plan.name.split(" ", 1)
    path = re.sub(r"\{(\w+)\}", lambda m: urllib.parse.quote(str(plan.parameters["path", m[1]]), safe=":"), template)
    query = urllib.parse.urlencode({name: str(value).lower() if isinstance(value, bool) else value
                                    for (where, name), value in plan.parameters.items() if where == "query"})
    return method, path + ("?" + query if query else "")
