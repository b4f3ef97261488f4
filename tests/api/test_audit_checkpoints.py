"""Signed checkpoints of the audit log, its export verified offline, and proofs, each by our program and by tests/harness/audit.py."""
import copy
import json
import pathlib
import re
import subprocess

import pytest

from harness import audit, client
from harness.stack import Stack, wait_until


@pytest.fixture(scope="module")
def stack(cluster, tmp_path_factory):
    shipped = tmp_path_factory.mktemp("shipped")
    shipped.chmod(0o777)
    with Stack(cluster, config={"audit_checkpoint_interval": "7d", "audit_checkpoint_dir": shipped}) as it:
        it.shipped = shipped
        yield it


@pytest.fixture(scope="module")
def kept(stack, tmp_path_factory):
    """What an auditor keeps: the key, checkpoints, an export, and what there is to prove."""
    folder = tmp_path_factory.mktemp("kept")
    with client.admin(stack) as boss:
        # Housekeeping takes the first one by itself.
        wait_until(lambda: boss.get("/v1/audit/checkpoints").json()["checkpoints"], "a checkpoint")
        bodies = [boss.issue(f"proved-{i}").json() for i in range(5)]
        assert boss.post("/v1/audit/checkpoints").status_code == 201
        bodies.append(boss.issue("proved-5").json())
        boss.post(f"/v1/certificates/{bodies[0]['certificate_id']}/revoke", json={"reason": "superseded"})
        second = boss.post("/v1/audit/checkpoints")
        assert second.status_code == 201 and second.json()["number"] > 2
        again = boss.post("/v1/audit/checkpoints")
        assert again.status_code == 200 and again.json() == second.json()
    for name, verb in (("key.pem", "key"), ("notes", "notes"), ("export", "export")):
        jitrca(stack, "audit", verb, "--out", folder / name)
    return {"dir": folder, "bodies": bodies, "key": audit.load_key((folder / "key.pem").read_bytes()),
            "lines": (folder / "export").read_text().splitlines()}


def refused(answer, status):
    assert answer.status_code == status, answer.text
    return answer.json()["code"]


def jitrca(stack, *args, want=0):
    env = {**stack.env, "JITRCA_URL": stack.url, "JITRCA_CA_BUNDLE": stack.ca_bundle,
           "JITRCA_ADMIN_TOKEN": stack.admin_token}
    done = subprocess.run([str(stack.binary), *map(str, args)], env=env, capture_output=True, text=True, timeout=120,
                          check=False)
    assert done.returncode == want, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def verify(stack, kept, lines=None, notes=None, key=None, want=0, more=()):
    folder = kept["dir"]
    if lines is not None:
        (folder / "changed").write_text("".join(line + "\n" for line in lines))
    if notes is not None:
        (folder / "changed.notes").write_text(notes)
    return jitrca(stack, "audit", "verify", "--offline", folder / ("export" if lines is None else "changed"), "--key",
                  key or folder / "key.pem", *more, folder / ("notes" if notes is None else "changed.notes"), want=want)


def test_checkpoints_and_export_hold_by_two_implementations(stack, kept):
    notes = audit.read_notes((kept["dir"] / "notes").read_text(), kept["key"])
    assert len(notes) == 3 and audit.verify_export(kept["lines"], notes) == len(kept["lines"]) - 1
    done = verify(stack, kept)
    assert done.stdout.startswith(f"holds: {len(kept['lines']) - 1} records") and "3 checkpoints" in done.stdout
    # openssl reads the key as it is, and verifies the text of a note.
    shown = subprocess.run(["openssl", "pkey", "-pubin", "-in", kept["dir"] / "key.pem", "-noout", "-text"],
                           capture_output=True, text=True, check=True)
    assert "ED25519" in shown.stdout


def test_checkpoints_page_and_are_shipped(stack, kept):
    with client.admin(stack) as boss:
        first = boss.get("/v1/audit/checkpoints?limit=2").json()
        rest = boss.get(f"/v1/audit/checkpoints?limit=2&cursor={first['next_cursor']}").json()
        assert rest["next_cursor"] is None
        notes = first["checkpoints"] + rest["checkpoints"]
        assert boss.get("/v1/audit/checkpoints?cursor=x").status_code == 400
        with client.Client(stack.url, stack.ca_bundle) as nobody:
            assert nobody.get("/v1/audit/key").text == (kept["dir"] / "key.pem").read_text()
            assert nobody.get("/v1/audit/export").status_code == 401
    assert "".join(note["note"] for note in notes) == (kept["dir"] / "notes").read_text()
    names = [f"{note['number']:012}.checkpoint" for note in notes]
    wait_until(lambda: sorted(path.name for path in stack.shipped.iterdir()) == names, "the shipped files")
    jitrca(stack, "audit", "verify", "--offline", kept["dir"] / "export", "--key", kept["dir"] / "key.pem", stack.shipped)


