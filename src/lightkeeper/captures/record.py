"""A capture as it is read back: what its line says, with payloads as bytes or numpy arrays.

A line is judged as a whole when it is read: a key that is missing or of another kind, or base64 that is none, makes it
damaged. A payload with a file of its own is read when it is asked for, each time, and kept by nobody.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from lightkeeper.errors import PayloadUnreadable
from lightkeeper.tensor import DataType

Array = npt.NDArray[Any]
Json = dict[str, Any]

EARLIEST, LATEST = "1678", "2262"
"""Years, the first within and the last beyond what numpy's nanoseconds reach."""

_TIME = re.compile(r"(\d{4})-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor or a piece of auxiliary data. `data_type` and `shape` are None where the line does not say them."""

    name: str
    content_type: str
    data_type: DataType | None
    shape: tuple[int, ...] | None
    reference: str | None = None
    """The address of the payload's own file, where it has one."""

    _read: Callable[[], bytes] = field(repr=False, compare=False, kw_only=True)

    def data(self) -> bytes:
        """Return the payload's bytes. Raises `PayloadUnreadable`, or what the place raises."""
        return self._read()

    def array(self) -> Array:
        """Return the payload as an array that cannot be written to, of the type and shape the line says.

        Without them it is the bytes as they are: UINT8[size]. Raises `PayloadUnreadable`.
        """
        data = self.data()
        if self.data_type is None or self.shape is None:
            return np.frombuffer(data, np.uint8)
        expected = prod(self.shape) * self.data_type.dtype.itemsize
        if len(data) != expected:
            raise PayloadUnreadable(
                f"{self.name} of {self.data_type.name}{list(self.shape)} has {expected} bytes, not {len(data)}",
                name=self.name,
                expected=expected,
                given=len(data),
            )
        try:
            return np.frombuffer(data, self.data_type.dtype).reshape(self.shape)
        except ValueError as error:  # numpy has no array of 65 dimensions, or of 2^62 times nothing
            raise PayloadUnreadable(f"{self.name} has the shape {list(self.shape)}", name=self.name) from error


@dataclass(frozen=True, slots=True)
class Record:
    """A capture. `time` is in UTC; `file` and `line` tell where it was read.

    `rule` names the rule by which the device chose it, and is empty where the application asked. `weight` is how many
    captures this one stands for. `package_digest` and `agent_version` are empty where another agent wrote it.
    """

    id: str
    device: str
    fleet: str
    model: str
    version: str
    time: np.datetime64
    rule: str
    weight: int
    package_digest: str
    agent_version: str
    inputs: tuple[Entry, ...]
    outputs: tuple[Entry, ...]
    auxiliary_inputs: tuple[Entry, ...]
    auxiliary_outputs: tuple[Entry, ...]
    file: str
    line: int

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every tensor and every piece of auxiliary data."""
        return self.inputs + self.outputs + self.auxiliary_inputs + self.auxiliary_outputs


def parse(text: bytes, file: str, line: int, payload: Callable[[str], bytes]) -> Record:
    """Return the capture of a line; `payload` reads what a reference leads to.

    Raises `ValueError` that says what is wrong.
    """
    try:
        event = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(event, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - whatever is wrong, it is the line's value
    if _text(event, "eventVersion") != "0":
        raise ValueError(f"eventVersion is {event['eventVersion']!r}, not '0'")
    said = event.get("eventMetadata")
    if not isinstance(said, dict):
        raise ValueError("eventMetadata is missing")  # noqa: TRY004 - same
    return Record(
        id=_text(said, "eventId"),
        device=_text(said, "deviceId"),
        fleet=_text(said, "deviceFleetName"),
        model=_text(said, "modelName"),
        version=_text(said, "modelVersion"),
        time=_time(_text(said, "preciseInferenceTime", _text(said, "inferenceTime"))),
        rule=_text(said, "captureRule", ""),
        weight=_weight(said.get("samplingWeight", 1)),
        package_digest=_text(said, "packageDigest", ""),
        agent_version=_text(said, "agentVersion", ""),
        inputs=_entries(event, "deviceFleetInputs", payload),
        outputs=_entries(event, "deviceFleetOutputs", payload),
        auxiliary_inputs=_entries(event, "deviceFleetAuxiliaryInputs", payload),
        auxiliary_outputs=_entries(event, "deviceFleetAuxiliaryOutputs", payload),
        file=file,
        line=line,
    )


def _text(said: Json, key: str, default: str | None = None) -> str:
    value = said.get(key, default)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # half a character, which JSON can write, is none
    raise ValueError(f"{key} is {'missing' if value is None else 'not a string'}")


def _weight(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**63:
        raise ValueError(f"samplingWeight is {value!r}"[:80])
    return value


def _time(text: str) -> np.datetime64:
    matched = _TIME.fullmatch(text)
    if matched is None or not EARLIEST <= matched[1] < LATEST:
        raise ValueError(f"{text[:40]!r} is no time")
    return np.datetime64(text.removesuffix("Z"), "ns")


def _entries(event: Json, key: str, payload: Callable[[str], bytes]) -> tuple[Entry, ...]:
    entries = event.get(key)
    if not isinstance(entries, list):
        raise ValueError(f"{key} is missing")  # noqa: TRY004 - see parse
    return tuple(_entry(entry, f"{key}[{position}]", payload) for position, entry in enumerate(entries))


def _entry(entry: object, where: str, payload: Callable[[str], bytes]) -> Entry:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is no JSON object")  # noqa: TRY004 - see parse
    try:
        name, content_type = _text(entry, "name", ""), _text(entry, "observedContentType", "")
        data_type, shape = _described(entry)
        if "data" not in entry:
            reference = _text(entry, "data-ref")
            return Entry(name, content_type, data_type, shape, reference, _read=lambda: payload(reference))
        data = base64.b64decode(_text(entry, "data"), validate=True)
        return Entry(name, content_type, data_type, shape, _read=lambda: data)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _described(entry: Json) -> tuple[DataType | None, tuple[int, ...] | None]:
    """Return type and shape, both or neither."""
    data_type, shape = entry.get("dataType"), entry.get("shape")
    if data_type is None or shape is None:
        return None, None
    if not isinstance(data_type, str) or data_type not in DataType.__members__:
        raise ValueError(f"dataType is {data_type!r}"[:80])
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 2**63 for size in shape):
        raise ValueError(f"shape is {shape!r}"[:80])
    return DataType[data_type], tuple(shape)
