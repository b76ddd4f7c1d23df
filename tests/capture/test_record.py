"""A capture on its way from the application to the line that consumers parse."""

from __future__ import annotations

import base64
import json
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightkeeper import __version__
from lightkeeper.capture.record import (
    UNKNOWN_CONTENT_TYPE,
    Capture,
    Part,
    Payload,
    Stored,
    content_type_of,
    large_positions,
    line,
    payload_suffix,
    precise_text,
    seconds_text,
    store,
    tensor_payload,
)
from lightkeeper.device import DeviceIdentity
from lightkeeper.tensor import DataType, Tensor

DEVICE = DeviceIdentity("cam-1", "yard", "cam-1", "")
NOON_NS = 1_700_000_000_123_456_789

names = st.binary(min_size=1, max_size=40).map(lambda name: name.decode("utf-8", "surrogateescape"))
payloads = st.builds(
    Payload,
    st.sampled_from(Part),
    names,
    st.text(max_size=20),
    st.binary(max_size=64),
    st.just("UINT8"),
    st.lists(st.integers(0, 2**31 - 1), max_size=32).map(tuple),
) | st.builds(Payload, st.sampled_from(Part), names, st.text(max_size=20), st.binary(max_size=64))
captures = st.builds(
    Capture,
    id=st.from_regex(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,20}", fullmatch=True),
    model_name=st.text(max_size=63),
    model_version=st.text(max_size=64),
    package_digest=st.just("ab" * 32),
    inference_time_ns=st.integers(-(2**63), 2**63 - 1),
    payloads=st.lists(payloads, max_size=6).map(tuple),
    rule=st.text(max_size=20),
)


def a_capture(*given: Payload, rule: str = "") -> Capture:
    """Return a capture of some payloads."""
    return Capture("a-1", "text", "1.0", "ab" * 32, NOON_NS, given, rule)


def parsed(stored: Stored, *, weight: int = 1) -> Any:
    """Return what a stored capture's line says."""
    text = line(
        stored.id,
        stored.header,
        stored.inline,
        device=DEVICE,
        reference=lambda position: f"s3://bucket/{position}",
        weight=weight,
    )
    assert text.endswith(b"\n")
    return json.loads(text)


def one_entry(payload: Payload, *, embed_limit_bytes: int = 3072) -> Any:
    """Return the entry of a capture's only payload."""
    return parsed(store(a_capture(payload), embed_limit_bytes=embed_limit_bytes))[payload.part.value][0]


def test_a_line_has_every_key_that_consumers_know() -> None:
    """And says what the capture is of (clauses 1.2 and 1.3)."""
    tensor = Tensor("x", DataType.FLOAT32, (1, 2), np.array([[1.5, -2]], np.float32).tobytes())
    picture = Payload(Part.AUXILIARY_INPUT, "frame.jpg", content_type_of("frame.jpg"), b"\xff\xd8")
    assert parsed(store(a_capture(tensor_payload(Part.INPUT, tensor, 0), picture), embed_limit_bytes=3072)) == {
        "eventVersion": "0",
        "eventMetadata": {
            "eventId": "a-1",
            "deviceId": "cam-1",
            "deviceFleetName": "yard",
            "modelName": "text",
            "modelVersion": "1.0",
            "inferenceTime": "2023-11-14T22:13:20",
            "preciseInferenceTime": "2023-11-14T22:13:20.123456789Z",
            "packageDigest": "ab" * 32,
            "agentVersion": __version__,
        },
        "deviceFleetInputs": [
            {
                "name": "x",
                "mode": "Input",
                "observedContentType": 'application/octet-stream; dataType=FLOAT32; shape="1,2"',
                "encoding": "BASE64",
                "data": "AADAPwAAAMA=",
                "dataType": "FLOAT32",
                "shape": [1, 2],
            }
        ],
        "deviceFleetOutputs": [],
        "deviceFleetAuxiliaryInputs": [
            {
                "name": "frame.jpg",
                "mode": "Input",
                "observedContentType": "jpg",
                "encoding": "BASE64",
                "data": "/9g=",
            }
        ],
        "deviceFleetAuxiliaryOutputs": [],
    }


