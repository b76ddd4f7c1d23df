"""Which device this is: the values that records, reports and credentials carry."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """A device as its fleet knows it. `thing_name` is the name of its IoT thing; `region` is empty without a cloud."""

    name: str
    fleet: str
    thing_name: str
    region: str
