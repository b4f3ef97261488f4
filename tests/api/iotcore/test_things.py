"""Things, types, groups, principals, tags and events of the local IoT Core: botocore and Debian's CLI, every
answer and every error held against AWS's service model."""
import contextlib
import itertools
import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest
import requests
from botocore.exceptions import ClientError
from harness.botomodel import Checked
from harness.iotcore import ACCOUNT, READER, READER_SECRET, REGION, LocalCore
from harness.stack import wait_until

ARN = f"arn:aws:iot:{REGION}:{ACCOUNT}:"
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def core(cluster):
    with LocalCore(cluster) as it:
        yield it


@pytest.fixture(scope="module")
def api(core):
    return Checked(core.client())


def name(kind):
    """A name of its own for each use: tests of one core do not meet."""
    return f"{kind}-{next(NUMBERS)}"


def attributes(count):
    return {f"a{i}": f"v{i}" for i in range(count)}


def certificate(core, status="ACTIVE"):
    certificate_id = (uuid.uuid4().hex * 2)[:64]
    core.query("INSERT INTO iotcore.certificate (certificate_id, pem, status, mode, not_before, not_after)"
               " VALUES (%s, 'PEM', %s, 'SNI_ONLY', now(), now() + interval '1 day')", certificate_id, status)
    return f"{ARN}cert/{certificate_id}"


def thing(api, **parameters):
    made = name("thing")
    api("CreateThing", thingName=made, **parameters)
    return made


def group(api, parent=None, **parameters):
    made = name("group")
    if parent:
        parameters["parentGroupName"] = parent
    api("CreateThingGroup", thingGroupName=made, **parameters)
    return made


# ---- things ----------------------------------------------------------------------------------------------------

def test_a_thing_is_what_was_made_of_it(api):
    kind = name("type")
    api("CreateThingType", thingTypeName=kind)
    made = name("thing:with_every-sign")
    created = api("CreateThing", thingName=made, thingTypeName=kind,
                  attributePayload={"attributes": {"serial": "a/b:c#d@e,f.g-h_i", "empty": ""}})
    assert created["thingArn"] == f"{ARN}thing/{made}" and created["thingName"] == made
    uuid.UUID(created["thingId"])
    assert api("DescribeThing", thingName=made) == {
        "defaultClientId": made, "thingName": made, "thingId": created["thingId"], "thingArn": created["thingArn"],
        "thingTypeName": kind, "attributes": {"serial": "a/b:c#d@e,f.g-h_i"}, "version": 1}


def test_the_same_thing_again_is_the_same_thing(api):
    made = name("thing")
    wanted = {"thingName": made, "attributePayload": {"attributes": {"a": "1"}}}
    first = api("CreateThing", **wanted)
    assert api("CreateThing", **wanted) == first
    for other in ({"attributePayload": {"attributes": {"a": "2"}}}, {"attributePayload": {"attributes": {}}}, {}):
        answer = api.refused("CreateThing", "ResourceAlreadyExistsException", thingName=made, **other)
        assert answer["resourceId"] == first["thingId"] and answer["resourceArn"] == first["thingArn"]
    kind = name("type")
    api("CreateThingType", thingTypeName=kind)
    api.refused("CreateThing", "ResourceAlreadyExistsException", thingTypeName=kind, **wanted)
    assert api("DescribeThing", thingName=made)["version"] == 1


@pytest.mark.parametrize("bad", [
    {"thingName": "with space"}, {"thingName": "x" * 129}, {"thingName": "ü"}, {"thingName": "a/b"},
    {"thingName": "ok", "thingTypeName": "not ok"},
    {"thingName": "ok", "billingGroupName": "not ok"},
    {"thingName": "ok", "attributePayload": {"attributes": {"k" * 129: "v"}}},
    {"thingName": "ok", "attributePayload": {"attributes": {"sp ace": "v"}}},
    {"thingName": "ok", "attributePayload": {"attributes": {"k": "v" * 801}}},
    {"thingName": "ok", "attributePayload": {"attributes": {"k": "sp ace"}}},
    {"thingName": "ok", "attributePayload": {"attributes": attributes(4)}},
])
def test_a_thing_against_the_rules_is_refused(api, bad):
    answer = api.refused("CreateThing", "InvalidRequestException", **bad)
    if "Attribute count" not in answer["Error"]["Message"]:
        assert "failed to satisfy constraint: Member must" in answer["Error"]["Message"]
    if bad["thingName"] == "ok":
        api.refused("DescribeThing", "ResourceNotFoundException", thingName="ok")


def test_what_a_thing_names_must_be_there(api):
    api.refused("CreateThing", "ResourceNotFoundException", thingName=name("thing"), thingTypeName="nobody")
    api.refused("CreateThing", "ResourceNotFoundException", thingName=name("thing"), billingGroupName="nobody")
    api.refused("DescribeThing", "ResourceNotFoundException", thingName="nobody")
    api.refused("UpdateThing", "ResourceNotFoundException", thingName="nobody", removeThingType=True)
    made = thing(api)
    api.refused("UpdateThing", "ResourceNotFoundException", thingName=made, thingTypeName="nobody")


