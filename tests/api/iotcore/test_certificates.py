"""CA and device certificates: every operation's successes and refusals, held against botocore's model."""
import datetime
import json

import pytest

from harness.x509 import DAY, Authority, by_hand, certificate_id, new_key

from .conftest import register

NOT_THERE = "0" * 64


def statuses(api, authority):
    return {item["certificateId"]: item["status"]
            for page in api.pages("ListCertificatesByCA", "certificates", caCertificateId=authority.id) for item in page}


# ---- the registration code ----

def test_the_registration_code_stays_until_it_is_deleted(api):
    first = api("GetRegistrationCode")["registrationCode"]
    assert api("GetRegistrationCode")["registrationCode"] == first and len(first) == 64
    api("DeleteRegistrationCode")
    api.refused("DeleteRegistrationCode", "ResourceNotFoundException")
    assert api("GetRegistrationCode")["registrationCode"] != first


# ---- registering a CA ----

def test_a_ca_made_by_openssl_is_registered_by_the_cli(core, tmp_path):
    code = core.aws("get-registration-code")["registrationCode"]
    ca, verification = by_hand(tmp_path, code)
    answer = core.aws("register-ca-certificate", "--ca-certificate", f"file://{ca}", "--verification-certificate",
                      f"file://{verification}", "--set-as-active", "--allow-auto-registration", "--tags",
                      "Key=site,Value=north")
    assert answer["certificateId"] == certificate_id(ca.read_text())
    assert answer["certificateArn"] == f"arn:aws:iot:eu-central-1:123456789012:cacert/{answer['certificateId']}"
    described = core.aws("describe-ca-certificate", "--certificate-id", answer["certificateId"])["certificateDescription"]
    assert (described["status"], described["autoRegistrationStatus"]) == ("ACTIVE", "ENABLE")
    assert described["certificatePem"].split() == ca.read_text().split()
    assert core.aws("list-tags-for-resource", "--resource-arn", answer["certificateArn"])["tags"] == [
        {"Key": "site", "Value": "north"}]
    again = core.aws("register-ca-certificate", "--ca-certificate", f"file://{ca}", "--verification-certificate",
                     f"file://{verification}", check=False)
    assert "ResourceAlreadyExistsException" in again.stderr and answer["certificateId"] in again.stderr


def test_a_ca_is_described_as_it_was_registered(api):
    authority = Authority("Described CA", kind="rsa")
    before = datetime.datetime.now(datetime.timezone.utc)
    register(api, authority, active=False, registrationConfig={
        "templateBody": "{}", "roleArn": "arn:aws:iam::123456789012:role/JITP"})
    answer = api("DescribeCACertificate", certificateId=authority.id)
    it = answer["certificateDescription"]
    assert it["certificateArn"].endswith(":cacert/" + authority.id) and it["ownedBy"] == "123456789012"
    assert (it["status"], it["autoRegistrationStatus"], it["certificateMode"]) == ("INACTIVE", "DISABLE", "DEFAULT")
    assert it["certificatePem"] == authority.pem and it["customerVersion"] == 1
    assert abs((it["creationDate"] - before).total_seconds()) < 60
    assert it["validity"]["notAfter"].replace(tzinfo=None) == authority.certificate.not_valid_after
    assert it["validity"]["notBefore"].replace(tzinfo=None) == authority.certificate.not_valid_before
    assert answer["registrationConfig"]["roleArn"].endswith("role/JITP")


def test_the_same_ca_is_refused_with_its_arn(api):
    authority = Authority("Twice CA")
    arn = register(api, authority)["certificateArn"]
    code = api("GetRegistrationCode")["registrationCode"]
    error = api.refused("RegisterCACertificate", "ResourceAlreadyExistsException", caCertificate=authority.pem,
                        verificationCertificate=authority.issue(code))
    assert (error["resourceId"], error["resourceArn"]) == (authority.id, arn)


def test_sni_only_wants_no_verification(api):
    authority = Authority("SNI CA")
    api.refused("RegisterCACertificate", "InvalidRequestException", caCertificate=authority.pem,
                certificateMode="SNI_ONLY", verificationCertificate=authority.issue("x"))
    api("RegisterCACertificate", caCertificate=authority.pem, certificateMode="SNI_ONLY")
    described = api("DescribeCACertificate", certificateId=authority.id)["certificateDescription"]
    assert described["certificateMode"] == "SNI_ONLY"


def test_an_intermediate_ca_is_registered_without_its_root(api):
    register(api, Authority("Intermediate", parent=Authority("Root above")))


