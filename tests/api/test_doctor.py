"""`jitrca doctor`: each finding appears when there is reason for it, and says what to do."""
import contextlib
import json
import subprocess

from harness import client
from harness.client import code
from harness.described import Described

EXIT = {"ok": 0, "note": 0, "unknown": 3, "warning": 1, "error": 2}
# Of the machine that the tests run on, and of a cluster that need not survive a crash.
NOT_OURS = {"disk", "clock"}
FSYNC_IS_OFF = "fsync is off"


def doctor(stack, *options, env=None):
    """(exit status, findings); the exit status is held against the worst of them."""
    done = subprocess.run([str(stack.binary), "doctor", "--json", *map(str, options)], env={**stack.env, **(env or {})},
                          capture_output=True, text=True, timeout=60, check=False)
    assert not done.stderr, done.stderr
    told = json.loads(done.stdout)
    worst = max((one["severity"] for one in told["findings"]), key=list(EXIT).index)
    assert told["status"] == worst and done.returncode == EXIT[worst], told
    for one in told["findings"]:
        assert (one["what_to_do"] is None) == (one["severity"] == "ok"), one
    return done.returncode, told["findings"]


def local(stack, *options, **more):
    return doctor(stack, "--config", stack.config, *options, **more)


def bad(findings, where=None):
    """{(check, severity)} of all that is worse than a note, and not this machine's."""
    return {(one["check"], one["severity"]) for one in findings if one["severity"] not in ("ok", "note")
            and one["check"] not in NOT_OURS and one["finding"][:12] != FSYNC_IS_OFF and where in (None, one["where"])}


def said(findings, check, severity):
    return " ".join(one["finding"] for one in findings if one["check"] == check and one["severity"] == severity)


@contextlib.contextmanager
def mode(path, bits):
    before = path.stat().st_mode & 0o7777
    path.chmod(bits)
    try:
        yield
    finally:
        path.chmod(before)


def test_a_healthy_server_has_none_but_says_what_was_checked(stack):
    _, findings = local(stack)
    assert bad(findings) == set(), findings
    here = {one["check"] for one in findings if one["where"] == "here"}
    server = {one["check"] for one in findings if one["where"] == "server"}
    assert here == {"config", "profiles", "files", "ca_end", "disk", "clock", "database", "standby", "migrations"}
    assert server == {"database", "standby", "clock", "migrations", "signer", "ca_end", "crl_age", "crl_size", "ocsp",
                      "listeners", "disk", "iot", "expiry_cliffs"}
    assert FSYNC_IS_OFF in said(findings, "database", "error")  # the cluster of the tests


def test_it_is_shown_as_a_table(stack):
    done = stack.run("doctor", "--config", stack.config, check=False)
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["SEVERITY", "WHERE", "CHECK"]
    assert any(line.split()[:3] == ["ok", "server", "signer"] for line in lines)
    at = next(i for i, line in enumerate(lines) if FSYNC_IS_OFF in line)
    assert lines[at + 1].strip().startswith("-> Set fsync")


def test_the_call_is_as_described_and_for_administrators(stack):
    with client.admin(stack) as boss:
        answer = Described(boss)("GET", "/v1/doctor", 200).json()
        assert answer["status"] == max((one["severity"] for one in answer["findings"]), key=list(EXIT).index)
        assert boss.post("/v1/principals", json={"id": "doc-op", "role": "operator"}).status_code == 201
        token = boss.post("/v1/principals/doc-op/tokens", json={}).json()["token"]
    with client.Client(stack.url, stack.ca_bundle, token=token) as operator:
        refused = operator.get("/v1/doctor")
        assert refused.status_code == 403 and code(refused) == "role_not_allowed"


def test_misuse_is_64(stack):
    assert stack.run("doctor", "--wrong", check=False).returncode == 64
    assert stack.run("doctor", "now", check=False).returncode == 64
    helped = stack.run("doctor", "--help", check=False)
    assert helped.returncode == 0 and "64 misused" in helped.stdout


def test_files_that_others_may_read(stack):
    keys = stack.data / "keys"
    with mode(keys / "issuing-1.key", 0o640):
        status, findings = local(stack)
        assert status == 2 and bad(findings, "here") == {("files", "error")}
        assert "issuing-1.key: mode 0640" in said(findings, "files", "error")
    with mode(stack.passphrase, 0o644):
        assert "passphrase: mode 0644" in said(local(stack)[1], "files", "error")
    with mode(stack.data, 0o755):
        assert "data: mode 0755" in said(local(stack)[1], "files", "error")


def test_files_that_are_not_there_or_no_certificates(stack):
    key = stack.data / "keys" / "issuing-1.key"
    away = key.with_suffix(".away")
    key.rename(away)
    odd = stack.data / "keys" / "odd.crt"
    odd.write_text("no certificate")
    try:
        _, findings = local(stack)
        assert "issuing-1.key: No such file" in said(findings, "files", "error")
        assert "could not be checked" in said(findings, "ca_end", "unknown")
    finally:
        away.rename(key)
        odd.unlink()


