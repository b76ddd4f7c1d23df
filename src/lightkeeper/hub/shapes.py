r"""The shapes of the service model as checks: a value goes in, the same value as the hub uses it comes out.

A check is made once from botocore's shape and then runs without botocore. `read` takes what came as JSON, `write` takes
what a handler returns; both raise `ShapeMismatch` with the place and the rule. Times are integers in milliseconds
inside the hub and numbers of seconds on the wire.

Invariants: a string is measured before its pattern is tried; a pattern must match the whole string, with ASCII's digits
and letters unless it says `\p{…}`; text that no database can keep (a lone surrogate, a NUL) is refused; members that
the shape does not have are dropped on reading, as the service does, and refused on writing. An answer's ARNs are not
held against the model's patterns: those contradict the ARNs that the service gave and that its own AddTags asks for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Protocol

from lightkeeper.errors import ShapeMismatch

INTEGERS = {"integer": 31, "long": 63}
"""Bits of a whole number, without its sign."""

EARLIEST_MS = -62_135_596_800_000
LATEST_MS = 253_402_300_799_999
"""The years 1 to 9999: what a client's clock types can hold."""

VALUE_SHOWN_CHARACTERS = 60

_UNICODE = {
    r"\p{L}": r"\w",
    r"\p{N}": r"\w",
    r"\p{Z}": "\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",
}
r"""Java's classes in Python's words; `\w` is letters, numbers and `_`, which every such class of the model has too."""


class Check(Protocol):
    """One shape."""

    def read(self, value: Any, place: str) -> Any:
        """Return the value for the hub. Raises `ShapeMismatch`."""

    def write(self, value: Any, place: str) -> Any:
        """Return the value for the wire. Raises `ShapeMismatch`."""


def check_of(shape: Any, made: dict[str, Check] | None = None) -> Check:
    """Return the check of one of botocore's shapes. Raises `NotImplementedError` for a type no operation here uses."""
    made = {} if made is None else made
    if shape.name not in made:
        kind = shape.type_name
        if kind not in _KINDS:
            raise NotImplementedError(f"shape {shape.name} is of type {kind}")
        _KINDS[kind](shape, made)
    return made[shape.name]


@dataclass(slots=True)
class Text:
    """A string: its length, pattern and permitted values."""

    least: int
    most: int | None
    pattern: re.Pattern[str] | None
    permitted: frozenset[str]
    is_arn: bool

    def read(self, value: Any, place: str) -> str:
        """See `Check`."""
        return self._checked(value, place, self.pattern)

    def write(self, value: Any, place: str) -> str:
        """See `Check`."""
        return self._checked(value, place, None if self.is_arn else self.pattern)

    def _checked(self, value: Any, place: str, pattern: re.Pattern[str] | None) -> str:
        if not isinstance(value, str):
            raise _mismatch(place, value, "be a string")
        if self.permitted:
            if value not in self.permitted:
                raise _mismatch(place, value, f"be one of {', '.join(sorted(self.permitted))}")
            return value
        if len(value) < self.least:
            raise _mismatch(place, value, f"have at least {self.least} characters")
        if self.most is not None and len(value) > self.most:
            raise _mismatch(place, value, f"have at most {self.most} characters")
        if pattern is not None and not pattern.fullmatch(value):
            raise _mismatch(place, value, f"match the pattern {pattern.pattern}")
        if not value.isascii() and any("\ud800" <= mark <= "\udfff" for mark in value):
            raise _mismatch(place, value, "be text without lone surrogates")
        if "\0" in value:
            raise _mismatch(place, value, "be text without a NUL")
        return value


@dataclass(slots=True)
class Whole:
    """An integer."""

    least: int
    most: int

    def read(self, value: Any, place: str) -> int:
        """See `Check`; a number without a fraction will do, since JSON knows one kind of number."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise _mismatch(place, value, "be a whole number")
        if not self.least <= value <= self.most:
            raise _mismatch(place, value, f"be from {self.least} to {self.most}")
        return value

    write = read


class Real:
    """A floating-point number, finite."""

    def read(self, value: Any, place: str) -> float:
        """See `Check`."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _mismatch(place, value, "be a number")
        try:
            number = float(value)
        except OverflowError:
            raise _mismatch(place, value, "be a number that a double can hold") from None
        if not isfinite(number):
            raise _mismatch(place, value, "be a finite number")
        return number

    write = read


class Truth:
    """A boolean."""

    def read(self, value: Any, place: str) -> bool:
        """See `Check`."""
        if not isinstance(value, bool):
            raise _mismatch(place, value, "be true or false")
        return value

    write = read


class Time:
    """A time."""

    def read(self, value: Any, place: str) -> int:
        """Return milliseconds since 1970 for seconds."""
        number = _SECONDS.read(value, place) * 1000
        if not EARLIEST_MS <= number <= LATEST_MS:
            raise _mismatch(place, value, "be seconds since 1970 of the years 1 to 9999")
        return round(number)

    def write(self, value: Any, place: str) -> float:
        """Return seconds since 1970 for milliseconds."""
        return _MILLISECONDS.read(value, place) / 1000


