"""Device Defender's profiles on the local IoT Core: behaviors by AWS's rules, versions, targets, violations."""
import datetime
import itertools
import json

import pytest
from harness.botomodel import Checked
from harness.iotcore import ACCOUNT, REGION, LocalCore

ARN = f"arn:aws:iot:{REGION}:{ACCOUNT}:"
NUMBERS = itertools.count(1)
ROLE = f"arn:aws:iam::{ACCOUNT}:role/alerts"
SNS = {"SNS": {"alertTargetArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:alerts", "roleArn": ROLE}}


@pytest.fixture(scope="module")
def core(cluster):
    with LocalCore(cluster) as it:
        yield it


@pytest.fixture(scope="module")
def api(core):
    """Without botocore's own checks of least values: the core must see what is wrong."""
    return Checked(core.client(parameter_validation=False))


def name(kind):
    return f"{kind}-{next(NUMBERS)}"


def behavior(metric="aws:num-messages-sent", operator="less-than", value=None, **criteria):
    """Criteria that are None are left out."""
    whole = {"comparisonOperator": operator, "value": {"count": 100} if value is None else value,
             "durationSeconds": 300, **criteria}
    return {"name": "b", "metric": metric, "criteria": {key: one for key, one in whole.items() if one is not None}}


STATISTIC = {"value": None, "statisticalThreshold": {"statistic": "p99.9"}}
LEARNED = {"name": "b", "metric": "aws:num-messages-sent", "criteria": {
    "mlDetectionConfig": {"confidenceLevel": "HIGH"}, "consecutiveDatapointsToAlarm": 1}}


def without_value(**criteria):
    made = behavior(**criteria)
    made["criteria"].pop("value")
    return made


GOOD = [
    behavior(),
    behavior(consecutiveDatapointsToAlarm=10, consecutiveDatapointsToClear=1),
    behavior("aws:message-byte-size", "greater-than-equals", durationSeconds=None),
    behavior("aws:num-messages-received", "less-than-equals", {"count": 0}, durationSeconds=3600),
    behavior("aws:num-authorization-failures", "greater-than", durationSeconds=900),
    behavior("aws:num-connection-attempts"), behavior("aws:num-disconnects", durationSeconds=1800),
    behavior("aws:disconnect-duration", "less-than", durationSeconds=None),
    behavior("aws:source-ip-address", "in-cidr-set", {"cidrs": ["192.0.2.0/24", "10.0.0.1", "2001:db8::/32"]},
             durationSeconds=None),
    behavior("aws:source-ip-address", "not-in-cidr-set", {"cidrs": ["0.0.0.0/0"]}, durationSeconds=None),
    behavior("aws:listening-tcp-ports", "in-port-set", {"ports": [22, 443, 0, 65535]}, durationSeconds=None),
    behavior("aws:all-bytes-out", durationSeconds=600), behavior("aws:num-listening-udp-ports", durationSeconds=None),
    without_value(statisticalThreshold={"statistic": "p99.9"}),
    without_value(metric="aws:message-byte-size", statisticalThreshold={"statistic": "p0"}),
    LEARNED,
    {**behavior(), "suppressAlerts": True},
]


@pytest.mark.parametrize("good", GOOD, ids=range(len(GOOD)))
def test_a_behavior_by_the_rules_is_valid(api, good):
    assert api("ValidateSecurityProfileBehaviors", behaviors=[good]) == {"valid": True}