def rewritten(lines, at):
    """The chain from one record on, written anew by somebody who knows how: only a checkpoint tells."""
    records = [json.loads(line) for line in lines[:-1]]
    lane = records[at]["lane"]
    records[at]["body"] = records[at]["body"].replace('"actor":"', '"actor":"x')
    before = bytes(32)
    for record in records:
        if record["lane"] == lane:
            before = audit.blake(before, record["body"].encode())
            record["hash"] = before.hex()
    return [*(json.dumps(record) for record in records), lines[-1]]


def changed(lines, at, old, new):
    assert old in lines[at], lines[at]
    return [*lines[:at], lines[at].replace(old, new, 1), *lines[at + 1:]]


def swapped(lines, at):
    return [*lines[:at], lines[at + 1], lines[at], *lines[at + 2:]]


# name: (what is done to the export's lines at record n, which record of the lane is named: n + this, why)
TAMPERING = {
    "a body changed": (lambda lines, n: changed(lines, n, '\\"action\\":\\"', '\\"action\\":\\"x'), 0, "hash_differs"),
    "a hash changed": (lambda lines, n: changed(lines, n, '"hash":"', '"hash":"' + "0" * 64 + '","x":"'), 0, "hash_differs"),
    "an item changed": (lambda lines, n: changed(lines, n, '"items":["{', '"items":["{ '), 0, "items_differ"),
    "an item deleted": (lambda lines, n: [*lines[:n], re.sub(r'"items":\[.*\]', '"items":[]', lines[n]), *lines[n + 1:]], 0,
                        "items_differ"),
    "a record deleted": (lambda lines, n: [*lines[:n], *lines[n + 1:]], 0, "record_missing"),
    "two reordered": (swapped, 0, "record_out_of_order"),
    "one inserted": (lambda lines, n: [*lines[:n + 1], lines[n], *lines[n + 1:]], 0, "record_repeated"),
    "the end cut off": (lambda lines, n: [*lines[:n], lines[-1]], 0, "truncated"),
    "a lane gone": (lambda lines, n: [line for line in lines if '"lane":1000,' not in line], None, "truncated"),
    "rewritten to the end": (rewritten, None, "checkpoint_differs"),
}


@pytest.mark.parametrize("name", TAMPERING)
def test_invariant_8_tampering_is_found_and_named(stack, kept, name):
    """Deletion, change, reordering and truncation show to who has the key, checkpoints and an export alone."""
    tamper, offset, why = TAMPERING[name]
    records = [json.loads(line) for line in kept["lines"][:-1]]
    at = next(i for i, record in enumerate(records) if record["lane"] != 1000 and record["seq"] == 3)
    lines = tamper(kept["lines"], at)
    said = verify(stack, kept, lines, want=1).stdout
    found = re.search(r"broken: lane (\d+), record (\d+): (\w+)", said)
    assert found, said
    if offset is not None:
        assert found.groups() == (str(records[at]["lane"]), str(3 + offset), why)
    else:
        assert found.group(3) == why and (name != "a lane gone" or found.group(1, 2) == ("1000", "1"))
    if "rewritten" in name:
        assert re.search(r"rewritten between records [123] and ", said), said
    notes = audit.read_notes((kept["dir"] / "notes").read_text(), kept["key"])
    with pytest.raises((AssertionError, KeyError, IndexError)):
        audit.verify_export(lines, notes)


def test_what_is_no_export_or_no_checkpoint_of_ours_is_refused(stack, kept):
    lines, notes = kept["lines"], (kept["dir"] / "notes").read_text()
    first = notes[:notes.index("jitrca audit checkpoint", 10)]
    for said, given in {
            "(export_incomplete)": {"lines": lines[:-1]},
            "(export_malformed)": {"lines": ["no JSON", *lines]},
            "line 2:": {"lines": [lines[0], '{"lane":1}', *lines[1:]]},
            "(checkpoint_forged)": {"notes": notes.replace("records ", "records 1", 1)},
            "changed.notes, note 2": {"notes": first + notes[len(first):].replace("at 20", "at 21", 1)},
            "(checkpoint_malformed)": {"notes": "nothing of the kind"},
            "(checkpoint_key)": {"key": other_key(kept)},
            "(file_absent)": {"key": kept["dir"] / "absent"}}.items():
        assert said in verify(stack, kept, want=1, **given).stderr
    jitrca(stack, "audit", "verify", "--offline", kept["dir"] / "export", want=2)
    # A checkpoint that is older than the export: what is newer is only a chain. One that is missing before: no harm.
    assert "records are newer" in verify(stack, kept, notes=first).stdout
    assert "before 1 of the checkpoints others are missing" in verify(stack, kept, notes=notes[len(first):]).stdout
    # A checkpoint that is newer than the export: to it the log was cut off.
    with client.admin(stack) as boss:
        boss.issue("proved-later")
        newer = boss.post("/v1/audit/checkpoints").json()
    assert ": truncated" in verify(stack, kept, notes=notes + newer["note"], want=1).stdout


