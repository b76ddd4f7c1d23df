"""`lightkeeper captures show` and `export`, run as their users run them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from lightkeeper.capture.record import Part
from tests.support.captures import START_NS, capture, tensor, vibration, write_batch

HOUR_NS = 3600 * 10**9


@dataclass(frozen=True)
class Shell:
    """A folder with captures, where commands are run."""

    folder: Path

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command of `captures` and hold its exit code against the expected one."""
        command: Sequence[str] = (sys.executable, "-m", "lightkeeper", "captures", *arguments)
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr + done.stdout
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run a command with `--json` and return its one document."""
        return json.loads(self.run(*arguments, "--json", code=code).stdout)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Three captures in two batches of two hours."""
    one, two = np.array([[1, 2, 3]], np.float32), np.arange(10, dtype=np.int64)
    first = capture("a", tensor(Part.INPUT, "x", one), tensor(Part.OUTPUT, "y", two))
    write_batch(tmp_path / "captures", [first, vibration("b", 1, rule="few")])
    later = [vibration("c", 1, model="gate", time_ns=START_NS + HOUR_NS)]
    write_batch(tmp_path / "captures", later, hour="2023/11/14/23")
    return Shell(tmp_path)


def test_captures_are_shown_the_newest_first(shell: Shell) -> None:
    """In a pipe, one line a capture with what it is of."""
    lines = shell.run("show", "captures").stdout.splitlines()
    assert [line.split("\t")[1] for line in lines] == ["c", "b", "a"]
    assert "; frame.jpg (in a file)\t" in lines[1]
    assert "2023-11-14 22:13:20.000\ta\tturbine 1.0\t\tx FLOAT32[1, 3] 1 2 3\ty INT64[10] 0 1 2 3 4 5 …" in lines


def test_only_the_wanted_captures_are_shown(shell: Shell) -> None:
    """By model, time and number, and there being more is said."""
    assert [item["id"] for item in shell.json("show", "captures", "--model", "turbine")["captures"]] == ["b", "a"]
    assert [item["id"] for item in shell.json("show", "captures", "--since", "2023-11-14T23")["captures"]] == ["c"]
    assert [item["id"] for item in shell.json("show", "captures", "--until", "2023-11-14T23:00:00Z")["captures"]] == [
        "b",
        "a",
    ]
    assert shell.json("show", "captures", "--limit", "2")["more"] is True
    assert "there are more than these 1" in shell.run("show", "captures", "--limit", "1").stderr
    assert shell.run("show", "captures", "--model", "none").stderr == "no capture\n"


def test_a_document_says_all_there_is(shell: Shell) -> None:
    """Metadata, types, shapes, values, and where larger payloads are."""
    document = shell.json("show", "captures", "--until", "2023-11-14T23:00:00")
    assert (document["more"], document["damaged"]) == (False, {"count": 0, "lines": []})
    b, a = document["captures"]
    assert (a["id"], a["device"], a["fleet"], a["model"], a["version"]) == ("a", "cam-1", "yard", "turbine", "1.0")
    assert (a["time"], a["rule"], b["rule"]) == ("2023-11-14T22:13:20.000000000Z", "", "few")
    assert a["inputs"][0]["values"] == [1, 2, 3]
    assert a["outputs"][0]["shape"] == [10]
    assert b["auxiliary_inputs"][0]["data_ref"].startswith("file://")


def test_captures_are_exported_to_parquet(shell: Shell) -> None:
    """Into a new file; never over an old one."""
    assert shell.run("export", "captures", "out.parquet", "--model", "turbine").stdout == "out.parquet: 2 captures\n"
    assert parquet.read_table(shell.folder / "out.parquet")["id"].to_pylist() == ["a", "b"]
    assert shell.json("export", "captures", "out.parquet", code=1)["error"]["reason"] == "OUTPUT_EXISTS"


def test_captures_are_exported_to_npz(shell: Shell) -> None:
    """Into a new folder, one file a capture."""
    assert shell.json("export", "captures", "out") == {
        "output": "out",
        "captures": 3,
        "damaged": {"count": 0, "lines": []},
    }
    with np.load(shell.folder / "out/gate/1.0/c.npz") as file:
        assert file["inputs/x"].shape == (1, 6)


def test_damage_is_told_after_all_that_could_be_read(shell: Shell) -> None:
    """With file and line, on stderr, and with an exit code that a script sees."""
    (batch,) = (shell.folder / "captures").rglob("22/*.jsonl")
    batch.write_bytes(batch.read_bytes() + b"torn")
    name = batch.relative_to(shell.folder / "captures").as_posix()
    shown = shell.run("show", "captures", code=1)
    assert len(shown.stdout.splitlines()) == 3
    assert f"{name}:3: Expecting value" in shown.stderr
    assert "1 captures could not be read [CAPTURE_DAMAGED]" in shown.stderr
    document = shell.json("show", "captures", code=1)
    assert len(document["captures"]) == 3
    assert document["damaged"]["lines"][0]["line"] == 3
    assert shell.run("export", "captures", "out.parquet", code=1).stdout == "out.parquet: 3 captures\n"


def test_a_name_gives_a_terminal_no_command(tmp_path: Path) -> None:
    """Whoever wrote the line, it is shown as one line of text."""
    write_batch(tmp_path / "captures", [capture("a", tensor(Part.OUTPUT, "y\x1b[2J\n\t", np.array(1)))])
    (line,) = Shell(tmp_path).run("show", "captures").stdout.splitlines()
    assert line.endswith("\ty\\x1b[2J\\n\\t INT64[] 1")


def test_values_that_json_does_not_know_are_words(tmp_path: Path) -> None:
    """A document is JSON to every parser."""
    values = np.array([np.nan, np.inf, -np.inf, 0.5], np.float32)
    write_batch(tmp_path / "captures", [capture("a", tensor(Part.OUTPUT, "y", values))])
    document = Shell(tmp_path).json("show", "captures")
    assert document["captures"][0]["outputs"][0]["values"] == ["nan", "inf", "-inf", 0.5]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("show", "nothing"), 1, "CAPTURES_MISSING"),
        (("show", "."), 1, "CAPTURES_MISSING"),
        (("show", "captures", "--since", "yesterday"), 2, "is no time"),
        (("show", "captures", "--since", "NaT"), 2, "is no time"),
        (("show", "captures", "--limit", "0"), 2, "must be 1 or more"),
        (("show", "captures", "--limit", "x"), 2, "invalid"),
    ],
)
def test_what_cannot_be_done_says_why(tmp_path: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    """On stderr, without a traceback."""
    done = Shell(tmp_path).run(*arguments, code=code)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
