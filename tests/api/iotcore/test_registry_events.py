"""Registry events: what UpdateEventConfigurations has switched on is heard by mosquitto_sub, as AWS documents it."""
import json
import queue
import signal
import subprocess
import threading
import time
import types
import uuid

import pytest

from harness.botomodel import Checked
from harness.broker import ACCOUNT, ARN, Broker, Identity, document, statement
from harness.iotcore import LocalCore
from harness.stack import wait_until

KINDS = ["THING", "THING_TYPE", "THING_TYPE_ASSOCIATION", "THING_GROUP", "THING_GROUP_MEMBERSHIP", "THING_GROUP_HIERARCHY"]
# A service that may hear of the registry, and of nothing else.
POLICY = document(
    statement("Allow", "iot:Connect", "client/inventory"),
    statement("Allow", "iot:Subscribe", *[f"topicfilter/$aws/events/{name}/*" for name in ("thing", "thingType*", "thingGroup*")]),
    statement("Allow", "iot:Receive", *[f"topic/$aws/events/{name}/*" for name in ("thing", "thingType*", "thingGroup*")]))
FILTERS = [f"$aws/events/{name}/#" for name in ("thing", "thingType", "thingTypeAssociation", "thingGroup",
                                                "thingGroupMembership", "thingGroupHierarchy")]