def test_a_sample_says_which_rule_chose_it_and_how_many_it_stands_for() -> None:
    """A capture that the application asked for says neither (clause 1.3)."""
    stored = store(a_capture(rule="doubtful"), embed_limit_bytes=0)
    metadata = parsed(stored, weight=4)["eventMetadata"]
    assert (metadata["captureRule"], metadata["samplingWeight"]) == ("doubtful", 4)
    assert not {"captureRule", "samplingWeight"} & set(parsed(store(a_capture(), embed_limit_bytes=0))["eventMetadata"])


@given(captures, st.integers(0, 64))
def test_whatever_is_stored_comes_back_byte_for_byte(capture: Capture, embed_limit_bytes: int) -> None:
    """Payloads, names, types and shapes, in the order given (clauses 1.2 to 1.8)."""
    stored = store(capture, embed_limit_bytes=embed_limit_bytes)
    large = dict(stored.large)
    assert list(large) == list(large_positions(stored.header))
    said = parsed(stored)
    for part in Part:
        given_payloads = [(position, item) for position, item in enumerate(capture.payloads) if item.part is part]
        for entry, (position, payload) in zip(said[part.value], given_payloads, strict=True):
            exact = base64.b64decode(entry["nameBytes"]) if "nameBytes" in entry else entry["name"].encode()
            assert exact == payload.name.encode("utf-8", "surrogateescape")
            assert entry["mode"] in part.value.replace("deviceFleet", "")
            assert entry["observedContentType"] == payload.content_type
            if len(payload.data) > embed_limit_bytes:
                assert (entry["encoding"], entry["data-ref"]) == ("NONE", f"s3://bucket/{position}")
                assert bytes(large[position]) == payload.data
            else:
                assert entry["encoding"] == "BASE64"
                assert base64.b64decode(entry["data"], validate=True) == payload.data
            assert entry.get("dataType") == payload.data_type
            assert entry.get("shape") == (None if payload.shape is None else list(payload.shape))
    metadata = said["eventMetadata"]
    assert (metadata["modelName"], metadata["modelVersion"]) == (capture.model_name, capture.model_version)
    assert metadata.get("captureRule", "") == capture.rule


@given(captures)
def test_a_line_is_one_line_of_ascii_to_every_reader(capture: Capture) -> None:
    """No character ends it early, and none is a lone surrogate to a strict parser (clause 1.1)."""
    stored = store(capture, embed_limit_bytes=3072)
    text = line(stored.id, stored.header, stored.inline, device=DEVICE, reference=str)
    assert len(text.decode("ascii").splitlines()) == 1
    json.dumps(json.loads(text), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("time_ns", "seconds", "precise"),
    [
        (0, "1970-01-01T00:00:00", "1970-01-01T00:00:00.000000000Z"),
        (-1, "1969-12-31T23:59:59", "1969-12-31T23:59:59.999999999Z"),
        (NOON_NS, "2023-11-14T22:13:20", "2023-11-14T22:13:20.123456789Z"),
        (253_402_300_799_999_999_999, "9999-12-31T23:59:59", "9999-12-31T23:59:59.999999999Z"),
        (-62_135_596_800_000_000_000, "0001-01-01T00:00:00", "0001-01-01T00:00:00.000000000Z"),
    ],
)
def test_times_are_written_as_consumers_parse_them(time_ns: int, seconds: str, precise: str) -> None:
    """In UTC, four digits a year, whole seconds cut off (clause 1.4)."""
    assert (seconds_text(time_ns), precise_text(time_ns)) == (seconds, precise)


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)))  # noqa: DTZ001 - hypothesis wants them naive
def test_a_written_time_is_the_time_that_was_given(moment: datetime) -> None:
    """For every second that a calendar has (clause 1.4)."""
    time = moment.replace(microsecond=0, tzinfo=UTC)
    elapsed = time - datetime(1970, 1, 1, tzinfo=UTC)
    text = seconds_text((elapsed.days * 86400 + elapsed.seconds) * 10**9 + 5)
    assert datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC) == time


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("frame.jpg", "jpg"),
        ("FRAME.JPG", "jpg"),
        ("a.b.json", "json"),
        ("jpg", "jpg"),
        ("json", "json"),
        ("boxes.custom", "custom"),
        ("frame", UNKNOWN_CONTENT_TYPE),
        ("frame.", UNKNOWN_CONTENT_TYPE),
        ("frame.j/../g", UNKNOWN_CONTENT_TYPE),
        ("a.b c", UNKNOWN_CONTENT_TYPE),
        ("a.\udcff", UNKNOWN_CONTENT_TYPE),
        ("a." + "x" * 17, UNKNOWN_CONTENT_TYPE),
        ("", UNKNOWN_CONTENT_TYPE),
    ],
)
def test_auxiliary_data_are_of_the_type_their_name_ends_in(name: str, expected: str) -> None:
    """As consumers compare it: `jpg`, not `image/jpeg` (clause 1.7)."""
    assert content_type_of(name) == expected


