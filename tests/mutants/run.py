"""Breaks each invariant on purpose, one patch at a time, and sees the test that guards it fail.

Each tests/mutants/*.patch says in its head what it breaks and which test must notice:

    # invariant: 5
    # breaks: SQL lets a revocation's date move
    # test: tests/api/test_revocation.py::test_invariant_5_revocation_is_final_and_its_date_stays
    # test: unit-server:test_issuance:invariant_1_what_cannot_be_recorded_is_not_released

(unit-ROOM:FILE:FUNCTION; one of the two forms.) Each test is run unbroken before its first mutant: it must pass. All
happens in a copy of the working tree; MUTANTS_BUILD names a build directory of test hooks whose objects are taken over.
Arguments are parts of the names of patches; without any, all are tried.
"""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "mutants"
BUILD = os.environ.get("MUTANTS_BUILD", "build/hooks")
PYTHON = sys.executable
JOBS = os.environ.get("JOBS", str(min(2, os.cpu_count() or 1)))
TEST_S = 300


class Problem(Exception):
    """The mutant could not be tried."""


def copy_tree(into):
    """All files that git knows of, as they are now, with their times, so that objects stay up to date."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, names)):
        if (ROOT / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, into / name)
    if (ROOT / BUILD).is_dir():
        # Not what is nested in it: build/asan and the like.
        shutil.copytree(ROOT / BUILD, into / BUILD, symlinks=True, ignore=lambda _, found: [
            name for name in found if name in ("asan", "tsan", "coverage", "fuzz", "corpus", "hooks", "clang", "analyzer")])


def head_of(patch):
    fields = dict(re.findall(r"^# (\w+): (.+)$", patch.read_text(), re.M))
    for name in ("invariant", "breaks", "test"):
        if name not in fields:
            raise Problem(f"{patch.name}: no '# {name}:' line")
    return fields


def make(tree, *targets):
    done = subprocess.run(["make", f"-j{JOBS}", f"BUILD={BUILD}", "TEST_HOOKS=1", *targets], cwd=tree, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise Problem("does not build: " + done.stdout[-1500:])


def run(command, tree, seen=None, **more):
    """(exit status, output). What hangs has failed; once seen matches the output, the end is not waited for."""
    with subprocess.Popen(command, cwd=tree, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace",
                          env={**os.environ, **more}, start_new_session=True) as child:
        late = threading.Timer(TEST_S, stop, (child,))
        late.start()
        output = []
        for line in child.stdout:
            output.append(line)
            if seen and re.search(seen, line):
                # A test that failed in mid-way may leave threads that never end.
                soon = threading.Timer(10, stop, (child,))
                soon.daemon = True
                soon.start()
                seen = None
        child.wait()
        hung = late.finished.is_set()
        late.cancel()
    return (-1 if hung else child.returncode), "".join(output)


def stop(child):
    """Ends our child and all that it started; twice, for wrappers clean up at the first."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, how)
            child.wait(20)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass


def run_unit(tree, test):
    """True: the function passed, False: it failed."""
    room, name, function = test.removeprefix("unit-").split(":")
    binary = f"{BUILD}/tests/unit/{room}/{name}"
    make(tree, binary)
    wrap = ["sh", "tests/unit/db/cluster.sh"] if room in ("db", "server") else []
    status, output = run([*wrap, binary], tree, seen=rf"\[  FAILED  \] {function}\b")
    if re.search(rf"\[\s+OK \] {function}$", output, re.M):
        return True, output
    if re.search(rf"\[  FAILED  \] {function}\b", output) or (
            status != 0 and re.search(rf"\[ RUN      \] {function}$", output, re.M)):
        return False, output
    raise Problem(f"{test}: not run: {output[-800:]}")


def run_python(tree, test):
    make(tree, "build")
    binary = str(tree / BUILD / "jitrca")
    status, output = run([PYTHON, "-m", "pytest", "-q", "-x", "-rfE", "-p", "no:cacheprovider", test], tree,
                         JITRCA_TEST_BIN=binary, JITRCA_TEST_RELEASE_BIN=binary)
    if status == 0 and re.search(r"^\d+ passed", output, re.M):
        return True, output
    if status == 1 and re.search(r"^FAILED ", output, re.M) or status == -1:
        return False, output
    raise Problem(f"{test}: not run: {output[-800:]}")


def run_test(tree, test):
    return run_unit(tree, test) if test.startswith("unit-") else run_python(tree, test)


def patched(tree, patch):
    return [tree / name for name in re.findall(r"^\+\+\+ b/(\S+)", patch.read_text(), re.M)]


def try_mutant(tree, patch, test):
    files = patched(tree, patch)
    kept = {path: path.read_bytes() for path in files}
    done = subprocess.run(["patch", "-p1", "-F2", "--no-backup-if-mismatch", "-s", "-i", str(patch)], cwd=tree, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    try:
        if done.returncode != 0:
            raise Problem(f"does not apply: {done.stdout.strip()[:300]}")
        return not run_test(tree, test)[0]
    finally:
        for path, content in kept.items():
            path.write_bytes(content)  # newer than its object: built again
            for leftover in (".rej", ".orig"):
                path.with_name(path.name + leftover).unlink(missing_ok=True)


def unbroken(tree, test):
    """None, or what is wrong with the test itself."""
    try:
        good, output = run_test(tree, test)
        return None if good else "fails without the mutant: " + output[-600:]
    except Problem as problem:
        return str(problem)


def main():
    wanted = sys.argv[1:]
    patches = [patch for patch in sorted(HERE.glob("*.patch")) if not wanted or any(part in patch.name for part in wanted)]
    heads = {patch: head_of(patch) for patch in patches}
    tree = pathlib.Path(tempfile.mkdtemp(prefix="jitrca-mutants-"))
    tree.chmod(0o755)  # PostgreSQL and the server run as other users than root
    passed = failed = 0
    try:
        copy_tree(tree)
        sound = {}
        for patch, fields in heads.items():
            began = time.monotonic()
            test = fields["test"]
            if test not in sound:
                sound[test] = unbroken(tree, test)
            why = sound[test]
            try:
                if why is None and not try_mutant(tree, patch, fields["test"]):
                    why = "SURVIVED"
            except Problem as problem:
                why = str(problem)
            passed, failed = passed + (why is None), failed + (why is not None)
            print(f"{'killed' if why is None else 'FAILED':7} {fields['invariant']:>3}  {patch.stem:34} "
                  f"{time.monotonic() - began:5.1f} s  {fields['breaks']}", flush=True)
            if why is not None:
                print(f"        {fields['test']}: {why}", flush=True)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
