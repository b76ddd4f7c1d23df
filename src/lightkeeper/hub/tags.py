"""Tags of the hub's resources, by ARN: AddTags, ListTags and DeleteTags, and what other operations are given as Tags.

A resource's kind is the first word of its ARN's last part; who makes resources of a kind says here how one is found.
Invariant: no resource has more than `TAGS_LIMIT` tags, and none that is gone has any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, select

from lightkeeper.errors import ItemDuplicate, TaggedResourceUnknown, TagLimit
from lightkeeper.hub.arns import arn
from lightkeeper.hub.context import Context
from lightkeeper.hub.database import put
from lightkeeper.hub.jobs import Kind
from lightkeeper.hub.paging import page
from lightkeeper.hub.tables.fleet import DEVICES, FLEETS, TAGS
from lightkeeper.hub.tables.job import JOBS
from lightkeeper.hub.tables.rollout import PLANS

TAGS_LIMIT = 50

Tags = Iterable[Mapping[str, str]]


def _fleet_or_device(names: Sequence[str]) -> ColumnElement[bool] | None:
    match names:
        case [fleet]:
            return exists().where(FLEETS.c.name == fleet)
        case [fleet, "device", device]:
            return exists().where(and_(DEVICES.c.fleet == fleet, DEVICES.c.name == device))
        case _:
            return None


def _plan(names: Sequence[str]) -> ColumnElement[bool] | None:
    return exists().where(PLANS.c.name == names[0]) if len(names) == 1 else None


def _job(kind: Kind) -> Callable[[Sequence[str]], ColumnElement[bool] | None]:
    def named(names: Sequence[str]) -> ColumnElement[bool] | None:
        match names:
            case [name]:
                return exists().where(and_(JOBS.c.kind == str(kind), JOBS.c.name == name))
            case _:
                return None

    return named


KINDS: Mapping[str, Callable[[Sequence[str]], ColumnElement[bool] | None]] = {
    "device-fleet": _fleet_or_device,
    "compilation-job": _job(Kind.COMPILATION),
    "edge-packaging-job": _job(Kind.PACKAGING),
    "edge-deployment": _plan,
}
"""From the names in an ARN, after its kind, to the condition that such a resource is there; None for no such ARN."""


def add(context: Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """AddTags: a key that is there gets the new value. Raises `TaggedResourceUnknown`, `TagLimit`, `ItemDuplicate`."""
    with context.write() as connection:
        _require(context, connection, given["ResourceArn"])
        keep(connection, given["ResourceArn"], given["Tags"])
        return {"Tags": _all(connection, given["ResourceArn"])}


def list_tags(context: Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """ListTags. Raises `TaggedResourceUnknown`, `PageTokenInvalid`."""
    with context.read() as connection:
        _require(context, connection, given["ResourceArn"])
        query = select(TAGS).where(TAGS.c.arn == given["ResourceArn"])
        found = page(connection, query, given, by=(TAGS.c.key,), most=TAGS_LIMIT)
    return {"Tags": [{"Key": row.key, "Value": row.value} for row in found.rows], "NextToken": found.next_token}


def remove(context: Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """DeleteTags. Raises `TaggedResourceUnknown`."""
    with context.write() as connection:
        _require(context, connection, given["ResourceArn"])
        connection.execute(
            delete(TAGS).where(TAGS.c.arn == given["ResourceArn"], TAGS.c.key.in_(set(given["TagKeys"])))
        )
    return {}


def keep(connection: Connection, resource: str, given: Tags) -> None:
    """Give a resource tags, within the caller's transaction. Raises `TagLimit`, `ItemDuplicate`."""
    values: dict[str, str] = {}
    for tag in given:
        if tag["Key"] in values:
            raise ItemDuplicate(f"the tag {tag['Key']} is there twice", tag=tag["Key"])
        values[tag["Key"]] = tag["Value"]
    for key, value in values.items():
        put(connection, TAGS, {"arn": resource, "key": key, "value": value})
    if values and (connection.scalar(select(func.count()).where(TAGS.c.arn == resource)) or 0) > TAGS_LIMIT:
        raise TagLimit(f"{resource} would have more than {TAGS_LIMIT} tags", resource=resource, limit=TAGS_LIMIT)


def of(connection: Connection, resource: str) -> dict[str, str]:
    """Return a resource's tags, within the caller's transaction."""
    return {tag["Key"]: tag["Value"] for tag in _all(connection, resource)}


def forget(connection: Connection, resources: Sequence[str]) -> None:
    """Remove the tags of resources that go, within the caller's transaction."""
    for resource in resources:
        connection.execute(delete(TAGS).where(TAGS.c.arn == resource))


def _all(connection: Connection, resource: str) -> list[dict[str, str]]:
    rows = connection.execute(select(TAGS).where(TAGS.c.arn == resource).order_by(TAGS.c.key))
    return [{"Key": row.key, "Value": row.value} for row in rows]


def _require(context: Context, connection: Connection, resource: str) -> None:
    kind, *names = resource.split(":", 5)[5].split("/")
    condition = KINDS[kind](names) if kind in KINDS and resource == arn(context.settings, kind, *names) else None
    if condition is None or not connection.scalar(select(condition)):
        raise TaggedResourceUnknown(f"nothing here has the ARN {resource}", resource=resource)
