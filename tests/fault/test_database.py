"""PostgreSQL goes away and comes back: what is in flight is told so, the lists stay up, all resumes by itself."""
import contextlib
import os
import signal
import socket
import threading

import psycopg2
import pytest
import requests
from cryptography import x509

from harness import client
from harness.client import csr_pem, new_key
from harness.load import Load, check
from harness.stack import Stack, wait_until
from harness.walk import orphans_on_crl, walk

LOCK = 4711  # an advisory lock of nobody else


def plain(stack, path, timeout=5):
    with requests.Session() as session:
        session.trust_env = False
        return session.get(f"http://127.0.0.1:{stack.ports['http']}{path}", timeout=timeout)


def ready(stack):
    answer = plain(stack, "/readyz")
    return answer.status_code == 200 or None


def test_a_database_that_is_away_costs_503_and_nothing_else(cluster):
    with Stack(cluster) as stack:
        before = stack.pids()
        ca_id = stack.query("SELECT ca_id FROM jitrca.issuer WHERE kind = 'issuing'")[0][0]
        lists = {path: plain(stack, path) for path in (f"/crl/{ca_id}.crl", f"/crl/{ca_id}/7f.crl")}
        with Load([stack], "away") as load:
            wait_until(lambda: len(load.receipts) > 5 or load.problems, "progress before")
            cluster.stop()
            try:
                # All sixteen are told, again and again; a 503 without Retry-After is a problem to Load.
                told = load.unavailable
                wait_until(lambda: load.unavailable >= told + 32 or load.problems, "503s")
                for path, answer in lists.items():
                    now = plain(stack, path)
                    assert now.status_code == 200, now.text
                    assert now.content == answer.content and now.headers["ETag"] == answer.headers["ETag"]
                    x509.load_der_x509_crl(now.content)
                assert plain(stack, f"/v1/cas/{ca_id}/certificate").status_code == 200
                assert plain(stack, "/healthz").status_code == 200
                answer = plain(stack, "/readyz")
                assert client.code(answer) == "not_ready" and answer.status_code == 503
                assert "database: " in answer.json()["detail"] and "Retry-After" in answer.headers
                got = len(load.receipts)
            finally:
                cluster.start()
            wait_until(lambda: len(load.receipts) > got + 10 or load.problems, "progress after")
        print(check(stack, load))
        assert stack.pids() == before, "a process was restarted for it"


class Hang:
    """Every COMMIT that changed jitrca.intent_round by event waits, within the COMMIT, until release()."""

    def __init__(self, stack, event):
        self.stack = stack
        self.event = event

    def __enter__(self):
        self.holder = psycopg2.connect(self.stack.database_url)
        self.holder.autocommit = True
        self.cursor = self.holder.cursor()
        self.cursor.execute(f"SELECT pg_advisory_lock({LOCK})")
        self.cursor.execute(
            "CREATE FUNCTION public.hang() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN PERFORM pg_catalog.pg_advisory_xact_lock({LOCK}); RETURN NULL; END $$;"
            f"CREATE CONSTRAINT TRIGGER hang AFTER {self.event} ON jitrca.intent_round DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION public.hang()")
        return self

    def wait(self):
        """The pid of the session whose COMMIT hangs."""
        def hanging():
            self.cursor.execute("SELECT pid FROM pg_stat_activity WHERE query = 'COMMIT' AND wait_event = 'advisory'"
                                " AND datname = current_database()")
            return self.cursor.fetchone()
        return wait_until(hanging, "a COMMIT that hangs", 8)[0]

    def release(self):
        self.cursor.execute(f"SELECT pg_advisory_unlock({LOCK})")

    def __exit__(self, *_):
        self.holder.close()
        with self.stack.db() as connection:
            connection.cursor().execute("DROP FUNCTION public.hang() CASCADE")


def admit_or_record(stage):
    return {"admit": "INSERT", "record": "DELETE"}[stage]


class Asker(threading.Thread):
    """One request whose answer is awaited elsewhere; answer is None when the link broke."""

    def __init__(self, stack, name):
        super().__init__()
        self.stack, self.name_, self.answer = stack, name, None
        self.body = {"csr": csr_pem(new_key()), "device_id": name}

    def ask(self):
        with client.admin(self.stack) as boss:
            return boss.post("/v1/certificates", json=self.body, headers={"Idempotency-Key": self.name_}, timeout=30)

    def run(self):
        with contextlib.suppress(requests.RequestException):
            self.answer = self.ask()

    def insist(self):
        """Repeats the key until it is answered."""
        def answered():
            with contextlib.suppress(requests.RequestException):
                answer = self.ask()
                return answer if answer.status_code != 503 else None
        return wait_until(answered, "an answer to the repeat")


@pytest.fixture(name="hung", scope="module")
def hung_stack(cluster):
    with Stack(cluster) as it:
        yield it


