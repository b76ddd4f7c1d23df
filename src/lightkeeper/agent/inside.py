"""The inside of an agent: a configuration becomes the service that a socket, or a C function, lets callers in to."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightkeeper.agent import cloud, modelling
from lightkeeper.agent.captures import Captures
from lightkeeper.config import Config
from lightkeeper.errors import StateDiskBroken
from lightkeeper.heartbeat import Heartbeats
from lightkeeper.models.lifecycle import Models
from lightkeeper.providers.base import Provider
from lightkeeper.providers.fleet import Fleet
from lightkeeper.registry import Registry
from lightkeeper.service import AgentService
from lightkeeper.state import StateFolder, memory_folder

if TYPE_CHECKING:
    from lightkeeper.deployment.engine import Deployments

FIRST_POLL_SECONDS = 30.0
"""Within so long after the start the fleet is asked for deployments for the first time."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Inside:
    """What answers calls, and what is started once calls are let in."""

    service: AgentService
    models: Models
    registry: Registry
    deployments: Deployments | None
    heartbeats: Heartbeats

    def start(self, stack: ExitStack) -> None:
        """Start what works beside the calls; the stack ends it."""
        self.models.start()
        stack.callback(self.models.stop)
        if self.deployments is not None:
            self.deployments.start()
            stack.callback(self.deployments.stop)
        self.heartbeats.start()
        stack.callback(self.heartbeats.stop)

    def close_models(self) -> None:
        """Wait for the calls that use each model, and give its memory back; another start loads them again."""
        for model in self.registry.models():
            self.registry.take(model.description.name).close()


def compose(
    config: Config, stack: ExitStack, *, fleet: Fleet | None = None, first_poll_seconds: float = FIRST_POLL_SECONDS
) -> Inside:
    """Take the state folder and start capture; the stack ends both. Raises a `ConfigurationError`.

    `fleet` gives deployments; it is asked for the first time within `first_poll_seconds` of the start.
    """
    provider = cloud.provider(config)
    stack.callback(provider.close)
    captures, state = _open_state(config, stack, provider)
    registry = Registry()
    models = modelling.models(config, registry, state)
    due = threading.Event()
    deployments = modelling.deploying(
        config, models, fleet or provider.fleet(), state, first_poll_seconds=first_poll_seconds, finished=due.set
    )
    starts = cloud.Starts(state / "starts.json")
    stack.callback(starts.ended)
    heartbeats = Heartbeats(
        provider,
        cloud.Report(models, captures, deployments, starts),
        interval_seconds=config.heartbeat_seconds,
        due=due,
        acknowledge=deployments.acknowledge if deployments is not None else None,
    )
    service = AgentService(registry=registry, models=models, captures=captures)
    return Inside(service, models, registry, deployments, heartbeats)


def _open_state(config: Config, stack: ExitStack, provider: Provider) -> tuple[Captures, Path]:
    """Return the captures and the folder of the agent's state; on a broken disk both do without it."""
    path = config.state_path
    try:
        stack.callback(StateFolder(path).close)
    except StateDiskBroken as fault:
        log.error("state_disk_broken", extra={"detail": fault.message, "next_step": fault.next_step})  # noqa: TRY400  # a refusal, no bug
        return Captures(config, path, provider, fault=fault), Path(stack.enter_context(memory_folder()))
    captures = Captures(config, path, provider)
    stack.callback(captures.stop)
    captures.start()
    return captures, path