class Ear:
    """mosquitto_sub as the service, in a session that the broker keeps."""

    def __init__(self, broker, identity):
        certificate, key = identity.write(broker.dir)
        self.heard = queue.Queue()
        topics = [part for one in FILTERS for part in ("-t", one)]
        self.process = subprocess.Popen(
            ["stdbuf", "-oL", "mosquitto_sub", "-h", "localhost", "-p", str(broker.port), "--cafile", str(broker.ca_file), "--cert", certificate,
             "--key", key, "-i", "inventory", "-c", "-q", "1", "-d", "-F", "EVENT %t %p", *topics],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.subscribed = threading.Event()
        self.thread = threading.Thread(target=self._read)
        self.thread.start()
        if not self.subscribed.wait(20):
            self.close()
            raise AssertionError(f"no subscription\n{broker.log_tail()}")

    def _read(self):
        for line in self.process.stdout:
            if line.startswith("EVENT "):
                _, topic, payload = line.split(" ", 2)
                self.heard.put((topic, json.loads(payload)))
            elif line.startswith("Subscribed"):
                assert "128" not in line, line
                self.subscribed.set()

    def next(self, topic, deadline_s=10):
        """The payload of the next event, which must be on that topic, without what every event has."""
        where, body = self.heard.get(timeout=deadline_s)
        assert where == f"$aws/events/{topic}", (where, body)
        uuid.UUID(body.pop("eventId"))
        assert abs(body.pop("timestamp") / 1000 - time.time()) < 60
        assert body.pop("operation") == topic.rsplit("/", 1)[1].upper()
        return body

    def close(self):
        self.process.terminate()
        self.process.wait(10)
        self.thread.join()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def world(cluster):
    broker = Broker(cluster, lines=["autosave_on_changes true", "autosave_interval 1"])
    broker.put_policy("inventory", POLICY)
    service = broker.put_certificate(Identity("service"), policies=["inventory"], ca=False)
    with broker, LocalCore(cluster, share=types.SimpleNamespace(database_url=broker.url)) as core:
        api = Checked(core.client())
        api("UpdateEventConfigurations", eventConfigurations={kind: {"Enabled": True} for kind in KINDS})
        world = types.SimpleNamespace(broker=broker, core=core, api=api, service=service, ear=Ear(broker, service))
        try:
            yield world
        finally:
            world.ear.close()


def removed(world):
    """Nothing waits for the broker any more."""
    wait_until(lambda: world.broker.sql("SELECT count(*) FROM iotcore.registry_event") == [(0,)], "events to be removed")


def test_things_and_their_types(world):
    api, ear = world.api, world.ear
    kind = api("CreateThingType", thingTypeName="meter",
               thingTypeProperties={"thingTypeDescription": "counts", "searchableAttributes": ["line"]})["thingTypeId"]
    described = {"eventType": "THING_TYPE_EVENT", "accountId": ACCOUNT, "thingTypeId": kind, "thingTypeName": "meter",
                 "isDeprecated": False, "deprecationDate": None, "searchableAttributes": ["line"], "description": "counts"}
    assert ear.next("thingType/meter/created") == described

    thing = api("CreateThing", thingName="m:1", thingTypeName="meter", attributePayload={"attributes": {"line": "7"}})["thingId"]
    body = {"eventType": "THING_EVENT", "accountId": ACCOUNT, "thingId": thing, "thingName": "m:1", "versionNumber": 1,
            "thingTypeName": "meter", "attributes": {"line": "7"}}
    assert ear.next("thing/m:1/created") == body
    tie = {"eventType": "THING_TYPE_ASSOCIATION_EVENT", "thingId": thing, "thingName": "m:1", "thingTypeName": "meter"}
    assert ear.next("thingTypeAssociation/thing/m:1/thingType/meter/added") == tie
    api("UpdateThing", thingName="m:1", removeThingType=True, attributePayload={"attributes": {}})
    assert ear.next("thing/m:1/updated") == {**body, "versionNumber": 2, "thingTypeName": None, "attributes": {}}
    assert ear.next("thingTypeAssociation/thing/m:1/thingType/meter/removed") == tie
    api("DeleteThing", thingName="m:1")
    assert ear.next("thing/m:1/deleted") == {**body, "versionNumber": 2, "thingTypeName": None, "attributes": {}}

    api("DeprecateThingType", thingTypeName="meter")
    deprecated = ear.next("thingType/meter/updated")
    assert deprecated["isDeprecated"] and abs(deprecated["deprecationDate"] / 1000 - time.time()) < 60
    world.broker.sql("UPDATE iotcore.thing_type SET deprecated_at = now() - interval '1 hour'")
    ear.next("thingType/meter/updated")
    api("DeleteThingType", thingTypeName="meter")
    assert ear.next("thingType/meter/deleted")["isDeprecated"]
    removed(world)


def test_groups_their_tree_and_their_members(world):
    api, ear = world.api, world.ear
    root = api("CreateThingGroup", thingGroupName="plant")["thingGroupId"]
    about = {"eventType": "THING_GROUP_EVENT", "accountId": ACCOUNT, "thingGroupId": root, "thingGroupName": "plant",
             "versionNumber": 1, "parentGroupName": None, "parentGroupId": None, "description": None,
             "rootToParentThingGroups": [], "attributes": {}, "dynamicGroupMappingId": None}
    assert ear.next("thingGroup/plant/created") == about
    hall = api("CreateThingGroup", thingGroupName="hall", parentGroupName="plant")["thingGroupId"]
    ear.next("thingGroup/hall/created")
    tree = {"eventType": "THING_GROUP_HIERARCHY_EVENT", "accountId": ACCOUNT, "thingGroupId": root, "thingGroupName": "plant",
            "childGroupId": hall, "childGroupName": "hall"}
    assert ear.next("thingGroupHierarchy/thingGroup/plant/childThingGroup/hall/added") == tree
    line = api("CreateThingGroup", thingGroupName="line", parentGroupName="hall", thingGroupProperties={
        "thingGroupDescription": "the seventh", "attributePayload": {"attributes": {"n": "7"}}})["thingGroupId"]
    found = ear.next("thingGroup/line/created")
    assert found == {**about, "thingGroupId": line, "thingGroupName": "line", "parentGroupName": "hall", "parentGroupId": hall,
                     "description": "the seventh", "attributes": {"n": "7"}, "rootToParentThingGroups": [
                         {"groupArn": f"{ARN}thinggroup/plant", "groupId": root},
                         {"groupArn": f"{ARN}thinggroup/hall", "groupId": hall}]}
    ear.next("thingGroupHierarchy/thingGroup/hall/childThingGroup/line/added")
    api("UpdateThingGroup", thingGroupName="line", thingGroupProperties={"thingGroupDescription": "the eighth"})
    assert ear.next("thingGroup/line/updated")["versionNumber"] == 2

    thing = api("CreateThing", thingName="m-2")["thingId"]
    ear.next("thing/m-2/created")
    api("AddThingToThingGroup", thingName="m-2", thingGroupName="line")
    member = ear.next("thingGroupMembership/thingGroup/line/thing/m-2/added")
    uuid.UUID(member["membershipId"])
    assert member == {"eventType": "THING_GROUP_MEMBERSHIP_EVENT", "accountId": ACCOUNT, "groupArn": f"{ARN}thinggroup/line",
                      "groupId": line, "thingArn": f"{ARN}thing/m-2", "thingId": thing, "membershipId": member["membershipId"]}
    api("RemoveThingFromThingGroup", thingName="m-2", thingGroupName="line")
    assert ear.next("thingGroupMembership/thingGroup/line/thing/m-2/removed") == member
    api("AddThingToThingGroup", thingName="m-2", thingGroupName="line")
    ear.next("thingGroupMembership/thingGroup/line/thing/m-2/added")
    api("DeleteThing", thingName="m-2")
    ear.next("thing/m-2/deleted")  # and its membership goes without a word
    api("DeleteThingGroup", thingGroupName="line")
    ear.next("thingGroup/line/deleted")
    ear.next("thingGroupHierarchy/thingGroup/hall/childThingGroup/line/removed")
    removed(world)


def test_the_longest_names_fit(world):
    parent, child = "p" * 128, "c" * 128
    world.api("CreateThingGroup", thingGroupName=parent)
    world.ear.next(f"thingGroup/{parent}/created")
    world.api("CreateThingGroup", thingGroupName=child, parentGroupName=parent)
    world.ear.next(f"thingGroup/{child}/created")
    removed(world)  # the hierarchy's topic is longer than the broker lets anyone subscribe to, and is sent all the same
    world.api("CreateThing", thingName="after")
    body = world.ear.heard.get(timeout=10)
    assert body[0] == f"$aws/events/thingGroupHierarchy/thingGroup/{parent}/childThingGroup/{child}/added"
    world.ear.next("thing/after/created")


def test_what_is_off_is_not_said(world):
    api = world.api
    api("UpdateEventConfigurations", eventConfigurations={"THING": {"Enabled": False}})
    api("CreateThing", thingName="unsaid")
    api("UpdateEventConfigurations", eventConfigurations={"THING": {"Enabled": True}})
    api("CreateThing", thingName="said")
    world.ear.next("thing/said/created")


def test_rules_have_them_too(world):
    world.broker.sql("INSERT INTO iotcore.topic_rule (name, payload, topic) VALUES ('all', '{}', '$aws/none')")
    world.core.stop()  # which would take it
    world.broker.sql("INSERT INTO iotcore.thing (name) VALUES ('ruled')")
    topic, payload = world.ear.heard.get(timeout=10)
    assert [(topic, payload)] == [(one, json.loads(text)) for one, text in world.broker.sql(
        "DELETE FROM iotcore.rule_event RETURNING topic, payload")]
    world.broker.sql("DELETE FROM iotcore.topic_rule")
    world.core.start()


def test_a_broker_that_was_away_says_them_afterwards(world):
    world.ear.close()  # the broker keeps its session
    world.broker.stop(signal.SIGKILL)
    for n in range(150):  # more than it takes at once
        world.api("CreateThing", thingName=f"away-{n}")
    world.broker.start()
    removed(world)
    world.ear = Ear(world.broker, world.service)
    for n in range(150):
        world.ear.next(f"thing/away-{n}/created")
