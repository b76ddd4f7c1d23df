"""What each peer's documentation leaves open, measured: `python -m bench.peers.choices`, five minutes.

The settings of a peer take turns with h2load. The run beside peers takes the best of each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

from rich.console import Console

from bench.comparison import take_turns
from bench.load import Load
from bench.peers import contestants as who
from bench.peers.contestants import CONTESTANTS, Start
from bench.peers.driver import BYTES
from bench.peers.run import Run, scene_in, turn
from bench.peers.stage import Running
from bench.report import Table, on_terminal

ROUNDS = 5
TURN_SECONDS = 0.4
PLACES = (("small", 1), ("small", 8), ("small", 32), ("network", 1), ("network", 8))

CHOICES: Mapping[str, Mapping[str, Start]] = {
    who.ECHO: {
        "sync, 1 poller": who.start_echo("sync", 1),
        "sync, 2 pollers": who.start_echo("sync", 2),
        "async, 1 thread": who.start_echo("async", 1),
        "async, 2 threads": who.start_echo("async", 2),
        "callback": who.start_echo("callback", 0),
    },
    who.TRITON: {f"{number} instances": who.start_triton(number) for number in (1, 2)},
    who.MLSERVER: {f"{number} parallel workers": who.start_mlserver(number) for number in (0, 1, 2)},
    who.LITSERVE: {f"{number} workers": who.start_litserve(number) for number in (1, 2)},
    who.BENTOML: {f"{number} workers": who.start_bentoml(number) for number in (1, 2)},
}


def main() -> None:
    """Measure and print."""
    console = Console()
    there = Run("full", tuple(CHOICES), console.print).contestants
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        scene = scene_in(Path(folder), ("small", "network"))
        for contestant in CONTESTANTS:
            if contestant in there:
                rows: dict[str, list[str]] = {name: [name] for name in CHOICES[contestant.name]}
                with ExitStack() as stack:
                    running = {}
                    for name, start in CHOICES[contestant.name].items():
                        one = running[name] = Running(replace(contestant, start=start), scene, ("small", "network"))
                        stack.callback(one.stop)
                    for model, in_flight in PLACES:
                        calls = {
                            name: turn(one.by_h2load(model, BYTES, in_flight), in_flight, TURN_SECONDS)
                            for name, one in running.items()
                        }
                        for name, cell in _cells(take_turns(calls, ROUNDS), in_flight).items():
                            rows[name].append(cell)
                header = [
                    f"{model}, {number} in flight, {'p50 (us)' if number == 1 else 'calls/s'}"
                    for model, number in PLACES
                ]
                on_terminal([Table(contestant.name, ("", *header), list(rows.values()))], console)


def _cells(rounds: Mapping[str, Sequence[Load]], in_flight: int) -> dict[str, str]:
    if in_flight == 1:
        return {name: f"{median(load.p50_us for load in loads):.0f}" for name, loads in rounds.items()}
    return {name: f"{median(load.per_second for load in loads):.0f}" for name, loads in rounds.items()}


if __name__ == "__main__":
    main()
