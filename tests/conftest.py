"""Fixtures for tests against the running program. JITRCA_TEST_BIN names the program under test."""
import os
import pathlib
import signal
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from harness.stack import BIN, Cluster, Stack  # noqa: E402

LONG = bool(os.environ.get("JITRCA_TEST_LONG"))
# A test that hangs fails, and the others still run.
TEST_S = 3600 if LONG else 600


def pytest_configure(config):
    config.addinivalue_line("markers", "long: the same is tried shorter elsewhere; this runs in `make long` alone")


def has_long_form(item):
    return item.get_closest_marker("long") or "long_form" in item.fixturenames or hasattr(item.module, "LONG")


def pytest_collection_modifyitems(config, items):
    """The long run has what is longer there; the rest is in `make test`."""
    for item in items:
        if not LONG and item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="runs in make long"))
    if LONG:
        config.hook.pytest_deselected(items=[item for item in items if not has_long_form(item)])
        items[:] = filter(has_long_form, items)


def out_of_time(_signal, _frame):
    raise TimeoutError(f"the test has not ended in {TEST_S} s")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(TEST_S)
    yield
    signal.alarm(0)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A throw-away PostgreSQL cluster; each stack makes a database of its own in it."""
    with Cluster() as it:
        yield it


@pytest.fixture(scope="module")
def stack(cluster):
    """A running jitrca with fast profiles, for the tests of one module."""
    with Stack(cluster) as it:
        yield it


@pytest.fixture(scope="session")
def hooks():
    """For tests of named points: a released program has none, and cannot be made to die there."""
    if "hooks" not in str(BIN) and not os.environ.get("JITRCA_TEST_HOOKS"):
        pytest.skip("needs a build with TEST_HOOKS=1: JITRCA_TEST_BIN names none")


@pytest.fixture(scope="session")
def long_form():
    return LONG
