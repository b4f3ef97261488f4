"""OCSP as others ask for it: openssl and GnuTLS by POST, strongSwan and NSS as part of checking a chain."""
import subprocess

import pytest

from harness import client, ocsp
from harness.stack import wait_until


def run(*command):
    """What a program says and how it ends; these all speak on both channels."""
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=60)
    return result.returncode, result.stdout + result.stderr


@pytest.fixture(scope="module")
def files(stack, tmp_path_factory):
    """good.crt, revoked.crt, held.crt; root.crt and issuing.crt; an NSS database that trusts the root."""
    folder = tmp_path_factory.mktemp("ocsp")
    with client.admin(stack) as boss:
        for name in ("good", "revoked", "held"):
            body = boss.issue(f"client-{name}").json()
            (folder / f"{name}.crt").write_text(body["certificate"])
            if name != "good":
                reason = "certificateHold" if name == "held" else "keyCompromise"
                boss.post(f"/v1/certificates/{body['certificate_id']}/revoke", json={"reason": reason, "comment": "x"})
                wait_until(lambda b=body: ocsp.status_of(stack, b) == ocsp.CERT.REVOKED, "the answer", 5)
    (folder / "issuing.crt").write_text(body["chain"])
    (folder / "root.crt").write_text((stack.data / "keys" / "root.crt").read_text())
    (folder / "both.crt").write_text(body["chain"] + (folder / "root.crt").read_text())
    for name in ("good", "revoked", "held", "issuing", "root"):
        subprocess.run(["openssl", "x509", "-in", folder / f"{name}.crt", "-outform", "DER", "-out",
                        folder / f"{name}.der"], check=True)
    (folder / "nss").mkdir()
    for command in (["certutil", "-N", "--empty-password"],
                    ["certutil", "-A", "-n", "root", "-t", "CT,C,C", "-i", folder / "root.der"],
                    ["certutil", "-A", "-n", "issuing", "-t", ",,", "-i", folder / "issuing.der"]):
        subprocess.run([*command, "-d", f"sql:{folder / 'nss'}"], check=True, capture_output=True)
    return folder


def openssl(stack, files, which, *options):
    return run("openssl", "ocsp", "-url", f"{stack.http_url}/ocsp", "-CAfile", files / "root.crt", "-issuer",
               files / "issuing.crt", "-verify_other", files / "issuing.crt", *options, *which)


@pytest.mark.parametrize("nonce", ["-nonce", "-no_nonce"])
@pytest.mark.parametrize("digest", ["-sha1", "-sha256"])
def test_openssl(stack, files, nonce, digest):
    for name, wanted in (("good", ": good"), ("revoked", "keyCompromise"), ("held", "certificateHold")):
        code, said = openssl(stack, files, [digest, "-cert", files / f"{name}.crt"], nonce)
        assert code == 0 and "Response verify OK" in said and "WARNING" not in said and wanted in said, said
    code, said = openssl(stack, files, [digest, "-serial", "0x3abc0000000000000000000000000001"], nonce)
    assert code == 0 and "Response verify OK" in said and ": unknown" in said, said


def test_openssl_asks_for_several_at_once(stack, files):
    code, said = openssl(stack, files, [part for name in ("good", "revoked", "held")
                                        for part in ("-cert", files / f"{name}.crt")])
    assert code == 0 and "Response verify OK" in said, said
    assert "good.crt: good" in said and "revoked.crt: revoked" in said and "held.crt: revoked" in said


def test_openssl_reads_the_answer_without_complaint(stack, files):
    code, said = openssl(stack, files, ["-cert", files / "good.crt"], "-resp_text")
    assert code == 0 and "OCSP No Check" in said and "OCSP Signing" in said and "sha" in said.lower(), said
    assert "Basic OCSP Response" in said and "Responder Id" in said


@pytest.mark.parametrize("nonce", ["--nonce", "--no-nonce"])
def test_gnutls(stack, files, nonce):
    option = [] if nonce == "--no-nonce" else [nonce]
    for name, wanted in (("good", "good"), ("revoked", "revoked"), ("held", "revoked")):
        code, said = run("ocsptool", f"--ask={stack.http_url}/ocsp", *option, "--load-cert", files / f"{name}.crt",
                         "--load-issuer", files / "issuing.crt", "--load-trust", files / "both.crt", "--verbose")
        assert f"Certificate Status: {wanted}" in said, said
        assert "Verifying OCSP Response: Success" in said and "mismatch" not in said, said
        assert code == 0 or name != "good", said


def test_strongswan_checks_the_chain(files):
    """`pki --verify --online` takes the responder's address out of the certificate."""
    for name, wanted in (("good", "certificate status is good"), ("revoked", "certificate was revoked"),
                         ("held", "certificate was revoked")):
        code, said = run("pki", "--verify", "--in", files / f"{name}.crt", "--cacert", files / "issuing.crt", "--cacert",
                         files / "root.crt", "--online", "--debug", "2")
        if name == "good":
            assert code == 0, said
        else:
            assert code != 0, said
        assert "requesting ocsp status" in said and "ocsp response correctly signed" in said, said


def test_nss_asks_by_get(stack, files):
    """With no more than OCSP to go by, and failing without an answer."""
    for name in ("good", "revoked", "held"):
        code, said = run("vfychain", "-pp", "-u", "0", "-d", f"sql:{files / 'nss'}", "-g", "leaf", "-h",
                         "requireFreshInfo", "-m", "ocsp", "-s", "failIfNoInfo", files / f"{name}.der",
                         files / "issuing.der")
        if name == "good":
            assert code == 0 and "Chain is good!" in said, said
        else:
            assert code != 0 and "revoked" in said.lower(), said
    asked = [event for event in stack.events() if event.get("event") == "request" and
             event["route"] == "/ocsp/{request+}" and event["status"] == 200]
    assert len(asked) >= 3
