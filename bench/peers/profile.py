"""Where the processor time of a call goes in a server: by thread and by library, from perf's samples under h2load.

`python -m bench.peers.profile [--of NAME] [--model NAME] [--carrier …] [--in-flight N]` prints one table.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench.peers.driver import BYTES, SHARED_MEMORY
from bench.peers.stage import Running
from bench.report import Table, on_terminal
from bench.workshop import Thread

HOW_TO_GET_PERF = "perf is not installed (Debian: apt-get install linux-perf)"
SAMPLES_A_SECOND = 5000
START_SECONDS = 0.5
LEAST_SHARE = 0.01
"""What is below this everywhere is left out of a table."""
PLACES = (
    ("the kernel", re.compile(r"^\[(kernel|guest)")),
    ("Python", re.compile(r"python3?[.\d]*(\.so|$)")),
    ("ONNX Runtime", re.compile(r"onnxruntime")),
    ("the wire", re.compile(r"_wire\.")),
    ("grpcio", re.compile(r"^cygrpc")),
    ("protobuf", re.compile(r"^_message\.")),
    ("the C library", re.compile(r"^(libc|ld-linux|libpthread)\b|^\[vdso\]")),
)
ELSEWHERE = "other"


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor time a call of the threads of one name in one place."""

    thread: str
    place: str
    microseconds: float


@dataclass(frozen=True, slots=True)
class Profile:
    """A server's processor time a call, the most first, and how often its threads wait meanwhile."""

    model: str
    carrier: str
    in_flight: int
    spent: Sequence[Spent]
    waits: float

    @property
    def total_us(self) -> float:
        """All of it."""
        return sum(item.microseconds for item in self.spent)

    def microseconds(self, thread: str, place: str) -> float:
        """Return what one kind of thread spends in one place."""
        return sum(item.microseconds for item in self.spent if (item.thread, item.place) == (thread, place))


def has_perf() -> bool:
    """Tell whether perf is installed."""
    return shutil.which("perf") is not None


def take(running: Running, model: str, carrier: str, in_flight: int, seconds: float) -> Profile:
    """Profile a server while h2load calls it for about so many seconds. Raises `RuntimeError` where perf cannot."""
    call, server = running.by_h2load(model, carrier, in_flight), running.served
    calls = max(4 * in_flight, int(call(4 * in_flight).per_second * seconds))
    plain = call(calls)  # perf takes time of its own: it tells the shares, not the sum
    with tempfile.TemporaryDirectory(prefix="bench-perf-") as folder:
        file = Path(folder, "perf.data")
        pids = ",".join(map(str, server.pids()))
        command = ["perf", "record", "--quiet", "--event", "cpu-clock", "--freq", str(SAMPLES_A_SECOND)]
        perf = subprocess.Popen([*command, "--pid", pids, "--output", str(file)], stderr=subprocess.PIPE, text=True)
        time.sleep(START_SECONDS)
        before = _waits(server.threads())
        call(calls)
        waits = _waits(server.threads()) - before
        perf.send_signal(signal.SIGINT)
        said = perf.communicate()[1]
        if not file.exists():
            raise RuntimeError(f"perf does not work here: {said.strip().splitlines()[-1:]}")
        report = ["perf", "report", "--input", str(file), "--stdio", "--sort", "comm,dso", "--field-separator", ";"]
        rows = subprocess.run(report, check=True, capture_output=True, text=True).stdout.splitlines()
    samples = shares(rows)
    total_us = plain.processor_us or 0.0
    spent = [Spent(*key, share / sum(samples.values()) * total_us) for key, share in samples.items()]
    spent.sort(key=lambda item: -item.microseconds)
    return Profile(model, carrier, in_flight, spent, waits / calls)


def _waits(threads: list[Thread]) -> int:
    return sum(thread.waits for thread in threads)


def shares(rows: list[str]) -> dict[tuple[str, str], float]:
    """Read the lines of perf's report: a share, a thread's name and a library."""
    found: defaultdict[tuple[str, str], float] = defaultdict(float)
    for row in rows:
        if row.strip() and not row.startswith("#"):
            share, thread, library = (cell.strip() for cell in row.split(";")[:3])
            place = next((name for name, pattern in PLACES if pattern.search(library)), ELSEWHERE)
            found[thread, place] += float(share.rstrip("%"))
    return found


def table(title: str, profiles: Sequence[Profile]) -> Table:
    """Return profiles as one table: a row for each thread's name and place, a column for each profile."""
    keys = {
        (item.thread, item.place)
        for profile in profiles
        for item in profile.spent
        if item.microseconds >= profile.total_us * LEAST_SHARE
    }
    most_first = sorted(keys, key=lambda key: -profiles[0].microseconds(*key))
    rows = [
        (f"{thread}: {place}", *(f"{profile.microseconds(thread, place):.1f}" for profile in profiles))
        for thread, place in most_first
    ]
    rows.append(("all", *(f"{profile.total_us:.1f}" for profile in profiles)))
    rows.append(("waits a call", *(f"{profile.waits:.2f}" for profile in profiles)))
    return Table(title, ("", *(f"{item.model}, {item.in_flight} in flight" for item in profiles)), rows)


def main() -> None:
    """Profile one contestant and print the table."""
    from bench.peers.contestants import CONTESTANTS, NATIVE
    from bench.peers.run import MODELS, scene_in

    names = [contestant.name for contestant in CONTESTANTS]
    parser = argparse.ArgumentParser(prog="bench.peers.profile", description="Profile a server under h2load.")
    parser.add_argument("--of", choices=names, default=NATIVE, metavar="NAME", help=f"of: {', '.join(names)}")
    parser.add_argument("--model", choices=MODELS, default="small")
    parser.add_argument("--carrier", choices=(BYTES, SHARED_MEMORY), default=BYTES)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    if not has_perf():
        sys.exit(HOW_TO_GET_PERF)
    contestant = next(item for item in CONTESTANTS if item.name == args.of)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        running = Running(contestant, scene_in(Path(folder), (args.model,)), (args.model,))
        try:
            found = [take(running, args.model, args.carrier, number, args.seconds) for number in args.in_flight]
        finally:
            running.stop()
    title = f"Where {args.of} spends its processor time (us a call; by {args.carrier}, h2load)"
    on_terminal([table(title, found)], Console())


if __name__ == "__main__":
    main()
