"""What the agent's log looks like, and what never gets into it."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightkeeper import logs
from lightkeeper.logs import ConsoleFormatter, JsonFormatter, Style

AT_NOON = 1_795_000_000.1239


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Put the process's logging back as it was."""
    root, package = logging.getLogger(), logging.getLogger("lightkeeper")
    before = (list(root.handlers), root.level, package.level)
    yield
    logging.captureWarnings(capture=False)
    handlers, root_level, package_level = before
    root.handlers[:] = handlers
    root.setLevel(root_level)
    package.setLevel(package_level)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def record(event: str, level: int = logging.INFO, /, fields: dict[str, object] | None = None) -> logging.LogRecord:
    """Return a record of a fixed time."""
    made = logging.getLogger("lightkeeper.test").makeRecord(
        "lightkeeper.registry", level, "file.py", 1, event, (), None, extra=fields
    )
    made.created = AT_NOON
    return made


def as_json(event: str, **fields: object) -> dict[str, Any]:
    """Return the JSON line of a record, which must be one line."""
    line = JsonFormatter().format(record(event, fields=fields))
    assert "\n" not in line
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def test_a_record_is_one_json_object_with_its_fields() -> None:
    """Time, level, event and logger come first, in UTC with milliseconds."""
    line = JsonFormatter().format(
        record("model_loaded", fields={"model": "ocr", "seconds": 0.25, "bytes": 7, "warm": True, "note": None})
    )
    assert line == (
        '{"time": "2026-11-18T11:06:40.123Z", "level": "INFO", "event": "model_loaded", '
        '"logger": "lightkeeper.registry", "model": "ocr", "seconds": 0.25, "bytes": 7, "warm": true, "note": null}'
    )


def test_a_record_on_a_console_is_aligned_and_quoted_where_needed() -> None:
    """Words stand bare; what has a space, a quote or nothing in it is quoted."""
    line = ConsoleFormatter(colours=False).format(
        record(
            "model_loaded",
            fields={"model": "ocr", "path": Path("/a b"), "shape": (1, -1), "empty": "", "pair": "a=b"},
        )
    )
    assert line == '11:06:40.123 INFO    model_loaded  model=ocr  path="/a b"  shape=[1, -1]  empty=""  pair="a=b"'


def test_the_level_is_coloured_on_a_terminal_only() -> None:
    """Escape codes in a file help nobody."""
    assert "\x1b[31mERROR  \x1b[0m" in ConsoleFormatter(colours=True).format(record("failed", logging.ERROR))
    assert "\x1b" not in ConsoleFormatter(colours=False).format(record("failed", logging.ERROR))


class Colour(Enum):
    """A value of the caller's own."""

    RED = "red"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"payload", "<7 bytes>"),
        (bytearray(b"payload"), "<7 bytes>"),
        (memoryview(b"payload"), "<memoryview>"),
        (np.arange(3), "<ndarray>"),
        (object(), "<object>"),
        ([b"payload", {"data": b"payload"}], ["<7 bytes>", {"data": "<7 bytes>"}]),
        (Path("/model"), "/model"),
        (Colour.RED, "red"),
        (ValueError("no"), "no"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        ((1, "a", None), [1, "a", None]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_shown_as_text_and_payloads_by_their_size(value: object, shown: object) -> None:
    """No tensor's bytes reach a log, however deep they lie."""
    assert as_json("event", value=value)["value"] == shown


def test_long_text_is_cut() -> None:
    """A record has a size."""
    assert len(as_json("event", text="x" * 100_000)["text"]) == logs.TEXT_LIMIT_CHARACTERS + 1


def test_a_field_named_like_a_fixed_one_is_kept_under_another_name() -> None:
    """Neither is lost."""
    line = as_json("event", time="noon", level="high")
    assert (line["time_"], line["level_"], line["level"]) == ("noon", "high", "INFO")


@given(st.text(), st.text())
def test_any_text_stays_on_one_line(event: str, value: str) -> None:
    """Nobody can forge a record, or drive a terminal, through a name or a value."""
    assert as_json(event, value=value)["value"] == value
    assert ConsoleFormatter(colours=False).format(record(event, fields={"value": value})).isprintable()


def test_a_traceback_follows_the_record() -> None:
    """As a field in JSON, on lines of its own on a console; control characters do not pass."""
    try:
        int("no\x1b[31m")
    except ValueError:
        failed = record("failed", logging.ERROR)
        failed.exc_info = sys.exc_info()
    assert json.loads(JsonFormatter().format(failed))["exception"].endswith(r"'no\x1b[31m'")
    first, *rest = ConsoleFormatter(colours=False).format(failed).splitlines()
    assert first.endswith("failed")
    assert all(line.isprintable() for line in rest)
    assert "ValueError" in rest[-1]


def test_a_pipe_gets_json_and_a_terminal_the_console() -> None:
    """Without a style, the stream decides; a given style is kept."""
    logger = logging.getLogger("lightkeeper.test")
    forms = []
    for stream, style in (
        (io.StringIO(), None),
        (Terminal(), None),
        (Terminal(), Style.JSON),
        (io.StringIO(), Style.CONSOLE),
    ):
        logs.configure("INFO", style, stream)
        logger.info("started")
        forms.append(stream.getvalue()[0] == "{")
    assert forms == [True, False, True, False]


def test_the_log_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Stdout belongs to results."""
    logs.configure()
    logging.getLogger("lightkeeper.test").info("started")
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["event"] == "started"


def test_the_level_counts_for_the_agent_and_not_for_other_libraries() -> None:
    """A verbose agent does not bring its libraries' chatter with it."""
    stream = io.StringIO()
    logs.configure("DEBUG", Style.JSON, stream)
    logging.getLogger("lightkeeper.test").debug("ours")
    logging.getLogger("other.library").info("theirs")
    logging.getLogger("other.library").warning("their warning")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["ours", "their warning"]


def test_to_configure_again_replaces_what_was_there() -> None:
    """Each record is written once."""
    first, second = io.StringIO(), io.StringIO()
    logs.configure("DEBUG", Style.JSON, first)
    logs.configure("WARNING", Style.JSON, second)
    logging.getLogger("lightkeeper.test").info("quiet")
    logging.getLogger("lightkeeper.test").warning("loud")
    assert first.getvalue() == ""
    assert [json.loads(line)["event"] for line in second.getvalue().splitlines()] == ["loud"]


def test_warnings_of_python_are_logged() -> None:
    """A library's warning is a record like any other."""
    stream = io.StringIO()
    logs.configure("INFO", Style.JSON, stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old use", UserWarning, stacklevel=1)
    assert re.search("UserWarning: old use", json.loads(stream.getvalue())["event"])


def test_records_of_many_threads_do_not_mix() -> None:
    """Each line is whole."""
    stream = io.StringIO()
    logs.configure("INFO", Style.JSON, stream)
    logger = logging.getLogger("lightkeeper.test")

    def log(thread: int) -> None:
        for count in range(100):
            logger.info("predicted", extra={"thread_number": thread, "count": count, "text": "x" * 200})

    threads = [threading.Thread(target=log, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    seen = {(line["thread_number"], line["count"]) for line in lines}
    assert (len(lines), len(seen)) == (800, 800)
