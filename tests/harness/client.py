"""A client as a station, a device or an administrator would write one."""
import base64
import os
import tempfile

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def new_key():
    return ec.generate_private_key(ec.SECP256R1())


def csr_pem(key, common_name="ignored"):
    request = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption()).decode()


def cert_id(pem):
    """RFC 9773 section 4.1, from the certificate alone."""
    leaf = x509.load_pem_x509_certificate(pem.encode())
    key_id = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    serial = leaf.serial_number.to_bytes((leaf.serial_number.bit_length() + 8) // 8, "big")
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (key_id, serial))


class Client:
    """Requests with a token, or with a client certificate (key, certificate with chain as PEM)."""

    def __init__(self, url, ca_bundle, token=None, certificate=None):
        self.url = url
        self.session = requests.Session()
        self.session.verify = ca_bundle
        self.session.trust_env = False
        self.files = []
        if token:
            self.session.headers["Authorization"] = f"Bearer {token}"
        if certificate:
            self.session.cert = tuple(self._file(text) for text in certificate)

    def _file(self, text):
        handle = tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False)
        with handle:
            handle.write(text)
        os.chmod(handle.name, 0o600)
        self.files.append(handle.name)
        return handle.name

    def close(self):
        self.session.close()
        for name in self.files:
            os.unlink(name)
        self.files = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def request(self, method, path, **options):
        options.setdefault("timeout", 60)
        return self.session.request(method, self.url + path, **options)

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, json=None, **options):
        return self.request("POST", path, json=json, **options)

    def issue(self, device_id, key=None, idempotency_key=None, **fields):
        body = {"csr": csr_pem(key or new_key()), "device_id": device_id, **fields}
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self.post("/v1/certificates", json=body, headers=headers)


def admin(stack):
    return Client(stack.url, stack.ca_bundle, token=stack.admin_token)


def device(stack, key, certificate, url=None):
    """A device at mutual TLS with an issued certificate (the JSON of the API)."""
    return Client(url or stack.device_url, stack.ca_bundle,
                  certificate=(certificate["certificate"] + certificate["chain"], key_pem(key)))


def station(stack, station_id, profile="device", quantity=1000, device_ids=None, allow_replace=False, manifest=None,
            rate_per_minute=1000000):
    """Makes a station with a token and, with device_ids, a manifest; returns its Client."""
    with admin(stack) as boss:
        answer = boss.post("/v1/stations", json={"id": station_id, "rate_per_minute": rate_per_minute})
        assert answer.status_code == 201, answer.text
        answer = boss.post(f"/v1/stations/{station_id}/tokens", json={"description": "test"})
        assert answer.status_code == 201, answer.text
        token = answer.json()["token"]
        if device_ids is not None:
            add_manifest(boss, manifest or f"{station_id}-m", station_id, device_ids, profile, quantity, allow_replace)
    return Client(stack.url, stack.ca_bundle, token=token)


def add_manifest(boss, manifest_id, station_id, device_ids, profile="device", quantity=1000, allow_replace=False):
    answer = boss.post("/v1/manifests", json={"id": manifest_id, "station": station_id, "profile": profile,
                                              "quantity": quantity, "allow_replace": allow_replace})
    assert answer.status_code == 201, answer.text
    answer = boss.request("PUT", f"/v1/manifests/{manifest_id}/devices", data="\n".join(device_ids) + "\n",
                          headers={"Content-Type": "text/csv"})
    assert answer.status_code == 200, answer.text


def certificates_of(boss, path):
    """Each certificate of the revocation at path, page by page."""
    cursor = {}
    while True:
        page = boss.get(f"{path}/certificates", params={"limit": 1000, **cursor}).json()
        yield from page["certificates"]
        if not page["next_cursor"]:
            return
        cursor = {"cursor": page["next_cursor"]}


def code(answer):
    """The stable code of a problem+json answer."""
    assert answer.headers["Content-Type"].startswith("application/problem+json"), answer.text
    body = answer.json()
    assert body["status"] == answer.status_code and body["request_id"]
    return body["code"]
