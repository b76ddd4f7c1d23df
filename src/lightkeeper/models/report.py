"""What there is to say of models and their versions: values alone, for the agent, the wire and the client."""

from __future__ import annotations

from dataclasses import dataclass

from lightkeeper.metrics import Reading
from lightkeeper.model import PackageIdentity

RECENT, GOLDEN, ZEROS = "recent", "golden", "zeros"
"""Where compared inputs come from: the last ones of Predict, the package's golden input, or zeros."""


@dataclass(frozen=True, slots=True)
class OutputComparison:
    """One output over all inputs. `argmax_disagreement` is None where the output has no rows of floats."""

    name: str
    absolute_difference: float = 0.0
    relative_difference: float = 0.0
    argmax_disagreement: float | None = None
    shapes_differ: int = 0
    """For how many inputs its shape was another one; these do not count in the differences."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a new version did beside the old one. Times are medians, in seconds a run."""

    source: str
    inputs: int
    old_seconds: float
    new_seconds: float
    outputs: tuple[OutputComparison, ...]

    @property
    def latency_ratio(self) -> float:
        """The new version's time / the old one's; 1 where neither took any."""
        return self.new_seconds / self.old_seconds if self.old_seconds else 1.0


@dataclass(frozen=True, slots=True)
class SwapReport:
    """What a swap or a rollback did. `comparison` is None where nothing was compared."""

    name: str
    old: PackageIdentity
    new: PackageIdentity
    comparison: Comparison | None = None
    watch_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a swap is: a word for the stage, and `done` of `total` units, bytes or runs; 0 where not known."""

    stage: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Returned:
    """A version that was taken back while it was watched, with the reason code and what happened."""

    digest: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A loaded model, its version and the one before, and what it has done since it was loaded."""

    name: str
    url: str
    package: PackageIdentity
    previous: PackageIdentity | None
    watch_seconds_left: float | None
    """How long it is still being watched since it took over, or None where it is not."""
    returned: Returned | None
    """The last version that was taken back by itself, if one was."""
    reading: Reading
