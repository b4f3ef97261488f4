"""The whole loop: jitrca, a local IoT Core and its broker on one database each, and devices that knock."""
import contextlib
import json
import os
import pathlib
import shutil
import tempfile
import types

from harness.broker import ACCOUNT, REGION, Broker, Device
from harness.client import admin, csr_pem, key_pem, new_key
from harness.iotcore import KEY, SECRET, LocalCore
from harness.stack import Stack, wait_until

WEBHOOK_SECRET = "canary-webhook-secret-0123456789"
TARGET = "local"


class IssuedIdentity:
    """A certificate as the API answered it, with its key, for harness.broker.Device."""

    def __init__(self, key, certificate):
        self.key, self.certificate = key, certificate
        self.id = certificate["certificate_id"]
        self.files = None

    def write(self, directory, chain=()):
        if self.files is None:
            base = pathlib.Path(directory) / self.id[:16]
            base.with_suffix(".crt").write_text(self.certificate["certificate"] + self.certificate["chain"])
            base.with_suffix(".key").write_text(key_pem(self.key))
            self.files = str(base.with_suffix(".crt")), str(base.with_suffix(".key"))
        return self.files


class Loop:
    """Use as a context manager. targets: changes to the one target, or a function that gets it."""

    def __init__(self, cluster, target=None, config=None, profiles=None, core_options=None, mqtt=True, register=True):
        self.cluster = cluster
        self.change, self.config, self.profiles = target or {}, config or {}, profiles
        self.core_options, self.mqtt, self.register = core_options or {}, mqtt, register
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="jitrca-loop-"))
        self.stack_of = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack_of:
            self.broker = stack_of.enter_context(Broker(self.cluster))
            share = types.SimpleNamespace(database_url=self.broker.url)
            self.core = stack_of.enter_context(LocalCore(self.cluster, share=share, **self.core_options))
            self.write_targets()
            env = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true",
                   "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
            self.stack = stack_of.enter_context(Stack(
                self.cluster, config={"iot_targets_file": self.dir / "targets.json", **self.config}, env=env,
                profiles=self.profiles))
            self.boss = stack_of.enter_context(admin(self.stack))
            self.iot = self.core.client()
            if self.register:
                self.register_ca()
            self.stack_of = stack_of.pop_all()
        return self

    def __exit__(self, *_):
        try:
            self.stack_of.close()
        finally:
            shutil.rmtree(self.dir, ignore_errors=True)

    def write_targets(self):
        secret = self.dir / "webhook.secret"
        secret.write_text(WEBHOOK_SECRET + "\n")
        secret.chmod(0o600)
        target = {"name": TARGET, "region": REGION, "account": ACCOUNT, "endpoint_url": self.core.url,
                  "certificate_mode": "DEFAULT", "webhook": {"secret_file": str(secret)},
                  "quotas": {name: 1000 for name in (
                      "CreateThing", "UpdateCertificate", "AttachPolicy", "AttachThingPrincipal", "DetachPolicy",
                      "DetachThingPrincipal", "ListAttachedPolicies", "GetPolicy", "CreatePolicy", "DescribeEndpoint",
                      "RegisterCertificate", "DescribeCertificate", "ListCertificatesByCA", "ListThingPrincipals")}}
        if self.mqtt:
            target["mqtt"] = {"host": "127.0.0.1", "port": self.broker.port, "ca_file": str(self.broker.ca_file)}
        target.update(self.change)
        (self.dir / "targets.json").write_text(json.dumps([target], indent=2))

    def register_ca(self):
        answer = self.boss.post("/v1/cas/issuing-1/iot-registration", json={})
        assert answer.status_code == 200, f"{answer.text}\n{self.stack.log_tail()}"
        if self.mqtt:
            self.wait_subscribed()
        return answer.json()

    def status(self):
        answer = self.boss.get("/v1/iot/status")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait_subscribed(self):
        try:
            wait_until(lambda: self.status()["targets"][0]["subscription"] == "connected", "the subscription", 30)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.status()}\n{self.stack.log_tail()}") from error

    # -- devices --------------------------------------------------------------------------------------

    def issue(self, device_id, **fields):
        key = new_key()
        answer = self.boss.issue(device_id, key, **fields)
        assert answer.status_code in (200, 201), answer.text
        return IssuedIdentity(key, answer.json())

    def device(self, identity, client_id=None, **options):
        return Device(self.broker, identity, client_id or identity.certificate["device_id"], **options)

    def cert(self, identity):
        return self.iot.describe_certificate(certificateId=identity.id)["certificateDescription"]

    def cert_status(self, identity):
        with contextlib.suppress(self.iot.exceptions.ResourceNotFoundException):
            return self.cert(identity)["status"]
        return None

    def policies(self, identity):
        arn = f"arn:aws:iot:{REGION}:{ACCOUNT}:cert/{identity.id}"
        return sorted(one["policyName"] for one in self.iot.list_attached_policies(target=arn)["policies"])

    def principals(self, thing):
        return sorted(one.rsplit("/", 1)[1] for one in self.iot.list_thing_principals(thingName=thing)["principals"])

    def wait_status(self, identity, want, deadline_s=20):
        try:
            wait_until(lambda: self.cert_status(identity) == want, f"{identity.id[:8]} {want}", deadline_s, 0.01)
        except TimeoutError as error:
            raise AssertionError(f"{error}; it is {self.cert_status(identity)}\n{self.outbox()}\n"
                                 f"{self.stack.log_tail()}") from error

    def wait_drained(self, deadline_s=30):
        try:
            wait_until(lambda: not self.outbox(), "an empty outbox", deadline_s)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.outbox()}\n{self.stack.log_tail()}") from error

    def outbox(self):
        return self.boss.get("/v1/iot/outbox").json()["rows"]

    def onboard(self, device_id, **fields):
        """Issued, refused once, ACTIVE; returns its identity."""
        identity = self.issue(device_id, **fields)
        with self.device(identity) as device:
            assert not device.try_connect()
        self.wait_status(identity, "ACTIVE")
        self.wait_drained()
        return identity

    def post(self, path, **body):
        answer = self.boss.post(path, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def events(self, **query):
        return self.boss.get("/v1/events", params=query).json()["events"]
