"""One certificate, and the same one again: issuance, idempotency, identity, allow-lists, batches."""
import concurrent.futures
import hashlib

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from harness import client
from harness.client import code, csr_pem, new_key


def test_an_admin_gets_a_certificate_that_is_in_the_database(stack):
    key = new_key()
    with client.admin(stack) as boss:
        answer = boss.issue("dev-1", key, attributes={"model": "m1"}, thing_type="sensor")
        assert answer.status_code == 201, answer.text
        body = answer.json()
        leaf = x509.load_pem_x509_certificate(body["certificate"].encode())
        der = leaf.public_bytes(serialization.Encoding.DER)
        assert body["certificate_id"] == hashlib.sha256(der).hexdigest()
        assert body["serial"] == f"{leaf.serial_number:032x}"
        assert body["status"] == "active" and body["device_id"] == "dev-1" and body["profile"] == "device"
        assert leaf.public_key() == key.public_key() or \
            leaf.public_key().public_numbers() == key.public_key().public_numbers()
        rows = stack.query("SELECT der, status FROM jitrca.certificate WHERE sha256 = %s",
                           hashlib.sha256(der).digest())
        assert [(bytes(row[0]), row[1]) for row in rows] == [(der, "active")]
        assert stack.query("SELECT count(*) FROM jitrca.intent")[0][0] == 0
        again = boss.get(f"/v1/certificates/{body['certificate_id']}").json()
        assert again["certificate"] == body["certificate"] and again["device_id"] == "dev-1"
        assert boss.get(f"/v1/certificates/{body['serial']}").json()["certificate_id"] == body["certificate_id"]


