#!/usr/bin/python3
"""make bench: what all of it costs, beside what the machine can do at best, in one run.

    bench.py [--quick] [--runs N] [TOPIC …]

Prints a line for each figure as it is taken ("ok" and "short" are held against what was asked) and writes
build/bench-results.json. PostgreSQL runs with fsync on. The load generator shares the processors with the server
and PostgreSQL: the processor time of each stands apart. Without --quick, medians of at least five runs.
"""
import argparse
import json
import os
import signal
import sys

from measure import BUILD, Bench, as_csv

from bench_core import bench_core
from bench_crl import bench_crl
from bench_crowd import bench_crowd
from bench_house import bench_house
from bench_iot import bench_iot
from bench_issue import bench_issue
from bench_ocsp import bench_ocsp
from bench_peers import bench_peers
from bench_receipt import bench_blocked, bench_receipt
from bench_size import bench_size, bench_ten_million
from bench_tls import bench_tls

TOPICS = {"core": bench_core, "issue": bench_issue, "tls": bench_tls, "crowd": bench_crowd, "crl": bench_crl,
          "ocsp": bench_ocsp, "size": bench_size, "house": bench_house, "iot": bench_iot,
          "receipt": bench_receipt, "blocked": bench_blocked}
# Only when they are asked for by name: they take long, or want what is not everywhere.
APART = {"peers": bench_peers, "size10m": bench_ten_million}


def run_topics(bench, names):
    failed = []
    for name in names:
        bench.topic = name
        try:
            {**TOPICS, **APART}[name](bench)
        except Exception as error:  # the other figures are worth having
            if bench.quick:
                raise
            failed.append(name)
            print(f"{name}: {type(error).__name__}: {str(error)[:2000]}", file=sys.stderr, flush=True)
            bench.must_hold("the section came to its end", False, type(error).__name__)
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("topics", nargs="*", choices=[[], *TOPICS, *APART], metavar="TOPIC",
                        help=f"{', '.join(TOPICS)}; {', '.join(APART)}")
    parser.add_argument("--quick", action="store_true", help="one short run of each, to see that it works")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", help="instead of build/bench-results.json")
    options = parser.parse_args()
    # Whoever ends us ends what we started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bench = Bench(options.quick, options.runs)
    load_before = os.getloadavg()[0]
    try:
        failed = run_topics(bench, options.topics or list(TOPICS))
        result = bench.result()
    finally:
        bench.close()
    result["machine"]["load_before"] = load_before
    path = options.output or BUILD / ("bench-quick.json" if options.quick else "bench-results.json")
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(result, indent=2) + "\n")
    if not options.quick and not options.output:
        (BUILD / "bench-results.csv").write_text(as_csv(result["rows"]))
    counts = {verdict: sum(row["verdict"] == verdict for row in result["rows"]) for verdict in ("ok", "short", "skipped")}
    print(f"{counts['ok']} ok, {counts['short']} short, {counts['skipped']} skipped; written to {path}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