def settled(stack, repeat, orphans):
    """The last word on one key: certified once, nothing open, as many serials revoked as were given up."""
    wait_until(lambda: stack.query("SELECT count(*) FROM jitrca.intent") == [(0,)], "no open intent")
    walk(stack, {repeat.name_: repeat.insist().json()["certificate"]})
    assert stack.query("SELECT count(*) FROM jitrca.certificate WHERE device_id = %s", repeat.name_) == [(1,)]
    wait_until(lambda: not orphans_on_crl(stack)[1], "the orphan on its lists")
    assert len(orphans_on_crl(stack)[0]) == orphans


@pytest.mark.parametrize("stage,given_up", [("admit", 0), ("record", 1)])
def test_a_session_that_dies_within_commit_releases_nothing(hung, stage, given_up):
    before = len(orphans_on_crl(hung)[0])
    asker = Asker(hung, f"session-{stage}")
    with Hang(hung, admit_or_record(stage)) as hang:
        asker.start()
        hang.cursor.execute("SELECT pg_terminate_backend(%s)", (hang.wait(),))
        hang.release()
        asker.join()
    assert asker.answer.status_code == 503 and "Retry-After" in asker.answer.headers, asker.answer.text
    assert asker.insist().status_code == 201
    settled(hung, asker, before + given_up)


@pytest.mark.parametrize("stage,first,given_up", [("admit", 201, 1), ("record", 200, 0)])
def test_a_commit_that_outlives_its_server_is_found_by_the_next(hung, stage, first, given_up):
    """The frontend dies; PostgreSQL carries its COMMIT out, after the next frontend has looked for orphans."""
    before = len(orphans_on_crl(hung)[0])
    asker = Asker(hung, f"server-{stage}")
    with Hang(hung, admit_or_record(stage)) as hang:
        asker.start()
        hang.wait()
        old = hung.pids()["frontend"]
        os.kill(old, signal.SIGKILL)
        asker.join()
        assert asker.answer is None
        wait_until(lambda: hung.pids().get("frontend") not in (None, old), "the next frontend")
        hung.wait_ready()
        hang.release()
    assert asker.insist().status_code == first
    settled(hung, asker, before + given_up)


@pytest.mark.parametrize("stage", ["admit", "record"])
def test_a_database_that_dies_within_commit_is_told_at_once(hung, cluster, stage):
    before = len(orphans_on_crl(hung)[0])
    asker = Asker(hung, f"database-{stage}")
    with Hang(hung, admit_or_record(stage)) as hang:
        asker.start()
        hang.wait()
        cluster.stop(signal.SIGQUIT)
        try:
            asker.join(5)
            assert asker.answer.status_code == 503 and "Retry-After" in asker.answer.headers
        finally:
            cluster.start()
        wait_until(lambda: ready(hung), "ready again")
    assert asker.insist().status_code == 201
    settled(hung, asker, before + (stage == "record"))


class Relay:
    """Stands between a server and PostgreSQL; can lose one session's link on the server's side alone."""

    def __init__(self, cluster, where):
        self.upstream = str(cluster.dir / ".s.PGSQL.5432")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(where / ".s.PGSQL.5432"))
        self.listener.listen(64)
        self.links = {}  # backend's pid: the server's end
        self.cut_off = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self.upstream)
                threading.Thread(target=self._pump, args=(near, far, None), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near, near), daemon=True).start()

    def _pump(self, source, sink, near):
        named = False
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                # BackendKeyData: the pid behind a fixed head.
                at = -1 if near is None or named else data.find(b"K\0\0\0\x0c")
                if at >= 0:
                    named = True
                    self.links[int.from_bytes(data[at + 5:at + 9], "big")] = near
                sink.sendall(data)
        if near is None and source in self.cut_off:
            return  # PostgreSQL does not hear of it
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def cut(self, pid):
        near = self.links[pid]
        self.cut_off.add(near)
        near.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.close()


@pytest.mark.parametrize("stage,first,given_up", [("admit", 201, 1), ("record", 200, 0)])
def test_a_commit_that_outlives_its_link_is_found_by_the_same_server(cluster, stage, first, given_up):
    """The server lives, its link to a COMMIT is lost, and PostgreSQL carries it out only later."""
    with Stack(cluster) as stack:
        stack.stop()
        relay = Relay(cluster, stack.dir)
        try:
            direct = stack.database_url
            stack.settings["database_url"] = direct.replace(str(cluster.dir), str(stack.dir))
            stack.write_config()
            stack.start()
            old = stack.pids()
            asker = Asker(stack, f"link-{stage}")
            with Hang(stack, admit_or_record(stage)) as hang:
                asker.start()
                relay.cut(hang.wait())
                asker.join(15)
                assert asker.answer.status_code == 503 and "Retry-After" in asker.answer.headers, asker.answer.text
                # Not before the server has looked for what it gave up.
                wait_until(lambda: b"record_failed" in stack.log_path.read_bytes() or stage == "admit" and
                           b"intents_abandoned" in stack.log_path.read_bytes(), "the server gave it up", 8)
                hang.release()
            assert asker.insist().status_code == first
            settled(stack, asker, given_up)
            assert stack.pids() == old
        finally:
            stack.stop()
            relay.close()