def test_invariant_10_identity_comes_from_the_request_and_not_from_the_csr(stack):
    with client.admin(stack) as boss:
        body = boss.post("/v1/certificates", json={"csr": csr_pem(new_key(), "root of all evil"),
                                                   "device_id": "dev-10"}).json()
    leaf = x509.load_pem_x509_certificate(body["certificate"].encode())
    assert [a.value for a in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["dev-10"]
    assert "evil" not in leaf.subject.rfc4514_string()


def test_invariant_4_one_idempotency_key_one_certificate(stack):
    key = new_key()
    csr = csr_pem(key)
    headers = {"Idempotency-Key": "key-4"}
    with client.admin(stack) as boss:
        first = boss.post("/v1/certificates", json={"csr": csr, "device_id": "dev-4"}, headers=headers)
        assert first.status_code == 201
        again = boss.post("/v1/certificates", json={"csr": csr, "device_id": "dev-4"}, headers=headers)
        assert again.status_code == 200 and again.json()["certificate"] == first.json()["certificate"]
        other = boss.post("/v1/certificates", json={"csr": csr, "device_id": "dev-4x"}, headers=headers)
        assert other.status_code == 409 and code(other) == "idempotency_key_reused"
        without = boss.post("/v1/certificates", json={"csr": csr, "device_id": "dev-4"})
        assert without.status_code == 200 and without.json()["certificate"] == first.json()["certificate"]
    assert stack.query("SELECT count(*) FROM jitrca.certificate WHERE device_id LIKE 'dev-4%%'")[0][0] == 1


def test_invariant_4_concurrent_repeats_share_one_result(stack):
    csr = csr_pem(new_key())

    def ask(_):
        with client.admin(stack) as boss:
            answer = boss.post("/v1/certificates", json={"csr": csr, "device_id": "dev-4c"},
                               headers={"Idempotency-Key": "key-4c"})
            return answer.status_code, answer.json().get("certificate_id")

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        results = list(pool.map(ask, range(32)))
    assert {status for status, _ in results} <= {200, 201}, results
    assert len({certificate for _, certificate in results}) == 1
    assert sum(status == 201 for status, _ in results) == 1


def test_invariant_12_one_public_key_one_identity(stack):
    key = new_key()
    with client.admin(stack) as boss:
        assert boss.issue("dev-12a", key).status_code == 201
        clone = boss.issue("dev-12b", key)
        assert clone.status_code == 409 and code(clone) == "public_key_in_use"
        body = boss.issue("dev-12c", compromised := new_key()).json()
        assert boss.post(f"/v1/certificates/{body['certificate_id']}/revoke",
                         json={"reason": "keyCompromise"}).status_code == 200
        never = boss.issue("dev-12c", compromised)
        assert never.status_code == 403 and code(never) == "public_key_blocked"
        assert boss.issue("dev-12c", new_key()).status_code == 201


def test_a_device_has_one_live_certificate_and_rework_replaces_it(stack):
    with client.admin(stack) as boss:
        first = boss.issue("dev-r").json()
        second = boss.issue("dev-r")
        assert second.status_code == 409 and code(second) == "device_has_certificate"
        rework = boss.issue("dev-r", replace=True)
        assert rework.status_code == 201
        assert rework.json()["predecessor"] == first["certificate_id"]
        old = boss.get(f"/v1/certificates/{first['certificate_id']}").json()
        assert old["status"] == "revoked" and old["reason"] == "superseded"


def test_a_station_issues_only_what_it_was_given(stack):
    with client.station(stack, "st-1", device_ids=[f"unit-{i}" for i in range(5)], quantity=3) as st:
        assert code(st.issue("other-1")) == "device_not_in_manifest"
        refused = st.issue("unit-0", profile="admin")
        assert refused.status_code == 403
        for i in range(3):
            assert st.issue(f"unit-{i}").status_code == 201
        over = st.issue("unit-3")
        assert over.status_code == 429 and code(over) == "quota_exhausted"
        replay = st.issue("unit-0", replace=True)
        assert replay.status_code == 403 and code(replay) == "replace_not_allowed"
        with client.admin(stack) as boss:
            first = boss.get("/v1/certificates", params={"device_id": "unit-0"}).json()["certificates"][0]
            boss.post(f"/v1/certificates/{first['certificate_id']}/revoke", json={"reason": "keyCompromise"})
        second = st.issue("unit-0")
        assert second.status_code == 403 and code(second) == "replace_not_allowed"
        scope = st.get("/v1/stations/self").json()
        manifest = scope["manifests"][0]
        assert (manifest["quantity"], manifest["used"]) == (3, 3)
        for path in ("/v1/principals", "/v1/audit", "/v1/devices", "/v1/stations"):
            denied = st.get(path)
            assert denied.status_code == 403 and code(denied) == "role_not_allowed", path


def test_a_batch_answers_in_order_and_one_bad_item_costs_the_others_nothing(stack):
    keys = [new_key() for _ in range(20)]
    requests = [{"csr": csr_pem(key), "device_id": f"batch-{i}"} for i, key in enumerate(keys)]
    requests[7]["csr"] = "not a csr"
    requests[8]["device_id"] = "no spaces allowed"
    requests[9] = {"csr": csr_pem(keys[9]), "device_id": "batch-0"}
    with client.admin(stack) as boss:
        answer = boss.post("/v1/certificates/batch", json={"requests": requests},
                           headers={"Idempotency-Key": "batch"})
        assert answer.status_code == 200
        results = answer.json()["results"]
        assert len(results) == 20
        assert results[7]["status"] == 400 and results[7]["problem"]["code"] == "csr_not_pem"
        assert results[8]["status"] == 400 and results[8]["problem"]["code"] == "device_id_malformed"
        assert results[9]["status"] == 409 and results[9]["problem"]["code"] == "device_has_certificate"
        for i, result in enumerate(results):
            if i not in (7, 8, 9):
                assert result["status"] == 201 and result["certificate"]["device_id"] == f"batch-{i}"
        again = boss.post("/v1/certificates/batch", json={"requests": requests},
                          headers={"Idempotency-Key": "batch"}).json()["results"]
        for i, result in enumerate(again):
            if i not in (7, 8, 9):
                assert result["status"] == 200
                assert result["certificate"]["certificate_id"] == results[i]["certificate"]["certificate_id"]


def test_a_batch_of_a_thousand(stack):
    requests = [{"csr": csr_pem(new_key()), "device_id": f"thousand-{i}"} for i in range(1000)]
    with client.admin(stack) as boss:
        answer = boss.post("/v1/certificates/batch", json={"requests": requests})
        assert answer.status_code == 200
        refused = [result for result in answer.json()["results"] if result["status"] != 201]
        assert not refused, (len(refused), refused[:2])
        assert len({result["certificate"]["serial"] for result in answer.json()["results"]}) == 1000
        over = boss.post("/v1/certificates/batch", json={"requests": requests + requests[:1]})
        assert over.status_code == 413 and code(over) == "batch_too_large"


def test_search_pages_through_every_filter(stack):
    with client.admin(stack) as boss:
        for i in range(7):
            assert boss.issue(f"search-{i}").status_code == 201
        seen, cursor = [], None
        while True:
            params = {"limit": 3, "station": "admin", **({"cursor": cursor} if cursor else {})}
            page = boss.get("/v1/certificates", params=params).json()
            seen += [item["certificate_id"] for item in page["certificates"]]
            cursor = page.get("next_cursor")
            if not cursor:
                break
        assert len(seen) == len(set(seen)) == stack.query(
            "SELECT count(*) FROM jitrca.certificate WHERE principal_id = 'admin'")[0][0]
        one = boss.get("/v1/certificates", params={"device_id": "search-3"}).json()["certificates"]
        assert [item["device_id"] for item in one] == ["search-3"]
        assert boss.get("/v1/certificates", params={"status": "revoked", "device_id": "search-3"}).json()[
            "certificates"] == []
        assert code(boss.get("/v1/certificates", params={"cursor": "nonsense"})) == "cursor_malformed"
        assert code(boss.get("/v1/certificates", params={"status": "nonsense"})) == "status_unknown"
