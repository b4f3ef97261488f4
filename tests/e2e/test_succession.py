"""One CA succeeds another on the local IoT Core, under live devices: half-way, back, and through to the end."""
import json

import pytest
import requests
from cryptography import x509

from harness import client
from harness.client import code, csr_pem, new_key
from harness.described import Described
from harness.loop import Issued, Loop
from harness.stack import Stack, wait_until

FLEET = 6
OLD, NEW = "issuing-1", "issuing-2"


class Member:
    """
    A device that keeps a session and publishes on it. Its work is never without a certificate that is let in: check()
    at any moment.
    """

    def __init__(self, loop, name):
        self.loop, self.name = loop, name
        self.issued, self.session = loop.onboard(name)

    @property
    def ca(self):
        return self.issued.body["ca"]

    def check(self):
        """On the session it has, on a new one, and at our own listener."""
        assert self.session.publish(f"devices/{self.name}/up"), self.name
        fresh = self.loop.device(self.issued)
        with fresh.connect():
            assert fresh.publish(f"devices/{self.name}/up"), self.name
        assert self.session.gone.wait(10)  # one session a client id
        self.session.connect()
        with self.loop.at_device(self.issued) as link:
            answer = link.get("/v1/rotation")
            assert answer.status_code == 200, (self.name, answer.text)
            return answer.json()

    def rotate(self):
        key = new_key()
        with self.loop.at_device(self.issued) as link:
            answer = link.post("/v1/rotation", json={"csr": csr_pem(key)})
        assert answer.status_code == 201, answer.text
        for root in ("root", "root-2"):
            assert (self.loop.stack.data / "keys" / f"{root}.crt").read_text().strip() in answer.json()["trust_bundle"]
        new = Issued(key, answer.json())
        successor = self.loop.device(new)
        assert not successor.try_connect()  # JITR: the first connection registers it
        assert self.session.publish(f"devices/{self.name}/up"), "the old one works meanwhile"
        self.loop.wait_status(new, "ACTIVE")
        successor.connect()
        assert successor.publish(f"devices/{self.name}/up")
        with self.loop.at_device(new) as link:
            assert link.post("/v1/rotation/confirm").status_code == 200
        self.issued, self.session = new, successor

    def close(self):
        self.session.close()


@pytest.fixture(scope="module")
def loop(cluster):
    with Loop(cluster) as it:
        yield it


def ca(loop, *words, check=True):
    """jitrca ca succession …: (exit code, JSON or None, stderr)."""
    token = loop.stack.dir / "boss.token"
    if not token.exists():
        token.write_text(loop.stack.admin_token)
        token.chmod(0o600)
    done = loop.stack.run("ca", "succession", *words, "--json", "--url", loop.stack.url, "--ca-bundle",
                          loop.stack.ca_bundle, "--token-file", token, check=check)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def step(loop, *words, state):
    _, answer, _ = ca(loop, *words)
    assert answer["state"] == state, answer
    return answer


def refused(loop, to, want, of=OLD, **body):
    Described(loop.boss)("POST", f"/v1/cas/{of}/succession", 409, want, json={"to": to, **body})


def there(loop, ca_id):
    """(status, auto-registration) of a CA as IoT Core itself says."""
    pem = loop.boss.get(f"/v1/cas/{ca_id}").json()
    found = loop.api.describe_ca_certificate(certificateId=pem["certificate_id"])["certificateDescription"]
    return found["status"], found["autoRegistrationStatus"]


def issuer(loop):
    return next(one["id"] for one in loop.boss.get("/v1/cas").json()["cas"] if one["issuing"])


def serves_lists(loop, ca_id):
    answer = requests.get(f"{loop.stack.http_url}/crl/{ca_id}.crl", timeout=5)
    assert answer.status_code == 200
    crl = x509.load_der_x509_crl(answer.content)
    authority = x509.load_pem_x509_certificate(loop.boss.get(f"/v1/cas/{ca_id}").json()["certificate"].encode())
    assert crl.is_signature_valid(authority.public_key())


