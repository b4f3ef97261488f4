#!/usr/bin/python3
"""Makes the seeds of the fuzz targets under tests/fuzz/corpus: kept CSRs of the unit tests, lists, messages."""

import base64
import glob
import hashlib
import hmac
import os
import re
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
CSR = os.path.join(HERE, "..", "unit", "ca", "csr")


def put(target, name, data):
    folder = os.path.join(HERE, "corpus", target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data)


def der(tag, *parts):
    body = b"".join(parts)
    size = len(body).to_bytes(2, "big").lstrip(b"\0") or b"\0"
    return bytes([tag]) + (size if len(body) < 0x80 else bytes([0x80 | len(size)]) + size) + body


def oid(text):
    return der(0x06, bytes.fromhex(text))


# The issuer that fuzz_crl.c knows, and lists around its now (1795500000: 2026-11-24 06:00:00).
ALGORITHM = der(0x30, oid("2a8648ce3d040302"))
NAME = der(0x30, der(0x31, der(0x30, oid("550403"), der(0x0c, b"Issuing CA"))))
AKI = der(0x30, oid("551d23"), der(0x04, der(0x30, der(0x80, bytes(range(1, 21))))))
NUMBER = der(0x30, oid("551d14"), der(0x04, der(0x02, b"\x07")))


def entry(shard, low, reason):
    serial = bytes([1, shard, 1, 2]) + bytes(11) + bytes([low])
    parts = [der(0x02, serial), der(0x17, b"261124050000Z")]
    if reason is not None:
        parts.append(der(0x30, der(0x30, oid("551d15"), der(0x04, der(0x0a, bytes([reason]))))))
    return der(0x30, *parts)


def crl(entries, shard=None, base=None, freshest=False):
    """The TBSCertList alone, and the list with a signature that nobody looks at."""
    extensions = [AKI, NUMBER]
    if base is not None:
        extensions.append(der(0x30, oid("551d1b"), der(0x01, b"\xff"), der(0x04, der(0x02, bytes([base])))))
    if freshest:
        url = b"http://ca.example.com/crl/issuing-1/delta.crl"
        extensions.append(der(0x30, oid("551d2e"), der(0x04, der(0x30, der(0x30, der(0xa0, der(0xa0, der(0x86, url))))))))
    if shard is not None:
        url = b"http://ca.example.com/crl/issuing-1/%02x.crl" % shard
        extensions.append(der(0x30, oid("551d1c"), der(0x01, b"\xff"),
                              der(0x04, der(0x30, der(0xa0, der(0xa0, der(0x86, url)))))))
    revoked = [der(0x30, *entries)] if entries else []
    tbs = der(0x30, der(0x02, b"\x01"), ALGORITHM, NAME, der(0x17, b"261124055900Z"), der(0x17, b"261201055900Z"),
              *revoked, der(0xa0, der(0x30, *extensions)))
    signature = der(0x30, der(0x02, b"\x11" * 32), der(0x02, b"\x22" * 32))
    return tbs, der(0x30, tbs, ALGORITHM, der(0x03, b"\0" + signature))


def lists():
    """The first octet is the length of the pieces, less one."""
    kinds = {
        "empty": crl([]),
        "full": crl([entry(0, 1, None), entry(1, 2, 1), entry(200, 3, 6)]),
        "shard": crl([entry(42, low, 4) for low in range(1, 20)], 42),
        "with_delta": crl([entry(0, 1, None), entry(1, 2, 6)], freshest=True),
        "delta": crl([entry(0, 1, 8), entry(1, 2, 6)], base=5),
        "delta_ahead": crl([], base=9),
        "removed_from_full": crl([entry(0, 1, 8)]),
        "wrong_shard": crl([entry(41, 1, 4)], 42),
        "descending": crl([entry(0, 2, None), entry(0, 1, None)]),
    }
    for name, (tbs, whole) in kinds.items():
        put("crl", name + ".tbs", b"\x06" + tbs)
        put("crl", name + ".crl", b"\xff" + whole)


def message(kind, fields=b""):
    return struct.pack(">IB", len(fields), kind) + fields


def text(value):
    return struct.pack(">I", len(value)) + value


