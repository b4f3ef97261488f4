"""CRLs at work: deltas beside a full list that goes by the clock, large lists out of files, the alarm."""
import hashlib
import re
import socket
import subprocess

import pytest
import requests
from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from harness import client
from harness.stack import Stack, wait_until

SEEDED = 20000  # entries: a list of a megabyte, in several pieces


@pytest.fixture(scope="module")
def large(cluster):
    """Whose full list is large: it goes by the clock, and deltas follow revocations."""
    with Stack(cluster, config={"crl_full_immediate_max": "64KiB"}) as stack:
        seed(stack)
        yield stack


def seed(stack):
    """What nobody issued, revoked long ago; and a full list with all of it, which deltas go on from."""
    issuer = stack.query("SELECT issuer_id FROM jitrca.issuer WHERE kind = 'issuing'")[0][0]
    execute(stack, "INSERT INTO jitrca.revocation (issuer_id, serial, reason, revoked_at, not_after)"
            " SELECT %s, set_byte(set_byte(set_byte(decode(md5(n::text), 'hex'), 0, 1 + n %% 127), 2,"
            " (2100 * 12) >> 8), 3, (2100 * 12) & 255), n %% 2, now(), '2100-01-15' FROM generate_series(1, %s) n",
            issuer, SEEDED)
    renew(stack)


def renew(stack):
    """A full list and a delta that goes on from it, as after a restore: no base is left."""
    before = number(full(stack))
    execute(stack, "DELETE FROM jitrca.crl_base")
    execute(stack, "UPDATE jitrca.crl_scope SET wanted = wanted + 1 WHERE scope = -2")
    wait_until(lambda: number(full(stack)) > before and base(delta(stack)) == number(full(stack)), "the lists")


def execute(stack, sql, *values):
    with stack.db() as connection:
        cursor = connection.cursor()
        cursor.execute("SET session_replication_role = replica")  # some of it no program does
        cursor.execute(sql, values)


def ca_of(stack):
    return stack.query("SELECT ca_id FROM jitrca.issuer WHERE kind = 'issuing'")[0][0]


def get(stack, name, **options):
    answer = requests.get(f"{stack.http_url}/crl/{ca_of(stack)}{name}", timeout=10, **options)
    assert answer.status_code == 200, answer.text
    return answer


def full(stack):
    return x509.load_der_x509_crl(get(stack, ".crl").content)


def delta(stack):
    return x509.load_der_x509_crl(get(stack, "/delta.crl").content)


def number(crl):
    return crl.extensions.get_extension_for_oid(ExtensionOID.CRL_NUMBER).value.crl_number


def base(crl):
    indicator = crl.extensions.get_extension_for_oid(ExtensionOID.DELTA_CRL_INDICATOR)
    assert indicator.critical
    return indicator.value.crl_number


def reason(crl, body):
    """None: not listed; "": without a reason."""
    entry = crl.get_revoked_certificate_by_serial_number(int(body["serial"], 16))
    if entry is None:
        return None
    try:
        return entry.extensions.get_extension_for_oid(x509.OID_CRL_REASON).value.reason.value
    except x509.ExtensionNotFound:
        return ""


def revoke(boss, body, why="keyCompromise"):
    answer = boss.post(f"/v1/certificates/{body['certificate_id']}/revoke", json={"reason": why})
    assert answer.status_code == 200, answer.text


def test_a_full_list_and_its_delta_have_one_number_and_say_the_same(large):
    """It was made while the one before it was small; that it had become large shows afterwards."""
    whole, changes = full(large), delta(large)
    assert number(whole) == number(changes) == base(changes) and len(changes) == 0
    freshest = whole.extensions.get_extension_for_oid(ExtensionOID.FRESHEST_CRL)
    assert not freshest.critical
    assert freshest.value[0].full_name[0].value == f"{large.http_url}/crl/{ca_of(large)}/delta.crl"
    # A certificate may name it as well; a device's is shorter without.
    with client.admin(large) as boss:
        server = boss.issue("freshest-1", profile="server", attributes={"dns": "a.example.com"}).json()
        device = boss.issue("freshest-2").json()
    named = x509.load_pem_x509_certificate(server["certificate"].encode()).extensions.get_extension_for_oid(
        ExtensionOID.FRESHEST_CRL)
    assert named.value == freshest.value and not named.critical
    assert "freshest" not in str(x509.load_pem_x509_certificate(device["certificate"].encode()).extensions).lower()
    for crl in (whole, changes):
        with pytest.raises(x509.ExtensionNotFound):
            crl.extensions.get_extension_for_oid(ExtensionOID.ISSUING_DISTRIBUTION_POINT)


