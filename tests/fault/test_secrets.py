"""Canary secrets are in no log, argv, error, database or foreign memory; no process can be dumped (invariant 16)."""
import base64
import ctypes
import ctypes.util
import os
import pathlib
import pwd
import re
import shutil
import signal
import stat
import subprocess

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from harness import client
from harness.client import csr_pem, new_key
from harness.stack import BIN, SANITIZER, Stack, wait_until

BAD_TOKEN = "canary-token-of-nobody-0123456789abcdef"
DATABASE_PASSWORD = "canary-database-password"
# An ordinary user that may reach the cluster.
USER = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name


# ---- the secrets ----

def unseal(stack):
    """(key-encryption key, private scalar of the issuing CA), read as ca/seal.h describes the files."""
    sodium = ctypes.CDLL(ctypes.util.find_library("sodium") or "libsodium.so.23")
    assert sodium.sodium_init() >= 0
    keys = stack.data / "keys"
    params = dict(line.split("=", 1) for line in (keys / "seal.params").read_text().splitlines())
    kek = ctypes.create_string_buffer(32)
    passphrase = Stack.PASSPHRASE.encode()
    assert sodium.crypto_pwhash(kek, ctypes.c_ulonglong(32), passphrase, ctypes.c_ulonglong(len(passphrase)),
                                bytes.fromhex(params["salt"]), ctypes.c_ulonglong(int(params["argon2id_ops"])),
                                ctypes.c_size_t(int(params["argon2id_memory_bytes"])), 2) == 0
    magic = b"jitrca sealed key 1\n"
    sealed = (keys / "issuing-1.key").read_bytes()
    assert sealed.startswith(magic)
    nonce, box = sealed[len(magic):len(magic) + 24], sealed[len(magic) + 24:]
    certificate = x509.load_pem_x509_certificate((keys / "issuing-1.crt").read_bytes())
    with_it = magic + b"issuing-1\0" + certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    plain = ctypes.create_string_buffer(len(box) - 16)
    assert sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(
        plain, None, None, box, ctypes.c_ulonglong(len(box)), with_it, ctypes.c_ulonglong(len(with_it)), nonce,
        kek.raw) == 0
    key = serialization.load_der_private_key(plain.raw, None)
    return kek.raw, key.private_numbers().private_value.to_bytes(32, "big")


def forms(secret):
    """As it is, as OpenSSL keeps numbers (its words backwards), and as text would show it."""
    return {"raw": secret, "backwards": secret[::-1], "hex": secret.hex().encode(),
            "HEX": secret.hex().upper().encode(), "base64": base64.b64encode(secret).rstrip(b"=")}


def found_in(blob, secrets):
    return [(name, form) for name, secret in secrets.items() for form, needle in forms(secret).items()
            if needle in blob]


@pytest.fixture(name="used", scope="module")
def used_stack(cluster):
    """A stack that has done a bit of everything, failures too; used.secrets names its secrets."""
    with Stack(cluster) as it:
        plain_url = it.database_url
        it.stop()
        it.settings["database_url"] = plain_url.replace("@/", f":{DATABASE_PASSWORD}@/")
        it.write_config()
        it.start()
        kek, scalar = unseal(it)
        with client.station(it, "st-secret", device_ids=["s-1", "s-2"], quantity=2) as station:
            it.secrets = {"passphrase": Stack.PASSPHRASE.encode(), "kek": kek, "ca key": scalar,
                          "database password": DATABASE_PASSWORD.encode(), "admin token": it.admin_token.encode(),
                          "station token": station.session.headers["Authorization"].split()[1].encode(),
                          "bad token": BAD_TOKEN.encode()}
            it.answers = [station.issue("s-1"), station.issue("s-3"), station.post("/v1/stations", json={}),
                          station.post("/v1/certificates", data=b"{")]
        key = new_key()
        with client.admin(it) as boss:
            it.answers.append(boss.issue("s-9", key))
            certificate = it.answers[-1].json()
            it.answers += [boss.get("/v1/audit?items=true"), boss.get("/metrics"), boss.get("/v1/stations")]
        with client.device(it, key, certificate) as one:
            it.answers += [one.get("/v1/rotation"), one.post("/v1/rotation", json={"csr": csr_pem(new_key())})]
        for scheme in ("Bearer ", "Basic ", "", "Bearer  x"):
            answer = requests.get(f"{it.url}/v1/stations", headers={"Authorization": scheme + BAD_TOKEN},
                                  verify=it.ca_bundle, timeout=10)
            assert answer.status_code == 401
            it.answers.append(answer)
        # What breaks is logged with its reason.
        cluster.stop()
        try:
            with client.admin(it) as boss:
                it.answers.append(boss.issue("s-10"))
            assert it.answers[-1].status_code == 503
        finally:
            cluster.start()
        old = it.pids()["signer"]
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: it.pids().get("signer") not in (None, old), "the next signer")
        it.wait_ready()
        yield it


