"""The benchmarks run, and yield every figure. What the figures say is for `make bench` to judge."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.comparison import Comparison, Ratio
from bench.life import ColdStart, MemoryOverTime
from bench.load import GRPC_PREFIX, HOW_TO_GET_H2LOAD, Load
from bench.results import Results
from bench.workshop import Memory

REPOSITORY = Path(__file__).parent.parent
MIB = 1 << 20


def run(tmp_path: Path, path_variable: str) -> tuple[dict[str, Any], str, str]:
    """Run the shortest form and return its document, its page and what it said."""
    page = tmp_path / "page.md"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--effort", "smoke", "--json", "--write", page],
        cwd=REPOSITORY,
        env=os.environ | {"PATH": path_variable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document, page.read_text(), done.stderr


def test_every_figure_is_there_without_h2load(tmp_path: Path) -> None:
    """Without h2load the run says how to get it and measures the rest."""
    document, page, said = run(tmp_path, "/nonexistent")

    assert HOW_TO_GET_H2LOAD in said
    assert HOW_TO_GET_H2LOAD in page
    found = {(item["model"], item["client"], item["in_flight"]) for item in document["comparisons"]}
    assert found == {(model, "Python client", calls) for model in ("small", "image") for calls in (1, 8)}
    for comparison in document["comparisons"]:
        assert {"agent", "bare server"} <= set(comparison["loads"])
        assert all(load["p50_us"] > 0 and load["per_second"] > 0 for load in comparison["loads"].values())
    assert all(start["answered_seconds"] > 0 for start in document["cold_starts"].values())
    assert all(figure["rss_bytes"] > 0 for figure in document["memory"].values() if isinstance(figure, dict))
    assert [target["met"] is None for target in document["targets"]] == [True, True, False, False]


@pytest.mark.skipif(shutil.which("h2load") is None, reason=HOW_TO_GET_H2LOAD)
def test_every_figure_is_there_with_h2load(tmp_path: Path) -> None:
    """With h2load each comparison is made with it too, beside ONNX Runtime alone and the agent's own code alone."""
    document, page, _ = run(tmp_path, os.environ["PATH"])

    by_h2load = [item for item in document["comparisons"] if item["client"] == "h2load"]
    assert len(by_h2load) == 4
    for comparison in by_h2load:
        assert {"session.run", "agent's handler", "bare server", "agent"} <= set(comparison["loads"])
        assert comparison["processor_ratio"]["median"] > 0
    assert all(target["measured"] is not None for target in document["targets"])
    assert "Where the time of one call goes" in page


def test_percentiles_leave_the_first_calls_out() -> None:
    """The first twentieth of the calls is warm-up."""
    load = Load.of([1e6] * 5 + [100.0] * 90 + [200.0] * 5, seconds=2.0)

    assert (load.p50_us, load.p99_us, load.per_second) == (100.0, 200.0, 50.0)


def test_grpc_prefix_has_five_bytes() -> None:
    """A message is sent uncompressed behind its length."""
    assert GRPC_PREFIX.pack(0, 300) == b"\x00\x00\x00\x01\x2c"


def test_missed_target_says_by_how_much() -> None:
    """A target is met at its limit, and beyond it the page says how far."""
    load = Load(400.0, 800.0, 2000.0, 300.0)
    loads = dict.fromkeys(("session.run", "agent's handler", "bare server", "agent"), load)
    same = Ratio.of([1.0])
    before, after = Memory(100 * MIB, 90 * MIB), Memory(107 * MIB, 97 * MIB)
    results = Results(
        "full",
        "2026-01-01",
        {"processor": "one"},
        [
            Comparison("small", "h2load", 1, loads, Ratio.of([1.15]), same, same, None),
            Comparison("image", "h2load", 1, loads, Ratio.of([1.25]), same, same, None),
        ],
        {name: ColdStart(0.3, 0.5, 0.4, 0.6) for name in ("bare server", "agent")},
        MemoryOverTime(before, before, before, before, after, few_cycles=10, all_cycles=100),
    )

    assert [target.verdict() for target in results.targets()] == ["met", "missed by 0.1x", "met", "missed by 2 %"]
    assert "| missed by 0.1x |" in report.to_markdown(results, rounds=1, minutes=1)