def test_a_delta_follows_at_once_and_the_full_list_waits(large):
    was = number(full(large))
    with client.admin(large) as boss:
        lost, held = boss.issue("delta-1").json(), boss.issue("delta-2").json()
        revoke(boss, lost)
        revoke(boss, held, "certificateHold")
        wait_until(lambda: reason(delta(large), held) == "certificateHold", "the delta", 5)
        changes = delta(large)
        assert reason(changes, lost) == "keyCompromise" and len(changes) == 2
        assert number(changes) > was == base(changes) == number(full(large))
        boss.post(f"/v1/certificates/{held['certificate_id']}/unhold", json={})
        wait_until(lambda: reason(delta(large), held) == "removeFromCRL", "the lifted hold", 5)
        # A bulk's receipt does not wait for a list that goes by the clock.
        bulk = boss.post("/v1/revocations", json={"selector": {"device_id": "delta-2"}, "reason": "superseded",
                                                  "dry_run": False})
        assert bulk.status_code in (200, 201, 202), bulk.text
        path = f"/v1/revocations/{bulk.json()['revocation_id']}"
        wait_until(lambda: boss.get(path).json()["targets"]["crl"]["state"] == "done", "the receipt", 10)
        assert reason(delta(large), held) == "superseded"
    assert number(full(large)) == was
    # Its clock: all that changed is on it, and on a delta for who has the one before.
    execute(large, "UPDATE jitrca.crl_scope SET next_update = now() WHERE scope = -1")
    wait_until(lambda: was < number(full(large)) < number(delta(large)), "the full list")
    whole, changes = full(large), delta(large)
    assert reason(whole, lost) == "keyCompromise" and len(whole) == SEEDED + 2
    assert base(changes) == was and len(changes) == 2


def test_shards_and_deltas_do_not_wait_for_a_large_full_list(large):
    """The full list is held where it is stored, as if it took its time; it is published in the end."""
    was = number(full(large))
    with client.admin(large) as boss, large.db() as holding:
        holding.autocommit = False
        cursor = holding.cursor()
        # Its row, whatever its number: who inserts it too waits for our end.
        cursor.execute("INSERT INTO jitrca.crl (issuer_id, scope, number, this_update, next_update, entries, sha256, length)"
                       " SELECT issuer_id, scope, last_number + n, now(), now(), 0, '', 0 FROM jitrca.crl_scope,"
                       " generate_series(1, 50) n WHERE scope = -1")
        execute(large, "UPDATE jitrca.crl_scope SET next_update = now() WHERE scope = -1")
        wait_until(lambda: large.query("SELECT count(*) FROM pg_locks WHERE NOT granted")[0][0], "the full list being made")
        for n in range(3):
            body = boss.issue(f"beside-{n}").json()
            revoke(boss, body)
            wait_until(lambda b=body: reason(delta(large), b), "the delta", 5)
            shard = f"/{body['serial'][2:4]}.crl"
            wait_until(lambda b=body, s=shard: reason(x509.load_der_x509_crl(get(large, s).content), b), "the shard", 5)
        assert number(full(large)) == was and large.query("SELECT count(*) FROM pg_locks WHERE NOT granted")[0][0]
        holding.rollback()
    # Its number was reserved before theirs.
    beside = number(delta(large))
    wait_until(lambda: was < number(full(large)) < beside, "the full list")
    assert reason(full(large), body) and reason(delta(large), body)


