"""make bench in its quick form: what is measured once a release must not rot in between."""
import json
import os
import subprocess

import pytest

from harness.stack import BIN, ROOT, SANITIZER

PROGRAMS = BIN.parent / "tests" / "bench"


def bench(tmp_path, *arguments, path=None):
    output = tmp_path / "results.json"
    environment = {**os.environ, "JITRCA_TEST_BIN": str(BIN), "TMPDIR": str(tmp_path), "PATH": path or os.environ["PATH"]}
    with subprocess.Popen(["/usr/bin/python3", "-B", str(ROOT / "tests/bench/bench.py"), "--quick", "--output", str(output),
                           *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            said, _ = process.communicate(timeout=400)
        except subprocess.TimeoutExpired:
            process.terminate()  # it ends what it started
            raise
    assert process.returncode == 0, said
    return json.loads(output.read_text()), said


@pytest.fixture(autouse=True)
def needs_programs(tmp_path):
    if not (PROGRAMS / "load").exists():
        pytest.fail(f"{PROGRAMS}/load is missing: make bench-programs")
    tmp_path.chmod(0o755)  # PostgreSQL's own user passes through
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)


@pytest.mark.long  # half a minute of measuring
@pytest.mark.skipif(SANITIZER, reason="figures of a sanitizer's build say nothing")
def test_issuance_lists_and_size_are_measured(tmp_path):
    results, said = bench(tmp_path, "issue", "crl", "size")
    verdicts = {row["verdict"] for row in results["rows"]}
    assert verdicts <= {"ok", "short", "skipped", "figure"}
    by_name = {row["name"]: row for row in results["rows"]}
    for name in ("batch: CPU of jitrca per certificate over bare verify and sign", "commits per certificate at 32 connections",
                 "largest of 256 shards", "cost per certificate (CPU) with 1000 over that with 200"):
        assert by_name[name]["verdict"] in ("ok", "short"), by_name[name]
    # A wrong count would have ended it; these are what a report is made of.
    single = results["issue"]["single requests, 32 keep-alive connections"]
    assert single["statuses"]["201"]["median"] == 100 and single["server_us"]["median"] > 0
    assert single["postgresql_us"]["median"] > 0 and 0 < single["commits_per_certificate"]["median"] <= 2
    assert results["limits"]["verify_and_sign_us"] > 10 and results["machine"]["processors"] > 0
    assert "written to" in said


def test_a_peer_that_is_absent_is_skipped(tmp_path):
    results, said = bench(tmp_path, "peers", path=str(tmp_path))
    assert [row["verdict"] for row in results["rows"]] == ["skipped"]
    assert "cfssl is not installed" in said
