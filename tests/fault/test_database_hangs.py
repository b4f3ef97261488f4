"""A database that hangs, neither answering nor breaking a link: refused in bounded time, and all goes on afterwards."""
import threading
import time

import pytest
import requests

from harness import client
from harness.client import csr_pem, new_key
from harness.stack import SANITIZER, Cluster, Stack, wait_until

# Four seconds without an answer, and the time that a new connection is given: two of them. The rest is the machine's.
BOUND_S = 20 if SANITIZER else 12
ASKERS = 4


class Asker(threading.Thread):
    """Issues for one device after the other, each under its key until it has its certificate."""

    def __init__(self, stack, token, prefix):
        super().__init__(daemon=True)
        self.stack, self.token, self.prefix = stack, token, prefix
        self.stopping = threading.Event()
        self.issued = {}  # device → certificate id
        self.refused = []  # (status, code, seconds)
        self.problems = []

    def run(self):
        try:
            with client.Client(self.stack.url, self.stack.ca_bundle, token=self.token) as station:
                number = 0
                while not self.stopping.is_set():
                    self._until_issued(station, f"{self.prefix}-{number}")
                    number += 1
        except Exception as error:  # a thread must not end unnoticed
            self.problems.append(repr(error))

    def _until_issued(self, station, device_id):
        body = {"csr": csr_pem(new_key()), "device_id": device_id}
        for _ in range(1000):
            began = time.monotonic()
            answer = station.post("/v1/certificates", json=body, headers={"Idempotency-Key": device_id})
            took = time.monotonic() - began
            if answer.status_code in (200, 201):
                self.issued[device_id] = answer.json()["certificate_id"]
                return
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["Retry-After"]) >= 1
            self.refused.append((answer.status_code, client.code(answer), took))
            self.stopping.wait(0.2)
        raise AssertionError(f"{device_id}: never issued")


def readiness(stack):
    try:
        return requests.get(f"{stack.http_url}/readyz", timeout=BOUND_S)
    except requests.RequestException:
        return None


@pytest.fixture(name="own", scope="module")
def own_stack():
    with Cluster() as cluster, Stack(cluster) as it:
        it.stop()
        it.settings["database_url"] = f"{it.database_url}&connect_timeout=2"
        it.write_config()
        it.start()
        yield it


def test_who_asks_is_refused_in_time_and_nothing_is_lost(own):
    with client.station(own, "st-hang", device_ids=[f"hang-{a}-{i}" for a in range(ASKERS) for i in range(2000)],
                        quantity=ASKERS * 2000) as station:
        token = station.session.headers["Authorization"].split()[1]
        crl = requests.get(f"{own.http_url}/crl/issuing-1.crl", timeout=5).content
        askers = [Asker(own, token, f"hang-{a}") for a in range(ASKERS)]
        for asker in askers:
            asker.start()
        wait_until(lambda: all(asker.issued for asker in askers), "the first certificates")
        with own.cluster.hanging():
            began = time.monotonic()
            # What needs no database is served.
            assert requests.get(f"{own.http_url}/healthz", timeout=5).status_code == 200
            assert requests.get(f"{own.http_url}/crl/issuing-1.crl", timeout=5).content == crl
            wait_until(lambda: all(asker.refused for asker in askers), "a refusal of each", BOUND_S)
            answer = wait_until(lambda: [told for told in [readiness(own)] if told is not None and told.status_code == 503],
                                "the word of it", BOUND_S)[0]
            assert answer.json()["code"] == "not_ready" and "database" in answer.json()["detail"]
            first = time.monotonic() - began
            # From now on nobody waits.
            for asker in askers:
                del asker.refused[:]
            wait_until(lambda: all(len(asker.refused) > 3 for asker in askers), "more refusals", BOUND_S)
            slowest = max(took for asker in askers for _, _, took in asker.refused[1:])
            assert slowest < 1 or SANITIZER, slowest
        wait_until(lambda: (told := readiness(own)) is not None and told.status_code == 200, "readiness", 30)
        mark = {asker: len(asker.issued) for asker in askers}
        wait_until(lambda: all(len(asker.issued) > mark[asker] for asker in askers), "more certificates", 30)
        for asker in askers:
            asker.stopping.set()
        for asker in askers:
            asker.join(60)
            assert not asker.is_alive() and not asker.problems, asker.problems
    issued = {device: number for asker in askers for device, number in asker.issued.items()}
    print(f"\n{len(issued)} issued; all refused after {first:.1f} s, then within {slowest:.2f} s")
    live = own.query("SELECT device_id, encode(sha256, 'hex') FROM jitrca.certificate WHERE device_id LIKE 'hang-%%'"
                     " AND status = 'active'")
    assert dict(live) == issued and len(live) == len(issued), "each device has the certificate that it was given"
    with client.admin(own) as boss:
        assert boss.get("/v1/audit/verify").json()["ok"] is True
