"""What a device reports, and what it is told of its own standing: the values of heartbeats and registrations."""

from __future__ import annotations

from dataclasses import dataclass

from lightkeeper.providers.fleet import DeploymentResult


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure and when it was taken, in seconds since 1970 by the device's clock."""

    name: str
    value: float
    time: float


@dataclass(frozen=True, slots=True)
class ModelReport:
    """A loaded model. Times are in seconds since 1970, None before the first."""

    name: str
    version: str
    latest_sample: float | None
    latest_inference: float | None
    metrics: tuple[Metric, ...]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A report of the whole device. `result` is that of a deployment that the fleet does not know yet."""

    agent_version: str
    metrics: tuple[Metric, ...]
    models: tuple[ModelReport, ...]
    result: DeploymentResult | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """Whether the device is registered with its fleet, and for how long that answer holds."""

    active: bool
    ttl_seconds: float
