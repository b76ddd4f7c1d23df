"""The agent's side of its cloud: the provider that the configuration names, and what heartbeats report."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from lightkeeper import __version__
from lightkeeper.config import Config
from lightkeeper.config.model import every_key
from lightkeeper.device import DeviceIdentity
from lightkeeper.providers import discovery
from lightkeeper.providers.base import DeviceCertificate, Provider, ProviderOptions
from lightkeeper.providers.report import Heartbeat, Metric, ModelReport
from lightkeeper.state import replace_file
from lightkeeper.tokenkey import KeyAddress

if TYPE_CHECKING:
    from lightkeeper.agent.captures import Captures
    from lightkeeper.deployment.engine import Deployments
    from lightkeeper.models.lifecycle import Models

MIB = 1024 * 1024

log = logging.getLogger(__name__)


def identity(config: Config) -> DeviceIdentity:
    """Return which device this is."""
    return DeviceIdentity(config.device_name, config.device_fleet_name, config.thing_name, config.region)


def provider(config: Config) -> Provider:
    """Return the provider. Raises `ProviderUnusable`."""
    options = ProviderOptions(
        device=identity(config),
        certificate=certificate(config),
        endpoint=config.endpoint_override,
        s3_endpoint=config.s3_endpoint,
        library=config.provider_path,
        configuration=as_strings(config),
    )
    return discovery.make(config.provider.value, options)


def as_strings(config: Config) -> Mapping[str, str]:
    """Return every key that has a value of one line, its defaults too, as a file would have it."""
    pairs = ((key.name, getattr(config, key.field)) for key in every_key())
    return {
        name: _string(value) for name, value in pairs if isinstance(value, str | bool | int | float | Path | KeyAddress)
    }


def _string(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, KeyAddress):
        return value.written()
    return value.value if isinstance(value, StrEnum) else str(value)


def certificate(config: Config) -> DeviceCertificate | None:
    """Return how the device proves who it is, or None where the configuration does not say."""
    endpoint, ca_file = config.aws_credential_endpoint, config.aws_ca_cert_file
    certificate_file, key = config.aws_cert_file, config.aws_private_key
    if endpoint is None or ca_file is None or certificate_file is None or key is None:
        return None
    return DeviceCertificate(endpoint, ca_file, certificate_file, key)


class Starts:
    """How often the agent was started, and how often it had not ended by itself: kept in the state folder."""

    def __init__(self, path: Path) -> None:
        """Count this start; a file that cannot be read counts from the beginning."""
        self._path = path
        kept = self._read()
        self.starts = kept.get("starts", 0) + 1
        self.crashes = kept.get("crashes", 0) + kept.get("running", 0)
        self._write(running=1)

    def ended(self) -> None:
        """Note that the agent ends as it was told to."""
        self._write(running=0)

    def _read(self) -> dict[str, int]:
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            return {str(name): int(value) for name, value in kept.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _write(self, *, running: int) -> None:
        kept = {"starts": self.starts, "crashes": self.crashes, "running": running}
        try:
            replace_file(self._path, json.dumps(kept).encode())
        except OSError as error:
            log.warning("starts_unwritable", extra={"file": str(self._path), "error": str(error)})


class Report:
    """Makes the heartbeats' content."""

    def __init__(self, models: Models, captures: Captures, deployments: Deployments | None, starts: Starts) -> None:
        self._models = models
        self._captures = captures
        self._deployments = deployments
        self._starts = starts
        self._reported = time.monotonic(), time.process_time()

    def __call__(self) -> Heartbeat:
        """Return a report of now; the processor's use is that since the last one."""
        import psutil

        now = time.time()
        before, used_before = self._reported
        after, used = self._reported = time.monotonic(), time.process_time()
        cpu_percent = 100 * (used - used_before) / max(after - before, 1e-3)
        resident_mib = psutil.Process().memory_info().rss / MIB
        metrics = {
            "Startups": self._starts.starts,
            "Crashes": self._starts.crashes,
            "CPUUtilization": cpu_percent,
            "MemoryUsedMiB": resident_mib,
            **self._captures.metrics(),
        }
        return Heartbeat(
            __version__,
            tuple(Metric(name, float(value), now) for name, value in metrics.items()),
            tuple(self._model_reports(now)),
            self._deployments.result() if self._deployments is not None else None,
        )

    def _model_reports(self, now: float) -> list[ModelReport]:
        reports = []
        for status in self._models.status():
            reading = status.reading
            metrics = {
                "Inferences": reading.inferences,
                "Failures": reading.failures,
                "LatencyMeanMs": reading.mean_seconds * 1000,
                "LatencyMaxMs": reading.slowest_seconds * 1000,
            }
            reports.append(
                ModelReport(
                    status.package.name,
                    status.package.version,
                    self._captures.latest_sample(status.name),
                    reading.last_inference,
                    tuple(Metric(name, float(value), now) for name, value in metrics.items()),
                )
            )
        return reports
