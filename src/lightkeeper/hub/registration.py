"""Registration: GetDeviceRegistration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import exists, select

from lightkeeper.hub.context import Context
from lightkeeper.hub.tables.fleet import DEVICES

REGISTERED, NOT_REGISTERED = "Registered", "NotRegistered"
"""The service model leaves the word open; these are the hub's."""


def get(context: Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """GetDeviceRegistration: whether the fleet has the device, and for how many seconds it may rely on that."""
    found = select(exists().where(DEVICES.c.fleet == given["DeviceFleetName"], DEVICES.c.name == given["DeviceName"]))
    with context.read() as connection:
        registered = connection.scalar(found)
    return {
        "DeviceRegistration": REGISTERED if registered else NOT_REGISTERED,
        "CacheTTL": str(context.settings.registration_cache_seconds),
    }
