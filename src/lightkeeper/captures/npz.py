"""Captures as `.npz` files: one a capture, `MODEL/VERSION/ID.npz`, for numpy and what reads its files.

Each holds its tensors by name (`inputs/NAME`, `outputs/NAME`; a later one of the same name ends in `#` and its
position), auxiliary data as UINT8 arrays (`auxiliary_inputs/NAME` …), and what the capture is of as JSON text in
`metadata`. It is read with `allow_pickle=False`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from lightkeeper.captures.reader import EVERYTHING, Captures, Damage, Wanted, refuse
from lightkeeper.captures.record import Record
from lightkeeper.errors import OutputExists, OutputUnwritable, PayloadUnreadable

METADATA = "metadata"


def to_npz(
    captures: Captures,
    folder: Path,
    wanted: Wanted = EVERYTHING,
    *,
    on_damage: Callable[[Damage], object] = refuse,
    on_batch: Callable[[int, int], object] = lambda _done, _total: None,
) -> int:
    """Write each of the wanted captures into a file below a new or empty folder, and return how many they were.

    `on_damage` and `on_batch` are `Captures.records`'; a capture with a payload that cannot be read counts as damaged.
    Raises `OutputExists`, `OutputUnwritable`, or what reading raises.
    """
    count = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise OutputExists(f"{folder} is not empty", folder=folder)
        for record in captures.records(wanted, on_damage=on_damage, on_batch=on_batch):
            try:
                arrays = arrays_of(record)
            except PayloadUnreadable as error:
                on_damage(Damage(record.file, record.line, error.message))
                continue
            path = folder / _part(record.model) / _part(record.version) / f"{quote(record.id, safe='')}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:  # the same id twice would lose one of them
                np.savez(file, allow_pickle=False, **arrays)
            count += 1
    except OSError as error:
        raise OutputUnwritable(f"{folder} cannot be written: {error.strerror}", folder=folder) from error
    return count


def arrays_of(record: Record) -> dict[str, npt.NDArray[Any]]:
    """Return a capture as arrays by name. Raises `PayloadUnreadable`."""
    about = ("id", "device", "fleet", "model", "version", "rule", "weight", "package_digest", "agent_version")
    metadata = {name: getattr(record, name) for name in about}
    metadata |= {"time": f"{record.time}Z", "file": record.file, "line": record.line}
    arrays: dict[str, npt.NDArray[Any]] = {METADATA: np.array(json.dumps(metadata))}
    for part in ("inputs", "outputs", "auxiliary_inputs", "auxiliary_outputs"):
        for position, entry in enumerate(getattr(record, part)):
            name = f"{part}/{entry.name}".replace("\0", "\ufffd")  # a zip member's name ends at a NUL
            arrays[f"{name}#{position}" if name in arrays else name] = entry.array()
    return arrays


def _part(text: str) -> str:
    """Return text as one part of a path that leads nowhere else."""
    quoted = quote(text, safe="")
    return quoted.replace(".", "%2E") if quoted.strip(".") == "" else quoted
