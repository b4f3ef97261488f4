"""The local IoT Core's broker: Mosquitto with our plugin, met by real MQTT clients over mutual TLS."""
import datetime
import json
import os
import pathlib
import re
import signal
import socket
import ssl
import statistics
import subprocess
import threading
import time

import paho.mqtt.client as mqtt
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from harness.broker import (ACCOUNT, DAY, DEFAULT_POLICY, SERVICE_POLICY, UTC, Broker, Identity, document,
                            statement)
from harness.stack import SANITIZER, Cluster, free_port, wait_until

pytestmark = [
    # With libasan preloaded into a program that was not built for it, glibc's gettext lock goes wrong and libpq waits for
    # it for ever. The plugin's parts run under the sanitizers in tests/unit/plugin, the whole under valgrind
    # (JITRCA_TEST_BROKER_WRAPPER).
    pytest.mark.skipif(SANITIZER, reason="the broker is Debian's, built without sanitizers"),
]

REGISTERED = "$aws/events/certificates/registered/"


def watched(cluster, options=None, lines=()):
    """A broker whose log says which changes it has read."""
    return Broker(cluster, options={"log_level": "debug", **(options or {})}, lines=["log_type debug", *lines])


@pytest.fixture(scope="module")
def factory():
    return Identity("factory CA", ca=True)


@pytest.fixture(scope="module")
def broker(cluster, factory):
    with watched(cluster) as it:
        it.put_ca(factory)
        it.put_policy("devices", DEFAULT_POLICY)
        it.put_policy("jitrca-service", SERVICE_POLICY)
        yield it


@pytest.fixture(scope="module")
def service(broker, factory):
    """Hears all events of the broker of this module; tests look for their own among them."""
    identity = broker.put_certificate(factory.issue("service"), policies=["jitrca-service"])
    with known(broker, broker.device(identity, "jitrca-1")).connect() as it:
        assert it.subscribe("$aws/events/#") == [1]
        yield it


def known(broker, device):
    """What SQL has changed is known to the broker: it has said so by the number of the change."""
    mark = Identity("mark")
    broker.put_certificate(mark, ca=False)
    # A CONNECT of an INACTIVE certificate is answered, one that is not known fails in TLS.
    broker.sql("DELETE FROM iotcore.certificate WHERE certificate_id = %s", mark.id)
    settle(broker)
    return device


def settle(broker):
    """Until the plugin says that it has read past the last change."""
    def followed():
        told = re.findall(rb'"event":"registry_(?:followed|loaded)".*?"seq":(\d+)', broker.log_path.read_bytes())
        return told and int(told[-1]) >= last
    last = broker.sql("SELECT iotcore.last_change()")[0][0]
    wait_until(followed, "the plugin to have followed", 10, 0.005)


def make_device(broker, factory, name, **options):
    """An ACTIVE one, attached to its thing, with the default policy."""
    identity = broker.put_certificate(factory.issue(name), policies=["devices"], thing=name)
    settle(broker)
    return identity, broker.device(identity, name, **options)


def hear(service, topic, timeout=10):
    """The next event on that topic; others are passed over."""
    end = time.monotonic() + timeout
    while True:
        message = service.next(max(0.01, end - time.monotonic()))
        if message.topic == topic:
            return message


def silent(service, topic_part):
    """Nothing of the kind has come: asked after a later event of another kind has."""
    found = []
    while not service.messages.empty():
        message = service.messages.get()
        if topic_part in message.topic:
            found.append(message.topic)
    assert not found


# -- who gets through TLS and the gate ----------------------------------------------------------------

def test_a_ca_that_nobody_registered_is_refused_in_tls(broker):
    stranger = Identity("stranger CA", ca=True).issue("device")
    device = broker.device(stranger, "device")
    assert not device.try_connect()
    assert broker.status(stranger) is None
    assert alert(broker, stranger) in ("unknown ca", "certificate unknown")


