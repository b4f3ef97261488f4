#!/usr/bin/python3
"""make bench: what issuance, revocation, memory, start and IoT Core cost; medians of several runs, ratios against limits of the same run.

Writes build/bench-results.json. PostgreSQL runs with fsync on. The load generator shares the machine's processors with
the server: its own cost stands beside each figure.
"""
import json
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
os.environ.setdefault("JITRCA_TEST_BIN", str(pathlib.Path(__file__).resolve().parents[2] / "build" / "jitrca"))

import requests  # noqa: E402
from cryptography import x509  # noqa: E402

from bench_iot import bench_iot  # noqa: E402
from harness import client  # noqa: E402
from harness.client import csr_pem, new_key  # noqa: E402
from harness.stack import Cluster, ROOT, Stack  # noqa: E402

RUNS = 3


def ecdsa_limit():
    """Raw P-256 signatures and verifications a second on one core (openssl speed)."""
    out = subprocess.run(["openssl", "speed", "-seconds", "1", "ecdsap256"], capture_output=True, text=True, check=True).stdout
    sign, verify = re.search(r"nistp256\)\s+\S+s\s+\S+s\s+([\d.]+)\s+([\d.]+)", out).groups()
    return {"sign_per_s": float(sign), "verify_per_s": float(verify),
            "verify_and_sign_us": round(1e6 / float(sign) + 1e6 / float(verify), 1)}


def cpu_of(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def own_cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def pss_kib(pid):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+) kB", text, re.M).group(1))


def quantiles(values):
    ordered = sorted(values)
    return {"p50_ms": round(statistics.median(ordered) * 1000, 2),
            "p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000, 2)}


def bench_memory(stack):
    by = {role: pss_kib(pid) for role, pid in stack.pids().items()}
    return {"pss_kib": by, "sum_mib": round(sum(by.values()) / 1024, 1), "limit_mib": 32}


def bench_start(stack):
    took = []
    for _ in range(RUNS):
        stack.stop()
        start = time.monotonic()
        stack.start()
        took.append(time.monotonic() - start)
    return {"start_to_ready_s": round(statistics.median(took), 3), "runs": [round(t, 3) for t in took], "limit_s": 1.0}


def bench_single(stack, count=300):
    """One connection, one request after the other."""
    csrs = [csr_pem(new_key()) for _ in range(count * RUNS)]
    medians = []
    with client.admin(stack) as boss:
        boss.get("/v1/certificates?limit=1")
        for run in range(RUNS):
            took = []
            before, own = {p: cpu_of(pid) for p, pid in stack.pids().items()}, own_cpu()
            for i in range(count):
                start = time.monotonic()
                answer = boss.post("/v1/certificates", json={"csr": csrs[run * count + i], "device_id": f"one-{run}-{i}"})
                took.append(time.monotonic() - start)
                assert answer.status_code == 201, answer.text
            cpu = {p: round((cpu_of(pid) - before[p]) / count * 1e6) for p, pid in stack.pids().items() if p in before}
            medians.append({**quantiles(took), "cpu_us_per_certificate": cpu,
                            "generator_cpu_us": round((own_cpu() - own) / count * 1e6)})
    return sorted(medians, key=lambda m: m["p50_ms"])[RUNS // 2]


def bench_batch(stack, limit, size=1000):
    rates = []
    with client.admin(stack) as boss:
        for run in range(RUNS):
            body = json.dumps({"requests": [{"csr": csr_pem(new_key()), "device_id": f"many-{run}-{i}"}
                                            for i in range(size)]})
            before = {p: cpu_of(pid) for p, pid in stack.pids().items()}
            start = time.monotonic()
            answer = boss.request("POST", "/v1/certificates/batch", data=body, headers={"Content-Type": "application/json"})
            took = time.monotonic() - start
            assert all(result["status"] == 201 for result in answer.json()["results"])
            cpu = {p: round((cpu_of(pid) - before[p]) / size * 1e6) for p, pid in stack.pids().items() if p in before}
            rates.append({"per_s": round(size / took), "us_per_certificate": round(took / size * 1e6),
                          "times_bare_verify_and_sign": round(took / size * 1e6 / limit["verify_and_sign_us"], 1),
                          "cpu_us_per_certificate": cpu})
    return sorted(rates, key=lambda rate: rate["per_s"])[RUNS // 2]


def bench_revocation(stack, count=40):
    """From the answer of a revocation to the entry on the shard, as a relying party sees it."""
    took = []
    with client.admin(stack) as boss, requests.Session() as party:
        for i in range(count):
            body = boss.issue(f"revoked-{i}").json()
            url = f"{stack.http_url}/crl/{body['ca']}/{body['serial'][2:4]}.crl"
            assert boss.post(f"/v1/certificates/{body['certificate_id']}/revoke", json={"reason": "superseded"}).status_code == 200
            start = time.monotonic()
            while True:
                crl = x509.load_der_x509_crl(party.get(url, timeout=5).content)
                if crl.get_revoked_certificate_by_serial_number(int(body["serial"], 16)):
                    break
                assert time.monotonic() - start < 10
                time.sleep(0.005)  # a relying party has no event to wait for; this is the figure's resolution
            took.append(time.monotonic() - start)
    return {**quantiles(took), "limit_p99_ms": 1000}


def bench_manifest(stack, lines=1_000_000):
    with client.admin(stack) as boss, tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        boss.post("/v1/stations", json={"id": "bench", "rate_per_minute": 1000000})
        boss.post("/v1/manifests", json={"id": "bench", "station": "bench", "profile": "device", "quantity": lines})
        file.writelines(f"unit-{i:09d}\n" for i in range(lines))
        file.flush()
        frontend = stack.pids()["frontend"]
        before = pss_kib(frontend)
        pathlib.Path(f"/proc/{frontend}/clear_refs").write_text("5")
        start = time.monotonic()
        with open(file.name, "rb") as data:
            answer = boss.request("PUT", "/v1/manifests/bench/devices", data=data, headers={"Content-Type": "text/csv"},
                                  timeout=600)
        took = time.monotonic() - start
        assert answer.status_code == 200, answer.text
        status = pathlib.Path(f"/proc/{frontend}/status").read_text()
        peak = int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.M).group(1))
        rss = int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.M).group(1))
        return {"lines": lines, "seconds": round(took, 1), "peak_growth_mib": round(max(0, peak - rss) / 1024, 1),
                "pss_growth_mib": round((pss_kib(frontend) - before) / 1024, 1), "limit_mib": 16}


def main():
    results = {"machine": {"processors": os.cpu_count(), "load_before": os.getloadavg()[0]}, "limits": ecdsa_limit()}
    with Cluster(fsync=True) as cluster, Stack(cluster, config={"log_level": "info"}, fast_seal=False) as stack:
        for name, bench in (("memory", bench_memory), ("start", bench_start), ("single", bench_single),
                            ("batch", lambda s: bench_batch(s, results["limits"])), ("revocation_to_shard", bench_revocation),
                            ("manifest", bench_manifest)):
            print(f"{name} …", file=sys.stderr, flush=True)
            results[name] = bench(stack)
            print(json.dumps({name: results[name]}), flush=True)
    print("iot …", file=sys.stderr, flush=True)
    with Cluster(fsync=True) as cluster:
        results["iot"] = bench_iot(cluster)
    print(json.dumps({"iot": results["iot"]}), flush=True)
    results["machine"]["load_after"] = os.getloadavg()[0]
    path = ROOT / "build" / "bench-results.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
