"""The processes of `jitrca serve`: what is killed comes back, what is reloaded drains, what cannot start says why."""
import json
import os
import pathlib
import pwd
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
import requests

from harness.stack import RELEASE_BIN, SANITIZER, Stack, alive, children, wait_until


def http(stack, path, timeout=2):
    with requests.Session() as session:
        session.trust_env = False
        return session.get(f"http://127.0.0.1:{stack.ports['http']}{path}", timeout=timeout)


def ready(stack):
    try:
        return http(stack, "/readyz").status_code == 200
    except requests.RequestException:
        return False


def events(stack, name):
    return [event for event in stack.events() if event["event"] == name]


@pytest.fixture(name="own")
def own_stack(cluster):
    """A stack that a test may break."""
    with Stack(cluster) as it:
        yield it


@pytest.mark.parametrize("role", ["signer", "frontend"])
def test_a_killed_child_comes_back(stack, role):
    before = stack.pids()
    os.kill(before[role], signal.SIGKILL)
    wait_until(lambda: stack.pids().get(role) not in (None, before[role]) and ready(stack), f"{role} back")
    assert stack.process.poll() is None
    died = [event for event in events(stack, "process_died") if event["child"] == role]
    assert died and died[-1]["signal"] == signal.SIGKILL


def test_a_child_that_keeps_dying_is_started_ever_more_slowly(own):
    def kill_signer():
        pid = own.pids().get("signer")
        if pid:
            os.kill(pid, signal.SIGKILL)
        return pid

    started = time.monotonic()
    for _ in range(4):
        pid = wait_until(kill_signer, "a signer")
        wait_until(lambda: own.pids().get("signer") not in (None, pid), "the next signer", 15)
    # 100 + 200 + 400 + 800 ms at least, unless the first had run for long.
    assert time.monotonic() - started >= 1.3
    wait_until(lambda: ready(own), "ready")


def test_the_death_of_the_supervisor_ends_its_children(cluster):
    with Stack(cluster) as stack:
        pids = stack.pids()
        os.kill(pids["supervisor"], signal.SIGKILL)
        stack.process.wait()
        for role in ("signer", "frontend"):
            wait_until(lambda role=role: not alive(pids[role]), f"{role}'s end", 10)
        stack.start()


def test_term_ends_all_with_status_0(cluster):
    with Stack(cluster) as stack:
        pids = stack.pids()
        assert stack.stop() == 0
        assert not any(alive(pid) for pid in pids.values())


def test_the_listeners_stay_open_while_the_frontend_is_away(stack):
    os.kill(stack.pids()["frontend"], signal.SIGKILL)
    # The supervisor holds the sockets: a connection waits in the backlog instead of being refused.
    assert http(stack, "/healthz", timeout=20).status_code == 200


def test_hup_takes_a_new_configuration_without_losing_a_request(own):
    failures = []
    done = threading.Event()

    def ask():
        while not done.is_set():
            try:
                if http(own, "/healthz", timeout=10).status_code != 200:
                    failures.append("status")
            except requests.RequestException as error:
                failures.append(repr(error))

    before = own.pids()
    own.settings["log_level"] = "info"
    own.write_config()
    asker = threading.Thread(target=ask)
    asker.start()
    try:
        own.process.send_signal(signal.SIGHUP)
        wait_until(lambda: events(own, "reload_done"), "reload")
        wait_until(lambda: not alive(before["frontend"]) and not alive(before["signer"]), "the old ones' end")
    finally:
        done.set()
        asker.join()
    assert own.pids()["frontend"] != before["frontend"]
    assert not failures


@pytest.mark.parametrize("damage", ["config", "profile"])
def test_hup_with_a_bad_file_keeps_the_old_ones(own, damage):
    before = own.pids()
    profile = own.profiles / "device.json"
    good = profile.read_text()
    if damage == "config":
        own.config.write_text(own.config.read_text() + "no_such_key = 1\n")
    else:
        profile.write_text(good.replace('"CN"', '"XX"'))
    own.process.send_signal(signal.SIGHUP)
    failed = wait_until(lambda: events(own, "reload_failed"), "the refusal")
    assert ("no_such_key" if damage == "config" else "device.json: subject[0].type") in failed[-1]["detail"]
    assert own.pids() == before
    assert ready(own)
    # And a signer that dies now still knows the profiles that were good.
    os.kill(before["signer"], signal.SIGKILL)
    wait_until(lambda: own.pids().get("signer") not in (None, before["signer"]) and ready(own), "signer back")
    profile.write_text(good)


def test_hup_moves_a_listener(own):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    old = own.ports["http"]
    own.settings["http"] = f"127.0.0.1:{port}"
    own.write_config()
    own.process.send_signal(signal.SIGHUP)
    own.ports["http"] = port
    wait_until(lambda: ready(own), "the new port")
    with pytest.raises(requests.RequestException):
        wait_until(lambda: requests.get(f"http://127.0.0.1:{old}/healthz", timeout=1).status_code == 0, "never", 10)


