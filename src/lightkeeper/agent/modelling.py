"""Composes what happens to models: packages -> loader -> stock -> `Models` <- deployments."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lightkeeper import resources
from lightkeeper.config import Config
from lightkeeper.loader import ModelLoader
from lightkeeper.modelpackage.limits import Limits
from lightkeeper.modelpackage.manifest import SwapLimits
from lightkeeper.modelpackage.package import PackageStore
from lightkeeper.modelpackage.shelf import Shelf
from lightkeeper.modelpackage.target import Host
from lightkeeper.modelpackage.trustrecord import TrustRecord
from lightkeeper.models.lifecycle import Models
from lightkeeper.models.record import ModelRecord
from lightkeeper.models.stock import Stock
from lightkeeper.providers.fleet import Fleet
from lightkeeper.registry import Registry
from lightkeeper.runtimes.base import RuntimeOptions
from lightkeeper.runtimes.discovery import Runtimes

if TYPE_CHECKING:
    from lightkeeper.deployment.engine import Deployments

FETCHED_FOLDER = "deployments"

log = logging.getLogger(__name__)


def deploying(  # noqa: PLR0913  # collaborators, called from one place
    config: Config,
    models: Models,
    fleet: Fleet | None,
    state: Path,
    *,
    first_poll_seconds: float,
    finished: Callable[[], None],
) -> Deployments | None:
    """Return what makes the models what the fleet wants, or None where there is no such wish.

    Made before the models start, since it holds packages of a deployment that was cut short. `finished` is told that
    a deployment's result waits to be sent.
    """
    if not config.deployments_enabled:
        return None
    if fleet is None or state != config.state_path:
        reason = "the state folder's disk is broken" if fleet else "no provider of this configuration gives deployments"
        log.warning("deployments_off", extra={"reason": reason})
        return None
    from lightkeeper.deployment.engine import Deployments, Polling
    from lightkeeper.deployment.fetching import Fetching
    from lightkeeper.deployment.journal import Journal

    stopping = threading.Event()
    interval_seconds = config.deployment_interval_seconds
    return Deployments(
        fleet,
        models,
        Journal(state / "deployments.json"),
        Fetching(fleet, state / FETCHED_FOLDER, most_bytes=config.max_package_bytes, stopping=stopping),
        polling=Polling(interval_seconds, min(first_poll_seconds, interval_seconds)),
        stopping=stopping,
        finished=finished,
    )


def models(config: Config, registry: Registry, state: Path) -> Models:
    """Return the models of an agent, which publishes them in the registry.

    `state` is where state is kept; where that is not the configured folder, its disk is broken, and nothing is kept for
    another start.
    """
    cpus = resources.usable_cpus()
    store = PackageStore(
        root_certs=config.root_certs_path,
        staging=state / "staging",
        record=TrustRecord(state / "trust.json"),
        host=Host.this(),
        limits=Limits(packed_bytes=config.max_package_bytes, unpacked_bytes=config.max_package_bytes),
    )
    kept = state == config.state_path and (config.restore_models or config.deployments_enabled)
    shelf = Shelf(state / "packages") if kept else None
    loader = ModelLoader(
        store=store,
        runtimes=Runtimes(RuntimeOptions(threads=min(config.threads or cpus, cpus))),
        memory_reserve_bytes=config.memory_reserve_bytes,
        shelf=shelf,
    )
    stock = Stock(
        registry=registry,
        loader=loader,
        record=ModelRecord(state / "models.json" if kept else None),
        shelf=shelf,
        recent_inputs=config.swap_inputs,
    )
    limits = SwapLimits(
        latency_ratio=config.swap_latency_ratio,
        absolute_difference=config.swap_absolute_difference,
        relative_difference=config.swap_relative_difference,
        argmax_disagreement=config.swap_argmax_disagreement,
        failure_share=config.swap_failure_share,
    )
    return Models(stock, limits=limits, watch_seconds=config.swap_watch_seconds, restore=config.restore_models)