BAD = [
    ({"name": "b", "criteria": behavior()["criteria"]}, "metric must be given"),
    ({"name": "b", "metric": "aws:num-messages-sent"}, "criteria must be given"),
    (behavior("weather"), "metric weather does not exist"),
    (behavior("x" * 100), "(too long)"),
    (behavior("w\nx"), "(not printable)"),
    ({**behavior(), "metricDimension": {"dimensionName": "topics"}}, "dimension topics does not exist"),
    (behavior(operator=None), "comparisonOperator must be given"),
    (behavior(operator="equals"), "equals is no comparison operator"),
    (behavior(operator="in-cidr-set"), "takes less-than, less-than-equals, greater-than or greater-than-equals"),
    (behavior("aws:disconnect-duration", "greater-than", durationSeconds=None), "takes less-than or less-than-equals"),
    (behavior("aws:source-ip-address", "less-than", {"cidrs": ["10.0.0.0/8"]}, durationSeconds=None),
     "takes in-cidr-set or not-in-cidr-set"),
    (behavior("aws:listening-udp-ports", "in-cidr-set", {"ports": [1]}, durationSeconds=None),
     "takes in-port-set or not-in-port-set"),
    (behavior(value={}), "exactly one of count, cidrs"),
    (behavior(value={"count": 1, "ports": [1]}), "2 found"),
    (behavior(value={"count": -1}), "not below 0 wanted, -1 found"),
    (behavior(value={"number": 1.5}), "takes count, number found"),
    (behavior(value={"strings": ["a"]}), "takes count, strings found"),
    *((behavior("aws:source-ip-address", "in-cidr-set", {"cidrs": [bad]}, durationSeconds=None), "an IP address or network")
      for bad in ("10.0.0.0/33", "10.0.0", "2001:db8::/129", "10.0.0.0/", "10.0.0.0/8x", "10.0.0.0/-1", "", "host",
                  "10.0.0.0/0008", "1" * 60)),
    (behavior("aws:source-ip-address", "in-cidr-set", {"cidrs": []}, durationSeconds=None), "1 to 1000 elements"),
    (behavior("aws:source-ip-address", "in-cidr-set", {"cidrs": ["10.0.0.1"] * 1001}, durationSeconds=None), "1001 found"),
    *((behavior("aws:listening-tcp-ports", "in-port-set", {"ports": [bad]}, durationSeconds=None), "0 to 65535 wanted")
      for bad in (-1, 65536)),
    (behavior(durationSeconds=None), "durationSeconds must be given with metric aws:num-messages-sent"),
    (behavior("aws:message-byte-size"), "durationSeconds can not be given with metric aws:message-byte-size"),
    *((behavior(durationSeconds=bad), "300, 600, 900, 1800 or 3600 wanted") for bad in (0, 299, 301, 7200, -300)),
    *((behavior(consecutiveDatapointsToAlarm=bad), "1 to 10 wanted") for bad in (0, 11)),
    *((behavior(consecutiveDatapointsToClear=bad), "1 to 10 wanted") for bad in (0, 11)),
    (behavior(statisticalThreshold={"statistic": "p50"}), "exactly one of value, statisticalThreshold"),
    (without_value(), "exactly one of value, statisticalThreshold and mlDetectionConfig wanted, 0 found"),
    (without_value(statisticalThreshold={}), "statistic must be given"),
    (without_value(statisticalThreshold={"statistic": "p51"}), "p51 found"),
    (without_value(statisticalThreshold={"statistic": "p50"}, durationSeconds=None), "durationSeconds must be given"),
    (without_value(metric="aws:source-ip-address", operator="in-cidr-set", durationSeconds=None,
                   statisticalThreshold={"statistic": "p50"}), "statisticalThreshold can not be used"),
    (without_value(operator=None, durationSeconds=None, mlDetectionConfig={"confidenceLevel": "SURE"}),
     "LOW, MEDIUM or HIGH wanted"),
    (without_value(durationSeconds=None, mlDetectionConfig={"confidenceLevel": "LOW"}),
     "comparisonOperator can not be given with mlDetectionConfig"),
    (without_value(operator=None, mlDetectionConfig={"confidenceLevel": "LOW"}),
     "durationSeconds can not be given with mlDetectionConfig"),
    (without_value(metric="aws:disconnect-duration", operator=None, durationSeconds=None,
                   mlDetectionConfig={"confidenceLevel": "LOW"}), "mlDetectionConfig can not be used"),
]


