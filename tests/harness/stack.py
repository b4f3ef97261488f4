"""A private PostgreSQL cluster and a running jitrca, on ports and in directories of their own."""
import contextlib
import itertools
import json
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import psycopg2
import requests

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("JITRCA_TEST_BIN", ROOT / "build" / "jitrca")).resolve()
RELEASE_BIN = pathlib.Path(os.environ.get("JITRCA_TEST_RELEASE_BIN", BIN)).resolve()
SANITIZER = bool(os.environ.get("JITRCA_TEST_SANITIZER"))
DEADLINE_S = 60 if SANITIZER else 30


def postgres_bin():
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"),
                   key=lambda path: int(path.parts[-3]))
    if not found:
        raise RuntimeError("no PostgreSQL server found under /usr/lib/postgresql; run: make deps-test")
    return found[-1].parent


# Below those that the kernel gives to clients, each once, in an order of this process's own: what is bound a moment later
# is not taken by then, by a client or by a test beside this one.
PORTS = itertools.cycle(random.SystemRandom().sample(range(10240, 32768), 32768 - 10240))


def free_port():
    for port in PORTS:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(condition, what, deadline_s=DEADLINE_S, pause_s=0.02):
    """Polls an outside state (a process, a port, a row) that offers no event to wait for."""
    end = time.monotonic() + deadline_s
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {deadline_s} s")
        time.sleep(pause_s)


class Cluster:
    """PostgreSQL on a Unix socket only, in a directory of its own; as user postgres when we are root."""

    def __init__(self, fsync=False):
        self.fsync = "on" if fsync else "off"
        self.bin = postgres_bin()
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="jitrca-pg-"))
        self.data = self.dir / "data"
        self.user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        self.process = None
        self.databases = 0

    def _as_user(self, *command):
        if os.getuid() == 0:
            return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *map(str, command)]
        return [str(part) for part in command]

    def __enter__(self):
        try:
            if os.getuid() == 0:
                shutil.chown(self.dir, "postgres", "postgres")
            subprocess.run(self._as_user(self.bin / "initdb", "-D", self.data, "-U", self.user, "-A", "trust", "-E",
                                         "UTF8", "--locale=C", "--no-sync"), check=True, stdout=subprocess.DEVNULL, cwd="/")
            self.start()
        except BaseException:
            shutil.rmtree(self.dir, ignore_errors=True)
            raise
        return self

    def start(self):
        self.process = subprocess.Popen(
            self._as_user(self.bin / "postgres", "-D", self.data, "-k", self.dir, "-c", "listen_addresses=", "-c",
                          "max_connections=200", "-c", f"fsync={self.fsync}", "-c", "unix_socket_permissions=0777"),
            stdout=subprocess.DEVNULL, stderr=open(self.dir / "log", "ab"), cwd="/")
        wait_until(self.ready, "PostgreSQL", 60)

    def ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"PostgreSQL ended:\n{(self.dir / 'log').read_text(errors='replace')[-2000:]}")
        try:
            psycopg2.connect(self.url("postgres")).close()
            return True
        except psycopg2.OperationalError:
            return False

    def stop(self, how=signal.SIGINT):
        """SIGINT: fast shutdown; SIGQUIT: immediate; SIGKILL: the postmaster dies (its children follow)."""
        if self.process is None:
            return
        orphans = []
        if how == signal.SIGKILL:
            # Held still, it makes no child that is not on the list.
            self.process.send_signal(signal.SIGSTOP)
            orphans = self.backends()
        self.process.send_signal(how)
        self.process.wait()
        self.process = None
        if how == signal.SIGKILL:
            # They end when they next wait for something. A new postmaster refuses to start before.
            wait_until(lambda: not any(born(pid) == at for pid, at in orphans), "the end of old backends")
            # Their numbers may be used again; these files are of nobody now.
            for stale in (self.data / "postmaster.pid", self.dir / ".s.PGSQL.5432.lock"):
                stale.unlink(missing_ok=True)

    def backends(self):
        """[(pid, when it was born)] of the postmaster's children: sessions, checkpointer and the like."""
        found = [(pid, born(pid)) for pid in child_pids(self.process.pid)]
        return [(pid, at) for pid, at in found if at is not None]

    def restart(self, how=signal.SIGINT):
        self.stop(how)
        self.start()

    @contextlib.contextmanager
    def hanging(self):
        """Every process of it stands still, as if its disk had gone."""
        pids = [self.process.pid]
        os.kill(pids[0], signal.SIGSTOP)  # first: it makes no more children
        pids += child_pids(pids[0])
        for pid in pids[1:]:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def url(self, database):
        return f"postgresql://{self.user}@/{database}?host={self.dir}"

    def new_database(self):
        self.databases += 1
        name = f"jitrca_{os.getpid()}_{self.databases}"
        with contextlib.closing(psycopg2.connect(self.url("postgres"))) as connection:
            connection.autocommit = True
            connection.cursor().execute(f'CREATE DATABASE "{name}"')
        return name

    def __exit__(self, *_):
        self.stop(signal.SIGQUIT)
        # Tens of thousands of files: half a minute that nobody needs to wait for.
        subprocess.Popen(["rm", "-rf", self.dir], start_new_session=True)