def messages():
    """What ca/signer_wire.h describes. An odd first octet: fuzz_signer_wire.c greets before."""
    spki = der(0x30, der(0x30, oid("2a8648ce3d0201"), oid("2a8648ce3d030107")), der(0x03, b"\0\4" + bytes(64)))
    item = (bytes(32) + text(b"issuing-1") + text(spki) + text(b"sn-0001") + text(b"sensor") + struct.pack(">H", 1) +
            text(b"model") + text(b"m1") + struct.pack(">QB", 3600, 1))
    kinds = {
        "hello": b"\0" + message(1, struct.pack(">QH", 0x6a72636b, 1)),
        "prepare": b"\1" + message(2, struct.pack(">H", 1) + item),
        "prepare_two": b"\1" + message(2, struct.pack(">H", 2) + item * 2),
        "sign": b"\1" + message(3, struct.pack(">HQQ", 2, 1, 2)),
        "drop": b"\1" + message(4, struct.pack(">HQ", 1, 1)),
        "crl": b"\1" + message(5, text(b"issuing-1")) + message(6, text(b"piece")) + message(7),
        "block": b"\1" + message(8, bytes(32)),
        "info": b"\1" + message(9),
        "no_greeting": b"\0" + message(9),
        "ocsp_key": b"\1" + message(10, text(b"issuing-1")),
        "ocsp_sign": b"\1" + message(11, struct.pack(">H", 2) + (text(b"issuing-1") + bytes(20) + text(b"data")) * 2),
    }
    for name, data in kinds.items():
        put("signer_wire", name, data)


def ocsp():
    """Requests and answers about what fuzz_ocsp.c knows: an issuer of n and k, now 2026-11-24 06:00:00."""
    def cert_id(serial, hashed=20, algorithm="2b0e03021a"):
        return der(0x30, der(0x30, oid(algorithm), b"\5\0"), der(4, b"n" * hashed), der(4, b"k" * hashed), der(2, serial))

    def extension(name, value, critical=b""):
        return der(0x30, oid(name), critical, der(4, value))

    ours = cert_id(b"\x3a\xc7\x5f\x04" + bytes(range(1, 13)))
    others = cert_id(b"\5", 32, "608648016503040201")
    nonce = extension("2b0601050507300102", der(4, bytes(range(32))))
    critical = extension("2a03", b"x", b"\1\1\xff")
    one = der(0x30, ours)
    kinds = {
        "one": der(0x30, der(0x30, der(0x30, one))),
        "two_with_nonce": der(0x30, der(0x30, der(0x30, one, der(0x30, others)), der(0xa2, der(0x30, nonce)))),
        "signed": der(0x30, der(0x30, der(0xa0, b"\2\1\0"), der(0xa1, der(0x82, b"me")), der(0x30, one)),
                      der(0xa0, der(0x30, der(0x30, oid("2a8648ce3d040302")), der(3, b"\0s")))),
        "critical": der(0x30, der(0x30, der(0x30, der(0x30, ours, der(0xa0, der(0x30, critical)))))),
    }
    now, later = der(0x18, b"20261124060000Z"), der(0xa0, der(0x18, b"20261124070000Z"))
    revoked = der(0xa1, der(0x18, b"20261124050000Z"), der(0xa0, b"\x0a\1\1"))
    head = der(0xa2, der(4, bytes(20))) + now
    singles = [der(0x30, ours, status, now, later) for status in (b"\x80\0", revoked, b"\x82\0")]
    kinds["answer"] = der(0x30, head, der(0x30, *singles), der(0xa1, der(0x30, nonce)))
    kinds["answer_of_others"] = der(0x30, head, der(0x30, der(0x30, others, b"\x80\0", now, later)))
    for name, data in kinds.items():
        put("ocsp", name, data)


