"""The conduct of a stage: reads it as `rollout.py` sees it, and does in the database what `rollout.py` says.

Every function works within its caller's transaction and holds the stage's row locked, so that any process may do it at
any time: what it decides, it decides from what is written, and a process that dies half-way has done nothing.

Invariant: locks are taken in this order: a stage's row, its fleet's, rows of deployments, rows of slots.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, delete, func, insert, select, update

from lightkeeper.hub import ownership
from lightkeeper.hub.ownership import Packages, chunks
from lightkeeper.hub.plansettings import ROLLBACK, rollout_settings
from lightkeeper.hub.rollout import (
    IN_FLIGHT,
    TO_REVERT,
    TRIED_AGAIN,
    InFlight,
    Progress,
    Stage,
    StageStatus,
    Step,
    advance,
)
from lightkeeper.hub.selection import Selection, allot
from lightkeeper.hub.tables.fleet import DEVICES, FLEETS
from lightkeeper.hub.tables.rollout import DEPLOYMENTS, PLANS, STAGES

NAME_MAXIMUM = 63
MOST_SENT_BACK = 500
"""How many devices one transaction sends back."""

D = DEPLOYMENTS.c

log = logging.getLogger(__name__)


def lock(connection: Connection, stage: int) -> Row[Any] | None:
    """Lock a stage and return its row, with its plan's `fleet`, `packages` and `settings`; None if it is gone."""
    return connection.execute(
        select(STAGES, PLANS.c.fleet, PLANS.c.packages, PLANS.c.settings)
        .join(PLANS)
        .where(STAGES.c.id == stage)
        .with_for_update(of=STAGES)
    ).first()


def view(connection: Connection, row: Row[Any], now_ms: int) -> Stage:
    """Return a stage as `rollout.py` sees it; of the devices in flight, those that have run out of time."""
    of_stage = (D.stage == row.id, D.reverts.is_(False))
    settings = rollout_settings(row.settings, row.policy)
    counts = connection.execute(select(D.progress, func.count()).where(*of_stage).group_by(D.progress))
    overdue = connection.execute(
        select(D.device, D.progress, D.since_ms).where(
            *of_stage,
            D.progress.in_([str(one) for one in IN_FLIGHT]),
            D.since_ms <= now_ms - settings.device_timeout_ms,
        )
    )
    return Stage(
        StageStatus(row.status),
        settings,
        {Progress(progress): number for progress, number in counts},
        tuple(InFlight(device, Progress(progress), since_ms) for device, progress, since_ms in overdue),
    )


def tick(connection: Connection, stage: int, now_ms: int) -> None:
    """Do what a stage needs now; what is too much for one transaction is left for the next."""
    row = lock(connection, stage)
    if row is None:
        return
    if row.status == StageStatus.STARTING:
        _begin(connection, row, now_ms)
        row = lock(connection, stage)
        if row is None:
            return
    seen = view(connection, row, now_ms)
    step = advance(seen, now_ms)
    _time_out(connection, row, step, now_ms)
    if step.withdraw:
        _move(connection, row, now_ms, Progress.WAITING, D.progress == Progress.OFFERED)
    left_to_revert = step.revert and _revert(connection, row, now_ms)
    if step.offer:
        _offer(connection, row, _rows(connection, row, {Progress.WAITING}, limit=step.offer), now_ms)
    changed = step.status is not seen.status
    ticking = step.status.is_active or left_to_revert
    if changed or ticking != row.ticking:
        message = step.message if changed else row.message
        _set(connection, row, now_ms, status=step.status, message=message, ticking=ticking)
    if changed:
        level = logging.WARNING if step.status is StageStatus.FAILED else logging.INFO
        log.log(
            level,
            "stage_status",
            extra={"plan": row.plan, "stage": row.name, "status": step.status.value, "why": step.message},
        )


def give_place(connection: Connection, row: Row[Any], one: Row[Any], now_ms: int) -> bool:
    """Make a device of a stage that asked out of its turn an offer; return whether there was a place for it.

    That is the place of the last device that has an offer and has not asked, or a free one.
    """
    offers = select(D.id).where(D.stage == row.id, D.reverts.is_(False), D.progress == Progress.OFFERED)
    last = connection.scalar(offers.order_by(D.turn.desc(), D.id.desc()).limit(1))
    if last is None and view(connection, row, now_ms).room == 0:
        return False
    both = select(DEPLOYMENTS).where(D.id.in_([one.id, last])).order_by(D.id).with_for_update()
    found = {each.id: each for each in connection.execute(both)}
    if one.id not in found or found[one.id].progress != one.progress:
        return False
    _move(connection, row, now_ms, Progress.WAITING, D.id == last, D.progress == Progress.OFFERED)
    _offer(connection, row, [found[one.id]], now_ms)
    return True