def other_key(kept):
    path = kept["dir"] / "other.pem"
    subprocess.run(f"openssl genpkey -algorithm ed25519 | openssl pkey -pubout -out '{path}'", shell=True, check=True)
    return path


def test_a_certificate_is_proved_to_a_third_party(stack, kept):
    body = kept["bodies"][2]
    proof, pem = kept["dir"] / "proof.json", kept["dir"] / "proved.pem"
    jitrca(stack, "audit", "prove", body["certificate_id"], "--out", proof)
    pem.write_text(body["certificate"])
    check = ("audit", "check-proof", proof, "--key", kept["dir"] / "key.pem")
    said = jitrca(stack, *check, "--certificate", pem).stdout
    assert said.startswith(f"holds: certificate {body['certificate_id']}: certificate.issue by admin at 2")
    record = audit.verify_proof(json.loads(proof.read_text()), kept["key"])
    assert record["action"] == "certificate.issue"
    pem.write_text(kept["bodies"][3]["certificate"])
    assert "(proof_wrong)" in jitrca(stack, *check, "--certificate", pem, want=1).stderr
    assert "(checkpoint_key)" in jitrca(stack, *check[:-1], other_key(kept), want=1).stderr

    revoked = kept["bodies"][0]["certificate_id"]
    jitrca(stack, "audit", "prove", revoked, "--action", "certificate.revoke", "--out", proof)
    assert "certificate.revoke by admin" in jitrca(stack, *check).stdout

    good = json.loads(proof.read_text())
    assert len(json.dumps(good)) < 4000
    for change, said in {
            "item": "(proof_wrong)", "record": "(proof_wrong)", "previous": "(proof_wrong)", "certificate_id": "(proof_wrong)",
            "path": "(proof_malformed)", "index": "(proof_", "count": "(proof_", "checkpoint": "(checkpoint_",
            "format": "(proof_malformed)"}.items():
        bad = copy.deepcopy(good)
        value = bad[change]
        if change == "previous":
            bad[change] = ("1" if value[0] == "0" else "0") + value[1:]
        elif isinstance(value, str):
            bad[change] = value.replace("2", "3", 1) if change != "format" else "another"
        elif isinstance(value, list):
            bad[change] = value[:-1]
        else:
            bad[change] = value + 1
        assert bad != good
        proof.write_text(json.dumps(bad))
        assert said in jitrca(stack, *check, want=1).stderr, change
        with pytest.raises((AssertionError, audit.InvalidSignature, ValueError, KeyError)):
            audit.verify_proof(bad, kept["key"])


def test_what_no_checkpoint_holds_yet_is_not_proved(stack, kept):
    with client.admin(stack) as boss:
        fresh = boss.issue("not-yet").json()["certificate_id"]
        assert refused(boss.get(f"/v1/audit/proof?certificate_id={fresh}"), 404) == "checkpoint_pending"
        assert refused(boss.get(f"/v1/audit/proof?certificate_id={'0' * 64}"), 404) == "audit_record_unknown"
        assert refused(boss.get("/v1/audit/proof?certificate_id=x"), 400) == "certificate_id_malformed"
        assert refused(boss.get("/v1/audit/proof"), 400) == "field_missing"
        boss.post("/v1/audit/checkpoints")
        assert audit.verify_proof(boss.get(f"/v1/audit/proof?certificate_id={fresh}").json(), kept["key"])


def test_a_broken_chain_is_not_signed_and_sql_forbids_it(cluster):
    """On a database of its own: the triggers are dropped as a superuser would."""
    with Stack(cluster) as own, client.admin(own) as boss:
        boss.post("/v1/audit/checkpoints")
        assert boss.issue("broken-1").status_code == 201
        with own.db() as connection, pytest.raises(Exception, match="only added to"):
            connection.cursor().execute("DELETE FROM jitrca.audit_record")
        with own.db() as connection:
            connection.cursor().execute("ALTER TABLE jitrca.audit_record DISABLE TRIGGER USER;"
                                        "UPDATE jitrca.audit_record SET body = body || ' '::bytea"
                                        " WHERE (lane, seq) = (SELECT lane, seq FROM jitrca.audit_lane WHERE lane <> 1000)")
        assert refused(boss.post("/v1/audit/checkpoints"), 409) == "audit_broken"


def test_an_older_installation_gets_its_key_by_init(cluster):
    with Stack(cluster) as own, client.admin(own) as boss:
        own.stop()
        for suffix in ("pub", "key"):
            pathlib.Path(own.data, "keys", f"audit_checkpoint.{suffix}").unlink()
        own.start()
        assert refused(boss.get("/v1/audit/key"), 404) == "checkpoint_key_absent"
        assert refused(boss.post("/v1/audit/checkpoints"), 404) == "checkpoint_key_absent"
        assert "checkpoint key: made" in own.run(*own.init, "--config", own.config).stdout
        assert "checkpoint key: is there" in own.run(*own.init, "--config", own.config).stdout
        own.restart()
        assert boss.post("/v1/audit/checkpoints").json()["number"] >= 1
