"""Capture rules: which inferences the device keeps by itself, as one key of the configuration says it.

The key holds a JSON list of objects, or a string with that JSON in it. Every fault of every rule is found before any
is refused. What a rule does is `lightkeeper.capture.sampler`'s; its words are section 4 of docs/spec/capture.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import inf, isfinite
from typing import Any, cast

from lightkeeper.config.document import kind
from lightkeeper.config.values import FLAG, INT32_MAX, Kind, whole_number
from lightkeeper.errors import NameInvalid
from lightkeeper.names import check_model_name

ANY_MODEL = "*"
MAX_RULES = 100
MAX_NAME_LENGTH = 63

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,63}", re.ASCII)
_CHOICES = ("every", "share", "band")


class Measure(StrEnum):
    """Which value of an output a band is about, where it is not one element."""

    ANY = "any"
    MAX = "max"
    MIN = "min"
    MARGIN = "margin"


@dataclass(frozen=True, slots=True)
class Band:
    """A range of values, both ends included; a value that is not a number lies in none.

    `output` is empty for the model's first. `index` is an element's position in C order, or a measure of all of them:
    the largest, the smallest, how far the largest is above the second (near 0: undecided), or any element at all.
    """

    output: str
    index: int | Measure
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CaptureRule:
    """Keep some inferences of a model: exactly one of `every`, `share` and `band` is set, the others are None.

    `model` is the name a model is loaded under, its package's name, or `*` for every model. `per_minute` and
    `per_day` are the most captures in that time, None for no limit.
    """

    name: str
    model: str
    every: int | None = None
    share: float | None = None
    band: Band | None = None
    per_minute: int | None = None
    per_day: int | None = None
    inputs: bool = True
    outputs: bool = True


def parse(value: object) -> tuple[CaptureRule, ...]:
    """Return the rules that a JSON value stands for; raises `ValueError` with every fault."""
    given = _listed(value)
    if len(given) > MAX_RULES:
        raise ValueError(f"has {len(given)} rules, more than {MAX_RULES}")
    faults: list[str] = []
    rules = [_rule(item, position, faults) for position, item in enumerate(given, 1)]
    names = [rule.name for rule in rules if rule is not None]
    faults += [f"two rules are named {name}" for name in sorted({name for name in names if names.count(name) > 1})]
    if faults:
        raise ValueError(f"has wrong rules: {'; '.join(faults)}")
    return tuple(rule for rule in rules if rule is not None)


CAPTURE_RULES = Kind("a list of rules, as JSON or as a string with that JSON", parse)


def _listed(value: object) -> list[object]:
    if isinstance(value, str):
        try:
            value = json.loads(value, object_pairs_hook=tuple) if value.strip() else []
        except (ValueError, RecursionError) as error:
            raise ValueError(f"is a string that holds no JSON: {error}") from error
    if not isinstance(value, list):
        raise ValueError(f"must be a list of rules, not {kind(value)}")  # noqa: TRY004 - the one exception pydantic collects
    return value


class _Members:
    """The members of one object, taken one after the other; each fault is written down with where it is."""

    def __init__(self, value: object, where: str, faults: list[str]) -> None:
        self.where = where
        self._faults = faults
        self._known: list[str] = []
        self._given: Mapping[str, object] = {}
        if not isinstance(value, tuple | dict):
            self.fault(f"must be an object, not {kind(value)}")
            return
        pairs = cast("list[tuple[str, object]]", list(value.items() if isinstance(value, dict) else value))
        self._given = dict(pairs)
        if len(self._given) != len(pairs):
            self.fault("names a member twice")

    def __contains__(self, name: str) -> bool:
        return self._given.get(name) is not None

    def fault(self, text: str) -> None:
        self._faults.append(f"{self.where} {text}")

    def take(self, name: str, read: Callable[[object], Any], default: Any = None) -> Any:
        """Return a member's value, or the default where it is missing or wrong."""
        self._known.append(name)
        value = self._given.get(name)
        if value is None:
            return default
        try:
            return read(value)
        except ValueError as error:
            self.fault(f"`{name}` {error}")
            return default

    def refuse_the_rest(self) -> None:
        unknown = [name for name in self._given if name not in self._known]
        if unknown:
            shown = ", ".join(f"`{name[:MAX_NAME_LENGTH]}`" if name.isprintable() else ascii(name) for name in unknown)
            self.fault(f"has no member {shown}; allowed: {', '.join(self._known)}")


