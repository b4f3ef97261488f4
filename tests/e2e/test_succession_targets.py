"""A succession in two accounts, whose steps are killed in the middle: each is repeated and ends; nothing is left half done."""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import shutil
import signal
import tempfile
import time

import pytest
import requests

from harness import client, iotcore
from harness.client import code, csr_pem, new_key
from harness.described import Described
from harness.stack import Stack, wait_until

OLD, NEW = "issuing-1", "issuing-2"
PLACES = {"north": ("111111111111", "eu-north-1"), "south": ("222222222222", "eu-south-1")}
PREREGISTERED = {"device": {"iot": {"policies": ["jitrca-device"], "preregister": True}}}
FAST = {"canary": {"devices": 3, "soak_s": 0}, "pace_per_hour": 1000000}
LONG = bool(os.environ.get("JITRCA_TEST_LONG"))
# So many steps of a frontend, and it is killed when the targets have been told and the row has not moved. The short form
# ends with the campaign, which is its fourth.
FAILPOINT = "succession_step:2" if LONG else "succession_step:4"


class World:
    """A server with two targets, each a local IoT Core of an account and a database of its own, and three devices."""

    def __init__(self, cluster, parts):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="jitrca-places-"))
        parts.callback(shutil.rmtree, self.dir, ignore_errors=True)
        self.targets = self.dir / "targets.json"
        self.cores = {name: parts.enter_context(iotcore.LocalCore(cluster, {"iotcore_account": account,
                                                                            "iotcore_region": region}))
                      for name, (account, region) in PLACES.items()}
        self.targets.write_text(json.dumps([
            {"name": name, "account": account, "region": region, "endpoint_url": self.cores[name].url,
             "certificate_mode": "DEFAULT", "quotas": {"*": 1000}} for name, (account, region) in PLACES.items()]))
        self.stack = parts.enter_context(Stack(
            cluster, config={"iot_targets_file": self.targets}, profiles=PREREGISTERED, env={
                "AWS_ACCESS_KEY_ID": iotcore.KEY, "AWS_SECRET_ACCESS_KEY": iotcore.SECRET,
                "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "JITRCA_TEST_FAILPOINT": FAILPOINT}))
        self.boss = parts.enter_context(client.admin(self.stack))
        self.boss.session.headers["Connection"] = "close"  # those that are kept die with the frontend
        self.apis = {name: core.client(region=PLACES[name][1]) for name, core in self.cores.items()}
        for name in PLACES:
            answer = self.boss.post(f"/v1/cas/{OLD}/iot-registration", json={"target": name})
            assert answer.status_code in (200, 201), answer.text
        self.devices = {f"heir-{n}": self.begin(f"heir-{n}") for n in range(3)}
        self.deaths = 0

    def begin(self, name):
        key = new_key()
        answer = self.boss.issue(name, key)
        assert answer.status_code == 201, answer.text
        return key, answer.json()

    def there(self, ca_id):
        """{target: (status, auto-registration)} as each IoT Core itself says; None: not there."""
        wanted = self.boss.get(f"/v1/cas/{ca_id}").json()["certificate_id"]
        found = {}
        for name, api in self.apis.items():
            found[name] = None
            with contextlib.suppress(api.exceptions.ResourceNotFoundException):
                said = api.describe_ca_certificate(certificateId=wanted)["certificateDescription"]
                found[name] = said["status"], said["autoRegistrationStatus"]
        return found

    def state(self):
        answer = self.boss.get(f"/v1/cas/{OLD}/succession")
        assert answer.status_code == 200, answer.text
        return answer.json()["state"]

    def ask(self, to):
        body = {"to": to, "campaign": FAST} if to == "campaign" else {"to": to}
        return self.boss.post(f"/v1/cas/{OLD}/succession", json=body)

    def after_death(self, pid):
        wait_until(lambda: self.stack.pids().get("frontend") not in (None, pid), "another frontend", 60)
        self.stack.wait_ready(60)
        self.deaths += 1

    def step(self, to):
        """Repeated once if it was killed; what it had not finished was not begun by the row's account."""
        before, pid = self.state(), self.stack.pids()["frontend"]
        try:
            answer = self.ask(to)
        except requests.ConnectionError:
            self.after_death(pid)
            assert self.state() == before
            answer = self.ask(to)
        assert answer.status_code == 200, answer.text
        assert answer.json()["state"] == to
        return answer.json()

    def kill_between_targets(self, to, reached):
        """The second target is away; when the first has been reached the frontend is killed."""
        before, pid = self.state(), self.stack.pids()["frontend"]
        self.cores["south"].stop(signal.SIGKILL)
        try:
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                asked = pool.submit(self.ask, to)
                wait_until(reached, "the first target", 20, 0.02)
                os.kill(pid, signal.SIGKILL)
                with pytest.raises(requests.ConnectionError):
                    asked.result(20)
        finally:
            self.cores["south"].start()
        self.after_death(pid)
        assert self.state() == before

    def first(self, ca_id):
        """As the first target says, of which the second need not be there."""
        wanted = self.boss.get(f"/v1/cas/{ca_id}").json()["certificate_id"]
        try:
            said = self.apis["north"].describe_ca_certificate(certificateId=wanted)["certificateDescription"]
        except self.apis["north"].exceptions.ResourceNotFoundException:
            return None
        return said["status"], said["autoRegistrationStatus"]

    def settled(self):
        wait_until(lambda: not self.stack.query("SELECT 1 FROM jitrca.outbox"), "an empty outbox", 30)

    def rotate_all(self):
        for name, (key, body) in self.devices.items():
            fresh = new_key()
            with client.device(self.stack, key, body) as device:
                wait_until(lambda link=device: link.get("/v1/rotation").json()["due"], f"{name}'s turn", 30)
                answer = device.post("/v1/rotation", json={"csr": csr_pem(fresh)})
            assert answer.status_code == 201 and answer.json()["ca"] == NEW, answer.text
            with client.device(self.stack, fresh, answer.json()) as device:
                assert device.post("/v1/rotation/confirm").status_code == 200
            self.devices[name] = fresh, answer.json()
        self.settled()


def everywhere(status, switch):
    return {name: (status, switch) for name in PLACES}


def refuses_without_the_key(world, cluster):
    """Another server, to which the successor's key was not brought."""
    keyless = world.dir / "keyless"
    shutil.copytree(world.stack.data, keyless)
    for file in (keyless / "keys").glob(f"{NEW}.*"):
        file.unlink()
    env = {key: value for key, value in world.stack.env.items() if key != "JITRCA_TEST_FAILPOINT"}
    with Stack(cluster, config={"iot_targets_file": world.targets, "data_dir": keyless}, share=world.stack, env=env):
        answer = Described(world.boss)("POST", f"/v1/cas/{OLD}/succession", 409, "succession_key_missing",
                                       json={"to": "issuing"})
        assert "no key of issuing-2" in answer.json()["detail"]
    assert world.state() == "registered"


MILLION = """
WITH made AS (INSERT INTO jitrca.certificate (expiry_month, issuer_id, serial, status, profile, device_id, subject,
	principal_id, not_before, not_after, issued_at, sha256, spki_sha256, status_at, der)
SELECT c.expiry_month, c.issuer_id, substring(c.serial FOR 4) || substring(sha256(n::text::bytea) FOR 12),
	'active', c.profile, 'dev-' || n, c.subject, c.principal_id,
	c.not_before, c.not_after, c.issued_at, sha256(n::text::bytea), sha256(n::text::bytea), c.status_at, 'x'
FROM jitrca.certificate c, generate_series(1, 1000100) n WHERE c.device_id = 'seed' RETURNING 1) SELECT count(*) FROM made
"""


@pytest.mark.long  # minutes, to write as many rows
def test_a_million_that_live_are_counted_and_no_more(cluster, tmp_path):
    """Nor is the old CA's auto-registration switched off on the word of a part."""
    targets = tmp_path / "targets.json"
    targets.write_text(json.dumps([{"name": "far", "region": "eu-north-1", "account": "123456789012",
                                    "endpoint_url": "http://127.0.0.1:9", "certificate_mode": "SNI_ONLY"}]))
    with Stack(cluster, config={"iot_targets_file": targets}, env={
            "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_EC2_METADATA_DISABLED": "true"}) as stack, \
            client.admin(stack) as boss:
        assert boss.issue("seed").status_code == 201
        assert stack.query(MILLION) == [(1000100,)]
        stack.run("init", "--config", stack.config, "--successor", NEW, "--insecure-fast-seal")
        stack.reload()
        assert boss.get(f"/v1/cas/{NEW}").status_code == 200
        begin = time.monotonic()
        said = boss.post(f"/v1/cas/{OLD}/successor", json={"successor": NEW}).json()
        print("to count a million:", round(time.monotonic() - begin, 2), "s")
        assert said["live"]["old"] == {"certificates": 1000000, "unseen": 1000000}
        stack.query("UPDATE jitrca.ca_succession SET state = 'campaign' RETURNING 1")
        answer = Described(boss)("POST", f"/v1/cas/{OLD}/succession", 409, "succession_uncounted", json={"to": "retiring"})
        assert "1000000" in answer.json()["detail"]


@pytest.mark.long  # two IoT Cores, killed and started again; test_succession.py is the plain way
def test_what_was_killed_in_the_middle_is_repeated_in_all_accounts(cluster, hooks):
    with contextlib.ExitStack() as parts:
        world = World(cluster, parts)
        boss, stack = world.boss, world.stack
        stack.run("init", "--config", stack.config, "--successor", NEW, "--insecure-fast-seal")
        stack.reload()
        assert boss.get(f"/v1/cas/{NEW}").status_code == 200

        # A registration that reached one account of two, and then is given up: it is taken back there.
        assert boss.post(f"/v1/cas/{OLD}/successor", json={"successor": NEW}).status_code == 201
        world.kill_between_targets("registered", lambda: world.first(NEW) == ("ACTIVE", "ENABLE"))
        assert world.there(NEW) == {"north": ("ACTIVE", "ENABLE"), "south": None}
        world.step("cancelled")
        assert world.there(NEW) == {"north": ("INACTIVE", "DISABLE"), "south": None}

        # And one that is repeated.
        assert boss.post(f"/v1/cas/{OLD}/successor", json={"successor": NEW}).status_code == 201
        world.step("registered")
        assert world.there(NEW) == world.there(OLD) == everywhere("ACTIVE", "ENABLE")
        for api in world.apis.values():
            assert len(api.list_ca_certificates()["certificates"]) == 2

        refuses_without_the_key(world, cluster)
        wait_until(lambda: not stack.query("SELECT FROM pg_locks l JOIN jitrca.instance i ON l.objid = i.instance_id::oid"
                                           " WHERE l.classid = 1784 AND l.objsubid = 2 AND NOT i.issuers @> (SELECT"
                                           " array_agg(issuer_id) FROM jitrca.issuer WHERE ca_id = %s)", NEW), "its end")
        assert world.step("issuing")["issuing"] == NEW

        # The campaign that was begun before the kill is the one that goes on.
        campaign = world.step("campaign")["campaign"]["campaign_id"]
        assert [one["campaign_id"] for one in boss.get("/v1/campaigns").json()["campaigns"]] == [campaign]
        assert world.deaths == (4 if LONG else 2), world.deaths
        if LONG:
            to_the_end(world)


def to_the_end(world):
    boss, stack = world.boss, world.stack
    world.rotate_all()

    world.kill_between_targets("retiring", lambda: world.first(OLD) == ("ACTIVE", "DISABLE"))
    assert world.there(OLD) == {"north": ("ACTIVE", "DISABLE"), "south": ("ACTIVE", "ENABLE")}
    world.step("issuing")
    assert world.there(OLD) == everywhere("ACTIVE", "ENABLE")
    world.step("campaign")  # of nobody: all have rotated
    world.step("retiring")
    assert world.there(OLD) == everywhere("ACTIVE", "DISABLE")
    # Killed when both were told, and taken back from there all the same.
    pid = stack.pids()["frontend"]
    with pytest.raises(requests.ConnectionError):
        world.ask("retired")
    world.after_death(pid)
    assert world.there(OLD) == everywhere("INACTIVE", "DISABLE") and world.state() == "retiring"
    world.step("campaign")
    assert world.there(OLD) == everywhere("ACTIVE", "ENABLE")
    world.step("retiring")
    world.step("retired")
    assert world.there(OLD) == everywhere("INACTIVE", "DISABLE")
    assert world.there(NEW) == everywhere("ACTIVE", "ENABLE")
    assert world.deaths >= 6, world.deaths

    # Each step is on record once, however often it was asked for.
    steps = [record["detail"]["to"] for record in
             boss.get("/v1/events", params={"kind": "ca_succession"}).json()["events"]][::-1]
    assert steps == ["prepared", "cancelled", "prepared", "registered", "issuing", "campaign", "issuing", "campaign",
                     "retiring", "campaign", "retiring", "retired"]
    assert len(boss.get("/v1/audit", params={"action": "ca.succession"}).json()["records"]) == len(steps)
    assert code(world.ask("retiring")) == "succession_order"
    assert boss.get("/v1/audit/verify").json()["ok"]
