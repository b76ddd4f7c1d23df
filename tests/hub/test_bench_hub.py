"""The hub's benchmark runs and yields every figure. What the figures say is for `make bench-hub` to judge."""

from __future__ import annotations

import json
import subprocess
import sys
from math import inf
from pathlib import Path

from bench.hub import EFFORTS, ROWS, Figures, to_markdown
from bench.hubload import Fired

REPOSITORY = Path(__file__).parents[2]


def figures(heartbeats: float, exchanges: float) -> Figures:
    """Make the figures of an arrangement."""
    return Figures("one", exchanges, 1.0, 2.0, heartbeats, 3.0, 4.0, 5.0, 6.0, 700.0, 0.0, 0.25, 100.0)


def test_the_shortest_form_measures_everything(tmp_path: Path) -> None:
    """Real devices' certificates, credentials and heartbeats, against a hub that was started for it; no call fails."""
    page = tmp_path / "page.md"
    done = subprocess.run(
        [sys.executable, "-m", "bench.hub", "--effort", "smoke", "--only", "sqlite", "--json", "--write", page],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert found["faults"] == []
    measured = [name for name, value in found.items() if name not in {"name", "faults", "database_cpu_us"}]
    assert [name for name in measured if not found[name] > 0 and name != "generator_cpu_share"] == []
    for title, _ in ROWS:
        assert f"| {title} |" in page.read_text()


def test_the_fleet_size_is_what_fits_into_five_minutes() -> None:
    """A heartbeat every five minutes, and every hour an exchange: a twelfth of one in that time."""
    assert figures(heartbeats=200, exchanges=inf).fleet_size == 60_000
    assert figures(heartbeats=inf, exchanges=10).fleet_size == 36_000
    assert figures(heartbeats=200, exchanges=10).fleet_size == 22_500


def test_the_page_says_what_was_missed() -> None:
    """A target that is not reached is said to be missed."""
    page = to_markdown([figures(200, 10), figures(50, 10)], EFFORTS["full"], {"processor": "one"}, minutes=9)
    assert "| target: 20,000 devices | met | missed |" in page
    assert "1,000 simulated devices" in page
    assert "- processor: one" in page


def test_what_several_generators_did_is_added_up() -> None:
    """They ran at the same time: latencies and faults are all there, and the longest time counts."""
    together = Fired.together([Fired([1.0, 2.0], ["broken"], 2.0, 0.5), Fired([3.0, 4.0], [], 1.0, 0.25)])
    assert (together.per_second, together.faults, together.generator_cpu_seconds) == (2.0, ["broken"], 0.75)
    assert together.percentile_ms(50) == 2.5
