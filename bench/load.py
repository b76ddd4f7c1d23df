"""Ways to send the same request many times and to learn how long each answer took."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

HOW_TO_GET_H2LOAD = "h2load is not installed (Debian and Ubuntu: apt-get install nghttp2-client)"
PREDICT = "/AWS.SageMaker.Edge.Agent/Predict"
GRPC_HEADERS = {"content-type": "application/grpc", "te": "trailers"}
WARM_UP_SHARE = 0.05
GRPC_PREFIX = struct.Struct(">BI")
"""What gRPC puts before a message: whether it is compressed, and its length."""


@dataclass(frozen=True, slots=True)
class Load:
    """How long answers took, the first few left out, and how many came a second.

    `processor_us` is the server's processor time a call, where a server was measured alone.
    """

    p50_us: float
    p99_us: float
    per_second: float
    processor_us: float | None = None

    @classmethod
    def of(cls, latencies_us: list[float], seconds: float) -> Load:
        """Return the figures of calls in the order they were answered; `seconds` covers all of them."""
        warm = latencies_us[int(len(latencies_us) * WARM_UP_SHARE) :]
        percentiles = quantiles(warm, n=100, method="inclusive")
        return cls(percentiles[49], percentiles[98], len(latencies_us) / seconds)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request as h2load sends it, and where to: `unix:PATH` or `HOST:PORT`.

    `answer_bytes` is the size of every right answer's body, as it is on the wire. `http1` is for servers that speak
    nothing newer.
    """

    address: str
    path: str
    body: bytes
    answer_bytes: int
    headers: dict[str, str] = field(default_factory=dict)
    http1: bool = False

    @classmethod
    def grpc(cls, address: str, path: str, message: bytes, answer_bytes: int) -> Prepared:
        """Return a unary gRPC call; `answer_bytes` is the size of the answer's message."""
        body = GRPC_PREFIX.pack(0, len(message)) + message
        return cls(address, path, body, GRPC_PREFIX.size + answer_bytes, GRPC_HEADERS)


def in_threads(call: Callable[[], object], calls: int, in_flight: int) -> Load:
    """Call from this process, `in_flight` threads at once."""
    return together([call] * in_flight, calls)


def together(each: Sequence[Callable[[], object]], calls: int) -> Load:
    """Call from this process, each from a thread of its own, `calls` in all."""
    found: list[float] = []
    threads = [
        threading.Thread(target=lambda call=call: found.extend(_timed(call, calls // len(each)))) for call in each
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(found) < calls // len(each) * len(each):
        raise RuntimeError("a caller's thread failed; its traceback is on stderr")
    return Load.of(found, time.perf_counter() - started)


def _timed(call: Callable[[], object], calls: int) -> list[float]:
    found = []
    for _ in range(calls):
        started = time.perf_counter_ns()
        call()
        found.append((time.perf_counter_ns() - started) / 1e3)
    return found


def has_h2load() -> bool:
    """Tell whether h2load is installed."""
    return shutil.which("h2load") is not None


def h2load(address: Path, request: bytes, response_bytes: int, *, calls: int, in_flight: int) -> Load:
    """Call Predict on a Unix socket with h2load; see `send`."""
    return send(Prepared.grpc(f"unix:{address}", PREDICT, request, response_bytes), calls=calls, in_flight=in_flight)


def send(request: Prepared, *, calls: int, in_flight: int) -> Load:
    """Call with h2load, a client in C, over `in_flight` connections.

    Raises `RuntimeError` unless every answer had the size it should have: h2load sees no gRPC status, and a refusal
    has no message.
    """
    base = request.address if request.address.startswith("unix:") else f"http://{request.address}"
    with tempfile.TemporaryDirectory(prefix="bench-h2load-") as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(request.body)
        command = ["h2load", "--base-uri", base, "--requests", str(calls), "--clients", str(in_flight)]
        command += ["--threads", "1", "--data", str(body), "--log-file", str(log)]
        command += ["--h1"] if request.http1 else ["--max-concurrent-streams", "1"]
        for name, value in request.headers.items():
            command += ["--header", f"{name}: {value}"]
        command.append(f"http://localhost{request.path}")
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows = [line.split() for line in log.read_text(encoding="ascii").splitlines()]
    data_bytes = re.search(r"\((\d+)\) data", said)
    expected_bytes = calls * request.answer_bytes
    right = data_bytes is not None and int(data_bytes[1]) == expected_bytes and len(rows) == calls
    if not right or any(row[1] != "200" for row in rows):
        raise RuntimeError(f"h2load got answers other than the {expected_bytes} bytes expected:\n{said}")
    starts_us, latencies_us = [int(row[0]) for row in rows], [float(row[2]) for row in rows]
    ends_us = [start + latency for start, latency in zip(starts_us, latencies_us, strict=True)]
    return Load.of(latencies_us, (max(ends_us) - min(starts_us)) / 1e6)
