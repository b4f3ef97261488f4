"""OCSP: what is said of whom, to whom it is not said, and how long it is believed."""
import base64
import contextlib
import datetime
import os
import re
import signal
import threading
import time

import psycopg2
import pytest
import requests
from cryptography import x509

from harness import client, ocsp
from harness.client import new_key
from harness.ocsp import CERT, STATUS
from harness.stack import Stack, wait_until

OTHER = "1.3.6.1.4.1.99999.1"


def revoke(boss, body, reason="keyCompromise"):
    answer = boss.post(f"/v1/certificates/{body['certificate_id']}/revoke", json={"reason": reason, "comment": "test"})
    assert answer.status_code == 200, answer.text


def metric(stack, name):
    text = requests.get(f"{stack.http_url}/metrics", timeout=10).text
    found = re.search(rf"^jitrca_{re.escape(name)} (\S+)$", text, re.M)
    return float(found.group(1)) if found else 0.0


@pytest.fixture(scope="module")
def issued(stack):
    """Certificates that stay as they are, by what becomes of them."""
    with client.admin(stack) as boss:
        made = {name: boss.issue(f"ocsp-{name}").json() for name in ("good", "revoked", "held", "other")}
        revoke(boss, made["revoked"])
        revoke(boss, made["held"], "certificateHold")
    return made


def test_certificates_name_the_responder(stack, issued):
    leaf, _ = ocsp.parts(issued["good"])
    access = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert [(each.access_method, each.access_location.value) for each in access] == [
        (x509.oid.AuthorityInformationAccessOID.OCSP, f"{stack.http_url}/ocsp"),
        (x509.oid.AuthorityInformationAccessOID.CA_ISSUERS, f"{stack.http_url}/v1/cas/issuing-1/certificate")]


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha384", "sha512"])
@pytest.mark.parametrize("name, status, reason", [
    ("good", CERT.GOOD, None), ("revoked", CERT.REVOKED, x509.ReasonFlags.key_compromise),
    ("held", CERT.REVOKED, x509.ReasonFlags.certificate_hold)])
def test_statuses(stack, issued, name, status, reason, algorithm):
    response = ocsp.ask(stack, issued[name], algorithm)
    assert (response.certificate_status, response.revocation_reason) == (status, reason)
    assert response.serial_number == int(issued[name]["serial"], 16)
    now = datetime.datetime.utcnow()
    assert response.this_update <= now < response.next_update <= now + datetime.timedelta(hours=1, seconds=1)
    if reason:
        said = datetime.datetime.fromisoformat(issued[name]["not_before"].replace("Z", ""))
        assert said <= response.revocation_time <= now


def test_invariant_7_good_is_only_what_was_issued(stack, issued):
    """A serial of our form that we never gave out, and forms that we never give out."""
    leaf, issuer = ocsp.parts(issued["good"])
    twin = leaf.serial_number ^ 1
    for serial in (twin, 1, 0, 1 << 159, leaf.serial_number << 8, leaf.serial_number | 0x80 << 120):
        answer = ocsp.post(stack.http_url, ocsp.request(ocsp.cert_id(issuer, serial)))
        assert ocsp.verified(answer, issuer).certificate_status == CERT.UNKNOWN, hex(serial)
        answer = ocsp.get(stack.http_url, ocsp.request(ocsp.cert_id(issuer, serial)))
        assert "max-age" not in answer.headers["Cache-Control"]


def test_invariant_7_what_was_never_released_is_revoked(stack, issued):
    """An orphaned intent has a revocation and no certificate."""
    leaf, issuer = ocsp.parts(issued["good"])
    orphan = leaf.serial_number ^ 3
    serial = orphan.to_bytes(16, "big")
    with stack.db() as connection:
        connection.cursor().execute(
            "INSERT INTO jitrca.revocation (issuer_id, serial, reason, revoked_at, not_after)"
            " SELECT issuer_id, %s, 0, now(), now() + interval '1 day' FROM jitrca.issuer WHERE ca_id = 'issuing-1'",
            (serial,))
    response = ocsp.verified(ocsp.post(stack.http_url, ocsp.request(ocsp.cert_id(issuer, orphan))), issuer)
    assert response.certificate_status == CERT.REVOKED and response.revocation_reason is None