# ---- where they must not be ----

def test_invariant_16_no_secret_in_the_log(used):
    log = used.log_path.read_bytes()
    assert b"process_died" in log and b"token_invalid" in log  # it is the right file
    assert not found_in(log, used.secrets)


def test_invariant_16_no_secret_in_an_answer(used):
    for answer in used.answers:
        assert not found_in(answer.content + repr(answer.headers).encode(), used.secrets), answer.text


def test_invariant_16_no_secret_in_argv_or_environment(used):
    for role, pid in used.pids().items():
        # Its environment is for root alone to read, which test_no_process_can_be_read shows.
        for what in ("cmdline", "environ") if os.getuid() == 0 else ("cmdline",):
            assert not found_in(pathlib.Path(f"/proc/{pid}/{what}").read_bytes(), used.secrets), (role, what)


def test_invariant_16_no_secret_in_the_database(used, cluster):
    tables = [row[0] for row in used.query("SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n"
                                           " ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname = 'jitrca'")]
    assert "jitrca.token" in tables and any(name.startswith("jitrca.certificate_") for name in tables)
    rows = 0
    for table in tables:
        for (row,) in used.query(f"SELECT t::text FROM {table} t"):  # bytea shows as hex
            rows += 1
            hexed = {name: secret.hex().encode() for name, secret in used.secrets.items()}
            assert not found_in(row.encode(), used.secrets), table
            assert not [name for name, needle in hexed.items() if needle in row.encode()], table
    assert rows > 100
    # Nor in what PostgreSQL keeps besides: its write-ahead log, dead rows, statistics, its own log.
    used.query("SELECT pg_switch_wal()")
    files = [path for path in cluster.dir.rglob("*") if path.is_file()]
    assert len(files) > 100
    for path in files:
        try:
            blob = path.read_bytes()
        except FileNotFoundError:
            continue
        assert not found_in(blob, used.secrets), path


