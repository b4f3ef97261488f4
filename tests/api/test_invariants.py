"""Invariants that no other test of the running server is named after."""
import concurrent.futures

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtensionOID

from harness import client
from harness.client import code, csr_pem, new_key
from harness.stack import SANITIZER, Stack, wait_until


@pytest.fixture(name="own")
def own_stack(cluster):
    """A stack that a test may break."""
    with Stack(cluster) as it:
        yield it


def test_invariant_2_what_is_released_is_in_the_database_byte_for_byte(stack):
    with client.admin(stack) as boss:
        bodies = [boss.issue(f"inv-2-{i}").json() for i in range(5)]
    for body in bodies:
        leaf = x509.load_pem_x509_certificate(body["certificate"].encode())
        rows = stack.query("SELECT der, serial, device_id, subject FROM jitrca.certificate WHERE sha256 = %s",
                           bytes.fromhex(body["certificate_id"]))
        assert [(x509.load_der_x509_certificate(bytes(row[0])), bytes(row[1]).hex(), row[2], row[3]) for row in rows] == [
            (leaf, body["serial"], body["device_id"], body["subject"])]


def test_invariant_3_shard_and_expiry_stand_in_the_serial(stack):
    with client.admin(stack) as boss:
        for i in range(8):
            body = boss.issue(f"inv-3-{i}").json()
            leaf = x509.load_pem_x509_certificate(body["certificate"].encode())
            serial = bytes.fromhex(body["serial"])
            end = leaf.not_valid_after
            assert 0x01 <= serial[0] <= 0x7f
            assert serial[2] * 256 + serial[3] == end.year * 12 + end.month - 1
            points = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
            assert points[0].full_name[0].value.endswith(f"/{serial[1]:02x}.crl")


def test_invariant_6_a_list_that_lost_an_entry_is_not_published(own):
    with client.admin(own) as boss:
        lost, other = boss.issue("inv-6a").json(), boss.issue("inv-6b").json()
        url = f"{own.http_url}/crl/{lost['ca']}.crl"

        def listed(body):
            crl = x509.load_der_x509_crl(requests.get(url, timeout=5).content)
            return crl.get_revoked_certificate_by_serial_number(int(body["serial"], 16)) is not None

        boss.post(f"/v1/certificates/{lost['serial']}/revoke", json={"reason": "superseded"})
        wait_until(lambda: listed(lost), "the first revocation on the list", 10)
        with own.db() as connection:  # as a restore, or a superuser, could
            cursor = connection.cursor()
            cursor.execute("ALTER TABLE jitrca.revocation DISABLE TRIGGER revocation_guard")
            cursor.execute("DELETE FROM jitrca.revocation WHERE serial = %s", (bytes.fromhex(lost["serial"]),))
            cursor.execute("ALTER TABLE jitrca.revocation ENABLE TRIGGER revocation_guard")
        boss.post(f"/v1/certificates/{other['serial']}/revoke", json={"reason": "superseded"})

        def alarmed():
            return [event for event in own.events() if event.get("code") == "crl_lost_entry"] or listed(other)

        wait_until(alarmed, "the alarm", 10)
        assert listed(lost) and not listed(other)


def test_invariant_7_lists_rest_and_mutual_tls_agree(stack):
    key = new_key()
    with client.admin(stack) as boss:
        body = boss.issue("inv-7", key).json()

        def listed():
            crl = x509.load_der_x509_crl(requests.get(f"{stack.http_url}/crl/{body['ca']}.crl", timeout=5).content)
            return crl.get_revoked_certificate_by_serial_number(int(body["serial"], 16)) is not None

        path = f"/v1/certificates/{body['serial']}"
        with client.device(stack, key, body) as device:
            for call, fields, status, on_list, tls in (
                    ("revoke", {"reason": "certificateHold"}, "held", True, 401), ("unhold", {}, "active", False, 200),
                    ("revoke", {"reason": "superseded"}, "revoked", True, 401)):
                assert boss.post(f"{path}/{call}", json=fields).status_code == 200
                assert boss.get(path).json()["status"] == status
                assert device.get("/v1/rotation").status_code == tls
                wait_until(lambda on_list=on_list: listed() == on_list, f"the list after {call}", 10)