@pytest.mark.parametrize(("bad", "want"), BAD, ids=range(len(BAD)))
def test_a_behavior_against_the_rules_is_told_why(api, bad, want):
    found = api("ValidateSecurityProfileBehaviors", behaviors=[bad])
    assert found["valid"] is False
    assert len(found["validationErrors"]) == 1
    text = found["validationErrors"][0]["errorMessage"]
    assert text.startswith("Behavior b: ") and want in text
    made = name("profile")
    answer = api.refused("CreateSecurityProfile", "InvalidRequestException", securityProfileName=made, behaviors=[bad])
    assert want in answer["Error"]["Message"]
    api.refused("DescribeSecurityProfile", "ResourceNotFoundException", securityProfileName=made)


def test_all_faults_are_told_at_once(api):
    found = api("ValidateSecurityProfileBehaviors", behaviors=[
        {**behavior(operator="?", durationSeconds=7, consecutiveDatapointsToAlarm=0), "name": "one"},
        behavior(), {**behavior("?"), "name": "b"}])
    assert [one["errorMessage"].split(":")[0] for one in found["validationErrors"]] == [
        *["Behavior one"] * 3, *["Behavior b"] * 2]
    answer = api.refused("CreateSecurityProfile", "InvalidRequestException", securityProfileName=name("profile"),
                         behaviors=[behavior(durationSeconds=7, operator="?")])
    assert "and more" in answer["Error"]["Message"]


@pytest.mark.parametrize("bad", [
    [{**behavior(), "name": "a b"}], [{**behavior(), "name": "x" * 129}],
    [{**behavior(), "metricDimension": {"dimensionName": "a b"}}],
    [{**behavior(), "metricDimension": {"dimensionName": "a", "operator": "OUT"}}],
    [{**behavior(), "name": f"b{i}"} for i in range(101)]])
def test_what_the_model_forbids_is_no_validation_error(api, bad):
    api.refused("ValidateSecurityProfileBehaviors", "InvalidRequestException", behaviors=bad)


def test_a_profile_is_what_was_made_of_it(api):
    made = name("profile")
    behaviors = [{**one, "name": f"b{i}"} for i, one in enumerate(GOOD)]
    created = api("CreateSecurityProfile", securityProfileName=made, securityProfileDescription="Normal, für alle",
                  behaviors=behaviors, alertTargets=SNS, additionalMetricsToRetain=["aws:num-disconnects"],
                  additionalMetricsToRetainV2=[{"metric": "aws:all-bytes-in"}, {"metric": "aws:num-disconnects"}],
                  tags=[{"Key": "a", "Value": "b"}])
    arn = f"{ARN}securityprofile/{made}"
    assert created == {"securityProfileName": made, "securityProfileArn": arn}
    found = api("DescribeSecurityProfile", securityProfileName=made)
    assert found.pop("creationDate") == found.pop("lastModifiedDate")
    assert sorted(found.pop("additionalMetricsToRetain")) == ["aws:all-bytes-in", "aws:num-disconnects"]
    assert found == {"securityProfileName": made, "securityProfileArn": arn, "behaviors": behaviors,
                     "securityProfileDescription": "Normal, für alle", "alertTargets": SNS, "version": 1,
                     "additionalMetricsToRetainV2": [{"metric": "aws:all-bytes-in"}, {"metric": "aws:num-disconnects"}]}
    assert api("ListTagsForResource", resourceArn=arn)["tags"] == [{"Key": "a", "Value": "b"}]
    answer = api.refused("CreateSecurityProfile", "ResourceAlreadyExistsException", securityProfileName=made)
    assert answer["resourceArn"] == arn


@pytest.mark.parametrize("bad", [
    {"securityProfileName": "a b"}, {"securityProfileDescription": "x" * 1001}, {"securityProfileDescription": "a\nb"},
    {"alertTargets": {"SMS": SNS["SNS"]}}, {"alertTargets": {"SNS": {"alertTargetArn": "x", "roleArn": "x" * 2049}}},
    {"additionalMetricsToRetain": ["weather"]}, {"additionalMetricsToRetainV2": [{"metric": "weather"}]},
    {"additionalMetricsToRetainV2": [{"metric": "aws:num-disconnects", "metricDimension": {"dimensionName": "d"}}]},
    {"tags": [{"Key": "aws:a", "Value": "b"}]}])
