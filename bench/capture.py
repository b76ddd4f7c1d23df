"""Measures capture: `python -m bench.capture [--write FILE]`.

Everything is set beside something of the same run: a durable answer beside one `fdatasync` of as many bytes, Predict
with captures under way beside Predict without. The spool lies on a real disk, in build/.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import numpy as np
from rich.console import Console
from rich.table import Table

from bench import machine
from bench.workshop import REPOSITORY, Workshop
from lightkeeper.capture.files import RealFiles
from lightkeeper.capture.journal import Durability
from lightkeeper.capture.ledger import Receipt, State
from lightkeeper.capture.recorder import Recorder
from lightkeeper.capture.request import CaptureRequest
from lightkeeper.capture.spool import Room, Spool
from lightkeeper.client import Client
from lightkeeper.model import PackageIdentity
from lightkeeper.tensor import DataType, Tensor
from lightkeeper.transport import agent_pb2 as wire

ROUNDS = 5
ANSWERS = 300
THROUGHPUT_CALLERS = 8
THROUGHPUT_SECONDS = 3.0
PREDICTIONS = 1500
CAPTURES_PER_SECOND = 100
PACKAGE = PackageIdentity("bench", "1.0", "0" * 64)
SIX_FLOATS = (Tensor("x", DataType.FLOAT32, (6,), np.arange(6, dtype="<f4").tobytes()),)
TWO_KIB = np.zeros(512, "<f4").tobytes()
FOUR_KIB = tuple(Tensor(name, DataType.FLOAT32, (512,), TWO_KIB) for name in ("a", "b"))


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the result. `target` says what it is held against, and `met` whether it is."""

    what: str
    value: str
    target: str = ""
    met: bool | None = None


@contextmanager
def spool(folder: Path) -> Iterator[Spool]:
    """Give a spool whose batches are settled as they close, as a quick disk would."""
    room = Room(buffer=100_000, batch=10, spool_max_bytes=1 << 40, free_floor_bytes=0)
    made = Spool(
        folder,
        room=room,
        root=folder.as_uri(),
        durability=Durability(),
        files=RealFiles(),
        now_ms=lambda: time.time_ns() // 1_000_000,
    )
    yield made
    made.close()


def recorder(made: Spool) -> Recorder:
    """Give what CaptureData calls."""
    return Recorder(made, embed_limit_bytes=3072, destination_fault=lambda: None, accepted=lambda _: None)


