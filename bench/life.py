"""The agent's life on a device: how soon after its start it answers, and what memory it holds, then and later."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from bench.comparison import AGENT, BARE
from bench.effort import Effort
from bench.workshop import Memory, Server, Workshop
from lightkeeper.client import Client


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Seconds from the start of the process, medians of several starts.

    The bare server opens its model before it serves. The agent serves first; the model's package is then verified and
    loaded on a client's word.
    """

    served_seconds: float
    answered_seconds: float
    answered_seconds_fastest: float
    answered_seconds_slowest: float


def cold_starts(workshop: Workshop, effort: Effort) -> Mapping[str, ColdStart]:
    """Start both in turns and ask for one prediction of the small model each time."""
    found: dict[str, list[tuple[float, float]]] = {BARE: [], AGENT: []}
    for _ in range(effort.cold_starts):
        with workshop.bare_server(("small",)) as server:
            found[BARE].append(_first_answer(workshop, server, load=False))
        with workshop.agent() as server:
            found[AGENT].append(_first_answer(workshop, server, load=True))
    return {name: _cold_start(starts) for name, starts in found.items()}


def _first_answer(workshop: Workshop, server: Server, *, load: bool) -> tuple[float, float]:
    served = time.perf_counter() - server.started_at
    with Client(str(server.address)) as client:
        if load:
            client.load_model(workshop.packages["small"], "small")
        client.predict("small", {"x": workshop.models["small"].input()})
        return served, time.perf_counter() - server.started_at


def _cold_start(starts: list[tuple[float, float]]) -> ColdStart:
    answered = [seconds for _, seconds in starts]
    return ColdStart(median(seconds for seconds, _ in starts), median(answered), min(answered), max(answered))


@dataclass(frozen=True, slots=True)
class MemoryOverTime:
    """What the processes hold: the bare server with its models, the agent from its start to its hundredth cycle."""

    bare_serving: Memory
    agent_at_rest: Memory
    agent_serving: Memory
    agent_after_few_cycles: Memory
    agent_after_all_cycles: Memory
    few_cycles: int
    all_cycles: int

    def growth(self) -> float:
        """Return by what share the memory grew from the few cycles to all of them."""
        return self.agent_after_all_cycles.rss_bytes / self.agent_after_few_cycles.rss_bytes - 1


def memory(workshop: Workshop, effort: Effort) -> MemoryOverTime:
    """Load three models, call each and unload it, many times over."""
    served = ("small", "image")
    with workshop.bare_server(served) as server, Client(str(server.address), shared_memory_above_bytes=None) as client:
        _predict(workshop, client, served)
        bare = server.memory()
    with workshop.agent() as server, Client(str(server.address)) as client:
        at_rest = server.memory()
        for name in served:
            client.load_model(workshop.packages[name], name)
        _predict(workshop, client, served)
        serving = server.memory()
        for name in served:
            client.unload_model(name)
        after_few = serving
        for cycle in range(1, effort.cycles + 1):
            for name, package in workshop.packages.items():
                client.load_model(package, name)
                _predict(workshop, client, (name,))
                client.unload_model(name)
            if cycle == effort.cycles_before:
                after_few = server.memory()
        return MemoryOverTime(bare, at_rest, serving, after_few, server.memory(), effort.cycles_before, effort.cycles)


def _predict(workshop: Workshop, client: Client, names: tuple[str, ...]) -> None:
    for name in names:
        client.predict(name, {"x": workshop.models[name].input()})
