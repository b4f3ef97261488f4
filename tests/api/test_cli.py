"""The administrator's command line against a running server."""
import json
import os
import re
import subprocess

import pytest

from harness.client import csr_pem, new_key


@pytest.fixture
def jitrca(stack):
    env = {**stack.env, "JITRCA_URL": stack.url, "JITRCA_CA_BUNDLE": stack.ca_bundle, "JITRCA_ADMIN_TOKEN": stack.admin_token}

    def run(*args, want=0, env=env, **options):
        done = subprocess.run([str(stack.binary), *map(str, args)], env=env, capture_output=True, text=True, timeout=120,
                              check=False, **options)
        assert done.returncode == want, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done
    run.env = env
    return run


def test_a_work_order_from_station_to_export(jitrca, tmp_path):
    jitrca("station", "create", "--id", "cli-st", "--profiles", "device")
    token = json.loads(jitrca("token", "create", "station", "cli-st", "--valid-for", "1d", "--json").stdout)
    jitrca("manifest", "create", "--id", "cli-m", "--station", "cli-st", "--quantity", "10")
    ids = tmp_path / "ids.csv"
    ids.write_text("device_id\r\n" + "\r\n".join(f"cli-{i}" for i in range(5000)) + "\r\n")
    jitrca("manifest", "add", "cli-m", ids)
    refused = jitrca("manifest", "add", "cli-m", "-", input="cli-5001\nbad id\n", want=1)
    assert "line 2" in refused.stderr and "(device_id_malformed)" in refused.stderr
    jitrca("manifest", "export", "cli-m", "--out", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes().count(b"\n") == 5001
    jitrca("token", "revoke", "station", "cli-st", token["token_id"])
    jitrca("manifest", "close", "cli-m")
    assert "cli-m" in jitrca("manifest", "list").stdout


def test_a_certificate_and_its_device(jitrca, tmp_path):
    (tmp_path / "c.csr").write_text(csr_pem(new_key()))
    jitrca("cert", "issue", "--csr", tmp_path / "c.csr", "--device-id", "cli-dev", "--attribute", "model=m1",
           "--idempotency-key", "k1", "--out", tmp_path / "c.pem")
    assert (tmp_path / "c.pem").read_text().count("BEGIN CERTIFICATE") == 2
    found = json.loads(jitrca("cert", "list", "--device-id", "cli-dev", "--json").stdout)["certificates"]
    jitrca("cert", "revoke", found[0]["serial"], "--reason", "certificateHold")
    jitrca("cert", "unhold", found[0]["serial"])
    assert "(certificate_not_held)" in jitrca("cert", "unhold", found[0]["serial"], want=1).stderr
    assert re.search(r"^attributes\.model +m1$", jitrca("device", "show", "cli-dev").stdout, re.M)
    jitrca("revocation", "create", "--device-id", "cli-dev", "--reason", "superseded", "--dry-run")
    jitrca("device", "decommission", "cli-dev", "--reason", "done")
    assert json.loads(jitrca("cert", "show", found[0]["serial"], "--json").stdout)["status"] == "revoked"


def test_lists_page_and_the_log_holds(jitrca):
    first = jitrca("audit", "list", "--limit", "2")
    assert len(first.stdout.splitlines()) == 3 and "--cursor" in first.stderr
    assert len(jitrca("audit", "list", "--limit", "2", "--all").stdout.splitlines()) > 5
    assert jitrca("audit", "verify").stdout.split()[:2] == ["ok", "yes"]


def test_health_says_what_readyz_says(jitrca, stack):
    assert jitrca("health", "--url", stack.http_url).stdout == "ready\n"
    assert "(server_unreachable)" in jitrca("health", "--url", "http://127.0.0.1:1", want=1).stderr
    assert "(url_malformed)" in jitrca("health", "--url", stack.url, want=1).stderr
    assert "(not_found)" in jitrca("health", "--url", f"{stack.http_url}/elsewhere", want=1).stderr
    assert "--url URL" in jitrca("health", "--help").stdout
    jitrca("health", "now", want=2)


def test_misuse_is_2_and_refusal_is_1(jitrca, stack, tmp_path):
    jitrca("cert", want=2)
    assert "did you mean 'issue'" in jitrca("cert", "isue", want=2).stderr
    jitrca("cert", "show", want=2)
    jitrca("cert", "issue", "--help")
    without = {key: value for key, value in jitrca.env.items() if key != "JITRCA_ADMIN_TOKEN"}
    assert "(credentials_missing)" in jitrca("device", "list", env=without, want=1).stderr
    file = tmp_path / "token"
    file.write_text(stack.admin_token)
    os.chmod(file, 0o600)
    jitrca("device", "list", "--token-file", file, env=without)
    os.chmod(file, 0o644)
    assert "(secret_file_mode)" in jitrca("device", "list", "--token-file", file, env=without, want=1).stderr
    assert "(server_unreachable)" in jitrca("device", "list", "--url", "https://127.0.0.1:1", want=1).stderr
    other = jitrca("device", "list", "--ca-bundle", "/etc/ssl/certs/ca-certificates.crt", want=1)
    assert "(server_unreachable)" in other.stderr