def answers(folder: Path) -> list[Figure]:
    """How long one caller waits for a durable answer, beside one `fdatasync` of as many bytes."""
    descriptor = os.open(folder / "plain", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    block = os.urandom(4096)
    synced: list[float] = []
    answered: list[float] = []

    def sync() -> None:
        os.write(descriptor, block)
        os.fdatasync(descriptor)

    with spool(folder / "answers") as made:
        record = recorder(made).record
        for _ in range(ROUNDS):
            synced += timed(sync, ANSWERS)
            answered += timed(lambda: record(request(FOUR_KIB), PACKAGE), ANSWERS)
            made.maintain()
    os.close(descriptor)
    base, answer = statistics.median(synced), statistics.median(answered)
    ratio = answer / base
    return [
        Figure("one fdatasync of 4 KiB, p50", f"{base * 1e6:.0f} µs"),
        Figure("durable answer to a capture of 4 KiB, one caller, p50", f"{answer * 1e6:.0f} µs"),
        Figure("… as a multiple of the fdatasync", f"{ratio:.2f}", "at most 2", ratio <= 2),
    ]


def throughput(folder: Path) -> list[Figure]:
    """How many durable captures of six floats a second eight callers get in, and how many share a sync."""
    with spool(folder / "throughput") as made:
        record = recorder(made).record
        counts = [0] * THROUGHPUT_CALLERS
        ends = time.perf_counter() + THROUGHPUT_SECONDS

        def call(caller: int) -> None:
            while time.perf_counter() < ends:
                record(request(SIX_FLOATS), PACKAGE)
                counts[caller] += 1

        callers = [threading.Thread(target=call, args=(caller,)) for caller in range(THROUGHPUT_CALLERS)]
        for caller in callers:
            caller.start()
        while any(caller.is_alive() for caller in callers):
            settle(made)
            made.maintain()
            time.sleep(0.05)
        rate = sum(counts) / THROUGHPUT_SECONDS
    return [Figure("durable captures a second, 8 callers, 6 floats", f"{rate:.0f}", "at least 2000", rate >= 2000)]


def settle(made: Spool) -> None:
    """Call every waiting batch written."""
    while (batch := made.next_batch()) is not None:
        made.settle(batch, Receipt(State.WRITTEN, batch.name, 0, ""))


def predictions(workshop: Workshop) -> list[Figure]:
    """Predict's latency over the socket with captures under way, beside the same without."""
    x = np.zeros((1, 64), np.float32)
    quiet: list[float] = []
    busy: list[float] = []
    with workshop.agent() as agent, Client(str(agent.address)) as client:
        name = next(iter(workshop.packages))
        client.load_model(workshop.packages[name], name)
        inputs = client.describe_model(name).inputs
        arrays = {item.name: np.zeros(item.shape, item.data_type.dtype) for item in inputs} or {"x": x}
        timed(lambda: client.predict(name, arrays), PREDICTIONS)
        for _ in range(ROUNDS):
            quiet += timed(lambda: client.predict(name, arrays), PREDICTIONS)
            with capturing(f"unix:{agent.address}", name):
                busy += timed(lambda: client.predict(name, arrays), PREDICTIONS)
        over_socket = statistics.median(timed(capture_call(f"unix:{agent.address}", name), 500))
    before, during = statistics.median(quiet), statistics.median(busy)
    ratio = during / before
    return [
        Figure("CaptureData over the socket, durable, 6 floats, p50", f"{over_socket * 1e6:.0f} µs"),
        Figure("Predict of 64 floats without capture, p50", f"{before * 1e6:.0f} µs"),
        Figure(f"Predict with {CAPTURES_PER_SECOND} captures a second, p50", f"{during * 1e6:.0f} µs"),
        Figure("… as a multiple of without", f"{ratio:.2f}", "at most 1.2", ratio <= 1.2),
    ]


def capture_call(target: str, model: str) -> Callable[[], None]:
    """Return what captures once over the socket."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes]
    call = grpc.insecure_channel(target).unary_unary("/AWS.SageMaker.Edge.Agent/CaptureData")
    tensor = wire.Tensor(byte_data=bytes(SIX_FLOATS[0].data))

    def capture() -> None:
        message = wire.CaptureDataRequest(model_name=model, capture_id=str(uuid.uuid4()), input_tensors=[tensor])
        call(message.SerializeToString())

    return capture


@contextmanager
def capturing(target: str, model: str) -> Iterator[None]:
    """Capture at a steady rate in another thread."""
    done = threading.Event()
    capture = capture_call(target, model)

    def run() -> None:
        due = time.perf_counter()
        while not done.wait(max(0.0, due - time.perf_counter())):
            capture()
            due += 1 / CAPTURES_PER_SECOND

    thread = threading.Thread(target=run)
    thread.start()
    yield
    done.set()
    thread.join()


def request(tensors: tuple[Tensor, ...]) -> CaptureRequest:
    """Return a request with an id of its own."""
    return CaptureRequest("bench", str(uuid.uuid4()), None, tensors, ())


def timed(call: Callable[[], object], times: int) -> list[float]:
    """Return how many seconds each of so many calls takes."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return taken


def main() -> None:
    """Measure, print, and write the page if asked to; exit 1 where a target is missed."""
    parser = argparse.ArgumentParser(prog="bench.capture", description="Measure capture.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the figures as a Markdown page")
    args = parser.parse_args()
    folder = REPOSITORY / "build" / "bench-capture"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    described = machine.describe()
    figures = [*answers(folder), *throughput(folder), *predictions(Workshop(folder))]
    shutil.rmtree(folder)
    table = Table("measured", "value", "target", "met")
    for figure in figures:
        table.add_row(figure.what, figure.value, figure.target, _word(figure))
    Console().print(table)
    if args.write:
        args.write.write_text(page(described, figures), encoding="utf-8")
    sys.exit(any(figure.met is False for figure in figures))


def page(described: dict[str, str], figures: list[Figure]) -> str:
    """Return the Markdown page."""
    lines = [
        "# Capture, measured",
        "",
        f"Made by `make bench-capture` on {datetime.now(UTC):%Y-%m-%d}. Ratios are within one run; absolute figures",
        "are this machine's.",
        "",
        *(f"- {name}: {value}" for name, value in described.items()),
        "",
        "| measured | value | target | met |",
        "|---|---|---|---|",
        *(f"| {figure.what} | {figure.value} | {figure.target} | {_word(figure)} |" for figure in figures),
        "",
        "The durable answer and the throughput are those of the recorder, which is what CaptureData calls; over the",
        "socket a call also pays for gRPC, as every call does (see docs/benchmarks.md).",
        "",
    ]
    return "\n".join(lines)


def _word(figure: Figure) -> str:
    return "" if figure.met is None else "yes" if figure.met else "no"


if __name__ == "__main__":
    main()
