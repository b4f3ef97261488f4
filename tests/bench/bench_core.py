"""The section "core": the issuing step alone, beside the bare cryptography in it."""
import json
import re
import shutil

from measure import ROOT, program, run

KINDS = {"p256": ("P-256", 256, 4096), "rsa2048": ("RSA-2048", 64, 2048), "p384": ("P-384", 64, 320)}


def instructions(bench, kind, rounds, what):
    """Of one round of what (bare, first or issue), as callgrind counts."""
    out = bench.dir / f"callgrind.{kind}.{what}"
    run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", f"--toggle-collect={what}_rounds",
         program("ca_issue"), kind, str(rounds), str(bench.dir), what], cwd=ROOT)
    return int(re.search(r"^(?:summary|totals): (\d+)", out.read_text(), re.M).group(1)) / rounds


def count(bench, kind, name, rounds):
    asked = f"issuing step, {name}: instructions over bare verify and sign"
    if shutil.which("valgrind") is None:
        bench.skip(asked, "<= 1.15", "valgrind is not installed")
        return
    bench.say(f"counting instructions, {name}")
    bare, first, issue = (instructions(bench, kind, rounds, what) for what in ("bare", "first", "issue"))
    bench.figure(f"instructions_{kind}", {"bare": round(bare), "first": round(first), "issue": round(issue)})
    bench.must(asked, issue / bare, at_most=1.15)
    bench.must(f"{asked}, each key met for the first time", issue / first, at_most=1.15)


def bench_core(bench):
    for kind, (name, counted, rounds) in KINDS.items():
        # Timed first: that makes the keys, which would take minutes under valgrind.
        rounds = bench.pick(32, rounds)
        figures = bench.repeat(f"issuing step, {name}", lambda k=kind, r=rounds: json.loads(
            run([program("ca_issue"), k, str(r), str(bench.dir)], cwd=ROOT)))
        bench.figure(f"issuing_step_{kind}", figures,
                     f"{figures['issue_us']['median']:.1f} us CPU, bare {figures['bare_us']['median']:.1f} us"
                     f" ({figures['ratio']['median']:.2f} x)")
        if kind == "p256":
            bench.must("issuing step, P-256: two threads over one", figures["two_to_one"]["median"], at_least=1.8)
        count(bench, kind, name, bench.pick(32, counted))