def test_three_attributes_without_a_type_and_fifty_with_one(api):
    kind = name("type")
    api("CreateThingType", thingTypeName=kind)
    thing(api, attributePayload={"attributes": attributes(3)})
    full = thing(api, thingTypeName=kind, attributePayload={"attributes": attributes(50)})
    api.refused("CreateThing", "InvalidRequestException", thingName=name("thing"), thingTypeName=kind,
                attributePayload={"attributes": attributes(51)})
    api.refused("UpdateThing", "InvalidRequestException", thingName=full,
                attributePayload={"attributes": {"one": "more"}, "merge": True})
    # Without its type it would have too many.
    api.refused("UpdateThing", "InvalidRequestException", thingName=full, removeThingType=True)
    assert api("DescribeThing", thingName=full)["version"] == 1


def test_update_merges_replaces_and_removes(api):
    made = thing(api, attributePayload={"attributes": {"a": "1", "b": "2"}})

    def after(**update):
        api("UpdateThing", thingName=made, **update)
        return api("DescribeThing", thingName=made)

    assert after(attributePayload={"attributes": {"b": "3", "c": "4"}, "merge": True})["attributes"] == {
        "a": "1", "b": "3", "c": "4"}
    assert after(attributePayload={"attributes": {"a": "", "nobody": ""}, "merge": True})["attributes"] == {
        "b": "3", "c": "4"}
    assert after(attributePayload={"attributes": {"d": "5"}})["attributes"] == {"d": "5"}
    assert after(attributePayload={"attributes": {"d": "", "e": "6"}})["attributes"] == {"e": "6"}
    kind = name("type")
    api("CreateThingType", thingTypeName=kind)
    found = after(thingTypeName=kind)
    assert found["thingTypeName"] == kind and found["attributes"] == {"e": "6"}
    found = after(removeThingType=True)
    assert "thingTypeName" not in found and found["attributes"] == {"e": "6"} and found["version"] == 7
    api.refused("UpdateThing", "InvalidRequestException", thingName=made, thingTypeName=kind, removeThingType=True)


def test_a_version_that_is_not_the_expected_one_changes_nothing(api):
    made = thing(api)
    api("UpdateThing", thingName=made, attributePayload={"attributes": {"a": "1"}}, expectedVersion=1)
    for stale in (1, 0, 3, -1):
        api.refused("UpdateThing", "VersionConflictException", thingName=made, expectedVersion=stale,
                    attributePayload={"attributes": {"a": "2"}})
        api.refused("DeleteThing", "VersionConflictException", thingName=made, expectedVersion=stale)
    assert api("DescribeThing", thingName=made)["attributes"] == {"a": "1"}
    api("DeleteThing", thingName=made, expectedVersion=2)
    api.refused("DescribeThing", "ResourceNotFoundException", thingName=made)
    api("DeleteThing", thingName=made)  # a repeat finds it done


def test_lists_of_things_filter_and_go_on_by_pages(core, api):
    kind = name("type")
    api("CreateThingType", thingTypeName=kind)
    prefix = name("many")
    for i in range(7):
        api("CreateThing", thingName=f"{prefix}-{i}", thingTypeName=kind,
            attributePayload={"attributes": {"site": f"hall-{prefix}-{i % 2}", "n": str(i)}})
    pages = api.pages("ListThings", "things", thingTypeName=kind, maxResults=3)
    assert [[one["thingName"] for one in page] for page in pages] == [
        [f"{prefix}-{i}" for i in part] for part in (range(3), range(3, 6), range(6, 7))]
    first = pages[0][0]
    assert first == {"thingName": f"{prefix}-0", "thingTypeName": kind, "thingArn": f"{ARN}thing/{prefix}-0",
                     "attributes": {"site": f"hall-{prefix}-0", "n": "0"}, "version": 1}

    def numbers(**filters):
        return [int(one["attributes"]["n"]) for one in api("ListThings", **filters)["things"]]

    assert numbers(attributeName="site", attributeValue=f"hall-{prefix}-1") == [1, 3, 5]
    assert numbers(attributeName="site", attributeValue=f"hall-{prefix}-1", thingTypeName=kind) == [1, 3, 5]
    assert numbers(attributeName="site", attributeValue=f"hall-{prefix}-1", thingTypeName="nobody") == []
    assert numbers(attributeName="site", attributeValue=f"hall-{prefix}", usePrefixAttributeValue=True) == list(range(7))
    assert numbers(attributeName="site", attributeValue=f"hall-{prefix}") == []
    assert numbers(attributeName="n", thingTypeName=kind) == list(range(7))
    assert api("ListThings", thingTypeName="nobody") == {"things": []}
    assert {one["thingName"] for page in api.pages("ListThings", "things", maxResults=250) for one in page} >= {
        f"{prefix}-{i}" for i in range(7)}
    # Exactly full: there is no next page.
    assert "nextToken" not in api("ListThings", thingTypeName=kind, maxResults=7)


def test_wrong_pages_and_filters_are_refused(api):
    for i in range(2):
        thing(api)
    token = api("ListThings", maxResults=1)["nextToken"]
    for bad in ({"maxResults": 251}, {"nextToken": "nonsense"}, {"nextToken": "A" + token[1:]}, {"nextToken": "ü"},
                {"attributeValue": "x"}, {"usePrefixAttributeValue": True}, {"attributeName": "a b"},
                {"thingTypeName": "a b"}):
        api.refused("ListThings", "InvalidRequestException", **bad)
    api.refused("ListThingGroups", "InvalidRequestException", nextToken=token)