def _stat(pid):
    """The fields of /proc/PID/stat behind the name: state, parent …; None: there is no such process."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None


def alive(pid):
    stat = _stat(pid)
    return stat is not None and stat[0] != "Z"


def born(pid):
    """When a living process was started, in ticks since boot: with the pid it names the process for good."""
    stat = _stat(pid)
    return int(stat[19]) if stat is not None and stat[0] != "Z" else None


def child_pids(parent):
    found = []
    for entry in os.listdir("/proc"):
        stat = _stat(entry) if entry.isdigit() else None
        if stat is not None and stat[0] != "Z" and int(stat[1]) == parent:
            found.append(int(entry))
    return found


def children(pid):
    """Child processes as {role: pid}; the role is the first argument (signer, frontend)."""
    found = {}
    for child in child_pids(pid):
        with contextlib.suppress(OSError):
            argv = pathlib.Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if len(argv) > 1:
                found[argv[1].decode()] = child
    return found


class Stack:
    """`jitrca init` and `jitrca serve` on a new database. Use as a context manager."""

    PASSPHRASE = "canary-passphrase-correct-horse"

    def __init__(self, cluster, config=None, env=None, profiles=None, binary=BIN, init=True, share=None,
                 fast_seal=True):
        self.cluster = cluster
        self.binary = binary
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="jitrca-test-"))
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("JITRCA_")}
        self.env.update(env or {})
        self.process = None
        self.share = share  # another Stack: the same database, keys and profiles
        self.init = ["init", *(["--insecure-fast-seal"] if fast_seal else [])] if init else None
        self.ports = {name: free_port() for name in ("https", "stations", "http")}
        self.database = share.database if share else cluster.new_database()
        self.database_url = cluster.url(self.database)
        self.profiles = share.profiles if share else self.dir / "certs"
        self.data = share.data if share else self.dir / "data"
        if not share:
            shutil.copytree(ROOT / "certs", self.profiles)
            for name, change in (profiles or {}).items():
                path = self.profiles / f"{name}.json"
                content = json.loads(path.read_text()) if path.exists() else {}
                merge(content, change)
                path.write_text(json.dumps(content, indent=2))
        self.passphrase = (share.dir if share else self.dir) / "passphrase"
        if not share:
            self.passphrase.write_text(self.PASSPHRASE)
            self.passphrase.chmod(0o600)
        self.http_url = share.http_url if share else f"http://127.0.0.1:{self.ports['http']}"
        self.settings = {
            "database_url": self.database_url,
            "data_dir": self.data,
            "profiles_dir": self.profiles,
            "passphrase_file": self.passphrase,
            "public_url": f"https://127.0.0.1:{self.ports['stations']}",
            "public_http_url": self.http_url,
            "https": f"127.0.0.1:{self.ports['https']}",
            "stations": f"127.0.0.1:{self.ports['stations']}",
            "http": f"127.0.0.1:{self.ports['http']}",
            "server_names": "localhost,127.0.0.1",
            "log_level": "debug",
            **(config or {}),
        }
        self.config = self.dir / "jitrca.conf"
        self.log_path = self.dir / "serve.log"
        self.write_config()

    def write_config(self):
        self.config.write_text("".join(f"{key} = {value}\n" for key, value in self.settings.items()))

    # -- life ---------------------------------------------------------------------------------------

    def run(self, *command, check=True, **options):
        """Runs a subcommand to its end."""
        result = subprocess.run([str(self.binary), *map(str, command)], env=self.env, capture_output=True, text=True,
                                timeout=120, check=False, **options)
        if check and result.returncode != 0:
            raise AssertionError(f"jitrca {' '.join(map(str, command))}: exit {result.returncode}\n"
                                 f"{result.stdout}\n{result.stderr}")
        return result

    def __enter__(self):
        try:
            if self.init and not self.share:
                self.run(*self.init, "--config", self.config)
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def start(self, wait=True):
        self.process = subprocess.Popen([str(self.binary), "serve", "--config", str(self.config)], env=self.env,
                                        stderr=open(self.log_path, "ab"), stdout=subprocess.DEVNULL,
                                        stdin=subprocess.DEVNULL)
        if wait:
            self.wait_ready()

    def reload(self):
        """SIGHUP, until the old processes have ended and close no link under anybody any more."""
        before = self.pids()
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not any(alive(before[one]) for one in ("frontend", "signer")), "the old processes' end")
        self.wait_ready()

    def wait_ready(self, deadline_s=DEADLINE_S):
        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"jitrca serve ended with {self.process.returncode}:\n{self.log_tail()}")
            with contextlib.suppress(requests.RequestException):
                return requests.get(f"http://127.0.0.1:{self.ports['http']}/readyz", timeout=2).status_code == 200
            return False
        try:
            wait_until(ready, "jitrca ready", deadline_s)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.log_tail()}") from error

    def stop(self, how=signal.SIGTERM):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                for pid in [*children(self.process.pid).values(), self.process.pid]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self.process.wait()
                raise
        code = self.process.returncode if self.process else None
        self.process = None
        return code

    def restart(self):
        self.stop()
        self.start()

    def close(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop()
        keep = os.environ.get("JITRCA_TEST_KEEP")
        if not keep:
            shutil.rmtree(self.dir, ignore_errors=True)

    def __exit__(self, *_):
        try:
            self.stop()
            if SANITIZER:
                log = self.log_path.read_text(errors="replace")
                assert "ERROR: AddressSanitizer" not in log and "runtime error:" not in log and \
                    "LeakSanitizer" not in log, log[-8000:]
        finally:
            self.close()

    def pids(self):
        """{'supervisor': …, 'signer': …, 'frontend': …} as they are now."""
        return {"supervisor": self.process.pid, **children(self.process.pid)}

    def log_tail(self, size=6000):
        return self.log_path.read_text(errors="replace")[-size:] if self.log_path.exists() else ""

    def events(self):
        """The log so far, line by line; a line that is not JSON fails."""
        return [json.loads(line) for line in self.log_path.read_text().splitlines() if line.startswith("{")]

    # -- asking -------------------------------------------------------------------------------------

    @property
    def admin_token(self):
        return (self.data / "admin.token").read_text().strip()

    @property
    def url(self):
        return f"https://127.0.0.1:{self.ports['stations']}"

    @property
    def device_url(self):
        return f"https://127.0.0.1:{self.ports['https']}"

    @property
    def ca_bundle(self):
        return str(self.data / "keys" / "root.crt")

    def db(self):
        """A connection for checks; autocommit."""
        connection = psycopg2.connect(self.database_url)
        connection.autocommit = True
        return contextlib.closing(connection)

    def query(self, sql, *args):
        with self.db() as connection:
            cursor = connection.cursor()
            cursor.execute(sql, args)
            return cursor.fetchall()


def merge(into, change):
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        elif value is None:
            into.pop(key, None)
        else:
            into[key] = value
