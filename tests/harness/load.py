"""Stations that never give up: each repeats its key until it is answered, whatever is killed meanwhile."""
import random
import threading
import time

import requests

from harness import client
from harness.client import csr_pem, new_key
from harness.stack import wait_until
from harness.walk import orphans_on_crl, walk

CLIENTS = 16
# Names per client in the manifest of the station's half: more than a test gets through.
NAMES = 3000
PAUSE_S = 0.1


class Load:
    """
    CLIENTS threads on all given stacks. Half of them ask with the token of an administrator, half with
    that of a station, whose manifest is charged for each certificate.
    """

    def __init__(self, stacks, prefix):
        self.stacks = stacks
        self.prefix = prefix
        self.manifest = f"{prefix}-m"
        self.tokens = (stacks[0].admin_token, self._station())
        self.stop = threading.Event()
        self.receipts = {}
        self.problems = []
        self.unavailable = 0  # answers of 503
        self.broken = 0       # no answer: the link broke
        self.recovered = 0    # the first answer after a failure was a replay: it had been issued
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run, args=(n,)) for n in range(CLIENTS)]

    def _station(self):
        names = [f"{self.prefix}-{n}-{step}" for n in range(1, CLIENTS, 2) for step in range(NAMES)]
        with client.station(self.stacks[0], f"{self.prefix}-st", device_ids=names, quantity=len(names),
                            manifest=self.manifest) as station:
            return station.session.headers["Authorization"].split()[1]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.finish()

    def finish(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(90)
        assert not any(thread.is_alive() for thread in self.threads), "a client never got its answer"

    def problem(self, text):
        with self.lock:
            self.problems.append(text)

    def _run(self, number):
        links = {}
        try:
            step = 0
            while not self.stop.is_set() and step < NAMES:
                name = f"{self.prefix}-{number}-{step}"
                step += 1
                body = {"csr": csr_pem(new_key()), "device_id": name}
                first = self._ask(links, number, name, body, first=True)
                if first is None:
                    continue
                with self.lock:
                    self.receipts[name] = first
                if self._ask(links, number, name, body) not in (first, None):
                    self.problem(f"{name}: the repeat gave another certificate")
        except Exception as error:  # a thread must not end unnoticed
            self.problem(repr(error))
        finally:
            for link in links.values():
                link.close()

    def _post(self, links, number, name, body):
        """One try on a server chosen at random; keeps the connection while it works."""
        stack = random.choice(self.stacks)
        link = links.get(stack)
        if link is None:
            link = links[stack] = client.Client(stack.url, stack.ca_bundle, token=self.tokens[number % 2])
        try:
            answer = link.post("/v1/certificates", json=body, headers={"Idempotency-Key": name}, timeout=20)
            # requests takes a body that was cut short for a whole one.
            if len(answer.content) == int(answer.headers.get("Content-Length", -1)):
                return answer
        except requests.RequestException:
            pass
        with self.lock:
            self.broken += 1
        links.pop(stack).close()
        return None

    def _ask(self, links, number, name, body, first=False):
        """One key until it is answered; gives up only a minute after the test's end. The PEM, or None."""
        end = None
        failed = False
        while True:
            answer = self._post(links, number, name, body)
            if answer is not None and answer.status_code in (200, 201):
                with self.lock:
                    self.recovered += first and failed and answer.status_code == 200
                return answer.json()["certificate"]
            if answer is not None and answer.status_code != 503:
                self.problem(f"{name}: {answer.status_code} {answer.text}")
                return None
            failed = True
            if answer is not None:
                with self.lock:
                    self.unavailable += 1
                if "Retry-After" not in answer.headers:
                    self.problem(f"{name}: 503 without Retry-After: {answer.text}")
            if self.stop.is_set():
                end = end or time.monotonic() + 60
                if time.monotonic() > end:
                    self.problem(f"{name}: never answered")
                    return None
                time.sleep(PAUSE_S)
            else:
                self.stop.wait(PAUSE_S)


def check(stack, load):
    """After the load has finished and the faults have ended: all is well by itself. Returns the figures."""
    assert not load.problems, load.problems[:10]
    stack.wait_ready(60)
    wait_until(lambda: stack.query("SELECT count(*) FROM jitrca.intent")[0][0] == 0, "orphaned intents closed", 60)
    report = walk(stack, load.receipts)
    assert report["receipts"] > 0 and not report["live_twice"], report
    wait_until(lambda: not orphans_on_crl(stack)[1], "orphaned serials on the CRL", 30)
    with client.admin(stack) as boss:
        answer = boss.get("/v1/audit/verify")
        assert answer.status_code == 200 and answer.json()["ok"] is True, answer.text
    report.update(orphans=len(orphans_on_crl(stack)[0]), answers_503=load.unavailable, links_broken=load.broken,
                  recovered=load.recovered)
    return report