# ---- thing types -----------------------------------------------------------------------------------------------

def test_a_type_is_made_deprecated_and_after_five_minutes_deleted(core, api):
    kind = name("type")
    created = api("CreateThingType", thingTypeName=kind, thingTypeProperties={
        "thingTypeDescription": "Sensor, Größe 3", "searchableAttributes": ["serial", "site"]},
        tags=[{"Key": "owner", "Value": "me"}])
    assert created["thingTypeArn"] == f"{ARN}thingtype/{kind}"
    found = api("DescribeThingType", thingTypeName=kind)
    assert found["thingTypeProperties"] == {"thingTypeDescription": "Sensor, Größe 3",
                                            "searchableAttributes": ["serial", "site"]}
    assert found["thingTypeId"] == created["thingTypeId"] and not found["thingTypeMetadata"]["deprecated"]
    assert "deprecationDate" not in found["thingTypeMetadata"]
    answer = api.refused("DeleteThingType", "InvalidRequestException", thingTypeName=kind)
    assert "Deprecate" in answer["Error"]["Message"]

    member = thing(api, thingTypeName=kind)
    api("DeprecateThingType", thingTypeName=kind)
    since = api("DescribeThingType", thingTypeName=kind)["thingTypeMetadata"]
    assert since["deprecated"] and since["deprecationDate"]
    api("DeprecateThingType", thingTypeName=kind)
    assert api("DescribeThingType", thingTypeName=kind)["thingTypeMetadata"] == since
    api.refused("CreateThing", "InvalidRequestException", thingName=name("thing"), thingTypeName=kind)
    other = thing(api)
    api.refused("UpdateThing", "InvalidRequestException", thingName=other, thingTypeName=kind)
    answer = api.refused("DeleteThingType", "InvalidRequestException", thingTypeName=kind)
    assert "5 minutes" in answer["Error"]["Message"]
    core.query("UPDATE iotcore.thing_type SET deprecated_at = now() - interval '290 s' WHERE name = %s", kind)
    answer = api.refused("DeleteThingType", "InvalidRequestException", thingTypeName=kind)
    assert "5 minutes" in answer["Error"]["Message"]
    core.query("UPDATE iotcore.thing_type SET deprecated_at = now() - interval '301 s' WHERE name = %s", kind)
    answer = api.refused("DeleteThingType", "InvalidRequestException", thingTypeName=kind)
    assert "associated" in answer["Error"]["Message"]
    api("DeleteThing", thingName=member)
    api("DeleteThingType", thingTypeName=kind)
    api.refused("DescribeThingType", "ResourceNotFoundException", thingTypeName=kind)
    assert core.query("SELECT count(*) FROM iotcore.tag WHERE arn = %s", created["thingTypeArn"]) == [(0,)]


def test_deprecation_is_undone(api):
    kind = name("type")
    api("CreateThingType", thingTypeName=kind)
    api("DeprecateThingType", thingTypeName=kind)
    api("DeprecateThingType", thingTypeName=kind, undoDeprecate=True)
    assert not api("DescribeThingType", thingTypeName=kind)["thingTypeMetadata"]["deprecated"]
    thing(api, thingTypeName=kind)


def test_the_same_type_again_is_the_same_type(api):
    kind = name("type")
    first = api("CreateThingType", thingTypeName=kind, thingTypeProperties={"searchableAttributes": ["a"]})
    assert api("CreateThingType", thingTypeName=kind, thingTypeProperties={"searchableAttributes": ["a"]}) == first
    answer = api.refused("CreateThingType", "ResourceAlreadyExistsException", thingTypeName=kind)
    assert answer["resourceArn"] == first["thingTypeArn"]


def test_types_against_the_rules_are_refused(api):
    for bad in ({"thingTypeName": "a b"}, {"thingTypeName": "x" * 129},
                {"thingTypeName": "ok", "thingTypeProperties": {"thingTypeDescription": "x" * 2029}},
                {"thingTypeName": "ok", "thingTypeProperties": {"thingTypeDescription": "a\tb"}},
                {"thingTypeName": "ok", "thingTypeProperties": {"searchableAttributes": ["a", "b", "c", "d"]}},
                {"thingTypeName": "ok", "thingTypeProperties": {"searchableAttributes": ["a b"]}},
                {"thingTypeName": "ok", "tags": [{"Key": "aws:x", "Value": "y"}]},
                {"thingTypeName": "ok", "tags": [{"Key": "x", "Value": "y"}, {"Key": "x", "Value": "z"}]}):
        api.refused("CreateThingType", "InvalidRequestException", **bad)
    for call in ("DescribeThingType", "DeprecateThingType", "DeleteThingType"):
        api.refused(call, "ResourceNotFoundException", thingTypeName="nobody")
        api.refused(call, "InvalidRequestException", thingTypeName="a b")


def test_types_are_listed(api):
    prefix = name("listed")
    for i in range(5):
        api("CreateThingType", thingTypeName=f"{prefix}-{i}")
    found = [one["thingTypeName"] for page in api.pages("ListThingTypes", "thingTypes", maxResults=2) for one in page]
    assert found == sorted(found) and {f"{prefix}-{i}" for i in range(5)} <= set(found)
    assert [one["thingTypeArn"] for one in api("ListThingTypes", thingTypeName=f"{prefix}-3")["thingTypes"]] == [
        f"{ARN}thingtype/{prefix}-3"]
    assert api("ListThingTypes", thingTypeName="nobody") == {"thingTypes": []}