_SECONDS = Real()
_MILLISECONDS = Whole(EARLIEST_MS, LATEST_MS)


@dataclass(slots=True)
class Row:
    """A list."""

    least: int
    most: int | None
    item: Check

    def read(self, value: Any, place: str) -> list[Any]:
        """See `Check`."""
        item = self.item.read
        return [item(one, f"{place}.{number}.member") for number, one in self._counted(value, place)]

    def write(self, value: Any, place: str) -> list[Any]:
        """See `Check`."""
        item = self.item.write
        return [item(one, f"{place}.{number}.member") for number, one in self._counted(value, place)]

    def _counted(self, value: Any, place: str) -> Iterable[tuple[int, Any]]:
        if not isinstance(value, list):
            raise _mismatch(place, value, "be a list")
        if len(value) < self.least:
            raise _mismatch(place, value, f"have at least {self.least} members")
        if self.most is not None and len(value) > self.most:
            raise _mismatch(place, value, f"have at most {self.most} members")
        return enumerate(value, 1)


@dataclass(slots=True)
class Structure:
    """An object with known members; null stands for a member that is not there."""

    members: dict[str, tuple[str, Check]]
    required: tuple[str, ...]

    def read(self, value: Any, place: str) -> dict[str, Any]:
        """See `Check`."""
        if not isinstance(value, dict):
            raise _mismatch(place, value, "be an object")
        members = self.members
        found = {
            name: members[name][1].read(one, f"{place}{members[name][0]}")
            for name, one in value.items()
            if one is not None and name in members
        }
        self._complete(found, place)
        return found

    def write(self, value: Any, place: str) -> dict[str, Any]:
        """See `Check`."""
        if not isinstance(value, dict):
            raise _mismatch(place, value, "be an object")
        for name in value.keys() - self.members.keys():
            raise _mismatch(f"{place}.{name}", value[name], "not be there: the shape has no such member")
        members = self.members
        found = {
            name: members[name][1].write(one, f"{place}{members[name][0]}")
            for name, one in value.items()
            if one is not None
        }
        self._complete(found, place)
        return found

    def _complete(self, found: dict[str, Any], place: str) -> None:
        for name in self.required:
            if name not in found:
                member = f"{place}{self.members[name][0]}".lstrip(".")
                raise ShapeMismatch(
                    f"Value null at '{member}' failed to satisfy constraint: Member must not be null",
                    member=member,
                    rule="not be null",
                )


def _text(shape: Any, made: dict[str, Check]) -> None:
    metadata = shape.metadata
    pattern = metadata.get("pattern")
    made[shape.name] = Text(
        metadata.get("min", 0),
        metadata.get("max"),
        compiled(pattern) if pattern and pattern != ".*" else None,
        frozenset(metadata.get("enum", ())),
        is_arn=bool(pattern) and pattern.startswith("arn:"),
    )


def _whole(shape: Any, made: dict[str, Check]) -> None:
    edge = 1 << INTEGERS[shape.type_name]
    made[shape.name] = Whole(shape.metadata.get("min", -edge), shape.metadata.get("max", edge - 1))


def _row(shape: Any, made: dict[str, Check]) -> None:
    made[shape.name] = Row(shape.metadata.get("min", 0), shape.metadata.get("max"), check_of(shape.member, made))


def _structure(shape: Any, made: dict[str, Check]) -> None:
    structure = Structure({}, tuple(shape.required_members))
    made[shape.name] = structure
    for name, member in shape.members.items():
        structure.members[name] = (f".{name[0].lower()}{name[1:]}", check_of(member, made))


def _plain(check: Check) -> Callable[[Any, dict[str, Check]], None]:
    def put(shape: Any, made: dict[str, Check]) -> None:
        made[shape.name] = check

    return put


_KINDS: dict[str, Callable[[Any, dict[str, Check]], None]] = {
    "string": _text,
    "integer": _whole,
    "long": _whole,
    "double": _plain(Real()),
    "boolean": _plain(Truth()),
    "timestamp": _plain(Time()),
    "list": _row,
    "structure": _structure,
}


def compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern of the model for Python's `re`."""
    if r"\p{" not in pattern:
        return re.compile(pattern, re.ASCII)
    for theirs, ours in _UNICODE.items():
        pattern = pattern.replace(theirs, ours)
    return re.compile(pattern)


def _mismatch(place: str, value: Any, rule: str) -> ShapeMismatch:
    shown = value if isinstance(value, str) else type(value).__name__ if isinstance(value, dict | list) else repr(value)
    if len(shown) > VALUE_SHOWN_CHARACTERS:
        shown = f"{shown[:VALUE_SHOWN_CHARACTERS]}…"
    shown = shown.encode("utf-8", "backslashreplace").decode()
    return ShapeMismatch(
        f"Value '{shown}' at '{place.lstrip('.')}' failed to satisfy constraint: Member must {rule}",
        member=place.lstrip("."),
        rule=rule,
    )
