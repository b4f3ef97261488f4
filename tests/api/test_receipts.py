"""Revocations of many: the selectors, the receipt and each of its claims from outside, the second administrator, blocked keys."""
import concurrent.futures
import contextlib
import hashlib
import subprocess

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from harness import client
from harness.client import code, csr_pem, new_key
from harness.stack import Stack, wait_until

OVER = 8


@pytest.fixture(scope="module", name="stack")
def approving_stack(cluster):
    with Stack(cluster, config={"revocation_approval_over": OVER}) as it:
        yield it


@pytest.fixture(scope="module")
def boss(stack):
    with client.admin(stack) as it:
        yield it


@contextlib.contextmanager
def principal(stack, boss, name, role="admin"):
    answer = boss.post("/v1/principals", json={"id": name, "role": role})
    assert answer.status_code == 201, answer.text
    with another_token(stack, boss, name) as it:
        yield it


def another_token(stack, boss, name):
    answer = boss.post(f"/v1/principals/{name}/tokens", json={"description": "test"})
    assert answer.status_code == 201, answer.text
    return client.Client(stack.url, stack.ca_bundle, token=answer.json()["token"])


def spki_sha256(key):
    return hashlib.sha256(key.public_key().public_bytes(serialization.Encoding.DER,
                                                        serialization.PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def issue(boss, *names, **fields):
    """[(key, body)] of new devices."""
    made = [(key, boss.issue(name, key, **fields)) for name, key in ((name, new_key()) for name in names)]
    assert all(answer.status_code == 201 for _, answer in made), made[0][1].text
    return [(key, answer.json()) for key, answer in made]


def ask(who, selector, reason="superseded", **fields):
    return who.post("/v1/revocations", json={"selector": selector, "reason": reason, **fields})


def receipt_of(who, revocation_id):
    answer = who.get(f"/v1/revocations/{revocation_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def completed(who, answer):
    assert answer.status_code in (200, 202), answer.text
    found = answer.json()["revocation_id"]
    wait_until(lambda: receipt_of(who, found)["complete"], "the receipt", 30)
    return receipt_of(who, found)


def pages(who, revocation_id, limit=3):
    out, cursor = [], None
    while True:
        answer = who.get(f"/v1/revocations/{revocation_id}/certificates",
                         params={"limit": limit, **({"cursor": cursor} if cursor else {})})
        assert answer.status_code == 200, answer.text
        out += answer.json()["certificates"]
        cursor = answer.json()["next_cursor"]
        if not cursor:
            return out


def openssl_says(stack, tmp_path, body):
    leaf, issuer = tmp_path / "leaf.pem", tmp_path / "issuer.pem"
    leaf.write_text(body["certificate"])
    issuer.write_text(body["chain"])
    return subprocess.run(["openssl", "ocsp", "-issuer", issuer, "-cert", leaf, "-url", f"{stack.http_url}/ocsp", "-noverify"],
                          capture_output=True, text=True, timeout=20, check=False).stdout


def check_claims(stack, who, receipt, bodies, tmp_path):
    """Each list that the receipt names, as it is served; OCSP as openssl hears it."""
    serials = {int(body["serial"], 16) for body in bodies}
    shown = set()
    for claim in receipt["targets"]["crl"]["lists"] + receipt["targets"]["full"]["lists"]:
        name = {"full": f"{claim['ca']}.crl"}.get(claim["list"], f"{claim['ca']}/{claim['list']}.crl")
        served = requests.get(f"{stack.http_url}/crl/{name}", timeout=5)
        assert served.status_code == 200
        crl = x509.load_der_x509_crl(served.content)
        assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == claim["number"], claim
        assert hashlib.sha256(served.content).hexdigest() == claim["sha256"], claim
        assert claim["done_at"] and claim["after_ms"] >= 0
        listed = {entry.serial_number for entry in crl}
        if claim["list"] in ("full", "delta"):
            assert serials <= listed, claim
        else:
            shown |= {serial for serial in serials if f"{serial:032x}"[2:4] == claim["list"]} & listed
    assert shown == serials
    assert ": revoked" in openssl_says(stack, tmp_path, bodies[0])
    for line in pages(who, receipt["revocation_id"]):
        served = requests.get(stack.http_url + line["crl"]["path"], timeout=5).content
        assert hashlib.sha256(served).hexdigest() == line["crl"]["sha256"] and line["crl"]["state"] == "done"


def test_every_claim_of_a_receipt_is_true(stack, boss, tmp_path):
    made = issue(boss, *[f"true-{n}" for n in range(7)])
    names = [body["device_id"] for _, body in made]
    dry = ask(boss, {"device_ids": names}, dry_run=True).json()
    assert (dry["certificates"], dry["devices"], dry["cut_off"], dry["last_seen"]["never"]) == (7, 7, 7, 7)
    assert dry["crl"]["full_bytes"] == 7 * 49 and not dry["approval_required"]
    full = f"{stack.http_url}/crl/{made[0][1]['ca']}.crl"
    before = len(requests.get(full, timeout=5).content)
    receipt = completed(boss, ask(boss, {"device_ids": names}, comment="why"))
    assert receipt["state"] == "done" and receipt["revoked"] == receipt["matched"] == 7
    assert receipt["outcomes"] == {"open": 0, "revoked": 7, "held": 0, "already_revoked": 0, "expired": 0, "superseded": 0}
    assert {name: part["state"] for name, part in receipt["targets"].items()} == {
        "crl": "done", "full": "done", "ocsp": "done", "rest": "done", "session": "done", "iot": "not_configured", "webhook": "not_configured"}
    check_claims(stack, boss, receipt, [body for _, body in made], tmp_path)
    grown = len(requests.get(full, timeout=5).content) - before
    assert dry["crl"]["full_bytes"] <= grown <= dry["crl"]["full_bytes"] + 24  # lengths, and the number
    with client.device(stack, *made[3]) as device:
        assert code(device.get("/v1/rotation")) == "certificate_revoked"
    lines = pages(boss, receipt["revocation_id"])
    assert len(lines) == 7 and {line["device_id"] for line in lines} == set(names)
    assert [line["serial"] for line in lines] == sorted(line["serial"] for line in lines)
    assert {line["outcome"] for line in lines} == {"revoked"}
    # Its lists hold what it claims for good: a later one does not change it.
    completed(boss, ask(boss, {"device_id": issue(boss, "true-later")[0][1]["device_id"]}))
    assert receipt_of(boss, receipt["revocation_id"])["targets"]["full"]["lists"] == receipt["targets"]["full"]["lists"]


def test_one_certificate_has_a_receipt_too(stack, boss, tmp_path):
    (key, body), = issue(boss, "single")
    answer = boss.post(f"/v1/certificates/{body['certificate_id']}/revoke", json={"reason": "superseded"})
    receipt = completed(boss, answer)
    assert receipt["selector"] == {"certificate_id": body["certificate_id"]} and receipt["matched"] == 1
    check_claims(stack, boss, receipt, [body], tmp_path)
    with client.device(stack, key, body) as device:
        assert code(device.get("/v1/rotation")) == "certificate_revoked"
    again = boss.post(f"/v1/certificates/{body['certificate_id']}/revoke", json={"reason": "superseded"})
    assert again.status_code == 200 and "revocation_id" not in again.json()  # nothing was revoked


def test_what_a_selector_can_say(boss):
    (key, _), _ = issue(boss, "sel-1", "sel-2", attributes={"line": "sel", "shift": "night"})
    for selector, count in [({"spki_sha256": spki_sha256(key)}, 1), ({"spki_sha256": "00" * 32}, 0),
                            ({"attributes": {"line": "sel"}}, 2), ({"attributes": {"line": "sel", "shift": "day"}}, 0),
                            ({"device_ids": ["sel-1", "sel-2", "nobody"]}, 2),
                            ({"device_ids": ["sel-1", "sel-2"], "spki_sha256": spki_sha256(key)}, 1),
                            ({"profile": "device", "attributes": {"shift": "night"}, "ca": "issuing-1"}, 2)]:
        answer = ask(boss, selector, dry_run=True)
        assert answer.status_code == 200 and answer.json()["certificates"] == count, (selector, answer.text)
    for bad in [{"spki_sha256": "00"}, {"device_ids": []}, {"device_ids": ["a b"]}, {"device_ids": ["x"] * 1001},
                {"attributes": {}}, {"attributes": {"a": 1}}, {"all": False}, {"all": "yes"}, {"ca": "none"}]:
        answer = ask(boss, bad)
        assert answer.status_code == 400 and code(answer) == "selector_field", (bad, answer.text)


def test_everything_wants_a_word(stack, boss):
    issue(boss, "every-1", "every-2")
    for selector in ({"issued_before": "2100-01-01T00:00:00Z"}, {"profile": "device"}, {"ca": "issuing-1"}):
        dry = ask(boss, selector, dry_run=True)
        assert dry.status_code == 200 and dry.json()["everything"] is True
        refused = ask(boss, selector)
        assert refused.status_code == 400 and code(refused) == "selector_everything"
    one = ask(boss, {"device_ids": ["every-1"]}, dry_run=True).json()
    assert one["everything"] is False
    said = ask(boss, {"profile": "device", "all": True}, dry_run=True)
    assert said.status_code == 200
    assert stack.query("SELECT count(*) FROM jitrca.certificate WHERE device_id IN ('every-1', 'every-2')"
                       " AND status = 'active'")[0][0] == 2


def test_a_large_one_waits_for_another_administrator(stack, boss):
    names = [f"two-{n}" for n in range(OVER + 1)]
    issue(boss, *names)
    with principal(stack, boss, "second") as second, principal(stack, boss, "third") as third, \
            principal(stack, boss, "first") as first, another_token(stack, boss, "first") as same:
        asked = ask(first, {"device_ids": names}, comment='=HYPERLINK("x")\r\nX-Evil: 1')
        assert asked.status_code == 202 and asked.json()["state"] == "waiting", asked.text
        assert "X-Evil" not in asked.headers
        path = asked.headers["Location"]
        for requester in (first, same):
            refused = requester.post(f"{path}/approve", json={})
            assert refused.status_code == 403 and code(refused) == "approval_by_requester"
        assert boss.get(f"/v1/certificates?device_id={names[0]}").json()["certificates"][0]["status"] == "active"
        waiting = boss.get("/v1/revocations?state=waiting").json()["revocations"]
        assert [line["matched"] for line in waiting] == [len(names)]
        # Issued behind its back: not part of what is shown and approved.
        late = issue(boss, "two-late")[0][1]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            codes = sorted(answer.status_code for answer in pool.map(
                lambda who: who.post(f"{path}/approve", json={"comment": "seen"}), (second, third)))
        assert codes == [200, 409]
        receipt = completed(boss, boss.get(path))
        assert receipt["revoked"] == len(names) and receipt["approval"]["decided_by"] in ("second", "third")
        assert receipt["comment"] == '=HYPERLINK("x")\r\nX-Evil: 1'
        assert boss.get(f"/v1/certificates/{late['certificate_id']}").json()["status"] == "active"
        winner = second if receipt["approval"]["decided_by"] == "second" else third
        assert winner.post(f"{path}/approve", json={}).status_code == 200  # its answer was lost
        actions = [record["action"] for record in boss.get(
            f"/v1/audit?object=revocation:{receipt['revocation_id']}").json()["records"]]
        assert actions == ["revocation.request", "revocation.approve"]
    assert boss.post(path + "/approve", json={"x": 1}).status_code == 400
    assert ask(boss, {"device_id": "two-late"}, comment="\x01").status_code == 400


def test_what_is_not_approved_does_not_happen(stack, boss):
    names = [f"not-{n}" for n in range(OVER + 1)]
    issue(boss, *names)
    with principal(stack, boss, "asks") as asks, principal(stack, boss, "decides") as decides, \
            principal(stack, boss, "looks", "operator") as looks:
        paths = [ask(asks, {"device_ids": names}).headers["Location"] for _ in range(4)]
        assert looks.post(f"{paths[0]}/approve", json={}).status_code == 403
        rejected = decides.post(f"{paths[0]}/reject", json={"comment": "no"})
        assert rejected.json()["state"] == "rejected" and rejected.json()["approval"]["comment"] == "no"
        assert code(boss.post(f"{paths[0]}/approve", json={})) == "revocation_decided"
        assert asks.post(f"{paths[1]}/reject", json={}).json()["state"] == "rejected"  # taken back
        stack.query("UPDATE jitrca.bulk_revocation SET decide_until = now() - interval '1 second'"
                    " WHERE revocation_id = %s RETURNING 1", paths[2].rsplit("/", 1)[1])
        assert code(decides.post(f"{paths[2]}/approve", json={})) == "revocation_decided"
        wait_until(lambda: boss.get(paths[2]).json()["state"] == "expired", "the expiry", 10)
        assert boss.post("/v1/principals/asks/disable", json={}).status_code == 200
        assert code(decides.post(f"{paths[3]}/approve", json={})) == "requester_disabled"
        assert boss.post("/v1/principals/decides/disable", json={}).status_code == 200
        assert decides.post(f"{paths[3]}/approve", json={}).status_code == 401
        assert code(boss.post(f"/v1/revocations/{'0' * 32}/approve", json={})) == "revocation_unknown"
    assert stack.query("SELECT count(*) FROM jitrca.certificate WHERE device_id LIKE 'not-%%' AND status <> 'active'") \
        == [(0,)]
    assert boss.get("/v1/audit/verify").json()["ok"] is True


def test_a_listed_key_is_never_certified_until_it_is_taken_off(stack, boss):
    key, used = new_key(), new_key()
    (_, body), = [(used, boss.issue("list-used", used).json())]
    lines = [spki_sha256(key).upper(), "", "# weak", f"  {spki_sha256(used)}\r"] + \
        [hashlib.sha256(str(n).encode()).hexdigest() for n in range(12000)]

    def load(text, reason="weak keys", kind="text/plain"):
        return boss.request("POST", "/v1/blocked-keys", params={"reason": reason}, data=text, headers={"Content-Type": kind})

    broken = load("\n".join([lines[0], "xyz"]))
    assert broken.status_code == 400 and code(broken) == "blocked_key_malformed" and "line 2" in broken.json()["detail"]
    assert code(load("x" * 2000)) == "blocked_key_malformed"
    assert code(load(lines[0], kind="text/csv")) == "unsupported_media_type"
    assert code(load(lines[0], reason="a\nb")) == "query_malformed"
    assert code(load(lines[0], reason="a" * 257)) == "field_too_long"
    assert boss.get(f"/v1/blocked-keys/{spki_sha256(key)}").status_code == 404  # nothing of a broken list
    answer = load("\n".join(lines))
    assert answer.json() == {"keys": 12002, "added": 12002, "already": 0, "in_use": 1}, answer.text
    again = load("\n".join(lines))
    assert again.status_code == 200 and again.json()["already"] == 12002, again.text
    refused = boss.issue("list-new", key)
    assert refused.status_code == 403 and code(refused) == "public_key_blocked"
    with client.device(stack, used, body) as device:  # the certificate that is there lives on; its key is not certified again
        rotated = device.post("/v1/rotation", json={"csr": csr_pem(key)})
        assert rotated.status_code == 403 and code(rotated) == "public_key_blocked"
    page = boss.get("/v1/blocked-keys?limit=1000").json()
    assert len(page["blocked_keys"]) == 1000 and page["next_cursor"]
    shown = boss.get(f"/v1/blocked-keys/{spki_sha256(used)}").json()
    assert (shown["source"], shown["reason"], shown["identity"]) == ("list", "weak keys", "list-used")

    path = f"/v1/blocked-keys/{spki_sha256(key)}/remove"
    assert code(boss.post(path, json={})) == "field_missing"
    assert boss.post(path, json={"reason": "a mistake"}).status_code == 200
    assert code(boss.post(path, json={"reason": "again"})) == "blocked_key_unknown"
    assert boss.issue("list-new", key).status_code == 201
    # What is called compromised leaves the list, and stays.
    assert completed(boss, ask(boss, {"spki_sha256": spki_sha256(used)}, "keyCompromise"))["revoked"] == 1
    path = f"/v1/blocked-keys/{spki_sha256(used)}"
    assert boss.get(path).json()["source"] == "compromise"
    assert code(boss.post(f"{path}/remove", json={"reason": "please"})) == "key_compromised"
    assert code(boss.issue("list-used-2", used)) == "public_key_blocked"


def test_the_list_of_receipts_pages(boss):
    issue(boss, "page-1")
    for _ in range(3):
        assert ask(boss, {"device_id": "page-1"}).status_code == 202
    first = boss.get("/v1/revocations?limit=2").json()
    second = boss.get("/v1/revocations", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    times = [line["created_at"] for line in first["revocations"] + second["revocations"]]
    assert len(times) == 4 and times == sorted(times, reverse=True)
    assert len({line["revocation_id"] for line in first["revocations"] + second["revocations"]}) == 4
    assert boss.get("/v1/revocations?cursor=x").status_code == 400