# ---- groups ----------------------------------------------------------------------------------------------------

def test_a_group_knows_its_ancestors(api):
    root = group(api, thingGroupProperties={"thingGroupDescription": "All halls",
                                            "attributePayload": {"attributes": {"site": "north"}}})
    middle = group(api, root)
    leaf = name("leaf")
    created = api("CreateThingGroup", thingGroupName=leaf, parentGroupName=middle)
    found = api("DescribeThingGroup", thingGroupName=leaf)
    assert created == {"thingGroupName": leaf, "thingGroupArn": f"{ARN}thinggroup/{leaf}",
                       "thingGroupId": found["thingGroupId"]}
    assert found["thingGroupMetadata"]["parentGroupName"] == middle and found["version"] == 1
    assert found["thingGroupMetadata"]["rootToParentThingGroups"] == [
        {"groupName": one, "groupArn": f"{ARN}thinggroup/{one}"} for one in (root, middle)]
    found = api("DescribeThingGroup", thingGroupName=root)
    assert found["thingGroupProperties"] == {"thingGroupDescription": "All halls",
                                             "attributePayload": {"attributes": {"site": "north"}}}
    assert "parentGroupName" not in found["thingGroupMetadata"]


def test_the_same_group_again_is_the_same_group(api):
    parent, made = group(api), name("group")
    wanted = {"thingGroupName": made, "parentGroupName": parent, "thingGroupProperties": {"thingGroupDescription": "x"}}
    first = api("CreateThingGroup", **wanted)
    assert api("CreateThingGroup", **wanted) == first
    answer = api.refused("CreateThingGroup", "ResourceAlreadyExistsException", thingGroupName=made)
    assert answer["resourceId"] == first["thingGroupId"] and answer["resourceArn"] == first["thingGroupArn"]


def test_groups_are_at_most_seven_deep(api):
    at = group(api)
    for _ in range(6):
        at = group(api, at)
    assert len(api("DescribeThingGroup", thingGroupName=at)["thingGroupMetadata"]["rootToParentThingGroups"]) == 6
    api.refused("CreateThingGroup", "InvalidRequestException", thingGroupName=name("group"), parentGroupName=at)


def test_a_group_has_at_most_a_hundred_children(core, api):
    parent = group(api)
    core.query("INSERT INTO iotcore.thing_group (name, parent) SELECT %s || n, %s FROM generate_series(1, 99) n",
               name("child"), parent)
    group(api, parent)
    api.refused("CreateThingGroup", "InvalidRequestException", thingGroupName=name("group"), parentGroupName=parent)


def test_groups_are_listed_by_parent_prefix_and_depth(api):
    prefix = name("tree")
    root = group(api)
    names = [f"{prefix}-{i}" for i in range(3)]
    for one in names:
        api("CreateThingGroup", thingGroupName=one, parentGroupName=root)
    below = f"{prefix}-deep"
    api("CreateThingGroup", thingGroupName=below, parentGroupName=names[0])

    def listed(**filters):
        return [one["groupName"] for page in api.pages("ListThingGroups", "thingGroups", maxResults=2, **filters)
                for one in page]

    assert listed(parentGroup=root, recursive=False) == names
    assert listed(parentGroup=root) == [*names, below]
    assert listed(parentGroup=root, namePrefixFilter=f"{prefix}-d") == [below]
    assert listed(namePrefixFilter=prefix) == [*names, below]
    assert listed(namePrefixFilter=prefix, recursive=False) == []
    assert root in listed(recursive=False) and names[0] not in listed(recursive=False)
    api.refused("ListThingGroups", "ResourceNotFoundException", parentGroup="nobody")
    api.refused("ListThingGroups", "InvalidRequestException", namePrefixFilter="a b")


def test_groups_are_updated_by_version(api):
    made = group(api, thingGroupProperties={"thingGroupDescription": "x",
                                            "attributePayload": {"attributes": {"a": "1"}}})
    assert api("UpdateThingGroup", thingGroupName=made, expectedVersion=1, thingGroupProperties={
        "attributePayload": {"attributes": {"b": "2"}, "merge": True}}) == {"version": 2}
    found = api("DescribeThingGroup", thingGroupName=made)["thingGroupProperties"]
    assert found == {"thingGroupDescription": "x", "attributePayload": {"attributes": {"a": "1", "b": "2"}}}
    api.refused("UpdateThingGroup", "VersionConflictException", thingGroupName=made, expectedVersion=1,
                thingGroupProperties={"thingGroupDescription": "y"})
    api.refused("UpdateThingGroup", "ResourceNotFoundException", thingGroupName="nobody", thingGroupProperties={})
    api.refused("UpdateThingGroup", "InvalidRequestException", thingGroupName=made, thingGroupProperties={
        "attributePayload": {"attributes": attributes(51)}})
    assert api("UpdateThingGroup", thingGroupName=made, thingGroupProperties={"thingGroupDescription": "y"}) == {
        "version": 3}
    assert api("DescribeThingGroup", thingGroupName=made)["thingGroupProperties"]["thingGroupDescription"] == "y"


