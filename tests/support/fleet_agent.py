"""An agent whose fleet lies in a folder, and which may kill itself at a change of its files.

    python -m tests.support.fleet_agent FLEET KILL_AT -a ADDRESS -c CONFIG

With KILL_AT above 0 the process gets a SIGKILL at that change (a file opened to be written, a rename, a removal, a new
folder) in the state folder, counted from the first entry of a deployment in the journal on. Whoever takes its
heartbeats writes the results in them to `results.jsonl` beside that folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as the command does: a thread of numpy's would take the agent's signals

from lightkeeper import config, logs
from lightkeeper.agent import Agent
from lightkeeper.providers.none import NoProvider
from lightkeeper.providers.report import Heartbeat
from tests.support.fleets import FolderFleet

_CHANGES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir"})
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
JOURNAL = "deployments.json"
RESULTS = "results.jsonl"


def kill_at(number: int, state: Path) -> None:
    """Have this process killed at the numbered change."""
    inside, seen = f"{state}{os.sep}", 0

    def look(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & _WRITING)
        if event not in _CHANGES and not writes:
            return
        path = arguments[0]
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        if not text.startswith(inside) or text.startswith(f"{inside}spool"):
            return
        if not seen and JOURNAL not in text:
            return
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


def keep_results(file: Path) -> None:
    """Have the provider write down what it is told of deployments."""

    def take(_provider: NoProvider, heartbeat: Heartbeat) -> None:
        if heartbeat.result is not None:
            with file.open("a") as lines:
                lines.write(json.dumps(asdict(heartbeat.result)) + "\n")

    NoProvider.send_heartbeat = take  # type: ignore[method-assign]  # there is no fleet behind this one to ask


def main() -> None:
    """Run the agent until a signal."""
    fleet, number, _, address, _, file = sys.argv[1:7]
    loaded = config.load(Path(file))
    logs.configure()
    keep_results(loaded.state_path.parent / RESULTS)
    if int(number):
        kill_at(int(number), loaded.state_path)
    Agent(loaded, address=address, force=True, fleet=FolderFleet(Path(fleet)), first_poll_seconds=0).run_until_signal()


if __name__ == "__main__":
    main()
