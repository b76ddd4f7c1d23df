"""A run: every contestant alone first, for its answers, memory and start; then all of them in turns."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench import load, machine
from bench.comparison import take_turns
from bench.load import Load
from bench.peers.contestants import CONTESTANTS, ECHO, INSIDE, Contestant, Scene, catalog_of
from bench.peers.driver import BYTES, SHARED_MEMORY
from bench.peers.results import ALONE, CLIENT, FEW, H2LOAD, MANY, Cell, Life, PeerResults
from bench.peers.stage import Running, check, first_answer
from bench.workshop import Workshop
from lightkeeper.runtimes.onnx import SPIN_MICROSECONDS

MODELS = ("small", "image", "network")
WARM_UP_CALLS_EACH = 4
IDLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Effort:
    """How often and how long each contestant has its turn, and how much is measured."""

    rounds: int
    turn_seconds: float
    cold_starts: int
    in_flight: tuple[int, ...]
    models: tuple[str, ...]


EFFORTS = {
    "full": Effort(5, 0.5, 5, (ALONE, FEW, MANY), MODELS),
    "quick": Effort(3, 0.1, 1, (ALONE, FEW, MANY), MODELS),
    "smoke": Effort(1, 0.02, 1, (ALONE, FEW), ("small", "image")),
}


class Run:
    """One run in a folder of its own, by contestants of these names."""

    def __init__(self, effort_name: str, names: Sequence[str], say: Callable[[str], None]) -> None:
        self._effort_name = effort_name
        self._effort = EFFORTS[effort_name]
        self._say = say
        self.skipped: dict[str, str] = {}
        self._contestants = [item for item in CONTESTANTS if item.name in names and self._is_there(item)]

    def measure(self) -> PeerResults:
        """Measure everything."""
        described = machine.describe()
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            self._say("making models, an authority and packages")
            scene = self._scene(Path(folder))
            with _progress() as progress:
                lives = dict(self._alone(scene, progress))
                self._contestants = [item for item in self._contestants if item.name in lives]
                cells = list(self._in_turns(scene, progress))
        described["load average after"] = f"{os.getloadavg()[0]:.1f} (the run itself is part of it)"
        about = {item.name: item.about for item in self._contestants}
        date = f"{datetime.now(UTC):%Y-%m-%d}"
        return PeerResults(self._effort_name, date, described, about, self.skipped, cells, lives)

    def _is_there(self, contestant: Contestant) -> bool:
        why = contestant.reason_to_skip()
        if why:
            self._skip(contestant, why)
        return why is None

    def _skip(self, contestant: Contestant, why: str) -> None:
        self.skipped[contestant.name] = why
        self._say(f"without {contestant.name}: {why}")

    def _scene(self, folder: Path) -> Scene:
        workshop = Workshop(folder, names=self._effort.models)
        catalog = catalog_of(workshop.models, folder, threads=workshop.threads, spin_microseconds=SPIN_MICROSECONDS)
        return Scene(folder, catalog, workshop)

    def _alone(self, scene: Scene, progress: Progress) -> Iterator[tuple[str, Life]]:
        expected: dict[str, list[float]] = {}
        bodies: dict[str, bytes] = {}
        held: dict[str, tuple[int, float]] = {}
        task = progress.add_task("one at a time", total=len(self._contestants) * (1 + self._effort.cold_starts))
        for contestant in self._contestants:
            progress.update(task, description=f"alone: {contestant.name}")
            try:
                held[contestant.name] = self._meet(contestant, scene, expected, bodies)
            except (RuntimeError, OSError) as error:
                self._skip(contestant, f"it failed: {error}")
            progress.advance(task)
        starts: dict[str, list[float]] = {name: [] for name in held}
        for _ in range(self._effort.cold_starts):
            for contestant in self._contestants:
                progress.update(task, description=f"cold start: {contestant.name}")
                if contestant.name in held:
                    starts[contestant.name].append(_start_seconds(contestant, scene, bodies.get(contestant.name)))
                progress.advance(task)
        for name, (pss_bytes, idle_share) in held.items():
            yield name, Life(starts[name], pss_bytes, idle_share)

    def _meet(
        self, contestant: Contestant, scene: Scene, expected: dict[str, list[float]], bodies: dict[str, bytes]
    ) -> tuple[int, float]:
        """Check a contestant's answers, keep its request, and return its memory and what it uses while idle."""
        running = Running(contestant, scene, self._effort.models)
        try:
            if contestant.name == INSIDE:
                expected |= {model: running.answer(model, BYTES) for model in self._effort.models}
            elif contestant.name != ECHO:
                check(running, expected)
            for model in self._effort.models:
                if running.server and load.has_h2load():
                    running.by_h2load(model, BYTES, FEW)(WARM_UP_CALLS_EACH * FEW)
                else:
                    running.by_client(model, BYTES, FEW)(WARM_UP_CALLS_EACH * FEW)
            if running.server:
                bodies[contestant.name] = running.body("small", BYTES)
            pss_bytes, idle_share = running.memory().pss_bytes, 0.0
            if running.server:
                before = running.server.processor_seconds()
                time.sleep(IDLE_SECONDS)
                idle_share = (running.server.processor_seconds() - before) / IDLE_SECONDS
            return pss_bytes, idle_share
        finally:
            running.stop()

    def _in_turns(self, scene: Scene, progress: Progress) -> Iterator[Cell]:
        with ExitStack() as stack:
            task = progress.add_task("starting all", total=len(self._contestants))
            running: dict[str, Running] = {}
            for contestant in self._contestants:
                one = running[contestant.name] = Running(contestant, scene, self._effort.models)
                stack.callback(one.stop)
                one.answer("small", BYTES)
                progress.advance(task)
            wanted = list(self._cells())
            task = progress.add_task("in turns", total=len(wanted))
            for model, carrier, client, in_flight in wanted:
                progress.update(task, description=f"{model} by {carrier}, {client}, {in_flight} in flight")
                turns = self._turns(running, model, carrier, client, in_flight)
                yield Cell(model, carrier, client, in_flight, take_turns(turns, self._effort.rounds))
                progress.advance(task)

    def _cells(self) -> Iterator[tuple[str, str, str, int]]:
        for model in self._effort.models:
            for carrier in (BYTES,) if model == "small" else (BYTES, SHARED_MEMORY):
                for client in (H2LOAD, CLIENT) if load.has_h2load() else (CLIENT,):
                    for in_flight in self._effort.in_flight:
                        yield model, carrier, client, in_flight

    def _turns(
        self, running: Mapping[str, Running], model: str, carrier: str, client: str, in_flight: int
    ) -> dict[str, Callable[[], Load]]:
        turns = {}
        for name, one in running.items():
            if name == INSIDE:
                call = one.by_client(model, BYTES, in_flight)
            elif carrier not in one.contestant.carriers:
                continue
            elif client == H2LOAD:
                call = one.by_h2load(model, carrier, in_flight)
            else:
                call = one.by_client(model, carrier, in_flight)
            turns[name] = _turn(call, in_flight, self._effort.turn_seconds)
        return turns


def _turn(call: Callable[[int], Load], in_flight: int, seconds: float) -> Callable[[], Load]:
    """Return a turn of about so many seconds, by the pace of a first few calls, which also warm up."""
    least = WARM_UP_CALLS_EACH * in_flight
    rough = call(least)
    better = call(max(least, int(rough.per_second * seconds / 4) // in_flight * in_flight))
    calls = max(least, int(better.per_second * seconds) // in_flight * in_flight)
    return lambda: call(calls)


def _start_seconds(contestant: Contestant, scene: Scene, body: bytes | None) -> float:
    """Start a contestant with the small model, and return the seconds to its first answer."""
    if body is None:
        started = time.perf_counter()
        running = Running(contestant, scene, ("small",))
        running.answer("small", BYTES)
        seconds = time.perf_counter() - started
        running.stop()
        return seconds
    server = contestant.start(scene, ("small",))
    if server is None:
        raise ValueError(contestant.name)
    try:
        server.wait_for_socket()
        contestant.prepare(scene, server, ("small",))
        first_answer(contestant.message(server, "small", body), server)
        return time.perf_counter() - server.started_at
    finally:
        server.stop()


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