def test_it_waits_for_a_database_that_is_away_and_says_so(cluster):
    with Stack(cluster) as stack:
        stack.stop()
        cluster.stop()
        try:
            stack.start(wait=False)
            answer = wait_until(lambda: _answers(stack, "/readyz"), "the waiting room")[0]
            assert answer.status_code == 503
            assert answer.headers["Content-Type"].startswith("application/problem+json")
            assert "Retry-After" in answer.headers
            assert "database" in answer.json()["detail"]
            assert http(stack, "/healthz").status_code == 200
        finally:
            cluster.start()
        stack.wait_ready()


def _answers(stack, path):
    """[answer], for an answer of 503 counts as false."""
    try:
        return [http(stack, path)]
    except requests.RequestException:
        return []


def test_it_survives_a_restart_of_the_database(stack, cluster):
    before = stack.pids()
    cluster.restart()
    wait_until(lambda: ready(stack), "ready again")
    assert stack.pids() == before


def test_what_cannot_start_says_why(cluster):
    with Stack(cluster) as stack:
        stack.stop()

        def refused(*wanted, **changes):
            stack.settings.update(changes)
            stack.write_config()
            result = stack.run("serve", "--config", stack.config, check=False)
            assert result.returncode == 1, result.stderr
            for text in wanted:
                assert text in result.stderr
            assert not children(os.getpid()).get("frontend")

        good = dict(stack.settings)
        stack.passphrase.write_text("not the passphrase")
        refused("passphrase")
        stack.passphrase.write_text(Stack.PASSPHRASE)
        stack.passphrase.chmod(0o644)
        refused("mode 0600")
        stack.passphrase.chmod(0o600)
        refused("issuing_ca", issuing_ca="issuing-9")
        stack.settings = dict(good)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            refused("cannot listen", https=f"127.0.0.1:{taken.getsockname()[1]}")
        stack.settings = dict(good)
        refused("schema", database_url=cluster.url(cluster.new_database()))


@pytest.mark.skipif(SANITIZER, reason="a sanitizer's shadow memory is not the program's")
def test_memory_at_idle_is_small(cluster):
    with Stack(cluster, config={"log_level": "info"}, binary=RELEASE_BIN) as stack:
        pss = {role: _pss_kib(pid) for role, pid in stack.pids().items()}
        print(f"PSS KiB {pss}")
        assert sum(pss.values()) <= 32 * 1024, pss


def _pss_kib(pid):
    if os.getuid() != 0:
        # The processes let nobody else look into them: what is not shared is less than the whole.
        resident, shared = (int(pages) for pages in pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1:3])
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE") // 1024
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise AssertionError("no Pss")


def test_systemd_hears_that_it_is_ready(cluster):
    with Stack(cluster) as stack:
        stack.stop()
        path = stack.dir / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(path))
            listener.settimeout(30)
            stack.env["NOTIFY_SOCKET"] = str(path)
            stack.start(wait=False)
            assert listener.recv(100) == b"READY=1"
            stack.stop()
            assert listener.recv(100) == b"STOPPING=1"


def test_init_can_be_repeated(stack):
    token = stack.admin_token
    again = stack.run("init", "--config", stack.config)
    assert "is there" in again.stdout
    assert stack.admin_token == token
    assert len(stack.query("SELECT 1 FROM jitrca.principal WHERE role = 'admin'")) == 1


def test_admin_recover_gives_a_new_token_and_is_audited(stack):
    token = stack.admin_token
    stack.run("admin", "recover", "--config", stack.config)
    assert stack.admin_token != token
    answer = requests.get(f"{stack.url}/v1/principals", headers={"Authorization": f"Bearer {stack.admin_token}"},
                          verify=stack.ca_bundle, timeout=10)
    assert answer.status_code == 200, answer.text
    bodies = [json.loads(bytes(row[0])) for row in stack.query(
        "SELECT body FROM jitrca.audit_record WHERE action = 'admin.recover'")]
    assert bodies and bodies[-1]["actor"] == "local"
    odd = stack.run("admin", "recover", "--principal", "a b", "--config", stack.config, check=False)
    assert odd.returncode == 2 and "--principal" in odd.stderr


def test_an_unknown_command_is_answered_with_the_nearest(stack):
    result = subprocess.run([stack.binary, "srve"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "'serve'" in result.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give its children other users")
def test_started_as_root_signer_and_frontend_run_as_other_users(cluster):
    users = {"user_signer": "nobody", "user_frontend": "postgres"}
    with Stack(cluster, config=users) as stack:
        pids = stack.pids()
        for role, name in (("signer", "nobody"), ("frontend", "postgres")):
            status = pathlib.Path(f"/proc/{pids[role]}/status").read_text()
            uids = set(re.search(r"^Uid:\s+(.*)$", status, re.M).group(1).split())
            assert uids == {str(pwd.getpwnam(name).pw_uid)}, role
            assert re.search(r"^CapEff:\s+0+$", status, re.M), role
            assert re.search(r"^NoNewPrivs:\s+1$", status, re.M), role
        os.kill(pids["frontend"], signal.SIGKILL)
        wait_until(lambda: stack.pids().get("frontend") not in (None, pids["frontend"]) and ready(stack), "ready again")
        # The orphans of a supervisor end although they changed their user.
        pids = stack.pids()
        os.kill(pids["supervisor"], signal.SIGKILL)
        stack.process.wait()
        for role in ("signer", "frontend"):
            wait_until(lambda role=role: not alive(pids[role]), f"{role}'s end", 10)
