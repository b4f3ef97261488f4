"""What we publish, read by others: openssl, GnuTLS' certtool, and a TLS server that trusts our CA and CRL."""
import socket
import ssl
import subprocess

import pytest
import requests

from harness import client
from harness.client import key_pem, new_key
from harness.stack import free_port, wait_until


def run(*command, stdin=None, check=True):
    result = subprocess.run([str(part) for part in command], input=stdin, capture_output=True, text=True, check=False,
                            timeout=30)
    if check:
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result


@pytest.fixture(scope="module")
def issued(stack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("e2e")
    key = new_key()
    with client.admin(stack) as boss:
        body = boss.issue("e2e-1", key).json()
    (folder / "device.key").write_text(key_pem(key))
    (folder / "device.crt").write_text(body["certificate"])
    (folder / "chain.crt").write_text(body["chain"])
    (folder / "fullchain.crt").write_text(body["certificate"] + body["chain"])
    (folder / "root.crt").write_text((stack.data / "keys" / "root.crt").read_text())
    return folder, body


def shard(stack, body):
    return f"{stack.http_url}/crl/{body['ca']}/{body['serial'][2:4]}.crl"


def fetch_crl(url, folder, name):
    answer = requests.get(url, timeout=5)
    assert answer.status_code == 200
    (folder / f"{name}.der").write_bytes(answer.content)
    run("openssl", "crl", "-inform", "DER", "-in", folder / f"{name}.der", "-out", folder / f"{name}.pem")


def verify(folder, crl):
    return run("openssl", "verify", "-crl_check", "-CAfile", folder / "root.crt", "-untrusted", folder / "chain.crt",
               "-CRLfile", folder / f"{crl}.pem", folder / "device.crt", check=False)


def test_openssl_and_certtool_read_everything_without_complaint(stack, issued):
    folder, body = issued
    text = run("openssl", "x509", "-in", folder / "device.crt", "-noout", "-text").stdout
    assert "CN = e2e-1" in text and "TLS Web Client Authentication" in text
    for name in ("device.crt", "chain.crt", "root.crt"):
        info = run("certtool", "--certificate-info", "--infile", folder / name)
        assert "error" not in (info.stdout + info.stderr).lower()
    run("certtool", "--verify", "--load-ca-certificate", folder / "root.crt", "--infile", folder / "fullchain.crt")
    fetch_crl(shard(stack, body), folder, "shard")
    fetch_crl(f"{stack.http_url}/crl/{body['ca']}.crl", folder, "full")
    for name in ("shard", "full"):
        out = run("openssl", "crl", "-in", folder / f"{name}.pem", "-noout", "-text", "-CAfile", folder / "chain.crt")
        assert "verify OK" in out.stdout + out.stderr
        info = run("certtool", "--crl-info", "--inder", "--infile", folder / f"{name}.der")
        assert "error" not in (info.stdout + info.stderr).lower()
    for accept, what in (("application/x-pem-file", b"BEGIN CERT"), ("application/pkix-cert", b"\x30\x82"),
                         ("*/*", b"\x30\x82")):  # RFC 5280 4.2.2.1: what an AIA leads to is DER
        answer = requests.get(f"{stack.http_url}/v1/cas/{body['ca']}/certificate", headers={"Accept": accept}, timeout=5)
        assert answer.status_code == 200 and what in answer.content[:40], accept


def test_openssl_verify_accepts_and_after_revocation_refuses(stack, issued):
    folder, _ = issued
    key = new_key()
    with client.admin(stack) as boss:
        body = boss.issue("e2e-2", key).json()
        (folder / "device.crt").write_text(body["certificate"])
        fetch_crl(shard(stack, body), folder, "shard")
        fetch_crl(f"{stack.http_url}/crl/{body['ca']}.crl", folder, "full")
        for name in ("shard", "full"):
            accepted = verify(folder, name)
            assert accepted.returncode == 0, accepted.stderr
        boss.post(f"/v1/certificates/{body['certificate_id']}/revoke", json={"reason": "keyCompromise"})

        def refused(url, name):
            fetch_crl(url, folder, name)
            return "certificate revoked" in verify(folder, name).stderr
        wait_until(lambda: refused(shard(stack, body), "shard"), "the shard", 5)
        wait_until(lambda: refused(f"{stack.http_url}/crl/{body['ca']}.crl", "full"), "the full list", 5)


def talk(port, folder, key, certificate):
    """True if the server takes the client's certificate and answers."""
    (folder / "client.key").write_text(key_pem(key))
    (folder / "client.crt").write_text(certificate + (folder / "chain.crt").read_text())
    context = ssl.create_default_context(cafile=folder / "root.crt")
    context.load_cert_chain(folder / "client.crt", folder / "client.key")
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain, \
                context.wrap_socket(plain, server_hostname="localhost") as tls:
            tls.sendall(b"hello\n")
            return tls.recv(100) == b"olleh\n"
    except (ssl.SSLError, ConnectionError):
        return False


def test_a_tls_server_with_our_ca_and_crl_accepts_and_then_refuses_the_device(stack, issued):
    folder, _ = issued
    server_key, key = new_key(), new_key()
    with client.admin(stack) as boss:
        server = boss.post("/v1/certificates", json={
            "csr": client.csr_pem(server_key), "device_id": "e2e-server", "profile": "server",
            "attributes": {"dns": "localhost"}})
        assert server.status_code == 201, server.text
        (folder / "server.key").write_text(key_pem(server_key))
        (folder / "server.crt").write_text(server.json()["certificate"])
        body = boss.issue("e2e-3", key).json()

        def connect():
            fetch_crl(shard(stack, body), folder, "tls")
            port = free_port()
            process = subprocess.Popen(
                ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-key", str(folder / "server.key"), "-cert",
                 str(folder / "server.crt"), "-cert_chain", str(folder / "chain.crt"), "-CAfile",
                 str(folder / "root.crt"), "-CRL", str(folder / "tls.pem"), "-crl_check", "-Verify", "2",
                 "-verify_return_error", "-rev"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                def listening():
                    with socket.socket() as probe:
                        return probe.connect_ex(("127.0.0.1", port)) == 0
                wait_until(listening, "s_server", 10)
                return talk(port, folder, key, body["certificate"])
            finally:
                process.kill()
                process.wait()

        assert connect()
        boss.post(f"/v1/certificates/{body['certificate_id']}/revoke", json={"reason": "keyCompromise"})
        wait_until(lambda: not connect(), "the TLS server's refusal", 10)
