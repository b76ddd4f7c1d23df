"""How long a start takes with much waiting in the spool: `python -m bench.spool_start [--waiting 100000]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from lightkeeper.capture.files import RealFiles
from lightkeeper.capture.journal import Durability
from lightkeeper.capture.record import Capture, Part, Payload, Stored, store, tensor_payload
from lightkeeper.capture.spool import Room, Spool
from lightkeeper.tensor import DataType, Tensor

WAITING = 100_000
LARGE_EVERY = 10
MOST_SECONDS = 2.0


def main() -> None:
    """Measure, print, and fail where it took too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, default=WAITING, help="captures that wait (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as home:
        fill(Path(home) / "spool", args.waiting)
        seconds = start(Path(home) / "spool")
    print(f"start with {args.waiting} captures waiting, every {LARGE_EVERY}th with a file: {seconds:.3f} s")
    if seconds > MOST_SECONDS:
        sys.exit(f"more than {MOST_SECONDS:g} s")


def fill(folder: Path, captures: int) -> None:
    """Leave a spool with captures that wait."""
    spool = opened(folder, Durability(in_memory=True))
    for number in range(captures):
        spool.accept(capture(f"waiting-{number}", large=number % LARGE_EVERY == 0))
    spool.close()


def start(folder: Path) -> float:
    """Return how many seconds it takes to open the spool until the next batch can be delivered."""
    begun = time.perf_counter()
    spool = opened(folder, Durability())
    batch = spool.next_batch()
    waiting = 0 if batch is None else len(spool.captures_of(batch))
    seconds = time.perf_counter() - begun
    spool.close()
    if not waiting:
        sys.exit("nothing waits in the spool")
    return seconds


def opened(folder: Path, durability: Durability) -> Spool:
    """Return a spool with room for everything."""
    return Spool(
        folder,
        room=Room(buffer=5000, batch=10, spool_max_bytes=1 << 50, free_floor_bytes=0),
        root="file:///captures",
        durability=durability,
        files=RealFiles(synced=not durability.in_memory),
        now_ms=lambda: time.time_ns() // 1_000_000,
    )


def capture(capture_id: str, *, large: bool) -> Stored:
    """Return a capture of one FLOAT32[1, 6] tensor and, where it is large, a picture of 5 kB."""
    array = np.arange(6, dtype=np.float32).reshape(1, 6)
    payloads = [tensor_payload(Part.INPUT, Tensor("x", DataType.FLOAT32, (1, 6), array.tobytes()), 0)]
    if large:
        payloads.append(Payload(Part.AUXILIARY_INPUT, "frame.jpg", "image/jpeg", b"x" * 5000))
    whole = Capture(capture_id, "turbine", "1.0", "ab" * 32, time.time_ns(), tuple(payloads))
    return store(whole, embed_limit_bytes=3072)


if __name__ == "__main__":
    main()