def test_a_group_is_deleted_only_without_children(core, api):
    root = group(api, tags=[{"Key": "k", "Value": "v"}])
    child = group(api, root)
    member = thing(api)
    api("AddThingToThingGroup", thingGroupName=child, thingName=member)
    answer = api.refused("DeleteThingGroup", "InvalidRequestException", thingGroupName=root)
    assert "child groups" in answer["Error"]["Message"]
    api.refused("DeleteThingGroup", "VersionConflictException", thingGroupName=child, expectedVersion=2)
    api("DeleteThingGroup", thingGroupName=child, expectedVersion=1)
    api("DeleteThingGroup", thingGroupName=root)
    api("DeleteThingGroup", thingGroupName=root)
    api.refused("DescribeThingGroup", "ResourceNotFoundException", thingGroupName=root)
    assert api("ListThingGroupsForThing", thingName=member) == {"thingGroups": []}
    assert core.query("SELECT count(*) FROM iotcore.tag WHERE arn = %s", f"{ARN}thinggroup/{root}") == [(0,)]


def test_members_are_named_by_name_or_arn_that_agree(api):
    made, member = group(api), thing(api)
    by_arn = {"thingGroupArn": f"{ARN}thinggroup/{made}", "thingArn": f"{ARN}thing/{member}"}
    api("AddThingToThingGroup", **by_arn)
    api("AddThingToThingGroup", thingGroupName=made, thingName=member, **by_arn, overrideDynamicGroups=True)
    assert api("ListThingsInThingGroup", thingGroupName=made) == {"things": [member]}
    assert api("ListThingGroupsForThing", thingName=member) == {
        "thingGroups": [{"groupName": made, "groupArn": f"{ARN}thinggroup/{made}"}]}
    for bad in ({"thingName": member}, {"thingGroupName": made}, {},
                {"thingGroupName": "other", "thingGroupArn": by_arn["thingGroupArn"], "thingName": member},
                {"thingGroupName": made, "thingName": "other", "thingArn": by_arn["thingArn"]},
                {"thingGroupName": made, "thingArn": "arn:aws:iot:eu-central-1:999999999999:thing/x"},
                {"thingGroupName": made, "thingArn": by_arn["thingGroupArn"]},
                {"thingGroupName": made, "thingName": "a b"}):
        api.refused("AddThingToThingGroup", "InvalidRequestException", **bad)
        api.refused("RemoveThingFromThingGroup", "InvalidRequestException", **bad)
    for call in ("AddThingToThingGroup", "RemoveThingFromThingGroup"):
        api.refused(call, "ResourceNotFoundException", thingGroupName="nobody", thingName=member)
        api.refused(call, "ResourceNotFoundException", thingGroupName=made, thingName="nobody")
    api("RemoveThingFromThingGroup", **by_arn)
    api("RemoveThingFromThingGroup", **by_arn)
    assert api("ListThingsInThingGroup", thingGroupName=made) == {"things": []}


def test_a_thing_is_in_ten_groups_and_once_in_a_hierarchy(api):
    member = thing(api)
    root = group(api)
    left, right = group(api, root), group(api, root)
    api("AddThingToThingGroup", thingGroupName=left, thingName=member)
    for one in (root, right, group(api, left)):
        answer = api.refused("AddThingToThingGroup", "InvalidRequestException", thingGroupName=one, thingName=member)
        assert "hierarchy" in answer["Error"]["Message"]
    for _ in range(9):
        api("AddThingToThingGroup", thingGroupName=group(api), thingName=member)
    api.refused("AddThingToThingGroup", "InvalidRequestException", thingGroupName=group(api), thingName=member)
    api("AddThingToThingGroup", thingGroupName=left, thingName=member)  # it is there already
    assert sum(map(len, api.pages("ListThingGroupsForThing", "thingGroups", thingName=member, maxResults=4))) == 10
    api("RemoveThingFromThingGroup", thingGroupName=left, thingName=member)
    api("AddThingToThingGroup", thingGroupName=right, thingName=member)


def test_things_of_a_group_with_those_below(api):
    root = group(api)
    child = group(api, root)
    names = []
    for at in (root, child, root, child):
        names.append(thing(api))
        api("AddThingToThingGroup", thingGroupName=at, thingName=names[-1])
    assert api("ListThingsInThingGroup", thingGroupName=root) == {"things": sorted(names[::2])}
    assert api.pages("ListThingsInThingGroup", "things", thingGroupName=root, recursive=True, maxResults=3) == [
        sorted(names)[:3], sorted(names)[3:]]
    api.refused("ListThingsInThingGroup", "ResourceNotFoundException", thingGroupName="nobody")
    api.refused("ListThingGroupsForThing", "ResourceNotFoundException", thingName="nobody")


# ---- principals ------------------------------------------------------------------------------------------------