@pytest.mark.parametrize("length", [1, 16, 32, 128])
def test_nonces_come_back(stack, issued, length):
    nonce = os.urandom(length)
    signed = metric(stack, "ocsp_signed_total")
    for _ in range(2):  # each is signed for whoever asks
        response = ocsp.ask(stack, issued["good"], nonce=nonce)
        got = response.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
        assert got in (nonce, ocsp.octets(nonce))
    assert metric(stack, "ocsp_signed_total") == signed + 2


def mixed(issued):
    """CertIDs of ours and of a CA that nobody knows."""
    good, issuer = ocsp.parts(issued["good"])
    foreign = ocsp.sequence(ocsp.sequence(ocsp.oid(ocsp.HASHES["sha1"])), ocsp.octets(b"n" * 20),
                            ocsp.octets(b"k" * 20), ocsp.integer(5))
    return foreign, ocsp.cert_id(issuer, good.serial_number), \
        ocsp.cert_id(issuer, int(issued["revoked"]["serial"], 16), "sha256", null=False)


def test_several_in_one_request(stack, issued):
    foreign, good, revoked = mixed(issued)
    nonce = os.urandom(32)
    answer = ocsp.post(stack.http_url, ocsp.request(foreign, good, revoked, extensions=[ocsp.nonce_extension(nonce)]))
    assert ocsp.load(answer).response_status == STATUS.SUCCESSFUL
    at = [answer.content.index(each) + len(each) for each in (foreign, good, revoked)]
    assert [answer.content[where] for where in at] == [0x82, 0x80, 0xa1]  # unknown, good, revoked
    assert nonce in answer.content


def test_the_form_of_the_algorithm_comes_back(stack, issued):
    leaf, issuer = ocsp.parts(issued["good"])
    for null in (True, False):
        asked = ocsp.cert_id(issuer, leaf.serial_number, null=null)
        assert asked in ocsp.post(stack.http_url, ocsp.request(asked)).content
        assert asked in ocsp.get(stack.http_url, ocsp.request(asked)).content


