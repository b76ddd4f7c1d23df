"""Measure the native wire beside grpcio in one run: `python -m bench.wire`. Prints Markdown, for the ADR.

The two take turns, every other round in the opposite order, under the same handlers: one that answers with the request
(what carrying a call costs), and the agent's Predict.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from bench import load, machine
from bench.comparison import take_turns
from bench.load import Load
from bench.models import Model
from bench.workshop import Server, Workshop
from lightkeeper.client import Client
from lightkeeper.config.values import Transport

CONTESTANTS = (Transport.NATIVE, Transport.GRPCIO)
IN_FLIGHT = (1, 8, 32)
ROUNDS = 7
ECHO_BYTES = 300
CALLS = {"echo": 3000, "small": 3000, "image": 300}


def main() -> None:
    """Measure and print."""
    if not load.has_h2load():
        sys.exit(load.HOW_TO_GET_H2LOAD)
    for what, said in machine.describe().items():
        print(f"- {what}: {said}")
    print("\n| | in flight | native p50 (us) | grpcio p50 (us) | ratio | native calls/s | grpcio calls/s | ratio |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-wire-")))
        agents: dict[Transport, Server] = {}
        echoes: dict[Transport, Server] = {}
        for transport in CONTESTANTS:
            place = folder / transport
            place.mkdir()
            workshop = Workshop(place, transport)
            agents[transport] = stack.enter_context(workshop.agent())
            echoes[transport] = stack.enter_context(_echo(transport, place / "echo.sock", workshop.workers))
            client = stack.enter_context(Client(str(agents[transport].address)))
            for name in ("small", "image"):
                client.load_model(workshop.packages[name], name)
        for in_flight in IN_FLIGHT:
            _row("echo", in_flight, {key: _echoing(server, in_flight) for key, server in echoes.items()})
        for name in ("small", "image"):
            model = workshop.models[name]
            for in_flight in IN_FLIGHT:
                _row(name, in_flight, {key: _predicting(server, model, in_flight) for key, server in agents.items()})
        print("\n| agent with | memory with both models, after the load (PSS, MiB) |\n|---|---:|")
        for transport, server in agents.items():
            print(f"| {transport} | {server.memory().pss_bytes / 2**20:.0f} |")


def _echoing(server: Server, in_flight: int) -> Callable[[], Load]:
    body = bytes(ECHO_BYTES)
    return lambda: load.h2load(server.address, body, ECHO_BYTES, calls=CALLS["echo"], in_flight=in_flight)


def _predicting(server: Server, model: Model, in_flight: int) -> Callable[[], Load]:
    request, size_bytes, calls = model.request(), model.response_bytes(), CALLS[model.name]
    return lambda: load.h2load(server.address, request, size_bytes, calls=calls, in_flight=in_flight)


def _row(name: str, in_flight: int, contestants: dict[Transport, Callable[[], Load]]) -> None:
    found = take_turns(contestants, ROUNDS)
    native, grpcio = (found[transport] for transport in CONTESTANTS)
    cells = [f"{name}", f"{in_flight}"]
    for figure in ("p50_us", "per_second"):
        ours, theirs = ([getattr(item, figure) for item in loads] for loads in (native, grpcio))
        ratio = median(one / other for one, other in zip(ours, theirs, strict=True))
        cells += [f"{median(ours):.0f}", f"{median(theirs):.0f}", f"{ratio:.2f}"]
    print(f"| {' | '.join(cells)} |", flush=True)


@contextmanager
def _echo(transport: Transport, address: Path, workers: int) -> Iterator[Server]:
    command = [sys.executable, "-m", "bench.echo_server", transport, str(address), str(workers)]
    server = Server(command, address, address.with_suffix(".log"))
    try:
        server.wait_for_socket()
        yield server
    finally:
        server.stop()


if __name__ == "__main__":
    main()
