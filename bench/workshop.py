"""What a run needs on the disk, and the two servers that are measured, each a process of its own.

The agent runs as on a device: the installed command, a configuration file, packages signed by an authority made here.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import models
from lightkeeper.config.values import Transport
from lightkeeper.resources import usable_cpus
from lightkeeper.runtimes.onnx import SPIN_MICROSECONDS

REPOSITORY = Path(__file__).parent.parent
COMMAND = Path(sys.executable).parent / "lightkeeper"
START_SECONDS = 30.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Memory:
    """A process's memory. `pss_bytes` counts a page that several processes share in equal parts."""

    rss_bytes: int
    pss_bytes: int


class Server:
    """A process that serves a Unix socket."""

    def __init__(self, command: Sequence[str], address: Path, log: Path) -> None:
        """Start the process; it is up when `wait_for_socket` returns."""
        self.address = address
        self._log = log
        self.started_at = time.perf_counter()
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stderr=stderr)

    def wait_for_socket(self) -> None:
        """Return as soon as somebody answers at the socket."""
        deadline = time.perf_counter() + START_SECONDS
        while time.perf_counter() < deadline and self._process.poll() is None:
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(str(self.address))
                except OSError:
                    time.sleep(POLL_SECONDS)
                else:
                    return
        raise RuntimeError(f"{self.address} is not served; the end of {self._log}:\n{self._log.read_text()[-2000:]}")

    def memory(self) -> Memory:
        """Return the process's memory now."""
        lines = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        kibibytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
        return Memory(kibibytes["Rss"] * 1024, kibibytes["Pss"] * 1024)

    def processor_seconds(self) -> float:
        """Return the processor time that the process has used so far, by the kernel's own count for each thread."""
        threads = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text(encoding="ascii").split()[0]) for thread in threads) / 1e9

    def stop(self) -> None:
        """End the process as an operator would."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Workshop:
    """A folder with models, their signed packages, and the agent's configuration."""

    def __init__(self, folder: Path, transport: Transport = Transport.AUTO) -> None:
        """Make everything, in an empty folder, with the commands that an operator would type."""
        self._folder = folder
        self.threads = usable_cpus()
        self.workers = max(16, 8 * self.threads)  # the agent's own choice
        self.models = models.make(folder)
        authority = folder / "ca"
        lightkeeper("ca", "init", authority, "--region", "bench")
        self.packages: dict[str, str] = {}
        for name, model in self.models.items():
            made = ("--name", name, "--version", "1.0", "--signer", authority, "--output", folder)
            lightkeeper("package", model.path, *made)
            self.packages[name] = str(folder / f"{name}-1.0.tar.gz")
        state = folder / "state"
        state.mkdir(mode=0o700)
        self._config = folder / "agent.json"
        device = (
            "--device-name",
            "bench",
            "--fleet",
            "bench",
            "--provider",
            "None",
            "--root-certs",
            authority / "certs",
        )
        folders = (
            "--destination",
            "Disk",
            "--disk-path",
            state,
            "--set",
            f"sagemaker_edge_local_data_root_path={state}",
        )
        carried = ("--set", f"lightkeeper_transport={transport}")
        lightkeeper("config", "init", self._config, *device, *folders, *carried)

    @contextmanager
    def agent(self) -> Iterator[Server]:
        """Give the agent, without a model."""
        address = self._folder / "agent.sock"
        arguments = [str(COMMAND), "agent", "-a", str(address), "-c", str(self._config), "-f"]
        yield from _running(Server(arguments, address, self._folder / "agent.log"))

    @contextmanager
    def bare_server(self, names: Sequence[str]) -> Iterator[Server]:
        """Give the bare server with the models of these names."""
        address = self._folder / "bare.sock"
        address.unlink(missing_ok=True)
        settings = (address, self.threads, SPIN_MICROSECONDS, self.workers)
        arguments = [sys.executable, "-m", "bench.bare_server", *map(str, settings)]
        arguments += [f"{name}={self.models[name].path}" for name in names]
        yield from _running(Server(arguments, address, self._folder / "bare.log"))


def lightkeeper(*arguments: str | Path) -> None:
    """Run a command to its end."""
    subprocess.run([COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)


def _running(server: Server) -> Iterator[Server]:
    try:
        server.wait_for_socket()
        yield server
    finally:
        server.stop()
