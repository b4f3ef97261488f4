"""What all sections of `make bench` share: the load generator, processor time of others, medians, and the table."""
import contextlib
import csv
import io
import json
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("JITRCA_TEST_BIN", str(ROOT / "build" / "jitrca"))
BUILD = pathlib.Path(os.environ["JITRCA_TEST_BIN"]).resolve().parent

from harness import client  # noqa: E402
from harness.stack import Cluster, Stack, child_pids  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")
CSR_BYTES = 256  # a record of the generator's file (tests/bench/load.h)


def program(name):
    return str(BUILD / "tests" / "bench" / name)


# -- processor time and memory of others ------------------------------------------------------------


def cpu_s(pid):
    """Processor time of a process with all its threads, also those that ended: its clock, in nanoseconds' steps."""
    return time.clock_gettime(~pid << 3 | 2)


def reaped_s(pid):
    """Of the children that it has waited for."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(field) for field in fields[13:15]) / TICK


def family_cpu_s(pid):
    """Of a process, its living children and those that it has waited for: PostgreSQL's sessions come and go."""
    total = cpu_s(pid) + reaped_s(pid)
    for child in child_pids(pid):
        with contextlib.suppress(OSError):
            total += cpu_s(child)
    return total


class Meter:
    """with Meter(stack) as meter: … Then meter.server_s, meter.by and meter.postgresql_s."""

    def __init__(self, stack):
        self.stack = stack
        self.by, self.server_s, self.postgresql_s = {}, 0.0, 0.0

    def _now(self):
        return ({role: cpu_s(pid) for role, pid in self.stack.pids().items()},
                family_cpu_s(self.stack.cluster.process.pid))

    def __enter__(self):
        self.before = self._now()
        return self

    def __exit__(self, *_):
        after = self._now()
        self.by = {role: after[0][role] - self.before[0].get(role, 0) for role in after[0]}
        self.server_s = sum(self.by.values())
        self.postgresql_s = after[1] - self.before[1]

    def per(self, count):
        """Microseconds for each of count."""
        return {"server_us": round(self.server_s / count * 1e6, 2), "postgresql_us": round(self.postgresql_s / count * 1e6, 2),
                **{f"{role}_us": round(value / count * 1e6, 2) for role, value in self.by.items()}}


def pss_kib(pid):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+) kB", text, re.M).group(1))