@given(st.text())
def test_a_payload_file_is_named_without_surprises(name: str) -> None:
    """No name leads out of the folder or differs from machine to machine (clause 1.7)."""
    payload = Payload(Part.AUXILIARY_INPUT, name, content_type_of(name), b"12")
    suffix = payload_suffix(store(a_capture(payload), embed_limit_bytes=1).header, 0)
    assert suffix == ".bin" or suffix == f".{content_type_of(name)}"
    assert suffix[0] == "."
    assert suffix[1:].isalnum()


def test_a_tensor_without_words_of_its_own_is_named_by_its_position() -> None:
    """And is bytes of no known type (clause 1.6)."""
    entry = one_entry(tensor_payload(Part.OUTPUT, Tensor("", None, None, b"\0" * 8), 3))
    assert (entry["name"], entry["observedContentType"]) == ("tensor-3", UNKNOWN_CONTENT_TYPE)
    assert not {"dataType", "shape"} & set(entry)


@pytest.mark.parametrize("data_type", DataType)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (1, 2, 3)])
def test_a_view_of_any_array_is_stored_as_its_bytes(data_type: DataType, shape: tuple[int, ...]) -> None:
    """Scalars, empty arrays and every type (clause 1.8)."""
    array = np.arange(math.prod(shape)).reshape(shape).astype(data_type.dtype)
    entry = one_entry(tensor_payload(Part.OUTPUT, Tensor("y", data_type, shape, array.data), 0))
    assert base64.b64decode(entry["data"]) == array.tobytes()
    assert (entry["dataType"], entry["shape"]) == (data_type.name, list(shape))


def test_a_view_that_is_not_in_order_is_stored_in_order() -> None:
    """C order is what consumers unpack (clause 1.8)."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    payload = Payload(Part.OUTPUT, "y", "", array.data, "FLOAT32", (3, 2))
    for embed_limit_bytes in (0, 3072):
        stored = store(a_capture(payload), embed_limit_bytes=embed_limit_bytes)
        ((_, data),) = stored.large or ((0, stored.inline),)
        assert bytes(data) == np.ascontiguousarray(array).tobytes()


def test_small_payloads_are_copied_and_sizes_count_bytes() -> None:
    """What the caller's buffer holds afterwards does not matter; a size is not a number of rows."""
    buffer = bytearray(np.arange(4, dtype=np.float32).tobytes())
    view: memoryview[Any] = memoryview(buffer).cast("f", (2, 2))
    stored = store(a_capture(Payload(Part.INPUT, "x", "", view, "FLOAT32", (2, 2))), embed_limit_bytes=16)
    buffer[:] = bytes(16)
    assert np.frombuffer(stored.inline, np.float32).tolist() == [0, 1, 2, 3]
    assert stored.large == ()
    assert stored.size_bytes == len(stored.header) + 16
    large = store(a_capture(Payload(Part.INPUT, "x", "", view, "FLOAT32", (2, 2))), embed_limit_bytes=15)
    assert [position for position, _ in large.large] == [0]
    assert large.size_bytes == len(large.header) + 16


def test_values_that_are_no_numbers_keep_their_bits() -> None:
    """Payloads are bytes, whatever they mean (clause 1.8)."""
    bits = np.array([0x7FC00001, 0xFFC00000, 0x7F800000, 0x80000000], np.uint32)
    entry = one_entry(Payload(Part.OUTPUT, "y", "", bits.view(np.float32).data, "FLOAT32", (4,)))
    assert base64.b64decode(entry["data"]) == bits.tobytes()
