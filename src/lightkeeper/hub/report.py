"""GetDeviceFleetReport: how many devices are there and run what, from the latest that each said of itself.

A device is connected if its last heartbeat is at most `connected_seconds` old; a model of a connected device is active
if it ran within that time, and sampling if it was sampled within it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from lightkeeper.hub import fleets, latest
from lightkeeper.hub.arns import fleet_arn
from lightkeeper.hub.context import Context
from lightkeeper.hub.tables.fleet import DEVICES

_COUNTS = ("OfflineDeviceCount", "ConnectedDeviceCount", "ActiveDeviceCount", "SamplingDeviceCount")


def report(context: Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """GetDeviceFleetReport. Raises `FleetUnknown`."""
    name = given["DeviceFleetName"]
    since_ms = context.now_ms - context.settings.connected_seconds * 1000
    registered = connected = 0
    agents: Counter[str] = Counter()
    models: dict[tuple[str, str], Counter[str]] = {}
    with context.read() as connection:
        fleet = fleets.find(connection, name)
        columns = (DEVICES.c.heartbeat_ms, DEVICES.c.agent_version, DEVICES.c.models)
        for row in connection.execute(select(*columns).where(DEVICES.c.fleet == name)):
            registered += 1
            is_connected = row.heartbeat_ms is not None and row.heartbeat_ms >= since_ms
            connected += is_connected
            if row.agent_version is not None:
                agents[latest.version(row.agent_version)] += 1
            for model in latest.models(row.models):
                counts = models.setdefault((model["ModelName"], model["ModelVersion"]), Counter())
                counts["ConnectedDeviceCount" if is_connected else "OfflineDeviceCount"] += 1
                if is_connected:
                    counts["ActiveDeviceCount"] += model.get("LatestInference", 0) >= since_ms
                    counts["SamplingDeviceCount"] += model.get("LatestSampleTime", 0) >= since_ms
    return {
        "DeviceFleetArn": fleet_arn(context.settings, name),
        "DeviceFleetName": name,
        "OutputConfig": fleet.output_config,
        "Description": fleet.description,
        "ReportGenerated": context.now_ms,
        "DeviceStats": {"ConnectedDeviceCount": connected, "RegisteredDeviceCount": registered},
        "AgentVersions": [{"Version": version, "AgentCount": count} for version, count in sorted(agents.items())],
        "ModelStats": [
            {"ModelName": model, "ModelVersion": version, **{count: counts[count] for count in _COUNTS}}
            for (model, version), counts in sorted(models.items())
        ],
    }
