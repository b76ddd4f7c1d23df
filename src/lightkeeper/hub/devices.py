"""Devices of a fleet: Register-, List-, Update- and DeregisterDevices, and DescribeDevice.

Invariants: a call about many devices is done for all of them or for none. To register a device again as it is, and to
deregister one that is not there, changes nothing and is no error, so that a call whose answer was lost can be repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from lightkeeper.errors import DeviceExists, DeviceLimit, DeviceUnknown, ItemDuplicate
from lightkeeper.hub import fleets, latest, tags
from lightkeeper.hub.arns import device_arn
from lightkeeper.hub.context import Context
from lightkeeper.hub.paging import page
from lightkeeper.hub.settings import Settings
from lightkeeper.hub.tables.fleet import DEVICES

MODELS_A_DEVICE = 100
"""What DescribeDevice says as MaxModels: the models of one page; there is never a second."""

_NAMES_A_QUERY = 500


def register(context: Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """RegisterDevices. Raises `FleetUnknown`, `ItemDuplicate`, `DeviceExists`, `DeviceLimit`, `TagLimit`."""
    fleet, devices = given["DeviceFleetName"], given["Devices"]
    names = _distinct(device["DeviceName"] for device in devices)
    with context.write() as connection:
        fleets.lock(connection, fleet)
        there = _rows(connection, fleet, names)
        new = [device for device in devices if device["DeviceName"] not in there]
        for device in devices:
            row = there.get(device["DeviceName"])
            if row is not None and (row.description, row.thing) != (
                device.get("Description"),
                device.get("IotThingName"),
            ):
                name = device["DeviceName"]
                raise DeviceExists(f"the fleet {fleet} has another device {name} already", fleet=fleet, device=name)
        count = connection.scalar(select(func.count()).where(DEVICES.c.fleet == fleet)) or 0
        limit = context.settings.devices_limit
        if new and count + len(new) > limit:
            raise DeviceLimit(f"the fleet {fleet} would have more than {limit} devices", fleet=fleet, limit=limit)
        if new:
            connection.execute(
                insert(DEVICES),
                [
                    {
                        "fleet": fleet,
                        "name": device["DeviceName"],
                        "description": device.get("Description"),
                        "thing": device.get("IotThingName"),
                        "registered_ms": context.now_ms,
                    }
                    for device in new
                ],
            )
        for device in new:
            tags.keep(connection, device_arn(context.settings, fleet, device["DeviceName"]), given.get("Tags", ()))
    return {}


def describe(context: Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """DescribeDevice. Raises `DeviceUnknown`."""
    fleet, name = given["DeviceFleetName"], given["DeviceName"]
    with context.read() as connection:
        row = find(connection, fleet, name)
    return {**_summary(context.settings, row), "Models": latest.models(row.models), "MaxModels": MODELS_A_DEVICE}


def list_devices(context: Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """ListDevices. Raises `FleetUnknown`, `PageTokenInvalid`."""
    query = select(DEVICES)
    with context.read() as connection:
        if fleet := given.get("DeviceFleetName"):
            fleets.find(connection, fleet)
            query = query.where(DEVICES.c.fleet == fleet)
        if (after := given.get("LatestHeartbeatAfter")) is not None:
            query = query.where(DEVICES.c.heartbeat_ms > after)
        if model := given.get("ModelName"):
            query = query.where(latest.has_model(model))
        found = page(connection, query, given, by=(DEVICES.c.fleet, DEVICES.c.name))
    return {
        "DeviceSummaries": [
            {
                **_summary(context.settings, row),
                "Models": [
                    {name: model[name] for name in ("ModelName", "ModelVersion")} for model in latest.models(row.models)
                ],
            }
            for row in found.rows
        ],
        "NextToken": found.next_token,
    }


def update_devices(context: Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """UpdateDevices: what is not given keeps its value. Raises `FleetUnknown`, `DeviceUnknown`, `ItemDuplicate`."""
    fleet, devices = given["DeviceFleetName"], given["Devices"]
    names = _distinct(device["DeviceName"] for device in devices)
    with context.write() as connection:
        fleets.find(connection, fleet)
        there = _rows(connection, fleet, names)
        if missing := next((name for name in names if name not in there), None):
            raise unknown(fleet, missing)
        changes = [
            {
                "of_name": device["DeviceName"],
                "description": device.get("Description", there[device["DeviceName"]].description),
                "thing": device.get("IotThingName", there[device["DeviceName"]].thing),
            }
            for device in devices
        ]
        if changes:
            connection.execute(
                update(DEVICES)
                .where(DEVICES.c.fleet == fleet, DEVICES.c.name == bindparam("of_name"))
                .values(description=bindparam("description"), thing=bindparam("thing")),
                changes,
            )
    return {}


def deregister(context: Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """DeregisterDevices. Raises `FleetUnknown`."""
    fleet, names = given["DeviceFleetName"], set(given["DeviceNames"])
    with context.write() as connection:
        fleets.lock(connection, fleet)
        for some in _portions(sorted(names)):
            connection.execute(delete(DEVICES).where(DEVICES.c.fleet == fleet, DEVICES.c.name.in_(some)))
        tags.forget(connection, [device_arn(context.settings, fleet, name) for name in sorted(names)])
    return {}


def find(connection: Connection, fleet: str, name: str) -> Row[Any]:
    """Return a device's row. Raises `DeviceUnknown`."""
    row = connection.execute(select(DEVICES).where(DEVICES.c.fleet == fleet, DEVICES.c.name == name)).first()
    if row is None:
        raise unknown(fleet, name)
    return row


def unknown(fleet: str, name: str) -> DeviceUnknown:
    """Return the refusal for a device that is not there."""
    return DeviceUnknown(f"the fleet {fleet} has no device {name}", fleet=fleet, device=name)


def _rows(connection: Connection, fleet: str, names: list[str]) -> dict[str, Any]:
    columns = (DEVICES.c.name, DEVICES.c.description, DEVICES.c.thing)
    return {
        row.name: row
        for some in _portions(names)
        for row in connection.execute(select(*columns).where(DEVICES.c.fleet == fleet, DEVICES.c.name.in_(some)))
    }


def _portions(names: list[str]) -> Iterable[list[str]]:
    return (names[first : first + _NAMES_A_QUERY] for first in range(0, len(names), _NAMES_A_QUERY))


def _distinct(names: Iterable[str]) -> list[str]:
    counted = Counter(names)
    if twice := next((name for name, count in counted.items() if count > 1), None):
        raise ItemDuplicate(f"the device {twice} is there twice", device=twice)
    return list(counted)


def _summary(settings: Settings, row: Row[Any]) -> dict[str, Any]:
    return {
        "DeviceArn": device_arn(settings, row.fleet, row.name),
        "DeviceName": row.name,
        "DeviceFleetName": row.fleet,
        "Description": row.description,
        "IotThingName": row.thing,
        "RegistrationTime": row.registered_ms,
        "LatestHeartbeat": row.heartbeat_ms,
        "AgentVersion": None if row.agent_version is None else latest.version(row.agent_version),
    }
