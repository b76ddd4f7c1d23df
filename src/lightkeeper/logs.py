"""How the agent logs: one line an event on stderr, as JSON for machines or aligned and coloured for a terminal.

A record's message is a fixed event word (`model_loaded`); what belongs to it comes as `extra=` fields. Times are UTC
with milliseconds. Invariants: a record is one line, whatever its fields hold; bytes, arrays and other values that are
no plain text or number appear as their type alone, so that no payload reaches a log; text is cut at
`TEXT_LIMIT_CHARACTERS`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum, StrEnum
from math import isfinite
from pathlib import PurePath
from typing import TextIO

TEXT_LIMIT_CHARACTERS = 4000

Field = str | int | float | bool | None | list["Field"] | dict[str, "Field"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_COLOURS = {"DEBUG": "\x1b[2m", "INFO": "\x1b[32m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}
_PLAIN = "\x1b[0m"


class Style(StrEnum):
    """How a record looks."""

    JSON = "json"
    CONSOLE = "console"


def configure(level: str = "INFO", style: Style | None = None, stream: TextIO | None = None) -> None:
    """Log the agent's records from `level` on and other libraries' from WARNING on, in place of what was set before.

    Without a style, a terminal gets the console's and everything else JSON. Without a stream, stderr is used.
    """
    target = stream or sys.stderr
    on_terminal = target.isatty()
    chosen = style or (Style.CONSOLE if on_terminal else Style.JSON)
    handler = logging.StreamHandler(target)
    handler.setFormatter(JsonFormatter() if chosen is Style.JSON else ConsoleFormatter(colours=on_terminal))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("lightkeeper").setLevel(level)
    logging.captureWarnings(capture=True)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, event, logger, then the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Field] = {
            "time": _time(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "event": _text(record.getMessage()),
            "logger": record.name,
        }
        for name, value in fields(record).items():
            line[f"{name}_" if name in line else name] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)


class ConsoleFormatter(logging.Formatter):
    """Time of day, level, event and `name=value` for each field; a traceback follows on lines of its own."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the traceback below it where there is one."""
        colour, plain = (_COLOURS.get(record.levelname, ""), _PLAIN) if self._colours else ("", "")
        time = _time(record).strftime("%H:%M:%S.%f")[:-3]
        event = _printable(_text(record.getMessage()))
        pairs = "".join(f"  {name}={_shown(value)}" for name, value in fields(record).items())
        line = f"{time} {colour}{record.levelname:<7}{plain} {event}{pairs}"
        if not record.exc_info:
            return line
        return "\n".join([line, *map(_printable, self.formatException(record.exc_info).splitlines())])


def fields(record: logging.LogRecord) -> Mapping[str, Field]:
    """Return what the caller gave as `extra=`, fit for a log."""
    return {name: _field(value) for name, value in vars(record).items() if name not in _STANDARD}


def _field(value: object) -> Field:  # noqa: PLR0911 - one return a kind of value
    match value:
        case None | bool():
            return value
        case Enum():
            return _field(value.value)
        case str():
            return _text(value)
        case int():
            return value
        case float():
            return value if isfinite(value) else str(value)
        case PurePath() | BaseException():
            return _text(str(value))
        case dict():
            return {str(name): _field(item) for name, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_field(item) for item in value]
        case bytes() | bytearray():
            return f"<{len(value)} bytes>"
        case _:
            return f"<{type(value).__name__}>"


def _text(value: str) -> str:
    return value if len(value) <= TEXT_LIMIT_CHARACTERS else f"{value[:TEXT_LIMIT_CHARACTERS]}…"


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _printable(text: str) -> str:
    """Return text on one line: what cannot be printed, line ends and terminal codes among it, is escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _shown(value: Field) -> str:
    if isinstance(value, str):
        bare = value and value.isprintable() and not any(mark in value for mark in ' "=')
        return value if bare else _printable(json.dumps(value, ensure_ascii=False))
    return json.dumps(value)
