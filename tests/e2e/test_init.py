"""`jitrca init`: a root of its own, a root kept elsewhere, a company's root; and being cut short."""
import subprocess

import pytest

from harness.stack import Stack


@pytest.fixture(name="bare")
def bare_stack(cluster):
    """A configuration and a database, nothing initialised."""
    it = Stack(cluster)
    yield it
    it.close()


def openssl(*arguments, **options):
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, text=True, **options).stdout


def test_a_root_key_may_be_kept_elsewhere(bare):
    elsewhere = bare.dir / "vault.key"
    bare.run("init", "--config", bare.config, "--root-key", elsewhere, "--organization", "Example Ltd")
    assert elsewhere.exists() and elsewhere.stat().st_mode & 0o777 == 0o600
    assert not (bare.data / "keys" / "root.key").exists()
    keys = bare.data / "keys"
    assert "OK" in openssl("verify", "-CAfile", keys / "root.crt", keys / "issuing-1.crt")
    assert "Example Ltd" in openssl("x509", "-in", keys / "root.crt", "-noout", "-subject")
    bare.start()


@pytest.mark.parametrize("key_type,text", [("ec-p384", "P-384"), ("rsa-3072", "3072 bit")])
def test_key_types(bare, key_type, text):
    bare.run("init", "--config", bare.config, "--key-type", key_type)
    assert text in openssl("x509", "-in", bare.data / "keys" / "issuing-1.crt", "-noout", "-text")
    bare.start()


def test_a_companys_own_root_signs_the_issuing_ca(bare):
    first = bare.run("init", "--config", bare.config, "--external-root")
    assert "--import" in first.stdout
    again = bare.run("init", "--config", bare.config, "--external-root")
    assert "waits to be signed" in again.stdout
    csr = bare.data / "keys" / "issuing-1.csr"
    here = bare.dir
    (here / "ca.ext").write_text("basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n"
                                 "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes", "-keyout", here / "r.key",
            "-out", here / "r.pem", "-subj", "/O=Company/CN=Company Root", "-days", 3650, "-addext",
            "keyUsage=critical,keyCertSign,cRLSign")
    openssl("x509", "-req", "-in", csr, "-CA", here / "r.pem", "-CAkey", here / "r.key", "-CAcreateserial", "-days", 1000,
            "-extfile", here / "ca.ext", "-out", here / "issuing.pem")

    # Another's certificate is refused, and nothing of it stays.
    wrong = bare.run("init", "--config", bare.config, "--import", here / "r.pem", "--chain", here / "r.pem", check=False)
    assert wrong.returncode == 1 and "import_" in wrong.stderr
    assert not (bare.data / "keys" / "issuing-1.crt").exists()

    bare.run("init", "--config", bare.config, "--import", here / "issuing.pem", "--chain", here / "r.pem")
    bare.start()
    assert bare.query("SELECT kind FROM jitrca.issuer WHERE ca_id = 'issuing-1'") == [("issuing",)]


def test_an_init_that_was_cut_short_is_finished_by_the_next(bare, cluster):
    good = bare.settings["database_url"]
    bare.settings["database_url"] = f"{good}&port=1"
    bare.write_config()
    cut = bare.run("init", "--config", bare.config, check=False)
    assert cut.returncode == 1 and "database" in cut.stderr
    root = (bare.data / "keys" / "root.crt").read_bytes()
    bare.settings["database_url"] = good
    bare.write_config()
    bare.run("init", "--config", bare.config)
    assert (bare.data / "keys" / "root.crt").read_bytes() == root
    bare.start()


def test_a_passphrase_is_needed_and_must_be_long(bare):
    bare.passphrase.write_text("short")
    result = bare.run("init", "--config", bare.config, check=False)
    assert result.returncode == 1 and "passphrase_too_short" in result.stderr
    bare.settings["passphrase_file"] = ""
    bare.write_config()
    result = bare.run("init", "--config", bare.config, check=False, stdin=subprocess.DEVNULL, start_new_session=True)
    assert result.returncode == 1 and "passphrase_missing" in result.stderr
    assert not (bare.data / "keys" / "root.crt").exists()


def test_a_systemd_credential_is_taken(bare):
    credentials = bare.dir / "credentials"
    credentials.mkdir()
    (credentials / "jitrca-passphrase").write_text("a passphrase from systemd\n")
    bare.settings["passphrase_file"] = ""
    bare.write_config()
    bare.env["CREDENTIALS_DIRECTORY"] = str(credentials)
    bare.run("init", "--config", bare.config)
    bare.start()


@pytest.mark.parametrize("arguments", [["--import", "x.pem"], ["--key-type", "rsa-2047"], ["--no-such-option"], ["extra"]])
def test_misuse_is_status_2(bare, arguments):
    assert bare.run("init", "--config", bare.config, *arguments, check=False).returncode == 2
