"""Our client of IoT Core and our local IoT Core, held against each other: a device's life with both ends ours."""
import json

import pytest
from harness import x509
from harness.iotcore import ACCOUNT, KEY, READER, READER_SECRET, REGION, SECRET, LocalCore

from test_aws_client import Client

DOCUMENT = json.dumps({"Version": "2012-10-17", "Statement": [{
    "Effect": "Allow", "Action": "iot:Connect", "Resource": f"arn:aws:iot:{REGION}:{ACCOUNT}:client/x"}]})
ARN = f"arn:aws:iot:{REGION}:{ACCOUNT}:"


@pytest.fixture(scope="module")
def core(cluster):
    with LocalCore(cluster) as it:
        yield it


def client_of(core, key=KEY, secret=SECRET, **config):
    return Client(core.url, {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}, region=REGION,
                  quotas={name: 1000 for name in ("DescribeCertificate", "UpdateCertificate", "ListCertificatesByCA")}, **config)


@pytest.fixture
def client(core):
    with client_of(core) as it:
        yield it


def test_a_devices_life(client):
    authority = x509.Authority("Client CA")
    code = client.ok("get_registration_code")["code"]
    proof = authority.issue(code)
    ca = client.ok("register_ca_certificate", ca_pem=authority.pem, verification_pem=proof,
                   active=True, auto_registration=True)
    assert ca == {"arn": f"{ARN}cacert/{authority.id}", "id": authority.id}
    again = client.refused("iot_exists", "register_ca_certificate", ca_pem=authority.pem, verification_pem=proof)
    assert again["failure"]["resource_arn"] == ca["arn"]
    found = client.ok("describe_ca_certificate", id=ca["id"])
    assert (found["status"], found["auto_registration"], found["mode"]) == ("ACTIVE", 1, 1) and found["creation_s"] > 0
    assert ca["id"] in client.ok("list_ca_certificates")["items"]

    devices = [authority.issue(f"device-{number}") for number in range(5)]
    made = [client.ok("register_certificate", pem=device, certificate_status="INACTIVE") for device in devices]
    assert [m["id"] for m in made] == [x509.certificate_id(device) for device in devices]
    listed = client.ok("list_certificates_by_ca", ca_id=ca["id"], page=2)
    assert sorted(listed["items"]) == sorted(m["id"] for m in made) and listed["pages"] == 3
    assert listed["items"] == client.ok("list_certificates_by_ca", ca_id=ca["id"], newest_first=True)["items"][::-1]

    client.ok("create_thing_type", name="kind:1", description="a kind", searchable=["model"])
    client.refused("iot_exists", "create_thing_type", name="kind:1", description="another kind")
    assert client.ok("describe_thing_type", name="kind:1")["description"] == "a kind"
    thing = client.ok("create_thing", name="dev:1", type="kind:1", attributes={"model": "x"})
    assert client.ok("create_thing", name="dev:1", type="kind:1", attributes={"model": "x"}) == thing
    client.refused("iot_exists", "create_thing", name="dev:1", attributes={"model": "y"})
    client.ok("update_thing", name="dev:1", attributes={"site": "a"}, merge=True, expected_version=1)
    client.refused("iot_version_conflict", "update_thing", name="dev:1", attributes={}, expected_version=1)
    assert client.ok("describe_thing", name="dev:1")["attributes"] == {"model": "x", "site": "a"}

    client.ok("create_policy", name="p+o=l", document=DOCUMENT)
    client.refused("iot_exists", "create_policy", name="p+o=l", document=DOCUMENT)
    client.refused("iot_invalid", "create_policy", name="bad", document="{}")
    assert json.loads(client.ok("get_policy", name="p+o=l")["document"]) == json.loads(DOCUMENT)
    assert client.ok("create_policy_version", name="p+o=l", document=DOCUMENT, set_default=True)["id"] == "2"
    client.ok("set_default_policy_version", name="p+o=l", version="1")
    client.ok("delete_policy_version", name="p+o=l", version="2")
    assert [v["id"] for v in client.ok("list_policy_versions", name="p+o=l")["items"]] == ["1"]
    for _ in range(2):
        client.ok("attach_policy", name="p+o=l", target=made[0]["arn"])
    assert client.ok("list_attached_policies", target=made[0]["arn"])["items"] == ["p+o=l"]
    client.ok("attach_thing_principal", thing="dev:1", principal=made[0]["arn"])
    assert client.ok("list_thing_principals", thing="dev:1")["items"] == [made[0]["arn"]]
    assert client.ok("list_principal_things", principal=made[0]["arn"])["items"] == ["dev:1"]
    client.ok("update_certificate", id=made[0]["id"], new_status="ACTIVE")
    found = client.ok("describe_certificate", id=made[0]["id"])
    assert (found["status"], found["ca_id"], found["pem"].strip()) == ("ACTIVE", ca["id"], devices[0].strip())
    assert found["not_after_s"] > found["not_before_s"] > 0

    client.ok("create_thing_group", name="quarantine", description="kept apart")
    for _ in range(2):
        client.ok("add_thing_to_thing_group", group="quarantine", thing="dev:1")
    assert client.ok("list_thing_groups_for_thing", thing="dev:1")["items"] == ["quarantine"]
    client.ok("remove_thing_from_thing_group", group="quarantine", thing="dev:1")

    client.ok("update_certificate", id=made[0]["id"], new_status="REVOKED", urgent=True)
    client.refused("iot_state", "update_certificate", id=made[0]["id"], new_status="ACTIVE")
    for _ in range(2):
        client.ok("detach_policy", name="p+o=l", target=made[0]["arn"])
    client.ok("detach_thing_principal", thing="dev:1", principal=made[0]["arn"])
    client.ok("delete_thing", name="dev:1")
    client.ok("delete_certificate", id=made[0]["id"], force=True)
    client.refused("iot_not_found", "describe_certificate", id=made[0]["id"])
    client.refused("iot_state", "delete_ca_certificate", id=ca["id"])
    client.ok("update_ca_certificate", id=ca["id"], new_status="INACTIVE", auto_registration=2)
    client.ok("delete_ca_certificate", id=ca["id"])


def test_the_endpoint_and_events(client):
    assert client.ok("describe_endpoint", type="iot:Data-ATS")["host"]
    client.ok("update_event_configurations", types=["THING"], enabled=True)


def test_refused_keys(core):
    with client_of(core, READER, READER_SECRET) as client:
        client.ok("list_certificates")
        client.refused("iot_denied", "create_thing", name="t")
    with client_of(core, KEY, "another secret".replace(" ", "-")) as client:
        client.refused("iot_denied", "list_certificates")


def test_every_name_is_signed_alike(client):
    """Both ends have one signer: what it gets wrong would show against the other implementations, not here."""
    for name in ("a:b", "a_b-c", ":" * 128):
        client.ok("create_thing", name=name)
        assert client.ok("describe_thing", name=name)["name"] == name
