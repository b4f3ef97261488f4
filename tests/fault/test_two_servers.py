"""Two servers with one database: one of them listens to Mosquitto and is killed; both share AWS's subscription."""
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile

from harness import client
from harness.aws_double import ACCOUNT, KEYS, REGION, AwsDouble
from harness.broker import Identity
from harness.crowd import Crowd, check
from harness.loop import Loop
from harness.stack import Stack, alive, free_port, wait_until

DEVICES = 60


def subscription(stack):
    """What that server says of its subscription."""
    with client.admin(stack) as boss:
        return boss.get("/v1/iot/status").json()["targets"][0]["subscription"]


def kill_whole(stack):
    """As when its machine stops: none of its processes says good-bye."""
    pids = stack.pids()
    for pid in (pids.pop("supervisor"), *pids.values()):  # who would start the others again goes first
        os.kill(pid, signal.SIGKILL)
    stack.process.wait()
    stack.process = None
    wait_until(lambda: not any(alive(pid) for pid in pids.values()), "their end")


def test_the_other_server_listens_when_the_one_that_did_is_killed(cluster):
    with Loop(cluster) as loop:
        first = loop.stack
        with Stack(cluster, share=first, config={"iot_targets_file": loop.targets}, env=first.env) as second:
            wait_until(lambda: subscription(second) == "elsewhere", "the second to stand by")
            assert subscription(first) == "connected"
            devices = loop.issue_many([f"pair-{n}" for n in range(DEVICES)])
            crowd = Crowd(loop, devices, 120)
            crowd.start()
            wait_until(lambda: crowd.accepted >= DEVICES // 4, "a part of them", 60)
            kill_whole(first)
            wait_until(lambda: subscription(second) == "connected", "the second to listen", 30)
            crowd.finish()
            loop.wait_settled(90)
            check(loop, devices)
            assert loop.stack.query("SELECT count(*) FROM jitrca.security_event WHERE starts_with(kind, 'iot_')") == [(0,)]
            # Each was made ACTIVE by one of them: nobody was told twice.
            assert loop.stack.query(
                "SELECT count(*) FROM jitrca.outbox UNION ALL SELECT count(DISTINCT certificate_id) FROM iotcore.certificate"
                " WHERE certificate_id = ANY (%s) AND status = 'ACTIVE'", [one.id for one in devices]) == [(0,), (DEVICES,)]
            first.start()
            wait_until(lambda: subscription(first) == "elsewhere", "the first to stand by", 30)
            assert subscription(second) == "connected"


class PlainBroker:
    """Mosquitto as it comes, with TLS and a log of who subscribes to what; it knows the CA and no policies."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="jitrca-plain-"))
        self.port = free_port()
        self.log = self.dir / "log"
        self.process = None
        authority = Identity("the broker's CA", ca=True)
        self.server = authority.issue("localhost", eku=None)
        self.ca_file = self.dir / "ca.crt"
        self.ca_file.write_text(authority.pem)

    def start(self):
        certificate, key = self.server.write(self.dir)
        conf = self.dir / "mosquitto.conf"
        conf.write_text(f"user {'root' if os.getuid() == 0 else 'nobody'}\nlistener {self.port} 127.0.0.1\n"
                        f"allow_anonymous true\ncafile {self.ca_file}\ncertfile {certificate}\nkeyfile {key}\n"
                        f"log_type all\nlog_dest file {self.log}\n")
        self.process = subprocess.Popen(["mosquitto", "-c", str(conf)], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def subscriptions(self):
        """{(client id, filter)} as the log has them."""
        text = self.log.read_text() if self.log.exists() else ""
        return set(re.findall(r"^\d+: (\S+) 1 (\$share/\S+)$", text, re.M))

    def close(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
        shutil.rmtree(self.dir, ignore_errors=True)


def test_shared_subscriptions_are_one_of_each_server(cluster):
    with contextlib.closing(PlainBroker()) as broker, AwsDouble() as double, tempfile.TemporaryDirectory() as place:
        broker.start()
        targets = pathlib.Path(place) / "targets.json"
        targets.write_text(
            f'[{{"name": "double", "region": "{REGION}", "account": "{ACCOUNT}", "endpoint_url": "{double.url}",'
            f' "certificate_mode": "DEFAULT", "mqtt": {{"host": "localhost", "port": {broker.port}, "shared": true,'
            f' "ca_file": "{broker.ca_file}"}}}}]')
        (key, secret), = KEYS.items()
        env = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_EC2_METADATA_DISABLED": "true",
               "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        with Stack(cluster, config={"iot_targets_file": targets}, env=env) as first, \
                Stack(cluster, share=first, config={"iot_targets_file": targets}, env=env) as second, \
                client.admin(first) as boss:
            assert boss.post("/v1/cas/issuing-1/iot-registration", json={}).status_code == 200
            wait_until(lambda: [subscription(one) for one in (first, second)] == ["connected"] * 2, "both to listen", 60)
            host = re.sub(r"[+#/$]", "-", socket.gethostname()[:64])
            assert broker.subscriptions() == {
                (f"jitrca-service-{host}-{one.ports['https']}", "$share/jitrca/$aws/events/certificates/registered/+")
                for one in (first, second)}
        assert double.findings == []