def test_a_base_moves_on_with_the_second_list_after_it(large):
    renew(large)
    first = number(full(large))

    def next_full():
        was = number(full(large))
        execute(large, "UPDATE jitrca.crl_base SET this_update = this_update - interval '2 days'")
        execute(large, "UPDATE jitrca.crl_scope SET next_update = now() WHERE scope = -1")
        wait_until(lambda: number(full(large)) > was, "a full list")
        return number(full(large))

    with client.admin(large) as boss:
        one = boss.issue("base-1").json()
        revoke(boss, one)
        wait_until(lambda: reason(delta(large), one), "the delta", 5)
        second = next_full()
        assert base(delta(large)) == first and reason(delta(large), one)
        third = next_full()
        wait_until(lambda: base(delta(large)) == second < third and reason(delta(large), one) is None, "the base", 5)
        assert reason(full(large), one)
        assert large.query("SELECT count(*) FROM jitrca.crl_change")[0][0] == 0


def run(*command, check=True):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=60)
    assert not check or result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout + result.stderr


def test_openssl_and_certtool_follow_the_delta(large, tmp_path):
    (tmp_path / "root.crt").write_text((large.data / "keys" / "root.crt").read_text())
    with client.admin(large) as boss:
        revoked, lifted = boss.issue("tools-1").json(), boss.issue("tools-2").json()
        revoke(boss, lifted, "certificateHold")
        wait_until(lambda: reason(delta(large), lifted), "the hold", 5)
        renew(large)
        (tmp_path / "full.der").write_bytes(get(large, ".crl").content)
        revoke(boss, revoked)
        boss.post(f"/v1/certificates/{lifted['certificate_id']}/unhold", json={})
        wait_until(lambda: reason(delta(large), lifted) == "removeFromCRL" and reason(delta(large), revoked),
                   "the delta", 5)
    (tmp_path / "delta.der").write_bytes(get(large, "/delta.crl").content)
    shard = f"/{revoked['serial'][2:4]}.crl"
    wait_until(lambda: reason(x509.load_der_x509_crl(get(large, shard).content), revoked), "the shard", 5)
    (tmp_path / "shard.der").write_bytes(get(large, shard).content)
    (tmp_path / "chain.crt").write_text(revoked["chain"])
    for name in ("full", "delta", "shard"):
        said = run("openssl", "crl", "-inform", "DER", "-in", tmp_path / f"{name}.der", "-out", tmp_path / f"{name}.pem",
                   "-CAfile", tmp_path / "chain.crt")
        assert "verify OK" in said
        if name != "full":  # certtool takes time in the square of the entries; tests/unit/ca shows it a full list
            assert "error" not in run("certtool", "--crl-info", "--inder", "--infile",
                                      tmp_path / f"{name}.der").lower()
    text = run("openssl", "crl", "-inform", "DER", "-in", tmp_path / "delta.der", "-noout", "-text")
    assert "X509v3 Delta CRL Indicator: critical" in text and "Remove From CRL" in text
    (tmp_path / "both.pem").write_text((tmp_path / "full.pem").read_text() + (tmp_path / "delta.pem").read_text())
    for name, body, lists, flags, want in (
            ("revoked by the delta", revoked, "both", ("-use_deltas", "-extended_crl"), "certificate revoked"),
            ("lifted by the delta", lifted, "both", ("-use_deltas", "-extended_crl"), "OK"),
            ("not on the full list", revoked, "full", (), "OK"),
            ("on hold on the full list", lifted, "full", (), "certificate revoked"),
            ("on its shard", revoked, "shard", (), "certificate revoked")):
        (tmp_path / "leaf.crt").write_text(body["certificate"])
        said = run("openssl", "verify", "-crl_check", *flags, "-CAfile", tmp_path / "root.crt", "-untrusted",
                   tmp_path / "chain.crt", "-CRLfile", tmp_path / f"{lists}.pem", tmp_path / "leaf.crt", check=False)
        assert want in said, f"{name}: {said}"


