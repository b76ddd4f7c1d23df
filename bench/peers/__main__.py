"""Measure the agent beside its peers: `python -m bench.peers [--effort …] [--only NAME …] [--json] [--write FILE]`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from bench import load
from bench.peers import report
from bench.peers.contestants import CONTESTANTS, INSIDE
from bench.peers.run import EFFORTS, Run
from lightkeeper.resources import usable_cpus


def main() -> None:
    """Measure, print the tables or one JSON document, and write the page if asked to."""
    names = [contestant.name for contestant in CONTESTANTS]
    parser = argparse.ArgumentParser(prog="bench.peers", description="Measure the agent beside its peers.")
    parser.add_argument("--effort", choices=EFFORTS, default="full", help="how much is measured (%(default)s)")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help=f"of: {', '.join(names)}")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the figures as a Markdown page")
    args = parser.parse_args()
    started = time.monotonic()
    if not load.has_h2load():
        _say(f"{load.HOW_TO_GET_H2LOAD}: going on with the usual clients alone")
    results = Run(args.effort, [INSIDE, *(args.only or names)], _say).measure()
    if args.json:
        targets = [asdict(item) | {"met": item.met} for item in results.targets()]
        print(json.dumps(asdict(results) | {"targets": targets}, indent=2))
    else:
        report.to_terminal(results, Console())
    if args.write:
        effort, minutes = EFFORTS[args.effort], max(1, round((time.monotonic() - started) / 60))
        page = report.to_markdown(
            results,
            rounds=effort.rounds,
            turn_seconds=effort.turn_seconds,
            threads=usable_cpus(),
            minutes=minutes,
        )
        args.write.write_text(page, encoding="utf-8")
        _say(f"wrote {args.write}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