def test_principals_are_attached_listed_and_detached(core, api):
    one, two, cert = thing(api), thing(api), certificate(core)
    for _ in range(2):
        api("AttachThingPrincipal", thingName=one, principal=cert)
    api("AttachThingPrincipal", thingName=two, principal=cert)
    other = certificate(core, "INACTIVE")
    api("AttachThingPrincipal", thingName=one, principal=other)
    assert api.pages("ListThingPrincipals", "principals", thingName=one, maxResults=1) == [
        [arn] for arn in sorted([cert, other])]
    assert api.pages("ListPrincipalThings", "things", principal=cert, maxResults=1) == [
        [made] for made in sorted([one, two])]
    answer = api.refused("DeleteThing", "InvalidRequestException", thingName=two)
    assert answer["Error"]["Message"] == f"Cannot delete. Thing {two} is still attached to one or more principals"
    api("DetachThingPrincipal", thingName=two, principal=cert)
    api.refused("DetachThingPrincipal", "ResourceNotFoundException", thingName=two, principal=cert)
    api("DeleteThing", thingName=two)
    assert api("ListPrincipalThings", principal=cert) == {"things": [one]}


def test_principals_must_be_certificates_that_are_there(core, api):
    made, cert = thing(api), certificate(core)
    unknown = f"{ARN}cert/{'0' * 64}"
    for call in ("AttachThingPrincipal", "DetachThingPrincipal"):
        api.refused(call, "ResourceNotFoundException", thingName="nobody", principal=cert)
        api.refused(call, "ResourceNotFoundException", thingName=made, principal=unknown)
        for bad in ("x", cert.replace(ACCOUNT, "999999999999"), cert[:-1], f"{ARN}thing/{made}",
                    f"{REGION}:{uuid.uuid4()}"):
            api.refused(call, "InvalidRequestException", thingName=made, principal=bad)
    api.refused("ListThingPrincipals", "ResourceNotFoundException", thingName="nobody")
    api.refused("ListPrincipalThings", "ResourceNotFoundException", principal=unknown)
    api.refused("ListPrincipalThings", "InvalidRequestException", principal="x")


def exclusive(core, api, made, cert, kind="EXCLUSIVE_THING"):
    """thingPrincipalType is newer than Debian's model: put into the query before the request is signed."""
    del api

    def add(request, **_):
        request.url += f"?thingPrincipalType={kind}"

    client = core.client()
    client.meta.events.register("before-sign.iot.AttachThingPrincipal", add)
    client.attach_thing_principal(thingName=made, principal=cert)


def test_an_exclusive_principal_is_of_one_thing(core, api):
    one, two, cert = thing(api), thing(api), certificate(core)
    exclusive(core, api, one, cert)
    api.refused("AttachThingPrincipal", "InvalidRequestException", thingName=two, principal=cert)
    assert core.query("SELECT thing, exclusive FROM iotcore.thing_principal WHERE certificate_id = %s",
                      cert[-64:]) == [(one, True)]
    api("AttachThingPrincipal", thingName=one, principal=cert)
    api("AttachThingPrincipal", thingName=two, principal=cert)
    with pytest.raises(Exception, match="InvalidRequestException"):
        exclusive(core, api, one, cert)
    with pytest.raises(Exception, match="enum value set"):
        exclusive(core, api, one, cert, "SOMETIMES")


def test_the_broker_hears_of_what_changed_and_only_of_that(core, api):
    made, cert = thing(api), certificate(core)
    api("AttachThingPrincipal", thingName=made, principal=cert)
    seen = core.query("SELECT max(seq) FROM iotcore.change")[0][0]

    def changes():
        return core.query("SELECT kind, key FROM iotcore.change WHERE seq > %s ORDER BY seq", seen)

    api("AttachThingPrincipal", thingName=made, principal=cert)
    api("CreateThing", thingName=made)
    api.refused("UpdateThing", "VersionConflictException", thingName=made, expectedVersion=9)
    assert changes() == []
    api("UpdateThing", thingName=made, attributePayload={"attributes": {"a": "1"}})
    api("DetachThingPrincipal", thingName=made, principal=cert)
    assert changes() == [("thing", made), ("certificate", cert[-64:])]


# ---- many at once ----------------------------------------------------------------------------------------------

def test_many_at_once_follow_each_other(core):
    """Every writer locks the account first: none deadlocks, and each sees what the one before it left."""
    prefix, cert = name("crowd"), certificate(core)
    with ThreadPoolExecutor(8) as pool:
        def work(number):
            mine, outcomes = Checked(core.client()), []
            for i in range(12):
                made, into = f"{prefix}-{(i + number) % 4}", f"{prefix}-group-{i % 3}"
                for call, parameters in (
                        ("CreateThing", {"thingName": made}), ("CreateThingGroup", {"thingGroupName": into}),
                        ("UpdateThing", {"thingName": made, "attributePayload": {
                            "attributes": {f"by{number % 3}": str(i)}, "merge": True}}),
                        ("AttachThingPrincipal", {"thingName": made, "principal": cert}),
                        ("AddThingToThingGroup", {"thingName": made, "thingGroupName": into}),
                        ("DetachThingPrincipal", {"thingName": made, "principal": cert}),
                        ("DeleteThing", {"thingName": made})):
                    try:
                        mine(call, **parameters)
                        outcomes.append("OK")
                    except ClientError as error:
                        outcomes.append(error.response["Error"]["Code"])
            return outcomes
        outcomes = [one for found in pool.map(work, range(8)) for one in found]
    # Another one has deleted it, or still holds its principal, or made it otherwise: no more than that.
    assert set(outcomes) <= {"OK", "ResourceNotFoundException", "InvalidRequestException",
                             "ResourceAlreadyExistsException"}
    assert outcomes.count("OK") > len(outcomes) / 2
    assert not [one for one in core.events() if one.get("level") == "error"]