def test_a_large_list_is_the_same_in_pieces_in_its_file_and_as_served(large):
    answer = get(large, ".crl")
    pieces = large.query("SELECT octets FROM jitrca.crl_piece WHERE scope = -1 AND number ="
                         " (SELECT max(number) FROM jitrca.crl WHERE scope = -1) ORDER BY piece")
    path = large.data / "crl" / ca_of(large) / "full.crl"
    assert len(pieces) > 3 and b"".join(bytes(row[0]) for row in pieces) == answer.content == path.read_bytes()
    assert answer.headers["ETag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    assert full(large).is_signature_valid(x509.load_der_x509_certificate(bytes(large.query(
        "SELECT certificate FROM jitrca.issuer WHERE kind = 'issuing'")[0][0])).public_key())
    url = f"{large.http_url}/crl/{ca_of(large)}.crl"
    head = requests.head(url, timeout=5)
    assert head.status_code == 200 and head.headers["Content-Length"] == str(len(answer.content))
    same = requests.get(url, headers={"If-None-Match": answer.headers["ETag"]}, timeout=5)
    assert same.status_code == 304 and same.content == b""
    # A download that broke goes on.
    size, etag = len(answer.content), answer.headers["ETag"]
    assert answer.headers["Accept-Ranges"] == "bytes"
    for asked, first, end in (("0-0", 0, 1), ("1000-", 1000, size), ("-17", size - 17, size), (f"5-{size + 9}", 5, size),
                              (f"{size - 1}-{size}", size - 1, size)):
        part = requests.get(url, headers={"Range": f"bytes={asked}", "If-Range": etag}, timeout=5)
        assert part.status_code == 206 and part.content == answer.content[first:end], asked
        assert part.headers["Content-Range"] == f"bytes {first}-{end - 1}/{size}"
        assert part.headers["Content-Length"] == str(end - first)
    for headers in ({"Range": "bytes=1-2,4-5"}, {"Range": f"bytes={size}-"}, {"Range": "bytes=2-1"}, {"Range": "bytes=-0"},
                    {"Range": "bytes=x"}, {"Range": "lines=1-2"}, {"Range": "bytes=1-1x"}, {"Range": "bytes=" + "9" * 30 + "-"},
                    {"Range": "bytes=1-2", "If-Range": '"another"'}):
        whole = requests.get(url, headers=headers, timeout=5)
        assert whole.status_code == 200 and whole.content == answer.content, headers
    again = requests.get(url, headers={"Range": "bytes=1-2", "If-None-Match": etag}, timeout=5)
    assert again.status_code == 304
    # A server without the file has it from the database.
    large.stop()
    path.write_bytes(b"\x30\x03spoilt")
    large.start()
    wait_until(lambda: requests.get(url, timeout=5).content == answer.content, "the list out of the database")
    assert path.read_bytes() == answer.content
    assert not [name for name in path.parent.iterdir() if name.name.startswith(".pile-")]


