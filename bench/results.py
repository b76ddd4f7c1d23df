"""All figures of a run, and the targets they are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.comparison import AGENT, Comparison
from bench.latency import H2LOAD
from bench.life import ColdStart, MemoryOverTime

LATENCY_RATIO_LIMIT = 1.15
COLD_START_LIMIT_SECONDS = 0.6
MEMORY_GROWTH_LIMIT = 0.05


@dataclass(frozen=True, slots=True)
class Target:
    """A figure and what it may be at most; `measured` is None where it could not be measured."""

    what: str
    limit: float
    measured: float | None
    unit: str

    @property
    def met(self) -> bool | None:
        """Whether the target was met."""
        return None if self.measured is None else self.measured <= self.limit

    def verdict(self) -> str:
        """Return one word, and by how much where it was missed."""
        if self.measured is None:
            return "not measured"
        if self.measured <= self.limit:
            return "met"
        return f"missed by {self.measured - self.limit:.3g}{self.unit}"


@dataclass(frozen=True, slots=True)
class Results:
    """What one run found."""

    effort: str
    date: str
    machine: Mapping[str, str]
    comparisons: Sequence[Comparison]
    cold_starts: Mapping[str, ColdStart]
    memory: MemoryOverTime

    def comparison(self, model: str, client: str, in_flight: int) -> Comparison | None:
        """Return one comparison, or None where its client was not there."""
        wanted = (model, client, in_flight)
        return next(
            (found for found in self.comparisons if (found.model, found.client, found.in_flight) == wanted), None
        )

    def targets(self) -> list[Target]:
        """Return every target with its figure."""
        found = []
        for model in ("small", "image"):
            comparison = self.comparison(model, H2LOAD, 1)
            ratio = comparison.p50_ratio.median if comparison else None
            what = f"p50 of model {model} by {H2LOAD}, agent / bare server"
            found.append(Target(what, LATENCY_RATIO_LIMIT, ratio, "x"))
        start = self.cold_starts[AGENT].answered_seconds
        found.append(Target("cold start to the first answer", COLD_START_LIMIT_SECONDS, start, " s"))
        cycles = f"{self.memory.few_cycles} to {self.memory.all_cycles}"
        what = f"growth of resident memory from {cycles} load/unload cycles"
        found.append(Target(what, MEMORY_GROWTH_LIMIT * 100, self.memory.growth() * 100, " %"))
        return found
