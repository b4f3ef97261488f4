"""Policies: versions, attachments, what they decide; each answer held against botocore's model."""
import json

import pytest

from .conftest import register
from harness.x509 import Authority

ARN = "arn:aws:iot:eu-central-1:123456789012:"


def document(action="iot:Connect", resource="*", effect="Allow", **more):
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": effect, "Action": action, "Resource": resource, **more}]})


@pytest.fixture(scope="module")
def certificate(api, authority):
    """The ARN of an active device certificate; its common name is device-1."""
    return api("RegisterCertificate", certificatePem=authority.issue("device-1"), status="ACTIVE")["certificateArn"]


def new_certificate(api, authority, name="device"):
    return api("RegisterCertificate", certificatePem=authority.issue(name), status="ACTIVE")["certificateArn"]


def names(answer):
    return [policy["policyName"] for policy in answer["policies"]]


# ---- policies and versions ----

def test_a_policy_lives(api):
    text = document()
    made = api("CreatePolicy", policyName="life+=,.@-_1", policyDocument=text, tags=[{"Key": "a", "Value": "b"}])
    assert made == {"policyName": "life+=,.@-_1", "policyArn": ARN + "policy/life+=,.@-_1", "policyDocument": text,
                    "policyVersionId": "1"}
    got = api("GetPolicy", policyName="life+=,.@-_1")
    assert (got["policyDocument"], got["defaultVersionId"]) == (text, "1") and len(got["generationId"]) == 64
    assert api("ListTagsForResource", resourceArn=made["policyArn"])["tags"] == [{"Key": "a", "Value": "b"}]
    error = api.refused("CreatePolicy", "ResourceAlreadyExistsException", policyName="life+=,.@-_1", policyDocument=text)
    assert error["resourceArn"] == made["policyArn"]
    api("DeletePolicy", policyName="life+=,.@-_1")
    for operation in ("GetPolicy", "DeletePolicy", "ListPolicyVersions", "ListTargetsForPolicy"):
        api.refused(operation, "ResourceNotFoundException", policyName="life+=,.@-_1")
    api("CreatePolicy", policyName="life+=,.@-_1", policyDocument=text)


def test_versions_are_five_at_most(api):
    api("CreatePolicy", policyName="versions", policyDocument=document())
    generation = api("GetPolicy", policyName="versions")["generationId"]
    two = api("CreatePolicyVersion", policyName="versions", policyDocument=document("iot:Publish"))
    assert (two["policyVersionId"], two["isDefaultVersion"]) == ("2", False)
    three = api("CreatePolicyVersion", policyName="versions", policyDocument=document("iot:Receive"), setAsDefault=True)
    assert (three["policyVersionId"], three["isDefaultVersion"]) == ("3", True)
    got = api("GetPolicy", policyName="versions")
    assert got["policyDocument"] == document("iot:Receive") and got["generationId"] != generation
    version = api("GetPolicyVersion", policyName="versions", policyVersionId="2")
    assert (version["policyDocument"], version["isDefaultVersion"], version["policyName"]) == (
        document("iot:Publish"), False, "versions")
    for _ in range(2):
        api("CreatePolicyVersion", policyName="versions", policyDocument=document())
    api.refused("CreatePolicyVersion", "VersionsLimitExceededException", policyName="versions", policyDocument=document())
    assert [(item["versionId"], item["isDefaultVersion"]) for item in
            api("ListPolicyVersions", policyName="versions")["policyVersions"]] == [
                ("5", False), ("4", False), ("3", True), ("2", False), ("1", False)]
    api.refused("DeletePolicyVersion", "DeleteConflictException", policyName="versions", policyVersionId="3")
    api("DeletePolicyVersion", policyName="versions", policyVersionId="5")
    # A number is never given twice.
    assert api("CreatePolicyVersion", policyName="versions", policyDocument=document())["policyVersionId"] == "6"
    api("SetDefaultPolicyVersion", policyName="versions", policyVersionId="1")
    assert api("GetPolicy", policyName="versions")["defaultVersionId"] == "1"
    for operation in ("GetPolicyVersion", "SetDefaultPolicyVersion", "DeletePolicyVersion"):
        for absent in ("5", "99", "0", "123456789012345678901234567890"):
            api.refused(operation, "ResourceNotFoundException", policyName="versions", policyVersionId=absent)
        api.refused(operation, "ResourceNotFoundException", policyName="absent", policyVersionId="1")
    api.refused("CreatePolicyVersion", "ResourceNotFoundException", policyName="absent", policyDocument=document())
    api.refused("DeletePolicy", "DeleteConflictException", policyName="versions")
    for number in "2346":
        api("DeletePolicyVersion", policyName="versions", policyVersionId=number)
    api("DeletePolicy", policyName="versions")


