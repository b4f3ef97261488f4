"""The whole loop with real parts: jitrca serve, the local IoT Core, Mosquitto with our plugin, and devices."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

import psycopg2
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from . import broker, client, iotcore
from .stack import BIN, Stack, free_port, wait_until

TARGET = "local"
WEBHOOK_SECRET = "canary-webhook-secret-0123456789"


class Issued:
    """A certificate of ours with its key, as harness.broker's Device wants one."""

    def __init__(self, key, body):
        self.key = key
        self.body = body
        self.certificate = x509.load_pem_x509_certificate(body["certificate"].encode())
        self.id = self.certificate.fingerprint(hashes.SHA256()).hex()
        self.name = body["device_id"]
        self.files = None

    @property
    def shard(self):
        return self.body["serial"][2:4]

    def write(self, directory):
        """(certificate with its chain, key): as files."""
        if self.files is None:
            base = pathlib.Path(directory) / self.id[:16]
            base.with_suffix(".crt").write_text(self.body["certificate"] + self.body["chain"])
            base.with_suffix(".key").write_text(client.key_pem(self.key))
            base.with_suffix(".key").chmod(0o600)
            self.files = str(base.with_suffix(".crt")), str(base.with_suffix(".key"))
        return self.files


class LoopBroker(broker.Broker):
    """The broker on the stack's database, with a certificate that the stack issued (profile server)."""

    def __init__(self, stack, options=None, lines=()):  # pylint: disable=super-init-not-called
        self.cluster = stack.cluster
        self.stack = stack
        self.options = options or {}
        self.lines = lines
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="jitrca-broker-"))
        self.port = free_port()
        self.process = None
        self.log_path = self.dir / "broker.log"
        self.ca_file = pathlib.Path(stack.ca_bundle)
        self.url = stack.database_url
        self.connection = psycopg2.connect(self.url)
        self.connection.autocommit = True

    def prepare(self):
        """Once the stack can sign."""
        key = client.new_key()
        with client.admin(self.stack) as boss:
            answer = boss.issue("broker", key=key, profile="server",
                                attributes={"dns": "localhost", "ip": "127.0.0.1"})
        assert answer.status_code == 201, answer.text
        self.write_conf(*Issued(key, answer.json()).write(self.dir))