def wrong_requests(issued):
    leaf, issuer = ocsp.parts(issued["good"])
    one = ocsp.cert_id(issuer, leaf.serial_number)
    foreign = mixed(issued)[0]
    nonce = ocsp.nonce_extension
    good = ocsp.request(one)
    yield "nothing", b"", STATUS.MALFORMED_REQUEST
    yield "garbage", b"GET / HTTP/1.1\r\n\r\n", STATUS.MALFORMED_REQUEST
    yield "cut", good[:-1], STATUS.MALFORMED_REQUEST
    yield "more behind", good + b"\0", STATUS.MALFORMED_REQUEST
    yield "indefinite length", b"\x30\x80" + good[2:] + b"\0\0", STATUS.MALFORMED_REQUEST
    yield "no CertID", ocsp.request(), STATUS.MALFORMED_REQUEST
    yield "version 2", ocsp.request(one, version=ocsp.der(0xa0, ocsp.integer(1))), STATUS.MALFORMED_REQUEST
    yield "version 1 in writing", ocsp.request(one, version=ocsp.der(0xa0, ocsp.integer(0))), STATUS.SUCCESSFUL
    yield "64 CertIDs", ocsp.request(*[one] * 64), STATUS.SUCCESSFUL
    yield "65 CertIDs", ocsp.request(*[one] * 65), STATUS.MALFORMED_REQUEST
    yield "500 CertIDs", ocsp.request(*[one] * 500), STATUS.MALFORMED_REQUEST
    yield "empty nonce", ocsp.request(one, extensions=[nonce(b"")]), STATUS.MALFORMED_REQUEST
    yield "nonce of 129", ocsp.request(one, extensions=[nonce(b"n" * 129)]), STATUS.MALFORMED_REQUEST
    yield "nonce of 40000", ocsp.request(one, extensions=[nonce(b"n" * 40000)]), STATUS.MALFORMED_REQUEST
    yield "two nonces", ocsp.request(one, extensions=[nonce(b"1"), nonce(b"2")]), STATUS.MALFORMED_REQUEST
    yield "bare nonce", ocsp.request(one, extensions=[ocsp.extension(ocsp.NONCE, b"raw")]), STATUS.MALFORMED_REQUEST
    yield "unknown", ocsp.request(one, extensions=[ocsp.extension(OTHER, b"x")]), STATUS.SUCCESSFUL
    yield "unknown critical", ocsp.request(one, extensions=[ocsp.extension(OTHER, b"x", True)]), \
        STATUS.MALFORMED_REQUEST
    yield "unknown critical for one", ocsp.request(one, single=[ocsp.extension(OTHER, b"x", True)]), \
        STATUS.MALFORMED_REQUEST
    yield "17 extensions", ocsp.request(one, extensions=[ocsp.extension(OTHER, b"x")] * 17), STATUS.MALFORMED_REQUEST
    yield "signed", ocsp.request(one, name=ocsp.der(0xa1, ocsp.der(0x82, b"me")), signature=ocsp.der(
        0xa0, ocsp.sequence(ocsp.sequence(ocsp.oid("1.2.840.10045.4.3.2")), ocsp.der(0x03, b"\0none")))), \
        STATUS.SUCCESSFUL
    yield "long serial", ocsp.request(ocsp.cert_id(issuer, 1 << 3000)), STATUS.MALFORMED_REQUEST
    yield "another CA", ocsp.request(foreign), STATUS.UNAUTHORIZED
    yield "MD5", ocsp.request(ocsp.sequence(ocsp.sequence(ocsp.oid(ocsp.HASHES["md5"])), ocsp.octets(b"n" * 16),
                                            ocsp.octets(b"k" * 16), ocsp.integer(5))), STATUS.UNAUTHORIZED


def test_wrong_requests_get_their_error(stack, issued):
    for what, data, status in wrong_requests(issued):
        response = ocsp.load(ocsp.post(stack.http_url, data))
        assert response.response_status == status, what
        if data and len(data) < 1000:
            assert ocsp.load(ocsp.get(stack.http_url, data)).response_status == status, f"{what}, by GET"


@pytest.mark.parametrize("method, path, headers, data, status", [
    ("POST", "/ocsp", {"Content-Type": "application/json"}, b"{}", 415),
    ("POST", "/ocsp", {}, b"x", 415),
    ("POST", "/ocsp", {"Content-Type": "application/ocsp-request"}, b"0" * 65537, 413),
    ("GET", "/ocsp", {}, None, 405),
    ("PUT", "/ocsp", {"Content-Type": "application/ocsp-request"}, b"x", 405),
    ("GET", "/ocsp/" + "A" * 3000, {}, None, 414),
    ("GET", "/ocsp/%00", {}, None, 400),
])
def test_what_http_refuses(stack, method, path, headers, data, status):
    answer = requests.request(method, stack.http_url + path, headers=headers, data=data, timeout=10)
    assert answer.status_code == status


@pytest.mark.parametrize("text", ["A", "!!!!", "====", "MA", "%E2%82%AC"])
def test_what_is_no_base64_is_malformed(stack, text):
    response = ocsp.load(requests.get(f"{stack.http_url}/ocsp/{text}", timeout=10))
    assert response.response_status == STATUS.MALFORMED_REQUEST