def verification_cases():
    ca, other = Authority("Verified CA"), Authority("Other CA")
    return {
        "none": (ca, lambda code: None, "InvalidRequestException"),
        "not a PEM": (ca, lambda code: "x", "CertificateValidationException"),
        "two certificates": (ca, lambda code: ca.issue(code) * 2, "CertificateValidationException"),
        "another code": (ca, lambda code: ca.issue(NOT_THERE), "RegistrationCodeValidationException"),
        "the code and more": (ca, lambda code: ca.issue(code[:-1]), "RegistrationCodeValidationException"),
        "another signer": (ca, lambda code: other.issue(code), "CertificateValidationException"),
        "another key in the same name": (ca, lambda code: Authority("Verified CA").issue(code), "CertificateValidationException"),
        "expired": (ca, lambda code: ca.issue(code, before=-9 * DAY, after=-DAY), "CertificateValidationException"),
        "not yet valid": (ca, lambda code: ca.issue(code, before=DAY), "CertificateValidationException"),
    }


@pytest.mark.parametrize("name", verification_cases())
def test_a_verification_certificate_must_prove_the_key(api, name):
    ca, make, want = verification_cases()[name]
    verification = make(api("GetRegistrationCode")["registrationCode"])
    more = {"verificationCertificate": verification} if verification else {}
    error = api.refused("RegisterCACertificate", want, caCertificate=ca.pem, **more)
    api.refused("DescribeCACertificate", "ResourceNotFoundException", certificateId=ca.id)
    assert "PRIVATE" not in json.dumps(error, default=str)


def ca_cases():
    return {
        "CA:FALSE": Authority("a", ca=False),
        "no basicConstraints": Authority("a", ca=None),
        "no keyCertSign": Authority("a", key_cert_sign=False),
        "expired": Authority("a", before=-9 * DAY, after=-DAY),
        "not yet valid": Authority("a", before=DAY),
        "its own signature is wrong": Authority("a", parent=Authority("a")),
    }


@pytest.mark.parametrize("name", ca_cases())
def test_a_certificate_that_is_no_ca_is_refused(api, name):
    authority = ca_cases()[name]
    code = api("GetRegistrationCode")["registrationCode"]
    api.refused("RegisterCACertificate", "CertificateValidationException", caCertificate=authority.pem,
                verificationCertificate=authority.issue(code))


def test_ten_cas_may_have_one_subject(api):
    for _ in range(10):
        register(api, Authority("Popular CA"))
    eleventh = Authority("Popular CA")
    code = api("GetRegistrationCode")["registrationCode"]
    api.refused("RegisterCACertificate", "LimitExceededException", caCertificate=eleventh.pem,
                verificationCertificate=eleventh.issue(code))


def test_members_are_held_against_the_model(loose):
    for parameters, want in (
            ({}, "Value null at 'caCertificate' failed to satisfy constraint: Member must not be null"),
            ({"caCertificate": ""}, "Member must have length greater than or equal to 1"),
            ({"caCertificate": "x" * 65537}, "Member must have length less than or equal to 65536"),
            ({"caCertificate": "x", "certificateMode": "OTHER"}, "Value 'OTHER' at 'certificateMode' failed to satisfy "
             "constraint: Member must satisfy enum value set: [DEFAULT, SNI_ONLY]"),
            ({"caCertificate": "x", "tags": [{"Value": "a"}]}, "Value null at 'tags.1.member.key' failed"),
            ({"caCertificate": "x", "registrationConfig": {"roleArn": "short"}}, "'registrationConfig.roleArn'"),
            ({"caCertificate": 1}, "Member must be a string")):
        message = loose.refused("RegisterCACertificate", "InvalidRequestException", **parameters)["Error"]["Message"]
        assert want.lower() in message.lower() and message.startswith("1 validation error detected: "), message
    message = loose.refused("RegisterCACertificate", "InvalidRequestException", certificateMode="x")["Error"]["Message"]
    assert message.startswith("2 validation errors detected: "), message


# ---- keeping a CA ----

