"""The same work by several contestants, in turns, so that what else the machine does meets all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import TypeVar

from bench.load import Load

Name = TypeVar("Name", bound=str)

AGENT = "agent"
BARE = "bare server"


@dataclass(frozen=True, slots=True)
class Ratio:
    """The agent's figure over the bare server's: the median of the rounds' ratios, and the middle half of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Ratio:
        """Return the ratio of at least one round."""
        quarters = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else [ratios[0]] * 3
        return cls(median(ratios), quarters[0], quarters[2])


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of the rounds: each contestant's medians, and the agent beside the bare server."""

    model: str
    client: str
    in_flight: int
    loads: Mapping[str, Load]
    p50_ratio: Ratio
    p99_ratio: Ratio
    per_second_ratio: Ratio
    processor_ratio: Ratio | None


def take_turns(contestants: Mapping[Name, Callable[[], Load]], rounds: int) -> dict[Name, list[Load]]:
    """Let every contestant run once a round, every other round in the opposite order."""
    found: dict[Name, list[Load]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name in list(contestants)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(contestants[name]())
    return found


def compare(
    model: str, client: str, in_flight: int, contestants: Mapping[str, Callable[[], Load]], rounds: int
) -> Comparison:
    """Hold the agent against the bare server, with every other contestant in the same rounds."""
    found = take_turns(contestants, rounds)
    pairs = list(zip(found[AGENT], found[BARE], strict=True))
    return Comparison(
        model,
        client,
        in_flight,
        {name: median_load(loads) for name, loads in found.items()},
        p50_ratio=Ratio.of([agent.p50_us / bare.p50_us for agent, bare in pairs]),
        p99_ratio=Ratio.of([agent.p99_us / bare.p99_us for agent, bare in pairs]),
        per_second_ratio=Ratio.of([agent.per_second / bare.per_second for agent, bare in pairs]),
        processor_ratio=_ratio([(agent.processor_us, bare.processor_us) for agent, bare in pairs]),
    )


def _ratio(pairs: Sequence[tuple[float | None, float | None]]) -> Ratio | None:
    known = [agent / bare for agent, bare in pairs if agent is not None and bare]
    return Ratio.of(known) if known else None


def median_load(loads: Sequence[Load]) -> Load:
    """Return the median of each figure."""
    return Load(
        median(load.p50_us for load in loads),
        median(load.p99_us for load in loads),
        median(load.per_second for load in loads),
        median(known) if (known := [load.processor_us for load in loads if load.processor_us is not None]) else None,
    )
