"""The composition root: a configuration becomes objects, which run until somebody says stop.

Threads: the main one waits for the stop event; the server's workers (see `transport/native_server.py` and
`transport/grpc_server.py`) answer calls;
those of the capture line (see `captures.py`) move captures; `signals` turns a signal into a stop.
A first SIGTERM or SIGINT lets calls under way finish within the grace time; a second one does not wait.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from lightkeeper import __version__, resources, system
from lightkeeper.agent import manager, transports
from lightkeeper.agent.inside import FIRST_POLL_SECONDS, compose
from lightkeeper.config import Config
from lightkeeper.config.values import Transport
from lightkeeper.providers.fleet import Fleet
from lightkeeper.service import AgentService
from lightkeeper.transport import CONTROL, SERVICE, door
from lightkeeper.transport.health import Health
from lightkeeper.transport.method import Caller
from lightkeeper.transport.reflection import Reflection
from lightkeeper.transport.servicer import Servicer

log = logging.getLogger(__name__)

WORKERS_PER_CPU = 8
WORKERS_LEAST = 16


class Agent:
    """One agent on one socket."""

    def __init__(
        self,
        config: Config,
        *,
        address: str,
        force: bool = False,
        fleet: Fleet | None = None,
        first_poll_seconds: float = FIRST_POLL_SECONDS,
    ) -> None:
        """Take the configuration, the address to serve, and whether to remove a stale socket file there.

        `fleet` gives deployments; it is asked for the first time within `first_poll_seconds` of the start.
        """
        self._fleet = fleet
        self._first_poll_seconds = first_poll_seconds
        self._config = config
        self._address = address
        self._force = force
        self._stopping = threading.Event()
        self._hurrying = threading.Event()

    def stop(self) -> None:
        """Ask `run` to end, from any thread; asked twice, it waits for no call."""
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    def run_until_signal(self) -> None:
        """Run until SIGTERM or SIGINT, or what stands for them on this system."""
        system.call_at_endings(self.stop)
        self.run()

    def run(self) -> None:
        """Serve until `stop`. Raises a `SocketError`, or a `ConfigurationError` about the state folder."""
        started = time.monotonic()
        with ExitStack() as stack:
            config = self._config
            entrance = door.at(self._address, mode=config.socket_mode, group=config.socket_group)
            stack.callback(entrance.remove)
            bind_address = entrance.claim(force=self._force)
            inside = compose(self._config, stack, fleet=self._fleet, first_poll_seconds=self._first_poll_seconds)
            health = Health((SERVICE, CONTROL))
            server, transport = transports.made(
                config.transport,
                lambda one: self._server(one, inside.service, health, entrance.token),
                token=entrance.token,
            )
            port = server.start(bind_address)
            stack.callback(server.stop, 0)
            entrance.publish(port)
            inside.start(stack)
            self._report_start(entrance.path, transport, time.monotonic() - started)
            manager.tell(manager.READY)
            self._stopping.wait()
            manager.tell(manager.STOPPING)
            log.info("agent_stopping", extra={"grace_seconds": self._config.grace_seconds})
            health.stop_serving()
            finished = server.stop(self._config.grace_seconds, self._hurrying)
        if not finished:
            log.warning("calls_cut_short", extra={"grace_seconds": self._config.grace_seconds})
        log.info("agent_stopped", extra={"calls_finished": finished})
        if not finished:
            logging.shutdown()
            os._exit(0)  # a thread still runs a model and would hold up the interpreter's end

    def _server(
        self, transport: Transport, service: AgentService, health: Health, token: str | None
    ) -> transports.ApiServer:
        config = self._config
        return transports.make(
            transport,
            {**Servicer(service).methods(), **health.methods(), **Reflection().methods()},
            caller=Caller(uid=_caller_uid(config.socket_mode)),
            worker_threads=max(WORKERS_LEAST, WORKERS_PER_CPU * resources.usable_cpus()),
            max_message_bytes=config.max_message_bytes,
            compress_above_bytes=config.compress_above_bytes or None,
            token=token,
        )

    def _report_start(self, path: Path, transport: Transport, seconds: float) -> None:
        config = self._config
        if not any(config.root_certs_path.glob("*.pem")):
            log.warning("root_certificates_missing", extra={"folder": str(config.root_certs_path)})
        log.info(
            "agent_started",
            extra={
                "address": str(path),
                "version": __version__,
                "transport": transport.value,
                "device": config.device_name,
                "fleet": config.device_fleet_name,
                "seconds": round(seconds, 3),
            },
        )


def _caller_uid(socket_mode: int) -> int | None:
    """Return who can only be calling: with a socket that only its owner may open, the agent's own user."""
    return system.user_id() if socket_mode & 0o777 == door.OWNER_ONLY else None
