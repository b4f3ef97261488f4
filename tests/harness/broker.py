"""Mosquitto with our plugin on a database of its own, certificates to meet it with, and MQTT clients."""
import contextlib
import datetime
import ipaddress
import json
import os
import pathlib
import queue
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time

import paho.mqtt.client as mqtt
import psycopg2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .stack import BIN, ROOT, free_port, wait_until

PLUGIN = pathlib.Path(os.environ.get("JITRCA_TEST_PLUGIN", BIN.parent / "jitrca-mosquitto.so")).resolve()
ACCOUNT, REGION = "123456789012", "eu-central-1"
ARN = f"arn:aws:iot:{REGION}:{ACCOUNT}:"
UTC = datetime.timezone.utc
DAY = datetime.timedelta(days=1)


def _pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


class Identity:
    """A certificate with its key; a CA makes more of them."""

    def __init__(self, name, issuer=None, ca=False, not_before=None, not_after=None, eku=ExtendedKeyUsageOID.CLIENT_AUTH,
                 subject=(), alternative=None):
        self.key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(UTC)
        names = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name), *subject])
        builder = (x509.CertificateBuilder().subject_name(names)
                   .issuer_name(issuer.certificate.subject if issuer else names)
                   .public_key(self.key.public_key()).serial_number(x509.random_serial_number())
                   .not_valid_before(not_before or now - DAY).not_valid_after(not_after or now + 30 * DAY)
                   .add_extension(x509.BasicConstraints(ca, None), critical=True))
        if ca:
            builder = builder.add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), True)
            builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False)
        elif eku:
            builder = builder.add_extension(x509.ExtendedKeyUsage([eku]), critical=False)
        if alternative:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        self.issuer = issuer
        self.certificate = builder.sign(issuer.key if issuer else self.key, hashes.SHA256())
        self.der = self.certificate.public_bytes(serialization.Encoding.DER)
        self.pem = _pem(self.certificate)
        self.id = self.certificate.fingerprint(hashes.SHA256()).hex()
        self.files = None

    def issue(self, name, **options):
        return Identity(name, issuer=self, **options)

    def write(self, directory, chain=()):
        """(certificate file, key file); chain: identities whose certificates follow."""
        if self.files is None:
            base = pathlib.Path(directory) / self.id[:16]
            base.with_suffix(".crt").write_text(self.pem + "".join(one.pem for one in chain))
            base.with_suffix(".key").write_text(self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode())
            self.files = str(base.with_suffix(".crt")), str(base.with_suffix(".key"))
        return self.files


class Client(mqtt.Client):
    """paho's, whose thread ends without a word at an alert behind the handshake, which paho does not expect."""

    after_loop = None

    def loop_forever(self, *args, **options):
        with contextlib.suppress(ssl.SSLError):
            super().loop_forever(*args, **options)
        self.after_loop()


