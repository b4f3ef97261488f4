"""PostgreSQL hangs: the local IoT Core refuses in bounded time, the broker goes on with what it knows, all come back."""
import contextlib
import time

import botocore.exceptions
import pytest
import requests

from harness.loop import Loop
from harness.stack import SANITIZER, Cluster, wait_until

# Four seconds without an answer, and twice the time that a new connection is given. The rest is the machine's.
BOUND_S = 30 if SANITIZER else 15


class QuickCluster(Cluster):
    """Whose clients do not wait long for a connection."""

    def url(self, database):
        return super().url(database) + "&connect_timeout=2"


def refused(loop):
    """How long a call takes until it is refused, in AWS's words."""
    began = time.monotonic()
    with pytest.raises(botocore.exceptions.ClientError) as refusal:
        loop.api.describe_thing(thingName="known")
    answer = refusal.value.response
    assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]) == (503, "ServiceUnavailableException")
    return time.monotonic() - began


def answers(loop):
    with contextlib.suppress(botocore.exceptions.ClientError):
        return loop.thing("known")
    return None


def test_a_database_that_hangs_holds_nobody_up():
    with QuickCluster() as cluster, Loop(cluster) as loop:
        known = loop.enrol("known")
        fresh = loop.issue("fresh")
        loop.wait_settled()
        with cluster.hanging():
            first = refused(loop)
            assert first < BOUND_S
            # From now on nobody waits: each would need as long as that. A busy machine may hold one of them up.
            then = min(refused(loop) for _ in range(3))
            assert then < first / 2, (first, then)
            assert requests.get(f"{loop.core.url}/readyz", timeout=BOUND_S).status_code == 503
            assert any(one["event"] == "database_hangs" for one in loop.core.events())
            # Who is known comes in, publishes and is heard; who is not is not answered otherwise than before.
            with loop.device(known).connect() as device:
                assert device.publish("devices/known/up")
            with loop.device(fresh) as device:
                assert not device.try_connect()
            wait_until(lambda: loop.broker.events("registry_hangs"), "the broker's word of it", BOUND_S)
        wait_until(lambda: answers(loop), "the local IoT Core", 30)
        assert any(one["event"] == "database_answers" for one in loop.core.events())
        loop.wait_well()
        # Its try during the outage may have been registered since: refused once more or not, it comes in.
        with loop.device(fresh) as device:
            wait_until(device.try_connect, "the new device let in", 60, 0.05)
        loop.wait_settled(60)
        print(f"refused after {first:.1f} s, then within {then:.2f} s")