def test_a_configuration_that_cannot_be_read(stack, tmp_path):
    config = tmp_path / "bad.conf"
    config.write_text("crl_validity = soon\n")
    status, findings = doctor(stack, "--config", config, env={"JITRCA_URL": stack.url, "JITRCA_CA_BUNDLE": stack.ca_bundle,
                                                             "JITRCA_ADMIN_TOKEN": stack.admin_token})
    assert status == 2 and ("config", "error") in bad(findings, "here")
    assert any(one["where"] == "server" and one["check"] == "signer" for one in findings)


def test_profiles_that_no_server_would_start_with(stack):
    broken = stack.profiles / "broken.json"
    broken.write_text("{}")
    try:
        assert ("profiles", "error") in bad(local(stack)[1], "here")
    finally:
        broken.unlink()


def test_who_has_no_token_is_told(stack, tmp_path):
    status, findings = doctor(stack, "--remote", "--url", stack.url, "--ca-bundle", stack.ca_bundle)
    assert status == 3 and "(credentials_missing)" in said(findings, "server", "unknown")
    status, findings = doctor(stack, "--remote")
    assert status == 3 and "no URL is known" in said(findings, "server", "unknown")
    token = tmp_path / "token"
    token.write_text(stack.admin_token)
    token.chmod(0o600)
    _, findings = doctor(stack, "--remote", "--url", stack.url, "--ca-bundle", stack.ca_bundle, "--token-file", token)
    assert {one["where"] for one in findings} == {"server"} and len(findings) > 10


def test_a_server_that_does_not_answer_and_a_database_that_is_away(stack):
    status, findings = local(stack, "--url", "https://127.0.0.1:1")
    assert status == 2 and "(server_unreachable)" in said(findings, "server", "error")
    assert bad(findings, "here") == set()
    status, findings = local(stack, env={"JITRCA_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})
    assert status == 2 and "(database_away)" in said(findings, "database", "error")
    assert {one["check"] for one in findings if one["severity"] == "unknown"} == {"clock", "standby", "migrations"}


def test_a_database_that_takes_no_writes(stack):
    """As a standby whose primary is away: something answers, and no server can use it."""
    with stack.db() as connection:
        cursor = connection.cursor()
        cursor.execute(f'ALTER DATABASE "{stack.database}" SET default_transaction_read_only = on')
        try:
            status, findings = local(stack, "--url", "https://127.0.0.1:1")
        finally:
            cursor.execute(f'ALTER DATABASE "{stack.database}" RESET default_transaction_read_only')
    assert status == 2 and "read-only by configuration" in said(findings, "standby", "error")
    assert ("migrations", "unknown") in bad(findings, "here") and ("database", "error") not in bad(findings, "here")


def test_migrations_that_do_not_fit(stack):
    (checksum,), = stack.query("SELECT checksum FROM jitrca.schema_migration WHERE version = 1")
    with stack.db() as connection:
        cursor = connection.cursor()
        cursor.execute("UPDATE jitrca.schema_migration SET checksum = 'x' WHERE version = 1")
        try:
            _, findings = local(stack)
            assert {one["where"] for one in findings if (one["check"], one["severity"]) == ("migrations", "error")} == \
                {"here", "server"}
            assert "(schema_changed)" in said(findings, "migrations", "error")
        finally:
            cursor.execute("UPDATE jitrca.schema_migration SET checksum = %s WHERE version = 1", (checksum,))


def test_a_ca_that_ends(stack):
    stack.settings["report_ca_expiring"] = "4000d"
    stack.write_config()
    try:
        _, findings = local(stack)
        assert bad(findings, "here") == {("ca_end", "warning")}
        assert said(findings, "ca_end", "warning").startswith("issuing-1.crt ends at")
        assert "jitrca init --successor" in next(one["what_to_do"] for one in findings if one["severity"] == "warning")
    finally:
        del stack.settings["report_ca_expiring"]
        stack.write_config()


def test_a_week_in_which_most_of_the_fleet_ends(stack):
    assert "too few" in said(local(stack)[1], "expiry_cliffs", "ok")
    with client.admin(stack) as boss:
        requests_ = [{"csr": client.csr_pem(client.new_key()), "device_id": f"doc-{n}"} for n in range(30)]
        answer = boss.post("/v1/certificates/batch", json={"requests": requests_})
        assert answer.status_code == 200 and {one["status"] for one in answer.json()["results"]} == {201}
    told = said(local(stack)[1], "expiry_cliffs", "warning")
    assert told.startswith("100 % of the fleet (30 certificates) expires in week 20"), told


def test_how_the_full_list_will_grow(stack):
    with client.admin(stack) as boss:
        for n in range(3):
            assert boss.post("/v1/revocations", json={"selector": {"device_id": f"doc-{n}"}, "reason": "superseded"}
                             ).status_code in (200, 202)
    told = said(local(stack)[1], "crl_size", "ok")
    assert told.startswith("issuing-1: the full list has ") and "in 90 days about" in told, told