def test_a_ca_is_updated_in_parts(api):
    authority = Authority("Updated CA")
    register(api, authority, active=False)

    def state():
        answer = api("DescribeCACertificate", certificateId=authority.id)
        it = answer["certificateDescription"]
        return it["status"], it["autoRegistrationStatus"], answer.get("registrationConfig"), it["customerVersion"]
    assert state() == ("INACTIVE", "DISABLE", None, 1)
    api("UpdateCACertificate", certificateId=authority.id, newStatus="ACTIVE")
    api("UpdateCACertificate", certificateId=authority.id, newAutoRegistrationStatus="ENABLE")
    assert state() == ("ACTIVE", "ENABLE", None, 3)
    api("UpdateCACertificate", certificateId=authority.id, registrationConfig={"templateName": "fleet"})
    assert state()[2] == {"templateName": "fleet"}
    assert [item["certificateId"] for page in api.pages("ListCACertificates", "certificates", templateName="fleet")
            for item in page] == [authority.id]
    api("UpdateCACertificate", certificateId=authority.id, removeAutoRegistration=True)
    assert state()[:3] == ("ACTIVE", "ENABLE", None)
    api.refused("UpdateCACertificate", "InvalidRequestException", certificateId=authority.id, newStatus="REVOKED")
    api.refused("UpdateCACertificate", "InvalidRequestException", certificateId=authority.id,
                registrationConfig={"templateName": "a", "templateBody": "{}"})
    api.refused("UpdateCACertificate", "ResourceNotFoundException", certificateId=NOT_THERE, newStatus="ACTIVE")


def test_an_active_ca_is_not_deleted(api):
    authority = Authority("Deleted CA")
    register(api, authority)
    leaf = authority.issue("leaf")
    api("RegisterCertificate", certificatePem=leaf)
    api.refused("DeleteCACertificate", "CertificateStateException", certificateId=authority.id)
    api("UpdateCACertificate", certificateId=authority.id, newStatus="INACTIVE")
    api("DeleteCACertificate", certificateId=authority.id)
    api.refused("DeleteCACertificate", "ResourceNotFoundException", certificateId=authority.id)
    api.refused("DescribeCACertificate", "ResourceNotFoundException", certificateId=authority.id)
    # What it issued stays.
    assert api("DescribeCertificate", certificateId=certificate_id(leaf))["certificateDescription"]["caCertificateId"] == authority.id
    register(api, authority)


def test_an_id_is_64_hex_digits(loose):
    for operation in ("DescribeCACertificate", "DescribeCertificate"):
        for bad, want in (("a" * 63, "greater than or equal to 64"), ("a" * 65, "less than or equal to 64"),
                          ("g" * 64, "(0x)?[a-fA-F0-9]+"), ("/" * 64, "(0x)?[a-fA-F0-9]+")):
            message = loose.refused(operation, "InvalidRequestException", certificateId=bad)["Error"]["Message"]
            assert want in message, message


# ---- device certificates ----

def test_a_certificate_is_registered_under_its_ca(api, authority):
    for status in (None, "ACTIVE", "INACTIVE", "REVOKED"):
        leaf = authority.issue(f"device {status}")
        answer = api("RegisterCertificate", certificatePem=leaf, **({"status": status} if status else {}))
        assert answer["certificateId"] == certificate_id(leaf)
        it = api("DescribeCertificate", certificateId=answer["certificateId"])["certificateDescription"]
        assert (it["status"], it["caCertificateId"], it["certificateMode"]) == (status or "INACTIVE", authority.id, "DEFAULT")
        assert it["certificatePem"] == leaf and it["transferData"] == {} and it["ownedBy"] == "123456789012"
    leaf = authority.issue("set as active")
    api("RegisterCertificate", certificatePem=leaf, setAsActive=True)
    assert statuses(api, authority)[certificate_id(leaf)] == "ACTIVE"


def test_what_openssl_prints_around_a_pem_is_skipped(api, authority):
    leaf = authority.issue("chatty")
    answer = api("RegisterCertificate", certificatePem="Certificate:\n    Data:\n        Version: 1\n" + leaf)
    assert answer["certificateId"] == certificate_id(leaf)
    assert api("DescribeCertificate", certificateId=answer["certificateId"])["certificateDescription"]["certificatePem"] == leaf


def test_registering_again_is_refused_with_its_arn(api, authority):
    leaf = authority.issue("again")
    arn = api("RegisterCertificate", certificatePem=leaf)["certificateArn"]
    for operation in ("RegisterCertificate", "RegisterCertificateWithoutCA"):
        error = api.refused(operation, "ResourceAlreadyExistsException", certificatePem=leaf)
        assert (error["resourceArn"], error["resourceId"]) == (arn, certificate_id(leaf))


