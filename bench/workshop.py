"""What a run needs on the disk, and the two servers that are measured, each a process of its own.

The agent runs as on a device: the installed command, a configuration file, packages signed by an authority made here.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

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
    """A process that serves a Unix socket, or a port of the loopback address; with the processes it starts."""

    def __init__(
        self,
        command: Sequence[str],
        address: Path,
        log: Path,
        *,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the process; it is up when `wait_for_socket` returns. With a `port`, `address` is not used."""
        self.address = address
        self.port = port
        self._log = log
        self.started_at = time.perf_counter()
        with log.open("ab") as said:
            self._process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    @property
    def target(self) -> str:
        """Where it is served, as gRPC names it."""
        return f"unix:{self.address}" if self.port is None else f"127.0.0.1:{self.port}"

    def wait_for_socket(self) -> None:
        """Return as soon as somebody answers at the socket."""
        deadline = time.perf_counter() + START_SECONDS
        while time.perf_counter() < deadline and self._process.poll() is None:
            with socket.socket(socket.AF_UNIX if self.port is None else socket.AF_INET) as probe:
                try:
                    probe.connect(str(self.address) if self.port is None else ("127.0.0.1", self.port))
                except OSError:
                    time.sleep(POLL_SECONDS)
                else:
                    return
        raise RuntimeError(f"{self.target} is not served; the end of {self._log}:\n{self.log_end()}")

    def log_end(self) -> str:
        """Return the last that the process said."""
        return self._log.read_text(errors="replace")[-2000:]

    def memory(self) -> Memory:
        """Return the memory of the process, and of those it started, now."""
        found = [memory_of(pid) for pid in self.pids()]
        return Memory(sum(item.rss_bytes for item in found), sum(item.pss_bytes for item in found))

    def processor_seconds(self) -> float:
        """Return the processor time used so far, by the kernel's own count for each thread that is alive."""
        return sum(thread.processor_seconds for thread in self.threads())

    def threads(self) -> list[Thread]:
        """Return every thread of every process, now."""
        found = []
        for pid in self.pids():
            for folder in Path(f"/proc/{pid}/task").glob("*"):
                with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                    found.append(Thread.of(folder))
        return found

    def stop(self) -> None:
        """End the process as an operator would, and what it may leave behind."""
        started = self._process_tree()
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for left in started[1:]:
            with suppress(psutil.NoSuchProcess):
                left.kill()

    def pids(self) -> list[int]:
        """Return the process, and those it started."""
        return [process.pid for process in self._process_tree()]

    def _process_tree(self) -> list[psutil.Process]:
        try:
            process = psutil.Process(self._process.pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


@dataclass(frozen=True, slots=True)
class Thread:
    """What the kernel has counted for a thread so far; `waits` is how often it gave up its processor to wait."""

    tid: int
    name: str
    processor_seconds: float
    waits: int

    @classmethod
    def of(cls, folder: Path) -> Thread:
        """Read a folder `/proc/PID/task/TID`."""
        seconds = int((folder / "schedstat").read_text(encoding="ascii").split()[0]) / 1e9
        status = (folder / "status").read_text(encoding="utf-8")
        waits = int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])
        return cls(int(folder.name), (folder / "comm").read_text(encoding="utf-8").strip(), seconds, waits)


def memory_of(pid: int) -> Memory:
    """Return a process's memory now."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    kibibytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
    return Memory(kibibytes["Rss"] * 1024, kibibytes["Pss"] * 1024)


class Workshop:
    """A folder with models, their signed packages, and the agent's configuration."""

    def __init__(
        self,
        folder: Path,
        transport: Transport = Transport.AUTO,
        names: Sequence[str] = ("small", "image", "large"),
        agent: Sequence[str] = (str(COMMAND), "agent"),
    ) -> None:
        """Make everything, in an empty folder, with the commands that an operator would type."""
        self._folder = folder
        self._transport = transport
        self._agent = agent
        self.threads = usable_cpus()
        self.workers = max(16, 8 * self.threads)  # the agent's own choice
        self.models = models.make(folder, names)
        self._authority = folder / "ca"
        lightkeeper("ca", "init", self._authority, "--region", "bench")
        self.packages: dict[str, str] = {}
        for name, model in self.models.items():
            made = ("--name", name, "--version", "1.0", "--signer", self._authority, "--output", folder)
            lightkeeper("package", model.path, *made)
            self.packages[name] = str(folder / f"{name}-1.0.tar.gz")

    def start_agent(self, transport: Transport | None = None) -> Server:
        """Start an agent without a model, in a place of its own for each transport; without one, the workshop's."""
        place = self._place(transport or self._transport)
        address = place / "agent.sock"
        arguments = [*self._agent, "-a", str(address), "-c", str(place / "agent.json"), "-f"]
        return Server(arguments, address, place / "agent.log")

    @contextmanager
    def agent(self) -> Iterator[Server]:
        """Give the agent, without a model."""
        yield from _running(self.start_agent())

    def _place(self, transport: Transport) -> Path:
        place = self._folder / transport
        if not place.exists():
            state = place / "state"
            state.mkdir(mode=0o700, parents=True)
            device = ("--device-name", "bench", "--fleet", "bench", "--provider", "None")
            trust = ("--root-certs", self._authority / "certs")
            capture = ("--destination", "Disk", "--disk-path", state)
            settings = (
                *("--set", f"sagemaker_edge_local_data_root_path={state}"),
                *("--set", f"lightkeeper_transport={transport}"),
            )
            lightkeeper("config", "init", place / "agent.json", *device, *trust, *capture, *settings)
        return place

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
