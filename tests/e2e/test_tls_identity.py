"""The certificates that the listeners show: the server's own, renewed by itself, or from files, by SNI."""
import ipaddress
import pathlib
import signal
import socket
import ssl
import subprocess

import pytest
import requests
from cryptography import x509

from harness.stack import Stack, wait_until


def shown(stack, port, server_name="localhost", ca=None):
    """The leaf that a listener shows; the chain must hold."""
    context = ssl.create_default_context(cafile=ca or stack.ca_bundle)
    with socket.create_connection(("127.0.0.1", stack.ports[port]), timeout=10) as raw:
        with context.wrap_socket(raw, server_hostname=server_name) as tls:
            return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True))


def test_its_own_certificate_names_the_server_and_is_kept(cluster):
    with Stack(cluster, config={"server_names": "localhost,ca.example.com,127.0.0.1,::1"}) as stack:
        first = shown(stack, "stations", "ca.example.com")
        names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["localhost", "ca.example.com"]
        assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1"),
                                                             ipaddress.ip_address("::1")]
        assert shown(stack, "https") == first
        kept = stack.data / "tls" / "server.pem"
        assert kept.stat().st_mode & 0o777 == 0o600
        assert stack.query("SELECT profile FROM jitrca.certificate WHERE serial = %s",
                           first.serial_number.to_bytes(16, "big")) == [("server",)]
        stack.restart()
        assert shown(stack, "https") == first
        # Other names, another certificate, without an end of service.
        stack.settings["server_names"] = "localhost,other.example.com"
        stack.write_config()
        stack.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any(event["event"] == "reload_done" for event in stack.events()), "reload")
        assert shown(stack, "https", "other.example.com") != first


def test_it_is_renewed_without_a_restart(cluster):
    brief = {"server": {"validity": {"default": "30s", "max": "30s", "backdate": "1s"},
                        "renewal": {"before": "10s", "overlap": "1s"}}}
    with Stack(cluster, profiles=brief) as stack:
        before = stack.pids()
        first = shown(stack, "stations")
        wait_until(lambda: shown(stack, "stations") != first, "the next certificate", 40, 0.5)
        assert stack.pids() == before


def test_a_revoked_one_is_not_shown_again(cluster):
    with Stack(cluster) as stack:
        first = shown(stack, "https")
        stack.run("admin", "recover", "--config", stack.config)
        serial = format(first.serial_number, "032x")
        answer = requests.post(f"{stack.url}/v1/certificates/{serial}/revoke", json={"reason": "superseded"},
                               headers={"Authorization": f"Bearer {stack.admin_token}"}, verify=stack.ca_bundle, timeout=10)
        assert answer.status_code == 200, answer.text
        # At once, not only by the next start.
        wait_until(lambda: shown(stack, "https") != first, "another certificate", 20, 0.2)
        second = shown(stack, "https")
        stack.restart()
        assert shown(stack, "https") == second


@pytest.fixture(name="company", scope="module")
def company_pki(tmp_path_factory):
    """Two certificates of a company's own root, as files."""
    here = tmp_path_factory.mktemp("company")

    def openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *key, "-keyout", here / "root.key", "-out", here / "root.pem", "-subj", "/CN=Company Root",
            "-days", 30)
    for name in ("a.example.com", "b.example.com"):
        (here / f"{name}.ext").write_text(f"subjectAltName=DNS:{name}\n")
        openssl("req", *key, "-keyout", here / f"{name}.key", "-out", here / f"{name}.csr", "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", here / f"{name}.csr", "-CA", here / "root.pem", "-CAkey", here / "root.key",
                "-CAcreateserial", "-days", 20, "-extfile", here / f"{name}.ext", "-out", here / f"{name}.pem")
        (here / f"{name}.key").chmod(0o600)
    return here


def test_certificates_from_files_are_chosen_by_name(cluster, company):
    pairs = ",".join(f"{company}/{name}.pem:{company}/{name}.key" for name in ("a.example.com", "b.example.com"))
    with Stack(cluster, config={"tls_certificates": pairs}) as stack:
        for name in ("a.example.com", "b.example.com"):
            want = x509.load_pem_x509_certificate((company / f"{name}.pem").read_bytes())
            assert shown(stack, "stations", name, ca=str(company / "root.pem")) == want
        assert not (stack.data / "tls" / "server.pem").exists()


def test_a_key_that_others_can_read_is_refused(cluster, company):
    with Stack(cluster) as stack:
        stack.stop()
        open_key = pathlib.Path(company / "open.key")
        open_key.write_bytes((company / "a.example.com.key").read_bytes())
        open_key.chmod(0o644)
        stack.settings["tls_certificates"] = f"{company}/a.example.com.pem:{open_key}"
        stack.write_config()
        result = stack.run("serve", "--config", stack.config, check=False)
        assert result.returncode == 1
        assert "mode 0600" in result.stderr
