"""Connections that stall cost a bounded slot and no CPU, and a station is served beside them (invariant 17)."""
import contextlib
import os
import pathlib
import resource
import socket
import ssl
import time

import pytest
import requests

from harness import client
from harness.stack import SANITIZER, Stack, wait_until

LONG = bool(os.environ.get("JITRCA_TEST_LONG"))
STALLED = 2000 if LONG else 300
PROBES = 200 if LONG else 60
WATCH_S = 8 if LONG else 3
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid):
    """User and system time of a process so far, all threads."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def held(pid):
    """(file descriptors, resident KiB) of a process."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]
    return len(os.listdir(f"/proc/{pid}/fd")), int(resident)


def client_hello(ca_bundle):
    context = ssl.create_default_context(cafile=ca_bundle)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def connect(port, number):
    """From one of many loopback addresses, for each may have only so many connections."""
    plain = socket.socket()
    plain.settimeout(10)
    plain.bind((f"127.{1 + number % 50}.{1 + number // 50 % 250}.{1 + number % 200}", 0))
    plain.connect(("127.0.0.1", port))
    return plain


def stall(port, number, hello, ca_bundle):
    """One connection that stops: within its ClientHello, after it, within a body, or before a word."""
    plain = connect(port, number)
    how = number % 4
    if how == 0:
        plain.sendall(hello[:len(hello) // 2])
    elif how == 1:
        plain.sendall(hello)
    elif how == 2:
        plain = ssl.create_default_context(cafile=ca_bundle).wrap_socket(plain, server_hostname="localhost")
        plain.sendall(b"POST /v1/certificates HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                      b"Content-Length: 5000\r\n\r\n{\"csr\": \"half")
    return plain


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def probe(station, count, offset):
    """Latencies of issuances that a station asks for over its open connection."""
    took = []
    for i in range(count):
        began = time.monotonic()
        answer = station.issue(f"stall-{offset + i}")
        took.append(time.monotonic() - began)
        assert answer.status_code == 201, answer.text
    return took


def shown(took):
    return f"p50 {1000 * percentile(took, 0.5):.1f} ms, p99 {1000 * percentile(took, 0.99):.1f} ms"


@pytest.fixture(name="own")
def own_stack(cluster):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 3 * STALLED + 500)), hard))
    try:
        # Long enough that none is cut while we look; in the end all are.
        with Stack(cluster, config={"first_request_timeout": "60s" if LONG else "15s", "log_level": "warn"}) as it:
            yield it
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_invariant_17_stalled_connections_cost_a_slot_and_no_cpu(own):
    frontend = own.pids()["frontend"]
    hello = client_hello(own.ca_bundle)
    stalled = []
    names = [f"stall-{i}" for i in range(4 * PROBES)]
    with client.station(own, "st-stall", device_ids=names, quantity=4 * PROBES) as station, contextlib.ExitStack() as ended:
        ended.callback(lambda: [one.close() for one in stalled])
        probe(station, PROBES // 4, 0)  # caches and connections are warm
        quiet = probe(station, PROBES, PROBES)
        idle = cpu_s(frontend)
        time.sleep(WATCH_S)  # a measure of time, not a wait for something
        idle = cpu_s(frontend) - idle
        files, resident = held(frontend)
        began = time.monotonic()
        for number in range(STALLED):
            port = own.ports["https" if number % 8 < 4 else "stations"]
            stalled.append(stall(port, number, hello, own.ca_bundle))
        opened = time.monotonic() - began
        wait_until(lambda: held(frontend)[0] >= files + STALLED * 9 // 10, "the server's side of the connections", 20)

        busy = cpu_s(frontend)
        time.sleep(WATCH_S)
        busy = cpu_s(frontend) - busy
        files_now, resident_now = held(frontend)
        beside = probe(station, PROBES, 2 * PROBES)
        with client.Client(own.url, own.ca_bundle, token=station.session.headers["Authorization"].split()[1]) as late:
            began = time.monotonic()
            assert late.issue(f"stall-{4 * PROBES - 1}").status_code == 201, "a station that connects only now"
            fresh = time.monotonic() - began
        with requests.get(f"{own.http_url}/readyz", timeout=10) as ready:
            assert ready.status_code == 200

        each = (resident_now - resident) / STALLED
        print(f"\n{STALLED} stalled in {opened:.1f} s; CPU of the frontend in {WATCH_S} s: idle {idle:.2f} s, beside them "
              f"{busy:.2f} s; {files_now - files} files, {each:.0f} KiB each\n"
              f"quiet: {shown(quiet)}; beside them: {shown(beside)}; a new connection {1000 * fresh:.0f} ms")
        assert files_now - files <= STALLED + 50
        assert SANITIZER or each < 100, "KiB a connection"
        # A spinning thread would cost WATCH_S.
        assert busy - idle < 0.1 * WATCH_S, "the stalled connections cost CPU"
        # In the end they are cut, all of them, and their slots are free again.
        wait_until(lambda: held(frontend)[0] <= files + 50, "the end of the stalled", 90)
        assert probe(station, 1, 3 * PROBES)
