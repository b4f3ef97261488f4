"""The section "iot" of make bench: a fleet's first connections, and how fast a revocation reaches everybody."""
import contextlib
import socket
import ssl
import threading
import time

import requests
from cryptography import x509

from harness.crowd import Crowd, check, connect_packet
from harness.loop import Loop
from harness.stack import wait_until

from measure import cpu_s, family_cpu_s, quantiles


def processors(loop):
    pids = loop.stack.pids()
    return {"frontend": cpu_s(pids["frontend"]), "signer": cpu_s(pids["signer"]),
            "postgresql": family_cpu_s(loop.cluster.process.pid), "mosquitto": cpu_s(loop.broker.process.pid),
            "iotcore": cpu_s(loop.core.process.pid)}


def latencies(loop, names):
    """From the registration of a certificate by the plugin, which tells of it, to its ACTIVE."""
    return [float(row[0]) for row in loop.stack.query(
        "SELECT extract(epoch FROM i.activated_at - c.created_at) FROM jitrca.iot_certificate i"
        " JOIN iotcore.certificate c ON c.certificate_id = encode(i.sha256, 'hex') WHERE i.device_id = ANY (%s)", names)]


def commits(loop):
    """Of the database, as far as its backends have said by now: they do once a second."""
    time.sleep(1.1)  # backends say it once a second, and there is no event for it
    return loop.stack.query("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")[0][0]


def onboard(loop, fleet):
    devices = loop.issue_many([f"fleet-{n}" for n in range(fleet)], thing_type="sensor")
    loop.wait_settled()
    crowd = Crowd(loop, devices, 200)
    committed, before = commits(loop), processors(loop)
    crowd.start()
    figures = crowd.finish()
    loop.wait_settled()
    after = processors(loop)
    committed = commits(loop) - committed
    check(loop, devices)
    return {**figures, "commits_per_device": round(committed / fleet, 2), "cpu_ms_per_device": {part: round((after[part] - before[part]) / fleet * 1000, 2) for part in before},
            "generator_cpu_ms_per_device": round(crowd.cpu_s / fleet * 1000, 2),
            "event_to_active_in_the_crowd": quantiles(latencies(loop, [one.name for one in devices]))}


def calm(loop, each):
    """One device after the other: what one alone waits for."""
    devices = loop.issue_many([f"calm-{n}" for n in range(each)])
    loop.wait_settled()
    for issued in devices:
        assert not loop.device(issued).try_connect()
        loop.wait_status(issued, "ACTIVE")
    return quantiles(latencies(loop, [one.name for one in devices]))


class Victim:
    """A device with a session at the broker and one at our own mutual TLS."""

    def __init__(self, loop, issued):
        self.loop, self.issued = loop, issued
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(str(loop.broker.ca_file))
        context.load_cert_chain(*issued.write(loop.broker.dir))
        self.link = context.wrap_socket(socket.create_connection(("127.0.0.1", loop.broker.port)),
                                        server_hostname="localhost")
        self.link.sendall(connect_packet(issued.name, 0))
        assert self.link.recv(4) == b"\x20\x02\x00\x00"
        self.rest = loop.at_device(issued)
        assert self.rest.get("/v1/rotation").status_code == 200
        self.shard = f"{loop.stack.http_url}/crl/{issued.body['ca']}/{issued.shard}.crl"

    def cut(self):
        self.link.settimeout(10)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            assert self.link.recv(1) == b""

    def refused(self):
        wait_until(lambda: self.rest.get("/v1/rotation").status_code == 401, "a refusal", 10, 0.002)

    def listed(self):
        serial = int(self.issued.body["serial"], 16)
        with requests.Session() as party:
            wait_until(lambda: x509.load_der_x509_crl(party.get(self.shard, timeout=5).content)
                       .get_revoked_certificate_by_serial_number(serial), "the shard", 10, 0.005)

    def close(self):
        self.link.close()
        self.rest.close()


def revoke(loop, each):
    """From the moment that the request is sent."""
    devices = loop.issue_many([f"victim-{n}" for n in range(each)])
    loop.wait_settled()
    Crowd(loop, devices, 120).run()
    loop.wait_settled()
    took = {"to_session_cut": [], "to_rest_and_mtls_refusal": [], "to_crl_shard": []}
    for issued in devices:
        victim = Victim(loop, issued)

        def watch(until, into, start):
            until()
            took[into].append(time.monotonic() - start)
        start = time.monotonic()
        watchers = [threading.Thread(target=watch, args=(until, into, start)) for until, into in (
            (victim.cut, "to_session_cut"), (victim.refused, "to_rest_and_mtls_refusal"), (victim.listed, "to_crl_shard"))]
        for one in watchers:
            one.start()
        loop.revoke(issued)
        for one in watchers:
            one.join(15)
        victim.close()
    assert all(len(values) == each for values in took.values()), {name: len(values) for name, values in took.items()}
    return {name: quantiles(values) for name, values in took.items()}


def bench_iot(bench):
    fleet, each = bench.pick((20, 3), (1000, 100))
    with bench.cluster() as cluster, Loop(cluster, config={"log_level": "info"}, core={"log_level": "warn"},
                                              target={"quotas": {"*": 100000}}) as loop:
        bench.say(f"{fleet} first connections")
        crowd = onboard(loop, fleet)
        bench.figure("onboard", crowd)
        if not bench.quick:  # so few say nothing of batches
            bench.must("PostgreSQL's processor time of a first connection", crowd["cpu_ms_per_device"]["postgresql"], at_most=5,
                       unit=" ms")
        bench.say(f"{each} first connections one by one")
        alone = calm(loop, each)
        bench.figure("event_to_active", alone, f"p50 {alone['p50_ms']} ms, p99 {alone['p99_ms']} ms")
        bench.say(f"{each} revocations")
        figures = revoke(loop, each)
        bench.figure("revoke", figures)
        for name, what in (("to_session_cut", "the session is cut"), ("to_rest_and_mtls_refusal", "our listeners refuse"),
                           ("to_crl_shard", "the shard lists it")):
            bench.must(f"from revoke until {what}: p99", figures[name]["p99_ms"] / 1000, at_most=1, unit=" s")