def test_who_is_reading_a_list_gets_all_of_it_though_it_is_replaced(large):
    before = get(large, ".crl").content
    with socket.create_connection(("127.0.0.1", large.ports["http"]), timeout=10) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # a segment of loopback must fit
        slow.sendall(f"GET /crl/{ca_of(large)}.crl HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        got = slow.recv(1000)
        renew(large)
        while True:
            more = slow.recv(65536)
            if not more:
                break
            got += more
    assert got.split(b"\r\n\r\n", 1)[1] == before != get(large, ".crl").content


def test_invariant_6_a_delta_that_lost_an_entry_raises_the_alarm(large):
    renew(large)
    was = number(full(large))
    with client.admin(large) as boss:
        lost, other = boss.issue("alarm-1").json(), boss.issue("alarm-2").json()
        revoke(boss, lost)
        wait_until(lambda: reason(delta(large), lost), "the delta", 5)
        execute(large, "DELETE FROM jitrca.crl_change WHERE serial = %s", bytes.fromhex(lost["serial"]))
        revoke(boss, other)
        alarms = wait_until(lambda: boss.get("/v1/events", params={"kind": "crl_refused"}).json()["events"],
                            "the event", 10)
        assert len(alarms) == 1 and alarms[0]["severity"] == "critical"
        assert alarms[0]["detail"] == {"ca": ca_of(large), "code": "crl_lost_entry", "scope": -2}
        # The full list has it all; deltas go on from there, and no older list takes one that does not say it.
        wait_until(lambda: was < number(full(large)) == base(delta(large)), "a full list")
        assert reason(full(large), lost) and reason(full(large), other)


def held_back(stack):
    text = requests.get(f"{stack.http_url}/metrics", timeout=5).text
    return int(re.search(r"^\w*crl_held_back (\d+)$", text, re.MULTILINE).group(1))


def waited(stack, scope):
    return [event["again_ms"] for event in stack.events() if event["event"] == "crl_held_back" and event["scope"] == scope]


def test_invariant_6_a_full_list_that_lost_an_entry_of_the_delta_waits(large):
    with client.admin(large) as boss:
        lost, other = boss.issue("alarm-3").json(), boss.issue("alarm-4").json()
        revoke(boss, lost)
        wait_until(lambda: reason(delta(large), lost), "the delta", 5)
        was, before = number(full(large)), large.query("SELECT * FROM jitrca.revocation WHERE serial = %s",
                                                       bytes.fromhex(lost["serial"]))[0]
        execute(large, "DELETE FROM jitrca.revocation WHERE serial = %s", bytes.fromhex(lost["serial"]))
        execute(large, "UPDATE jitrca.crl_scope SET next_update = now() WHERE scope = -1")
        wait_until(lambda: [e for e in boss.get("/v1/events", params={"kind": "crl_refused"}).json()["events"]
                            if e["detail"]["scope"] == -1], "the event", 10)
        # A delta would say that it is revoked no more, which only a hold may become.
        revoke(boss, other)
        # It is tried again after longer and longer, which shows.
        waits = wait_until(lambda: waited(large, -2) and len(waited(large, -1)) > 1 and waited(large, -1), "another try", 10)
        assert waits == [1000 << n for n in range(len(waits))] and len(waits) < 5 and held_back(large) == 2
        assert number(full(large)) == was and reason(delta(large), lost) == "keyCompromise"
        execute(large, "INSERT INTO jitrca.revocation (issuer_id, serial, reason, revoked_at, not_after)"
                " VALUES (%s, %s, %s, %s, %s)", *before)
        wait_until(lambda: number(full(large)) > was, "the full list")
        assert reason(full(large), lost) and reason(full(large), other)
        wait_until(lambda: held_back(large) == 0, "the delta", 10)


def test_a_broker_gets_just_what_is_revoked_of_its_devices(large):
    def bundle(**query):
        answer = boss.get("/v1/crl-bundle", params=query)
        assert answer.status_code == 200, answer.text
        assert answer.json()["count"] == len(answer.json()["certificates"])
        return {item["certificate_id"]: item for item in answer.json()["certificates"]}, answer

    with client.admin(large) as boss:
        good, gone, held = (boss.issue(f"bundle-{n}").json() for n in range(3))
        server = boss.issue("bundle-server", profile="server", attributes={"dns": "broker.example.com"}).json()
        before = bundle(profile="device")[1]
        revoke(boss, gone)
        revoke(boss, held, "certificateHold")
        revoke(boss, server)
        found, answer = bundle(profile="device")
        assert good["certificate_id"] not in found and server["certificate_id"] not in found
        assert found[gone["certificate_id"]] == {
            "certificate_id": gone["certificate_id"], "serial": gone["serial"], "ca": gone["ca"], "device_id": "bundle-1",
            "status": "revoked", "reason": "keyCompromise", "not_after": gone["not_after"],
            "revoked_at": boss.get(f"/v1/certificates/{gone['certificate_id']}").json()["revoked_at"]}
        assert found[held["certificate_id"]]["status"] == "held"
        assert set(bundle(profile="server")[0]) == {server["certificate_id"]}
        # Who asks again and again is told that nothing changed, until something does.
        assert before.headers["ETag"] != answer.headers["ETag"]
        wait_until(lambda: reason(delta(large), server), "the lists", 5)
        tag = bundle(profile="device")[1].headers["ETag"]
        again = boss.get("/v1/crl-bundle", params={"profile": "device"}, headers={"If-None-Match": tag})
        assert again.status_code == 304 and again.content == b""
        assert boss.get("/v1/crl-bundle", params={"profile": "server"}, headers={"If-None-Match": tag}).status_code == 200
        boss.post(f"/v1/certificates/{held['certificate_id']}/unhold", json={})
        again = boss.get("/v1/crl-bundle", params={"profile": "device"}, headers={"If-None-Match": tag})
        assert again.status_code == 200 and held["certificate_id"] not in again.text
        lines = boss.get("/v1/crl-bundle", params={"profile": "device"}, headers={"Accept": "text/plain"})
        assert lines.headers["Content-Type"].startswith("text/plain")
        assert sorted(lines.text.split()) == sorted(bundle(profile="device")[0])
