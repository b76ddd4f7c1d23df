"""The latest that a device said of itself, in its row: agent version, models, and when.

Invariant: a heartbeat changes one row, found by its key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, update

from lightkeeper.hub.tables.fleet import DEVICES

MODEL_NAME_CHARACTERS = 63
VERSION_CHARACTERS = 30
"""What Describe- and ListDevices can say; a heartbeat may say more, and is cut to it there."""

_KEPT = ("ModelName", "ModelVersion", "LatestSampleTime", "LatestInference")

_UPDATE = (
    update(DEVICES)
    .where(DEVICES.c.fleet == bindparam("in_fleet"), DEVICES.c.name == bindparam("of_name"))
    .values({name: bindparam(name) for name in ("heartbeat_ms", "agent_version", "models", "model_names")})
)


def keep(connection: Connection, heartbeat: Mapping[str, Any], now_ms: int) -> bool:
    """Keep what a SendHeartbeat's input says, but for metrics. Return whether the device is registered."""
    kept = [{name: model[name] for name in _KEPT if name in model} for model in heartbeat.get("Models", ())]
    names = "".join(f"{model['ModelName']}\n" for model in kept if "ModelName" in model)
    changed = connection.execute(
        _UPDATE,
        {
            "in_fleet": heartbeat["DeviceFleetName"],
            "of_name": heartbeat["DeviceName"],
            "heartbeat_ms": now_ms,
            "agent_version": heartbeat["AgentVersion"],
            "models": kept,
            "model_names": f"\n{names}",
        },
    )
    return changed.rowcount == 1


def has_model(name: str) -> ColumnElement[bool]:
    """Return the condition that a device's last heartbeat named this model."""
    return DEVICES.c.model_names.contains(f"\n{name}\n", autoescape=True)


def models(stored: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Return the models of a row as DescribeDevice says them; one without name or version cannot be said."""
    return [
        {
            **model,
            "ModelName": model["ModelName"][:MODEL_NAME_CHARACTERS].rstrip("-"),
            "ModelVersion": version(model["ModelVersion"]),
        }
        for model in stored or ()
        if "ModelName" in model and "ModelVersion" in model
    ]


def version(text: str) -> str:
    """Return a version as Describe- and ListDevices can say it."""
    return text[:VERSION_CHARACTERS]
