"""An agent whose fleet lies in a folder, and which may kill itself at a change of its files.

    python -m tests.support.fleet_agent FLEET KILL_AT -a ADDRESS -c CONFIG

With KILL_AT above 0 the process gets a SIGKILL at that change (a file opened to be written, a rename, a removal, a new
folder) in the state folder, counted from the first entry of a deployment in the journal on.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as the command does: a thread of numpy's would take the agent's signals

from lightkeeper import config, logs
from lightkeeper.agent import Agent
from tests.support.fleets import FolderFleet

_CHANGES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir"})
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
JOURNAL = "deployments.json"


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


def main() -> None:
    """Run the agent until a signal."""
    fleet, number, _, address, _, file = sys.argv[1:7]
    loaded = config.load(Path(file))
    logs.configure()
    if int(number):
        kill_at(int(number), loaded.state_path)
    Agent(loaded, address=address, force=True, fleet=FolderFleet(Path(fleet)), first_poll_seconds=0).run_until_signal()


if __name__ == "__main__":
    main()
