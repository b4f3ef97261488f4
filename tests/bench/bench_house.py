"""The section "house": memory and start of an idle server, and a manifest of a million lines."""
import tempfile
import time

from harness import client

from measure import Peak, pss_kib


def memory(bench, stack):
    by = {role: pss_kib(pid) for role, pid in stack.pids().items()}
    bench.figure("pss_kib", by)
    bench.must("memory of an idle server: PSS of all processes", sum(by.values()) / 1024, at_most=32, unit=" MiB")


def start(bench, stack):
    def once():
        stack.stop()
        begun = time.monotonic()
        stack.start()
        return {"seconds": time.monotonic() - begun}
    figures = bench.repeat("start", once)
    bench.figure("start", figures)
    bench.must("from start to ready, with the usual sealing", figures["seconds"]["median"], at_most=1, unit=" s")


def manifest(bench, stack):
    lines = bench.pick(2000, 1_000_000)
    bench.say(f"a manifest of {lines} lines")
    with client.admin(stack) as boss, tempfile.NamedTemporaryFile("w", suffix=".csv", dir=bench.dir) as file:
        boss.post("/v1/stations", json={"id": "bench", "rate_per_minute": 1000000})
        boss.post("/v1/manifests", json={"id": "bench", "station": "bench", "profile": "device", "quantity": lines})
        file.writelines(f"unit-{i:09d}\n" for i in range(lines))
        file.flush()
        frontend = stack.pids()["frontend"]
        with Peak(frontend) as peak, open(file.name, "rb") as data:
            begun = time.monotonic()
            answer = boss.request("PUT", "/v1/manifests/bench/devices", data=data, headers={"Content-Type": "text/csv"},
                                  timeout=600)
            took = time.monotonic() - begun
        assert answer.status_code == 200, answer.text
    bench.figure("manifest", {"lines": lines, "seconds": took}, f"{lines} lines in {took:.1f} s")
    bench.must("memory that a manifest takes on its way", peak.mib, at_most=16, unit=" MiB")


def bench_house(bench):
    with bench.stack(config={"connections_max": 2000}, fast_seal=bench.quick) as stack:
        memory(bench, stack)
        manifest(bench, stack)
        start(bench, stack)
