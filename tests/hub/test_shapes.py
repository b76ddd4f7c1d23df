"""Every operation's shapes: what fits is taken, what does not is refused by the service's code, nothing is a fault."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightkeeper.errors import ShapeMismatch
from lightkeeper.hub.operations import HANDLERS
from lightkeeper.hub.protocol import Protocol
from lightkeeper.hub.shapes import check_of, compiled
from lightkeeper.hub.up import now_ms
from lightkeeper.hub.web import Response
from tests.support.hubs import RunningHub
from tests.support.signed import code_of, signed

PROTOCOL = Protocol(HANDLERS)
EXAMPLES = settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
TIMES = st.integers(0, 4_000_000_000)

REGEX_CHARACTERS = 64
USUAL = (
    "a",
    "model-1",
    "1.0",
    "{}",
    "ж .:/=+-@",
    "2000",
    "s3://bucket/key.onnx",
    "https://bucket.example/key",
    "arn:aws:iam::000000000000:role/edge",
    "arn:aws:sagemaker:us-east-1:000000000000:device-fleet/yard",
    "arn:aws:sagemaker:us-east-1:000000000000:model-package/model/1",
)
"""Of these at least one fits each long pattern."""

JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=80)
    | st.sampled_from(["\0", "\ud800", "a" * 5000, "../../x", "' OR 1=1 --", "%", "_"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


def fitting(shape: Any) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one return a kind of shape
    """Return values of one of botocore's shapes, as they go over the wire."""
    limits = shape.metadata
    match shape.type_name:
        case "structure":
            required = {name: fitting(shape.members[name]) for name in shape.required_members}
            others = {name: fitting(member) for name, member in shape.members.items() if name not in required}
            return st.fixed_dictionaries(required, optional=others)
        case "list":
            least = limits.get("min", 0)
            most = max(least, min(limits.get("max", 3), 3))
            return st.lists(fitting(shape.member), min_size=least, max_size=most)
        case "string" if limits.get("enum"):
            return st.sampled_from(limits["enum"])
        case "string":
            return text(limits)
        case "integer" | "long":
            return st.integers(max(limits.get("min", 0), 0), min(limits.get("max", 100), 100 + limits.get("min", 0)))
        case "double":
            return st.floats(-1e9, 1e9)
        case "boolean":
            return st.booleans()
        case _:
            return TIMES


def text(limits: Any) -> st.SearchStrategy[str]:
    """Return strings of a pattern and a length."""
    least, most = limits.get("min", 0), limits.get("max", 100)
    if "pattern" not in limits:
        return st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=least, max_size=min(most, 60))
    pattern = compiled(limits["pattern"])
    usual = [word for word in USUAL if least <= len(word) <= most and pattern.fullmatch(word)]
    if most > REGEX_CHARACTERS and usual:  # hypothesis takes minutes to draw from a pattern of thousands
        return st.sampled_from(usual)
    return st.from_regex(pattern, fullmatch=True).filter(lambda found: least <= len(found) <= most)


def mutated(value: Any, draw: st.DrawFn) -> Any:
    """Return a value of which one part is junk."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(value)))
        return {**value, name: mutated(value[name], draw)}
    if isinstance(value, list) and value and draw(st.booleans()):
        return [mutated(value[0], draw), *value[1:]]
    return draw(JUNK)


@st.composite
def inputs(draw: st.DrawFn, operation: str) -> Any:
    """Return an input that fits, or one of which a part does not."""
    value = draw(fitting(PROTOCOL.shapes(operation)[0]))
    return mutated(value, draw) if draw(st.booleans()) else value


def answered(hub: RunningHub, operation: str, value: Any) -> Response:
    """Call an operation with an input as JSON."""
    key = (hub.addresses.access_key_id, hub.addresses.secret_access_key)
    data_plane = operation in {"GetDeviceRegistration", "SendHeartbeat", "GetDeployments"}
    return hub.api(signed(operation, json.dumps(value).encode(), key, data_plane=data_plane))


@pytest.mark.parametrize("operation", sorted(HANDLERS))
@EXAMPLES
@given(data=st.data())
def test_no_input_is_a_fault_of_the_hub(hub: RunningHub, operation: str, data: st.DataObject) -> None:
    """Whatever comes is done, or refused with a code of the service's."""
    answer = answered(hub, operation, data.draw(inputs(operation)))
    assert answer.status in {200, 400, 403}, answer.body
    if answer.status != 200:
        assert code_of(answer.body) in {
            "ConflictException",
            "ResourceInUse",
            "ResourceLimitExceeded",
            "ResourceNotFound",
            "SerializationException",
            "ThrottlingException",
            "ValidationException",
        }


@pytest.mark.parametrize("operation", sorted(HANDLERS))
@EXAMPLES
@given(data=st.data())
def test_what_fits_a_shape_passes_its_check(operation: str, data: st.DataObject) -> None:
    """The check refuses nothing that the model allows."""
    shape = PROTOCOL.shapes(operation)[0]
    value = data.draw(fitting(shape))
    assert check_of(shape).read(json.loads(json.dumps(value)), "").keys() == value.keys()


def test_every_pattern_of_the_model_is_understood() -> None:
    """No class of characters of Java's is left in one."""
    patterns = set()

    def collect(shape: Any, seen: set[str]) -> None:
        if shape is None or shape.name in seen:
            return
        seen.add(shape.name)
        patterns.add(shape.metadata.get("pattern", ""))
        for member in [*getattr(shape, "members", {}).values(), getattr(shape, "member", None)]:
            collect(member, seen)

    for operation in HANDLERS:
        for shape in PROTOCOL.shapes(operation):
            collect(shape, set())
    assert len(patterns) > 10
    assert [pattern for pattern in patterns if r"\p" in compiled(pattern).pattern] == []
    assert compiled(r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)").fullmatch("nørd 1\u00a0ж")
    assert not compiled(r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)").fullmatch("a\tb")
    assert not re.compile(compiled(r"\d").pattern, re.ASCII).fullmatch("٣")


def test_an_answer_that_does_not_fit_is_refused_too() -> None:
    """A member that is missing, unknown or of the wrong type never leaves the hub."""
    check = check_of(PROTOCOL.shapes("DescribeDeviceFleet")[1])
    whole = {
        "DeviceFleetName": "yard",
        "DeviceFleetArn": "arn:aws:sagemaker:us-east-1:000000000000:device-fleet/yard",
        "OutputConfig": {"S3OutputLocation": "s3://bucket"},
        "CreationTime": now_ms(),
        "LastModifiedTime": now_ms(),
    }
    assert check.write(whole, "")["CreationTime"] == whole["CreationTime"] / 1000
    for wrong in ({"CreationTime": None}, {"Surplus": 1}, {"Description": 5}, {"DeviceFleetName": "_"}):
        with pytest.raises(ShapeMismatch):
            check.write({**whole, **wrong}, "")
