"""From a JSON value to the value a key stands for: one `Kind` for each kind of value, with what it allows in words.

Deployment tools write every value as a string, so numbers and booleans are taken in both forms. Every kind raises
`ValueError` with words that continue the sentence "KEY …".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Generic, TypeVar

from lightkeeper import tokenkey
from lightkeeper.config.document import kind
from lightkeeper.tokenkey import KeyAddress

MAX_TEXT_LENGTH = 4096
"""Characters; the longest path a Linux kernel takes."""

INT32_MAX = 2**31 - 1
INTERVAL_MINIMUM_MS = 10
OWNER_READ_WRITE = 0o600

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,30}")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_BUCKET_ADDRESS = re.compile(r"(?:s3://|arn:aws[a-z-]*:s3:::)(?P<bucket>[^/]*)(?P<rest>/.*)?", re.IGNORECASE)
_HOST = r"(?P<host>(?:[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?)"
_CREDENTIAL_ENDPOINT = re.compile(
    rf"(?i:https://)?{_HOST}(?P<path>/role-aliases/[\w=,@-]{{1,128}}/credentials)?/?", re.ASCII
)
_SERVICE_ADDRESS = re.compile(rf"(?:(?P<scheme>(?i:https?))://)?{_HOST}(?P<path>/[\w./%~-]*)?", re.ASCII)

Value = TypeVar("Value")
Word = TypeVar("Word", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Kind(Generic[Value]):
    """How to read one kind of value. `allowed` tells a person what may be written."""

    allowed: str
    parse: Callable[[object], Value]

    def __call__(self, value: object) -> Value:
        """Return what the JSON value stands for; raises `ValueError`."""
        return self.parse(value)


def optional(kind_of_value: Kind[Value]) -> Kind[Value | None]:
    """Return the same kind for a key that may be left out: None stays None."""
    return Kind(kind_of_value.allowed, lambda value: None if value is None else kind_of_value.parse(value))


class Provider(StrEnum):
    """Who carries data between the device and its fleet's cloud."""

    AWS = "Aws"
    CUSTOM = "Custom"
    NONE = "None"


class Destination(StrEnum):
    """Where captures go."""

    CLOUD = "Cloud"
    DISK = "Disk"


class Transport(StrEnum):
    """What carries gRPC: the native wire, grpcio, or the native one where it is installed."""

    AUTO = "auto"
    NATIVE = "native"
    GRPCIO = "grpcio"


class PathBase(StrEnum):
    """What a relative path starts from: the agent's working directory, or the folder the configuration lies in."""

    WORKING_DIRECTORY = "working_directory"
    FILE = "file"


class WhenFull(StrEnum):
    """What happens to captures when the spool is full."""

    REJECT = "reject"
    THIN = "thin"


@dataclass(frozen=True, slots=True)
class Durability:
    """When an accepted capture is on the disk: before the answer, within an interval, or never."""

    interval_ms: int = 0
    in_memory: bool = False


def whole_number(minimum: int, maximum: int) -> Kind[int]:
    """Return the kind of a whole number within two bounds, given as a number or as its digits."""

    def parse(value: object) -> int:
        match value:
            case bool():
                raise ValueError("must be a whole number, not a boolean")
            case int():
                number = value
            case float() if value.is_integer():
                number = int(value)
            case str() if _INTEGER.fullmatch(value.strip()):
                number = int(value)
            case _:
                raise ValueError("is not a whole number")
        if number < minimum:
            raise ValueError(f"is less than {minimum}")
        if number > maximum:
            raise ValueError(f"is more than {maximum}")
        return number

    bounds = f"{minimum} or more" if maximum == INT32_MAX else f"{minimum} to {maximum}"
    return Kind(f"a whole number, {bounds}", parse)


