"""Each kind of bad input has its own stable code, and leaves no row behind."""
import base64
import json
import ssl
import socket

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from harness import client
from harness.client import code, csr_pem, new_key

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])


def csr_with(key, algorithm=hashes.SHA256()):
    request = x509.CertificateSigningRequestBuilder().subject_name(NAME).sign(key, algorithm)
    return request.public_bytes(serialization.Encoding.PEM).decode()


def damaged_signature():
    der = bytearray(x509.load_pem_x509_csr(csr_pem(new_key()).encode()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    return pem(bytes(der))


def off_curve():
    """A CSR whose point is not on P-256: y is changed, so the signature is checked against nothing valid."""
    key = new_key()
    der = bytearray(x509.load_pem_x509_csr(csr_pem(key).encode()).public_bytes(serialization.Encoding.DER))
    point = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    at = bytes(der).index(point)
    der[at + 64] ^= 1
    return pem(bytes(der))


def trailing():
    der = x509.load_pem_x509_csr(csr_pem(new_key()).encode()).public_bytes(serialization.Encoding.DER)
    return pem(der + b"\x00")


def pem(der):
    text = base64.b64encode(der).decode()
    lines = [text[i:i + 64] for i in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN CERTIFICATE REQUEST-----", *lines, "-----END CERTIFICATE REQUEST-----", ""])


CSRS = {
    "not PEM": ("hello", "csr_not_pem"),
    "empty": ("", None),
    "a certificate instead": ("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "csr_not_pem"),
    "not base64": (pem(b"abc").replace("YWJj", "Y$Jj"), "csr_not_pem"),
    "not DER": (pem(b"hello world"), "csr_malformed"),
    "trailing octets": (trailing, "csr_malformed"),
    "a bad signature": (damaged_signature, "csr_bad_signature"),
    "a point off its curve": (off_curve, "csr_key_invalid"),
    "RSA 1024": (lambda: csr_with(rsa.generate_private_key(65537, 1024)), "csr_key_too_small"),
    "RSA exponent 3": (lambda: csr_with(rsa.generate_private_key(3, 2048)), "csr_key_invalid"),
    "SHA-1": (lambda: csr_with(rsa.generate_private_key(65537, 2048), hashes.SHA1()), "csr_weak_hash"),
    "MD5": (lambda: csr_with(rsa.generate_private_key(65537, 2048), hashes.MD5()), "csr_weak_hash"),
    "an unlisted curve": (lambda: csr_with(ec.generate_private_key(ec.SECP521R1())), "csr_key_type"),
    "secp256k1": (lambda: csr_with(ec.generate_private_key(ec.SECP256K1())), "csr_key_type"),
}


@pytest.mark.parametrize("what", CSRS)
def test_a_bad_csr(stack, what):
    csr, want = CSRS[what]
    with client.admin(stack) as boss:
        answer = boss.post("/v1/certificates", json={"csr": csr() if callable(csr) else csr, "device_id": "bad-csr"})
    assert answer.status_code == 400, answer.text
    got = code(answer)
    assert got == want or want is None, answer.text
    assert stack.query("SELECT count(*) FROM jitrca.device WHERE device_id = 'bad-csr'")[0][0] == 0


def test_a_forbidden_key_type_is_refused_by_the_profile(stack):
    with client.admin(stack) as boss:
        answer = boss.post("/v1/certificates", json={
            "csr": csr_with(ed25519.Ed25519PrivateKey.generate(), None), "device_id": "bad-ed"})
    assert answer.status_code == 400 and code(answer) in ("csr_key_not_allowed", "csr_key_type")


DEEP = b'{"device_id": ' + b"[" * 200 + b"]" * 200 + b"}"
BODIES = {
    "no body": (b"", 400, "body_missing"),
    "not JSON": (b"{", 400, "json_malformed"),
    "trailing": (b"{} {}", 400, "json_malformed"),
    "not an object": (b"[]", 400, "json_not_object"),
    "a duplicate key": (b'{"csr": "x", "csr": "y"}', 400, "json_duplicate_key"),
    "too deep": (DEEP, 400, "json_too_deep"),
    "not UTF-8": (b'{"device_id": "\xff"}', 400, "json_not_utf8"),
    "an unknown field": (b'{"device_id": "a", "csr": "b", "color": "red"}', 400, "field_unknown"),
    "a missing field": (b'{"csr": "x"}', 400, "field_missing"),
    "a wrong type": (b'{"csr": 7, "device_id": "a"}', 400, "field_type"),
    "a NUL": (b'{"csr": "x", "device_id": "a\\u0000b"}', 400, None),
    "a bad device id": (b'{"csr": "x", "device_id": "a b"}', 400, "device_id_malformed"),
    "a long device id": (json.dumps({"csr": "x", "device_id": "a" * 65}).encode(), 400, None),
    "an unknown profile": (json.dumps({"csr": csr_pem(new_key()), "device_id": "a", "profile": "p"}).encode(), None, "profile_unknown"),
    "too large": (b'{"csr": "' + b"x" * 3_000_000 + b'"}', 413, "body_too_large"),
}


@pytest.mark.parametrize("what", BODIES)
def test_a_bad_body(stack, what):
    body, status, want = BODIES[what]
    with client.admin(stack) as boss:
        answer = boss.request("POST", "/v1/certificates", data=body, headers={"Content-Type": "application/json"})
    got = code(answer)
    assert answer.status_code == status or status is None, answer.text
    assert got == want or want is None, answer.text


def test_values_that_would_reach_a_name_are_checked(stack):
    with client.admin(stack) as boss:
        for attributes in ({"model": "a\u0000b"}, {"model": "a\nb"}, {"model": "x" * 129}, {"Model!": "x"},
                           {"model": 7}, {f"a{i}": "x" for i in range(17)}):
            answer = boss.issue("bad-attr", attributes=attributes)
            assert answer.status_code in (400, 413), (attributes, answer.text)
            code(answer)
        long = boss.issue("bad-validity", validity_hours=24 * 365 * 200)
        assert long.status_code == 400 and code(long) == "validity_too_long"
        none = boss.issue("bad-validity", validity_hours=0)
        assert none.status_code == 400


def test_content_type_method_path_and_accept(stack):
    with client.admin(stack) as boss:
        answer = boss.request("POST", "/v1/certificates", data="a=b",
                              headers={"Content-Type": "application/x-www-form-urlencoded"})
        assert answer.status_code == 415 and code(answer) == "unsupported_media_type"
        answer = boss.request("PUT", "/v1/certificates", data="")
        assert answer.status_code == 405 and code(answer) == "method_not_allowed"
        assert set(answer.headers["Allow"].replace(" ", "").split(",")) >= {"GET", "POST"}
        answer = boss.get("/v1/nothing")
        assert answer.status_code == 404 and code(answer) == "not_found"
        answer = boss.get("/v1/certificates?color=red")
        assert answer.status_code == 400 and code(answer) == "query_unknown"
        answer = boss.get("/v1/certificates?limit=1&limit=2")
        assert answer.status_code == 400 and code(answer) == "query_repeated"
        answer = boss.get("/v1/certificates?limit=0")
        assert answer.status_code == 400 and code(answer) == "limit_out_of_range"
        answer = boss.get(f"/v1/certificates/{'0' * 64}")
        assert answer.status_code == 404 and code(answer) == "certificate_unknown"
        answer = boss.post(f"/v1/certificates/{'0' * 64}/revoke", json={"reason": "keyCompromise"})
        assert answer.status_code == 404 and code(answer) == "certificate_unknown"
        answer = boss.issue("idem-bad", idempotency_key="x" * 300)
        assert answer.status_code == 400 and code(answer) == "idempotency_key_malformed"


def test_every_bad_token_gets_the_same_answer(stack):
    with client.admin(stack) as boss:
        boss.post("/v1/principals", json={"id": "short", "role": "operator"})
        revoked = boss.post("/v1/principals/short/tokens", json={"description": "x"}).json()
        assert boss.request("DELETE", f"/v1/principals/short/tokens/{revoked['token_id']}").status_code in (200, 204)
    answers = []
    for token in ("nonsense", "jrt_" + "A" * 43, revoked["token"], ""):
        answer = requests.get(f"{stack.url}/v1/certificates", headers={"Authorization": f"Bearer {token}"},
                              verify=stack.ca_bundle, timeout=5)
        body = answer.json()
        body.pop("request_id")
        answers.append((answer.status_code, json.dumps(body, sort_keys=True), answer.headers.get("WWW-Authenticate")))
    assert len(set(answers)) == 1, answers
    assert answers[0][0] == 401 and "token_invalid" in answers[0][1]
    nobody = requests.get(f"{stack.url}/v1/certificates", verify=stack.ca_bundle, timeout=5)
    assert nobody.status_code == 401 and code(nobody) == "credentials_missing"


def test_foreign_and_forged_client_certificates(stack):
    key = new_key()
    now = __import__("datetime").datetime.utcnow()
    day = __import__("datetime").timedelta(days=1)
    with client.admin(stack) as boss:
        body = boss.issue("victim", new_key()).json()
    ours = x509.load_pem_x509_certificate(body["certificate"].encode())

    def forged(serial, issuer, subject, start, end):
        return x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key()) \
            .serial_number(serial).not_valid_before(start).not_valid_after(end).sign(key, hashes.SHA256()) \
            .public_bytes(serialization.Encoding.PEM).decode()

    stranger = forged(7, NAME, NAME, now - day, now + day)
    copy = forged(ours.serial_number, ours.issuer, ours.subject, ours.not_valid_before, ours.not_valid_after)
    for certificate in (stranger, copy):
        with client.Client(stack.device_url, stack.ca_bundle,
                           certificate=(certificate, client.key_pem(key))) as device:
            answer = device.get("/v1/rotation")
            assert answer.status_code == 401 and code(answer) == "certificate_foreign", answer.text


def raw(stack, data, port="stations"):
    context = ssl.create_default_context(cafile=stack.ca_bundle)
    with socket.create_connection(("127.0.0.1", stack.ports[port]), timeout=10) as plain, \
            context.wrap_socket(plain, server_hostname="localhost") as tls:
        answer = b""
        try:
            tls.sendall(data)
            while chunk := tls.recv(65536):
                answer += chunk
        except (ssl.SSLError, ConnectionError):
            pass  # cut while we were still sending: no answer, but no harm either
        return answer


@pytest.mark.parametrize("head, statuses", [
    (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", (b"400",)),
    (b"Content-Length: 5\r\nContent-Length: 6\r\n", (b"400",)),
    (b"Content-Length: -1\r\n", (b"400",)),
    (b"Content-Length: 99999999999999999999\r\n", (b"400", b"413")),
    (b"X: " + b"y" * 200000 + b"\r\n", (b"431", b"413", b"414")),
], ids=("both lengths", "two lengths", "negative", "huge", "long header"))
def test_malformed_http(stack, head, statuses):
    answer = raw(stack, b"POST /v1/certificates HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + head + b"\r\nhello")
    assert answer[9:12] in statuses or answer == b"", answer[:300]


def test_the_log_has_one_line_a_request_and_no_secret(stack):
    token = stack.admin_token
    with client.admin(stack) as boss:
        answer = boss.get("/v1/certificates?limit=1")
        request_id = answer.headers["X-Request-Id"]
    lines = [event for event in stack.events() if event.get("request_id") == request_id and event["event"] == "request"]
    assert len(lines) == 1 and lines[0]["status"] == 200
    log = stack.log_path.read_text()
    assert token not in log and stack.PASSPHRASE not in log and "BEGIN " not in log
