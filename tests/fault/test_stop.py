"""SIGTERM finishes what is in flight, and nothing else."""
import concurrent.futures
import re
import signal

import requests

from harness import client
from harness.client import new_key
from harness.stack import DEADLINE_S, Stack, wait_until


def waiting(stack):
    text = requests.get(f"{stack.http_url}/metrics", timeout=5).text
    return int(re.search(r"^jitrca_issuance_queue (\d+)$", text, re.M)[1])


def closed(stack):
    try:
        requests.get(f"{stack.http_url}/healthz", timeout=2)
        return False
    except requests.RequestException:
        return True


def test_a_request_in_flight_is_answered_before_the_end(cluster):
    with Stack(cluster) as stack, concurrent.futures.ThreadPoolExecutor(4) as pool, stack.db() as holder:
        bosses = [client.admin(stack) for _ in range(4)]
        holder.autocommit = False
        # Nothing is admitted while this is held.
        holder.cursor().execute("LOCK TABLE jitrca.intent IN ACCESS EXCLUSIVE MODE")
        asked = [pool.submit(boss.issue, f"stop-{i}", new_key()) for i, boss in enumerate(bosses)]
        wait_until(lambda: waiting(stack) == 4, "four requests in the pipeline")
        process = stack.process
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: closed(stack), "the end of new connections")
        assert process.poll() is None and not any(one.done() for one in asked)
        holder.rollback()
        assert [one.result(DEADLINE_S).status_code for one in asked] == [201] * 4
        assert process.wait(DEADLINE_S) == 0
        assert stack.query("SELECT count(*) FROM jitrca.intent")[0][0] == 0
        assert not [line for line in stack.events() if line["level"] == "error"], stack.log_tail()


def test_a_request_that_is_held_does_not_keep_the_server(cluster):
    with Stack(cluster, config={"shutdown_timeout": "1s"}) as stack, stack.db() as holder, \
            concurrent.futures.ThreadPoolExecutor(1) as pool:
        holder.autocommit = False
        holder.cursor().execute("LOCK TABLE jitrca.intent IN ACCESS EXCLUSIVE MODE")
        asked = pool.submit(client.admin(stack).issue, "stop-held", new_key())
        wait_until(lambda: waiting(stack) == 1, "a request in the pipeline")
        process = stack.process
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
        holder.rollback()
        assert isinstance(asked.exception(DEADLINE_S), requests.RequestException)
        # What it left open is revoked by the next server, and the device gets its certificate.
        stack.start()
        with client.admin(stack) as boss:
            assert boss.issue("stop-held", new_key()).status_code == 201
