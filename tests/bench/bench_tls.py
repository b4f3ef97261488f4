"""The section "tls": what our check adds to a mutual-TLS handshake, resumption, and handshakes that never end."""
import time

from harness import client
from harness.stack import wait_until

from measure import Meter, bare_server, cpu_s, held, issue_to_file, load

PATH = "/v1/rotation"  # the device that asks is found by its certificate
STALLED = 500
WATCHED_S = 5


def per_request(mode, who, count, cpu, **options):
    """CPU microseconds of the server for one request; cpu() is its processor time so far."""
    before = cpu()
    figures = load(mode, count=count, **who, **options)
    spent = cpu() - before
    assert figures["statuses"].get("200", 0) == figures["requests"] == count, figures
    return {"server_us": spent / count * 1e6, "per_s": figures["per_s"], "p50_ms": figures["p50_ms"],
            "p99_ms": figures["p99_ms"], "resumed_share": figures["resumed"] / max(1, figures["handshakes"]),
            "generator_us": figures["cpu_us_per_request"]}


def handshake(bench, who, cpu, path, tls):
    """What a connection costs beyond a request on one that stands: both in turn, so that a slow moment slows both."""
    count = bench.pick(20, 1000)
    each = {"path": path, "tls": tls, "connections": 4, "sources": 4}
    fresh = per_request("handshake", who, count, cpu, **each)
    kept = per_request("get", who, 2 * count, cpu, **each)
    return {**fresh, "request_us": kept["server_us"], "handshake_us": fresh["server_us"] - kept["server_us"]}


def ratio(bench, stack, device, tls):
    """Ours with its check beside libmicrohttpd's without any, with the same certificates."""
    pem = (stack.data / "tls" / "server.pem").read_text()
    certificate, key = bench.dir / "bare.crt", bench.dir / "bare.key"
    begin = pem.index("-----BEGIN PRIVATE KEY-----")
    end = pem.index("-----END PRIVATE KEY-----") + len("-----END PRIVATE KEY-----\n")
    certificate.write_text(pem[:begin] + pem[end:])
    key.write_text(pem[begin:end])
    with bare_server("memory", 300, "--tls", certificate, key) as (address, process):
        beside = {**device, "connect": address}

        def ours():
            return sum(cpu_s(pid) for pid in stack.pids().values())

        def once():
            return {"checked": handshake(bench, device, ours, PATH, tls),
                    "bare": handshake(bench, beside, lambda: cpu_s(process.pid), "/", tls)}
        figures = bench.repeat(f"full mutual handshakes, TLS 1.{tls - 10}", once)
    checked, bare = (figures[who]["handshake_us"]["median"] for who in ("checked", "bare"))
    bench.figure(f"full mutual handshake, TLS 1.{tls - 10}", figures,
                 f"CPU us of the server: {checked:.0f}, without a check {bare:.0f}")
    bench.must(f"full mutual handshake with our check over one without, TLS 1.{tls - 10}", checked / max(1, bare), at_most=1.15)


def resumption(bench, stack, device, tls):
    def ours():
        return sum(cpu_s(pid) for pid in stack.pids().values())
    figures = bench.repeat(f"resumed handshakes, TLS 1.{tls - 10}", lambda: per_request(
        "handshake", device, bench.pick(20, 1000), ours, path=PATH, tls=tls, connections=4, sources=4, resume=True))
    bench.figure(f"resumed mutual handshake, TLS 1.{tls - 10}", figures,
                 f"with its request {figures['server_us']['median']:.0f} us CPU of jitrca")
    bench.must(f"resumed of those that may be, TLS 1.{tls - 10}", figures["resumed_share"]["median"],
               at_least=bench.pick(0.7, 0.95))


def revoked(bench, stack):
    """A session of a certificate that was revoked meanwhile is worth nothing."""
    cert, key = issue_to_file(stack, "resumed-and-revoked", bench.dir)
    who = {"connect": f"127.0.0.1:{stack.ports['https']}", "ca": stack.ca_bundle, "cert": cert, "key": key}
    with client.admin(stack) as boss:
        found = boss.get("/v1/certificates?device_id=resumed-and-revoked").json()["certificates"][0]
        assert boss.post(f"/v1/certificates/{found['certificate_id']}/revoke", json={"reason": "superseded"}).status_code == 200
    statuses = {}

    def settled():
        figures = load("handshake", count=4, path=PATH, resume=True, **who)
        statuses.clear()
        statuses.update(figures["statuses"])
        return set(figures["statuses"]) == {"401"}
    try:
        wait_until(settled, "a refusal", 5)
        refused = True
    except TimeoutError:
        refused = False
    bench.must_hold("resumed sessions of a revoked certificate are refused", refused, str(statuses))


def stalled(bench, stack, kind):
    """Processor time of all parts while so many handshakes hang."""
    with held(bench.pick(50, STALLED), kind, connect=f"127.0.0.1:{stack.ports['https']}", ca=stack.ca_bundle,
              sources=10) as standing:
        def once():
            with Meter(stack) as meter:
                time.sleep(bench.pick(1, WATCHED_S))  # it is the time that is measured
            return {"server": meter.server_s / bench.pick(1, WATCHED_S)}
        figures = bench.repeat(f"{standing['held']} connections held at {kind}", once)
    assert standing["held"] == bench.pick(50, STALLED), standing
    return figures["server"]["median"]


def quiet(bench, stack):
    with Meter(stack) as meter:
        time.sleep(bench.pick(1, WATCHED_S))  # as above
    return meter.server_s / bench.pick(1, WATCHED_S)


def bench_tls(bench):
    config = {"first_request_timeout": "120s", "idle_timeout": "120s"}
    with bench.stack(config=config) as stack:
        cert, key = issue_to_file(stack, "caller", bench.dir)
        device = {"connect": f"127.0.0.1:{stack.ports['https']}", "ca": stack.ca_bundle, "cert": cert, "key": key}
        load("handshake", count=20, path=PATH, connections=4, **device)
        for tls in (13, 12):
            ratio(bench, stack, device, tls)
            resumption(bench, stack, device, tls)
        revoked(bench, stack)
        idle = quiet(bench, stack)
        for kind, what in (("hello", "half-sent ClientHellos"), ("connect", "connections that say nothing")):
            used = stalled(bench, stack, kind)
            bench.figure(f"{STALLED} {what}", {"cpu_s_per_s": used, "without": idle})
            bench.must(f"{bench.pick(50, STALLED)} {what}: CPU seconds a second beyond none", max(0.0, used - idle), at_most=0.01)
