"""Holds every answer of the local IoT Core against botocore's service model of AWS IoT.

    api = Checked(core.client())
    api("DescribeThing", thingName="a")                              # the parsed answer
    api.refused("DescribeThing", "ResourceNotFoundException", thingName="b")   # the error

A request goes through botocore's own serialiser and signer. Of the answer as it came on the wire each
member must be one of the output shape and of its type, length, pattern and enumeration; required ones must
be there; none may be null. An error must be one that the operation models, or the front end's.
"""
import json
import re

import botocore.exceptions

# What answers in front of every service, modelled nowhere.
FRONT_END = {"AccessDeniedException", "IncompleteSignatureException", "InvalidSignatureException",
             "MissingAuthenticationTokenException", "UnrecognizedClientException", "UnknownOperationException",
             "ThrottlingException", "ServiceUnavailableException", "InvalidRequestException"}


def check(shape, value, path="output"):
    """Raises AssertionError when value, as JSON has it, is not of the shape."""
    kind = shape.type_name
    if kind == "structure":
        assert isinstance(value, dict), f"{path}: an object wanted, {value!r} found"
        members = {member.serialization.get("name", name): member for name, member in shape.members.items()}
        for name, item in value.items():
            assert name in members, f"{path}.{name}: is not in the model; it has {sorted(members)}"
            assert item is not None, f"{path}.{name}: null; absent members are left out"
            check(members[name], item, f"{path}.{name}")
        for name in shape.required_members:
            assert name in value, f"{path}.{name}: is missing"
    elif kind == "list":
        assert isinstance(value, list), f"{path}: a list wanted, {value!r} found"
        _check_length(shape, len(value), path)
        for index, item in enumerate(value):
            check(shape.member, item, f"{path}[{index}]")
    elif kind == "map":
        assert isinstance(value, dict), f"{path}: a map wanted, {value!r} found"
        for key, item in value.items():
            check(shape.key, key, f"{path}.{key} (key)")
            check(shape.value, item, f"{path}.{key}")
    elif kind == "string":
        assert isinstance(value, str), f"{path}: a string wanted, {value!r} found"
        _check_length(shape, len(value), path)
        if shape.enum:
            assert value in shape.enum, f"{path}: one of {shape.enum} wanted, {value!r} found"
        pattern = shape.metadata.get("pattern")
        if pattern:
            assert re.fullmatch(_python(pattern), value), f"{path}: {pattern} wanted, {value!r} found"
    elif kind == "boolean":
        assert isinstance(value, bool), f"{path}: a boolean wanted, {value!r} found"
    elif kind in ("integer", "long"):
        assert isinstance(value, int) and not isinstance(value, bool), f"{path}: an integer wanted, {value!r} found"
        for bound, broken in (("min", lambda n: value < n), ("max", lambda n: value > n)):
            if bound in shape.metadata:
                assert not broken(shape.metadata[bound]), f"{path}: {bound} {shape.metadata[bound]}, {value} found"
    elif kind in ("float", "double"):
        assert isinstance(value, (int, float)) and not isinstance(value, bool), f"{path}: a number wanted, {value!r} found"
    elif kind == "timestamp":
        assert isinstance(value, (int, float)) and not isinstance(value, bool), \
            f"{path}: epoch seconds wanted, {value!r} found"
        assert 0 < value < 1e11, f"{path}: epoch seconds wanted, {value!r} found"
    else:
        raise AssertionError(f"{path}: a {kind} is new here")


def _check_length(shape, length, path):
    assert length >= shape.metadata.get("min", 0), f"{path}: at least {shape.metadata['min']} wanted, {length} found"
    assert length <= shape.metadata.get("max", length), f"{path}: at most {shape.metadata['max']} wanted, {length} found"


def _python(pattern):
    """Java's classes in Python's words."""
    for java, python in ((r"\p{Graph}", r"\x21-\U0010ffff"), (r"\p{Print}", r"\x20-\U0010ffff"), (r"\p{L}", r"\w"),
                         (r"\p{Z}", r"\s"), (r"\p{N}", r"\d")):
        pattern = pattern.replace(java, python)
    return pattern


class Checked:
    def __init__(self, client):
        self.client = client
        self.model = client.meta.service_model
        self.called = set()
        self.answered = None
        client.meta.events.register("response-received.iot", self._receive)

    def _receive(self, response_dict, **_):
        self.answered = response_dict

    def _operation(self, name):
        method = next(method for method, operation in self.client.meta.method_to_api_mapping.items()
                      if operation == name)
        return getattr(self.client, method), self.model.operation_model(name)

    def __call__(self, name, **parameters):
        call, operation = self._operation(name)
        parsed = call(**parameters)
        body = self.answered["body"]
        raw = json.loads(body) if body else {}
        if operation.output_shape is None:
            assert raw == {}, f"{name}: nothing wanted, {raw} found"
        else:
            check(operation.output_shape, raw, name)
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", parsed["ResponseMetadata"]["RequestId"])
        self.called.add(name)
        return {key: value for key, value in parsed.items() if key != "ResponseMetadata"}

    def refused(self, name, code, **parameters):
        """The error's answer; its code, HTTP status and members must be as modelled."""
        call, operation = self._operation(name)
        try:
            call(**parameters)
        except botocore.exceptions.ClientError as error:
            answer = error.response
        else:
            raise AssertionError(f"{name}: {code} wanted, it was done")
        assert answer["Error"]["Code"] == code, f"{name}: {code} wanted, {answer['Error']} found"
        assert answer["Error"]["Message"], f"{name}: a message wanted"
        raw = json.loads(self.answered["body"])
        shapes = {shape.name: shape for shape in operation.error_shapes}
        if code in shapes:
            check(shapes[code], raw, f"{name}: {code}")
            want = shapes[code].metadata.get("error", {}).get("httpStatusCode")
            got = answer["ResponseMetadata"]["HTTPStatusCode"]
            assert want == got, f"{name}: {code}: status {want} wanted, {got} found"
        else:
            assert code in FRONT_END, f"{name}: {code} is not in the model: {sorted(shapes)}"
        return answer

    def pages(self, name, result, **parameters):
        """All items of a list by botocore's own walk: nextMarker or nextToken, as the operation has it."""
        operation = self.model.operation_model(name)
        token = "marker" if "marker" in operation.input_shape.members else "nextToken"
        following = "nextMarker" if token == "marker" else "nextToken"
        items, seen = [], set()
        while True:
            answer = self(name, **parameters)
            items.append(answer[result])
            if following not in answer:
                return items
            assert answer[following] not in seen, f"{name}: the same token twice"
            seen.add(answer[following])
            parameters[token] = answer[following]