def alert(broker, identity, chain=()):
    """The TLS alert that a handshake ends in; None: it does not."""
    certificate, key = identity.write(broker.dir, chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(broker.ca_file)
    context.load_cert_chain(certificate, key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # there the client sees it in the handshake itself
    try:
        with socket.create_connection(("127.0.0.1", broker.port), 10) as plain, \
                context.wrap_socket(plain, server_hostname="127.0.0.1"):
            return None
    except ssl.SSLError as error:
        return re.sub(r".*ALERT_(\w+).*", r"\1", error.reason or str(error)).replace("_", " ").lower()


def test_a_first_connect_registers_and_says_so_once(broker, service, factory):
    new = factory.issue("first-1")
    device = broker.device(new, "first-1")
    before_ms = time.time() * 1000
    assert not device.try_connect()
    first = hear(service, REGISTERED + factory.id)
    body = json.loads(first.payload)
    assert first.qos == 1 and not first.retain
    assert set(body) == {"certificateId", "caCertificateId", "timestamp", "certificateStatus", "awsAccountId",
                         "certificateRegistrationTimestamp"}
    assert body["certificateId"] == new.id and body["caCertificateId"] == factory.id
    assert isinstance(body["timestamp"], int) and before_ms <= body["timestamp"] <= time.time() * 1000
    assert body["certificateStatus"] == "PENDING_ACTIVATION" and body["awsAccountId"] == ACCOUNT
    assert isinstance(body["certificateRegistrationTimestamp"], str)
    assert before_ms - 1 <= int(body["certificateRegistrationTimestamp"]) <= body["timestamp"]
    row = broker.sql("SELECT status, ca_certificate_id, pem, mode, not_after FROM iotcore.certificate"
                     " WHERE certificate_id = %s", new.id)
    assert row == [("PENDING_ACTIVATION", factory.id, new.pem, "DEFAULT", new.certificate.not_valid_after.replace(tzinfo=UTC))]
    silent(service, "registered")

    # While it is pending each CONNECT says it again, with the time of the first.
    assert not device.try_connect()
    again = json.loads(hear(service, REGISTERED + factory.id).payload)
    assert again["certificateRegistrationTimestamp"] == body["certificateRegistrationTimestamp"]
    assert again["timestamp"] > body["timestamp"]
    assert broker.sql("SELECT count(*) FROM iotcore.certificate WHERE certificate_id = %s", new.id) == [(1,)]

    broker.activate(new, "first-1")
    settle(broker)
    with device.connect():
        assert device.subscribe("devices/first-1/in") == [1]
        assert device.publish("devices/first-1/in")
        assert device.next().payload == b"x"
    silent(service, "registered")


def test_what_is_published_is_handed_to_rules_that_are_enabled(broker, service, factory):
    broker.sql("INSERT INTO iotcore.topic_rule (name, payload, topic) VALUES ('jitr', '{}', '#')")
    new = factory.issue("ruled-1")
    assert not broker.device(new, "ruled-1").try_connect()
    heard = hear(service, REGISTERED + factory.id)
    assert broker.sql("DELETE FROM iotcore.rule_event RETURNING topic, payload") == [
        (heard.topic, heard.payload.decode())]
    broker.sql("UPDATE iotcore.topic_rule SET disabled = true")
    assert not broker.device(factory.issue("ruled-2"), "ruled-2").try_connect()
    hear(service, REGISTERED + factory.id)
    assert broker.sql("SELECT count(*) FROM iotcore.rule_event") == [(0,)]
    broker.sql("DELETE FROM iotcore.topic_rule")


@pytest.mark.parametrize("status, auto", [("INACTIVE", True), ("ACTIVE", False)])
def test_a_ca_that_does_not_register_lets_no_new_one_in(broker, status, auto):
    ca = Identity(f"closed CA {status} {auto}", ca=True)
    old = broker.put_certificate(ca.issue("old-" + ca.id[:8]), policies=["devices"], thing="old-" + ca.id[:8])
    broker.put_ca(ca, status, auto)
    settle(broker)
    new = ca.issue("new")
    assert alert(broker, new) in ("unknown ca", "certificate unknown")
    assert broker.status(new) is None
    # Those it issued before stay welcome, as in AWS IoT.
    with broker.device(old, "old-" + ca.id[:8]).connect():
        pass
    # … and it works from the moment it is opened.
    broker.sql("UPDATE iotcore.ca_certificate SET status = 'ACTIVE', auto_registration = true WHERE certificate_id = %s", ca.id)
    settle(broker)
    assert not broker.device(new, "new").try_connect()
    wait_until(lambda: broker.status(new) == "PENDING_ACTIVATION", "the registration")


def test_validity_use_and_chain_are_held(broker, factory):
    now = datetime.datetime.now(UTC)
    expired = factory.issue("expired", not_before=now - 2 * DAY, not_after=now - DAY)
    early = factory.issue("early", not_before=now + DAY)
    server = factory.issue("server", eku=ExtendedKeyUsageOID.SERVER_AUTH)
    assert alert(broker, expired) in ("certificate expired",)
    assert alert(broker, early) is not None
    assert alert(broker, server) is not None
    # Known ones are held to the same.
    for identity in (expired, early, server):
        broker.put_certificate(identity, policies=["devices"])
    settle(broker)
    for identity in (expired, early, server):
        assert alert(broker, identity) is not None
        assert not broker.device(identity, "x").try_connect()
    # The registered CA must have issued it itself, not a CA below it.
    below = factory.issue("below", ca=True)
    leaf = below.issue("leaf")
    assert alert(broker, leaf, chain=[below]) is not None
    # A forged one, of the CA's name but not its key, and the CA itself.
    forger = Identity("factory CA", ca=True)
    assert alert(broker, forger.issue("forged")) is not None
    assert alert(broker, factory) is not None
    # Any use is fine when it names none, and the CA may be sent along.
    assert alert(broker, factory.issue("no-use", eku=None), chain=[factory]) is None


def test_two_cas_of_one_name_both_register(broker):
    old, new = Identity("twin CA", ca=True), Identity("twin CA", ca=True)
    broker.put_ca(old)
    broker.put_ca(new)
    settle(broker)
    for ca in (old, new):
        leaf = ca.issue("of-twin")
        assert not broker.device(leaf, "of-twin").try_connect()
        wait_until(lambda: broker.status(leaf) == "PENDING_ACTIVATION", "the registration")
        assert broker.sql("SELECT ca_certificate_id FROM iotcore.certificate WHERE certificate_id = %s", leaf.id) == [(ca.id,)]


def test_an_intermediate_is_trusted_without_its_root(broker):
    issuing = Identity("root above", ca=True).issue("issuing CA", ca=True)
    broker.put_ca(issuing)
    settle(broker)
    leaf = issuing.issue("leaf")
    assert not broker.device(leaf, "leaf").try_connect()
    wait_until(lambda: broker.status(leaf) == "PENDING_ACTIVATION", "the registration")


def test_what_is_registered_without_a_ca_gets_in(broker):
    alone = broker.put_certificate(Identity("alone"), ca=False, policies=["devices"], thing="alone")
    settle(broker)
    with broker.device(alone, "alone").connect():
        pass


@pytest.mark.parametrize("status", ["INACTIVE", "REVOKED", "PENDING_TRANSFER"])
def test_only_active_ones_get_in(broker, factory, status):
    identity = broker.put_certificate(factory.issue("d"), status=status, policies=["devices"], thing=f"thing-{status}")
    settle(broker)
    device = broker.device(identity, f"thing-{status}")
    assert not device.try_connect() and device.code == 5


def test_active_without_a_policy_is_refused(broker, factory):
    identity = broker.put_certificate(factory.issue("d"), thing="no-policy")
    settle(broker)
    device = broker.device(identity, "no-policy")
    assert not device.try_connect() and device.code == 5
    v5 = broker.device(identity, "no-policy", protocol=mqtt.MQTTv5)
    assert not v5.try_connect() and v5.code == 135


def test_another_things_name_is_refused(broker, factory):
    identity, _ = make_device(broker, factory, "own-name")
    make_device(broker, factory, "foreign-name")
    assert not broker.device(identity, "foreign-name").try_connect()
    assert not broker.device(identity, "$own").try_connect()
    assert not broker.device(identity, "o" * 129).try_connect()


def test_a_plain_listener_lets_nobody_in(cluster, factory):
    port = free_port()
    with watched(cluster, lines=[f"listener {port} 127.0.0.1"]) as it:
        it.put_policy("all", document(statement("Allow", "iot:*", "*")))
        identity = it.put_certificate(factory.issue("d"), policies=["all"])
        settle(it)
        client = mqtt.Client("d")
        client.username_pw_set(identity.id, "x")
        codes = []
        client.on_connect = lambda _c, _d, _f, code: codes.append(code)
        client.connect("127.0.0.1", port)
        client.loop_start()
        wait_until(lambda: codes, "CONNACK")
        client.loop_stop()
        assert codes[0] == 5


def test_a_session_is_not_resumed(broker, factory):
    """Resumption would skip the verification."""
    identity, _ = make_device(broker, factory, "resumed")
    certificate, key = identity.write(broker.dir)
    for version in ("-tls1_2", "-tls1_3"):
        session = broker.dir / f"session{version}"  # left away when there is nothing to resume
        base = ["openssl", "s_client", "-connect", f"127.0.0.1:{broker.port}", "-CAfile", str(broker.ca_file), "-cert",
                certificate, "-key", key, version]
        first = subprocess.run([*base, "-sess_out", str(session)], input="", capture_output=True, text=True, timeout=20,
                               check=False)
        if session.exists():
            second = subprocess.run([*base, "-sess_in", str(session)], input="", capture_output=True, text=True, timeout=20,
                                    check=False)
            assert "Reused" not in second.stdout, version
        assert "Verify return code: 0 (ok)" in first.stdout


# -- what policies allow ------------------------------------------------------------------------------

def test_a_device_keeps_to_its_own_topics(broker, factory):
    _, one = make_device(broker, factory, "own-1")
    with one.connect():
        assert one.subscribe("devices/own-1/#") == [1]
        assert one.publish("devices/own-1/t", b"mine")
        assert one.next().payload == b"mine"
        assert not one.publish("devices/own-2/t")  # closes
    with one.connect():
        assert one.subscribe("devices/own-2/#") is None  # closes
    with one.connect():
        assert one.subscribe("#") is None
    with one.connect():
        assert one.subscribe("devices/+/t") is None
    with one.connect():
        assert one.publish("devices/own-1/t") and not one.publish("devices/own-1/t", retain=True)


@pytest.mark.parametrize("topic, options", [
    ("$aws/events/certificates/registered/x", {}), ("$mine/x", {}), ("t" * 257, {}), ("a/b/c/d/e/f/g/h/i", {}),
    ("t", {"qos": 2}), ("t", {"payload": b"x" * (128 * 1024 + 1)}),
])
def test_what_aws_does_not_have_closes(broker, factory, topic, options):
    if not broker.sql("SELECT 1 FROM iotcore.policy WHERE name = 'all'"):
        broker.put_policy("all", document(statement("Allow", "iot:*", "*")))
    identity = broker.put_certificate(factory.issue("d"), policies=["all"])
    settle(broker)
    with broker.device(identity, "limits-" + identity.id[:8]).connect() as device:
        assert device.publish("t") and device.publish("t", b"x" * (128 * 1024))
        assert device.publish("a/b/c/d/e/f/g/h") and device.publish("t" * 256)
        assert not device.publish(topic, **options)


def test_filters_that_nobody_may_have(broker, factory):
    if not broker.sql("SELECT 1 FROM iotcore.policy WHERE name = 'all'"):
        broker.put_policy("all", document(statement("Allow", "iot:*", "*")))
    identity = broker.put_certificate(factory.issue("d"), policies=["all"])
    settle(broker)
    device = broker.device(identity, "filters-" + identity.id[:8])
    with device.connect():
        assert device.subscribe("$share/g/t") == [1]
        assert device.subscribe("$share/g/$aws/events/#") == [128]  # the broker would never deliver
        assert device.subscribe("$SYS/#") is None
    with device.connect():
        assert device.subscribe("f" * 257) is None


def test_wildcards_and_receive(broker, factory):
    """Subscribe as wide as allowed; Receive, asked for each message, keeps the secret one away."""
    broker.put_policy("fleet", document(
        statement("Allow", ["iot:Connect"], "client/*"), statement("Allow", "iot:Subscribe", "topicfilter/fleet/*"),
        statement("Allow", ["iot:Publish", "iot:Receive"], "topic/fleet/*"),
        statement("Deny", "iot:Receive", "topic/fleet/secret/*")))
    identity = broker.put_certificate(factory.issue("d"), policies=["fleet"])
    settle(broker)
    with broker.device(identity, "fleet-reader").connect() as reader, broker.device(identity, "fleet-writer").connect() as writer:
        assert reader.subscribe("fleet/#", "fleet/+/t") == [1, 1]
        assert writer.publish("fleet/secret/t", b"secret") and writer.publish("fleet/open/t", b"open")
        assert reader.next().payload == b"open"
        wait_until(lambda: broker.alive(), "the broker")
        assert all(m.payload == b"open" for m in iter_all(reader))


def iter_all(device):
    while not device.messages.empty():
        yield device.messages.get()


def test_variables_of_certificate_thing_and_address(broker, factory):
    broker.put_policy("variables", document(
        statement("Allow", "iot:Connect", "client/*",
                  Condition={"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}, "Bool": {"iot:Connection.Thing.IsAttached": "true"}}),
        statement("Allow", "iot:Publish", "topic/ou/${iot:Certificate.Subject.OrganizationalUnit}",
                  "topic/site/${iot:Connection.Thing.Attributes[site]}", "topic/dns/${iot:Certificate.Subject.AlternativeName.DNSName}",
                  "topic/cn/${iot:Certificate.Issuer.CommonName}", "topic/id/${iot:CertificateId}")))
    identity = factory.issue("d", subject=[x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "line4")],
                             alternative=[x509.DNSName("d.example")])
    broker.put_thing("var-thing", attributes={"site": "berlin", "empty": "", "zone": "4"})
    broker.put_certificate(identity, policies=["variables"], thing="var-thing")
    settle(broker)
    assert not broker.device(identity, "someone").try_connect()
    device = broker.device(identity, "var-thing")
    with device.connect():
        for topic in ("ou/line4", "site/berlin", "dns/d.example", "cn/factory CA", f"id/{identity.id}"):
            assert device.publish(topic), topic
        assert not device.publish("site/4")


def test_policies_of_groups_and_their_ancestors_count(broker, factory):
    identity, device = make_device(broker, factory, "grouped")
    broker.sql("INSERT INTO iotcore.thing_group (name) VALUES ('quarantine')")
    broker.sql("INSERT INTO iotcore.thing_group (name, parent) VALUES ('quarantine-wet', 'quarantine')")
    broker.put_policy("quarantine", document(statement("Deny", "iot:*", "*")))
    with device.connect():
        broker.attach("quarantine", "thinggroup/quarantine")
        settle(broker)
        assert device.publish("devices/grouped/t")
        broker.sql("INSERT INTO iotcore.thing_group_member VALUES ('grouped', 'quarantine-wet')")
        assert device.gone.wait(5)
    assert not device.try_connect()
    broker.sql("DELETE FROM iotcore.thing_group_member WHERE thing = 'grouped'")
    settle(broker)
    with device.connect():
        assert device.publish("devices/grouped/t")


def test_an_unreadable_policy_refuses(broker, factory):
    identity, device = make_device(broker, factory, "unreadable")
    broker.put_policy("broken", "{not JSON")
    with device.connect():
        broker.attach("broken", f"cert/{identity.id}")
        assert device.gone.wait(5)
    assert not device.try_connect()
    wait_until(lambda: broker.events("policy_unreadable"), "the log line")


def test_who_was_refused_leaves_no_will(broker, factory):
    """Its user name is its own choice: with another certificate's id there, its will must not be published in that one's name."""
    victim, listener = make_device(broker, factory, "will-victim")
    stranger = broker.put_certificate(factory.issue("stranger"), status="INACTIVE")
    settle(broker)
    with listener.connect():
        assert listener.subscribe("devices/will-victim/#") == [1]
        for client_id in ("will-victim", "will-stranger"):
            device = broker.device(stranger, client_id, will=("devices/will-victim/forged", b"forged", 1))
            make = device._make

            def named():
                client = make()
                client.username_pw_set(victim.id, "")
                return client

            device._make = named
            assert not device.try_connect()
        assert listener.publish("devices/will-victim/mark", b"mark")
        assert listener.next().payload == b"mark"


def test_wills_need_the_right_to_publish(broker, factory):
    identity, listener = make_device(broker, factory, "will-reader")
    with listener.connect():
        assert listener.subscribe("devices/will-reader/#") == [1]
        for topic, heard in (("devices/will-reader/will", True), ("devices/other/will", False)):
            device = broker.device(identity, "will-writer", will=(topic, b"gone", 1))
            broker.put_policy("will-writer", document(statement("Allow", "iot:Connect", "client/will-writer")))
            if not broker.sql("SELECT 1 FROM iotcore.policy_attachment WHERE policy = 'will-writer'"):
                broker.put_thing("will-writer", identity)
                broker.attach("will-writer", f"cert/{identity.id}")
                broker.put_policy("will-publish", document(statement("Allow", "iot:Publish", "topic/devices/will-reader/will")))
                broker.attach("will-publish", f"cert/{identity.id}")
            settle(broker)
            if device.try_connect():
                device.drop()
            if heard:
                assert listener.next().payload == b"gone"
            else:
                assert listener.publish("devices/will-reader/mark", b"mark") and listener.next().payload == b"mark"


# -- changes take effect at once ----------------------------------------------------------------------

def cut_delay(broker, device, change):
    began = time.monotonic()
    change()
    assert device.gone.wait(5)
    return device.gone_at - began


@pytest.mark.parametrize("status", ["INACTIVE", "REVOKED"])
def test_a_certificate_that_is_no_longer_active_is_cut(broker, factory, status):
    delays = []
    for i in range(100 if status == "REVOKED" else 10):
        identity, device = make_device(broker, factory, f"cut-{status}-{i}", protocol=mqtt.MQTTv311 if i % 2 else mqtt.MQTTv5)
        device.connect()
        delays.append(cut_delay(broker, device, lambda: broker.set_status(identity, status)) * 1000)
        if i == 0:
            assert not device.try_connect()
    delays.sort()
    print(f"cut after {status}: p50 {statistics.median(delays):.1f} ms, p99 {delays[len(delays) * 99 // 100 - 1]:.1f} ms,"
          f" max {delays[-1]:.1f} ms")
    assert delays[-1] < 1000


def test_a_narrowed_policy_counts_for_the_next_packet(broker, factory):
    wide = document(statement("Allow", "iot:Connect", "client/*"), statement("Allow", "iot:Publish", "topic/*"),
                    statement("Allow", ["iot:Subscribe", "iot:Receive"], "*"))
    broker.put_policy("narrowing", wide)
    identity = broker.put_certificate(factory.issue("d"), policies=["narrowing"])
    settle(broker)
    with broker.device(identity, "narrow-w").connect() as writer, broker.device(identity, "narrow-r").connect() as reader:
        assert reader.subscribe("n/#") == [1]
        assert writer.publish("n/1") and reader.next().topic == "n/1"
        broker.put_policy("narrowing", wide.replace('"iot:Receive"', '"iot:GetRetainedMessage"'))
        settle(broker)
        assert writer.publish("n/2")
        broker.put_policy("narrowing", wide)
        settle(broker)
        assert writer.publish("n/3") and reader.next().topic == "n/3"  # not n/2
        broker.put_policy("narrowing", document(statement("Allow", "iot:Connect", "client/*")))
        settle(broker)
        assert not writer.publish("n/4")
        # Connect was still allowed, so who was quiet stays; without it, none does.
        assert not reader.gone.is_set()
        broker.detach("narrowing", f"cert/{identity.id}")
        assert reader.gone.wait(5)
        assert not writer.try_connect()


def test_a_thing_that_is_detached_cuts_who_needs_it(broker, factory):
    identity, device = make_device(broker, factory, "detached")
    with device.connect():
        broker.sql("DELETE FROM iotcore.thing_principal WHERE certificate_id = %s", identity.id)
        assert device.gone.wait(5)


def test_a_second_session_of_a_client_id_takes_over(broker, service, factory):
    identity, one = make_device(broker, factory, "twice")
    one.connect()
    two = broker.device(identity, "twice").connect()
    assert one.gone.wait(5)
    connected = [json.loads(hear(service, "$aws/events/presence/connected/twice").payload)]
    left = json.loads(hear(service, "$aws/events/presence/disconnected/twice").payload)
    assert left["disconnectReason"] == "DUPLICATE_CLIENTID" and left["versionNumber"] == connected[0]["versionNumber"]
    assert two.publish("devices/twice/t")
    wait_until(lambda: broker.sql("SELECT connected FROM iotcore.session WHERE client_id = 'twice' AND version > %s",
                                  left["versionNumber"]) == [(True,)], "the second session's row")
    two.close()


def test_presence_and_subscriptions_are_told(broker, service, factory):
    identity, device = make_device(broker, factory, "told")
    with device.connect():
        assert device.subscribe("devices/told/a", "devices/told/b") == [1, 1]
        device.client.unsubscribe("devices/told/a")
        came = json.loads(hear(service, "$aws/events/presence/connected/told").payload)
        assert set(came) == {"clientId", "timestamp", "eventType", "sessionIdentifier", "principalIdentifier", "ipAddress",
                             "versionNumber"}
        assert came["principalIdentifier"] == identity.id and came["eventType"] == "connected"
        assert came["ipAddress"] == "127.0.0.1" and isinstance(came["versionNumber"], int)
        subscribed = json.loads(hear(service, "$aws/events/subscriptions/subscribed/told").payload)
        assert subscribed["topics"] == ["devices/told/a", "devices/told/b"]
        assert subscribed["sessionIdentifier"] == came["sessionIdentifier"]
        unsubscribed = json.loads(hear(service, "$aws/events/subscriptions/unsubscribed/told").payload)
        assert unsubscribed["topics"] == ["devices/told/a"]
        wait_until(lambda: broker.sql("SELECT connected, certificate_id, thing, address FROM iotcore.session WHERE"
                                      " client_id = 'told'") == [(True, identity.id, "told", "127.0.0.1")], "the session's row")
    left = json.loads(hear(service, "$aws/events/presence/disconnected/told").payload)
    assert left["versionNumber"] == came["versionNumber"] and left["clientInitiatedDisconnect"] is False
    assert "ipAddress" not in left and left["disconnectReason"] == "CONNECTION_LOST"
    wait_until(lambda: broker.sql("SELECT connected FROM iotcore.session WHERE client_id = 'told'") == [(False,)],
               "the session's row")


def test_presence_names_the_thing_that_is_exclusive(broker, service, factory):
    identity, device = make_device(broker, factory, "told-alone")
    broker.sql("UPDATE iotcore.thing_principal SET exclusive = true WHERE certificate_id = %s", identity.id)
    settle(broker)
    with device.connect():
        came = json.loads(hear(service, "$aws/events/presence/connected/told-alone").payload)
    left = json.loads(hear(service, "$aws/events/presence/disconnected/told-alone").payload)
    assert came["thingName"] == left["thingName"] == "told-alone"


@pytest.fixture(scope="module")
def own_cluster():
    """To be stopped while the broker of this module goes on."""
    with Cluster() as it:
        yield it


# -- faults -------------------------------------------------------------------------------------------

def test_postgresql_is_restarted_in_between(own_cluster, factory):
    with watched(own_cluster) as it:
        it.put_ca(factory)
        it.put_policy("devices", DEFAULT_POLICY)
        identity, device = make_device(it, factory, "steady")
        victim, cut = make_device(it, factory, "victim")
        device.connect()
        cut.connect()
        own_cluster.stop()
        try:
            # Nothing is known anew, but what was known holds: sessions live, and known ones may come.
            assert device.publish("devices/steady/t")
            with it.device(identity, "steady").connect():
                pass
        finally:
            own_cluster.start()
        it.reconnect()
        it.set_status(victim, "INACTIVE")
        assert cut.gone.wait(10)
        new = factory.issue("after")
        def registered():
            it.device(new, "after").try_connect()
            return it.status(new)
        assert wait_until(registered, "the registration") == "PENDING_ACTIVATION"
        device.close()
        it.alive()


def test_what_changed_while_the_link_was_down_is_found(cluster, factory):
    with watched(cluster) as it:
        it.put_ca(factory)
        it.put_policy("devices", DEFAULT_POLICY)
        victim, cut = make_device(it, factory, "victim")
        cut.connect()
        # The link breaks before the change, and its rows are trimmed behind it: numbers are missing.
        it.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
               " AND pid <> pg_backend_pid()")
        it.sql("BEGIN")
        it.set_status(victim, "REVOKED")
        it.sql("DELETE FROM iotcore.change")
        it.sql("COMMIT")
        assert cut.gone.wait(10)
        wait_until(lambda: len(it.events("registry_loaded")) > 1, "the log line")


def test_a_registry_too_old_lets_nobody_in(own_cluster, factory):
    with watched(own_cluster, options={"stale_ms": 1000}) as it:
        it.put_policy("devices", DEFAULT_POLICY)
        identity, device = make_device(it, factory, "stale")
        with device.connect():
            own_cluster.stop()
            try:
                other = it.device(identity, "stale")
                wait_until(lambda: not other.try_connect() or other.close(), "the refusal", 20)
                wait_until(lambda: any("too old" in one["detail"] for one in it.events("connect_refused")), "the log")
            finally:
                own_cluster.start()
            it.reconnect()
            wait_until(lambda: it.device(identity, "stale").try_connect(), "a CONNECT", 20)


def test_sigkill_keeps_events_that_were_saved(cluster, factory):
    with watched(cluster, lines=["autosave_on_changes true", "autosave_interval 1"]) as it:
        it.put_ca(factory)
        it.put_policy("devices", DEFAULT_POLICY)
        it.put_policy("jitrca-service", SERVICE_POLICY)
        identity = it.put_certificate(factory.issue("service"), policies=["jitrca-service"])
        settle(it)
        service = it.device(identity, "jitrca-1", clean=False).connect()
        assert service.subscribe(REGISTERED + "#") == [1]
        service.close()
        new = factory.issue("queued")
        it.device(new, "queued").try_connect()
        wait_until(lambda: it.status(new), "the registration")
        saved = it.dir / "data" / "mosquitto.db"
        wait_until(lambda: saved.exists() and new.id.encode() in saved.read_bytes(), "the saved event")
        it.stop(signal.SIGKILL)
        it.start()
        service = it.device(identity, "jitrca-1", clean=False).connect()
        assert json.loads(service.next().payload)["certificateId"] == new.id
        service.close()


def test_sighup_changes_nothing(broker, factory):
    identity, device = make_device(broker, factory, "hup", clean=False)
    with device.connect():
        assert device.subscribe("devices/hup/#") == [1]
        offline = broker.device(*(lambda pair: (pair[0], "hup-off"))(make_device(broker, factory, "hup-off")), clean=False)
        offline.connect().subscribe("devices/hup-off/#")
        offline.close()
        broker.process.send_signal(signal.SIGHUP)
        assert device.publish("devices/hup/t") and device.next().payload == b"x"
        with offline.connect():
            assert offline.publish("devices/hup-off/t")


def test_a_user_name_of_its_own_choice_lets_nobody_in(broker, factory):
    """By a user name the broker's sessions are known after SIGHUP: who takes one is looked at all the same, also then."""
    _, inside = make_device(broker, factory, "named", clean=False)
    out = broker.put_certificate(factory.issue("named-out"), status="INACTIVE", policies=["devices"])
    stranger = broker.put_certificate(factory.issue("named-ok"), policies=["devices"], thing="named-ok")
    settle(broker)
    context = {}
    for one in (out, stranger):
        context[one] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context[one].load_verify_locations(broker.ca_file)
        context[one].load_cert_chain(*one.write(broker.dir))

    def answer(identity, client_id, name):
        """The CONNACK's code; None: closed without one."""
        body = b"\x00\x04MQTT\x04\x82\x00\x3c" + b"".join(
            len(text).to_bytes(2, "big") + text.encode() for text in (client_id, name))
        packet = b"\x10" + bytes([0x80 | len(body) % 128, len(body) // 128] if len(body) > 127 else [len(body)]) + body
        with socket.create_connection(("127.0.0.1", broker.port), 10) as plain, \
                context[identity].wrap_socket(plain, server_hostname="localhost") as connection:
            connection.sendall(packet)
            found = connection.recv(4)
            return found[3] if len(found) == 4 else None

    with inside.connect():
        stop = threading.Event()

        def hang_up():
            while not stop.wait(0.003):
                broker.process.send_signal(signal.SIGHUP)

        thread = threading.Thread(target=hang_up)
        thread.start()
        try:
            for _ in range(25):
                for name in (out.id, inside.identity.id, "anyone"):
                    assert answer(out, "named-out", name) == 5
            # The name counts for nothing with who is welcome either: nobody else's session goes by it.
            assert answer(stranger, "named-ok", inside.identity.id) == 0
        finally:
            stop.set()
            thread.join()
        broker.set_status(stranger, "REVOKED")
        settle(broker)
        assert inside.publish("devices/named/up") and not inside.gone.is_set()
        assert answer(stranger, "named-ok", inside.identity.id) == 5


def test_malformed_packets_harm_nobody(broker, factory):
    identity, good = make_device(broker, factory, "healthy")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(broker.ca_file)
    context.load_cert_chain(*identity.write(broker.dir))
    connect = b"\x10\x13\x00\x04MQTT\x04\x02\x00\x3c\x00\x07healthy"
    packets = [
        b"", b"\x00", b"\xff" * 64, b"\x10\xff\xff\xff\xff\x7f", b"\x10\x00", b"\x10\x02\x00\x04", b"\x30\x05\x00\x01a",
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", b"\x10\x0c\x00\x04MQTT\x09\x02\x00\x3c\x00\x00",
        b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04\xff\xfe\x00\x01", connect + b"\x30\x80\x80\x80\x80\x01",
        connect + b"\x82\x02\x00\x01", connect + b"\x82\x05\x00\x00\x00\x00\x00", connect + b"\x32\x05\x00\x03\xff\xfe\xfd",
        connect + b"\x82\x08\x00\x01\x00\x03a\x00b\x01", connect + connect, connect + b"\xf0\x00", connect + b"\x62\x02\x00\x09",
        connect + b"\x82\x0a\x00\x01\x00\x05$shar\x01",  # and a share without a name:
        connect + b"\x82\x0b\x00\x01\x00\x06$share\x01", connect + b"\x82\x0d\x00\x01\x00\x08$share//\x01",
    ]
    for packet in packets:
        with socket.create_connection(("127.0.0.1", broker.port), 10) as plain, \
                context.wrap_socket(plain, server_hostname="127.0.0.1") as tls:
            tls.settimeout(2)
            try:
                tls.sendall(packet)
                tls.unwrap()
            except OSError:
                pass
        broker.alive()
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x40\x00" + b"\x00" * 64, b"\x80" * 4096):
        with socket.create_connection(("127.0.0.1", broker.port), 10) as plain:
            plain.sendall(garbage)
    with good.connect():
        assert good.publish("devices/healthy/t")


def test_strangers_in_a_crowd_do_not_stop_a_good_one(cluster, factory, long_form):
    """As many CONNECTs a second as the generator can: unknown CA, and new certificates beyond the limit."""
    with watched(cluster, options={"register_per_s": 20, "register_per_address_per_s": 20}) as it:
        it.put_ca(factory)
        it.put_policy("devices", DEFAULT_POLICY)
        identity, good = make_device(it, factory, "good")
        stranger = Identity("stranger CA", ca=True).issue("s").write(it.dir)
        new = [factory.issue(f"n{i}").write(it.dir) for i in range(50)]
        stop = threading.Event()
        counts = []

        def storm(files):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.load_cert_chain(*files)
            count = 0
            while not stop.is_set():
                try:
                    with socket.create_connection(("127.0.0.1", it.port), 10) as plain, context.wrap_socket(plain) as tls:
                        tls.sendall(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01s")
                        tls.recv(1)
                except OSError:
                    pass
                count += 1
            counts.append(count)

        threads = [threading.Thread(target=storm, args=(files,)) for files in [stranger] * 4 + new[:4]]
        with good.connect():
            assert good.publish("devices/good/t")
            for thread in threads:
                thread.start()
            began, delays, busy_s = time.monotonic(), [], it.cpu_s()
            while time.monotonic() - began < (20 if long_form else 5):
                sent = time.monotonic()
                assert good.publish("devices/good/t")
                delays.append((time.monotonic() - sent) * 1000)
            stop.set()
            for thread in threads:
                thread.join()
            taken, busy_s = time.monotonic() - began, it.cpu_s() - busy_s
        delays.sort()
        print(f"{sum(counts) / taken:.0f} refused connects a second; {len(delays) / taken:.0f} publishes a second,"
              f" p50 {statistics.median(delays):.1f} ms, p99 {delays[len(delays) * 99 // 100 - 1]:.1f} ms;"
              f" {busy_s * 1000 / (sum(counts) + len(delays)):.2f} ms of the broker's CPU for each of them")
        assert sum(counts) > 20 and delays[len(delays) * 99 // 100 - 1] < 1000
        assert it.sql("SELECT count(*) FROM iotcore.certificate") < [(60,)]
        # Of those that fail in TLS most end at their ClientHello. And the log stays short, whoever shouts.
        assert len(it.events("connect_refused")) < 25 * (taken + 2)


def test_mosquittos_own_clients(broker, factory):
    identity, _ = make_device(broker, factory, "tool")
    certificate, key = identity.write(broker.dir)
    options = ["-h", "127.0.0.1", "-p", str(broker.port), "--cafile", str(broker.ca_file), "--cert", certificate, "--key", key,
               "-i", "tool", "-q", "1"]
    got = subprocess.run(["mosquitto_sub", *options, "-t", "devices/tool/t", "-C", "1", "-W", "10", "-E"], capture_output=True,
                         text=True, timeout=30, check=False)
    assert got.returncode == 0, got.stderr
    put = subprocess.run(["mosquitto_pub", *options, "-t", "devices/tool/t", "-m", "x"], capture_output=True, text=True,
                         timeout=30, check=False)
    assert put.returncode == 0, put.stderr
    denied = subprocess.run(["mosquitto_pub", *options, "-t", "devices/else/t", "-m", "x"], capture_output=True, text=True,
                            timeout=30, check=False)
    assert denied.returncode != 0


def test_the_log_holds_no_secret(broker):
    text = broker.log_path.read_text(errors="replace")
    assert "PRIVATE KEY" not in text and "BEGIN CERTIFICATE" not in text and broker.url not in text
    arguments = pathlib.Path(f"/proc/{broker.process.pid}/cmdline").read_bytes().decode()
    assert "postgresql://" not in arguments and os.stat(broker.dir / "mosquitto.conf").st_mode & 0o077 == 0