def test_one_ca_succeeds_another_under_live_devices(loop):
    # The ceremony: key and certificate beside the old one, of another subject, under a new root that the old one
    # certifies: devices and broker know the old root alone, and the bundle of a rotation names both.
    assert code(loop.boss.get(f"/v1/cas/{OLD}/succession")) == "succession_unknown"
    loop.stack.run("init", "--config", loop.stack.config, "--successor", NEW, "--new-root", "root-2",
                   "--insecure-fast-seal")
    loop.stack.reload()
    assert loop.boss.get(f"/v1/cas/{NEW}").status_code == 200
    loop.wait_listening()
    subjects = {one["subject"] for one in loop.boss.get("/v1/cas").json()["cas"]}
    assert len(subjects) == 4 and issuer(loop) == OLD

    fleet = [Member(loop, f"heir-{number}") for number in range(FLEET)]
    try:
        with Stack(loop.cluster, config={"iot_targets_file": loop.targets}, share=loop.stack, env=loop.stack.env) as other:
            half_way_and_back(loop, fleet, other)
        to_the_end(loop, fleet)
    finally:
        for one in fleet:
            one.close()


def issued_by(stack, name):
    """Which CA another server issues with, at once."""
    with client.admin(stack) as boss:
        return boss.issue(name).json()["ca"]


def half_way_and_back(loop, fleet, other):
    assert {one.ca for one in fleet} == {OLD}
    assert code(loop.boss.post(f"/v1/cas/{OLD}/successor", json={"successor": "nobody"})) == "successor_unknown"
    assert code(loop.boss.post(f"/v1/cas/{NEW}/successor", json={"successor": OLD})) == "succession_not_issuing"
    assert code(loop.boss.post(f"/v1/cas/{OLD}/successor", json={"successor": "root"})) == "succession_no_key"
    assert step(loop, "start", OLD, "--successor", NEW, state="prepared")["next"]["to"] == "registered"
    described = Described(loop.boss)
    described("GET", f"/v1/cas/{NEW}/succession", 200)
    described("POST", f"/v1/cas/{OLD}/succession", 200, json={"to": "prepared"})  # where it is already
    assert code(loop.boss.post(f"/v1/cas/{OLD}/successor", json={"successor": NEW})) == "succession_open"
    refused(loop, "issuing", "succession_order")
    refused(loop, "nowhere", "succession_order")

    # Half-way …
    step(loop, "register", OLD, state="registered")
    assert there(loop, NEW) == there(loop, OLD) == ("ACTIVE", "ENABLE") and issuer(loop) == OLD
    wait_until(lambda: ca(loop, "issue", OLD, check=False)[0] == 0, "the successor's lists")
    assert issuer(loop) == NEW
    first = Member(loop, "heir-first")
    fleet.append(first)
    assert first.ca == NEW and issued_by(other, "heir-other") == NEW
    answer = loop.boss.post(f"/v1/cas/{NEW}/succession", json={
        "to": "campaign", "campaign": {"canary": {"devices": 2}, "pace_per_hour": 100000}}).json()
    assert answer["campaign"]["state"] in ("filling", "running") and answer["live"]["old"]["certificates"] == FLEET
    campaign = answer["campaign"]["campaign_id"]
    members = f"/v1/campaigns/{campaign}/members"
    asked = wait_until(lambda: len(ids := {m["device_id"] for m in loop.boss.get(members).json()["members"] if m["asked"]})
                       == 2 and ids, "the canary's turn")
    for one in fleet:
        turn = one.check()
        assert (one.name in asked) == turn["due"] == (turn["reason"] == "campaign"), (one.name, turn)
        if turn["due"]:
            one.rotate()
    assert sorted(one.ca for one in fleet) == [OLD] * (FLEET - 2) + [NEW] * 3
    refused(loop, "retired", "succession_order")

    # … and back: issuance returns, the campaign is over, nobody has lost anything.
    refused(loop, "registered", "succession_order")
    assert step(loop, "back", OLD, "--to", "issuing", state="issuing")["campaign"] is None
    assert loop.boss.get(f"/v1/campaigns/{campaign}").json()["state"] == "aborted"
    step(loop, "back", OLD, "--to", "registered", state="registered")
    assert issuer(loop) == OLD
    for one in fleet:
        one.check()
    between = Member(loop, "heir-between")
    fleet.append(between)
    assert between.ca == OLD and issued_by(other, "heir-shy") == OLD
    # Those that came by the successor need it: it stays registered.
    refused(loop, "prepared", "succession_live")
    assert there(loop, NEW) == ("ACTIVE", "ENABLE")

    with client.admin(other) as boss:
        wait_until(lambda: [one["issuing"] for one in boss.get("/v1/cas").json()["cas"] if one["id"] == OLD] == [True],
                   "the other server to show it")

    # A restart knows who issues from the row, not from the configuration.
    step(loop, "issue", OLD, state="issuing")
    loop.stack.restart()
    assert issuer(loop) == NEW
    loop.wait_listening()