def behind_a_lock(core, calls):
    """Holds the account until all calls wait for it; their outcomes, in order."""
    def outcome(parameters):
        try:
            core.client().create_thing(**parameters)
            return "OK"
        except ClientError as error:
            return error.response["Error"]["Code"]

    with ThreadPoolExecutor(len(calls)) as pool:
        with contextlib.closing(psycopg2.connect(core.database_url)) as holder:
            holder.cursor().execute("SELECT FROM iotcore.account FOR UPDATE")
            waiting = [pool.submit(outcome, one) for one in calls]
            # The first waits in the database, the others for it: the last of them has arrived some moments later.
            wait_until(lambda: core.query("SELECT count(*) FROM pg_locks WHERE NOT granted")[0][0] > 0, "a waiting call")
            wait_until(lambda: in_flight(core) > len(calls), "all calls")
        return [one.result() for one in waiting]


def in_flight(core):
    """Requests that are not answered yet: these metrics' own is one of them."""
    text = requests.get(f"{core.url}/metrics", timeout=10).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("jitrca_http_in_flight "))


def transactions_of(core, prefix):
    return core.query("SELECT count(DISTINCT xmin::text), count(*) FROM iotcore.thing WHERE name LIKE %s", prefix + "%")[0]


def test_who_waits_for_the_same_is_committed_together(core):
    prefix = name("together")
    outcomes = behind_a_lock(core, [{"thingName": f"{prefix}-{n}"} for n in range(7)])
    assert outcomes == ["OK"] * 7
    transactions, things = transactions_of(core, prefix)
    assert things == 7 and transactions <= 3


def test_one_refused_among_many_harms_no_other(core, api):
    prefix = name("apart")
    api("CreateThing", thingName=f"{prefix}-0")
    calls = [{"thingName": f"{prefix}-{n}"} for n in range(1, 4)]
    calls += [{"thingName": f"{prefix}-0", "attributePayload": {"attributes": {"other": "1"}}}]
    calls += [{"thingName": f"{prefix}-{n}"} for n in range(4, 7)]
    outcomes = behind_a_lock(core, calls)
    assert outcomes == ["OK"] * 3 + ["ResourceAlreadyExistsException"] + ["OK"] * 3
    assert transactions_of(core, prefix)[1] == 7
    seqs = [row[0] for row in core.query("SELECT seq FROM iotcore.change ORDER BY seq")]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


# ---- tags ------------------------------------------------------------------------------------------------------

def tags_of(api, arn):
    return {one["Key"]: one["Value"] for one in api("ListTagsForResource", resourceArn=arn)["tags"]}


def test_whatever_takes_tags_is_tagged(core, api):
    kind = name("type")
    api("CreateThingType", thingTypeName=kind)
    profile, policy = name("profile"), name("policy")
    api("CreateSecurityProfile", securityProfileName=profile)
    core.query("INSERT INTO iotcore.policy (name, default_version, last_version, generation) VALUES (%s, 1, 1, '')",
               policy)
    ca = (uuid.uuid4().hex * 2)[:64]
    core.query("INSERT INTO iotcore.ca_certificate (certificate_id, pem, der, subject, status, auto_registration, mode,"
               " not_before, not_after) VALUES (%s, '', '', '', 'ACTIVE', true, 'SNI_ONLY', now(), now())", ca)
    for resource in (f"thingtype/{kind}", f"thinggroup/{group(api)}", f"securityprofile/{profile}",
                     f"policy/{policy}", f"cacert/{ca}"):
        arn = ARN + resource
        assert tags_of(api, arn) == {}
        api("TagResource", resourceArn=arn, tags=[{"Key": "owner", "Value": "Jürgen"}, {"Key": "a b/c:d=e+f-g@h_i.j",
                                                                                       "Value": ""}])
        api("TagResource", resourceArn=arn, tags=[{"Key": "owner", "Value": "me"}])
        assert tags_of(api, arn) == {"owner": "me", "a b/c:d=e+f-g@h_i.j": ""}
        api("UntagResource", resourceArn=arn, tagKeys=["owner", "nobody"])
        assert tags_of(api, arn) == {"a b/c:d=e+f-g@h_i.j": ""}


def test_a_resource_has_at_most_fifty_tags(api):
    made = group(api, tags=[{"Key": f"k{i}", "Value": "v"} for i in range(50)])
    arn = f"{ARN}thinggroup/{made}"
    api.refused("TagResource", "LimitExceededException", resourceArn=arn, tags=[{"Key": "more", "Value": "v"}])
    api("TagResource", resourceArn=arn, tags=[{"Key": "k7", "Value": "w"}])
    found = tags_of(api, arn)
    assert len(found) == 50 and found["k7"] == "w" and "more" not in found
    api.refused("CreateThingGroup", "InvalidRequestException", thingGroupName=name("group"),
                tags=[{"Key": f"k{i}", "Value": "v"} for i in range(51)])