class Loop:
    """
    Use as a context manager. config goes to serve, target over the entry of the targets' file, profiles over
    certs/, core and core_quotas to the local IoT Core, options to the broker's plugin. mqtt False: nobody
    subscribes, the webhook and the sweep alone bring events.
    """

    def __init__(self, cluster, config=None, target=None, profiles=None, core=None, core_quotas=None, options=None,
                 lines=(), binary=BIN, register=True, fast_seal=True, mqtt=True):
        self.cluster = cluster
        self.binary = binary
        self.register = register
        self.mqtt = mqtt
        self.targets = pathlib.Path(tempfile.mkdtemp(prefix="jitrca-loop-")) / "targets.json"
        self.stack = Stack(cluster, config={**(config or {}), "iot_targets_file": self.targets}, profiles=profiles,
                           binary=binary, fast_seal=fast_seal, env={
                               "AWS_ACCESS_KEY_ID": iotcore.KEY, "AWS_SECRET_ACCESS_KEY": iotcore.SECRET,
                               "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull,
                               "AWS_SHARED_CREDENTIALS_FILE": os.devnull})
        self.broker = LoopBroker(self.stack, options, lines)
        self.core = iotcore.LocalCore(cluster, {"iotcore_endpoint": f"localhost:{self.broker.port}", **(core or {})},
                                      core_quotas, share=self.stack, binary=binary)
        self.target = {
            "name": TARGET, "region": iotcore.REGION, "account": iotcore.ACCOUNT, "endpoint_url": self.core.url,
            "certificate_mode": "DEFAULT", "quotas": {"*": 1000},
            "webhook": {"secret_file": str(self.targets.parent / "webhook.secret")},
            "mqtt": {"host": "localhost", "port": self.broker.port, "shared": False, "ca_file": self.stack.ca_bundle},
            **(target or {}),
        }
        if not mqtt:
            del self.target["mqtt"]
        self.boss = None
        self.api = self.core.client()

    # -- life ---------------------------------------------------------------------------------------

    def write_targets(self):
        secret = self.targets.parent / "webhook.secret"
        secret.write_text(WEBHOOK_SECRET + "\n")
        secret.chmod(0o600)
        self.targets.write_text(json.dumps([self.target], indent=2))

    def __enter__(self):
        try:
            self.write_targets()
            self.stack.__enter__()
            self.core.__enter__()
            self.broker.prepare()
            self.broker.__enter__()
            self.boss = client.admin(self.stack)
            if self.register:
                self.register_ca()
            if self.register and self.mqtt:
                self.wait_listening()
        except BaseException:
            self.close()
            raise
        return self

    def close(self):
        if self.boss is not None:
            self.boss.close()
            self.boss = None
        with contextlib.suppress(subprocess.TimeoutExpired, AssertionError):
            self.broker.__exit__()
        self.core.close()
        self.stack.close()
        if not os.environ.get("JITRCA_TEST_KEEP"):
            shutil.rmtree(self.targets.parent, ignore_errors=True)

    def __exit__(self, kind, *_):
        try:
            if kind is None:  # otherwise what went wrong before is what counts
                self.broker.__exit__()
                self.core.__exit__()
                self.stack.__exit__()
        finally:
            self.close()

    def kill(self, part):
        """SIGKILL to one of frontend, signer, broker, core, postgres; what nobody restarts is started again."""
        if part in ("frontend", "signer"):
            os.kill(self.stack.pids()[part], signal.SIGKILL)
        elif part == "broker":
            self.broker.stop(signal.SIGKILL)
            self.broker.start(wait=False)
        elif part == "core":
            self.core.stop(signal.SIGKILL)
            self.core.start(wait=False)
        elif part == "postgres":
            self.cluster.restart(signal.SIGKILL)
            self.broker.reconnect()
        else:
            raise ValueError(part)

    def wait_well(self):
        """After faults: all parts are there again."""
        self.stack.wait_ready(60)
        wait_until(self.core.ready, "the local IoT Core", 60)
        self.broker.reconnect()
        if self.mqtt:
            self.wait_listening()

    # -- our CA there -------------------------------------------------------------------------------

    @property
    def ca_id(self):
        return self.stack.query("SELECT ca_id FROM jitrca.issuer WHERE kind = 'issuing' ORDER BY issuer_id")[0][0]

    def register_ca(self):
        answer = self.boss.post(f"/v1/cas/{self.ca_id}/iot-registration")
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def listening(self):
        """Whether jitrca's consumer has a session at the broker."""
        rows = self.broker.sql("SELECT connected FROM iotcore.session WHERE client_id LIKE 'jitrca-service%%'")
        return any(connected for connected, in rows)

    def wait_listening(self, deadline_s=60):
        try:
            wait_until(self.listening, "the consumer of registrations", deadline_s)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.stack.log_tail()}\n{self.broker.log_tail()}") from error

    # -- devices ------------------------------------------------------------------------------------

    def issue(self, name, key=None, **fields):
        key = key or client.new_key()
        answer = self.boss.issue(name, key=key, **fields)
        assert answer.status_code == 201, answer.text
        return Issued(key, answer.json())

    def issue_many(self, names, **fields):
        """[Issued], by batches."""
        found = []
        for start in range(0, len(names), 1000):
            some = [(name, client.new_key()) for name in names[start:start + 1000]]
            answer = self.boss.post("/v1/certificates/batch", json={"requests": [
                {"csr": client.csr_pem(key), "device_id": name, "idempotency_key": name, **fields} for name, key in some]})
            assert answer.status_code == 200, answer.text
            for (_, key), result in zip(some, answer.json()["results"]):
                assert result["status"] in (200, 201), result
                found.append(Issued(key, result["certificate"]))
        return found

    def device(self, issued, client_id=None, **options):
        return self.broker.device(issued, client_id or issued.name, **options)

    def tool(self, program, issued, *arguments, client_id=None):
        """The command line of mosquitto_pub or mosquitto_sub as this device."""
        certificate, key = issued.write(self.broker.dir)
        return [program, "-h", "localhost", "-p", str(self.broker.port), "--cafile", str(self.broker.ca_file), "--cert",
                certificate, "--key", key, "-i", client_id or issued.name, "-q", "1", *map(str, arguments)]

    def publish(self, issued, topic, payload="x", **options):
        """By mosquitto_pub, whose answer is returned."""
        return subprocess.run(self.tool("mosquitto_pub", issued, "-t", topic, "-m", payload, **options),
                              capture_output=True, text=True, timeout=30, check=False)

    def at_device(self, issued):
        """The device at our own mutual TLS."""
        return client.device(self.stack, issued.key, issued.body)

    def first_connection(self, issued, deadline_s=30):
        """Refused, registered, let in: (the connected Device, seconds from the first try)."""
        device = self.device(issued)
        start = time.monotonic()
        assert not device.try_connect(), "an unknown certificate was let in"
        wait_until(device.try_connect, f"{issued.name} let in", deadline_s, 0.05)
        return device, time.monotonic() - start

    def onboard(self, name, **fields):
        issued = self.issue(name, **fields)
        return issued, self.first_connection(issued)[0]

    def enrol(self, name, **fields):
        """Issued, refused once, ACTIVE, and nothing left to do; it is not connected."""
        issued = self.issue(name, **fields)
        with self.device(issued) as device:
            assert not device.try_connect()
        self.wait_status(issued, "ACTIVE")
        self.wait_settled()
        return issued

    # -- what is known there and here ---------------------------------------------------------------

    def status(self, issued):
        return self.broker.status(issued)

    def wait_status(self, issued, status, deadline_s=15):
        try:
            wait_until(lambda: self.status(issued) == status, f"{issued.name} {status} in IoT Core", deadline_s, 0.01)
        except TimeoutError as error:
            raise AssertionError(f"{error}; it is {self.status(issued)}: {self.outbox()[:5]}\n"
                                 f"{self.stack.log_tail()}") from error

    def seen(self, issued):
        """What our own database has last seen of it there."""
        rows = self.stack.query("SELECT status FROM jitrca.iot_certificate WHERE target = %s AND sha256 = decode(%s, 'hex')",
                                TARGET, issued.id)
        return rows[0][0] if rows else None

    def principals(self, thing):
        arns = self.api.list_thing_principals(thingName=thing)["principals"]
        return {arn.rsplit("/", 1)[1] for arn in arns}

    def policies(self, issued):
        found = self.api.list_attached_policies(target=f"{broker.ARN}cert/{issued.id}")["policies"]
        return {one["policyName"] for one in found}

    def thing(self, name):
        """DescribeThing's answer, or None."""
        try:
            return self.api.describe_thing(thingName=name)
        except self.api.exceptions.ResourceNotFoundException:
            return None

    def groups(self, thing):
        return {one["groupName"] for one in self.api.list_thing_groups_for_thing(thingName=thing)["thingGroups"]}

    def outbox(self):
        return self.stack.query("SELECT device_id, cause, attempts, error_code, error_text, failed_at FROM jitrca.outbox"
                                " ORDER BY device_id")

    def wait_settled(self, deadline_s=60):
        """Nothing is on its way to IoT Core any more."""
        try:
            wait_until(lambda: not self.outbox(), "an empty outbox", deadline_s)
        except TimeoutError as error:
            raise AssertionError(f"{error}: {self.outbox()[:5]}\n{self.stack.log_tail()}") from error

    def revoke(self, issued, reason="keyCompromise"):
        answer = self.boss.post(f"/v1/certificates/{issued.id}/revoke", json={"reason": reason})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path, **body):
        answer = self.boss.post(path, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def iot_status(self):
        answer = self.boss.get("/v1/iot/status")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def events(self, **query):
        return self.boss.get("/v1/events", params=query).json()["events"]

    def security_events(self, kind):
        return self.stack.query("SELECT certificate_id, device_id FROM jitrca.security_event WHERE kind = %s", kind)
