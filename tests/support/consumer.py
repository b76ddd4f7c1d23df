"""A consumer of captures as there are in the field: it knows their format from its documentation, and nothing of ours.

One JSON object a line; base64 or a file behind each entry; `struct` for the numbers; one fixed form of time. Only the
standard library is imported here, and a test holds it to that.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

METADATA = ("eventId", "deviceId", "deviceFleetName", "modelName", "modelVersion", "inferenceTime")
LISTS = {
    "deviceFleetInputs": "Input",
    "deviceFleetOutputs": "Output",
    "deviceFleetAuxiliaryInputs": "Input",
    "deviceFleetAuxiliaryOutputs": "Output",
}


@dataclass(frozen=True)
class Consumed:
    """What a consumer got out of a line: metadata, and content type and bytes by list and name."""

    metadata: dict[str, str]
    time: datetime
    entries: dict[str, list[tuple[str, str, bytes]]]

    def floats(self, key: str, count: int) -> tuple[float, ...]:
        """Return the numbers of a list's first tensor."""
        return struct.unpack(f"{count}f", self.entries[key][0][2])


def consume(batch: Path) -> Iterator[Consumed]:
    """Yield every line of a batch."""
    for line in batch.read_text().splitlines():
        event = json.loads(line)
        assert event["eventVersion"] == "0"
        metadata = {key: event["eventMetadata"][key] for key in METADATA}
        assert all(isinstance(value, str) for value in metadata.values())
        time = datetime.strptime(metadata["inferenceTime"], "%Y-%m-%dT%H:%M:%S")  # noqa: DTZ007 - as consumers do
        entries = {key: [_entry(entry, mode) for entry in event[key]] for key, mode in LISTS.items()}
        yield Consumed(metadata, time, entries)


def _entry(entry: dict[str, Any], mode: str) -> tuple[str, str, bytes]:
    assert entry["mode"] == mode
    return entry["name"], entry["observedContentType"], _payload(entry)


def _payload(entry: dict[str, Any]) -> bytes:
    if entry["encoding"] == "BASE64":
        assert "data-ref" not in entry
        return base64.b64decode(entry["data"])
    assert entry["encoding"] == "NONE"
    assert "data" not in entry
    with urlopen(entry["data-ref"]) as file:  # noqa: S310 - the file:// address of a test's own file
        content: bytes = file.read()
    return content