def test_tags_against_the_rules_are_refused(api):
    made = group(api)
    arn = f"{ARN}thinggroup/{made}"
    for bad in ([{"Key": "aws:x", "Value": "v"}], [{"Key": "AWS:x", "Value": "v"}], [{"Key": "x" * 129, "Value": "v"}],
                [{"Key": "x", "Value": "v" * 257}], [{"Key": "ex!", "Value": "v"}],
                [{"Key": "x", "Value": "1"}, {"Key": "x", "Value": "2"}]):
        api.refused("TagResource", "InvalidRequestException", resourceArn=arn, tags=bad)
    assert tags_of(api, arn) == {}
    for call, more in (("TagResource", {"tags": []}), ("UntagResource", {"tagKeys": ["x"]}), ("ListTagsForResource", {})):
        for bad in ("x", f"{ARN}thing/{thing(api)}", arn.replace(ACCOUNT, "999999999999"), arn.replace("iot", "s3")):
            api.refused(call, "InvalidRequestException", resourceArn=bad, **more)
        for gone in ("thinggroup/nobody", "thingtype/nobody", "policy/nobody", "cacert/nobody", "securityprofile/nobody",
                     "rule/nobody"):
            api.refused(call, "ResourceNotFoundException", resourceArn=ARN + gone, **more)


# ---- event configurations --------------------------------------------------------------------------------------

def test_event_configurations_are_off_until_set(cluster):
    with LocalCore(cluster) as fresh:
        api = Checked(fresh.client())
        found = api("DescribeEventConfigurations")
        assert set(found["eventConfigurations"]) == {
            "THING", "THING_GROUP", "THING_TYPE", "THING_GROUP_MEMBERSHIP", "THING_GROUP_HIERARCHY",
            "THING_TYPE_ASSOCIATION", "JOB", "JOB_EXECUTION", "POLICY", "CERTIFICATE", "CA_CERTIFICATE"}
        assert not any(one["Enabled"] for one in found["eventConfigurations"].values())
        api("UpdateEventConfigurations", eventConfigurations={"THING": {"Enabled": True}, "JOB": {"Enabled": True}})
        api("UpdateEventConfigurations", eventConfigurations={"JOB": {"Enabled": False}})
        api("UpdateEventConfigurations")
        found = api("DescribeEventConfigurations")
        assert [kind for kind, one in found["eventConfigurations"].items() if one["Enabled"]] == ["THING"]
        assert found["lastModifiedDate"]
        api.refused("UpdateEventConfigurations", "InvalidRequestException",
                    eventConfigurations={"WEATHER": {"Enabled": True}})


# ---- the command line, who may ---------------------------------------------------------------------------------

@pytest.mark.long  # each call starts the command line anew; test_iot_life.py has the main ones
def test_debians_aws_works_unchanged(core, api):
    kind, made = name("type"), name("thing:cli")
    assert core.aws("create-thing-type", "--thing-type-name", kind)["thingTypeArn"] == f"{ARN}thingtype/{kind}"
    created = core.aws("create-thing", "--thing-name", made, "--thing-type-name", kind, "--attribute-payload",
                       json.dumps({"attributes": {"serial": "1"}}))
    assert core.aws("list-things", "--thing-type-name", kind)["things"] == [
        {"thingName": made, "thingTypeName": kind, "thingArn": created["thingArn"], "attributes": {"serial": "1"},
         "version": 1}]
    core.aws("update-thing", "--thing-name", made, "--attribute-payload", json.dumps({"attributes": {"serial": "2"}}))
    assert core.aws("describe-thing", "--thing-name", made)["attributes"] == {"serial": "2"}
    cert = certificate(core)
    core.aws("attach-thing-principal", "--thing-name", made, "--principal", cert)
    assert core.aws("list-thing-principals", "--thing-name", made) == {"principals": [cert]}
    assert core.aws("list-principal-things", "--principal", cert) == {"things": [made]}
    done = core.aws("delete-thing", "--thing-name", made, check=False)
    assert done.returncode == 254 and "(InvalidRequestException) when calling the DeleteThing operation" in done.stderr
    core.aws("detach-thing-principal", "--thing-name", made, "--principal", cert)
    parent = core.aws("create-thing-group", "--thing-group-name", name("group"))["thingGroupName"]
    core.aws("add-thing-to-thing-group", "--thing-group-name", parent, "--thing-name", made)
    assert core.aws("list-things-in-thing-group", "--thing-group-name", parent)["things"] == [made]
    assert [one["groupName"] for one in core.aws("list-thing-groups-for-thing", "--thing-name", made)["thingGroups"]] == [
        parent]
    # The CLI walks pages on its own.
    for i in range(3):
        thing(api, thingTypeName=kind)
    assert len(core.aws("list-things", "--thing-type-name", kind, "--page-size", "1")["things"]) == 4
    arn = f"{ARN}thinggroup/{parent}"
    core.aws("tag-resource", "--resource-arn", arn, "--tags", "Key=a,Value=b")
    assert core.aws("list-tags-for-resource", "--resource-arn", arn)["tags"] == [{"Key": "a", "Value": "b"}]
    core.aws("deprecate-thing-type", "--thing-type-name", kind)
    core.aws("deprecate-thing-type", "--thing-type-name", kind, "--undo-deprecate")
    core.aws("delete-thing", "--thing-name", made)


def test_a_reader_reads_only(core):
    reader = Checked(core.client(READER, READER_SECRET))
    reader("ListThings")
    reader("DescribeEventConfigurations")
    reader.refused("CreateThing", "AccessDeniedException", thingName=name("thing"))
    reader.refused("UpdateEventConfigurations", "AccessDeniedException")