MALFORMED = {
    "not JSON": "{",
    "no statement": '{"Version": "2012-10-17"}',
    "a list": "[]",
    "empty": "",
    "another version": '{"Version": "2020-01-01", "Statement": []}',
    "a principal": document(Principal="*"),
    "another effect": document(effect="allow"),
    "another service": document(action="s3:GetObject"),
    "an unknown operator": document(Condition={"StringAlmost": {"a": "b"}}),
    "a resource that is no ARN": document(resource="topic/a"),
    "an open variable": document(resource=ARN + "topic/${iot:ClientId"),
    "a doubled member": '{"Version":"2012-10-17","Version":"2012-10-17","Statement":[]}',
    "too long": document(resource=[ARN + "topic/" + "a" * 100] * 20),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_document_is_refused(api, name):
    error = api.refused("CreatePolicy", "MalformedPolicyException", policyName="malformed", policyDocument=MALFORMED[name])
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 400
    api.refused("GetPolicy", "ResourceNotFoundException", policyName="malformed")


def test_white_space_does_not_count(api):
    text = json.dumps(json.loads(document(resource=[ARN + "topic/" + "a" * 80] * 13)), indent=20)
    assert len(text) > 2048
    assert api("CreatePolicy", policyName="roomy", policyDocument=text)["policyDocument"] == text


def test_names_are_held_against_the_model(loose):
    for name, want in (("a b", r"[\w+=,.@-]+"), ("a/b", r"[\w+=,.@-]+"), ("a" * 129, "less than or equal to 128"), ("é", r"[\w+=,.@-]+")):
        for operation, more in (("CreatePolicy", {"policyDocument": document()}), ("GetPolicy", {}), ("AttachPolicy", {"target": ARN})):
            message = loose.refused(operation, "InvalidRequestException", policyName=name, **more)["Error"]["Message"]
            assert want in message and "'policyName'" in message, message
    message = loose.refused("CreatePolicy", "InvalidRequestException", policyName="a")["Error"]["Message"]
    assert "Value null at 'policyDocument'" in message
    loose.refused("GetPolicyVersion", "InvalidRequestException", policyName="a", policyVersionId="v1")


def test_policies_are_listed_by_name(api):
    for number in range(30):
        api("CreatePolicy", policyName=f"listed-{number:02}", policyDocument=document())
    up = [name for page in api.pages("ListPolicies", "policies", pageSize=7, ascendingOrder=True) for name in
          [item["policyName"] for item in page]]
    down = [name for page in api.pages("ListPolicies", "policies", pageSize=7) for name in
            [item["policyName"] for item in page]]
    assert up == sorted(up) and down == up[::-1] and len(set(up)) == len(up) >= 30
    assert len(api("ListPolicies")["policies"]) == 25


# ---- attachments ----

def test_attaching_and_detaching(api, certificate):
    api("CreatePolicy", policyName="attached", policyDocument=document())
    for _ in range(2):  # repeating it succeeds
        api("AttachPolicy", policyName="attached", target=certificate)
    assert api("ListAttachedPolicies", target=certificate) == {
        "policies": [{"policyName": "attached", "policyArn": ARN + "policy/attached"}]}
    assert api("ListTargetsForPolicy", policyName="attached") == {"targets": [certificate]}
    api.refused("DeletePolicy", "DeleteConflictException", policyName="attached")
    for _ in range(2):  # and so does taking away what is not there
        api("DetachPolicy", policyName="attached", target=certificate)
    assert api("ListAttachedPolicies", target=certificate)["policies"] == []
    api("DeletePolicy", policyName="attached")


def test_targets_that_are_none(api, certificate):
    api("CreatePolicy", policyName="targets", policyDocument=document())
    absent = [ARN + "cert/" + "0" * 64, ARN + "thinggroup/absent"]
    invalid = ["x", "arn:aws:iot:us-east-1:123456789012:" + certificate.rsplit(":", 1)[1],
               "arn:aws:iot:eu-central-1:999999999999:" + certificate.rsplit(":", 1)[1], ARN + "cert/abc", ARN + "cert/" + "g" * 64,
               ARN + "thing/a", ARN + "thinggroup/a b", "eu-central-1:11111111-2222-3333-4444-555555555555"]
    for target in absent:
        api.refused("AttachPolicy", "ResourceNotFoundException", policyName="targets", target=target)
        api.refused("ListAttachedPolicies", "ResourceNotFoundException", target=target)
    for target in invalid:
        api.refused("AttachPolicy", "InvalidRequestException", policyName="targets", target=target)
        api.refused("DetachPolicy", "InvalidRequestException", policyName="targets", target=target)
        api.refused("ListAttachedPolicies", "InvalidRequestException", target=target)
    api.refused("AttachPolicy", "ResourceNotFoundException", policyName="absent", target=certificate)


def test_a_certificate_has_ten_policies_and_a_group_two(api, authority):
    certificate = new_certificate(api, authority, "ten")
    api("CreateThingGroup", thingGroupName="two")
    group = ARN + "thinggroup/two"
    for number in range(11):
        api("CreatePolicy", policyName=f"many-{number:02}", policyDocument=document())
    for target, most in ((certificate, 10), (group, 2)):
        for number in range(most):
            api("AttachPolicy", policyName=f"many-{number:02}", target=target)
        api.refused("AttachPolicy", "LimitExceededException", policyName="many-10", target=target)
        api("AttachPolicy", policyName="many-00", target=target)
    assert [names({"policies": page}) for page in api.pages("ListAttachedPolicies", "policies", target=certificate, pageSize=4)] == [
        ["many-00", "many-01", "many-02", "many-03"], ["many-04", "many-05", "many-06", "many-07"], ["many-08", "many-09"]]
    assert sorted(api("ListTargetsForPolicy", policyName="many-00")["targets"]) == sorted([certificate, group])


def test_groups_inherit(api):
    api("CreateThingGroup", thingGroupName="grandparent")
    api("CreateThingGroup", thingGroupName="parent", parentGroupName="grandparent")
    api("CreateThingGroup", thingGroupName="child", parentGroupName="parent")
    for name in ("grandparent", "child"):
        api("CreatePolicy", policyName=f"of-{name}", policyDocument=document())
        api("AttachPolicy", policyName=f"of-{name}", target=ARN + "thinggroup/" + name)
    child = ARN + "thinggroup/child"
    assert names(api("ListAttachedPolicies", target=child)) == ["of-child"]
    assert names(api("ListAttachedPolicies", target=child, recursive=True)) == ["of-child", "of-grandparent"]


def test_the_deprecated_forms_say_the_same(api, authority, certificate):
    api("CreatePolicy", policyName="legacy", policyDocument=document())
    api("AttachPrincipalPolicy", policyName="legacy", principal=certificate)
    assert names(api("ListPrincipalPolicies", principal=certificate)) == ["legacy"]
    assert api("ListPolicyPrincipals", policyName="legacy") == {"principals": [certificate]}
    others = sorted(new_certificate(api, authority, f"legacy {number}") for number in range(3))
    for other in others:
        api("AttachPrincipalPolicy", policyName="legacy", principal=other)
    found = [item for page in api.pages("ListPolicyPrincipals", "principals", policyName="legacy", pageSize=2,
                                        ascendingOrder=True) for item in page]
    assert found == sorted([*others, certificate])
    api("DetachPrincipalPolicy", policyName="legacy", principal=certificate)
    api.refused("DetachPrincipalPolicy", "ResourceNotFoundException", policyName="legacy", principal=certificate)
    api.refused("AttachPrincipalPolicy", "InvalidRequestException", policyName="legacy", principal=ARN + "thinggroup/a")
    api.refused("AttachPrincipalPolicy", "ResourceNotFoundException", policyName="legacy", principal=ARN + "cert/" + "0" * 64)
    api.refused("ListPrincipalPolicies", "ResourceNotFoundException", principal=ARN + "cert/" + "0" * 64)
    api.refused("ListPolicyPrincipals", "ResourceNotFoundException", policyName="absent")


@pytest.mark.long  # each call starts the command line anew; test_iot_life.py has the main ones
def test_the_cli_says_the_same(core, authority):
    arn = core.aws("register-certificate", "--certificate-pem", authority.issue("by cli"), "--status", "ACTIVE")["certificateArn"]
    core.aws("create-policy", "--policy-name", "by-cli", "--policy-document", document())
    core.aws("attach-policy", "--policy-name", "by-cli", "--target", arn)
    assert names(core.aws("list-attached-policies", "--target", arn)) == ["by-cli"]
    assert core.aws("list-targets-for-policy", "--policy-name", "by-cli") == {"targets": [arn]}
    core.aws("update-certificate", "--certificate-id", arn.rsplit("/")[-1], "--new-status", "REVOKED")
    assert core.aws("describe-certificate", "--certificate-id", arn.rsplit("/")[-1])["certificateDescription"]["status"] == "REVOKED"
    refused = core.aws("create-policy", "--policy-name", "by-cli-2", "--policy-document", "{}", check=False)
    assert "MalformedPolicyException" in refused.stderr and refused.returncode == 254


# ---- what they decide ----

def test_test_authorization(api, authority):
    certificate = new_certificate(api, authority, "device-7")
    api("CreatePolicy", policyName="decides", policyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": ARN + "client/${iot:Certificate.Subject.CommonName}"},
        {"Effect": "Allow", "Action": "iot:Publish", "Resource": ARN + "topic/devices/${iot:ClientId}/*"},
        {"Effect": "Deny", "Action": "iot:Publish", "Resource": ARN + "topic/devices/*/secret"},
        {"Effect": "Allow", "Action": "iot:Receive", "Resource": ARN + "topic/${iot:Connection.Thing.Attributes[site]}/*"}]}))
    api("CreatePolicy", policyName="also", policyDocument=document("iot:Subscribe", ARN + "topicfilter/a"))
    api("AttachPolicy", policyName="decides", target=certificate)

    def ask(action, *resources, **more):
        answer = api("TestAuthorization", principal=certificate, clientId="device-7",
                     authInfos=[{"actionType": action, "resources": list(resources)}], **more)
        return answer["authResults"][0]
    cases = [
        ("CONNECT", "client/device-7", "ALLOWED"), ("CONNECT", "client/device-8", "IMPLICIT_DENY"),
        ("PUBLISH", "topic/devices/device-7/a", "ALLOWED"), ("PUBLISH", "topic/devices/device-8/a", "IMPLICIT_DENY"),
        ("PUBLISH", "topic/devices/device-7/secret", "EXPLICIT_DENY"), ("SUBSCRIBE", "topicfilter/a", "IMPLICIT_DENY"),
    ]
    for action, resource, want in cases:
        result = ask(action, ARN + resource)
        assert result["authDecision"] == want, (action, resource, result)
        assert names(result["allowed"]) == (["decides"] if want == "ALLOWED" else [])
        assert names(result["denied"]["explicitDeny"]) == (["decides"] if want == "EXPLICIT_DENY" else [])
    both = ask("PUBLISH", ARN + "topic/devices/device-7/a", ARN + "topic/other")
    assert both["authDecision"] == "IMPLICIT_DENY" and names(both["allowed"]) == ["decides"]
    assert ask("RECEIVE", ARN + "topic/north/a")["missingContextValues"] == ["iot:Connection.Thing.Attributes[site]"]
    assert ask("SUBSCRIBE", ARN + "topicfilter/a", policyNamesToAdd=["also"])["authDecision"] == "ALLOWED"
    assert ask("CONNECT", ARN + "client/device-7", policyNamesToSkip=["decides"])["authDecision"] == "IMPLICIT_DENY"

    # The client's id names a thing once the certificate is attached to it; its groups' policies count then.
    api("CreateThing", thingName="device-7", attributePayload={"attributes": {"site": "north"}})
    api("CreateThingGroup", thingGroupName="decided")
    api("AddThingToThingGroup", thingName="device-7", thingGroupName="decided")
    api("AttachPolicy", policyName="also", target=ARN + "thinggroup/decided")
    assert ask("RECEIVE", ARN + "topic/north/a")["authDecision"] == "IMPLICIT_DENY"
    assert ask("SUBSCRIBE", ARN + "topicfilter/a")["authDecision"] == "IMPLICIT_DENY"
    api("AttachThingPrincipal", thingName="device-7", principal=certificate)
    assert ask("RECEIVE", ARN + "topic/north/a")["authDecision"] == "ALLOWED"
    assert ask("RECEIVE", ARN + "topic/south/a")["authDecision"] == "IMPLICIT_DENY"
    assert ask("SUBSCRIBE", ARN + "topicfilter/a")["authDecision"] == "ALLOWED"

    # Another client's id: the thing's variables do not count, but its groups' policies do, as for the broker.
    other = api("TestAuthorization", principal=certificate, clientId="other", authInfos=[
        {"actionType": "RECEIVE", "resources": [ARN + "topic/north/a"]}, {"actionType": "SUBSCRIBE", "resources": [ARN + "topicfilter/a"]}])
    assert [result["authDecision"] for result in other["authResults"]] == ["IMPLICIT_DENY", "ALLOWED"]

    found = api("GetEffectivePolicies", principal=certificate, thingName="device-7")["effectivePolicies"]
    assert [item["policyName"] for item in found] == ["also", "decides"]
    assert [item["policyName"] for item in api("GetEffectivePolicies", principal=certificate)["effectivePolicies"]] == [
        "also", "decides"]
    assert [item["policyName"] for item in api("GetEffectivePolicies", thingName="device-7")["effectivePolicies"]] == ["also"]


