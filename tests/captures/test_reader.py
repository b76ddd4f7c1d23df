"""Reading captures back: every record, every filter, and no damage in silence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lightkeeper import __version__
from lightkeeper.capture.record import Part
from lightkeeper.captures import Captures, Damage, Folder, Record, Wanted, open_captures
from lightkeeper.device import DeviceIdentity
from lightkeeper.errors import CaptureDamaged, CapturesMissing, CapturesUnreadable, PayloadUnreadable
from lightkeeper.system import HAS_MODES
from lightkeeper.tensor import DataType
from tests.support.captures import START_NS, auxiliary, capture, tensor, vibration, write_batch
from tests.support.systems import posix_only

HOUR_NS = 3600 * 10**9
SMALL = np.array([[1, 2, 3]], np.float32)


def ids(captures: Captures, **wanted: Any) -> list[str]:
    """Return the ids of the wanted captures."""
    return [record.id for record in captures.records(Wanted(**wanted))]


def only_record(folder: Path) -> Record:
    """Return the one capture that lies in a folder."""
    (record,) = open_captures(folder).records()
    return record


def event(path: Path) -> Any:
    """Return the first line of a batch."""
    return json.loads(path.read_bytes().splitlines()[0])


def test_a_record_is_what_was_captured(tmp_path: Path) -> None:
    """Metadata, tensors with type and shape, auxiliary data, and where it was read."""
    item = capture(
        "c-1",
        tensor(Part.INPUT, "x", np.arange(6, dtype=np.int64).reshape(2, 3)),
        tensor(Part.OUTPUT, "y", SMALL),
        auxiliary(Part.AUXILIARY_INPUT, "frame.jpg", b"\xff\xd8"),
        auxiliary(Part.AUXILIARY_OUTPUT, "boxes.json", b"[]"),
        time_ns=START_NS + 7,
        rule="few",
    )
    path = write_batch(tmp_path, [item], weight=3)
    record = only_record(tmp_path)
    assert (record.id, record.device, record.fleet, record.model, record.version) == (
        "c-1",
        "cam-1",
        "yard",
        "turbine",
        "1.0",
    )
    assert record.time == np.datetime64(START_NS + 7, "ns")
    assert (record.rule, record.weight, record.package_digest, record.agent_version) == (
        "few",
        3,
        "ab" * 32,
        __version__,
    )
    assert (record.file, record.line) == (path.relative_to(tmp_path).as_posix(), 1)
    (x,), (y,) = record.inputs, record.outputs
    assert (x.name, x.data_type, x.shape, x.reference) == ("x", DataType.INT64, (2, 3), None)
    assert x.array().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert y.array().dtype == np.float32
    assert not y.array().flags.writeable
    (picture,), (boxes,) = record.auxiliary_inputs, record.auxiliary_outputs
    assert (picture.name, picture.content_type, picture.data(), picture.shape) == (
        "frame.jpg",
        "jpg",
        b"\xff\xd8",
        None,
    )
    assert picture.array().tolist() == [0xFF, 0xD8]
    assert boxes.data() == b"[]"
    assert record.entries == (x, y, picture, boxes)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(DataType).flatmap(
            lambda data_type: arrays.arrays(data_type.dtype, arrays.array_shapes(min_dims=0, min_side=0, max_side=4))
        ),
        max_size=4,
    ),
    st.sampled_from([0, 16, 3072]),
)
def test_every_array_comes_back_equal(tmp_path: Path, given_arrays: list[Any], embed_limit_bytes: int) -> None:
    """Of every type and shape, from the line and from a file."""
    payloads = [tensor(Part.OUTPUT, f"y{number}", array) for number, array in enumerate(given_arrays)]
    write_batch(tmp_path, [capture("c", *payloads)], embed_limit_bytes=embed_limit_bytes)
    for array, entry in zip(given_arrays, only_record(tmp_path).outputs, strict=True):
        found = entry.array()
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_batches_are_read_in_the_order_of_their_hours_or_the_newest_first(tmp_path: Path) -> None:
    """Folders that begin with a dot hold what is not complete."""
    write_batch(tmp_path, [vibration("c", 1)], hour="2023/11/15/00")
    write_batch(tmp_path, [vibration("a", 1), vibration("b", 1)], hour="2023/11/14/09")
    write_batch(tmp_path / ".lightkeeper", [vibration("hidden", 1)])
    captures = open_captures(tmp_path)
    assert ids(captures) == ["a", "b", "c"] == ids(captures)
    assert [record.id for record in captures.records(newest_first=True)] == ["c", "b", "a"]


def test_captures_are_chosen_by_what_they_are_of(tmp_path: Path) -> None:
    """Every filter alone, and together."""
    first, second = DeviceIdentity("d1", "f1", "d1", ""), DeviceIdentity("d2", "f2", "d2", "")
    write_batch(tmp_path, [vibration("a", 1), vibration("b", 1, model="gate")], device=first)
    later = [vibration("c", 1, version="2.0", time_ns=START_NS + HOUR_NS)]
    write_batch(tmp_path, later, device=second)
    captures = open_captures(tmp_path)
    assert ids(captures, model="gate") == ["b"]
    assert ids(captures, version="2.0") == ["c"]
    assert ids(captures, device="d1") == ["a", "b"]
    assert ids(captures, fleet="f2") == ["c"]
    end = np.datetime64(START_NS + HOUR_NS, "ns")
    assert ids(captures, since=end) == ["c"]
    assert ids(captures, until=end) == ["a", "b"]
    assert ids(captures, since=np.datetime64("2023-11-14"), until=np.datetime64("2023-11-15"), model="turbine") == [
        "a",
        "c",
    ]
    assert ids(captures, model="none") == []


def test_one_batch_may_be_named_itself(tmp_path: Path) -> None:
    """Its payloads are found beside it."""
    path = write_batch(tmp_path, [vibration("a", 1)], hour="2023/11/14/09")
    write_batch(tmp_path, [vibration("b", 1)])
    captures = open_captures(path)
    (record,) = captures.records()
    assert record.id == "a"
    assert record.auxiliary_inputs[0].data() == bytes(range(256)) * 20


@pytest.mark.parametrize("root", ["file:///srv/cap%20tures", "s3://bucket"])
def test_a_folder_that_was_copied_elsewhere_is_read(tmp_path: Path, root: str) -> None:
    """Payloads are found beside their batch, whatever address the line says."""
    write_batch(tmp_path, [vibration("a", 1)], root=root)
    record = only_record(tmp_path)
    assert record.auxiliary_inputs[0].reference is not None
    assert record.auxiliary_inputs[0].reference.startswith(root)
    assert record.auxiliary_inputs[0].data() == bytes(range(256)) * 20


def test_an_old_agents_record_is_read(tmp_path: Path) -> None:
    """Without type and shape a tensor is bytes; an address that is not escaped is a path."""
    path = write_batch(tmp_path, [vibration("a", 1)], hour="100% done")
    line = event(path)
    for key in ("preciseInferenceTime", "packageDigest", "agentVersion"):
        del line["eventMetadata"][key]
    for entry in line["deviceFleetInputs"]:
        del entry["dataType"], entry["shape"]
    (payload,) = (tmp_path / "site").rglob("*.jpg")
    moved = tmp_path / "pictures 50%"
    moved.mkdir()
    payload.rename(moved / "1.jpg")
    line["deviceFleetAuxiliaryInputs"][0]["data-ref"] = f"file://{moved}//1.jpg"
    path.write_text(json.dumps(line))
    record = only_record(tmp_path)
    assert record.time == np.datetime64("2023-11-14T22:13:20")
    assert (record.package_digest, record.agent_version, record.weight, record.rule) == ("", "", 1, "")
    assert record.inputs[0].array().dtype == np.uint8
    assert record.inputs[0].array().view(np.float32).size == 6
    assert record.auxiliary_inputs[0].data() == bytes(range(256)) * 20


def test_payloads_are_read_only_when_asked_for(tmp_path: Path) -> None:
    """A record of a picture costs its line; a lost picture costs the picture alone."""
    write_batch(tmp_path, [vibration("a", 1)])
    (picture,) = tmp_path.rglob("*.jpg")
    picture.unlink()
    record = only_record(tmp_path)
    assert record.inputs[0].array().shape == (1, 6)
    with pytest.raises(PayloadUnreadable, match="neither under"):
        record.auxiliary_inputs[0].data()


@pytest.mark.parametrize(
    "reference",
    [
        "file:///etc/passwd",
        "file://{root}/../outside/secret.bin",
        "file://{root}/site/../../outside/secret.bin",
        "file://{root}/link/secret.bin",
        "file://{root}/%2e%2e/outside/secret.bin",
        "../outside/secret.bin",
        "s3://bucket/../../outside/secret.bin",
        "file:///a/..",
        "file:///a/%2e%2e%2f%2e%2e%2f%2e%2e",
        "file://{root}",
        "file://{root}/pipe",
        "file:///nul\u0000",
        "",
        "link",
    ],
)
def test_no_line_makes_a_reader_open_anything_outside_its_folder(tmp_path: Path, reference: str) -> None:
    """Whatever the address says, and whatever links lie in the folder."""
    root, outside = tmp_path / "captures", tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.bin").write_bytes(b"secret")
    path = write_batch(root, [vibration("a", 1)])
    if HAS_MODES:
        (root / "link").symlink_to(outside)
        os.mkfifo(root / "pipe")
        (path.with_suffix("") / "link").symlink_to(outside / "secret.bin")
    line = event(path)
    line["deviceFleetAuxiliaryInputs"][0]["data-ref"] = reference.format(root=root)
    path.write_text(json.dumps(line))
    with pytest.raises(PayloadUnreadable):
        only_record(root).auxiliary_inputs[0].data()


def test_a_payload_of_another_size_than_its_shape_is_refused(tmp_path: Path) -> None:
    """A file that was cut is not filled up with anything."""
    write_batch(tmp_path, [vibration("a", 1)], embed_limit_bytes=0)
    for payload in tmp_path.rglob("*.bin"):
        payload.write_bytes(payload.read_bytes()[:-1])
    with pytest.raises(PayloadUnreadable, match="x of FLOAT32\\[1, 6\\] has 24 bytes, not 23"):
        only_record(tmp_path).inputs[0].array()


@pytest.mark.parametrize("shape", [[0, 2**62, 2**62], [1] * 65 + [6]])
def test_a_shape_that_numpy_does_not_have_is_refused(tmp_path: Path, shape: list[int]) -> None:
    """Whoever wrote it."""
    path = write_batch(tmp_path, [vibration("a", 1)])
    line = event(path)
    line["deviceFleetInputs"][0] |= {"shape": shape} | ({"data": ""} if 0 in shape else {})
    path.write_text(json.dumps(line))
    with pytest.raises(PayloadUnreadable, match="x has the shape"):
        only_record(tmp_path).inputs[0].array()


def test_half_a_character_in_a_name_does_not_reach_the_reader(tmp_path: Path) -> None:
    """A name can be printed, whatever the JSON says."""
    path = write_batch(tmp_path, [vibration("a", 1)])
    path.write_bytes(path.read_bytes().replace(b'"name":"x"', b'"name":"x\\ud800"'))
    assert only_record(tmp_path).inputs[0].name == "x?"


Change = Callable[[Any], object]


def entry(key: str, value: object) -> Change:
    """Return what sets a key of the first input."""
    return lambda line: line["deviceFleetInputs"][0].update({key: value})


def metadata(key: str, value: object) -> Change:
    """Return what sets a key of the metadata."""
    return lambda line: line["eventMetadata"].update({key: value})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda line: line.pop("eventVersion"), "eventVersion is missing"),
        (lambda line: line.update(eventVersion="1"), "eventVersion is '1', not '0'"),
        (lambda line: line.pop("eventMetadata"), "eventMetadata is missing"),
        (lambda line: line["eventMetadata"].pop("eventId"), "eventId is missing"),
        (lambda line: line.pop("deviceFleetOutputs"), "deviceFleetOutputs is missing"),
        (lambda line: line.update(deviceFleetOutputs=[3]), "deviceFleetOutputs[0] is no JSON object"),
        (metadata("modelVersion", 1.0), "modelVersion is not a string"),
        (metadata("preciseInferenceTime", "yesterday"), "'yesterday' is no time"),
        (metadata("preciseInferenceTime", "2023-13-01T00:00:00Z"), "Month out of range"),
        (metadata("preciseInferenceTime", "1600-01-01T00:00:00Z"), "is no time"),
        (metadata("preciseInferenceTime", "9999-01-01T00:00:00Z"), "is no time"),
        (metadata("samplingWeight", 0), "samplingWeight is 0"),
        (metadata("samplingWeight", 2**70), "samplingWeight is"),
        (entry("data", "AAAA!"), "deviceFleetInputs[0]"),
        (entry("data", 7), "data is not a string"),
        (entry("data", "ä"), "deviceFleetInputs[0]"),
        (entry("dataType", "FLOAT8"), "dataType is 'FLOAT8'"),
        (entry("dataType", ["FLOAT32"]), "dataType is ['FLOAT32']"),
        (entry("shape", [-1, 3]), "shape is [-1, 3]"),
        (entry("shape", [1.0]), "shape is [1.0]"),
        (entry("shape", 3), "shape is 3"),
        (lambda line: line["deviceFleetInputs"][0].pop("data"), "data-ref is missing"),
    ],
)
def test_a_line_that_is_no_capture_says_what_is_wrong(tmp_path: Path, change: Change, problem: str) -> None:
    """By default reading stops there, with file and line."""
    path = write_batch(tmp_path, [vibration("a", 1)])
    line = event(path)
    change(line)
    good = path.read_bytes()
    path.write_bytes(good + json.dumps(line).encode() + b"\n" + good)
    with pytest.raises(CaptureDamaged) as caught:
        list(open_captures(tmp_path).records())
    assert problem in caught.value.message
    assert caught.value.facts == {"file": path.relative_to(tmp_path).as_posix(), "line": "2"}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b'"a"',
        b"null",
        b"\0" * 100,
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"eventVersion": "0"',
        b"9" * 5000,
    ],
)
def test_damage_is_told_and_the_other_lines_are_read(tmp_path: Path, text: bytes) -> None:
    """Whoever asks to be told gets every line that was passed over."""
    path = write_batch(tmp_path, [vibration("a", 1)])
    good = path.read_bytes()
    path.write_bytes(text + b"\n" + good + good + text[:1])
    damage: list[Damage] = []
    found = [record.line for record in open_captures(tmp_path).records(on_damage=damage.append)]
    assert found == [2, 3]
    assert [item.line for item in damage] == ([1, 4] if text else [1])
    assert str(damage[0]).startswith(f"{path.relative_to(tmp_path).as_posix()}:1: ")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_byte_never_breaks_the_reader(tmp_path: Path, data: st.DataObject) -> None:
    """Every line is a record or a damage, and nothing else."""
    path = write_batch(tmp_path, [vibration("a", 1), vibration("b", 2)])
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    damage: list[Damage] = []
    records = list(open_captures(tmp_path).records(on_damage=damage.append))
    assert len(records) + len(damage) == content.count(b"\n") + (not content.endswith(b"\n"))


def test_a_place_without_batches_is_refused(tmp_path: Path) -> None:
    """A mistyped path is not an empty result."""
    with pytest.raises(CapturesMissing, match="does not exist"):
        list(open_captures(tmp_path / "nothing").records())
    with pytest.raises(CapturesMissing, match="no batch"):
        list(open_captures(tmp_path).records())


@posix_only
def test_a_batch_that_is_no_file_is_refused(tmp_path: Path) -> None:
    """A pipe that nobody writes to does not hold the reader up."""
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(CapturesUnreadable, match="not a regular file"):
        list(open_captures(tmp_path).records())


def test_progress_is_told_batch_by_batch(tmp_path: Path) -> None:
    """From none to all."""
    for number in range(3):
        write_batch(tmp_path, [vibration("a", 1)], name=f"b-{number}")
    told: list[tuple[int, int]] = []
    list(Captures(Folder(tmp_path)).records(on_batch=lambda done, total: told.append((done, total))))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_times_compare_with_datetime(tmp_path: Path) -> None:
    """Python's own times are understood where numpy's are."""
    write_batch(tmp_path, [vibration("a", 1)])
    assert only_record(tmp_path).time.astype("datetime64[s]").item() == datetime(2023, 11, 14, 22, 13, 20)  # noqa: DTZ001 - numpy's have no zone
