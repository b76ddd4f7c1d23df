"""Device fleets: Create-, Describe-, List-, Update- and DeleteDeviceFleet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from lightkeeper.errors import FleetExists, FleetLimit, FleetOccupied, FleetUnknown
from lightkeeper.hub import tags
from lightkeeper.hub.arns import fleet_arn, role_alias_arn
from lightkeeper.hub.context import Context
from lightkeeper.hub.paging import between, matches, page
from lightkeeper.hub.settings import Settings
from lightkeeper.hub.tables.fleet import DEVICES, FLEETS
from lightkeeper.hub.tables.rollout import PLANS

_SORTED_BY = {
    "NAME": (FLEETS.c.name,),
    "CREATION_TIME": (FLEETS.c.created_ms, FLEETS.c.name),
    "LAST_MODIFIED_TIME": (FLEETS.c.modified_ms, FLEETS.c.name),
}

Input = Mapping[str, Any]
Output = dict[str, Any]


def create(context: Context, given: Input) -> Output:
    """CreateDeviceFleet. Raises `FleetExists`, `FleetLimit`, `ItemDuplicate`."""
    name = given["DeviceFleetName"]
    with context.write() as connection:
        if (connection.scalar(select(func.count()).select_from(FLEETS)) or 0) >= context.settings.fleets_limit:
            raise FleetLimit(
                f"there are {context.settings.fleets_limit} device fleets already", limit=context.settings.fleets_limit
            )
        try:
            connection.execute(
                insert(FLEETS).values(
                    name=name, created_ms=context.now_ms, modified_ms=context.now_ms, **_columns(given)
                )
            )
        except IntegrityError as error:
            raise FleetExists(f"there is a device fleet {name} already", fleet=name) from error
        tags.keep(connection, fleet_arn(context.settings, name), given.get("Tags", ()))
    return {}


def describe(context: Context, given: Input) -> Output:
    """DescribeDeviceFleet. Raises `FleetUnknown`."""
    with context.read() as connection:
        row = find(connection, given["DeviceFleetName"])
    return {
        **_summary(context.settings, row),
        "OutputConfig": row.output_config,
        "Description": row.description,
        "RoleArn": row.role_arn,
        "IotRoleAlias": role_alias_arn(context.settings, row.name) if row.role_alias else None,
    }


def list_fleets(context: Context, given: Input) -> Output:
    """ListDeviceFleets, by creation time unless SortBy says else. Raises `PageTokenInvalid`."""
    conditions = [
        *matches(FLEETS.c.name, given.get("NameContains")),
        *between(FLEETS.c.created_ms, given, "CreationTime"),
        *between(FLEETS.c.modified_ms, given, "LastModifiedTime"),
    ]
    with context.read() as connection:
        found = page(
            connection,
            select(FLEETS).where(*conditions),
            given,
            by=_SORTED_BY[given.get("SortBy", "CREATION_TIME")],
            descending=given.get("SortOrder") == "Descending",
        )
    return {
        "DeviceFleetSummaries": [_summary(context.settings, row) for row in found.rows],
        "NextToken": found.next_token,
    }


def update_fleet(context: Context, given: Input) -> Output:
    """UpdateDeviceFleet: what is not given keeps its value. Raises `FleetUnknown`."""
    name = given["DeviceFleetName"]
    kept = {column: value for column, value in _columns(given).items() if value is not None}
    if "EnableIotRoleAlias" not in given:
        del kept["role_alias"]
    with context.write() as connection:
        changed = connection.execute(
            update(FLEETS).where(FLEETS.c.name == name).values(modified_ms=context.now_ms, **kept)
        )
        if not changed.rowcount:
            raise unknown(name)
    return {}


def delete_fleet(context: Context, given: Input) -> Output:
    """DeleteDeviceFleet. Raises `FleetUnknown`, `FleetOccupied`."""
    name = given["DeviceFleetName"]
    with context.write() as connection:
        lock(connection, name)
        if connection.scalar(select(exists().where(DEVICES.c.fleet == name))):
            raise FleetOccupied(f"the device fleet {name} still has devices", fleet=name)
        if connection.scalar(select(exists().where(PLANS.c.fleet == name))):
            raise FleetOccupied(f"the device fleet {name} still has deployment plans", fleet=name)
        connection.execute(delete(FLEETS).where(FLEETS.c.name == name))
        tags.forget(connection, [fleet_arn(context.settings, name)])
    return {}


def set_role_alias(connection: Connection, name: str, *, opened: bool, now_ms: int) -> bool:
    """Open or close a fleet's role alias; False where there is no such fleet."""
    changed = update(FLEETS).where(FLEETS.c.name == name).values(role_alias=opened, modified_ms=now_ms)
    return bool(connection.execute(changed).rowcount)


def find(connection: Connection, name: str) -> Row[Any]:
    """Return a fleet's row. Raises `FleetUnknown`."""
    row = connection.execute(select(FLEETS).where(FLEETS.c.name == name)).first()
    if row is None:
        raise unknown(name)
    return row


def lock(connection: Connection, name: str) -> Row[Any]:
    """Return a fleet's row, and keep other transactions that do so waiting. Raises `FleetUnknown`.

    For what must not happen at the same time to one fleet: SQLite has one writer anyway.
    """
    row = connection.execute(select(FLEETS).where(FLEETS.c.name == name).with_for_update()).first()
    if row is None:
        raise unknown(name)
    return row


def unknown(name: str) -> FleetUnknown:
    """Return the refusal for a fleet that is not there."""
    return FleetUnknown(f"there is no device fleet {name}", fleet=name)


def _columns(given: Input) -> dict[str, Any]:
    return {
        "role_arn": given.get("RoleArn"),
        "description": given.get("Description"),
        "output_config": given["OutputConfig"],
        "role_alias": given.get("EnableIotRoleAlias", True),  # no other service makes one here
    }


def _summary(settings: Settings, row: Row[Any]) -> Output:
    return {
        "DeviceFleetArn": fleet_arn(settings, row.name),
        "DeviceFleetName": row.name,
        "CreationTime": row.created_ms,
        "LastModifiedTime": row.modified_ms,
    }