def test_test_authorization_refuses(api, loose):
    info = [{"actionType": "CONNECT", "resources": ["*"]}]
    api.refused("TestAuthorization", "ResourceNotFoundException", authInfos=info, principal=ARN + "cert/" + "0" * 64)
    api.refused("TestAuthorization", "ResourceNotFoundException", authInfos=info, policyNamesToAdd=["absent"])
    api.refused("TestAuthorization", "InvalidRequestException", authInfos=info, principal="x")
    api.refused("TestAuthorization", "InvalidRequestException", authInfos=info, cognitoIdentityPoolId="eu-central-1:x")
    for infos, want in (([], "'authInfos'"), ([{"actionType": "EAT", "resources": ["a"]}], "'authInfos.1.member.actionType'"),
                        ([{"actionType": "CONNECT", "resources": []}], "'authInfos.1.member.resources'"),
                        ([{"actionType": "CONNECT", "resources": ["a"] * 11}], "less than or equal to 10")):
        message = loose.refused("TestAuthorization", "InvalidRequestException", authInfos=infos)["Error"]["Message"]
        assert want in message, message
    api.refused("GetEffectivePolicies", "InvalidRequestException")
    api.refused("GetEffectivePolicies", "ResourceNotFoundException", thingName="absent")


def test_attaching_is_followed_by_the_broker(api, authority, core):
    certificate = new_certificate(api, authority, "broker")
    its_id = certificate.rsplit("/")[-1]
    api("CreatePolicy", policyName="followed", policyDocument=document())
    before = core.query("SELECT iotcore.last_change()")[0][0]
    api("AttachPolicy", policyName="followed", target=certificate)
    api("CreatePolicyVersion", policyName="followed", policyDocument=document("iot:Publish"), setAsDefault=True)
    changes = core.query("SELECT kind, key FROM iotcore.change WHERE seq > %s ORDER BY seq", before)
    assert changes[0] == ("certificate", its_id) and ("policy", "followed") in changes


