"""Ownership: which stage may change what a device has under a model handle.

A stage that starts becomes the owner of its handles on its devices, whatever earlier stages still had in mind for them:
a device that is stuck never blocks a later plan. What an earlier stage's deployment said about such a handle is dropped
from it; a deployment that has nothing left to say is SUPERSEDED.

Invariant: of all deployments that are open for a device, no two say something about one handle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from lightkeeper.hub.rollout import OPEN, Progress
from lightkeeper.hub.tables.rollout import DEPLOYMENTS, SLOTS

Packages = dict[str, Any]
"""By model handle a package, or None for none."""

MOST_NAMES = 500
"""How many names one statement lists."""


def take_over(connection: Connection, stage: Row[Any], devices: Sequence[str]) -> dict[str, Packages]:
    """Make a stage the owner of its handles on devices; `stage` is its row with its plan's `fleet` and `packages`.

    Returns, by device, what an earlier stage meant to bring back under these handles and did not come to: to this a
    device goes back if the new stage fails, and not to the bad version it still has.
    """
    wanted, fleet, meant = set(stage.packages), stage.fleet, defaultdict[str, Packages](dict)
    for row in _open_elsewhere(connection, stage.id, fleet, devices):
        taken = wanted.intersection(row.definitions)
        if not taken:
            continue
        if row.reverts:
            meant[row.device].update({handle: row.definitions[handle] for handle in taken})
        _drop(connection, row, taken, f"taken over by plan {stage.plan}")
    insert: Any = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(SLOTS)
    statement = insert.on_conflict_do_update(
        index_elements=["fleet", "device", "handle"], set_={"owner": insert.excluded.owner}
    )
    rows = [
        {"fleet": fleet, "device": device, "handle": handle, "owner": stage.id, "package": None, "deployment": 0}
        for device in sorted(devices)
        for handle in sorted(wanted)
    ]
    if rows:
        connection.execute(statement, rows)
    return dict(meant)


def slots(connection: Connection, fleet: str, devices: Sequence[str]) -> dict[str, dict[str, Row[Any]]]:
    """Return the slots of devices, by device and handle."""
    found = defaultdict[str, dict[str, Row[Any]]](dict)
    for some in chunks(devices):
        for row in connection.execute(select(SLOTS).where(SLOTS.c.fleet == fleet, SLOTS.c.device.in_(some))):
            found[row.device][row.handle] = row
    return found


def keep(connection: Connection, fleet: str, device: str, packages: Mapping[str, Any], deployment: int) -> None:
    """Write down what a device says it has under handles, unless a later deployment has said so before."""
    insert: Any = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(SLOTS)
    statement = insert.on_conflict_do_update(
        index_elements=["fleet", "device", "handle"],
        set_={"package": insert.excluded.package, "deployment": insert.excluded.deployment},
        where=SLOTS.c.deployment <= insert.excluded.deployment,
    )
    for handle in sorted(packages):
        connection.execute(
            statement,
            {
                "fleet": fleet,
                "device": device,
                "handle": handle,
                "owner": 0,
                "package": packages[handle],
                "deployment": deployment,
            },
        )


def chunks(names: Sequence[Any]) -> list[Sequence[Any]]:
    """Cut a list into parts that fit a statement."""
    return [names[start : start + MOST_NAMES] for start in range(0, len(names), MOST_NAMES)]


def _open_elsewhere(connection: Connection, stage: int, fleet: str, devices: Sequence[str]) -> list[Row[Any]]:
    open_words = [str(progress) for progress in OPEN]
    return [
        row
        for some in chunks(sorted(devices))
        for row in connection.execute(
            select(DEPLOYMENTS)
            .where(
                DEPLOYMENTS.c.fleet == fleet,
                DEPLOYMENTS.c.device.in_(some),
                DEPLOYMENTS.c.progress.in_(open_words),
                or_(DEPLOYMENTS.c.stage.is_(None), DEPLOYMENTS.c.stage != stage),
            )
            .order_by(DEPLOYMENTS.c.id)
            .with_for_update()
        )
    ]


def _drop(connection: Connection, row: Row[Any], handles: Collection[str], message: str) -> None:
    """Take handles out of a deployment, and with the last of them the deployment out of its stage."""
    definitions = {handle: package for handle, package in row.definitions.items() if handle not in handles}
    values: dict[str, Any] = {"definitions": definitions, "message": f"{', '.join(sorted(handles))} {message}"}
    if not definitions:
        values["progress"] = Progress.SUPERSEDED
        values["definitions"] = row.definitions
    connection.execute(update(DEPLOYMENTS).where(DEPLOYMENTS.c.id == row.id).values(values))
    if row.reverts and not definitions:
        connection.execute(
            update(DEPLOYMENTS)
            .where(
                DEPLOYMENTS.c.fleet == row.fleet,
                DEPLOYMENTS.c.device == row.device,
                DEPLOYMENTS.c.stage == row.stage,
                DEPLOYMENTS.c.progress == Progress.REVERTING,
            )
            .values(progress=Progress.SUPERSEDED, message=message)
        )
