"""OCSP as a relying party would ask, and as none should."""
import base64
import hashlib
import urllib.parse

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

NONCE = "1.3.6.1.5.5.7.48.1.2"
HASHES = {"sha1": "1.3.14.3.2.26", "sha256": "2.16.840.1.101.3.4.2.1", "sha384": "2.16.840.1.101.3.4.2.2",
          "sha512": "2.16.840.1.101.3.4.2.3", "md5": "1.2.840.113549.2.5"}
STATUS = ocsp.OCSPResponseStatus
CERT = ocsp.OCSPCertStatus


def der(tag, *contents):
    body = b"".join(contents)
    length = bytes([len(body)]) if len(body) < 128 else \
        (lambda octets: bytes([0x80 | len(octets)]) + octets)(len(body).to_bytes((len(body).bit_length() + 7) // 8, "big"))
    return bytes([tag]) + length + body


def sequence(*contents):
    return der(0x30, *contents)


def octets(value):
    return der(0x04, value)


def integer(value):
    return der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def oid(dotted):
    first, second, *rest = map(int, dotted.split("."))
    out = b""
    for arc in [first * 40 + second, *rest]:
        digits = [arc & 127]
        while arc := arc >> 7:
            digits.insert(0, arc & 127 | 128)
        out += bytes(digits)
    return der(0x06, out)


def cert_id(issuer, serial, algorithm="sha1", null=True):
    """CertID; issuer is a certificate, serial a number."""
    name = issuer.subject.public_bytes()
    spki = issuer.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    key = x509.SubjectKeyIdentifier.from_public_key(issuer.public_key()).digest if algorithm == "sha1" else \
        hashlib.new(algorithm, spki[-65:] if isinstance(issuer.public_key(), ec.EllipticCurvePublicKey) else
                    issuer.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)).digest()
    return sequence(sequence(oid(HASHES[algorithm]), b"\x05\x00" if null else b""),
                    octets(hashlib.new(algorithm, name).digest()), octets(key), integer(serial))


def extension(dotted, value, critical=False):
    return sequence(oid(dotted), der(0x01, b"\xff") if critical else b"", octets(value))


def nonce_extension(value):
    return extension(NONCE, octets(value))


def request(*ids, extensions=(), single=(), version=b"", name=b"", signature=b""):
    """OCSPRequest from finished CertIDs; single: extensions of each Request."""
    one = der(0xa0, sequence(*single)) if single else b""
    tbs = sequence(version, name, sequence(*(sequence(each, one) for each in ids)),
                   der(0xa2, sequence(*extensions)) if extensions else b"")
    return sequence(tbs, signature)


def parts(body):
    """(leaf, issuer) of a certificate in the API's JSON."""
    return (x509.load_pem_x509_certificate(body["certificate"].encode()),
            x509.load_pem_x509_certificate(body["chain"].encode()))


def request_of(body, algorithm="sha1", nonce=None, null=True):
    leaf, issuer = parts(body)
    return request(cert_id(issuer, leaf.serial_number, algorithm, null),
                   extensions=[nonce_extension(nonce)] if nonce else ())


def post(url, data, content_type="application/ocsp-request"):
    return requests.post(url + "/ocsp", data=data, headers={"Content-Type": content_type}, timeout=20)


def get(url, data, headers=None, quote=True):
    text = base64.b64encode(data).decode()
    return requests.get(url + "/ocsp/" + (urllib.parse.quote(text, safe="") if quote else text), headers=headers or {},
                        timeout=20)


def load(answer):
    assert answer.status_code == 200, (answer.status_code, answer.text)
    assert answer.headers["Content-Type"] == "application/ocsp-response"
    return ocsp.load_der_ocsp_response(answer.content)


def verified(answer, issuer):
    """The response, once its signature and its responder hold: RFC 6960 4.2.2.2."""
    response = load(answer)
    assert response.response_status == STATUS.SUCCESSFUL
    responder = response.certificates[0]
    issuer.public_key().verify(responder.signature, responder.tbs_certificate_bytes,
                               ec.ECDSA(responder.signature_hash_algorithm))
    assert list(responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == \
        [x509.oid.ExtendedKeyUsageOID.OCSP_SIGNING]
    assert responder.extensions.get_extension_for_class(x509.OCSPNoCheck)
    responder.public_key().verify(response.signature, response.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))
    assert response.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(responder.public_key()).digest
    assert response.next_update <= responder.not_valid_after
    return response


def ask(stack, body, algorithm="sha1", nonce=None):
    return verified(post(stack.http_url, request_of(body, algorithm, nonce)), parts(body)[1])


def status_of(stack, body):
    return ask(stack, body).certificate_status
