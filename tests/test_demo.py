"""The demo, run as a person runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from demo.__main__ import DemoError, check_same_text
from demo.ocr import Line

ROOT = Path(__file__).parents[1]


def run_demo(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the demo's short form, with everything it makes in a folder."""
    command = [sys.executable, "-m", "demo", "--rounds", "1", "--folder", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def test_demo_reads_the_page_through_the_agent_and_shows_a_forgery_refused(tmp_path: Path) -> None:
    """The text, the check, each model's cost and the refusal are printed, and the agent has stopped."""
    folder = tmp_path / "demo"
    done = run_demo(folder)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "unambiguously as either object or background. Here," in done.stdout
    assert "The text equals, letter for letter" in done.stdout
    for model in ("text-detection", "text-orientation", "text-recognition"):
        (row,) = [line.split() for line in done.stdout.splitlines() if line.strip().startswith(model)]
        assert int(row[3]) >= 1, row
        assert float(row[4]) > 0, row
    assert "[FILE_CHANGED]" in done.stdout
    assert "next step: get the package again" in done.stdout
    assert "ended with exit code 0" in done.stdout
    assert not (folder / "agent.sock").exists()
    assert "\x1b" not in done.stdout


def test_demo_leaves_a_folder_alone_that_it_did_not_make(tmp_path: Path) -> None:
    """A folder with somebody's file ends the demo at once, and the file stays."""
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    done = run_demo(tmp_path)
    assert done.returncode == 1
    assert "was not made by the demo" in done.stdout
    assert mine.read_text() == "mine"


def test_demo_fails_when_the_text_through_the_agent_differs() -> None:
    """One letter of difference is a failure that shows both texts."""
    with pytest.raises(DemoError, match="the text differs"):
        check_same_text([Line("Lion", 1.0)], [Line("Line", 1.0)])


def test_demo_fails_when_no_text_is_found() -> None:
    """Two empty texts are equal and still a failure."""
    with pytest.raises(DemoError, match="no text"):
        check_same_text([], [])
