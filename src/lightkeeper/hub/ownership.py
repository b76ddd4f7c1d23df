"""Ownership: which stage may change what a device has under a model handle.

A stage that starts becomes the owner of its handles on its devices, whatever earlier stages still had in mind for them:
a device that is stuck never blocks a later plan. What an earlier stage's deployment said about such a handle is dropped
from it; a deployment that has nothing left to say is SUPERSEDED.

Invariant: of all deployments that are open for a device, no two say something about one handle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, or_, select, update
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
    whole: list[Row[Any]] = []
    part: list[dict[str, Any]] = []
    for row in _open_elsewhere(connection, stage.id, fleet, devices):
        taken = wanted.intersection(row.definitions)
        if not taken:
            continue
        if row.reverts:
            meant[row.device].update({handle: row.definitions[handle] for handle in taken})
        left = {handle: package for handle, package in row.definitions.items() if handle not in taken}
        if left:
            part.append({"row": row.id, "left": left, "why": f"{', '.join(sorted(taken))} taken over by {stage.plan}"})
        else:
            whole.append(row)
    _supersede(connection, whole, f"taken over by plan {stage.plan}")
    if part:
        connection.execute(_CUT, part)
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


_CUT = (
    update(DEPLOYMENTS)
    .where(DEPLOYMENTS.c.id == bindparam("row"))
    .values(definitions=bindparam("left", type_=DEPLOYMENTS.c.definitions.type), message=bindparam("why"))
)


def _supersede(connection: Connection, rows: Sequence[Row[Any]], message: str) -> None:
    """Take deployments out of their stages; who was on the way back from one has left that too."""
    values = {"progress": Progress.SUPERSEDED, "message": message}
    for some in chunks([row.id for row in rows]):
        connection.execute(update(DEPLOYMENTS).where(DEPLOYMENTS.c.id.in_(some)).values(values))
    on_the_way = defaultdict[int, list[str]](list)
    for row in rows:
        if row.reverts and row.stage is not None:
            on_the_way[row.stage].append(row.device)
    for stage, devices in sorted(on_the_way.items()):
        for some in chunks(sorted(devices)):
            left = (DEPLOYMENTS.c.stage == stage, DEPLOYMENTS.c.device.in_(some))
            reverting = DEPLOYMENTS.c.progress == Progress.REVERTING
            connection.execute(update(DEPLOYMENTS).where(*left, reverting).values(values))
