"""One capture: as it is accepted, as it lies in the spool, and as the JSON line that consumers parse.

In the spool a capture is a header (JSON: everything but the payloads), the small payloads one after the other, and
one file for each payload larger than the embed limit. The line is made when the batch is written, since only then is
it known where the files end up. The line's keys are docs/spec/capture.md's.
"""

from __future__ import annotations

import base64
import json
import mimetypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from lightkeeper.device import DeviceIdentity
from lightkeeper.tensor import Tensor

EVENT_VERSION = "0"
NANOSECONDS = 1_000_000_000
UNKNOWN_CONTENT_TYPE = "application/octet-stream"


class Part(StrEnum):
    """Which of a line's four lists a payload belongs to."""

    INPUT = "deviceFleetInputs"
    OUTPUT = "deviceFleetOutputs"
    AUXILIARY_INPUT = "deviceFleetAuxiliaryInputs"
    AUXILIARY_OUTPUT = "deviceFleetAuxiliaryOutputs"

    @property
    def mode(self) -> str:
        """The direction, as a line's entries name it."""
        return "Input" if self in {Part.INPUT, Part.AUXILIARY_INPUT} else "Output"


@dataclass(frozen=True, slots=True)
class Payload:
    """A tensor or a piece of auxiliary data. `data_type` and `shape` are a tensor's, where it has them."""

    part: Part
    name: str
    content_type: str
    data: bytes | memoryview
    data_type: str | None = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Capture:
    """A capture as it is accepted.

    `model_name` and `model_version` are the package's, `package_digest` its SHA-256. `inference_time_ns` counts from
    1970 in UTC. `rule` names the rule that chose this inference; it is empty where the application asked.
    """

    id: str
    model_name: str
    model_version: str
    package_digest: str
    inference_time_ns: int
    payloads: tuple[Payload, ...]
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """A capture as the spool takes it: header and small payloads as bytes, large payloads by their position."""

    id: str
    header: bytes
    inline: bytes
    large: tuple[tuple[int, bytes | memoryview], ...]

    @property
    def size_bytes(self) -> int:
        """What it takes in the spool."""
        return len(self.header) + len(self.inline) + sum(len(data) for _, data in self.large)


def tensor_payload(part: Part, tensor: Tensor, position: int) -> Payload:
    """Return a tensor as a payload; one without a name is named by its position."""
    data_type = None if tensor.data_type is None else tensor.data_type.name
    described = UNKNOWN_CONTENT_TYPE
    if data_type is not None and tensor.shape is not None:
        described += f"; dataType={data_type}; shape={','.join(map(str, tensor.shape))}"
    return Payload(part, tensor.name or f"tensor-{position}", described, tensor.data, data_type, tensor.shape)


def content_type_of(name: str) -> str:
    """Return the content type that a name's ending implies; a bare ending such as `jpg` counts as one."""
    guessed, _ = mimetypes.guess_type(f"x.{name.rpartition('.')[2]}")
    return guessed or UNKNOWN_CONTENT_TYPE


def store(capture: Capture, *, embed_limit_bytes: int) -> Stored:
    """Return a capture as the spool takes it."""
    entries: list[dict[str, Any]] = []
    inline: list[bytes | memoryview] = []
    large: list[tuple[int, bytes | memoryview]] = []
    for position, payload in enumerate(capture.payloads):
        size_bytes = len(payload.data)
        entry: dict[str, Any] = {
            "part": payload.part.name,
            "name": payload.name,
            "type": payload.content_type,
            "bytes": size_bytes,
        }
        if payload.data_type is not None:
            entry["dataType"], entry["shape"] = payload.data_type, payload.shape
        if size_bytes > embed_limit_bytes:
            entry["file"] = True
            large.append((position, payload.data))
        else:
            inline.append(payload.data)
        entries.append(entry)
    header = {
        "model": capture.model_name,
        "version": capture.model_version,
        "digest": capture.package_digest,
        "time": capture.inference_time_ns,
        "rule": capture.rule,
        "payloads": entries,
    }
    return Stored(capture.id, json.dumps(header, separators=(",", ":")).encode(), b"".join(inline), tuple(large))


def line(  # noqa: PLR0913  # what a line is made of
    capture_id: str,
    header: bytes,
    inline: bytes,
    *,
    device: DeviceIdentity,
    agent_version: str,
    reference: Callable[[int], str],
    weight: int = 1,
) -> bytes:
    """Return a stored capture as the line that consumers parse, with its newline.

    `reference` gives the address of a large payload's own file. `weight` is how many accepted captures this one
    stands for, where others had to go.
    """
    said = json.loads(header)
    lists: dict[str, list[dict[str, Any]]] = {part.value: [] for part in Part}
    offset = 0
    for position, entry in enumerate(said["payloads"]):
        part = Part[entry["part"]]
        shown: dict[str, Any] = {"name": entry["name"], "mode": part.mode, "observedContentType": entry["type"]}
        if entry.get("file"):
            shown |= {"encoding": "NONE", "data-ref": reference(position)}
        else:
            data = inline[offset : offset + entry["bytes"]]
            offset += entry["bytes"]
            shown |= {"encoding": "BASE64", "data": base64.b64encode(data).decode("ascii")}
        if "dataType" in entry:
            shown |= {"dataType": entry["dataType"], "shape": entry["shape"]}
        lists[part.value].append(shown)
    metadata = {
        "eventId": capture_id,
        "deviceId": device.name,
        "deviceFleetName": device.fleet,
        "modelName": said["model"],
        "modelVersion": said["version"],
        "inferenceTime": seconds_text(said["time"]),
        "preciseInferenceTime": precise_text(said["time"]),
        "packageDigest": said["digest"],
        "agentVersion": agent_version,
    }
    if said["rule"]:
        metadata["captureRule"] = said["rule"]
    if weight != 1:
        metadata["samplingWeight"] = weight
    whole = {"eventVersion": EVENT_VERSION, "eventMetadata": metadata, **lists}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace") + b"\n"


def large_positions(header: bytes) -> Sequence[int]:
    """Return which payloads of a stored capture have a file of their own."""
    return [position for position, entry in enumerate(json.loads(header)["payloads"]) if entry.get("file")]


def payload_suffix(header: bytes, position: int) -> str:
    """Return the file name ending for a payload, such as `.jpg`, or `.bin` where nothing better is known."""
    content_type = json.loads(header)["payloads"][position]["type"].partition(";")[0]
    return mimetypes.guess_extension(content_type) or ".bin"


def seconds_text(time_ns: int) -> str:
    """Return a time as consumers parse it: UTC, `YYYY-MM-DDTHH:MM:SS`."""
    return datetime.fromtimestamp(time_ns // NANOSECONDS, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def precise_text(time_ns: int) -> str:
    """Return a time in UTC to the nanosecond."""
    return f"{seconds_text(time_ns)}.{time_ns % NANOSECONDS:09d}Z"