def number(minimum: float, maximum: float) -> Kind[float]:
    """Return the kind of a number within two bounds, given as a number or as text."""

    def parse(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(f"must be a number, not {kind(value)}")  # noqa: TRY004 - see _text
        try:
            given = float("_" if isinstance(value, str) and "_" in value else value)
        except (ValueError, OverflowError):
            raise ValueError("is not a number") from None
        if not minimum <= given <= maximum:  # which NaN is not either
            raise ValueError(f"is not from {minimum:g} to {maximum:g}")
        return given

    return Kind(f"a number, {minimum:g} to {maximum:g}", parse)


def word_of(words: type[Word]) -> Kind[Word]:
    """Return the kind of one word of a set, in any case."""
    by_name = {word.value.lower(): word for word in words}

    def parse(value: object) -> Word:
        if not isinstance(value, str):
            raise ValueError(f"must be a word in a string, not {kind(value)}")  # noqa: TRY004 - see _text
        if value.strip().lower() not in by_name:
            raise ValueError("is none of the words it may be")
        return by_name[value.strip().lower()]

    *most, last = (f"`{word.value}`" for word in words)
    return Kind(f"{', '.join(most)} or {last}", parse)


def matching(allowed: str, pattern: str) -> Kind[str]:
    """Return the kind of text that matches a pattern as a whole."""
    compiled = re.compile(pattern)

    def parse(value: object) -> str:
        given = _text(value)
        if compiled.fullmatch(given) is None:
            raise ValueError("has a character or a length that is not allowed")
        return given

    return Kind(allowed, parse)


def _text(value: object) -> str:
    """Return text without the white space around it; a whole number stands for its digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {kind(value)}")  # noqa: TRY004 - the one exception pydantic collects
    stripped = value.strip()
    if len(stripped) > MAX_TEXT_LENGTH:
        raise ValueError(f"has {len(stripped)} characters, more than {MAX_TEXT_LENGTH}")
    if not stripped.isprintable():  # control characters and lone surrogates are part of no name and no path
        raise ValueError("has a character that cannot be printed")
    return stripped


def _key(value: object) -> Path | KeyAddress:
    return tokenkey.parse(_text(value)) if isinstance(value, str) and tokenkey.is_address(value) else _path(value)


def _path(value: object) -> Path:
    if not isinstance(value, str):
        raise ValueError(f"must be a path in a string, not {kind(value)}")  # noqa: TRY004 - see _text
    return Path(_text(value))


def _flag(value: object) -> bool:
    word = str(value).strip().lower() if isinstance(value, str | int) else ""
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("is neither true nor false")


def _bucket(value: object) -> str:
    given = _text(value)
    address = _BUCKET_ADDRESS.fullmatch(given)
    if address and _BUCKET.fullmatch(address["bucket"]):
        hint = f"must be a bucket's name, not its address: write {address['bucket']}"
        folder = (address["rest"] or "").strip("/")
        raise ValueError(f"{hint}, and {folder} as sagemaker_edge_core_folder_prefix" if folder else hint)
    if _BUCKET.fullmatch(given) is None:
        raise ValueError("is not the name of a bucket")
    return given


def _prefix(value: object) -> str:
    given = _text(value).strip("/")
    if "\\" in given or any(part in {"..", "."} for part in given.split("/")):
        raise ValueError("must stay below the bucket or the folder: no `.`, `..` or backslash in it")
    return given


def _credential_endpoint(value: object) -> str:
    given = _CREDENTIAL_ENDPOINT.fullmatch(_text(value))
    if given is None:
        raise ValueError("is neither the https address of a role alias's credentials nor a bare host")
    return f"https://{given['host']}{given['path'] or ''}"


def _service_address(value: object) -> str:
    given = _SERVICE_ADDRESS.fullmatch(_text(value))
    if given is None:
        raise ValueError("is not the address of a service")
    return f"{(given['scheme'] or 'https').lower()}://{given['host']}{(given['path'] or '').rstrip('/')}"


def _file_mode(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError(f"must be octal digits in a string, not {kind(value)}")  # noqa: TRY004 - see _text
    if re.fullmatch(r"(?:0o?)?[0-7]{3}", value.strip()) is None:
        raise ValueError("is not three octal digits after a 0")
    mode = int(value, base=8)
    if mode & OWNER_READ_WRITE != OWNER_READ_WRITE:
        raise ValueError("would keep the agent's own user out")
    return mode


def _durability(value: object) -> Durability:
    word, _, rest = _text(value).lower().partition(":")
    if word in {"sync", "memory"} and not rest:
        return Durability(in_memory=word == "memory")
    if word == "interval" and re.fullmatch("[0-9]{1,7}", rest) and int(rest) >= INTERVAL_MINIMUM_MS:
        return Durability(interval_ms=int(rest))
    raise ValueError("is neither `sync`, `memory` nor `interval:<milliseconds>`")


TEXT = Kind("text", _text)
DURABILITY = Kind(f"`sync`, `interval:<ms>` (from {INTERVAL_MINIMUM_MS}) or `memory`", _durability)
NAME = matching("1 to 63 letters, digits, `-` and `_`", "[A-Za-z0-9_-]{1,63}")
THING_NAME = matching("1 to 128 letters, digits, `-`, `_` and `:`", "[A-Za-z0-9:_-]{1,128}")
REGION = matching("a region's name, such as `eu-central-1`", "[A-Za-z0-9]+(-[A-Za-z0-9]+)*")
FILE = Kind("the path of a file", _path)
KEY = Kind("the path of a file, or the address of a key in a PKCS#11 token", _key)
FOLDER = Kind("the path of a folder", _path)
FLAG = Kind("`true` or `false`", _flag)
BUCKET = Kind("a bucket's name, without `s3://`", _bucket)
PREFIX = Kind("names joined by `/`", _prefix)
CREDENTIAL_ENDPOINT = Kind("`https://<host>/role-aliases/<alias>/credentials`, or the host alone", _credential_endpoint)
SERVICE_ADDRESS = Kind("an http or https address without user, query and fragment", _service_address)
FILE_MODE = Kind("octal digits in a string, with read and write for the owner, such as `0660`", _file_mode)