def policies():
    """action, cut, document NUL resource NUL client id: what fuzz_policy.c reads."""
    head = "arn:aws:iot:eu-central-1:123456789012:"
    one = "{'Version':'2012-10-17','Statement':[{'Effect':'Allow','Action':'iot:*','Resource':'%s'}]}"
    when = "{'Statement':{'Effect':'Deny','NotAction':['iot:Conn*','*'],'NotResource':['*'],'Condition':{%s}}}"
    kinds = {
        "wildcards": (2, one % (head + "topic/a*b?c/*d*e"), head + "topic/aXbYc/d/e", "sn-1"),
        "backtracking": (2, one % "arn:*:*:a*a*a*a*:*:*aaaaab", "arn:a:a:aaaaaaaa:a:aaaaaaaaaaaaaa", "sn-1"),
        "characters": (2, one % "arn:::::?\u20ac??*", "arn:::::\u20ac\u20ac\u00e9a", "sn-1"),
        "client": (1, one % (head + "client/${iot:ClientId}"), head + "client/sn-1", "sn-1"),
        "odd_client": (1, one % (head + "client/${iot:ClientId}"), head + "client/+", "+"),
        "escaped": (2, one % "arn:::::*${iot:Certificate.Subject.Organization.1}", "arn:::::b\\\\", "sn-1"),
        "literal": (2, one % "arn:::::${*}*${?}?${$}", "arn:::::*x?y$", "sn-1"),
        "thing": (5, one % "arn:::::${iot:Connection.Thing.ThingName}/${iot:Connection.Thing.Attributes[model]}",
                  "arn:::::sn-1/m1", "sn-1"),
        "missing": (2, one % "arn:::::${missing}", "arn:::::", ""),
        "two": (2, "{'Statement':[{'Sid':'a','Effect':'Allow','Action':'*','Resource':'*'},"
                   "{'Effect':'Deny','Action':'iot:Publish','Resource':['arn:::::x','arn:::::y']}]}", "arn:::::y", "x"),
        "malformed": (2, "{'Statement':[{'Effect':'Allow'}]}", "x", "x"),
        "string": (2, when % "'StringEquals':{'iot:ClientId':['a','b']},'StringNotLike':{'iot:ClientId':'b*'},"
                             "'StringEqualsIgnoreCase':{'iot:ClientId':'A'}", "x", "a"),
        "number": (2, when % "'NumericLessThan':{'iot:Connection.Thing.Attributes[n]':43},"
                             "'NumericGreaterThanEquals':{'aws:EpochTime':'-1.5'}", "x", "a"),
        "date": (2, when % "'DateGreaterThan':{'aws:CurrentTime':['2026-11-24','2026-11-24T16:00Z',1795536000]}", "x", "a"),
        "address": (2, when % "'NotIpAddress':{'aws:SourceIp':['192.0.2.0/24','2001:db8::/32','::1']}", "x", "192.0.2.7"),
        "address_6": (2, when % "'IpAddressIfExists':{'aws:SourceIp':'${iot:ClientId}/32'}", "x", "2001:db8::1"),
        "arn": (2, when % "'ArnLike':{'iot:ClientId':['*','arn:*:iot:*:*:a*']},'ArnNotEquals':{'x':'arn:a:b:c:d:e'}", "x",
                "arn:aws:iot:a:b:abc"),
        "set": (2, when % "'ForAllValues:StringLike':{'iot:Certificate.Subject.Organization.List':['a*','b']},"
                          "'ForAnyValue:StringEqualsIfExists':{'iot:Certificate.AvailableKeys':'x'}", "x", "a"),
        "others": (2, when % "'Bool':{'aws:SecureTransport':true},'Null':{'x':'true'},'BinaryEquals':{'iot:ClientId':'YQ=='}",
                   "x", "a"),
    }
    for name, (action, document, resource, client) in kinds.items():
        parts = [document.replace("'", '"'), resource, client]
        put("policy", name, bytes([action, 9]) + b"\0".join(part.encode() for part in parts))
    for path in glob.glob(os.path.join(HERE, "..", "..", "certs", "policies", "*.json")):
        with open(path, "rb") as f:
            put("policy", os.path.basename(path), b"\2\x26" + f.read() + b"\0" +
                (head + "topic/devices/sn-1/x").encode() + b"\0sn-1")


