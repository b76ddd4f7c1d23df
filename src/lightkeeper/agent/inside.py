"""The inside of an agent: a configuration becomes the service that a socket, or a C function, lets callers in to."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lightkeeper.agent import modelling
from lightkeeper.agent.captures import Captures
from lightkeeper.config import Config
from lightkeeper.errors import StateDiskBroken
from lightkeeper.models.lifecycle import Models
from lightkeeper.registry import Registry
from lightkeeper.service import AgentService
from lightkeeper.state import StateFolder, memory_folder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Inside:
    """What answers calls, and what must be started once calls are let in (`models.start`)."""

    service: AgentService
    models: Models
    registry: Registry

    def close_models(self) -> None:
        """Wait for the calls that use each model, and give its memory back; another start loads them again."""
        for model in self.registry.models():
            self.registry.take(model.description.name).close()


def compose(config: Config, stack: ExitStack) -> Inside:
    """Take the state folder and start capture; the stack ends both. Raises a `ConfigurationError` about the folder."""
    captures, state = _open_state(config, stack)
    registry = Registry()
    models = modelling.models(config, registry, state)
    return Inside(AgentService(registry=registry, models=models, captures=captures), models, registry)


def _open_state(config: Config, stack: ExitStack) -> tuple[Captures, Path]:
    """Return the captures and the folder of the agent's state; on a broken disk both do without it."""
    path = config.state_path
    try:
        stack.callback(StateFolder(path).close)
    except StateDiskBroken as fault:
        log.error("state_disk_broken", extra={"detail": fault.message, "next_step": fault.next_step})  # noqa: TRY400  # a refusal, no bug
        return Captures(config, path, fault=fault), Path(stack.enter_context(memory_folder()))
    captures = Captures(config, path)
    stack.callback(captures.stop)
    captures.start()
    return captures, path
