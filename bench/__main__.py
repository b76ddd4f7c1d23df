"""Run every measurement: `python -m bench [--effort full|quick|smoke] [--transport …] [--json] [--write FILE]`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from bench import latency, life, load, machine, report
from bench.comparison import Comparison
from bench.effort import EFFORTS
from bench.results import Results
from bench.workshop import Workshop
from lightkeeper.config.values import Transport


def main() -> None:
    """Measure, print the tables or one JSON document, and write the page if asked to."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure the agent beside a bare gRPC server.")
    parser.add_argument("--effort", choices=EFFORTS, default="full", help="how much is measured (%(default)s)")
    parser.add_argument(
        "--transport",
        type=Transport,
        choices=Transport,
        default=Transport.AUTO,
        help="what carries gRPC in the agent (%(default)s: the native wire where it is installed)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the figures as a Markdown page")
    args = parser.parse_args()
    started = time.monotonic()
    if not load.has_h2load():
        _say(f"{load.HOW_TO_GET_H2LOAD}: going on with the Python client alone")
    results = measure(args.effort, args.transport)
    if args.json:
        document = asdict(results) | {"targets": [asdict(item) | {"met": item.met} for item in results.targets()]}
        print(json.dumps(document, indent=2))
    else:
        report.to_terminal(results, Console())
    if args.write:
        minutes = max(1, round((time.monotonic() - started) / 60))
        page = report.to_markdown(results, rounds=EFFORTS[args.effort].rounds, minutes=minutes)
        args.write.write_text(page, encoding="utf-8")
        _say(f"wrote {args.write}")


def measure(effort_name: str, transport: Transport) -> Results:
    """Measure everything."""
    effort = EFFORTS[effort_name]
    described = machine.describe(transport)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        _say("making models, an authority and packages")
        workshop = Workshop(Path(folder), transport)
        _say("cold starts")
        cold_starts = life.cold_starts(workshop, effort)
        _say(f"memory over {effort.cycles} load/unload cycles")
        memory = life.memory(workshop, effort)
        comparisons: list[Comparison] = []
        for comparison in latency.measure(workshop, effort):
            comparisons.append(comparison)
            ratio = comparison.p50_ratio.median
            _say(f"{comparison.model}, {comparison.client}, {comparison.in_flight} in flight: p50 x {ratio:.2f}")
    described["load average after"] = f"{os.getloadavg()[0]:.1f} (the run itself is part of it)"
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    return Results(effort_name, date, described, comparisons, cold_starts, memory)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