def test_invariant_8_every_change_has_its_record(stack):
    with client.admin(stack) as boss:
        def actions(about):
            records = boss.get("/v1/audit", params={"object": about, "limit": 100}).json()["records"]
            return [record["action"] for record in records]

        issued = boss.issue("inv-8")
        assert issued.status_code == 201, issued.text
        body = issued.json()
        boss.post(f"/v1/certificates/{body['serial']}/revoke", json={"reason": "certificateHold"})
        boss.post(f"/v1/certificates/{body['serial']}/unhold", json={})
        boss.post(f"/v1/certificates/{body['serial']}/revoke", json={"reason": "keyCompromise"})
        assert len(actions(f"certificate:{body['certificate_id']}")) == 4
        boss.post("/v1/devices/inv-8/quarantine", json={})
        boss.post("/v1/devices/inv-8/release", json={})
        boss.post("/v1/devices/inv-8/decommission", json={})
        assert actions("device:inv-8")[-3:] == ["device.quarantine", "device.release", "device.decommission"]
        before = stack.query("SELECT count(*) FROM jitrca.audit_record")[0][0]
        boss.post("/v1/stations", json={"id": "inv-8-s"})
        token = boss.post("/v1/stations/inv-8-s/tokens", json={}).json()
        boss.request("DELETE", f"/v1/stations/inv-8-s/tokens/{token['token_id']}")
        boss.post("/v1/stations/inv-8-s/disable")
        boss.request("PATCH", "/v1/stations/inv-8-s", json={"rate_per_minute": 5})
        boss.post("/v1/manifests", json={"id": "inv-8-m", "station": "inv-8-s", "quantity": 1})
        boss.post("/v1/manifests/inv-8-m/close")
        assert stack.query("SELECT count(*) FROM jitrca.audit_record")[0][0] == before + 7
        assert boss.post("/v1/audit/verify").json()["ok"]


def test_invariant_11_what_is_signed_obeys_rfc_5280_and_its_profile(stack):
    """Whatever a CSR asks for. That a signer refuses an unknown profile: tests/unit/ca/test_signer.c."""
    greedy = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(
        x509.BasicConstraints(True, None), True).add_extension(
        x509.SubjectAlternativeName([x509.DNSName("admin.example")]), False).sign(new_key(), hashes.SHA256())
    with client.admin(stack) as boss:
        answer = boss.post("/v1/certificates", json={"csr": greedy.public_bytes(serialization.Encoding.PEM).decode(),
                                                     "device_id": "inv-11"})
        assert answer.status_code == 201, answer.text
        leaf = x509.load_pem_x509_certificate(answer.json()["certificate"].encode())
        issuer = x509.load_pem_x509_certificate(answer.json()["chain"].encode())
    found = {extension.oid: extension for extension in leaf.extensions}
    assert leaf.version == x509.Version.v3 and leaf.issuer == issuer.subject
    assert issuer.not_valid_before <= leaf.not_valid_before < leaf.not_valid_after <= issuer.not_valid_after
    constraints = found.get(ExtensionOID.BASIC_CONSTRAINTS)
    assert constraints is None or not constraints.value.ca
    usage = found[ExtensionOID.KEY_USAGE]
    assert usage.critical and usage.value.digital_signature and not usage.value.key_cert_sign and not usage.value.crl_sign
    assert [oid.dotted_string for oid in found[ExtensionOID.EXTENDED_KEY_USAGE].value] == ["1.3.6.1.5.5.7.3.2"]
    assert ExtensionOID.SUBJECT_ALTERNATIVE_NAME not in found
    assert found[ExtensionOID.AUTHORITY_KEY_IDENTIFIER].value.key_identifier == issuer.extensions.get_extension_for_class(
        x509.SubjectKeyIdentifier).value.digest
    assert ExtensionOID.CRL_DISTRIBUTION_POINTS in found