def test_get_takes_every_way_to_write_base64(stack, issued):
    """Slashes stand in it, plus signs, and padding; some clients quote them and some do not."""
    leaf, issuer = ocsp.parts(issued["good"])
    data = ocsp.request(ocsp.cert_id(issuer, leaf.serial_number), extensions=[
        ocsp.extension(OTHER, b"\xff\xef\xff\xbf\xfb\xfc\xff\xff")])
    text = base64.b64encode(data).decode()
    assert "/" in text and "+" in text
    for written in (text, text.replace("/", "%2F").replace("+", "%2B").replace("=", "%3D"), text.rstrip("="),
                    text.replace("/", "_").replace("+", "-"), text.replace("+", "%20")):
        response = ocsp.verified(requests.get(f"{stack.http_url}/ocsp/{written}", timeout=10), issuer)
        assert response.certificate_status == CERT.GOOD, written


def test_what_caches_are_told(stack, issued):
    data = ocsp.request_of(issued["other"])
    first = ocsp.get(stack.http_url, data)
    response = ocsp.verified(first, ocsp.parts(issued["other"])[1])
    control = first.headers["Cache-Control"]
    assert all(word in control for word in ("public", "no-transform", "must-revalidate"))
    age = int(re.search(r"max-age=(\d+)", control).group(1))
    left = (response.next_update - datetime.datetime.utcnow()).total_seconds()
    assert left - 5 < age < left + 1
    form = "%a, %d %b %Y %H:%M:%S GMT"
    assert datetime.datetime.strptime(first.headers["Last-Modified"], form) == response.this_update
    assert datetime.datetime.strptime(first.headers["Expires"], form) == response.next_update
    again = ocsp.get(stack.http_url, data, {"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304 and not again.content and again.headers["ETag"] == first.headers["ETag"]
    again = ocsp.get(stack.http_url, data, {"If-Modified-Since": first.headers["Last-Modified"]})
    assert again.status_code == 304
    again = ocsp.get(stack.http_url, data, {"If-None-Match": '"another"'})
    assert again.status_code == 200 and again.content == first.content
    assert requests.head(again.url, timeout=10).headers["Content-Length"] == str(len(first.content))
    assert ocsp.post(stack.http_url, data).headers["Cache-Control"] == "no-store"


def test_what_was_asked_is_remembered_until_it_changes(stack):
    with client.admin(stack) as boss:
        body = boss.issue("ocsp-changes").json()
        hits = metric(stack, "ocsp_cache_hits_total")
        assert ocsp.status_of(stack, body) == CERT.GOOD
        first = ocsp.post(stack.http_url, ocsp.request_of(body, "sha256")).content
        assert ocsp.post(stack.http_url, ocsp.request_of(body, "sha256")).content == first
        assert metric(stack, "ocsp_cache_hits_total") == hits + 1
        changes = [("revoke", {"reason": "certificateHold", "comment": "x"}, CERT.REVOKED),
                   ("unhold", {}, CERT.GOOD),
                   ("revoke", {"reason": "superseded", "comment": "x"}, CERT.REVOKED)]
        for act, fields, status in changes:
            for algorithm in ("sha1", "sha256"):
                ocsp.ask(stack, body, algorithm)  # in memory by both names
            answer = boss.post(f"/v1/certificates/{body['certificate_id']}/{act}", json=fields)
            done = time.monotonic()
            assert answer.status_code == 200, answer.text
            for algorithm in ("sha1", "sha256"):
                wait_until(lambda a=algorithm: ocsp.ask(stack, body, a).certificate_status == status, act, 5)
            assert time.monotonic() - done < 2  # a loose bound: the bench measures it


def test_superseded_is_good_and_its_successor_too(stack):
    with client.admin(stack) as boss:
        key, fresh = new_key(), new_key()
        body = boss.issue("ocsp-rotates", key=key).json()
    with client.device(stack, key, body) as old:
        answer = old.post("/v1/rotation", json={"csr": client.csr_pem(fresh)})
        successor = answer.json()["certificate"] if "certificate_id" not in answer.json() else answer.json()
    assert ocsp.status_of(stack, successor) == CERT.GOOD  # pending confirmation
    with client.device(stack, fresh, successor) as new:
        assert new.post("/v1/rotation/confirm").status_code == 200
    assert ocsp.status_of(stack, body) == CERT.GOOD
    assert ocsp.status_of(stack, successor) == CERT.GOOD


def test_the_responder_is_on_record_and_nobody_else_can_be_one(stack, issued):
    response = ocsp.ask(stack, issued["good"])
    responder = response.certificates[0]
    with client.admin(stack) as boss:
        found = boss.get(f"/v1/certificates/{responder.serial_number:032x}").json()
        assert (found["profile"], found["status"], found["device_id"]) == ("ocsp", "active", "jitrca-ocsp")
        refused = boss.issue("jitrca-ocsp", profile="ocsp")
        assert refused.status_code in (400, 403), refused.text
    assert ocsp.ask(stack, found).certificate_status == CERT.GOOD  # it may be asked about as any other


def test_a_revoked_responder_is_replaced(stack, issued):
    first = ocsp.ask(stack, issued["good"], nonce=b"1").certificates[0]
    with client.admin(stack) as boss:
        body = boss.get(f"/v1/certificates/{first.serial_number:032x}").json()
        revoke(boss, body)

    def replaced():
        return ocsp.ask(stack, issued["good"], nonce=b"2").certificates[0] != first
    wait_until(replaced, "another responder", 5)
    assert ocsp.status_of(stack, body) == CERT.REVOKED


def test_a_new_signer_has_a_new_key(stack, issued):
    first = ocsp.ask(stack, issued["good"], nonce=b"1").certificates[0]
    os.kill(stack.pids()["signer"], signal.SIGKILL)

    def answered():
        response = ocsp.load(ocsp.post(stack.http_url, ocsp.request_of(issued["good"], nonce=b"2")))
        assert response.response_status in (STATUS.SUCCESSFUL, STATUS.TRY_LATER)
        return response.response_status == STATUS.SUCCESSFUL
    wait_until(answered, "a new responder")
    second = ocsp.ask(stack, issued["good"], nonce=b"3").certificates[0]
    assert second.public_key().public_numbers() != first.public_key().public_numbers()


def test_many_at_once_share_rounds(stack, issued):
    rounds, signed = metric(stack, "ocsp_rounds_total"), metric(stack, "ocsp_signed_total")
    wrong = []

    def worker(number):
        with requests.Session() as session:
            for turn in range(10):
                data = ocsp.request_of(issued["good"], nonce=f"{number}-{turn}".encode())
                answer = session.post(stack.http_url + "/ocsp", data=data,
                                      headers={"Content-Type": "application/ocsp-request"}, timeout=30)
                if ocsp.load(answer).response_status != STATUS.SUCCESSFUL or f"{number}-{turn}".encode() not in answer.content:
                    wrong.append((number, turn))
    threads = [threading.Thread(target=worker, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert metric(stack, "ocsp_signed_total") == signed + 160
    assert metric(stack, "ocsp_rounds_total") - rounds < 160


def test_memory_is_bounded(cluster):
    with Stack(cluster, config={"ocsp_cache": "64KiB"}) as stack, client.admin(stack) as boss:
        items = [{"csr": client.csr_pem(new_key()), "device_id": f"many-{i}"} for i in range(60)]
        answer = boss.post("/v1/certificates/batch", json={"requests": items})
        bodies = [each["certificate"] for each in answer.json()["results"]]
        with requests.Session() as session:
            for body in bodies:
                for algorithm in ("sha1", "sha256", "sha512"):
                    session.post(stack.http_url + "/ocsp", data=ocsp.request_of(body, algorithm),
                                 headers={"Content-Type": "application/ocsp-request"}, timeout=30)
        assert metric(stack, "ocsp_signed_total") == 180
        assert 0 < metric(stack, "ocsp_cache_bytes") <= 64 << 10
        assert metric(stack, "ocsp_cache_evicted_total") > 0
        assert metric(stack, "ocsp_cache_entries") + metric(stack, "ocsp_cache_evicted_total") == 180


def test_two_servers_hear_of_each_other(cluster):
    """Each has a responder of its own; a revocation at one is seen by the other."""
    with Stack(cluster) as one, Stack(cluster, share=one) as two, client.admin(one) as boss:
        body = boss.issue("ocsp-two").json()
        there = f"http://127.0.0.1:{two.ports['http']}"
        issuer = ocsp.parts(body)[1]
        here = ocsp.ask(one, body).certificates[0]
        answer = ocsp.verified(ocsp.post(there, ocsp.request_of(body)), issuer)
        assert answer.certificate_status == CERT.GOOD and answer.certificates[0] != here
        revoke(boss, body)
        done = time.monotonic()
        wait_until(lambda: ocsp.verified(ocsp.post(there, ocsp.request_of(body)), issuer).certificate_status ==
                   CERT.REVOKED, "the other server", 5)
        assert time.monotonic() - done < 2


def test_while_the_database_is_away_nothing_is_good(cluster):
    """What is remembered is not believed once the link is gone: tryLater, and good again when it is back."""
    with Stack(cluster) as stack, client.admin(stack) as boss:
        body = boss.issue("ocsp-away").json()
        assert ocsp.status_of(stack, body) == CERT.GOOD

        def ask():
            return ocsp.load(ocsp.post(stack.http_url, ocsp.request_of(body))).response_status
        with contextlib.closing(psycopg2.connect(cluster.url("postgres"))) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(f'ALTER DATABASE "{stack.database}" ALLOW_CONNECTIONS false')
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                           (stack.database,))
            try:
                wait_until(lambda: ask() == STATUS.TRY_LATER, "tryLater", 10)
                assert ask() == STATUS.TRY_LATER
            finally:
                cursor.execute(f'ALTER DATABASE "{stack.database}" ALLOW_CONNECTIONS true')
        wait_until(lambda: ask() == STATUS.SUCCESSFUL, "the database again")
        assert ocsp.status_of(stack, body) == CERT.GOOD


def test_a_server_that_hears_nothing_reads_the_row(cluster):
    """Its session stands still, so no notification comes: within a second it stops believing what it remembers."""
    with Stack(cluster) as stack, client.admin(stack) as boss:
        body = boss.issue("ocsp-deaf").json()
        assert ocsp.status_of(stack, body) == CERT.GOOD
        session, = stack.query("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 1784 AND granted"
                               " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")[0]
        os.kill(session, signal.SIGSTOP)
        try:
            revoke(boss, body)
            done = time.monotonic()
            wait_until(lambda: ocsp.status_of(stack, body) == CERT.REVOKED, "the row", 5)
            assert time.monotonic() - done < 3  # a loose bound: the design says one second
        finally:
            os.kill(session, signal.SIGCONT)
        assert ocsp.status_of(stack, body) == CERT.REVOKED


def test_a_responder_is_renewed_before_it_ends(cluster):
    short = {"ocsp": {"validity": {"default": "8s", "max": "8s", "backdate": "0s"},
                      "renewal": {"before": "2s", "overlap": "1s"}}}
    with Stack(cluster, profiles=short) as stack, client.admin(stack) as boss:
        body = boss.issue("ocsp-short").json()
        first = ocsp.ask(stack, body)
        ends = first.certificates[0].not_valid_after
        assert first.next_update == ends  # sooner than ocsp_validity

        def renewed():
            return ocsp.ask(stack, body, nonce=b"n").certificates[0] != first.certificates[0]
        wait_until(renewed, "another certificate", 10, pause_s=0.2)
        assert datetime.datetime.utcnow() < ends
        second = ocsp.ask(stack, body, nonce=b"n").certificates[0]
        assert second.public_key().public_numbers() != first.certificates[0].public_key().public_numbers()
