"""What a server does that is started while PostgreSQL is away."""
import datetime

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from harness import client
from harness.client import new_key
from harness.stack import Cluster, Stack, wait_until


def crl(stack, name, ca="issuing-1"):
    return requests.get(f"{stack.http_url}/crl/{ca}{name}", timeout=5)


def status(stack, path):
    try:
        return requests.get(f"{stack.http_url}{path}", timeout=5).status_code
    except requests.RequestException:
        return None


def test_crls_are_served_by_a_server_that_starts_without_its_database():
    with Cluster() as cluster, Stack(cluster) as stack:
        with client.admin(stack) as boss:
            body = boss.issue("away-1", new_key()).json()
            assert boss.post(f"/v1/certificates/{body['certificate_id']}/revoke",
                             json={"reason": "keyCompromise"}).status_code == 200
        shard = f"/{body['serial'][2:4]}.crl"

        def listed(name):
            answer = crl(stack, name)
            return answer.status_code == 200 and \
                x509.load_der_x509_crl(answer.content).get_revoked_certificate_by_serial_number(
                    int(body["serial"], 16)) is not None
        wait_until(lambda: listed(".crl") and listed(shard), "the revocation on both lists")
        full = crl(stack, ".crl")
        # One list is spoilt, and the whole of another is missing: the others do not mind.
        other = "00" if shard != "/00.crl" else "01"
        (stack.data / "crl" / "issuing-1" / f"{other}.crl").write_bytes(b"\x30\x03spoilt")

        stack.stop()
        cluster.stop()
        stack.start(wait=False)
        wait_until(lambda: status(stack, "/healthz") == 200, "the plain listener")
        assert listed(".crl") and listed(shard)
        again = crl(stack, ".crl")
        assert again.content == full.content and again.headers["ETag"] == full.headers["ETag"]
        assert "max-age" in again.headers["Cache-Control"]
        assert crl(stack, f"/{other}.crl").status_code == 503
        assert crl(stack, ".crl", ca="nobody").status_code == 503
        assert status(stack, "/readyz") == 503
        unwell = stack.run("health", "--url", stack.http_url, check=False)
        assert unwell.returncode == 1 and "(not_ready)" in unwell.stderr and "database" in unwell.stderr

        cluster.start()
        stack.wait_ready()
        assert crl(stack, f"/{other}.crl").status_code == 200 and listed(shard)
        assert crl(stack, ".crl", ca="nobody").status_code == 404
        assert stack.run("health", "--url", stack.http_url + "/").stdout == "ready\n"


def test_invariant_6_a_restored_database_does_not_bring_old_numbers_back(cluster):
    with Stack(cluster) as stack:
        def number():
            parsed = x509.load_der_x509_crl(crl(stack, "/07.crl").content)
            return parsed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        stack.stop()
        # Three lists later, as the world has seen it; then all rows as they were before.
        with stack.db() as connection:
            cursor = connection.cursor()
            cursor.execute("CREATE TABLE public.scope AS SELECT * FROM jitrca.crl_scope")
            cursor.execute("CREATE TABLE public.list AS SELECT * FROM jitrca.crl")
            cursor.execute("CREATE TABLE public.piece AS SELECT * FROM jitrca.crl_piece")
        for _ in range(3):
            with stack.db() as connection:
                connection.cursor().execute("UPDATE jitrca.crl_scope SET wanted = wanted + 1 WHERE scope = 7")
            before = stack.query("SELECT published FROM jitrca.crl_scope WHERE scope = 7")[0][0]
            stack.start()
            wait_until(lambda: stack.query(
                "SELECT published > %s FROM jitrca.crl_scope WHERE scope = 7", before)[0][0], "a list")
            served = number()
            stack.stop()
        with stack.db() as connection:
            cursor = connection.cursor()
            cursor.execute("SET session_replication_role = replica")
            cursor.execute("DELETE FROM jitrca.crl_piece; DELETE FROM jitrca.crl; DELETE FROM jitrca.crl_scope")
            cursor.execute("INSERT INTO jitrca.crl_scope SELECT * FROM public.scope")
            cursor.execute("INSERT INTO jitrca.crl SELECT * FROM public.list")
            cursor.execute("INSERT INTO jitrca.crl_piece SELECT * FROM public.piece")
            cursor.execute("SET session_replication_role = origin")
        stack.start()
        assert number() >= served
        wait_until(lambda: number() > served, "a list with a number above those served")


def test_lists_of_an_earlier_ca_of_the_same_name_are_forgotten(cluster):
    with Stack(cluster) as stack:
        stack.stop()
        key, now = new_key(), datetime.datetime.utcnow()
        foreign = x509.CertificateRevocationListBuilder().issuer_name(x509.Name([])).last_update(now).next_update(
            now + datetime.timedelta(days=1)).add_extension(x509.CRLNumber(1000), critical=False).sign(key, hashes.SHA256())
        directory = stack.data / "crl" / "issuing-1"
        (directory / "05.crl").write_bytes(foreign.public_bytes(serialization.Encoding.DER))
        (directory / "issuer.der").write_bytes(b"that CA's certificate")
        stack.start()
        ours = x509.load_pem_x509_certificate((stack.data / "keys" / "issuing-1.crt").read_bytes())
        assert x509.load_der_x509_crl(crl(stack, "/05.crl").content).is_signature_valid(ours.public_key())
