"""The section "crowd": ten thousand slow connections from a thousand addresses, and a station that works on."""
from measure import Line, held, pss_kib

CONNECTIONS, ADDRESSES = 10000, 1000
LIMIT_MIB = 256


def bench_crowd(bench):
    count, addresses = bench.pick((200, 20), (CONNECTIONS, ADDRESSES))
    requests = bench.pick(30, 2000)
    # As it is configured by default: most of them are over connections_max.
    with bench.stack(config={"connections_max": 2000}) as stack:
        line = Line(bench, stack, requests * bench.runs * 4 + 400)
        line.issue(bench.pick(20, 400), 4)
        quiet = bench.repeat("a station alone", lambda: line.issue(requests, 4))
        bench.figure("quiet", quiet)
        for kind in ("headers", "hello"):
            pss = []

            def once():
                figures = line.issue(requests, 4)
                pss.append(sum(pss_kib(pid) for pid in stack.pids().values()) / 1024)
                return figures
            # They send an octet a second, and come again when they are sent away.
            with held(count, kind, connect=f"127.0.0.1:{stack.ports['https']}", ca=stack.ca_bundle, sources=addresses,
                      pause=1 if kind == "headers" else 0, reopen=True) as standing:
                figures = bench.repeat(f"beside {count} connections held at {kind}", once)
            bench.figure(f"beside {count} held at {kind}", {**figures, "held": standing, "pss_mib": max(pss)},
                         f"{standing['held']} stood at once; p99 {figures['p99_ms']['median']:.2f} ms,"
                         f" alone {quiet['p99_ms']['median']:.2f} ms")
            bench.must(f"a station's p99 beside {count} held at {kind}, over its quiet value",
                       figures["p99_ms"]["median"] / quiet["p99_ms"]["median"], at_most=2)
            bench.must(f"PSS of all processes beside {count} held at {kind}", max(pss), at_most=LIMIT_MIB, unit=" MiB")