class Peak:
    """with Peak(pid, …) as peak: … Then peak.mib: by how much they grew together, at most."""

    def __init__(self, *pids):
        self.pids, self.mib = pids, 0.0

    @staticmethod
    def _kib(pid, field):
        return int(re.search(rf"^{field}:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M).group(1))

    def __enter__(self):
        self.before = {pid: self._kib(pid, "VmRSS") for pid in self.pids}
        for pid in self.pids:
            pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")
        return self

    def __exit__(self, *_):
        grown = sum(max(0, self._kib(pid, "VmHWM") - self.before[pid]) for pid in self.pids)
        self.mib = round(grown / 1024, 1)


# -- figures ----------------------------------------------------------------------------------------


def medians(runs):
    """Of a list of dicts of the same shape: each number's median, and the least and most beside it."""
    first = runs[0]
    out = {}
    for name, value in first.items():
        values = [run.get(name) for run in runs]
        if isinstance(value, dict):
            out[name] = medians([v if isinstance(v, dict) else {} for v in values])
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            known = [v for v in values if isinstance(v, (int, float))]
            out[name] = {"median": statistics.median(known), "least": min(known), "most": max(known)}
        else:
            out[name] = value
    return out


def quantiles(values):
    ordered = sorted(values)
    return {"p50_ms": round(statistics.median(ordered) * 1000, 2),
            "p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000, 2)}


class Bench:
    """One run of `make bench`: options, what is shared, and the table that grows."""

    def __init__(self, quick=False, runs=5):
        self.quick = quick
        self.runs = 1 if quick else runs
        self.rows, self.figures = [], {}
        self.topic, self.begun = "", time.monotonic()
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="jitrca-bench-"))
        # What was made once is made for good: no CSR is used twice in one database.
        self.csr_file = (self.dir if quick else BUILD / "tests" / "bench") / "csrs"
        self._limits = self._cluster = None
        self._sink = contextlib.ExitStack()

    def close(self):
        self._sink.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def pick(self, quick, full):
        return quick if self.quick else full

    def say(self, text):
        print(f"[{time.monotonic() - self.begun:6.0f} s] {self.topic}: {text} …", file=sys.stderr, flush=True)

    # -- the table ----------------------------------------------------------------------------------

    def _row(self, name, asked, measured, verdict):
        self.rows.append({"topic": self.topic, "name": name, "asked": asked, "measured": measured, "verdict": verdict})
        print(f"{verdict:8} {self.topic:7} {name[:78]:78} {asked:>12} {measured}", flush=True)

    def must(self, name, measured, at_most=None, at_least=None, unit=""):
        """A line of what must be shown."""
        asked = f"<= {at_most:g}" if at_most is not None else f">= {at_least:g}"
        well = measured <= at_most if at_most is not None else measured >= at_least
        self._row(name, f"{asked}{unit}", f"{measured:.4g}{unit}", "ok" if well else "short")

    def must_hold(self, name, holds, found):
        self._row(name, "holds", found, "ok" if holds else "short")

    def skip(self, name, asked, why):
        self._row(name, asked, why, "skipped")

    def figure(self, name, value, row=None):
        """A figure for the file; row: its line in the table as well."""
        self.figures.setdefault(self.topic, {})[name] = value
        if row is not None:
            self._row(name, "", row, "figure")

    def repeat(self, what, once):
        """Medians of once(), done as many times as is wanted."""
        results = []
        for run in range(self.runs):
            self.say(f"{what}, {run + 1} of {self.runs}")
            results.append(once())
        return medians(results)

    # -- what is shared -----------------------------------------------------------------------------

    @property
    def limits(self):
        """Bare cryptography and fdatasync, taken when first asked for and kept for this run."""
        if self._limits is None:
            topic, self.topic = self.topic, "limits"
            results = self.repeat("bare cryptography and fdatasync",
                                  lambda: json.loads(run([program("limits"), str(self.dir)])))
            self._limits = {name: value["median"] for name, value in results.items()}
            self.figure("bare", results)
            self.topic = topic
        return self._limits

    @property
    def bare_us(self):
        """Verify and sign, P-256: what CPU is counted in."""
        return self.limits["verify_and_sign_us"]

    def csrs(self, count):
        """Sees that the file holds so many."""
        if not self.csr_file.exists() or self.csr_file.stat().st_size < count * CSR_BYTES:
            self.say(f"making CSRs until there are {count}")
            run([program("load"), "csrs", "--csrs", str(self.csr_file), "--count", str(count), "--connections",
                 str(min(16, os.cpu_count()))])

    @contextlib.contextmanager
    def cluster(self):
        """A PostgreSQL with fsync: for each section its own, unless it must be quick."""
        if not self.quick:
            with Cluster(fsync=True) as cluster:
                yield cluster
            return
        if self._cluster is None:
            self._cluster = self._sink.enter_context(Cluster(fsync=True))
        yield self._cluster

    @contextlib.contextmanager
    def stack(self, config=None, **options):
        """jitrca serve, the release build."""
        settings = {"log_level": "info", "connections_max": 4000, **(config or {})}
        with self.cluster() as cluster, Stack(cluster, config=settings, **options) as stack:
            yield stack

    def result(self):
        return {"machine": machine(), "runs": self.runs, "quick": self.quick, "seconds": round(time.monotonic() - self.begun),
                "rows": self.rows, **self.figures, "limits": {**(self._limits or {}), **self.figures.get("limits", {})}}


def run(command, **options):
    result = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, **options)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {result.returncode}\n{result.stderr[-2000:]}")
    return result.stdout


def load(mode, **options):
    """Runs the generator; its figures."""
    command = [program("load"), mode]
    for name, value in options.items():
        if value is True:
            command.append(f"--{name.replace('_', '-')}")
        elif value not in (None, False):
            command += [f"--{name.replace('_', '-')}", str(value)]
    return json.loads(run(command))


