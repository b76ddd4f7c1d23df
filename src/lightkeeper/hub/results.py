"""Results: what becomes of a deployment when its device answers.

Invariants: of all answers about a deployment the first final one counts, whenever it comes, and whatever has become of
the stage; an answer about a deployment that this device was never given changes nothing. A failure is weighed in the
transaction that writes it down: no other device takes a version between the failure that is one too many and the end
of its stage.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, select, update

from lightkeeper.hub import conduct, ownership
from lightkeeper.hub.outcome import Outcome, outcome
from lightkeeper.hub.plansettings import ROLLBACK
from lightkeeper.hub.rollout import Progress, answered
from lightkeeper.hub.tables.rollout import DEPLOYMENTS

D = DEPLOYMENTS.c

log = logging.getLogger(__name__)


def record(connection: Connection, fleet: str, device: str, result: Mapping[str, Any], now_ms: int) -> None:
    """Take a device's DeploymentResult in."""
    name = result.get("DeploymentName", "")
    told = (D.name == name, D.fleet == fleet, D.device == device)
    known = connection.execute(select(DEPLOYMENTS).where(*told)).first()
    about = {"deployment": name, "device": device, "fleet": fleet}
    if known is None or known.taken_ms is None:
        log.info("deployment_result_unknown", extra=about)
        return
    said = outcome(result, known.definitions)
    if said is None or known.ended_ms is not None:
        log.debug("deployment_result_ignored", extra=about | {"final": said is not None})
        return
    stage = known.stage
    if stage is not None and (known.reverts or not said.succeeded):
        conduct.lock(connection, stage)
    row = connection.execute(select(DEPLOYMENTS).where(*told, D.ended_ms.is_(None)).with_for_update()).first()
    if row is None:
        return
    done = {handle: package for handle, package in row.definitions.items() if handle in said.done}
    ownership.keep(connection, fleet, device, done, row.id)
    if row.reverts:
        _end_way_back(connection, row, said, now_ms)
    else:
        _end(connection, row, said, now_ms)
    log.log(
        logging.INFO if said.succeeded else logging.WARNING,
        "deployment_ended",
        extra=about | {"succeeded": said.succeeded, "reverts": row.reverts, "why": said.message},
    )
    if stage is not None and not row.reverts and not said.succeeded:
        conduct.tick(connection, stage, now_ms)


def _end(connection: Connection, row: Row[Any], said: Outcome, now_ms: int) -> None:
    """Write down how a deployment ended; a device that is neither old nor new is sent back at once."""
    before = Progress(row.progress)
    after = answered(before, succeeded=said.succeeded)
    values: dict[str, Any] = {"ended_ms": now_ms}
    if after is not before:
        values |= {"progress": after, "since_ms": now_ms, "message": said.message}
    connection.execute(update(DEPLOYMENTS).where(D.id == row.id).values(values))
    if after is Progress.FAILED and not said.clean and row.policy == ROLLBACK and row.stage is not None:
        conduct.send_back(connection, [row], now_ms)


def _end_way_back(connection: Connection, row: Row[Any], said: Outcome, now_ms: int) -> None:
    """Write down how a way back ended, also in the deployment that it goes back from."""
    progress = Progress.SUCCEEDED if said.succeeded else Progress.FAILED
    values: dict[str, Any] = {"ended_ms": now_ms}
    if row.progress != Progress.SUPERSEDED:
        values |= {"progress": progress, "since_ms": now_ms, "message": said.message}
    connection.execute(update(DEPLOYMENTS).where(D.id == row.id).values(values))
    if row.stage is None:
        return
    after = Progress.REVERTED if said.succeeded else Progress.FAILED
    message = "rolled back" if said.succeeded else f"could not be rolled back: {said.message}"
    connection.execute(
        update(DEPLOYMENTS)
        .where(
            D.stage == row.stage,
            D.fleet == row.fleet,
            D.device == row.device,
            D.reverts.is_(False),
            D.progress == Progress.REVERTING,
        )
        .values(progress=after, since_ms=now_ms, message=message)
    )
    if not said.succeeded:
        log.error("rollback_failed", extra={"device": row.device, "fleet": row.fleet, "why": said.message})