def devices_of(connection: Connection, fleet: str) -> list[str]:
    """Return the names of a fleet's devices."""
    return list(connection.scalars(select(DEVICES.c.name).where(DEVICES.c.fleet == fleet).order_by(DEVICES.c.name)))


def allotted(connection: Connection, plan: str, devices: Sequence[str]) -> dict[int, list[str]]:
    """Return the devices of each stage of a plan by its id: those it chose, or would choose if it were started now."""
    stages = connection.execute(
        select(STAGES.c.id, STAGES.c.selection, STAGES.c.selected)
        .where(STAGES.c.plan == plan)
        .order_by(STAGES.c.position)
    ).all()
    members: dict[int, list[str]] = {stage.id: [] for stage in stages if stage.selected}
    chosen = (
        select(D.stage, D.device)
        .join(STAGES, D.stage == STAGES.c.id)
        .where(STAGES.c.plan == plan, D.reverts.is_(False))
        .order_by(D.turn)
    )
    for stage, device in connection.execute(chosen):
        members[stage].append(device)
    return allot([(stage.id, Selection.parse(stage.selection)) for stage in stages], devices, members, seed=plan)


def send_back(connection: Connection, rows: Iterable[Row[Any]], now_ms: int) -> set[int]:
    """Tell devices to go back to what they had, where their stage is still the owner; return the rows' ids it was."""
    rows = list(rows)
    told, ids = [], set()
    for fleet in sorted({row.fleet for row in rows}):
        of_fleet = [row for row in rows if row.fleet == fleet]
        slots = ownership.slots(connection, fleet, sorted({row.device for row in of_fleet}))
        for row in of_fleet:
            owned = {handle for handle, slot in slots[row.device].items() if slot.owner == row.stage}
            back = {handle: row.previous.get(handle) for handle in row.definitions if handle in owned}
            if back:
                ids.add(row.id)
                values = _new(row, now_ms, reverts=True, progress=Progress.OFFERED, definitions=back)
                told.append(values | {"previous": dict(row.definitions)})
    if told:
        connection.execute(insert(DEPLOYMENTS), told)
    return ids


def send_all_back(connection: Connection, stage: int, now_ms: int) -> None:
    """Send every device back that a failed stage would have sent back at its next ticks."""
    row = lock(connection, stage)
    while row is not None and row.status == StageStatus.FAILED and row.policy == ROLLBACK:
        if not _revert(connection, row, now_ms):
            return


def _new(row: Row[Any], now_ms: int, **values: Any) -> dict[str, Any]:
    """Return a deployment like another, under a name of its own."""
    same = {name: getattr(row, name) for name in ("fleet", "device", "stage", "plan", "policy", "turn")}
    fresh = {"since_ms": now_ms, "taken_ms": None, "ended_ms": None, "message": ""}
    return {"name": _name(row.plan), **same, **fresh, **values}


def _name(plan: str) -> str:
    """Return a deployment's name: never one that was given before, not even by a hub that was lost."""
    ending = f"-{secrets.token_hex(8)}"
    return plan[: NAME_MAXIMUM - len(ending)].rstrip("-") + ending


def _begin(connection: Connection, row: Row[Any], now_ms: int) -> None:
    """Choose the devices, or give those that missed it another turn, and take their handles over."""
    connection.execute(select(FLEETS.c.name).where(FLEETS.c.name == row.fleet).with_for_update(key_share=True)).first()
    if row.selected:
        rows = _turns_again(connection, row)
    else:
        chosen = allotted(connection, row.plan, devices_of(connection, row.fleet))[row.id]
        rows = [(device, turn, {}) for turn, device in enumerate(chosen)]
    meant = ownership.take_over(connection, row, [device for device, _, _ in rows])
    told = [
        {
            "name": _name(row.plan),
            "fleet": row.fleet,
            "device": device,
            "stage": row.id,
            "plan": row.plan,
            "reverts": False,
            "progress": Progress.WAITING,
            "turn": turn,
            "policy": row.policy,
            "definitions": dict(row.packages),
            "previous": previous | meant.get(device, {}),
            "since_ms": now_ms,
            "message": "",
        }
        for device, turn, previous in rows
    ]
    if told:
        connection.execute(insert(DEPLOYMENTS), told)
    _set(connection, row, now_ms, status=StageStatus.IN_PROGRESS, selected=True, message="")


