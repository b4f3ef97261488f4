"""TLS sessions are resumed in 1.2 and 1.3, and a resumed one is worth what its certificate is worth now."""
import json
import re
import socket
import ssl
import subprocess

import pytest
import requests

from harness import client
from harness.client import csr_pem, key_pem, new_key
from harness.stack import Stack, wait_until

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
PATH = "/v1/rotation"


class Device:
    """Speaks TLS of one version by hand, so that a session can be kept and brought again."""

    def __init__(self, stack, directory, device_id, version):
        self.stack, self.port = stack, stack.ports["https"]
        self.key = new_key()
        with client.admin(stack) as boss:
            answer = boss.issue(device_id, self.key)
            assert answer.status_code == 201, answer.text
        self.body = answer.json()
        self.cert_file, self.key_file = directory / f"{device_id}.pem", directory / f"{device_id}.key"
        self.cert_file.write_text(self.body["certificate"] + self.body["chain"])
        self.key_file.write_text(key_pem(self.key))
        self.context = ssl.create_default_context(cafile=stack.ca_bundle)
        self.context.minimum_version = self.context.maximum_version = version
        self.context.load_cert_chain(self.cert_file, self.key_file)
        self.session = None

    def ask(self):
        """(HTTP status, code of the problem, whether the session was resumed); brings the session of the last time."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as plain, \
                self.context.wrap_socket(plain, server_hostname="localhost", session=self.session) as tls:
            tls.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := tls.recv(65536):
                answer += piece
            self.session = tls.session  # TLS 1.3: the tickets came with the answer
            head, _, body = answer.partition(b"\r\n\r\n")
            return int(head.split()[1]), json.loads(body).get("code"), tls.session_reused

    def openssl(self, *options):
        version = "-tls1_2" if self.context.maximum_version == ssl.TLSVersion.TLSv1_2 else "-tls1_3"
        return subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{self.port}", "-servername", "localhost", version, "-ign_eof",
             "-CAfile", self.stack.ca_bundle, "-verify_return_error", "-cert", str(self.cert_file),
             "-key", str(self.key_file), *options],
            input=f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(),
            capture_output=True, timeout=30, check=True).stdout.decode()


def revoke(device, reason="keyCompromise"):
    with client.admin(device.stack) as boss:
        answer = boss.post(f"/v1/certificates/{device.body['certificate_id']}/revoke", json={"reason": reason})
        assert answer.status_code == 200, answer.text


def supersede(device):
    key = new_key()
    with client.device(device.stack, device.key, device.body) as old:
        answer = old.post("/v1/rotation", json={"csr": csr_pem(key)})
        assert answer.status_code == 201, answer.text
    with client.device(device.stack, key, answer.json()) as new:
        assert new.post("/v1/rotation/confirm").status_code == 200


def decommission(device):
    with client.admin(device.stack) as boss:
        answer = boss.post(f"/v1/devices/{device.body['device_id']}/decommission", json={})
        assert answer.status_code == 200, answer.text


ENDS = {
    "revoked": (revoke, 401, "certificate_revoked"),
    "held": (lambda device: revoke(device, "certificateHold"), 401, "certificate_revoked"),
    "superseded": (supersede, 401, "certificate_superseded"),
    "decommissioned": (decommission, 401, "certificate_revoked"),
}


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
@pytest.mark.parametrize("how", ENDS)
def test_a_resumed_session_is_refused_once_its_certificate_is(stack, tmp_path, version, how):
    end, status, code = ENDS[how]
    device = Device(stack, tmp_path, f"resume-{how}-{version.name}", version)
    assert device.ask() == (200, None, False)
    assert device.ask() == (200, None, True)
    end(device)
    assert device.ask() == (status, code, True), "the very next connection"
    device.session = None
    assert device.ask() == (status, code, False)


def test_a_lifted_hold_is_seen_by_a_resumed_session(stack, tmp_path):
    device = Device(stack, tmp_path, "resume-unhold", ssl.TLSVersion.TLSv1_3)
    assert device.ask() == (200, None, False)
    revoke(device, "certificateHold")
    assert device.ask() == (401, "certificate_revoked", True)
    with client.admin(stack) as boss:
        assert boss.post(f"/v1/certificates/{device.body['certificate_id']}/unhold", json={}).status_code == 200
    assert device.ask() == (200, None, True)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_openssl_resumes_and_is_refused_after_revocation(stack, tmp_path, version):
    device = Device(stack, tmp_path, f"resume-openssl-{version.name}", version)
    kept = str(tmp_path / "session")
    first = device.openssl("-sess_out", kept)
    assert "\nNew, TLSv1" in first and "HTTP/1.1 200" in first, first
    hint = int(re.search(r"TLS session ticket lifetime hint: (\d+)", first).group(1))
    assert 0 < hint <= 3600
    assert "Max Early Data: 0" in first or version == ssl.TLSVersion.TLSv1_2, first
    again = device.openssl("-sess_in", kept)
    assert "\nReused, TLSv1" in again and "HTTP/1.1 200" in again, again
    revoke(device)
    refused = device.openssl("-sess_in", kept)
    assert "\nReused, TLSv1" in refused and "HTTP/1.1 401" in refused and "certificate_revoked" in refused, refused


def counted(stack, series):
    with requests.get(f"{stack.http_url}/metrics", timeout=5) as answer:
        return sum(int(line.rsplit(" ", 1)[1]) for line in answer.text.splitlines() if line.startswith(series))


def test_who_comes_again_is_neither_read_nor_shaken_hands_with_anew(stack, tmp_path):
    device = Device(stack, tmp_path, "resume-counted", ssl.TLSVersion.TLSv1_3)
    assert device.ask() == (200, None, False)
    resumed = 'jitrca_http_tls_sessions_total{listener="https",resumed="yes"}'
    before = counted(stack, resumed), counted(stack, "jitrca_auth_read_total")
    for _ in range(5):
        assert device.ask() == (200, None, True)
    assert counted(stack, resumed) == before[0] + 5
    # A late answer of the database may make it read the row; hardly each time.
    assert counted(stack, "jitrca_auth_read_total") < before[1] + 5


def test_a_ticket_of_another_start_is_a_full_handshake(stack, tmp_path):
    device = Device(stack, tmp_path, "resume-restart", ssl.TLSVersion.TLSv1_3)
    assert device.ask() == (200, None, False)
    stack.restart()
    assert device.ask() == (200, None, False)
    assert device.ask() == (200, None, True)


@pytest.fixture(scope="module", name="brief")
def brief_stack(cluster):
    """Certificates that live for seconds, without grace."""
    profile = {"device": {"validity": {"default": "6s", "max": "1h", "backdate": "1s"},
                          "renewal": {"before": "2s", "overlap": "1s", "grace": "0s"}}}
    with Stack(cluster, profiles=profile) as it:
        yield it


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_a_ticket_does_not_outlive_its_certificate(brief, tmp_path, version):
    device = Device(brief, tmp_path, f"brief-{version.name}", version)
    first = device.openssl()
    assert "HTTP/1.1 200" in first, first
    hint = int(re.search(r"TLS session ticket lifetime hint: (\d+)", first).group(1))
    assert 0 < hint <= 6
    assert device.ask()[0] == 200
    # Whether it is resumed or not: what has expired is not let in.
    wait_until(lambda: device.ask()[:2] == (401, "certificate_expired"), "the end of the certificate", 10, 0.2)