def _rule(value: object, position: int, faults: list[str]) -> CaptureRule | None:
    before = len(faults)
    members = _Members(value, f"rule {position}", faults)
    if len(faults) > before:
        return None
    name = members.take("name", _name)
    if name is None and len(faults) == before:
        members.fault("has no `name`")
    elif name is not None:
        members.where = f"rule {position} ({name})"
    model = members.take("model", _model)
    if model is None and "model" not in members:
        members.fault(f"has no `model`; `{ANY_MODEL}` stands for every model")
    chosen = [choice for choice in _CHOICES if choice in members]
    if len(chosen) != 1:
        members.fault(f"must have exactly one of {', '.join(_CHOICES)}; it has {' and '.join(chosen) or 'none'}")
    rule = CaptureRule(
        name or "",
        model or "",
        every=members.take("every", whole_number(1, INT32_MAX)),
        share=members.take("share", _share),
        band=members.take("band", lambda band: _band(band, members.where, faults)),
        per_minute=members.take("per_minute", whole_number(1, INT32_MAX)),
        per_day=members.take("per_day", whole_number(1, INT32_MAX)),
        inputs=members.take("inputs", FLAG, default=True),
        outputs=members.take("outputs", FLAG, default=True),
    )
    members.refuse_the_rest()
    if not rule.inputs and not rule.outputs:
        members.fault("keeps neither inputs nor outputs")
    return rule if len(faults) == before else None


def _band(value: object, where: str, faults: list[str]) -> Band | None:
    before = len(faults)
    members = _Members(value, f"{where} `band`", faults)
    if len(faults) > before:
        return None
    band = Band(
        members.take("output", _text, default=""),
        members.take("index", _index, default=Measure.ANY),
        members.take("low", _number, default=-inf),
        members.take("high", _number, default=inf),
    )
    members.refuse_the_rest()
    if "low" not in members and "high" not in members:
        members.fault("has neither `low` nor `high`")
    if band.low > band.high:
        members.fault(f"has its `low` {band.low:g} above its `high` {band.high:g}")
    return band


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {kind(value)}")  # noqa: TRY004 - the one exception that is collected
    return value


def _name(value: object) -> str:
    if _NAME.fullmatch(_text(value)) is None:
        raise ValueError(f"must be 1 to {MAX_NAME_LENGTH} letters, digits, `.`, `-` and `_`")
    return str(value)


def _model(value: object) -> str:
    name = _text(value)
    try:
        if name != ANY_MODEL:
            check_model_name(name)
    except NameInvalid as error:
        raise ValueError(f"is neither a model's name nor `{ANY_MODEL}`") from error
    return name


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"must be a number, not {kind(value)}")  # noqa: TRY004 - see _text
    try:
        number = float(value)
    except (ValueError, OverflowError) as error:
        raise ValueError("is not a number") from error
    if not isfinite(number):
        raise ValueError("is not a finite number")
    return number


def _share(value: object) -> float:
    share = _number(value)
    if not 0 < share <= 1:
        raise ValueError("must be more than 0 and at most 1")
    return share


def _index(value: object) -> int | Measure:
    words = tuple(measure.value for measure in Measure)
    if isinstance(value, str) and value.strip().lower() in words:
        return Measure(value.strip().lower())
    try:
        return whole_number(0, INT32_MAX)(value)
    except ValueError as error:
        raise ValueError(f"must be an element's number from 0, or {', '.join(words)}") from error
