"""The selection: which devices of a fleet a stage is for. Pure; the same fleet and stages always give the same answer.

A percentage is one of the devices that no earlier stage of the plan selects, rounded up. Which ones is decided by a
hash of the plan's and the device's name: it does not change from call to call or from process to process, and another
plan begins with other devices.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from math import ceil
from typing import Any


class Subset(StrEnum):
    """How a stage says which devices it is for, in the API's words."""

    PERCENTAGE = "PERCENTAGE"
    SELECTION = "SELECTION"
    NAMECONTAINS = "NAMECONTAINS"


@dataclass(frozen=True, slots=True)
class Selection:
    """A stage's DeviceSelectionConfig."""

    subset: Subset
    percentage: int = 0
    names: tuple[str, ...] = ()
    contains: str = ""

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Selection:
        """Read the API's document. Raises `ValueError` that says what does not fit its DeviceSubsetType."""
        subset = Subset(document["DeviceSubsetType"])
        fields = {
            Subset.PERCENTAGE: "Percentage",
            Subset.SELECTION: "DeviceNames",
            Subset.NAMECONTAINS: "DeviceNameContains",
        }
        strays = [name for name in fields.values() if document.get(name) is not None and name != fields[subset]]
        if strays:
            raise ValueError(f"{subset} goes with {fields[subset]}, not with {' and '.join(strays)}")
        value = document.get(fields[subset])
        if not value:
            raise ValueError(f"{subset} needs {fields[subset]}")
        if subset is Subset.PERCENTAGE:
            if not 0 < value <= 100:  # noqa: PLR2004  # per cent
                raise ValueError("Percentage is a number from 1 to 100")
            return cls(subset, percentage=value)
        if subset is Subset.SELECTION:
            return cls(subset, names=tuple(dict.fromkeys(value)))
        return cls(subset, contains=value)

    def choose(self, candidates: Collection[str], seed: str) -> list[str]:
        """Return the chosen of the candidates, in the order of their turns."""
        if self.subset is Subset.SELECTION:
            present = set(candidates)
            return [name for name in self.names if name in present]
        wanted = [name for name in candidates if self.contains in name]
        turns = sorted(wanted, key=lambda name: blake2b(f"{seed}/{name}".encode(), digest_size=8).digest())
        if self.subset is Subset.NAMECONTAINS:
            return turns
        return turns[: ceil(len(turns) * self.percentage / 100)]


def allot(
    stages: Sequence[tuple[int, Selection]],
    devices: Collection[str],
    members: Mapping[int, Collection[str]],
    *,
    seed: str,
) -> dict[int, list[str]]:
    """Give each stage of a plan, in their order, the devices that none before it has.

    `members` are the devices of stages that have chosen already: they keep theirs.
    """
    free = set(devices).difference(*members.values())
    allotted: dict[int, list[str]] = {}
    for stage, selection in stages:
        if stage in members:
            allotted[stage] = list(members[stage])
            continue
        allotted[stage] = selection.choose(free, seed)
        free.difference_update(allotted[stage])
    return allotted