def test_profiles_against_the_rules_are_refused(api, bad):
    made = {"securityProfileName": name("profile"), **bad}
    api.refused("CreateSecurityProfile", "InvalidRequestException", **made)
    if "tags" not in bad and "securityProfileName" not in bad:
        api("CreateSecurityProfile", securityProfileName=made["securityProfileName"])
        api.refused("UpdateSecurityProfile", "InvalidRequestException", **made)
        assert api("DescribeSecurityProfile", securityProfileName=made["securityProfileName"])["version"] == 1


def test_update_changes_what_it_names(api):
    made = name("profile")
    api("CreateSecurityProfile", securityProfileName=made, behaviors=[behavior()], alertTargets=SNS,
        securityProfileDescription="first", additionalMetricsToRetainV2=[{"metric": "aws:all-bytes-in"}])
    found = api("UpdateSecurityProfile", securityProfileName=made, securityProfileDescription="second", expectedVersion=1)
    assert found["version"] == 2 and found["behaviors"] == [behavior()] and found["alertTargets"] == SNS
    assert found["securityProfileDescription"] == "second" and found["lastModifiedDate"] >= found["creationDate"]
    api.refused("UpdateSecurityProfile", "VersionConflictException", securityProfileName=made, expectedVersion=1)
    found = api("UpdateSecurityProfile", securityProfileName=made, behaviors=[{**LEARNED, "name": "c"}],
                additionalMetricsToRetain=["aws:num-disconnects"])
    assert [one["name"] for one in found["behaviors"]] == ["c"]
    assert found["additionalMetricsToRetainV2"] == [{"metric": "aws:num-disconnects"}]
    for flag, more in (("deleteBehaviors", {"behaviors": []}), ("deleteAlertTargets", {"alertTargets": SNS}),
                       ("deleteAdditionalMetricsToRetain", {"additionalMetricsToRetain": []}),
                       ("deleteAdditionalMetricsToRetain", {"additionalMetricsToRetainV2": []})):
        api.refused("UpdateSecurityProfile", "InvalidRequestException", securityProfileName=made, **{flag: True}, **more)
    found = api("UpdateSecurityProfile", securityProfileName=made, deleteBehaviors=True, deleteAlertTargets=True,
                deleteAdditionalMetricsToRetain=True)
    assert (found["behaviors"], found["alertTargets"], found["additionalMetricsToRetain"], found["version"]) == (
        [], {}, [], 4)
    assert found == api("DescribeSecurityProfile", securityProfileName=made)
    api.refused("UpdateSecurityProfile", "ResourceNotFoundException", securityProfileName="nobody")
    api.refused("DescribeSecurityProfile", "ResourceNotFoundException", securityProfileName="nobody")


def test_profiles_are_deleted_by_version(core, api):
    made = name("profile")
    api("CreateSecurityProfile", securityProfileName=made)
    api("AttachSecurityProfile", securityProfileName=made, securityProfileTargetArn=f"{ARN}all/things")
    api.refused("DeleteSecurityProfile", "VersionConflictException", securityProfileName=made, expectedVersion=2)
    api("DeleteSecurityProfile", securityProfileName=made, expectedVersion=1)
    api("DeleteSecurityProfile", securityProfileName=made)
    assert api("ListSecurityProfilesForTarget", securityProfileTargetArn=f"{ARN}all/things") == {
        "securityProfileTargetMappings": []}


