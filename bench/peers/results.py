"""All figures of a run beside peers, and the targets they are held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.comparison import Ratio, median_load
from bench.load import Load
from bench.peers.contestants import ASYNCIO, ECHO, GRPCIO, INSIDE, NATIVE, SYNC
from bench.peers.driver import BYTES, SHARED_MEMORY
from bench.peers.profile import Profile

Figure = Callable[[Load], float]

H2LOAD = "h2load"
CLIENT = "usual client"
ALONE, FEW, MANY = 1, 8, 32


@dataclass(frozen=True, slots=True)
class Cell:
    """The same work by several contestants in turns: each one's figures, a round each."""

    model: str
    carrier: str
    client: str
    in_flight: int
    rounds: Mapping[str, Sequence[Load]]

    def median(self, name: str) -> Load:
        """Return the medians of a contestant's rounds."""
        return median_load(self.rounds[name])

    def ratio(self, figure: Figure, one: str, *others: str) -> Ratio | None:
        """Return the ratio of one contestant's figure to the sum of the others', or None where one was not there."""
        if any(name not in self.rounds for name in (one, *others)):
            return None
        below = [[figure(load) for load in self.rounds[name]] for name in others]
        return Ratio.of([figure(mine) / sum(theirs) for mine, *theirs in zip(self.rounds[one], *below, strict=True)])


@dataclass(frozen=True, slots=True)
class Life:
    """A contestant from its start: seconds to its first answer (the small model alone), and what it holds then.

    The memory is that of all its processes, with every model, after all were called eight at a time. `idle_share` is
    the share of one processor that they use while nobody calls.
    """

    first_answers_seconds: Sequence[float]
    pss_bytes: int
    idle_share: float

    @property
    def first_answer_seconds(self) -> float:
        """The median."""
        return median(self.first_answers_seconds)


@dataclass(frozen=True, slots=True)
class AtMost:
    """A limit from above."""

    limit: float

    def allows(self, value: float) -> bool:
        """Whether a value keeps to it."""
        return value <= self.limit

    def __str__(self) -> str:
        return f"at most {self.limit:g}x"


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A limit from below."""

    limit: float

    def allows(self, value: float) -> bool:
        """Whether a value keeps to it."""
        return value >= self.limit

    def __str__(self) -> str:
        return f"at least {self.limit:g}x"


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio and the limit it is held against; `measured` is None where it could not be measured."""

    what: str
    limit: AtMost | AtLeast
    measured: Ratio | None

    @property
    def met(self) -> bool | None:
        """Whether the target was met."""
        return None if self.measured is None else self.limit.allows(self.measured.median)

    def verdict(self) -> str:
        """Return one word, and by how much where it was missed."""
        if self.measured is None:
            return "not measured"
        return "met" if self.met else f"missed by {abs(self.measured.median - self.limit.limit):.2f}"


@dataclass(frozen=True, slots=True)
class PeerResults:
    """What one run found. `skipped` says why a contestant is not there; `about` how each of the others was set up."""

    effort: str
    date: str
    machine: Mapping[str, str]
    about: Mapping[str, str]
    skipped: Mapping[str, str]
    cells: Sequence[Cell]
    lives: Mapping[str, Life]
    profiles: Sequence[Profile]
    """Where the agent's processor time goes; empty without perf."""

    def cell(self, model: str, carrier: str, client: str, in_flight: int) -> Cell | None:
        """Return one cell, or None where it was not measured."""
        wanted = (model, carrier, client, in_flight)
        return next(
            (cell for cell in self.cells if (cell.model, cell.carrier, cell.client, cell.in_flight) == wanted), None
        )

    def targets(self) -> list[Target]:
        """Return every target with its figure, all by h2load."""
        small, found = ("small", BYTES), []
        found.append(self._target("p50 / (echo + session.run)", AtMost(1.4), (*small, ALONE), _p50, ECHO, INSIDE))
        for in_flight in (FEW, MANY):
            for other in (SYNC, ASYNCIO, GRPCIO):
                what = f"calls a second / those of {other}"
                found.append(self._target(what, AtLeast(5), (*small, in_flight), _per_second, other))
        found.append(self._target("calls a second / the echo's", AtLeast(0.4), (*small, MANY), _per_second, ECHO))
        for carrier, limit in ((BYTES, 1.15), (SHARED_MEMORY, 1.05)):
            alone, few = ("network", carrier, ALONE), ("network", carrier, FEW)
            found.append(self._target("p50 / session.run's", AtMost(limit), alone, _p50, INSIDE))
            found.append(self._target("calls a second / session.run's", AtLeast(0.9), few, _per_second, INSIDE))
        return found

    def _target(
        self, what: str, limit: AtMost | AtLeast, where: tuple[str, str, int], figure: Figure, *others: str
    ) -> Target:
        model, carrier, in_flight = where
        cell = self.cell(model, carrier, H2LOAD, in_flight)
        said = f"{model} by {carrier}, {in_flight} in flight: {what}"
        return Target(said, limit, cell.ratio(figure, NATIVE, *others) if cell else None)


def _p50(load: Load) -> float:
    return load.p50_us


def _per_second(load: Load) -> float:
    return load.per_second