def test_old_changes_are_forgotten_and_young_ones_kept(cluster, core):
    """A broker that was away for an hour reads on; after that long nobody needs them."""
    from harness.iotcore import LocalCore
    from harness.stack import wait_until
    core.query("UPDATE iotcore.change SET at = now() - interval '1 day' WHERE seq <= 3")
    core.query("UPDATE iotcore.change SET at = now() - interval '61 minutes' WHERE seq = 4")
    with LocalCore(cluster, share=core):  # its first round comes with its start
        wait_until(lambda: core.query("SELECT min(seq) FROM iotcore.change") == [(4,)], "the oldest to be gone")


def test_concurrent_writers_never_deadlock(core, authority):
    """All lock one row first: eight threads that attach, detach, create and delete the same things come through."""
    import threading
    its_arn = new_certificate_by(core, authority)
    codes = set()

    def work(number):
        client = core.client()
        for turn in range(12):
            name = f"contended-{(number + turn) % 3}"
            for call, arguments in ((client.create_policy, dict(policyName=name, policyDocument=document())),
                                    (client.attach_policy, dict(policyName=name, target=its_arn)),
                                    (client.detach_policy, dict(policyName=name, target=its_arn)),
                                    (client.delete_policy, dict(policyName=name))):
                try:
                    call(**arguments)
                except client.exceptions.ClientError as error:
                    codes.add(error.response["Error"]["Code"])
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes <= {"ResourceAlreadyExistsException", "ResourceNotFoundException", "DeleteConflictException"}, codes
    seqs = [row[0] for row in core.query("SELECT seq FROM iotcore.change ORDER BY seq")]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


def new_certificate_by(core, authority):
    return core.client().register_certificate(certificatePem=authority.issue("contended"), status="ACTIVE")["certificateArn"]


def test_every_operation_of_this_part_was_called(api, authority):
    """Last in this file: what this module's tests have gone through with answers held against the model."""
    register(api, Authority("Another"))
    wanted = {"CreatePolicy", "GetPolicy", "DeletePolicy", "ListPolicies", "CreatePolicyVersion", "GetPolicyVersion",
              "ListPolicyVersions", "SetDefaultPolicyVersion", "DeletePolicyVersion", "AttachPolicy", "DetachPolicy",
              "ListAttachedPolicies", "ListTargetsForPolicy", "AttachPrincipalPolicy", "DetachPrincipalPolicy",
              "ListPrincipalPolicies", "ListPolicyPrincipals", "TestAuthorization", "GetEffectivePolicies"}
    assert wanted <= api.called, wanted - api.called