def test_profiles_are_listed_by_metric_and_pages(api):
    prefix = name("listed")
    for i in range(5):
        api("CreateSecurityProfile", securityProfileName=f"{prefix}-{i}",
            **({"behaviors": [behavior("aws:num-connection-attempts")]} if i % 2 else
               {"additionalMetricsToRetain": ["aws:listening-udp-ports"]}))
    found = [one for page in api.pages("ListSecurityProfiles", "securityProfileIdentifiers", maxResults=2) for one in page]
    assert [one for one in found if one["name"].startswith(prefix)] == [
        {"name": f"{prefix}-{i}", "arn": f"{ARN}securityprofile/{prefix}-{i}"} for i in range(5)]

    def with_metric(metric):
        found = api("ListSecurityProfiles", metricName=metric)["securityProfileIdentifiers"]
        return [one["name"] for one in found if one["name"].startswith(prefix)]

    assert with_metric("aws:num-connection-attempts") == [f"{prefix}-1", f"{prefix}-3"]
    assert with_metric("aws:listening-udp-ports") == [f"{prefix}-{i}" for i in (0, 2, 4)]
    api.refused("ListSecurityProfiles", "ResourceNotFoundException", dimensionName="nobody")
    api.refused("ListSecurityProfiles", "ResourceNotFoundException", metricName="nobody")
    api.refused("ListSecurityProfiles", "InvalidRequestException", dimensionName="a", metricName="b")
    api.refused("ListSecurityProfiles", "InvalidRequestException", metricName="a b")


def test_profiles_are_attached_to_targets(api):
    profile, root = name("profile"), name("group")
    child = name("group")
    api("CreateSecurityProfile", securityProfileName=profile)
    api("CreateThingGroup", thingGroupName=root)
    api("CreateThingGroup", thingGroupName=child, parentGroupName=root)
    targets = sorted([f"{ARN}all/registered-things", f"{ARN}all/unregistered-things", f"{ARN}thinggroup/{root}",
                      f"{ARN}thinggroup/{child}"])
    for target in [*targets, targets[0]]:
        api("AttachSecurityProfile", securityProfileName=profile, securityProfileTargetArn=target)
    found = api.pages("ListTargetsForSecurityProfile", "securityProfileTargets", securityProfileName=profile, maxResults=3)
    assert found == [[{"arn": one} for one in targets[:3]], [{"arn": targets[3]}]]

    def mappings(target, **options):
        return [(one["securityProfileIdentifier"]["name"], one["target"]["arn"])
                for page in api.pages("ListSecurityProfilesForTarget", "securityProfileTargetMappings",
                                      securityProfileTargetArn=target, maxResults=1, **options) for one in page]

    assert mappings(f"{ARN}thinggroup/{root}") == [(profile, f"{ARN}thinggroup/{root}")]
    assert mappings(f"{ARN}thinggroup/{root}", recursive=True) == sorted(
        (profile, f"{ARN}thinggroup/{one}") for one in (root, child))
    for _ in range(2):
        api("DetachSecurityProfile", securityProfileName=profile, securityProfileTargetArn=f"{ARN}thinggroup/{root}")
    assert mappings(f"{ARN}thinggroup/{root}", recursive=True) == [(profile, f"{ARN}thinggroup/{child}")]
    api("DeleteThingGroup", thingGroupName=child)
    assert [one["arn"] for one in api("ListTargetsForSecurityProfile", securityProfileName=profile)[
        "securityProfileTargets"]] == targets[:2]
    for call in ("AttachSecurityProfile", "DetachSecurityProfile"):
        api.refused(call, "ResourceNotFoundException", securityProfileName="nobody", securityProfileTargetArn=targets[0])
        api.refused(call, "ResourceNotFoundException", securityProfileName=profile,
                    securityProfileTargetArn=f"{ARN}thinggroup/nobody")
        for bad in ("x", f"{ARN}all/nothing", f"{ARN}thing/x", targets[0].replace(ACCOUNT, "9" * 12)):
            api.refused(call, "InvalidRequestException", securityProfileName=profile, securityProfileTargetArn=bad)
    api.refused("ListTargetsForSecurityProfile", "ResourceNotFoundException", securityProfileName="nobody")
    api.refused("ListSecurityProfilesForTarget", "ResourceNotFoundException",
                securityProfileTargetArn=f"{ARN}thinggroup/nobody")
    api.refused("ListSecurityProfilesForTarget", "InvalidRequestException", securityProfileTargetArn="x")


