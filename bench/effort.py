"""How much is measured: more rounds and calls, less noise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """Rounds of every comparison, calls of each contestant a round, and how often the slow things are done."""

    rounds: int
    small_calls: int
    image_calls: int
    cold_starts: int
    cycles: int
    cycles_before: int
    """Memory after `cycles` load/unload cycles is held against memory after this many."""


EFFORTS = {
    "full": Effort(rounds=11, small_calls=3000, image_calls=300, cold_starts=9, cycles=100, cycles_before=10),
    "quick": Effort(rounds=5, small_calls=1000, image_calls=100, cold_starts=3, cycles=20, cycles_before=10),
    "smoke": Effort(rounds=1, small_calls=50, image_calls=20, cold_starts=1, cycles=2, cycles_before=1),
}