def test_a_certificate_of_nobody_is_refused(api, authority):
    stranger = Authority("Stranger")
    cases = [
        (stranger.issue("a"), "CertificateValidationException"),
        (Authority("Fixture CA").issue("a"), "CertificateValidationException"),  # the name alone
        (authority.issue("a", before=-9 * DAY, after=-DAY), "CertificateValidationException"),
        (authority.issue("a", before=DAY), "CertificateValidationException"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "CertificateValidationException"),
        ("hello", "CertificateValidationException"),
    ]
    for pem, want in cases:
        api.refused("RegisterCertificate", want, certificatePem=pem)
    for status in ("PENDING_ACTIVATION", "PENDING_TRANSFER", "REGISTER_INACTIVE"):
        api.refused("RegisterCertificate", "InvalidRequestException", certificatePem=authority.issue("a"), status=status)
    sni = Authority("SNI alone")
    api("RegisterCACertificate", caCertificate=sni.pem, certificateMode="SNI_ONLY", setAsActive=True)
    api.refused("RegisterCertificate", "CertificateValidationException", certificatePem=sni.issue("a"))


def test_an_inactive_ca_registers_nothing(api):
    authority = Authority("Sleeping CA")
    register(api, authority, active=False)
    api.refused("RegisterCertificate", "CertificateStateException", certificatePem=authority.issue("a"))


def test_two_cas_of_one_name_want_to_be_told_apart(api):
    one, two, three = (Authority("Same name") for _ in range(3))
    register(api, one)
    register(api, two)
    leaf = two.issue("device")
    api.refused("RegisterCertificate", "CertificateConflictException", certificatePem=leaf)
    api.refused("RegisterCertificate", "CertificateValidationException", certificatePem=leaf, caCertificatePem=one.pem)
    api.refused("RegisterCertificate", "CertificateValidationException", certificatePem=leaf, caCertificatePem=three.pem)
    api("RegisterCertificate", certificatePem=leaf, caCertificatePem=two.pem)
    assert statuses(api, two) == {certificate_id(leaf): "INACTIVE"} and statuses(api, one) == {}


def test_a_certificate_without_a_ca(api):
    leaf = Authority("Nobody registered").issue("device")
    answer = api("RegisterCertificateWithoutCA", certificatePem=leaf, status="ACTIVE")
    it = api("DescribeCertificate", certificateId=answer["certificateId"])["certificateDescription"]
    assert (it["status"], it["certificateMode"]) == ("ACTIVE", "SNI_ONLY") and "caCertificateId" not in it
    api.refused("RegisterCertificateWithoutCA", "CertificateValidationException", certificatePem="x")


# ---- states ----

def test_states_change_as_aws_has_it(api, authority, core):
    leaf = authority.issue("states")
    its_id = api("RegisterCertificate", certificatePem=leaf)["certificateId"]

    def state():
        it = api("DescribeCertificate", certificateId=its_id)["certificateDescription"]
        return it["status"], it["customerVersion"]
    for status in ("ACTIVE", "INACTIVE", "ACTIVE"):
        api("UpdateCertificate", certificateId=its_id, newStatus=status)
        assert state()[0] == status
    # The same again changes nothing, and the broker hears nothing.
    before = core.query("SELECT iotcore.last_change()")
    api("UpdateCertificate", certificateId=its_id, newStatus="ACTIVE")
    assert state() == ("ACTIVE", 4) and core.query("SELECT iotcore.last_change()") == before
    for status in ("PENDING_ACTIVATION", "PENDING_TRANSFER", "REGISTER_INACTIVE", "NONSENSE"):
        api.refused("UpdateCertificate", "InvalidRequestException", certificateId=its_id, newStatus=status)
    api("UpdateCertificate", certificateId=its_id, newStatus="REVOKED")
    api("UpdateCertificate", certificateId=its_id, newStatus="REVOKED")
    for status in ("ACTIVE", "INACTIVE"):
        api.refused("UpdateCertificate", "CertificateStateException", certificateId=its_id, newStatus=status)
    assert state()[0] == "REVOKED"
    api.refused("UpdateCertificate", "ResourceNotFoundException", certificateId=NOT_THERE, newStatus="ACTIVE")


def test_a_pending_certificate_is_activated_or_refused(api, authority, core):
    """As the broker registers one that connects for the first time."""
    for status in ("ACTIVE", "INACTIVE", "REVOKED"):
        its_id = api("RegisterCertificate", certificatePem=authority.issue(f"pending {status}"))["certificateId"]
        core.query("UPDATE iotcore.certificate SET status = 'PENDING_ACTIVATION' WHERE certificate_id = %s", its_id)
        assert api("DescribeCertificate", certificateId=its_id)["certificateDescription"]["status"] == "PENDING_ACTIVATION"
        api("UpdateCertificate", certificateId=its_id, newStatus=status)