def aws():
    """kind, text: what fuzz_aws.c reads."""
    put("aws", "credentials", b"\x00# c\n[two]\naws_access_key_id = A\naws_secret_access_key=b\n nested = x\n[default]\n")
    put("aws", "config", b"\x01[profile \"two\"]\nrole_arn = arn:x\nsource_profile = default\n[two]\n")
    put("aws", "twice", b"\x00[two]\nregion = a\n[x]\n[two]\nREGION = b\n")
    put("aws", "sts", b"\x02<R><Credentials><AccessKeyId>A/+=</AccessKeyId></Credentials></R>")
    put("aws", "type", b"\x03{\"__type\": \"com.amazon#ThrottlingException:http://x\", \"Message\": \"\u00e9\"}")
    put("aws", "exists", b"\x03{\"code\": \"ResourceAlreadyExistsException\", \"message\": \"m\", \"resourceArn\": \"arn\"}")
    put("aws", "request", b"\x04GET\n/a%3Ab/../c//d\nhost\n  h  x \nx-a\n1\nx-a\n2\nb\n~%\xff")


def iotcore():
    """signature or members: what fuzz_iotcore.c reads. The signed one is signed with its secret at its time."""
    def mac(key, text):
        return hmac.new(key, text.encode(), hashlib.sha256).digest()

    body = '{"attributePayload":{"attributes":{"a":"b"}}}'
    scope = "20261124/eu-central-1/iot/aws4_request"
    names = "content-type;host;x-amz-date"
    lines = "content-type:application/json\nhost:127.0.0.1:1\nx-amz-date:20261124T060000Z\n"
    canonical = f"POST\n/things/a%253A1\n\n{lines}\n{names}\n{hashlib.sha256(body.encode()).hexdigest()}"
    wanted = f"AWS4-HMAC-SHA256\n20261124T060000Z\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = b"AWS4fuzz+secret/of+nobody"
    for part in scope.split("/"):
        key = mac(key, part)
    signature = mac(key, wanted).hex()
    authorization = f"AWS4-HMAC-SHA256 Credential=AKIAFUZZ/{scope}, SignedHeaders={names}, Signature={signature}"
    headers = "Content-Type: application/json\nHost: 127.0.0.1:1\nX-Amz-Date: 20261124T060000Z\n"
    put("iotcore", "signed", f"\0\0POST /things/a%3A1\n{headers}Authorization: {authorization}\n\n{body}".encode())
    put("iotcore", "presigned", f"\0\0GET /things?maxResults=%31&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAFUZZ%2F"
        f"{scope.replace('/', '%2F')}&X-Amz-Date=20261124T055959Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature="
        f"{signature}\nhost: x\n\n".encode())
    put("iotcore", "unsigned", b"\0\0GET /policies\nhost: x\nx-amz-content-sha256: 0\n\n")
    put("iotcore", "thing", b'\1\x29{"attributePayload": {"attributes": {"a": "b", "": null}, "merge": true}, "thingTypeName": "a b"}')
    put("iotcore", "rule", b'\1\x50{"sql": "SELECT * FROM \'a\'", "actions": [{"http": {"url": "https://x", "headers": [null]}}, 7]}')
    put("iotcore", "profile", b'\1\x45{"behaviors": [{"name": "b", "criteria": {"value": {"count": 1.5, "cidrs": [""]}}}], "tags": []}')


def main():
    aws()
    iotcore()
    lists()
    messages()
    ocsp()
    policies()
    keep = ("p256.pem", "p256_extensions.pem", "p384_sha384.pem", "rsa2048.pem", "ed25519.pem",
            "p256_challenge.pem", "p256_multivalued_rdn.pem")
    for path in sorted(glob.glob(os.path.join(CSR, "*", "*.pem"))):
        name = os.path.basename(path)
        if os.path.basename(os.path.dirname(path)) == "good" and name not in keep:
            continue
        with open(path, "rb") as f:
            text = f.read()
        if name.startswith("csr_not_pem") or name == "p256.pem":
            put("pem", name, text.replace(b"CERTIFICATE REQUEST", b"X"))
        block = re.fullmatch(rb"\s*-----BEGIN [A-Z ]+-----\s([A-Za-z0-9+/=\s]+)-----END [A-Z ]+-----\s*", text)
        if not block or len(text) > 3000:
            continue
        try:
            octets = base64.b64decode(block.group(1))
        except ValueError:
            continue
        if name.startswith(("csr_key", "csr_malformed")) or name in keep:
            put("csr", name[:-4] + ".der", octets)
        if name.startswith("csr_malformed") and len(octets) < 400:
            put("der", name[:-4] + ".der", b"\xa3" + octets)


if __name__ == "__main__":
    main()
