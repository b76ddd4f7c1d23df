"""Provider `None`: everything stays on the device."""

from __future__ import annotations

import logging

from lightkeeper.errors import CloudAbsent
from lightkeeper.providers.base import ObjectStore, ProviderOptions
from lightkeeper.providers.fleet import Fleet
from lightkeeper.providers.report import Heartbeat, Registration

log = logging.getLogger(__name__)


class NoProvider:
    """See `Provider`."""

    takes_parts = False

    def __init__(self, options: ProviderOptions) -> None:
        """Take nothing of the options: there is nobody to talk to."""

    def store(self, bucket: str) -> ObjectStore:
        """Raise `CloudAbsent`: captures stay on the disk."""
        raise CloudAbsent(f"provider None reaches no bucket {bucket}")

    def fleet(self) -> Fleet | None:
        """Return None: nobody deploys."""
        return None

    def registration(self) -> Registration | None:
        """Return None: nobody registers."""
        return None

    def send_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Say it in the log, at level debug."""
        log.debug(
            "heartbeat",
            extra={
                "agent_metrics": {metric.name: metric.value for metric in heartbeat.metrics},
                "models": {
                    f"{model.name} {model.version}": {metric.name: metric.value for metric in model.metrics}
                    for model in heartbeat.models
                },
                "latest": {
                    f"{model.name} {model.version}": {
                        "inference": model.latest_inference,
                        "sample": model.latest_sample,
                    }
                    for model in heartbeat.models
                },
            },
        )

    def close(self) -> None:
        """Nothing to let go of."""