def test_a_change_is_followed_by_number(api, authority, core):
    its_id = api("RegisterCertificate", certificatePem=authority.issue("followed"))["certificateId"]
    before = core.query("SELECT iotcore.last_change()")[0][0]
    api("UpdateCertificate", certificateId=its_id, newStatus="ACTIVE")
    assert core.query("SELECT kind, key FROM iotcore.change WHERE seq > %s", before) == [("certificate", its_id)]


def test_deleting_a_certificate(api, authority):
    its_id = api("RegisterCertificate", certificatePem=authority.issue("deleted"), status="ACTIVE")["certificateId"]
    arn = f"arn:aws:iot:eu-central-1:123456789012:cert/{its_id}"
    api("CreatePolicy", policyName="of-deleted", policyDocument=json.dumps({
        "Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}]}))
    api("CreateThing", thingName="of-deleted")
    api("AttachPolicy", policyName="of-deleted", target=arn)
    api("AttachThingPrincipal", thingName="of-deleted", principal=arn)
    api.refused("DeleteCertificate", "CertificateStateException", certificateId=its_id)
    api("UpdateCertificate", certificateId=its_id, newStatus="INACTIVE")
    for force in (False, True):
        api.refused("DeleteCertificate", "DeleteConflictException", certificateId=its_id, forceDelete=force)
    api("DetachThingPrincipal", thingName="of-deleted", principal=arn)
    api.refused("DeleteCertificate", "DeleteConflictException", certificateId=its_id)
    api("DeleteCertificate", certificateId=its_id, forceDelete=True)
    assert api("ListTargetsForPolicy", policyName="of-deleted")["targets"] == []
    api.refused("DeleteCertificate", "ResourceNotFoundException", certificateId=its_id)
    api.refused("DescribeCertificate", "ResourceNotFoundException", certificateId=its_id)


# ---- lists ----

def test_lists_are_paged_and_ordered(api):
    authority = Authority("Listed CA")
    register(api, authority)
    key = new_key()
    made = [api("RegisterCertificate", certificatePem=authority.issue(f"listed {number}", key=key))["certificateId"]
            for number in range(30)]
    for ascending in (True, False):
        pages = api.pages("ListCertificatesByCA", "certificates", caCertificateId=authority.id, pageSize=7,
                          ascendingOrder=ascending)
        assert [len(page) for page in pages] == [7, 7, 7, 7, 2]
        ids = [item["certificateId"] for page in pages for item in page]
        assert ids == (made if ascending else made[::-1])
    assert [len(page) for page in api.pages("ListCertificatesByCA", "certificates", caCertificateId=authority.id)] == [25, 5]
    assert [len(page) for page in api.pages("ListCertificatesByCA", "certificates", caCertificateId=authority.id,
                                            pageSize=30)] == [30]
    everything = [item["certificateId"] for page in api.pages("ListCertificates", "certificates", pageSize=250) for item in page]
    assert set(made) <= set(everything) and len(everything) == len(set(everything))
    cas = [item["certificateId"] for page in api.pages("ListCACertificates", "certificates", pageSize=3) for item in page]
    assert authority.id in cas and len(cas) == len(set(cas))
    assert api("ListCertificatesByCA", caCertificateId=NOT_THERE)["certificates"] == []


def test_a_page_has_bounds_and_a_marker_belongs_to_its_list(loose, authority):
    for size in (0, 251, -1):
        message = loose.refused("ListCertificates", "InvalidRequestException", pageSize=size)["Error"]["Message"]
        assert f"Value '{size}' at 'pageSize'" in message, message
    marker = loose("ListCertificates", pageSize=1)["nextMarker"]
    for bad in ("!", "AAAA", "a", marker[:-4], "A" * 2300):
        loose.refused("ListCertificates", "InvalidRequestException", marker=bad)
    loose.refused("ListCACertificates", "InvalidRequestException", marker=marker)
    loose("ListCertificates", marker=marker)


def test_the_cli_walks_all_pages(core, authority):
    """By itself, in pages of 25: with --page-size it would take that one page as what is wanted."""
    listed = core.aws("list-certificates")["certificates"]
    count = core.query("SELECT count(*) FROM iotcore.certificate")[0][0]
    assert len({item["certificateId"] for item in listed}) == count > 25
    assert len(core.aws("list-certificates", "--page-size", "5")["certificates"]) == 5
    assert len(core.aws("list-ca-certificates", "--ascending-order")["certificates"]) > 10
