"""A JSON document from outside, read strictly: every wrong value is named by the path of its field.

`json` alone would let pass what different readers understand differently: keys given twice, `NaN`, numbers for
booleans. A `Node` is one value of the document and knows where it stands; its accessors return the value in the type
that is asked for, or raise `DocumentInvalid`.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass


class DocumentInvalid(ValueError):  # noqa: N818  # named like the reasons it becomes
    """A document is not what its reader needs; the text names the field. Readers translate it into their own error."""

    def __init__(self, path: str, problem: str) -> None:
        """Name the field (empty for the document itself) and what is wrong with it."""
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Node:
    """One value of a document, with the path that leads to it."""

    value: object
    path: str = ""

    @classmethod
    def parse(cls, data: bytes) -> Node:
        """Read a whole document."""
        try:
            text = data.decode("utf-8")
            return cls(json.loads(text, object_pairs_hook=_without_twins, parse_constant=_no_constant))
        except UnicodeDecodeError as error:
            raise DocumentInvalid("", "is not UTF-8") from error
        except RecursionError as error:
            raise DocumentInvalid("", "is nested too deep") from error
        except ValueError as error:  # wrong JSON, a key given twice, or a number with too many digits
            raise DocumentInvalid("", f"is not JSON that can be read: {error}") from error

    def wrong(self, problem: str) -> DocumentInvalid:
        """Return the error that names this field."""
        return DocumentInvalid(self.path, problem)

    def __getitem__(self, key: str) -> Node:
        """Return a field of this object that must be there."""
        found = self.get(key)
        if found is None:
            raise DocumentInvalid(self._below(key), "is missing")
        return found

    def get(self, key: str) -> Node | None:
        """Return a field of this object, or None where it is absent."""
        fields = self._fields()
        return Node(fields[key], self._below(key)) if key in fields else None

    def only(self, *keys: str) -> None:
        """Make sure that this object has no other fields than these."""
        for key in self._fields():
            if key not in keys:
                raise DocumentInvalid(self._below(key), "is not a field this reader knows")

    def items(self) -> Iterator[Node]:
        """Yield the elements of this list."""
        if not isinstance(self.value, list):
            raise self.wrong("must be a list")
        for index, value in enumerate(self.value):
            yield Node(value, f"{self.path}[{index}]")

    def text(self) -> str:
        """Return this string; it is never empty."""
        if not isinstance(self.value, str) or not self.value:
            raise self.wrong("must be a string that is not empty")
        if not self.value.isprintable():  # this also refuses lone surrogates, which no encoding can write
            raise self.wrong("must not have characters that cannot be printed")
        return self.value

    def equals(self, expected: str) -> None:
        """Make sure that this string is the expected one."""
        if self.value != expected:
            raise self.wrong(f"must be {expected!r}, not {str(self.value)[:80]!r}")

    def integer(self, *, least: int, most: int) -> int:
        """Return this whole number, within its bounds; `1000.0` is one too, as protobuf writes it."""
        whole = type(self.value) is int or (type(self.value) is float and self.value.is_integer())
        if not whole or not least <= self.value <= most:  # type: ignore[operator]  # a number, as the line above says
            raise self.wrong(f"must be a whole number from {least} to {most}")
        return int(self.value)  # type: ignore[call-overload, no-any-return]  # same

    def number(self) -> float:
        """Return this number; it is finite and not negative."""
        if type(self.value) not in (int, float):
            raise self.wrong("must be a number")
        try:
            number = float(self.value)  # type: ignore[arg-type]  # int or float, as the line above says
        except OverflowError as error:
            raise self.wrong("is too large") from error
        if not (math.isfinite(number) and number >= 0):
            raise self.wrong("must be finite and not negative")
        return number

    def boolean(self) -> bool:
        """Return this boolean."""
        if not isinstance(self.value, bool):
            raise self.wrong("must be true or false")
        return self.value

    def base64(self) -> bytes:
        """Return the bytes that this string has in base64, in the standard alphabet."""
        if not isinstance(self.value, str) or not self.value:
            raise self.wrong("must be base64 text that is not empty")
        try:
            return base64.b64decode(self.value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise self.wrong("is not base64") from error

    def _fields(self) -> dict[str, object]:
        if not isinstance(self.value, dict):
            raise self.wrong("must be an object")
        return self.value

    def _below(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def _without_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twin!r} is given twice")
    return fields


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")
