"""A stand-in for AWS IoT Core's control plane: judges each request by botocore's service model and signature, keeps
simple state, and makes faults on demand. What a request got wrong is kept in `findings`: a test ends by seeing none."""
import base64
import collections
import dataclasses
import hashlib
import http.server
import json
import re
import socket
import struct
import threading
import time
import urllib.parse
import uuid

import botocore.loaders
import botocore.model
import botocore.validate
from botocore import auth, awsrequest, credentials

ACCOUNT, REGION = "123456789012", "eu-west-1"
KEYS = {"AKIDEXAMPLE": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
SKEW_S = 300
# What AWS's own clients do not send either, or what belongs to HTTP.
PLAIN_HEADERS = {"host", "user-agent", "content-length", "content-type", "authorization", "x-amz-date",
                 "x-amz-security-token", "connection"}
CODES = {"ResourceNotFoundException": 404, "ResourceAlreadyExistsException": 409, "InvalidRequestException": 400,
         "CertificateStateException": 406, "DeleteConflictException": 409, "VersionConflictException": 409,
         "VersionsLimitExceededException": 409, "LimitExceededException": 410, "MalformedPolicyException": 400,
         "CertificateValidationException": 400, "UnauthorizedException": 401, "ThrottlingException": 400}


class Refused(Exception):
    def __init__(self, code, message="", **members):
        super().__init__(code)
        self.code, self.body = code, {"message": message, **members}


def arn(kind, name):
    return f"arn:aws:iot:{REGION}:{ACCOUNT}:{kind}/{name}"


def certificate_id(pem):
    try:
        der = base64.b64decode("".join(pem.strip().splitlines()[1:-1]), validate=True)
    except ValueError as error:
        raise Refused("CertificateValidationException", "not a certificate") from error
    return hashlib.sha256(der).hexdigest()


@dataclasses.dataclass
class Call:
    """A request that reached the service: what was asked, and what became of it."""
    when: float
    operation: str
    params: dict
    code: str | None = None  # of a refusal
    lost: bool = False  # carried out, but its answer never arrived


class Model:
    """Finds the operation of a request and holds it against its input shape."""

    def __init__(self):
        self.service = botocore.model.ServiceModel(botocore.loaders.Loader().load_service_model("iot", "service-2"))
        self.routes = []
        for name in self.service.operation_names:
            operation = self.service.operation_model(name)
            uri = operation.http["requestUri"].split("?")[0]
            pattern = re.sub(r"\\\{(\w+)(\\\+)?\\\}", lambda m: f"(?P<{m.group(1)}>{'.+' if m.group(2) else '[^/]+'})", re.escape(uri))
            self.routes.append((operation.http["method"], re.compile(pattern + r"\Z"), uri.count("{"), operation))
        # A fixed path goes before one with labels.
        self.routes.sort(key=lambda route: route[2])
        self.validator = botocore.validate.ParamValidator()

    def find(self, method, path):
        for route_method, pattern, _, operation in self.routes:
            match = pattern.match(path)
            if route_method == method and match:
                return operation, match.groupdict()
        return None, {}

    def read(self, operation, labels, query, headers, body):
        """The parameters, and what is wrong with them."""
        shape, wrong, params = operation.input_shape, [], {}
        members = shape.members if shape else {}
        places = collections.defaultdict(dict)
        for name, member in members.items():
            places[member.serialization.get("location", "body")][member.serialization.get("name", name)] = (name, member)
        for wire, value in labels.items():
            name, _ = places["uri"][wire]
            params[name] = urllib.parse.unquote(value)
            if "%" in value and re.search(r"%(?![0-9A-F]{2})", value):
                wrong.append(f"label {wire}: escapes in upper case wanted")
        for wire, value in query:
            if wire not in places["querystring"]:
                wrong.append(f"query {wire} is unknown")
                continue
            name, member = places["querystring"][wire]
            params[name] = self.from_text(member, value, wrong)
        for wire, value in headers.items():
            found = {key.lower(): entry for key, entry in places["header"].items()}.get(wire)
            if found:
                params[found[0]] = value
            elif wire not in PLAIN_HEADERS:
                wrong.append(f"header {wire} is unknown")
        payload = shape.serialization.get("payload") if shape else None
        if body:
            if headers.get("content-type") != "application/json":
                wrong.append("a body without Content-Type: application/json")
            if not places["body"]:
                wrong.append("a body that the operation does not have")
            try:
                content = json.loads(body, object_pairs_hook=self.pairs)
            except ValueError as error:
                wrong.append(f"body: {error}")
                content = {}
            params.update({payload: content} if payload else content)
        elif "content-type" in headers:
            wrong.append("Content-Type without a body")
        if shape:
            wrong += self.check(params, shape)
        elif params:
            wrong.append("parameters that the operation does not have")
        return params, wrong

    @staticmethod
    def pairs(items):
        if len(dict(items)) != len(items):
            raise ValueError("a key stands twice")
        return dict(items)

    @staticmethod
    def from_text(member, value, wrong):
        if member.type_name == "boolean":
            if value not in ("true", "false"):
                wrong.append(f"{member.name}: true or false wanted")
            return value == "true"
        if member.type_name in ("integer", "long"):
            return int(value) if re.fullmatch(r"-?\d+", value) else value
        return value

    def check(self, value, shape):
        """botocore's own checks (required, type, least length), and those that only the service makes."""
        report = self.validator.validate(value, shape)
        wrong = [report.generate_report()] if report.has_errors() else []
        self.check_deep(value, shape, shape.name, wrong)
        return wrong

    def check_deep(self, value, shape, where, wrong):
        limits = shape.metadata
        if shape.type_name == "structure" and isinstance(value, dict):
            for name, item in value.items():
                if name not in shape.members:
                    wrong.append(f"{where}.{name}: unknown member")
                else:
                    self.check_deep(item, shape.members[name], f"{where}.{name}", wrong)
        elif shape.type_name == "map" and isinstance(value, dict):
            for name, item in value.items():
                self.check_deep(name, shape.key, f"{where} key", wrong)
                self.check_deep(item, shape.value, f"{where}.{name}", wrong)
        elif shape.type_name == "list" and isinstance(value, list):
            for item in value:
                self.check_deep(item, shape.member, f"{where}[]", wrong)
        elif shape.type_name == "string" and isinstance(value, str):
            if "enum" in limits and value not in limits["enum"]:
                wrong.append(f"{where}: {value} is not of the enumeration")
            if "pattern" in limits and not re.fullmatch(limits["pattern"].replace(r"\p{Graph}", r"\S").replace(
                    r"\p{L}", r"\w").replace(r"\p{Z}", " ").replace(r"\p{N}", r"\d"), value):
                wrong.append(f"{where}: does not match {limits['pattern']}")
        size = len(value) if isinstance(value, (str, list, dict)) else value if isinstance(value, int) else None
        if size is not None and not limits.get("min", size) <= size <= limits.get("max", size):
            wrong.append(f"{where}: {size} is outside of its bounds")


class State:
    """What the account holds; one method for each operation, named as the model names it."""

    def __init__(self):
        self.cas, self.certificates, self.things, self.types = {}, {}, {}, {}
        self.groups, self.policies, self.rules, self.destinations = {}, {}, {}, {}
        self.attached = collections.defaultdict(list)  # target ARN: policy names
        self.events = {}
        self.now = 1700000000.25

    def tick(self):
        self.now += 1
        return self.now

    @staticmethod
    def need(mapping, key):
        if key not in mapping:
            raise Refused("ResourceNotFoundException", f"{key} does not exist")
        return mapping[key]

    @staticmethod
    def page(items, params, size_name, token_name, out_name):
        start = int(base64.b64decode(params.get(token_name, "") or "MA=="))
        size = params.get(size_name, 25)
        result = {out_name: items[start:start + size]}
        if start + size < len(items):
            result["nextMarker" if token_name == "marker" else "nextToken"] = base64.b64encode(
                str(start + size).encode()).decode()
        return result

    # certificates

    def GetRegistrationCode(self, _):
        return {"registrationCode": "ab" * 32}

    def RegisterCACertificate(self, p):
        name = certificate_id(p["caCertificate"])
        if name in self.cas:
            raise Refused("ResourceAlreadyExistsException", "The CA is there", resourceId=name, resourceArn=arn("cacert", name))
        mode = p.get("certificateMode", "DEFAULT")
        if (mode == "DEFAULT") != bool(p.get("verificationCertificate")):
            raise Refused("InvalidRequestException", "verificationCertificate")
        self.cas[name] = {"certificateArn": arn("cacert", name), "certificateId": name, "ownedBy": ACCOUNT,
                          "status": "ACTIVE" if p.get("setAsActive") else "INACTIVE", "certificatePem": p["caCertificate"],
                          "creationDate": self.tick(), "certificateMode": mode, "customerVersion": 1,
                          "autoRegistrationStatus": "ENABLE" if p.get("allowAutoRegistration") else "DISABLE"}
        return {"certificateArn": arn("cacert", name), "certificateId": name}

    def DescribeCACertificate(self, p):
        return {"certificateDescription": self.need(self.cas, p["certificateId"])}

    def UpdateCACertificate(self, p):
        ca = self.need(self.cas, p["certificateId"])
        ca["status"] = p.get("newStatus", ca["status"])
        ca["autoRegistrationStatus"] = p.get("newAutoRegistrationStatus", ca["autoRegistrationStatus"])

    def DeleteCACertificate(self, p):
        if self.need(self.cas, p["certificateId"])["status"] == "ACTIVE":
            raise Refused("CertificateStateException", "it is ACTIVE")
        del self.cas[p["certificateId"]]

    @staticmethod
    def short(items, *names):
        return [{name: item[name] for name in names if name in item} for item in items]

    def ListCACertificates(self, p):
        items = self.short(self.cas.values(), "certificateArn", "certificateId", "status", "creationDate")
        return self.page(items, p, "pageSize", "marker", "certificates")

    def add_certificate(self, p, mode, ca=None):
        name = certificate_id(p["certificatePem"])
        if name in self.certificates:
            raise Refused("ResourceAlreadyExistsException", "It is there", resourceId=name, resourceArn=arn("cert", name))
        self.certificates[name] = {"certificateArn": arn("cert", name), "certificateId": name, "ownedBy": ACCOUNT,
                                   "status": p.get("status", "INACTIVE"), "certificatePem": p["certificatePem"],
                                   "creationDate": self.tick(), "lastModifiedDate": self.now, "certificateMode": mode,
                                   "validity": {"notBefore": 1.6e9, "notAfter": 1.9e9}, "transferData": {}}
        if ca:
            self.certificates[name]["caCertificateId"] = ca
        return {"certificateArn": arn("cert", name), "certificateId": name}

    def RegisterCertificate(self, p):
        if not self.cas:
            raise Refused("CertificateValidationException", "no CA is registered")
        return self.add_certificate(p, "DEFAULT", next(iter(self.cas)))

    def RegisterCertificateWithoutCA(self, p):
        return self.add_certificate(p, "SNI_ONLY")

    def DescribeCertificate(self, p):
        return {"certificateDescription": self.need(self.certificates, p["certificateId"])}

    def UpdateCertificate(self, p):
        found = self.need(self.certificates, p["certificateId"])
        if found["status"] == "REVOKED" and p["newStatus"] != "REVOKED":
            raise Refused("CertificateStateException", "REVOKED is final")
        found["status"] = p["newStatus"]

    def DeleteCertificate(self, p):
        found = self.need(self.certificates, p["certificateId"])
        if found["status"] == "ACTIVE":
            raise Refused("CertificateStateException", "it is ACTIVE")
        if self.attached[found["certificateArn"]] and not p.get("forceDelete"):
            raise Refused("DeleteConflictException", "policies are attached")
        del self.certificates[p["certificateId"]]

    def list_certificates(self, p, items):
        items = self.short(items, "certificateArn", "certificateId", "status", "creationDate", "certificateMode")
        return self.page(items if p.get("ascendingOrder") else items[::-1], p, "pageSize", "marker", "certificates")

    def ListCertificates(self, p):
        return self.list_certificates(p, self.certificates.values())

    def ListCertificatesByCA(self, p):
        return self.list_certificates(p, [c for c in self.certificates.values() if c.get("caCertificateId") == p["caCertificateId"]])

    # things

    def CreateThing(self, p):
        name, attributes = p["thingName"], p.get("attributePayload", {}).get("attributes", {})
        if p.get("thingTypeName"):
            self.need(self.types, p["thingTypeName"])
        wanted = {"thingTypeName": p.get("thingTypeName"), "attributes": attributes}
        found = self.things.get(name)
        if found and {key: found[key] for key in wanted} != wanted:
            raise Refused("ResourceAlreadyExistsException", "other content", resourceId=name, resourceArn=arn("thing", name))
        if not found:
            self.things[name] = {**wanted, "thingName": name, "thingArn": arn("thing", name), "thingId": str(uuid.uuid4()),
                                 "version": 1, "principals": [], "groups": []}
        return {key: self.things[name][key] for key in ("thingName", "thingArn", "thingId")}

    def DescribeThing(self, p):
        found = self.need(self.things, p["thingName"])
        out = {key: found[key] for key in ("thingName", "thingArn", "thingId", "attributes", "version")}
        if found["thingTypeName"]:
            out["thingTypeName"] = found["thingTypeName"]
        return {"defaultClientId": p["thingName"], **out}

    def UpdateThing(self, p):
        found = self.need(self.things, p["thingName"])
        if p.get("expectedVersion", found["version"]) != found["version"]:
            raise Refused("VersionConflictException", "another version")
        payload = p.get("attributePayload", {})
        attributes = {**(found["attributes"] if payload.get("merge") else {}), **payload.get("attributes", {})}
        found["attributes"] = {key: value for key, value in attributes.items() if value}
        found["thingTypeName"] = None if p.get("removeThingType") else p.get("thingTypeName", found["thingTypeName"])
        found["version"] += 1

    def DeleteThing(self, p):
        found = self.things.get(p["thingName"])
        if found and found["principals"]:
            raise Refused("InvalidRequestException", "a principal is attached")
        if found and p.get("expectedVersion", found["version"]) != found["version"]:
            raise Refused("VersionConflictException", "another version")
        self.things.pop(p["thingName"], None)

    def CreateThingType(self, p):
        name = p["thingTypeName"]
        if name in self.types:
            raise Refused("ResourceAlreadyExistsException", "it is there", resourceId=name, resourceArn=arn("thingtype", name))
        self.types[name] = {"thingTypeName": name, "thingTypeArn": arn("thingtype", name), "thingTypeId": str(uuid.uuid4()),
                            "thingTypeProperties": p.get("thingTypeProperties", {}),
                            "thingTypeMetadata": {"deprecated": False, "creationDate": self.tick()}}
        return {key: self.types[name][key] for key in ("thingTypeName", "thingTypeArn", "thingTypeId")}

    def DescribeThingType(self, p):
        return self.need(self.types, p["thingTypeName"])

    def CreateThingGroup(self, p):
        name = p["thingGroupName"]
        if name in self.groups:
            raise Refused("ResourceAlreadyExistsException", "it is there", resourceId=name, resourceArn=arn("thinggroup", name))
        self.groups[name] = {"thingGroupName": name, "thingGroupArn": arn("thinggroup", name), "thingGroupId": str(uuid.uuid4())}
        return self.groups[name]

    def AddThingToThingGroup(self, p):
        self.need(self.groups, p["thingGroupName"])
        groups = self.need(self.things, p["thingName"])["groups"]
        if p["thingGroupName"] not in groups:
            groups.append(p["thingGroupName"])

    def RemoveThingFromThingGroup(self, p):
        self.need(self.groups, p["thingGroupName"])
        groups = self.need(self.things, p["thingName"])["groups"]
        if p["thingGroupName"] in groups:
            groups.remove(p["thingGroupName"])

    def ListThingGroupsForThing(self, p):
        groups = self.need(self.things, p["thingName"])["groups"]
        items = [{"groupName": name, "groupArn": arn("thinggroup", name)} for name in groups]
        return self.page(items, p, "maxResults", "nextToken", "thingGroups")

    def AttachThingPrincipal(self, p):
        principals = self.need(self.things, p["thingName"])["principals"]
        self.need({c["certificateArn"]: 1 for c in self.certificates.values()}, p["principal"])
        if p["principal"] not in principals:
            principals.append(p["principal"])

    def DetachThingPrincipal(self, p):
        principals = self.need(self.things, p["thingName"])["principals"]
        if p["principal"] in principals:
            principals.remove(p["principal"])

    def ListThingPrincipals(self, p):
        return self.page(self.need(self.things, p["thingName"])["principals"], p, "maxResults", "nextToken", "principals")

    def ListPrincipalThings(self, p):
        names = [name for name, thing in self.things.items() if p["principal"] in thing["principals"]]
        return self.page(names, p, "maxResults", "nextToken", "things")

    # policies

    def CreatePolicy(self, p):
        name = p["policyName"]
        if name in self.policies:
            raise Refused("ResourceAlreadyExistsException", "it is there", resourceId=name, resourceArn=arn("policy", name))
        try:
            json.loads(p["policyDocument"])
        except ValueError as error:
            raise Refused("MalformedPolicyException", "not JSON") from error
        self.policies[name] = {"default": "1", "next": 2, "versions": {"1": (p["policyDocument"], self.tick())}}
        return {"policyName": name, "policyArn": arn("policy", name), "policyDocument": p["policyDocument"], "policyVersionId": "1"}

    def GetPolicy(self, p):
        found = self.need(self.policies, p["policyName"])
        return {"policyName": p["policyName"], "policyArn": arn("policy", p["policyName"]), "defaultVersionId": found["default"],
                "policyDocument": found["versions"][found["default"]][0], "creationDate": self.now}

    def CreatePolicyVersion(self, p):
        found = self.need(self.policies, p["policyName"])
        if len(found["versions"]) == 5:
            raise Refused("VersionsLimitExceededException", "five versions")
        version = str(found["next"])
        found["next"] += 1
        found["versions"][version] = (p["policyDocument"], self.tick())
        if p.get("setAsDefault"):
            found["default"] = version
        return {"policyArn": arn("policy", p["policyName"]), "policyDocument": p["policyDocument"], "policyVersionId": version,
                "isDefaultVersion": found["default"] == version}

    def SetDefaultPolicyVersion(self, p):
        found = self.need(self.policies, p["policyName"])
        self.need(found["versions"], p["policyVersionId"])
        found["default"] = p["policyVersionId"]

    def ListPolicyVersions(self, p):
        found = self.need(self.policies, p["policyName"])
        return {"policyVersions": [{"versionId": key, "isDefaultVersion": key == found["default"], "createDate": value[1]}
                                   for key, value in found["versions"].items()]}

    def DeletePolicyVersion(self, p):
        found = self.need(self.policies, p["policyName"])
        self.need(found["versions"], p["policyVersionId"])
        if found["default"] == p["policyVersionId"]:
            raise Refused("DeleteConflictException", "the default version")
        del found["versions"][p["policyVersionId"]]

    def AttachPolicy(self, p):
        self.need(self.policies, p["policyName"])
        if ":cert/" in p["target"]:
            self.need(self.certificates, p["target"].rsplit("/", 1)[1])
        names = self.attached[p["target"]]
        if p["policyName"] not in names:
            names.append(p["policyName"])

    def DetachPolicy(self, p):
        if p["policyName"] not in self.attached[p["target"]]:
            raise Refused("ResourceNotFoundException", "not attached")
        self.attached[p["target"]].remove(p["policyName"])

    def ListAttachedPolicies(self, p):
        items = [{"policyName": name, "policyArn": arn("policy", name)} for name in self.attached[p["target"]]]
        return self.page(items, p, "pageSize", "marker", "policies")

    # endpoint, rules, events

    def DescribeEndpoint(self, p):
        kind = p.get("endpointType", "iot:Data")
        return {"endpointAddress": f"a1b2c3{'-ats' if kind == 'iot:Data-ATS' else ''}.iot.{REGION}.amazonaws.com"}

    def CreateTopicRuleDestination(self, p):
        name = arn("ruledestination/http", str(uuid.uuid4()))
        url = p["destinationConfiguration"]["httpUrlConfiguration"]["confirmationUrl"]
        self.destinations[name] = {"arn": name, "status": "IN_PROGRESS", "statusReason": "Awaiting confirmation.",
                                   "createdAt": self.tick(), "httpUrlProperties": {"confirmationUrl": url}}
        return {"topicRuleDestination": self.destinations[name]}

    def ConfirmTopicRuleDestination(self, p):
        if p["confirmationToken"] != "token/with+odd=chars":
            raise Refused("InvalidRequestException", "token")
        for found in self.destinations.values():
            found["status"] = "ENABLED"

    def GetTopicRuleDestination(self, p):
        return {"topicRuleDestination": self.need(self.destinations, p["arn"])}

    def UpdateTopicRuleDestination(self, p):
        self.need(self.destinations, p["arn"])["status"] = p["status"]

    def ListTopicRuleDestinations(self, p):
        items = [{"arn": d["arn"], "status": d["status"], "httpUrlSummary": d["httpUrlProperties"]} for d in self.destinations.values()]
        return self.page(items, p, "maxResults", "nextToken", "destinationSummaries")

    def CreateTopicRule(self, p):
        if p["ruleName"] in self.rules:
            raise Refused("ResourceAlreadyExistsException", "it is there")
        self.rules[p["ruleName"]] = p["topicRulePayload"]

    def ReplaceTopicRule(self, p):
        if p["ruleName"] not in self.rules:
            raise Refused("UnauthorizedException", "no such rule")
        self.rules[p["ruleName"]] = p["topicRulePayload"]

    def DeleteTopicRule(self, p):
        self.rules.pop(p["ruleName"], None)

    def GetTopicRule(self, p):
        if p["ruleName"] not in self.rules:
            raise Refused("UnauthorizedException", "no such rule")
        rule = self.rules[p["ruleName"]]
        return {"ruleArn": arn("rule", p["ruleName"]), "rule": {**rule, "ruleName": p["ruleName"], "ruleDisabled": False}}

    def UpdateEventConfigurations(self, p):
        self.events.update(p["eventConfigurations"])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_):
        pass

    def setup(self):
        super().setup()
        with self.server.double.lock:
            self.server.double.connections += 1

    def handle_one(self):
        self.server.double.handle(self)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = handle_one


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass  # connections that we reset ourselves, or that a client gave up


