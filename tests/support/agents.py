"""Real agents in processes of their own, for tests that speak to them over their sockets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import psutil

START_SECONDS = 30.0
TRANSPORT_VARIABLE = "LIGHTKEEPER_TEST_TRANSPORT"
"""Names the server that the agents of a test run use: `native` or `grpcio`."""


class RunningAgent:
    """`lightkeeper agent` in a folder, with a configuration of these keys."""

    def __init__(
        self,
        folder: Path,
        keys: Mapping[str, object],
        *,
        program: tuple[str, ...] = (sys.executable, "-m", "lightkeeper", "agent"),
        flags: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        scheme: str | None = "unix",
    ) -> None:
        """Start it at the scheme's address below the folder; without a scheme, at the system's default address."""
        self.folder = folder
        self._scheme = scheme
        self.socket = folder / "agent.sock"
        self.log_file = folder / "agent.log"
        self.config = folder / "config.json"
        self.config.write_text(json.dumps(keys))
        self.log_file.touch()
        self._earlier_starts = len(self.events("agent_started"))
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*program, *(("-a", self.address) if scheme else ()), "-c", str(self.config), *flags],
                stderr=log,
                stdout=log,
                env=_surroundings() | dict(environment or {}),
            )

    @property
    def address(self) -> str:
        """The address of the socket, or of the file that stands in for it."""
        return f"{self._scheme}:{self.socket}"

    def wait_until_started(self) -> Self:
        """Wait for the line that says that the agent serves; those of earlier agents do not count."""
        deadline = time.monotonic() + START_SECONDS
        while len(self.events("agent_started")) <= self._earlier_starts:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(f"the agent did not start:\n{self.log_file.read_text()}")
            time.sleep(0.01)
        return self

    def events(self, word: str) -> list[dict[str, Any]]:
        """Return the log lines of one event."""
        lines = [line for line in self.log_file.read_text().splitlines() if line.startswith("{")]
        return [line for line in map(json.loads, lines) if line["event"] == word]

    def stop(self, number: int = signal.SIGTERM, timeout_seconds: float = 30.0) -> int:
        """Send a signal and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout_seconds)

    def resident_bytes(self) -> int:
        """Return how much memory the process holds."""
        resident: int = psutil.Process(self.process.pid).memory_info().rss
        return resident

    def open_files(self) -> int:
        """Return how many descriptors the process has open."""
        count: int = psutil.Process(self.process.pid).num_fds()
        return count


class AgentProcess(RunningAgent):
    """An agent with provider None; `settings` are further configuration keys."""

    def __init__(
        self,
        folder: Path,
        root_certs: Path,
        *,
        settings: Mapping[str, object] | None = None,
        **how: Any,
    ) -> None:
        """`how` is what `RunningAgent` takes further."""
        keys: dict[str, object] = {
            "sagemaker_edge_core_device_name": "test-device",
            "sagemaker_edge_core_device_fleet_name": "test-fleet",
            "sagemaker_edge_core_root_certs_path": str(root_certs),
            "sagemaker_edge_provider_provider": "None",
            "sagemaker_edge_core_capture_data_disk_path": str(folder / "captures"),
            "sagemaker_edge_local_data_root_path": str(folder / "state"),
            "lightkeeper_transport": os.environ.get(TRANSPORT_VARIABLE, "auto"),
        }
        super().__init__(folder, keys | dict(settings or {}), **how)


def _surroundings() -> dict[str, str]:
    """Return the environment without what would give an agent other credentials than its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