def sources_for(connections):
    """So many loopback addresses that none is over connections_per_address_max."""
    return max(1, -(-connections // 100))


@contextlib.contextmanager
def bare_server(*arguments):
    """A bare libmicrohttpd; gives its ADDRESS:PORT and its process."""
    process = subprocess.Popen([program("bare"), *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield f"127.0.0.1:{int(process.stdout.readline())}", process
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(30)


@contextlib.contextmanager
def held(count, kind, **options):
    """Connections that are begun and not finished, while the block runs."""
    command = [program("load"), "hold", "--kind", kind, "--connections", str(count), "--seconds", "300"]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.stdin.close()
        process.stdout.read()
        process.stdout.close()
        process.wait(30)


class Line:
    """A factory station at mutual TLS, with a manifest of as many units as will be asked for."""

    PREFIX = "unit"

    def __init__(self, bench, stack, units, station="line"):
        self.bench, self.stack = bench, stack
        self.next, self.units = 0, units
        bench.csrs(units)
        self.files = issue_to_file(stack, station, bench.dir, role="station")
        lines = "".join(f"{self.PREFIX}-{i:08d}\n" for i in range(units))
        with client.admin(stack) as boss:
            answer = boss.post("/v1/manifests", json={"id": f"{station}-m", "station": station, "profile": "device",
                                                      "quantity": units})
            assert answer.status_code == 201, answer.text
            answer = boss.request("PUT", f"/v1/manifests/{station}-m/devices", data=lines, timeout=600,
                                  headers={"Content-Type": "text/csv"})
            assert answer.status_code == 200, answer.text

    @property
    def tls(self):
        return {"connect": f"127.0.0.1:{self.stack.ports['stations']}", "ca": self.stack.ca_bundle, "cert": self.files[0],
                "key": self.files[1]}

    def take(self, count):
        first, self.next = self.next, self.next + count
        assert self.next <= self.units, f"{self.next} units wanted, the manifest has {self.units}"
        return first

    def issue(self, requests, connections, items=None, may_refuse=False):
        """One run of the generator with the processor time of all parts."""
        first = self.take(requests * (items or 1))
        with Meter(self.stack) as meter:
            before = self._transactions()
            figures = load("batch" if items else "issue", csrs=self.bench.csr_file, first=first, count=requests, items=items,
                           connections=connections, sources=sources_for(connections), prefix=self.PREFIX, **self.tls)
            transactions = self._transactions() - before
        good = figures["created"] if items else figures["statuses"].get("201", 0)
        if good != figures["items"] or good == 0:
            assert may_refuse, figures
        per = meter.per(max(1, good))
        return {**figures, **per, "certificates_per_s": round(good / figures["seconds"], 1),
                "commits_per_certificate": round(transactions / max(1, good), 4),
                "generator_us": round(figures["cpu_s"] / max(1, good) * 1e6, 2)}

    def _transactions(self):
        """Transactions that wrote: each took a number."""
        return self.stack.query("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")[0][0]


def issue_to_file(stack, name, directory, role="device"):
    """(certificate with chain, key) of a new station or device, as files."""
    key = client.new_key()
    with client.admin(stack) as boss:
        if role == "station":
            answer = boss.post("/v1/stations", json={"id": name, "rate_per_minute": 10000000})
            assert answer.status_code == 201, answer.text
        answer = boss.issue(name, key=key, profile=role)
        assert answer.status_code == 201, answer.text
    files = directory / f"{name}.crt", directory / f"{name}.key"
    files[0].write_text(answer.json()["certificate"] + answer.json()["chain"])
    files[1].write_text(client.key_pem(key))
    files[1].chmod(0o600)
    return [str(path) for path in files]


# -- the machine ------------------------------------------------------------------------------------


def first_line(*command):
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        return (done.stdout or done.stderr).splitlines()[0].strip()
    return None


def machine():
    cpu = re.search(r"^model name\s*:\s*(.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    memory = re.search(r"^MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text(), re.M)
    packages = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n", "libmicrohttpd12", "libgnutls30", "libpq5",
                               "libssl3", "golang-cfssl"], capture_output=True, text=True, check=False) \
        if shutil.which("dpkg-query") else None
    return {"processors": os.cpu_count(), "processor": cpu.group(1) if cpu else platform.machine(),
            "memory_mib": int(memory.group(1)) // 1024, "kernel": platform.release(), "load_after": os.getloadavg()[0],
            "commit": first_line("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
            "jitrca": first_line(os.environ["JITRCA_TEST_BIN"], "version"),
            "openssl": first_line("openssl", "version"),
            "packages": dict(line.split(" ", 1) for line in packages.stdout.splitlines() if " " in line) if packages else {}}


def as_csv(rows):
    out = io.StringIO()
    writer = csv.DictWriter(out, ["verdict", "topic", "name", "asked", "measured"], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