def memory(pid):
    """All that a core dump of the process would hold, and what it would leave out."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
            if line.endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            while start < end:
                size = min(end - start, 1 << 22)
                try:
                    mem.seek(start)
                    part = mem.read(size)
                except OSError:
                    part = b""
                # Where nothing is to be read, page by page over it.
                yield part
                start += len(part) if part else 4096


def secrets_in_memory(pid, secrets):
    seen, tail = set(), b""
    for part in memory(pid):
        blob = tail + part
        seen |= {name for name, _ in found_in(blob, secrets)}
        tail = blob[-256:]
    return seen


@pytest.mark.skipif(os.getuid() != 0, reason="only root may look: test_no_process_can_be_read shows that nobody else may")
@pytest.mark.skipif(SANITIZER, reason="a sanitizer keeps what was freed")
def test_invariant_16_each_process_knows_only_its_own_secrets(used):
    secrets = {name: used.secrets[name] for name in ("passphrase", "kek", "ca key")}
    pids = used.pids()
    # The supervisor restarts the signer with it, the signer signs: that these are found shows that we can look.
    assert secrets_in_memory(pids["supervisor"], secrets) == {"kek"}
    assert secrets_in_memory(pids["signer"], secrets) == {"ca key"}
    assert secrets_in_memory(pids["frontend"], secrets) == set()
    tokens = {name: used.secrets[name] for name in ("admin token", "station token", "bad token")}
    assert not secrets_in_memory(pids["signer"], tokens)
    assert not secrets_in_memory(pids["supervisor"], tokens)


# ---- nobody can take a core dump ----

class OwnUser(Stack):
    """A stack that runs as an ordinary user in a directory where it could leave a core, and would be let to."""

    def __init__(self, cluster):
        super().__init__(cluster)
        self.cores = self.dir / "cores"
        self.cores.mkdir()
        program = self.dir / "jitrca"
        shutil.copy(BIN, program)
        program.chmod(0o755)
        self.binary = self.dir / "run.sh"
        drop = f"setpriv --reuid={USER} --regid={pwd.getpwnam(USER).pw_gid} --clear-groups " if os.getuid() == 0 else ""
        self.binary.write_text(f'#!/bin/sh\nulimit -c "$(ulimit -H -c)"\ncd {self.cores}\nexec {drop}{program} "$@"\n')
        self.binary.chmod(0o755)
        if os.getuid() == 0:
            for path in (self.dir, *self.dir.rglob("*")):
                shutil.chown(path, USER)


@pytest.fixture(name="plain", scope="module")
def plain_stack(cluster):
    with OwnUser(cluster) as it:
        yield it


def as_user(*command):
    if os.getuid() == 0:
        command = ("setpriv", f"--reuid={USER}", f"--regid={pwd.getpwnam(USER).pw_gid}", "--clear-groups", *command)
    return subprocess.run(command, capture_output=True, check=False)


def test_no_process_can_be_read_by_its_own_user(plain):
    sleeper = ["sleep", "60"] if os.getuid() != 0 else \
        ["setpriv", f"--reuid={USER}", f"--regid={pwd.getpwnam(USER).pw_gid}", "--clear-groups", "sleep", "60"]
    with subprocess.Popen(sleeper) as other:
        try:
            wait_until(lambda: b"sleep\0" in pathlib.Path(f"/proc/{other.pid}/cmdline").read_bytes()[:6], "sleep")
            assert as_user("cat", f"/proc/{other.pid}/environ").returncode == 0, "it could read another of its own"
        finally:
            other.kill()
    for role, pid in plain.pids().items():
        assert re.search(r"Max core file size\s+0\s+0", pathlib.Path(f"/proc/{pid}/limits").read_text()), role
        # What is not dumpable belongs to root in /proc, whoever runs it.
        assert os.stat(f"/proc/{pid}/environ").st_uid == 0, f"{role} is dumpable"
        assert f"\nUid:\t{pwd.getpwnam(USER).pw_uid}\t" in pathlib.Path(f"/proc/{pid}/status").read_text(), role
        for what in ("environ", "mem", "maps"):
            refused = as_user("head", "-c", "1", f"/proc/{pid}/{what}")
            assert refused.returncode != 0, (role, what)


def how_it_ended(process):
    """CLD_DUMPED or CLD_KILLED of a child of ours, which stays to be waited for."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT).si_code


@pytest.mark.skipif(SANITIZER, reason="a sanitizer catches the signal")
def test_a_crash_leaves_no_core(plain, tmp_path):
    with subprocess.Popen(["sh", "-c", 'ulimit -c "$(ulimit -H -c)"; kill -SEGV $$'], cwd=tmp_path) as control:
        dumps = how_it_ended(control) == os.CLD_DUMPED
    for role in ("signer", "frontend"):
        pid = plain.pids()[role]
        os.kill(pid, signal.SIGSEGV)
        wait_until(lambda role=role, pid=pid: plain.pids().get(role) not in (None, pid), f"the next {role}")
        plain.wait_ready()
    os.kill(plain.process.pid, signal.SIGSEGV)
    assert how_it_ended(plain.process) == os.CLD_KILLED
    plain.process.wait()
    assert not list(plain.cores.iterdir()) and not [path for path in plain.data.rglob("core*")]
    deaths = [event for event in plain.events() if event["event"] == "process_died" and event.get("signal") == signal.SIGSEGV]
    assert {event["child"] for event in deaths} == {"signer", "frontend"}
    plain.start()
    if not dumps:
        pytest.skip("nothing can dump a core here: only the limits were shown")


def test_files_with_secrets_are_for_their_owner_alone(used):
    files = [used.data / "admin.token", *(used.data / "keys").glob("*.key"), *(used.data / "tls").glob("*key*")]
    assert len(files) >= 2
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        if path.name != "admin.token":
            assert not found_in(path.read_bytes(), used.secrets), path