class Device:
    """A paho client whose network thread runs; what happens to it comes by queues. Each connection is a new client."""

    def __init__(self, broker, identity, client_id, protocol=mqtt.MQTTv311, clean=True, will=None, keepalive=60):
        self.broker, self.identity, self.client_id = broker, identity, client_id
        self.protocol, self.clean, self.will, self.keepalive = protocol, clean, will, keepalive
        self.client = None
        self.code = None  # of CONNACK
        self.connected = threading.Event()
        self.gone = threading.Event()
        self.gone_at = None
        self.messages = queue.Queue()
        self.acks = queue.Queue()
        self.subacks = queue.Queue()

    def _make(self):
        certificate, key = self.identity.write(self.broker.dir)
        options = {} if self.protocol == mqtt.MQTTv5 else {"clean_session": self.clean}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.broker.ca_file)
        context.load_cert_chain(certificate, key)
        client = Client(self.client_id, protocol=self.protocol, **options)
        client.tls_set_context(context)
        if self.will:
            client.will_set(*self.will)
        client.on_connect = self._on_connect
        client.on_message = lambda _client, _data, message: self.messages.put(message)
        client.on_publish = lambda _client, _data, number: self.acks.put(number)
        client.on_subscribe = lambda _client, _data, number, granted, *_: self.subacks.put(granted)
        return client

    def _on_connect(self, _client, _data, _flags, code, *_):
        self.code = getattr(code, "value", code)
        if self.code == 0:
            self.connected.set()

    def _left(self, client, gone):
        """gone belongs to this connection: its thread may end after the next one has begun."""
        with contextlib.suppress(ssl.SSLError):
            client.disconnect()  # so that paho does not come again by itself
        if not gone.is_set():
            self.gone_at = time.monotonic()
            gone.set()

    def try_connect(self, timeout=10):
        """Whether it gets in."""
        self.gone = gone = threading.Event()
        self.connected = threading.Event()
        self.client = self._make()
        self.client.on_disconnect = lambda client, *_: self._left(client, gone)
        self.code = None
        for left in (self.acks, self.subacks):
            while not left.empty():
                left.get()
        try:
            self.client.connect("127.0.0.1", self.broker.port, self.keepalive)
        except (OSError, ssl.SSLError):
            self.gone.set()
            return False
        self.client.after_loop = lambda client=self.client: self._left(client, gone)
        # In a thread that paho knows of: otherwise it writes in the caller's, and two threads on one TLS connection break it.
        self.client.loop_start()
        wait_until(lambda: self.connected.is_set() or self.gone.is_set(), "an answer to CONNECT", timeout, 0.005)
        return self.connected.is_set()

    def connect(self):
        assert self.try_connect(), f"{self.client_id}: refused, code {self.code}\n{self.broker.log_tail()}"
        return self

    def subscribe(self, *filters, qos=1):
        """The granted QoS of each, or None if the connection was closed."""
        self.client.subscribe([(one, qos) for one in filters])
        wait_until(lambda: not self.subacks.empty() or self.gone.is_set(), "SUBACK", 10, 0.005)
        return [int(getattr(one, "value", one)) for one in self.subacks.get()] if not self.subacks.empty() else None

    def publish(self, topic, payload=b"x", qos=1, **options):
        """Whether it was acknowledged; False: the connection was closed."""
        self.client.publish(topic, payload, qos, **options)
        wait_until(lambda: not self.acks.empty() or self.gone.is_set(), "PUBACK", 10, 0.002)
        if self.acks.empty():
            return False
        self.acks.get()
        return True

    def next(self, timeout=10):
        return self.messages.get(timeout=timeout)

    def next_json(self, timeout=10):
        message = self.next(timeout)
        return message.topic, json.loads(message.payload)

    def close(self):
        if self.client is not None and not self.gone.is_set():
            self.client.disconnect()
            assert self.gone.wait(10)

    def drop(self):
        """Ends the connection without a DISCONNECT."""
        self.client.socket().shutdown(socket.SHUT_RDWR)
        assert self.gone.wait(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def statement(effect, action, *resources, **more):
    return {"Effect": effect, "Action": action, "Resource": [ARN + one if one != "*" else one for one in resources], **more}


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


# What `devices/<thing>/…` is to a thing that connects by its own name: the project's default policy.
DEFAULT_POLICY = document(
    statement("Allow", "iot:Connect", "client/${iot:Connection.Thing.ThingName}"),
    statement("Allow", ["iot:Publish", "iot:Receive"], "topic/devices/${iot:Connection.Thing.ThingName}/*"),
    statement("Allow", "iot:Subscribe", "topicfilter/devices/${iot:Connection.Thing.ThingName}/*"))
SERVICE_POLICY = document(
    statement("Allow", "iot:Connect", "client/jitrca-*"),
    statement("Allow", "iot:Subscribe", "topicfilter/$aws/events/*"),
    statement("Allow", "iot:Receive", "topic/$aws/events/*"))


class Broker:
    """A database with iotcore's tables and a Mosquitto with the plugin. Use as a context manager."""

    def __init__(self, cluster, options=None, lines=()):
        self.cluster = cluster
        self.options = options or {}
        self.lines = lines
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="jitrca-broker-"))
        self.port = free_port()
        self.process = None
        self.log_path = self.dir / "broker.log"
        self.ca_file = self.dir / "server-ca.crt"
        self.database = cluster.new_database()
        self.url = cluster.url(self.database)
        env = {**os.environ, "JITRCA_DATABASE_URL": self.url}
        subprocess.run([str(BIN), "migrate", "--config", os.devnull], env=env, check=True, stdout=subprocess.DEVNULL)
        self.connection = psycopg2.connect(self.url)
        self.connection.autocommit = True
        self.sql("INSERT INTO iotcore.account (account_id, region) VALUES (%s, %s) ON CONFLICT DO NOTHING", ACCOUNT, REGION)
        self.sql("UPDATE iotcore.account SET account_id = %s, region = %s", ACCOUNT, REGION)
        self._write()

    def _write(self):
        server_ca = Identity("the broker's CA", ca=True)
        server = Identity("127.0.0.1", issuer=server_ca, eku=ExtendedKeyUsageOID.SERVER_AUTH,
                          alternative=[x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                                       x509.DNSName("localhost")])
        self.ca_file.write_text(server_ca.pem)
        self.write_conf(*server.write(self.dir))

    def write_conf(self, certificate, key):
        (self.dir / "url").write_text(self.url + "\n")
        (self.dir / "data").mkdir()
        text = (ROOT / "docker" / "mosquitto.conf.in").read_text()
        for name, value in {"USER": "root" if os.getuid() == 0 else "nobody", "PORT": self.port, "ADDRESS": "127.0.0.1",
                            "CAFILE": self.ca_file, "CERTFILE": certificate, "KEYFILE": key, "PLUGIN": PLUGIN,
                            "DATABASE_URL_FILE": self.dir / "url", "DATA": self.dir / "data"}.items():
            text = text.replace(f"@{name}@", str(value))
        for name, value in self.options.items():
            text = "\n".join(line for line in text.splitlines() if not line.startswith(f"plugin_opt_{name} "))
            text = text.replace(f"plugin {PLUGIN}", f"plugin {PLUGIN}\nplugin_opt_{name} {value}")
        (self.dir / "mosquitto.conf").write_text(text + "\n" + "\n".join(self.lines) + "\n")
        (self.dir / "mosquitto.conf").chmod(0o600)

    # -- life ---------------------------------------------------------------------------------------

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self, wait=True):
        loaded = self.events("registry_loaded")
        wrapper = os.environ.get("JITRCA_TEST_BROKER_WRAPPER", "").split()
        self.process = subprocess.Popen([*wrapper, "mosquitto", "-c", str(self.dir / "mosquitto.conf")],
                                        stderr=open(self.log_path, "ab"), stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        if wait:
            wait_until(lambda: self.alive() and len(self.events("registry_loaded")) > len(loaded), "the broker", 60)

    def alive(self):
        assert self.process.poll() is None, f"mosquitto ended with {self.process.returncode}\n{self.log_tail()}"
        return True

    def cpu_s(self):
        """Processor time of the broker so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self, how=signal.SIGTERM):
        if self.process is None:
            return None
        self.process.send_signal(how)
        code = self.process.wait(60)
        self.process = None
        return code

    def __exit__(self, *_):
        try:
            if self.process is not None:
                died = self.process.poll()
                assert died is None, f"mosquitto ended with {died}\n{self.log_tail()}"
                code = self.stop()
                assert code == 0, f"mosquitto ended with {code}\n{self.log_tail()}"
        finally:
            self.connection.close()
            if self.process is not None and self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            if not os.environ.get("JITRCA_TEST_KEEP"):
                shutil.rmtree(self.dir, ignore_errors=True)

    def log_tail(self, size=6000):
        return self.log_path.read_text(errors="replace")[-size:] if self.log_path.exists() else ""

    def events(self, name=None):
        """Our lines of the log; one that looks like ours and is not JSON fails."""
        if not self.log_path.exists():
            return []
        found = [json.loads(line) for line in self.log_path.read_text(errors="replace").splitlines()
                 if line.startswith("{") and line.endswith("}")]
        return [one for one in found if name is None or one["event"] == name]

    # -- the registry, by SQL -----------------------------------------------------------------------

    def sql(self, text, *args):
        with self.connection.cursor() as cursor:
            cursor.execute(text, args)
            return cursor.fetchall() if cursor.description else cursor.rowcount

    @contextlib.contextmanager
    def transaction(self):
        """Locks the account first, as each transaction that changes the registry does."""
        self.sql("BEGIN")
        try:
            self.sql("SELECT 1 FROM iotcore.account FOR UPDATE")
            yield
            self.sql("COMMIT")
        except BaseException:
            self.sql("ROLLBACK")
            raise

    def reconnect(self):
        self.connection.close()
        self.connection = psycopg2.connect(self.url)
        self.connection.autocommit = True

    def change_seq(self):
        return self.sql("SELECT iotcore.last_change()")[0][0]

    def put_ca(self, ca, status="ACTIVE", auto=True, mode="DEFAULT"):
        self.sql("INSERT INTO iotcore.ca_certificate (certificate_id, pem, der, subject, status, auto_registration, mode,"
                 " not_before, not_after) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)", ca.id, ca.pem, ca.der,
                 ca.certificate.subject.public_bytes(), status, auto, mode, ca.certificate.not_valid_before,
                 ca.certificate.not_valid_after)
        return ca

    def put_certificate(self, identity, status="ACTIVE", policies=(), thing=None, ca=True):
        self.sql("INSERT INTO iotcore.certificate (certificate_id, ca_certificate_id, pem, status, mode, not_before, not_after)"
                 " VALUES (%s, %s, %s, %s, 'DEFAULT', %s, %s)", identity.id,
                 identity.issuer.id if ca and identity.issuer else None, identity.pem, status,
                 identity.certificate.not_valid_before, identity.certificate.not_valid_after)
        for policy in policies:
            self.attach(policy, f"cert/{identity.id}")
        if thing:
            self.put_thing(thing, identity)
        return identity

    def put_policy(self, name, text):
        with self.transaction():
            if self.sql("SELECT 1 FROM iotcore.policy WHERE name = %s", name):
                self.sql("INSERT INTO iotcore.policy_version (policy, version, document)"
                         " SELECT name, last_version + 1, %s FROM iotcore.policy WHERE name = %s", text, name)
                self.sql("UPDATE iotcore.policy SET last_version = last_version + 1, default_version = last_version + 1"
                         " WHERE name = %s", name)
            else:
                self.sql("INSERT INTO iotcore.policy (name, default_version, last_version, generation)"
                         " VALUES (%s, 1, 1, repeat('0', 64))", name)
                self.sql("INSERT INTO iotcore.policy_version (policy, version, document) VALUES (%s, 1, %s)", name, text)

    def attach(self, policy, target):
        self.sql("INSERT INTO iotcore.policy_attachment (policy, target) VALUES (%s, %s)", policy, target)

    def detach(self, policy, target):
        self.sql("DELETE FROM iotcore.policy_attachment WHERE policy = %s AND target = %s", policy, target)

    def put_thing(self, name, identity=None, attributes=None):
        self.sql("INSERT INTO iotcore.thing (name, attributes) VALUES (%s, %s) ON CONFLICT DO NOTHING", name,
                 json.dumps(attributes or {}))
        if identity:
            self.sql("INSERT INTO iotcore.thing_principal (thing, certificate_id) VALUES (%s, %s)", name, identity.id)

    def set_status(self, identity, status):
        self.sql("UPDATE iotcore.certificate SET status = %s WHERE certificate_id = %s", status, identity.id)

    def status(self, identity):
        rows = self.sql("SELECT status FROM iotcore.certificate WHERE certificate_id = %s", identity.id)
        return rows[0][0] if rows else None

    def device(self, identity, client_id, **options):
        return Device(self, identity, client_id, **options)

    def activate(self, identity, thing, policy="devices"):
        """What the JITR function does: policy and thing first, ACTIVE last."""
        with self.transaction():
            self.attach(policy, f"cert/{identity.id}")
            self.put_thing(thing, identity)
            self.set_status(identity, "ACTIVE")
