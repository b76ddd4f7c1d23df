"""Batches of captures as the agent writes them, for the tests of what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from lightkeeper.capture.record import (
    Capture,
    Part,
    Payload,
    content_type_of,
    line,
    payload_suffix,
    store,
    tensor_payload,
)
from lightkeeper.device import DeviceIdentity
from lightkeeper.tensor import DataType, Tensor

Array = npt.NDArray[Any]

DEVICE = DeviceIdentity("cam-1", "yard", "cam-1", "")
START_NS = 1_700_000_000_000_000_000


def tensor(part: Part, name: str, array: Array) -> Payload:
    """Return an array as a capture's tensor."""
    data_type = DataType.from_dtype(array.dtype)
    return tensor_payload(part, Tensor(name, data_type, array.shape, array.data), 0)


def auxiliary(part: Part, name: str, data: bytes) -> Payload:
    """Return auxiliary data."""
    return Payload(part, name, content_type_of(name), data)


def capture(
    capture_id: str,
    *payloads: Payload,
    model: str = "turbine",
    version: str = "1.0",
    time_ns: int = START_NS,
    rule: str = "",
) -> Capture:
    """Return a capture."""
    return Capture(capture_id, model, version, "ab" * 32, time_ns, payloads, rule)


def vibration(capture_id: str, seed: int, **how: Any) -> Capture:
    """Return a capture of six floats in and six floats out, and a picture."""
    values = np.random.default_rng(seed).normal(size=(2, 1, 6)).astype(np.float32)
    return capture(
        capture_id,
        tensor(Part.INPUT, "x", values[0]),
        tensor(Part.OUTPUT, "y", values[1]),
        auxiliary(Part.AUXILIARY_INPUT, "frame.jpg", bytes(range(256)) * 20),
        **how,
    )


def write_batch(
    folder: Path,
    captures: Sequence[Capture],
    *,
    name: str = "0a1b2c3d-00000001",
    root: str | None = None,
    device: DeviceIdentity = DEVICE,
    hour: str = "2023/11/14/22",
    embed_limit_bytes: int = 3072,
    weight: int = 1,
) -> Path:
    """Write a batch under a folder as the agent lays it out, and return its path.

    `root` is the address that the lines say, the folder's own where it is left out.
    """
    place = f"site/{device.fleet}/{device.name}/{hour}/{name}"
    lines = []
    for item in captures:
        stored = store(item, embed_limit_bytes=embed_limit_bytes)
        keys = {at: f"{place}/{item.id}-{at}{payload_suffix(stored.header, at)}" for at, _ in stored.large}
        for at, data in stored.large:
            (folder / keys[at]).parent.mkdir(parents=True, exist_ok=True)
            (folder / keys[at]).write_bytes(data)
        lines.append(
            line(
                item.id,
                stored.header,
                stored.inline,
                device=device,
                reference=lambda at, keys=keys: f"{root or folder.as_uri()}/{quote(keys[at])}",  # type: ignore[misc]  # bound
                weight=weight,
            )
        )
    path = folder / f"{place}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(lines))
    return path