def test_a_target_has_at_most_five_profiles(api):
    made = name("group")
    api("CreateThingGroup", thingGroupName=made)
    profiles = [name("profile") for _ in range(6)]
    for one in profiles:
        api("CreateSecurityProfile", securityProfileName=one)
    target = {"securityProfileTargetArn": f"{ARN}thinggroup/{made}"}
    for one in profiles[:5]:
        api("AttachSecurityProfile", securityProfileName=one, **target)
    api.refused("AttachSecurityProfile", "LimitExceededException", securityProfileName=profiles[5], **target)
    api("AttachSecurityProfile", securityProfileName=profiles[0], **target)
    api("DetachSecurityProfile", securityProfileName=profiles[0], **target)
    api("AttachSecurityProfile", securityProfileName=profiles[5], **target)


def test_there_are_no_violations_but_the_questions_are_checked(api):
    now = datetime.datetime.now(datetime.timezone.utc)
    profile = name("profile")
    api("CreateSecurityProfile", securityProfileName=profile)
    api("CreateThing", thingName=profile)
    assert api("ListActiveViolations", securityProfileName=profile, thingName=profile, behaviorCriteriaType="STATIC",
               listSuppressedAlerts=True, verificationState="UNKNOWN", maxResults=7) == {"activeViolations": []}
    day = datetime.timedelta(days=1)
    assert api("ListViolationEvents", startTime=now - day, endTime=now, thingName="nobody") == {"violationEvents": []}
    api.refused("ListViolationEvents", "InvalidRequestException", startTime=now, endTime=now - day)
    for bad in ({"behaviorCriteriaType": "DYNAMIC"}, {"verificationState": "MAYBE"}, {"maxResults": 251},
                {"securityProfileName": "a b"}, {"nextToken": "x"}):
        api.refused("ListActiveViolations", "InvalidRequestException", **bad)
        api.refused("ListViolationEvents", "InvalidRequestException", startTime=now - day, endTime=now, **bad)
    api.refused("ListActiveViolations", "ResourceNotFoundException", securityProfileName="nobody")
    api.refused("ListActiveViolations", "ResourceNotFoundException", thingName="nobody")


@pytest.mark.long  # each call starts the command line anew; test_iot_life.py has the main ones
def test_debians_aws_works_unchanged(core):
    made = name("profile")
    core.aws("create-security-profile", "--security-profile-name", made, "--behaviors", json.dumps([behavior()]))
    assert made in [one["name"] for one in core.aws("list-security-profiles")["securityProfileIdentifiers"]]
    found = core.aws("describe-security-profile", "--security-profile-name", made)
    assert found["behaviors"] == [behavior()] and found["version"] == 1
    assert core.aws("validate-security-profile-behaviors", "--behaviors", json.dumps([behavior()])) == {"valid": True}
    wrong = core.aws("validate-security-profile-behaviors", "--behaviors", json.dumps([behavior(durationSeconds=7)]))
    assert wrong == {"valid": False, "validationErrors": [{"errorMessage":
        "Behavior b: criteria.durationSeconds: 300, 600, 900, 1800 or 3600 wanted, 7 found"}]}
    core.aws("attach-security-profile", "--security-profile-name", made, "--security-profile-target-arn",
             f"{ARN}all/registered-things")
    assert core.aws("list-targets-for-security-profile", "--security-profile-name", made)["securityProfileTargets"] == [
        {"arn": f"{ARN}all/registered-things"}]
    assert core.aws("list-active-violations") == {"activeViolations": []}
    assert core.aws("list-violation-events", "--start-time", "2024-01-01T00:00:00Z", "--end-time",
                    "2024-01-02T00:00:00+01:00") == {"violationEvents": []}
