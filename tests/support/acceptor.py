"""A program that accepts captures until it is through, and writes down what it was told: `acceptor FOLDER LOG HOW`.

HOW is JSON: `captures`, `callers`, `large_bytes`, `interval_ms`. A line of the log is `+id` (accepted) or `-id REASON`,
written and flushed after the answer. With a switch file in the environment, faults begin when the spool is open.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from time import time_ns

from lightkeeper.capture.files import RealFiles
from lightkeeper.capture.journal import Durability
from lightkeeper.capture.spool import Room, Spool
from lightkeeper.errors import AgentError
from tests.support.spools import stored


def main(folder: Path, log_path: Path, how: dict[str, int]) -> None:
    """Accept captures."""
    spool = Spool(
        folder,
        room=Room(buffer=1000, batch=4, spool_max_bytes=1 << 40, free_floor_bytes=0),
        root="file:///captures",
        durability=Durability(how.get("interval_ms", 0)),
        files=RealFiles(),
        now_ms=lambda: time_ns() // 1_000_000,
    )
    if "FAULT_SWITCH" in os.environ:
        Path(os.environ["FAULT_SWITCH"]).touch()
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def call(caller: int) -> None:
        for number in range(how["captures"] // how["callers"]):
            capture_id = f"c{caller}-{number}"
            sizes = (24, how["large_bytes"]) if how.get("large_bytes") and number % 2 else (24,)
            try:
                spool.accept(stored(capture_id, *sizes))
                os.write(log, f"+{capture_id}\n".encode())
            except AgentError as error:
                os.write(log, f"-{capture_id} {error.reason}\n".encode())
            if how.get("interval_ms") and number % 4 == 3:
                spool.sync()

    callers = [threading.Thread(target=call, args=(caller,)) for caller in range(how["callers"])]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    os.write(log, b".\n")
    if how.get("dies"):
        os.kill(os.getpid(), 9)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