def _turns_again(connection: Connection, row: Row[Any]) -> list[tuple[str, int, Packages]]:
    """Forget how far the devices came that get another turn; return them with their turns and what they had before.

    What they had is looked up anew, but for handles that nobody else has taken over since: who was on the way back
    still has the new version.
    """
    again = _rows(connection, row, TRIED_AGAIN)
    slots = ownership.slots(connection, row.fleet, sorted(one.device for one in again))
    kept = []
    for one in again:
        owned = {handle for handle, slot in slots[one.device].items() if slot.owner == row.id}
        had = one.previous if one.taken_ms is not None else {}
        kept.append((one.device, one.turn, {handle: had[handle] for handle in had if handle in owned}))
    for some in chunks([one.device for one in again]):
        connection.execute(delete(DEPLOYMENTS).where(D.stage == row.id, D.device.in_(some)))
    return kept


def _time_out(connection: Connection, row: Row[Any], step: Step, now_ms: int) -> None:
    """Take the places of devices that ran out of time, unless they did something meanwhile."""
    for devices, before, after in (
        (step.absent, Progress.OFFERED, Progress.ABSENT),
        (step.silent, Progress.TAKEN, Progress.SILENT),
    ):
        for some in chunks(devices):
            _move(connection, row, now_ms, after, D.progress == before, D.device.in_(some))


def _offer(connection: Connection, row: Row[Any], waiting: Sequence[Row[Any]], now_ms: int) -> None:
    """Give devices an offer, and write down what they have now."""
    slots = ownership.slots(connection, row.fleet, sorted(one.device for one in waiting))
    offers = []
    for one in waiting:
        has = {handle: slot.package for handle, slot in slots[one.device].items()}
        previous = {handle: has.get(handle) for handle in one.definitions} | one.previous
        offers.append({"row": one.id, "had": previous})
    if offers:
        connection.execute(
            update(DEPLOYMENTS)
            .where(D.id == bindparam("row"))
            .values(progress=Progress.OFFERED, since_ms=now_ms, previous=bindparam("had", type_=D.previous.type)),
            offers,
        )


def _revert(connection: Connection, row: Row[Any], now_ms: int) -> bool:
    """Send devices back that have the new version or may have it; return whether some are left."""
    some = _rows(connection, row, TO_REVERT, limit=MOST_SENT_BACK)
    sent = send_back(connection, some, now_ms)
    for ids, progress in (
        (sorted(sent), Progress.REVERTING),
        (sorted({one.id for one in some} - sent), Progress.SUPERSEDED),
    ):
        if ids:
            _move(connection, row, now_ms, progress, D.id.in_(ids))
    return len(some) == MOST_SENT_BACK


def _rows(
    connection: Connection, row: Row[Any], progress: Iterable[Progress], limit: int | None = None
) -> Sequence[Row[Any]]:
    """Lock and return deployments of a stage, in the order of their turns."""
    return connection.execute(
        select(DEPLOYMENTS)
        .where(D.stage == row.id, D.reverts.is_(False), D.progress.in_([str(one) for one in progress]))
        .order_by(D.turn, D.id)
        .limit(limit)
        .with_for_update()
    ).all()


def _move(connection: Connection, row: Row[Any], now_ms: int, progress: Progress, *which: ColumnElement[bool]) -> None:
    """Put deployments of a stage where they stand now."""
    connection.execute(
        update(DEPLOYMENTS)
        .where(D.stage == row.id, D.reverts.is_(False), *which)
        .values(progress=progress, since_ms=now_ms)
    )


def _set(connection: Connection, row: Row[Any], now_ms: int, **values: Any) -> None:
    """Change a stage, and with it its plan."""
    connection.execute(update(STAGES).where(STAGES.c.id == row.id).values(values))
    connection.execute(update(PLANS).where(PLANS.c.name == row.plan).values(modified_ms=now_ms))
