"""The configuration file as it lies on the disk: reading the members of one JSON object, and writing a new file.

Nothing is judged here but the form: a regular file of at most 1 MiB, in UTF-8 (or UTF-16 or UTF-32, as editors on
Windows write it; a byte order mark is welcome), holding one JSON object. Members keep their order and their repeats.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from lightkeeper.errors import ConfigFileExists, ConfigUnreadable, ConfigUnwritable
from lightkeeper.system import FILE_FLAGS, NO_WAITING

MAX_FILE_BYTES = 1024 * 1024
PRIVATE = 0o600

Members = tuple[tuple[str, object], ...]
"""An object's names and values in the order of the file. A JSON object is a tuple here, a JSON array a list."""


def read(path: Path) -> Members:
    """Return the members of the one JSON object that the file holds.

    Raises `ConfigUnreadable`, with line and column where the JSON is at fault.
    """
    where = str(path)
    data = _read_bytes(path)
    try:
        text = data.decode(json.detect_encoding(data))
        parsed = json.loads(text, object_pairs_hook=tuple)
    except UnicodeDecodeError as error:
        raise ConfigUnreadable(
            f"{where} is not text in {error.encoding}: byte {error.start} is {error.reason}", file=where
        ) from error
    except json.JSONDecodeError as error:
        problem = "is empty" if not text.strip("\ufeff \t\r\n") else f"is not JSON: {error.msg}"
        raise ConfigUnreadable(f"{where} {problem}", file=where, line=error.lineno, column=error.colno) from error
    except RecursionError as error:
        raise ConfigUnreadable(f"{where} is nested too deeply to be a configuration", file=where) from error
    except ValueError as error:  # a number of thousands of digits
        raise ConfigUnreadable(f"{where} has a number too long to be read", file=where) from error
    if not isinstance(parsed, tuple):
        raise ConfigUnreadable(f"{where} holds {kind(parsed)}, not one JSON object", file=where)
    return cast("Members", parsed)


def kind(value: object) -> str:
    """Return the JSON kind of a value, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def refuse_to_replace(path: Path) -> None:
    """Raise `ConfigFileExists` where anything lies at the path."""
    if os.path.lexists(path):
        raise ConfigFileExists(f"{path} is there already", file=path)


def write(path: Path, members: Mapping[str, object], *, replace: bool) -> None:
    """Write a new file that only its owner may read. An old one, if it may be replaced, stays until the new is whole.

    Raises `ConfigFileExists` or `ConfigUnwritable`.
    """
    place = path.parent / f".{path.name}.{os.getpid()}" if replace else path
    try:
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FILE_FLAGS, PRIVATE)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(members, file, indent=2, ensure_ascii=False)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            if replace:
                place.replace(path)
        except OSError:
            place.unlink(missing_ok=True)
            raise
    except FileExistsError as error:
        raise ConfigFileExists(f"{path} is there already", file=path) from error
    except OSError as error:
        raise ConfigUnwritable(f"{path} cannot be written: {error.strerror}", file=path) from error


def _read_bytes(path: Path) -> bytes:
    where = str(path)
    try:
        # A named pipe that nobody writes to would otherwise be waited for without an end.
        descriptor = os.open(path, os.O_RDONLY | NO_WAITING | FILE_FLAGS)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigUnreadable(f"{where} is not a regular file", file=where)
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigUnreadable(f"{where} cannot be read: {error.strerror}", file=where) from error
    except ValueError as error:  # a NUL or a lone surrogate in the path
        raise ConfigUnreadable(f"{where!a} is not a path", file=f"{where!a}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigUnreadable(f"{where} is larger than a configuration may be", file=where, limit_bytes=MAX_FILE_BYTES)
    return data
