"""Outbox and CA registration against a double of AWS that validates each request and fails in all the ways that AWS can."""
import collections
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import tempfile
import threading
import time

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from harness.aws_double import ACCOUNT, KEYS, REGION, AwsDouble, arn
from harness.client import admin, new_key, station
from harness.loop import WEBHOOK_SECRET
from harness.stack import Stack, wait_until

POLICY = "jitrca-device"
QUOTAS = {"UpdateCertificate": 6, "AttachPolicy": 8, "AttachThingPrincipal": 9, "CreateThing": 10, "DetachPolicy": 5,
          "DetachThingPrincipal": 5, "ListAttachedPolicies": 5}
# A token is taken before the request is on its way: so many may arrive closer together than they were let go.
LATE_ARRIVALS = 3
FAULTS = [{"kind": "throttle"}, {"kind": "throttle_body"}, {"kind": "status", "status": 500},
          {"kind": "status", "status": 503, "type": "ServiceUnavailableException"}, {"kind": "plain_status", "status": 502},
          {"kind": "reset"}, {"kind": "late"}, {"kind": "truncate"}, {"kind": "half_json"}, {"kind": "garble"}]


class Device:
    def __init__(self, body):
        self.id, self.name, self.pem = body["certificate_id"], body["device_id"], body["certificate"]
        self.ca = x509.load_pem_x509_certificate(body["chain"].encode()).fingerprint(hashes.SHA256()).hex()
        self.arn = arn("cert", self.id)

    def event(self, **changes):
        now = int(time.time() * 1000)
        return {"certificateId": self.id, "caCertificateId": self.ca, "timestamp": now, "awsAccountId": ACCOUNT,
                "certificateStatus": "PENDING_ACTIVATION", "certificateRegistrationTimestamp": str(now), **changes}


