"""The tables of operations against AWS's service model as botocore has it: methods, paths, members, rules."""
import json
import re
import subprocess

import botocore.loaders
import botocore.model
import pytest

from harness.stack import BIN

# What newer models have and Debian's does not.
NEWER = {"thingPrincipalType", "metricsExportConfig", "deleteMetricsExportConfig"}
# Members whose rule is another than the model's, and why.
OTHER_RULES = {
    "marker": "longer, for our markers hold names",
    "nextToken": "any text: a token that is not ours is refused by what is in it",
    "maxResults": "the operation's page_most",
    "attributeValue": "newer models allow = and brackets, as in things",
}
# Structures of which we know a part, and refuse the rest by ourselves.
PARTIAL = {
    "errorAction": "actions that need other services of AWS",
    "destinationConfiguration": "destinations in a VPC",
}


def served():
    done = subprocess.run([str(BIN), "iotcore", "--operations"], check=True, capture_output=True, text=True, timeout=20)
    return {operation["name"]: operation for operation in json.loads(done.stdout)}


OPERATIONS = served() if BIN.exists() else {}


@pytest.fixture(scope="session")
def model():
    return botocore.model.ServiceModel(botocore.loaders.Loader().load_service_model("iot", "service-2"))


def wire_members(operation):
    """{wire name: (location, shape, required)} of a request; of a payload the structure's own."""
    found = {}
    shape = operation.input_shape
    if shape is None:
        return found
    for name, member in shape.members.items():
        location = member.serialization.get("location", "body")
        location = "payload" if shape.serialization.get("payload") == name else location
        wire = member.serialization.get("name", name)
        found[wire] = (location, member, name in shape.required_members or location == "uri")
    return found


def compare(ours, location, shape, required, where, differences):
    def differ(what, wanted, found):
        if wanted != found:
            differences.append(f"{where}: {what}: {wanted} wanted, {found} found")
    kinds = {"long": "integer", "float": "double"}
    differ("location", location, ours["location"])
    differ("type", kinds.get(shape.type_name, shape.type_name), ours["type"])
    differ("required", required, ours["required"])
    bounded = ours["wire"] not in OTHER_RULES
    if shape.type_name in ("string", "integer", "long") and bounded:
        # What is required is not empty, whether the model says so or not.
        differ("min", shape.metadata.get("min", 1 if required and ours["min"] == 1 else 0), ours["min"])
        if shape.metadata.get("max") is not None:
            differ("max", shape.metadata["max"], ours["max"])
    if getattr(shape, "enum", None):
        differ("values", sorted(shape.enum), sorted(ours["values"]))
    if shape.metadata.get("pattern") not in (None, "[\\s\\S]*", "[\\s\\S]+", ".*") and bounded and not ours["values"]:
        differ("pattern", shape.metadata["pattern"].strip("^$"), (ours.get("pattern") or "").strip("^$"))
    members = {member["name"]: member for member in ours["members"]}
    if shape.type_name == "structure" and members:
        for name, member in shape.members.items():
            wire = member.serialization.get("name", name)
            if wire not in members and ours["name"] in PARTIAL:
                continue
            if wire not in members:
                differences.append(f"{where}.{wire}: is not in our table")
                continue
            compare({**members[wire], "location": "body"}, "body", member, name in shape.required_members,
                    f"{where}.{wire}", differences)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_an_operation_is_as_the_model_has_it(model, name):
    operation = model.operation_model(name)
    ours = OPERATIONS[name]
    assert (ours["method"], ours["path"]) == (operation.http["method"], operation.http["requestUri"])
    members = {member["wire"]: member for member in ours["members"]}
    wanted = wire_members(operation)
    differences = [f"{wire}: is not in the model" for wire in members if wire not in wanted and wire not in NEWER]
    for wire, (location, shape, required) in wanted.items():
        if wire not in members:
            differences.append(f"{wire}: is not in our table")
            continue
        compare(members[wire], location, shape, required, wire, differences)
    assert not differences, "\n".join(differences)


def test_what_the_page_promises_is_served():
    """The operations of docs/local-iot-core.md are those that there are."""
    from harness.stack import ROOT
    page = (ROOT / "docs" / "local-iot-core.md").read_text()
    table = page.split("## Operations", 1)[1].split("\n## ", 1)[0]
    named = set(re.findall(r"`([A-Z][A-Za-z]+)`", table))
    assert named == set(OPERATIONS), named ^ set(OPERATIONS)
