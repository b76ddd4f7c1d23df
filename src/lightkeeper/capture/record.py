"""One capture: as it is accepted, as it lies in the spool, and as the JSON line that consumers parse.

In the spool a capture is a header (JSON: everything but the payloads), the small payloads one after the other, and
one file for each payload larger than the embed limit. The line is made when the batch is written, since only then is
it known where the files end up. Its keys, and the clauses cited here, are those of docs/spec/capture.md.

Names come from the wire as text in which a byte that is no UTF-8 is a surrogate. A line is ASCII: no reader can take
it apart in the wrong place, or refuse it for a character.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from lightkeeper import __version__
from lightkeeper.device import DeviceIdentity
from lightkeeper.tensor import Tensor

EVENT_VERSION = "0"
NANOSECONDS = 1_000_000_000
UNKNOWN_CONTENT_TYPE = "application/octet-stream"
BARE_ENDINGS = frozenset(
    {"bmp", "csv", "gif", "jpeg", "jpg", "json", "npy", "png", "tif", "tiff", "txt", "webp", "xml"}
)
"""Names that are nothing but an ending."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ENDING = re.compile("[a-z0-9]{1,16}", re.ASCII)


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
    """A tensor or a piece of auxiliary data. `data_type` and `shape` are a tensor's, both or neither.

    `data` may be a view of any buffer, of any type and number of dimensions; its bytes in C order count.
    """

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
    """Return a tensor as a payload; one without a name is named by its position (clause 1.6)."""
    name = tensor.name or f"tensor-{position}"
    if tensor.data_type is None or tensor.shape is None:
        return Payload(part, name, UNKNOWN_CONTENT_TYPE, tensor.data)
    shape = ",".join(map(str, tensor.shape))
    described = f'{UNKNOWN_CONTENT_TYPE}; dataType={tensor.data_type.name}; shape="{shape}"'
    return Payload(part, name, described, tensor.data, tensor.data_type.name, tensor.shape)


def content_type_of(name: str) -> str:
    """Return the content type of auxiliary data: the ending of its name, such as `jpg` (clause 1.7)."""
    _, dot, ending = name.lower().rpartition(".")
    known = _ENDING.fullmatch(ending) if dot else ending in BARE_ENDINGS
    return ending if known else UNKNOWN_CONTENT_TYPE


def store(capture: Capture, *, embed_limit_bytes: int) -> Stored:
    """Return a capture as the spool takes it. Small payloads are copied, large ones stay views of the caller's data."""
    entries: list[dict[str, Any]] = []
    inline: list[bytes | memoryview] = []
    large: list[tuple[int, bytes | memoryview]] = []
    for position, payload in enumerate(capture.payloads):
        data = flat(payload.data)
        entry: dict[str, Any] = {
            "part": payload.part.name,
            "name": payload.name,
            "type": payload.content_type,
            "bytes": len(data),
        }
        if payload.data_type is not None:
            entry["dataType"], entry["shape"] = payload.data_type, payload.shape
        if len(data) > embed_limit_bytes:
            entry["file"] = True
            large.append((position, data))
        else:
            inline.append(data)
        entries.append(entry)
    header = {
        "model": capture.model_name,
        "version": capture.model_version,
        "digest": capture.package_digest,
        "time": capture.inference_time_ns,
        "rule": capture.rule,
        "agent": __version__,
        "payloads": entries,
    }
    return Stored(capture.id, json.dumps(header, separators=(",", ":")).encode(), b"".join(inline), tuple(large))


def line(  # noqa: PLR0913  # what a line is made of
    capture_id: str,
    header: bytes,
    inline: bytes,
    *,
    device: DeviceIdentity,
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
        shown = _named(entry["name"]) | {"mode": part.mode, "observedContentType": entry["type"]}
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
        "agentVersion": said["agent"],
    }
    if said["rule"]:
        metadata["captureRule"] = said["rule"]
    if weight != 1:
        metadata["samplingWeight"] = weight
    whole = {"eventVersion": EVENT_VERSION, "eventMetadata": metadata, **lists}
    return json.dumps(whole, separators=(",", ":")).encode("ascii") + b"\n"


def large_positions(header: bytes) -> Sequence[int]:
    """Return which payloads of a stored capture have a file of their own."""
    return [position for position, entry in enumerate(json.loads(header)["payloads"]) if entry.get("file")]


def payload_suffix(header: bytes, position: int) -> str:
    """Return the file name ending for a payload, such as `.jpg`, or `.bin` where none is known."""
    content_type = json.loads(header)["payloads"][position]["type"]
    return f".{content_type}" if _ENDING.fullmatch(content_type) else ".bin"


def seconds_text(time_ns: int) -> str:
    """Return a time as consumers parse it: UTC, `YYYY-MM-DDTHH:MM:SS`, the rest of the second cut off."""
    time = _EPOCH + timedelta(seconds=time_ns // NANOSECONDS)
    return time.replace(tzinfo=None).isoformat(timespec="seconds")


def precise_text(time_ns: int) -> str:
    """Return a time in UTC to the nanosecond."""
    return f"{seconds_text(time_ns)}.{time_ns % NANOSECONDS:09d}Z"


def _named(name: str) -> dict[str, Any]:
    """Return an entry's name as text, and as bytes where they are no text (clause 1.6)."""
    try:
        name.encode()
    except UnicodeEncodeError:
        exact = name.encode("utf-8", "surrogateescape")
        return {"name": exact.decode("utf-8", "replace"), "nameBytes": base64.b64encode(exact).decode("ascii")}
    return {"name": name}


def flat(data: bytes | memoryview) -> bytes | memoryview:
    """Return the bytes of a buffer in C order, without a copy where they lie so."""
    if isinstance(data, bytes):
        return data
    if data.c_contiguous and data.nbytes:  # a view without bytes cannot be cast
        return data.cast("B")
    return data.tobytes()