class Site:
    """jitrca serve with one target: the double. Use as a context manager."""

    def __init__(self, cluster, mode="DEFAULT", register=True, profiles=None):
        self.cluster, self.mode, self.register, self.profiles = cluster, mode, register, profiles
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="jitrca-double-"))
        self.double = self.stack = self.boss = None
        self.parts = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as parts:
            parts.callback(shutil.rmtree, self.dir, ignore_errors=True)
            self.double = parts.enter_context(AwsDouble())
            secret = self.dir / "webhook.secret"
            secret.write_text(WEBHOOK_SECRET)
            secret.chmod(0o600)
            (self.dir / "targets.json").write_text(json.dumps([{
                "name": "double", "region": REGION, "account": ACCOUNT, "endpoint_url": self.double.url, "quotas": QUOTAS,
                "certificate_mode": self.mode, "webhook": {"secret_file": str(secret)}}]))
            (key, value), = KEYS.items()
            self.stack = parts.enter_context(Stack(
                self.cluster, config={"iot_targets_file": self.dir / "targets.json"}, profiles=self.profiles,
                env={"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": value, "AWS_EC2_METADATA_DISABLED": "true",
                     "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}))
            self.boss = parts.enter_context(admin(self.stack))
            if self.register:
                self.register_ca()
            self.parts = parts.pop_all()
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                assert self.double.findings == []
        finally:
            self.parts.close()

    def register_ca(self):
        answer = self.boss.post("/v1/cas/issuing-1/iot-registration", json={})
        assert answer.status_code == 200, f"{answer.text}\n{self.stack.log_tail()}"
        return answer.json()

    def name_groups(self, *names):
        """The profile of devices names these from now on."""
        path = self.stack.profiles / "device.json"
        profile = json.loads(path.read_text())
        profile["iot"]["thing_groups"] = list(names)
        self.stack.stop()
        path.write_text(json.dumps(profile))
        self.stack.start()

    def issue(self, *names):
        found = []
        for name in names:
            answer = self.boss.issue(name, new_key())
            assert answer.status_code == 201, answer.text
            found.append(Device(answer.json()))
        return found

    def show(self, *devices):
        """As when they first connect: IoT Core has them from now on."""
        with self.double.lock:
            for device in devices:
                self.double.state.add_certificate({"certificatePem": device.pem, "status": "PENDING_ACTIVATION"},
                                                  self.mode, device.ca)

    def deliver(self, *events):
        answer = requests.post(f"{self.stack.url}/v1/iot/jitr-events", json=list(events) if len(events) > 1 else events[0],
                               headers={"x-jitrca-webhook-secret": WEBHOOK_SECRET}, verify=self.stack.ca_bundle, timeout=30)
        assert answer.status_code == 200, answer.text

    def status(self, device):
        with self.double.lock:
            return self.double.state.certificates[device.id]["status"]

    def rows(self, **query):
        return self.boss.get("/v1/iot/outbox", params=query).json()["rows"]

    def wait(self, condition, what, deadline_s=60):
        try:
            return wait_until(condition, what, deadline_s)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.rows()[:5]}\n{self.stack.log_tail()}") from error

    def wait_drained(self, deadline_s=90):
        self.wait(lambda: not self.rows(), "an empty outbox", deadline_s)

    def calls(self, device, operation=None):
        """What was carried out that names the certificate, in order."""
        with self.double.lock:
            return [call for call in self.double.journal if call.code is None and operation in (None, call.operation)
                    and device.id in json.dumps(call.params)]

    def updates(self, status=None):
        with self.double.lock:
            return [call for call in self.double.journal if call.operation == "UpdateCertificate" and call.code is None
                    and status in (None, call.params["newStatus"])]

    # -- what must hold in the end ------------------------------------------------------------------

    def check_admitted(self, device):
        state = self.double.state
        assert state.certificates[device.id]["status"] == "ACTIVE"
        assert state.things[device.name]["principals"] == [device.arn]
        assert state.attached[device.arn] == [POLICY]
        calls = self.calls(device)
        order = [call.operation for call in calls]
        first = order.index("UpdateCertificate")
        assert {"AttachPolicy", "AttachThingPrincipal"} <= set(order[:first]), order
        made = [call for call in calls if call.operation == "UpdateCertificate"]
        assert {call.params["newStatus"] for call in made} == {"ACTIVE"}
        # Asked again only when nobody could know that it was done.
        assert [call.lost for call in made] == [True] * (len(made) - 1) + [False], made
        assert order[-1] == "UpdateCertificate", order
        records = self.boss.get("/v1/audit", params={"object": f"certificate:{device.id}"}).json()["records"]
        assert [one["action"] for one in records] == ["certificate.issue", "iot.apply"]

    def check_quotas(self):
        """In no window of a second more than the rate, a burst of one, and what was let go before it."""
        for operation, rate in QUOTAS.items():
            times = self.double.times(operation)
            for i, start in enumerate(times):
                count = sum(start <= when < start + 1 for when in times[i:])
                assert count <= rate + 1 + LATE_ARRIVALS, f"{operation}: {count} calls in a second, {rate} allowed"
            if len(times) > rate:
                assert (len(times) - 1 - LATE_ARRIVALS) / (times[-1] - times[0]) <= rate, operation


class Chaos:
    """Every fourth request fails in some way; some are kept waiting until their caller gives up."""

    def __init__(self, seed, share=.25, hangs=2):
        self.random, self.share, self.hangs = random.Random(seed), share, hangs
        self.made = collections.Counter()

    def __call__(self, operation):
        if self.random.random() >= self.share:
            return None
        fault = self.random.choice(FAULTS)
        if self.hangs and operation != "DescribeEndpoint" and sum(self.made.values()) > 10:
            self.hangs -= 1
            fault = {"kind": "hang"}
        self.made[fault["kind"]] += 1
        return fault


@pytest.mark.parametrize("mode", ["DEFAULT", "SNI_ONLY"])
def test_a_ca_is_registered_whatever_the_answer_was(cluster, mode):
    with Site(cluster, mode, register=False) as site:
        double = site.double
        double.fault("RegisterCACertificate", "throttle", times=2)
        double.fault("RegisterCACertificate", "late")  # done, and nobody heard of it
        double.fault("DescribeCACertificate", "status", status=503)
        double.fault("DescribeCACertificate", "truncate")
        answer = site.register_ca()
        assert (answer["status"], answer["mode"], answer["auto_registration"]) == ("ACTIVE", mode, True)
        kept, = double.state.cas.values()
        assert (kept["status"], kept["certificateMode"], kept["autoRegistrationStatus"]) == ("ACTIVE", mode, "ENABLE")
        asked = [call.params for call in double.journal if call.operation == "RegisterCACertificate"]
        for params in asked:
            assert params["setAsActive"] and params["allowAutoRegistration"]
            assert ("verificationCertificate" in params) == (mode == "DEFAULT")
        assert double.count("GetRegistrationCode") == (1 if mode == "DEFAULT" else 0)
        assert site.register_ca()["ca_certificate_id"] == answer["ca_certificate_id"]
        assert len(double.state.cas) == 1
        device, = site.issue("registered-1")
        site.show(device)
        site.deliver(device.event())
        site.wait(lambda: site.status(device) == "ACTIVE", "the activation")
        site.wait_drained()
        site.check_admitted(device)


def test_every_device_comes_in_once_through_all_faults(cluster):
    with Site(cluster) as site:
        devices = site.issue(*[f"chaos-{n}" for n in range(30)])
        early, told = devices[:4], devices[4:]
        chaos = Chaos(20)
        site.double.chaos = chaos
        # Told of before IoT Core shows them: it becomes consistent in its own time.
        events = {device: device.event() for device in devices}
        site.deliver(*[events[device] for device in early])
        site.wait(lambda: any(call.code == "ResourceNotFoundException" and call.operation == "AttachPolicy"
                              for call in site.double.journal), "a refusal of what is not there yet")
        site.show(*devices)
        order = random.Random(7)
        # Each of them twice or three times, in no order, alone and together.
        deliveries = [events[device] for device in told * 2 + devices[::3]]
        order.shuffle(deliveries)
        while deliveries:
            count = order.choice((1, 1, 3, 7))
            site.deliver(*deliveries[:count])
            deliveries = deliveries[count:]
        site.wait(lambda: all(site.status(device) == "ACTIVE" for device in devices), "every device to be ACTIVE", 150)
        site.wait_drained()
        site.double.chaos = None
        # What was overtaken, and what is told again: nothing is done any more.
        before = len(site.updates())
        site.deliver(*[{**events[device], "timestamp": events[device]["timestamp"] - 60000} for device in devices])
        site.deliver(*events.values())
        site.wait_drained()
        assert len(site.updates()) == before
        for device in devices:
            site.check_admitted(device)
        assert len(site.double.state.things) == 30
        assert site.updates("REVOKED") == [] and site.updates("INACTIVE") == []
        site.check_quotas()
        assert chaos.made["hang"] > 0 and len(chaos.made) >= 7, chaos.made
        assert site.stack.query("SELECT count(*) FROM jitrca.security_event WHERE starts_with(kind, 'iot_')") == [(0,)]


def test_what_is_revoked_overtakes_what_is_let_in(cluster):
    with Site(cluster) as site:
        known = site.issue("known-0", "known-1")
        site.show(*known)
        site.deliver(*[device.event() for device in known])
        site.wait(lambda: all(site.status(device) == "ACTIVE" for device in known), "the first two")
        site.wait_drained()
        fresh = site.issue(*[f"fresh-{n}" for n in range(90)])  # more than all workers take at once
        site.show(*fresh)
        site.deliver(*[device.event() for device in fresh])
        site.wait(lambda: len(site.updates("ACTIVE")) >= 5, "some of them")
        site.double.fault("UpdateCertificate", "throttle", times=4)
        for device in known:
            answer = site.boss.post(f"/v1/certificates/{device.id}/revoke", json={"reason": "keyCompromise"})
            assert answer.status_code == 200, answer.text
        site.wait_drained()
        order = [call.params["newStatus"] for call in site.updates()]
        assert order.count("REVOKED") == 2 and order.count("ACTIVE") == 92, order
        last = len(order) - 1 - order[::-1].index("REVOKED")
        assert len(order) - last > 10, order  # not behind those that stood in line before
        assert {call.params["certificateId"] for call in site.updates("REVOKED")} == {device.id for device in known}
        for device in fresh:
            site.check_admitted(device)
        for device in known:
            assert site.double.state.things[device.name]["principals"] == []
            assert site.double.state.attached[device.arn] == []
        site.check_quotas()


def test_what_is_refused_for_good_waits_for_people(cluster):
    with Site(cluster) as site:
        device, other = site.issue("refused-0", "refused-1")
        site.show(device)
        site.double.fault("AttachThingPrincipal", "status", times=1000, status=400, type="InvalidRequestException",
                          message="the account says no")
        site.deliver(device.event())
        site.wait(lambda: site.rows(dead="true"), "the dead letter")
        row, = site.rows(dead="true")
        assert row["key"] == "refused-0" and "the account says no" in row["error"]["text"], row
        assert row["error"]["code"].startswith("iot_")
        assert site.stack.query("SELECT kind, severity, device_id FROM jitrca.security_event WHERE starts_with(kind, 'iot_')") == [
            ("iot_dead_letter", "medium", "refused-0")]
        assert site.status(device) == "PENDING_ACTIVATION" and site.updates() == []
        # Nobody comes back to it by himself, not even when it knocks again.
        asked = site.double.count("AttachThingPrincipal")
        site.deliver(device.event())
        with site.double.lock:
            site.double.faults.clear()
        site.show(other)  # not before: the sweep would find it, and AWS would refuse it too
        site.deliver(other.event())
        site.wait(lambda: site.status(other) == "ACTIVE", "the other device")
        assert site.double.count("AttachThingPrincipal") == asked + 1
        assert site.boss.post("/v1/iot/outbox/retry", json={"key": "refused-0"}).json() == {"retried": 1}
        site.wait(lambda: site.status(device) == "ACTIVE", "the activation")
        site.wait_drained()
        for one in (device, other):
            site.check_admitted(one)


@pytest.mark.parametrize("preregister", [False, True])
def test_what_was_deleted_there_is_drift(cluster, preregister):
    profiles = {"device": {"iot": {"policies": [POLICY], "preregister": preregister}}}
    with Site(cluster, profiles=profiles) as site:
        kept, lost, revoked = site.issue("kept", "lost", "lost-revoked")
        if not preregister:
            site.show(kept, lost, revoked)
            site.deliver(*[device.event() for device in (kept, lost, revoked)])
        site.wait(lambda: len(site.updates("ACTIVE")) == 3, "all three")
        assert site.boss.post(f"/v1/certificates/{revoked.id}/revoke", json={"reason": "superseded"}).status_code == 200
        site.wait_drained()
        with site.double.lock:
            for device in (lost, revoked):
                site.double.state.certificates.pop(device.id)
                site.double.state.attached.pop(device.arn)
            site.double.state.things[lost.name]["principals"].clear()

        def seen(device):
            return site.stack.query("SELECT status FROM jitrca.iot_certificate WHERE sha256 = decode(%s, 'hex')",
                                    device.id)[0][0]

        def walk(**body):
            # What was recorded since a walk began is never missing in it.
            site.stack.query("UPDATE jitrca.iot_certificate SET observed_at = observed_at - interval '1 hour' RETURNING 1")
            assert site.boss.post("/v1/iot/reconcile", json=body).status_code == 202
            return site.wait(lambda: next((one for one in site.boss.get("/v1/iot/reconcile").json()["walks"]
                                           if one["state"] == "done"), None), "the walk")

        asked = site.double.count("DescribeCertificate")
        assert walk()["drift"] == {"deleted_there": 1}
        assert site.double.count("DescribeCertificate") == asked + 1  # not of what the list has shown
        assert seen(lost) == "ACTIVE" and site.rows() == []
        assert walk(repair=True)["drift"] == {"deleted_there": 1}
        site.wait_drained()
        assert seen(kept) == "ACTIVE" and seen(revoked) == "REVOKED"
        if not preregister:
            assert seen(lost) == "DELETED"
            site.show(lost)
            site.deliver(lost.event(timestamp=int(time.time() * 1000) + 1000))
        site.wait(lambda: lost.id in site.double.state.certificates and site.status(lost) == "ACTIVE", "it to be there again")
        site.wait_drained()
        assert seen(lost) == "ACTIVE" and site.double.state.things[lost.name]["principals"] == [lost.arn]
        assert site.double.state.attached[lost.arn] == [POLICY]
        assert walk()["drift"] == {}


def test_what_a_list_has_skipped_is_not_deleted(cluster):
    with Site(cluster) as site:
        device, = site.issue("skipped")
        site.show(device)
        site.deliver(device.event())
        site.wait(lambda: site.status(device) == "ACTIVE", "the activation")
        site.wait_drained()
        site.stack.query("UPDATE jitrca.iot_certificate SET observed_at = observed_at - interval '1 hour' RETURNING 1")
        site.double.chaos = lambda operation: {"kind": "members", "members": {"certificates": []}} \
            if operation == "ListCertificatesByCA" else None
        assert site.boss.post("/v1/iot/reconcile", json={"repair": True}).status_code == 202
        site.wait(lambda: site.boss.get("/v1/iot/reconcile").json()["walks"][0]["state"] == "done", "the walk")
        assert site.boss.get("/v1/iot/reconcile").json()["walks"][0]["drift"] == {}
        assert site.double.count("DescribeCertificate") == 1 and site.rows() == []


def test_a_bulk_revocation_costs_what_was_forecast(cluster):
    with Site(cluster) as site:
        devices = site.issue(*[f"bulk-{n}" for n in range(12)])
        site.show(*devices)
        site.deliver(*[device.event() for device in devices])
        site.wait(lambda: all(site.status(device) == "ACTIVE" for device in devices), "all of them")
        site.wait_drained()
        ask = {"selector": {"profile": "device", "all": True}, "reason": "cessationOfOperation"}
        dry = site.boss.post("/v1/revocations", json={**ask, "dry_run": True}).json()
        # Status, thing, list of policies, one policy; DetachPolicy has five a second.
        assert dry["certificates"] == 12 and dry["iot"] == [{"target": "double", "calls": 48, "minutes": 1}]
        # Stations have no business in IoT Core.
        with station(site.stack, "st-forecast"):
            assert site.boss.post("/v1/revocations", json={
                "selector": {"issued_before": "2100-01-01T00:00:00Z"}, "reason": "superseded", "dry_run": True}).json()["iot"] \
                == dry["iot"]
        before = len(site.double.journal)
        real = site.boss.post("/v1/revocations", json=ask)
        assert real.status_code == 202, real.text
        begun = real.json()["targets"]["iot"]
        assert begun["state"] == "running" and begun["pending"] == 12 and begun["forecast"] == dry["iot"]

        def receipt():
            return site.boss.get(real.headers["Location"]).json()["targets"]["iot"]

        site.wait(lambda: receipt()["state"] == "done", "the receipt to say done")
        done = receipt()
        read_back = done["targets"].pop()
        assert (read_back["target"], read_back["seen"], read_back["done"]) == ("double", 12, 12)
        assert read_back["read_back_at"] and done.pop("done_at")
        assert done == {"state": "done", "pending": 0, "dead_letters": 0, "targets": [],
                        "forecast": [{"target": "double", "calls": 0, "minutes": 0}]}
        assert len(site.updates("REVOKED")) == 12 and site.rows() == []
        counted = collections.Counter(call.operation for call in site.double.journal[before:])
        calls = {name: counted[name] for name in ("UpdateCertificate", "DetachThingPrincipal", "ListAttachedPolicies",
                                                  "DetachPolicy")}
        assert set(calls.values()) == {12}, counted


def test_a_thing_is_in_the_groups_of_its_profile(cluster):
    profiles = {"device": {"iot": {"policies": [POLICY], "thing_groups": ["fleet", "line:7"]}}}
    with Site(cluster, profiles=profiles) as site:
        device, lost, other = site.issue("grouped", "grouped-lost", "grouped-other")
        site.show(device, lost, other)
        site.double.fault("AddThingToThingGroup", "throttle", times=2)
        site.deliver(*[one.event() for one in (device, lost, other)])
        site.wait(lambda: all(site.status(one) == "ACTIVE" for one in (device, lost, other)), "all of them")
        site.wait_drained()

        def groups(one):
            with site.double.lock:
                return sorted(site.double.state.things[one.name]["groups"])

        assert [groups(one) for one in (device, lost, other)] == [["fleet", "line:7"]] * 3
        with site.double.lock:
            site.double.state.things[device.name]["groups"].append("by-hand")
        # In quarantine no group but quarantine's is of use; what others put it in stays.
        assert site.boss.post("/v1/devices/grouped/quarantine", json={"reason": "odd"}).status_code == 200
        site.wait_drained()
        assert groups(device) == ["by-hand", "jitrca-quarantine"]
        assert site.boss.post("/v1/devices/grouped/release").status_code == 200
        site.wait_drained()
        assert groups(device) == ["by-hand", "fleet", "line:7"]

        def walk(**body):
            assert site.boss.post("/v1/iot/reconcile", json=body).status_code == 202
            return site.wait(lambda: next((one for one in site.boss.get("/v1/iot/reconcile").json()["walks"]
                                           if one["state"] == "done"), None), "the walk")["drift"]

        assert walk() == {}
        with site.double.lock:
            site.double.state.things[device.name]["groups"].remove("fleet")
            site.double.state.things.pop(lost.name)
            # Somebody deleted the group as well: it is made again.
            site.double.state.groups.pop("fleet")
            site.double.state.things[other.name]["groups"].remove("fleet")
        assert walk() == {"thing_group_missing": 3}
        assert groups(device) == ["by-hand", "line:7"] and site.rows() == []
        assert walk(repair=True) == {"thing_group_missing": 3}
        site.wait_drained()
        assert groups(device) == ["by-hand", "fleet", "line:7"] and groups(lost) == groups(other) == ["fleet", "line:7"]
        assert site.double.state.things[lost.name]["principals"] == [lost.arn]
        assert walk() == {}
        # A group that the profile names no longer is left again; one that others put it in is not, though we were told of it.
        site.name_groups("line:7", "new")
        assert walk() == {"thing_group_missing": 3} and groups(device) == ["by-hand", "fleet", "line:7"]
        assert walk(repair=True) == {"thing_group_missing": 3}
        site.wait_drained()
        assert groups(device) == ["by-hand", "line:7", "new"] and groups(lost) == groups(other) == ["line:7", "new"]
        site.name_groups()
        assert walk() == {"thing_group_left_over": 3} and site.rows() == []
        assert walk(repair=True) == {"thing_group_left_over": 3}
        site.wait_drained()
        assert groups(device) == ["by-hand"] and groups(lost) == groups(other) == []
        assert site.stack.query("SELECT count(*) FROM jitrca.iot_thing_group") == [(0,)]
        assert walk() == {}
        assert site.boss.post("/v1/devices/grouped/decommission", json={"reason": "scrapped"}).status_code == 200
        site.wait_drained()
        assert device.name not in site.double.state.things
        assert walk() == {}


def test_the_devices_of_a_dead_worker_need_not_wait_for_its_leases(cluster):
    with Site(cluster) as site:
        devices = site.issue(*[f"orphan-{n}" for n in range(3)])
        site.show(*devices)
        site.double.fault("UpdateCertificate", "hang", times=3)
        site.deliver(*[device.event() for device in devices])
        site.wait(lambda: site.double.count("UpdateCertificate") > 0, "a call that hangs")
        with site.double.lock:
            site.double.faults.clear()
        begin = time.monotonic()
        os.kill(site.stack.pids()["frontend"], signal.SIGKILL)
        site.wait(lambda: all(site.status(device) == "ACTIVE" for device in devices), "all of them")
        assert time.monotonic() - begin < 20  # a lease lasts 30 s
        assert any(one["event"] == "outbox_leases_orphaned" for one in site.stack.events())
        site.stack.wait_ready()
        site.wait_drained()


def test_a_worker_that_was_overtaken_leaves_doubt_behind(cluster):
    with Site(cluster) as site:
        device, = site.issue("overtaken")
        site.show(device)
        late = threading.Event()

        def hold(operation):
            if operation == "UpdateCertificate" and not late.is_set():
                late.set()
                # As if this worker had been away for so long that its lease ran out and another had the row.
                site.stack.query("UPDATE jitrca.outbox SET lease = lease + 1, lease_until = now() + interval '2 seconds'"
                                 " WHERE device_id = 'overtaken' RETURNING 1")
            return None

        site.double.chaos = hold
        site.deliver(device.event())
        site.wait(late.is_set, "the call")
        # What it did there is not on record, but known to be in doubt; whoever is next says it again.
        site.wait(lambda: site.rows() and site.rows()[0]["cause"] == "overtaken", "the doubt")
        site.wait_drained()
        assert site.status(device) == "ACTIVE" and site.stack.query(
            "SELECT status, under_way FROM jitrca.iot_certificate WHERE device_id = 'overtaken'") == [("ACTIVE", False)]
        assert [call.params["newStatus"] for call in site.updates()] == ["ACTIVE", "ACTIVE"]


def test_a_device_with_more_certificates_than_are_looked_at_at_once(cluster):
    with Site(cluster, profiles={"device": {"one_live": False}}) as site:
        devices = [site.issue("crowded")[0] for _ in range(36)]
        site.show(*devices)
        site.deliver(*[device.event() for device in devices])
        site.wait(lambda: all(site.status(device) == "ACTIVE" for device in devices), "all of them")
        site.wait_drained()
