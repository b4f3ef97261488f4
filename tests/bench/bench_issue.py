"""The section "issue": durable issuance end to end, a factory station over mutual TLS, fsync on."""
from measure import Line

SWEEP = (1, 2, 4, 8, 16, 32, 64, 126, 127, 128, 129, 192, 256, 257, 512, 1000, 2000)


def m(figures, name):
    return figures[name]["median"]


def describe(figures):
    return (f"{m(figures, 'certificates_per_s'):.0f}/s, p50 {m(figures, 'p50_ms'):.2f} p99 {m(figures, 'p99_ms'):.2f} ms;"
            f" CPU us: jitrca {m(figures, 'server_us'):.0f}, PostgreSQL {m(figures, 'postgresql_us'):.0f},"
            f" generator {m(figures, 'generator_us'):.0f}")


def costs(bench, what, figures, limit):
    bench.must(f"{what}: CPU of jitrca per certificate over bare verify and sign", m(figures, "server_us") / bench.bare_us,
               at_most=limit)
    bench.must(f"{what}: CPU of PostgreSQL per certificate over bare verify and sign",
               m(figures, "postgresql_us") / bench.bare_us, at_most=0.8)


def batch(bench, line):
    requests, items = bench.pick((1, 100), (10, 1000))
    figures = bench.repeat("batch API", lambda: line.issue(requests, min(2, requests), items=items))
    bench.figure("batch of 1000, 2 connections", figures, describe(figures))
    costs(bench, "batch", figures, 1.5)


def singles(bench, line):
    by = {}
    for connections, count in bench.pick(((1, 20), (32, 100)), ((1, 800), (8, 4000), (32, 6000))):
        by[connections] = bench.repeat(f"single requests, {connections} connections",
                                       lambda c=connections, n=count: line.issue(n, c))
        bench.figure(f"single requests, {connections} keep-alive connections", by[connections], describe(by[connections]))
    costs(bench, "single, 32 connections", by[32], 2)
    bench.must("commits per certificate at 32 connections", m(by[32], "commits_per_certificate"), at_most=0.2)
    syncs_ms = 2 * bench.limits["fdatasync_8k_us"] / 1000
    bench.must("a lone request: p99 beyond two fsyncs", m(by[1], "p99_ms") - syncs_ms, at_most=2, unit=" ms")


def sweep(bench, line):
    rates = {}
    for connections in bench.pick((1, 128), SWEEP):
        count = bench.pick(max(20, connections), max(2000 if connections > 1 else 500, 2 * connections))
        figures = bench.repeat(f"{connections} connections", lambda c=connections, n=count: line.issue(n, c))
        rates[connections] = figures
    bench.figure("by connections", {str(n): figures for n, figures in rates.items()},
                 ", ".join(f"{n}: {m(figures, 'certificates_per_s'):.0f}" for n, figures in rates.items()) + " /s")
    # A dip: fewer than the best of what fewer connections gave.
    worst, at, best = 1.0, 1, 0.0
    for n, figures in rates.items():
        rate = m(figures, "certificates_per_s")
        if best and rate / best < worst:
            worst, at = rate / best, n
        best = max(best, rate)
    failed = sum(figures["failures"][kind]["most"] for figures in rates.values() for kind in figures["failures"])
    bench.must(f"no dip from 1 to {max(rates)} connections: least over best before it (at {at})", worst, at_least=0.8)
    bench.must_hold("no connection lost or refused in that", failed == 0, f"{failed} failures")


def bench_issue(bench):
    sweep_units = sum(max(2000, 2 * n) for n in SWEEP)
    units = bench.pick(1500, bench.runs * (10000 + 800 + 4000 + 6000 + sweep_units) + 5000)
    with bench.stack() as stack:
        line = Line(bench, stack, units)
        line.issue(bench.pick(50, 2000), 16)  # what is made on first use is made
        batch(bench, line)
        singles(bench, line)
        sweep(bench, line)