def to_the_end(loop, fleet):
    stranger = loop.issue("heir-stranger")
    assert stranger.body["ca"] == NEW
    step(loop, "campaign", OLD, state="campaign")
    last, *others = [one for one in fleet if one.ca == OLD]
    for one in others:
        one.check()
        one.rotate()
    # One that was made by the old CA and never came: it could not come any more.
    refused(loop, "retiring", "succession_unseen")
    assert there(loop, OLD) == ("ACTIVE", "ENABLE")
    shy = loop.boss.get("/v1/certificates", params={"device_id": "heir-shy"}).json()["certificates"][0]
    assert loop.boss.post(f"/v1/certificates/{shy['certificate_id']}/revoke",
                          json={"reason": "cessationOfOperation"}).status_code == 200
    loop.wait_settled()

    # Without auto-registration who is known goes on; and the last step waits for the last device.
    step(loop, "retire", OLD, state="retiring")
    assert there(loop, OLD) == ("ACTIVE", "DISABLE")
    last.check()
    refused(loop, "retired", "succession_live")
    step(loop, "back", OLD, "--to", "campaign", state="campaign")
    assert there(loop, OLD) == ("ACTIVE", "ENABLE")
    step(loop, "retire", OLD, state="retiring")
    last.rotate()
    assert {one.ca for one in fleet} == {NEW}
    loop.wait_settled()
    answer = step(loop, "status", NEW, state="retiring")
    assert answer["live"] == {"old": {"certificates": 0, "unseen": 0},
                              "new": {"certificates": len(fleet) + 2, "unseen": 2}}
    assert answer["next"]["command"] == f"jitrca ca succession finish {OLD}"
    answer = step(loop, "finish", OLD, state="retired")
    assert answer["next"] is None and answer["back"] is None
    assert there(loop, OLD) == ("INACTIVE", "DISABLE") and there(loop, NEW) == ("ACTIVE", "ENABLE")
    refused(loop, "retiring", "succession_order")
    assert code(loop.boss.post(f"/v1/cas/{NEW}/successor", json={"successor": OLD})) in (
        "succession_ends_earlier", "succession_open")

    for one in fleet:
        one.check()
    late, session = loop.onboard("heir-late")
    assert late.body["ca"] == NEW and session.publish("devices/heir-late/up")
    session.close()
    for one in (OLD, NEW):
        serves_lists(loop, one)
    steps = [record["to"] for record in loop.boss.get("/v1/events", params={"kind": "ca_succession"}).json()["events"]
             for record in [record["detail"]]][::-1]
    assert steps == ["prepared", "registered", "issuing", "campaign", "issuing", "registered", "issuing", "campaign",
                     "retiring", "campaign", "retiring", "retired"]
    audit = loop.boss.get("/v1/audit", params={"action": "ca.succession"}).json()["records"]
    assert len(audit) == len(steps)
    assert loop.boss.get("/v1/audit/verify").json()["ok"]
