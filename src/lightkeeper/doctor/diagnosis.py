"""What a check found: how it stands, the facts, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lightkeeper.errors import AgentError

Facts = Mapping[str, object]
NO_FACTS: Facts = {}


class State(StrEnum):
    """How a check ended. A warning is what works now and should not stay; a skipped check says why."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a check found, in one sentence. `fix` says what to do, `reason` is a code of `errors.py`."""

    state: State
    found: str
    fix: str = ""
    reason: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """A check's name, which is stable, with what it found and how long that took."""

    name: str
    diagnosis: Diagnosis
    seconds: float


def ok(found: str, *, facts: Facts = NO_FACTS) -> Diagnosis:
    """Return that all is well."""
    return Diagnosis(State.OK, found, facts=_texts(facts))


def warning(found: str, *, fix: str, reason: str = "", facts: Facts = NO_FACTS) -> Diagnosis:
    """Return what works now and should not stay."""
    return Diagnosis(State.WARNING, found, fix, reason, _texts(facts))


def failed(found: str, *, fix: str, reason: str = "", facts: Facts = NO_FACTS) -> Diagnosis:
    """Return what does not work."""
    return Diagnosis(State.FAILED, found, fix, reason, _texts(facts))


def refused(error: AgentError, *, fix: str = "") -> Diagnosis:
    """Return what the agent's own code refuses; its next step is the fix unless a better one is known."""
    return Diagnosis(State.FAILED, error.message, fix or error.next_step, error.reason, error.facts)


def skipped(why: str) -> Diagnosis:
    """Return that there was nothing to check, or that it could not be."""
    return Diagnosis(State.SKIPPED, why)


def _texts(facts: Facts) -> dict[str, str]:
    return {name: str(value) for name, value in facts.items()}
