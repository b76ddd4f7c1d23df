"""A run: every contestant alone first, for its answers, memory and start; then all of them in turns."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench import load, machine
from bench.comparison import take_turns
from bench.load import Load
from bench.peers import profile
from bench.peers.contestants import CONTESTANTS, ECHO, INSIDE, NATIVE, Contestant, Scene, catalog_of
from bench.peers.driver import BYTES, SHARED_MEMORY
from bench.peers.profile import Profile
from bench.peers.results import ALONE, CLIENT, FEW, H2LOAD, MANY, Cell, Life, PeerResults
from bench.peers.stage import Running, check, first_answer
from bench.workshop import Workshop
from lightkeeper.runtimes.onnx import SPIN_MICROSECONDS

Step = TypeVar("Step")

MODELS = ("small", "image", "network")
PROFILED = (("small", ALONE), ("small", MANY), ("network", ALONE))
WARM_UP_CALLS_EACH = 3
IDLE_SECONDS = 1.0
REASON_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Effort:
    """How often and how long each contestant has its turn, and how much is measured."""

    rounds: int
    turn_seconds: float
    cold_starts: int
    in_flight: tuple[int, ...]
    models: tuple[str, ...]
    profile_seconds: float
    profiled: tuple[tuple[str, int], ...]


EFFORTS = {
    "full": Effort(5, 0.5, 3, (ALONE, FEW, MANY), MODELS, 3.0, PROFILED),
    "quick": Effort(3, 0.1, 1, (ALONE, FEW, MANY), ("small", "network"), 1.0, PROFILED),
    "smoke": Effort(1, 0.02, 1, (ALONE, FEW), ("small", "image"), 0.1, (("small", ALONE),)),
}


class Run:
    """One run in a folder of its own, by contestants of these names."""

    def __init__(self, effort_name: str, names: Sequence[str], say: Callable[[str], None]) -> None:
        self._effort_name = effort_name
        self._effort = EFFORTS[effort_name]
        self._say = say
        self.skipped: dict[str, str] = {}
        self.contestants = [item for item in CONTESTANTS if item.name in names and self._is_there(item)]

    def measure(self) -> PeerResults:
        """Measure everything."""
        described = machine.describe()
        described |= {item.name: said for item in self.contestants if (said := item.version())}
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            self._say("making models, an authority and packages")
            scene = scene_in(Path(folder), self._effort.models)
            lives = dict(self._alone(scene))
            self.contestants = [item for item in self.contestants if item.name in lives]
            with self._everybody(scene) as running:
                cells = list(self._in_turns(running))
                profiles = list(self._profiles(running))
        described["load average after"] = f"{os.getloadavg()[0]:.1f} (the run itself is part of it)"
        about = {item.name: item.about for item in self.contestants}
        date = f"{datetime.now(UTC):%Y-%m-%d}"
        return PeerResults(self._effort_name, date, described, about, self.skipped, cells, lives, profiles)

    def _is_there(self, contestant: Contestant) -> bool:
        why = contestant.reason_to_skip()
        if why:
            self._skip(contestant, why)
        return why is None

    def _skip(self, contestant: Contestant, why: str) -> None:
        self.skipped[contestant.name] = why.strip().splitlines()[-1][:REASON_CHARACTERS]
        self._say(f"without {contestant.name}: {why}")

    def _alone(self, scene: Scene) -> Iterator[tuple[str, Life]]:
        expected: dict[str, list[float]] = {}
        bodies: dict[str, bytes] = {}
        held: dict[str, tuple[int, float]] = {}
        for contestant in steps("alone", self.contestants, _name):
            try:
                held[contestant.name] = self._meet(contestant, scene, expected, bodies)
            except (RuntimeError, OSError) as error:
                self._skip(contestant, f"it failed: {error}")
        starts: dict[str, list[float]] = {name: [] for name in held}
        there = [contestant for contestant in self.contestants if contestant.name in held]
        for contestant in steps("cold start", there * self._effort.cold_starts, _name):
            starts[contestant.name].append(_start_seconds(contestant, scene, bodies.get(contestant.name)))
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

    @contextmanager
    def _everybody(self, scene: Scene) -> Iterator[dict[str, Running]]:
        with ExitStack() as stack:
            running: dict[str, Running] = {}
            for contestant in steps("starting", self.contestants, _name):
                one = running[contestant.name] = Running(contestant, scene, self._effort.models)
                stack.callback(one.stop)
                one.answer("small", BYTES)
            yield running

    def _in_turns(self, running: dict[str, Running]) -> Iterator[Cell]:
        for model, carrier, client, in_flight in steps("in turns", list(self._cells()), _where):
            yield Cell(model, carrier, client, in_flight, self._rounds(running, model, carrier, client, in_flight))

    def _profiles(self, running: Mapping[str, Running]) -> Iterator[Profile]:
        if NATIVE not in running or not load.has_h2load():
            return
        if not profile.has_perf():
            self._say(f"{profile.HOW_TO_GET_PERF}: no profile")
            return
        self._say("profiling the agent")
        try:
            for model, in_flight in self._effort.profiled:
                yield profile.take(running[NATIVE], model, BYTES, in_flight, self._effort.profile_seconds)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            self._say(f"no profile: {error}")

    def _cells(self) -> Iterator[tuple[str, str, str, int]]:
        for model in self._effort.models:
            for carrier in (BYTES,) if model == "small" else (BYTES, SHARED_MEMORY):
                for client in (H2LOAD, CLIENT) if load.has_h2load() else (CLIENT,):
                    for in_flight in self._effort.in_flight:
                        yield model, carrier, client, in_flight

    def _rounds(
        self, running: dict[str, Running], model: str, carrier: str, client: str, in_flight: int
    ) -> dict[str, list[Load]]:
        """Let everyone who can take part have a turn each round. Who fails is left out from then on, and named."""
        while True:
            whose = ""

            def named(name: str, call: Callable[[], Load]) -> Callable[[], Load]:
                def run() -> Load:
                    nonlocal whose
                    whose = name
                    return call()

                return run

            try:
                turns = {}
                for name, call in self._calls(running, model, carrier, client, in_flight).items():
                    whose = name
                    turns[name] = named(name, turn(call, in_flight, self._effort.turn_seconds))
                return take_turns(turns, self._effort.rounds)
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                where = _where((model, carrier, client, in_flight))
                self._skip(running.pop(whose).contestant, f"it failed, and was left out from {where} on: {error}")

    def _calls(
        self, running: Mapping[str, Running], model: str, carrier: str, client: str, in_flight: int
    ) -> dict[str, Callable[[int], Load]]:
        found = {}
        for name, one in running.items():
            if one.server is None:
                if carrier != BYTES and name != INSIDE:
                    continue
                found[name] = one.by_client(model, BYTES, in_flight)
            elif carrier not in one.contestant.carriers:
                continue
            elif client == H2LOAD:
                found[name] = one.by_h2load(model, carrier, in_flight)
            else:
                found[name] = one.by_client(model, carrier, in_flight)
        return found


def scene_in(folder: Path, models: Sequence[str]) -> Scene:
    """Make the models of these names and all that contestants need, in an empty folder."""
    workshop = Workshop(folder, names=models)
    catalog = catalog_of(workshop.models, folder, threads=workshop.threads, spin_microseconds=SPIN_MICROSECONDS)
    return Scene(folder, catalog, workshop)


def turn(call: Callable[[int], Load], in_flight: int, seconds: float) -> Callable[[], Load]:
    """Return a turn of about so many seconds, by the pace of some first calls, which also warm up."""
    least = WARM_UP_CALLS_EACH * in_flight
    pace = call(least).per_second
    if least < pace * seconds / 4:
        pace = call(int(pace * seconds / 4) // in_flight * in_flight).per_second
    calls = max(least, int(pace * seconds) // in_flight * in_flight)
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


def _name(contestant: Contestant) -> str:
    return contestant.name


def _where(cell: tuple[str, str, str, int]) -> str:
    model, carrier, client, in_flight = cell
    return f"{model} by {carrier}, {client}, {in_flight} in flight"


def steps(what: str, items: Sequence[Step], said: Callable[[Step], str]) -> Iterator[Step]:
    """Yield items, and show how far it is: a bar on a terminal, a line for each elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        for number, item in enumerate(items, 1):
            print(f"{what}, {number} of {len(items)}: {said(item)}", file=sys.stderr, flush=True)
            yield item
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=len(items))
        for item in items:
            progress.update(task, description=f"{what}: {said(item)}")
            yield item
            progress.advance(task)