def test_invariant_13_only_the_successor_confirms(stack):
    key, new = new_key(), new_key()
    with client.admin(stack) as boss:
        old = boss.issue("inv-13", key).json()
        with client.device(stack, key, old) as device:
            assert code(device.post("/v1/rotation/confirm")) == "not_a_successor"
            body = device.post("/v1/rotation", json={"csr": csr_pem(new)}).json()
            assert code(device.post("/v1/rotation/confirm")) == "not_a_successor"
            assert device.get("/v1/rotation").status_code == 200, "without confirm the old one lives"
        states = {one["certificate_id"]: one["status"] for one in boss.get("/v1/devices/inv-13").json()["certificates"]}
        assert states == {old["certificate_id"]: "active", body["certificate_id"]: "pending_confirmation"}
        with client.device(stack, new, body) as device:
            assert device.post("/v1/rotation/confirm").status_code == 200
        states = {one["certificate_id"]: one["status"] for one in boss.get("/v1/devices/inv-13").json()["certificates"]}
        assert states[body["certificate_id"]] == "active" and states[old["certificate_id"]] == "superseded"


def test_invariant_14_a_station_issues_within_its_allow_list_and_quantity(stack):
    with client.station(stack, "inv-14", device_ids=[f"inv-14-{i}" for i in range(12)], quantity=5) as station:
        token = station.session.headers["Authorization"].split()[1]
        assert code(station.issue("inv-14-x")) == "device_not_in_manifest"

        def ask(number):
            with client.Client(stack.url, stack.ca_bundle, token=token) as one:
                return one.issue(f"inv-14-{number}").status_code

        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            results = sorted(pool.map(ask, range(12)))
        assert results == [201] * 5 + [429] * 7
    assert stack.query("SELECT used FROM jitrca.manifest WHERE station_id = 'inv-14'") == [(5,)]


def test_invariant_15_a_restored_database_does_not_take_crl_numbers_back(own):
    """The rows of the newest lists are lost, as after a restore; the world has seen those lists."""
    def full():
        return x509.load_der_x509_crl(requests.get(f"{own.http_url}/crl/{first['ca']}.crl", timeout=5).content)

    def lists(body):
        return full().get_revoked_certificate_by_serial_number(int(body["serial"], 16)) is not None

    def number():
        return full().extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    with client.admin(own) as boss:
        first, second, third = (boss.issue(f"inv-15-{i}").json() for i in range(3))
        old = number()
        for body in (first, second):
            boss.post(f"/v1/certificates/{body['serial']}/revoke", json={"reason": "superseded"})
            wait_until(lambda body=body: lists(body), "the revocation on the list", 10)
        newest = number()
        assert newest > old
    own.stop()
    with own.db() as connection:
        cursor = connection.cursor()
        cursor.execute("SET session_replication_role = replica")  # no triggers
        cursor.execute("DELETE FROM jitrca.crl WHERE number > %s AND scope = -1", (old,))
        cursor.execute("UPDATE jitrca.crl_scope SET last_number = %s, published = 1, wanted = 1 WHERE scope = -1", (old,))
    own.start()
    with client.admin(own) as boss:
        assert number() >= newest, "what the world has seen is still served"
        wait_until(lambda: own.query("SELECT min(last_number) FROM jitrca.crl_scope WHERE scope = -1")[0][0] >= newest,
                   "the number that the world has seen in the database again", 10)
        boss.post(f"/v1/certificates/{third['serial']}/revoke", json={"reason": "superseded"})
        wait_until(lambda: lists(third), "the revocation on the list", 20)
        assert number() > newest and lists(first) and lists(second)


def memory_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1])


def test_invariant_17_time_and_memory_are_bounded_for_any_input(stack):
    """Depth, number of values, length: each has its limit, and what was refused does not stay."""
    frontend = stack.pids()["frontend"]
    deep = b'{"requests": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    wide = b'{"requests": [' + b"0," * 1_000_000 + b"0]}"
    long = b'{"requests": "' + b"x" * 3_900_000 + b'"}'
    wants = {deep: "json_too_deep", wide: "json_too_many_values", long: "field_type",
             b" " * 4_500_000: "body_too_large"}

    def ask(number):
        body = list(wants)[number % len(wants)]
        with client.admin(stack) as boss:
            answer = boss.request("POST", "/v1/certificates/batch", data=body,
                                  headers={"Content-Type": "application/json"}, timeout=60)
            assert code(answer) in (wants[body], "server_busy"), answer.text
            return answer.elapsed.total_seconds()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(8)))
        before = memory_kib(frontend)
        slowest = max(pool.map(ask, range(48)))
    grown = memory_kib(frontend) - before
    print(f"slowest {slowest:.2f} s, grown by {grown} KiB")
    assert slowest < 20
    assert SANITIZER or grown < 64 * 1024