class AwsDouble:
    """with AwsDouble() as double: double.url, double.fault("DescribeThing", "throttle", times=2), double.findings."""

    model = None

    def __init__(self, tls=None):
        AwsDouble.model = AwsDouble.model or Model()
        self.lock = threading.RLock()
        self.state, self.findings, self.faults, self.seen = State(), [], [], []
        self.journal = []  # Call
        self.chaos = None  # operation: a fault or None, where none was ordered
        self.connections = 0
        self.keys = dict(KEYS)
        self.tokens = {}  # access key: session token
        self.released = threading.Event()  # what hangs, hangs until then
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.double = self
        self.tls = tls
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.prefix = ""
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": .05}, daemon=True)

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.server.server_port}{self.prefix}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def fault(self, operation, kind, times=1, **details):
        """The next `times` requests of operation (None: any) meet kind: see make_fault."""
        with self.lock:
            self.faults.append({"operation": operation, "kind": kind, "times": times, **details})

    def count(self, operation):
        with self.lock:
            return sum(name == operation for name, _ in self.seen)

    def times(self, operation):
        with self.lock:
            return [when for name, when in self.seen if name == operation]

    def next_fault(self, operation):
        for fault in self.faults:
            if fault["times"] > 0 and fault["operation"] in (None, operation):
                fault["times"] -= 1
                return fault
        return self.chaos(operation) if self.chaos else None

    # one request

    def handle(self, handler):
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        path, _, query = handler.path.partition("?")
        if self.prefix and not path.startswith(self.prefix + "/"):
            self.findings.append(f"{path}: without the prefix")
        operation, labels = self.model.find(handler.command, path[len(self.prefix):])
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self.lock:
            if operation is None:
                self.findings.append(f"{handler.command} {path}: no operation of the model")
                self.answer(handler, 404, {"message": "no operation"}, "ResourceNotFoundException")
                return
            self.seen.append((operation.name, time.monotonic()))
            fault = self.next_fault(operation.name)
        if fault and self.make_fault(handler, fault, before=True):
            return
        call = Call(time.monotonic(), operation.name, {})
        try:
            with self.lock:
                status, result, kind = self.perform(call, handler, operation, labels, query, headers, body)
        except Refused as refused:
            status, result, kind = CODES.get(refused.code, 403), refused.body, refused.code
            call.code = refused.code
        if fault and self.make_fault(handler, fault, before=False, result=result):
            call.lost = True
            return
        self.answer(handler, status, result, kind)

    def perform(self, call, handler, operation, labels, query, headers, body):
        self.check_signature(handler.command, handler.path, headers, body)
        pairs = [(urllib.parse.unquote(name), urllib.parse.unquote(value)) for name, _, value in
                 (part.partition("=") for part in query.split("&") if part)]
        params, wrong = self.model.read(operation, labels, pairs, headers, body)
        if handler.command in ("POST", "PUT", "PATCH") and "content-length" not in headers:
            wrong.append("no Content-Length")
        if wrong:
            self.findings.append(f"{operation.name}: {'; '.join(wrong)}")
            raise Refused("InvalidRequestException", "; ".join(wrong)[:200])
        call.params = params
        self.journal.append(call)
        result = getattr(self.state, operation.name)(params)
        if result is not None:
            wrong = [text for text in self.model.check(result, operation.output_shape) if "unknown member" not in text.lower()]
            assert not wrong, (operation.name, wrong)
        return 200, result, None

    def check_signature(self, method, target, headers, body):
        match = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, "
                             r"SignedHeaders=([^,]+), Signature=([0-9a-f]{64})", headers.get("authorization", ""))
        if not match:
            self.findings.append("Authorization: malformed or missing")
            raise Refused("UnrecognizedClientException", "no signature")
        access_key, day, region, service, names, signature = match.groups()
        if access_key not in self.keys:
            raise Refused("UnrecognizedClientException", "The security token included in the request is invalid.")
        if self.tokens.get(access_key) != headers.get("x-amz-security-token"):
            raise Refused("UnrecognizedClientException", "another session token")
        names = names.split(";")
        must = {"host", "x-amz-date"} | {name for name in headers if name.startswith("x-amz") or name == "content-type"}
        if not must <= set(names) or names != sorted(names):
            self.findings.append(f"signed headers: {names}, wanted {sorted(must)}")
        date = headers["x-amz-date"]
        age = time.time() - time.mktime(time.strptime(date, "%Y%m%dT%H%M%SZ")) + time.timezone
        if abs(age) > SKEW_S or day != date[:8] or (region, service) != (REGION, "iot"):
            self.findings.append(f"scope or date: {date} {day} {region} {service}")
        request = awsrequest.AWSRequest(method=method, url=f"http://{headers['host']}{target}", data=body)
        for name in names:
            request.headers.add_header(name, headers.get(name, ""))
        request.context["timestamp"] = date
        signer = auth.SigV4Auth(credentials.Credentials(access_key, self.keys[access_key]), service, region)
        if signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request) != signature:
            self.findings.append(f"{method} {target}: wrong signature")
            raise Refused("InvalidSignatureException", "The request signature we calculated does not match")

    @staticmethod
    def answer(handler, status, result, kind=None, extra=()):
        body = b"" if result is None else json.dumps({**result, "memberOfTomorrow": [1]}).encode()
        handler.send_response(status)
        handler.send_header("x-amzn-RequestId", str(uuid.uuid4()))
        if kind:
            handler.send_header("x-amzn-ErrorType", kind + ":http://internal.amazon.com/coral/")
        for name, value in extra:
            handler.send_header(name, value)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def reset(self, handler):
        """RST instead of an answer."""
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.close_connection = True
        handler.connection.close()

    def raw(self, handler, status, body, length=None):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)
        handler.wfile.flush()
        if length is not None:
            handler.close_connection = True

    def make_fault(self, handler, fault, before, result=None):
        """True when the fault was the answer. `late`: the operation is carried out, then its answer is lost."""
        kind = fault["kind"]
        if before:
            if kind == "throttle":
                extra = [("x-amz-retry-after", str(fault["retry_after"]))] if "retry_after" in fault else []
                self.answer(handler, 400, {"message": "Rate exceeded"}, "ThrottlingException", extra)
            elif kind == "throttle_body":
                self.raw(handler, 400, b'{"__type": "com.amazon.coral#ThrottlingException", "Message": "slow"}')
            elif kind == "status":
                self.answer(handler, fault["status"], {"message": fault.get("message", "unwell")}, fault.get("type"))
            elif kind == "plain_status":
                self.raw(handler, fault["status"], b"<html>Bad Gateway</html>")
            elif kind == "not_found":
                self.answer(handler, 404, {"message": "not seen yet"}, "ResourceNotFoundException")
            elif kind == "reset":
                self.reset(handler)
            elif kind == "hang":
                self.released.wait(60)
                self.reset(handler)
            elif kind == "delay":
                self.released.wait(fault["s"])
                return False
            else:
                return False
            return True
        body = json.dumps(result or {}).encode()
        if kind == "late":
            self.reset(handler)
        elif kind == "truncate":
            self.raw(handler, 200, body[:len(body) // 2], len(body))
        elif kind == "half_json":
            self.raw(handler, 200, body[:len(body) // 2])
        elif kind == "garble":
            self.raw(handler, 200, b"<html>welcome to the hotel</html>")
        elif kind == "other_type":
            self.raw(handler, 200, b"[1, 2, 3]")
        elif kind == "empty":
            self.raw(handler, 200, b"")
        elif kind == "oversize":
            self.raw(handler, 200, b'{"a": "' + b"x" * (2 << 20) + b'"}')
        elif kind == "members":
            self.raw(handler, 200, json.dumps(fault["members"]).encode())
        elif kind == "redirect":
            handler.send_response(302)
            handler.send_header("Location", fault["to"])
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        else:
            return False
        return True
