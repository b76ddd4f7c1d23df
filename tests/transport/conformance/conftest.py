"""The servers under test: the same handlers on the native wire and on grpcio."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import grpc
import psutil
import pytest

from lightkeeper.agent.transports import ApiServer
from lightkeeper.config.values import Transport
from lightkeeper.transport.method import Method
from tests.support.clients import LANGUAGES, ClientProgram, Language
from tests.transport.conformance.serve import LIMIT_BYTES, make

ROOT = Path(__file__).resolve().parents[3]
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]

Serve = Callable[[Mapping[str, Method]], "Running"]
Programs = Callable[[Language], ClientProgram]


def native_is_missing() -> bool:
    """Tell whether the native wire cannot be tested here."""
    return importlib.util.find_spec("lightkeeper_wire") is None


NATIVE = pytest.param(
    Transport.NATIVE,
    id="native",
    marks=pytest.mark.skipif(native_is_missing(), reason="lightkeeper-wire is not installed: it needs cargo"),
)


class Running:
    """A server in this process, and clients of it."""

    def __init__(self, server: ApiServer, path: Path, stack: ExitStack) -> None:
        self.server = server
        self.path = path
        self._stack = stack
        self.channel = self.new_channel()

    def new_channel(self, *options: tuple[str, int | str]) -> grpc.Channel:
        """Return a connection of its own."""
        own = ("grpc.use_local_subchannel_pool", 1)
        return self._stack.enter_context(grpc.insecure_channel(f"unix:{self.path}", [*UNLIMITED, own, *options]))

    def method(self, path: str, channel: grpc.Channel | None = None) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
        """Return a method that takes and gives bytes."""
        return (channel or self.channel).unary_unary(path)


@pytest.fixture(params=[NATIVE, pytest.param(Transport.GRPCIO, id="grpcio")])
def transport(request: pytest.FixtureRequest) -> Transport:
    """Each server in turn."""
    chosen: Transport = request.param
    return chosen


@pytest.fixture
def serve(transport: Transport, tmp_path: Path) -> Iterator[Serve]:
    """Start servers, and stop what is left of them."""
    with ExitStack() as stack:

        def start(methods: Mapping[str, Method]) -> Running:
            server = make(transport, methods)
            path = tmp_path / "agent.sock"
            server.start(f"unix:{path}")
            stack.callback(server.stop, 0)
            return Running(server, path, stack)

        yield start


class ServerProcess:
    """The server of `serve.py` in a process of its own, whose memory can be watched."""

    def __init__(self, transport: Transport, path: Path) -> None:
        self.path = path
        command = [sys.executable, "-m", "tests.transport.conformance.serve", transport, str(path)]
        self.process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"})
        deadline = time.monotonic() + 20
        while not path.exists():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def resident_bytes(self) -> int:
        """Return how much memory the process holds."""
        resident: int = psutil.Process(self.process.pid).memory_info().rss
        return resident

    def answers(self, body: bytes = b"still here") -> bool:
        """Tell whether a new client gets its answer."""
        options = [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"unix:{self.path}", options) as channel:
            method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Test/Echo")
            return method(body, timeout=10, wait_for_ready=True) == body


@pytest.fixture
def process(transport: Transport, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server in a process of its own."""
    running = ServerProcess(transport, tmp_path / "hostile.sock")
    try:
        assert running.answers(bytes(LIMIT_BYTES // 2))
        yield running
        if running.process.poll() is None:
            running.process.terminate()
        assert running.process.wait(20) == 0
    finally:
        running.process.kill()
        running.process.wait()


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """The client programs, each built and started when it is first asked for."""
    folder = tmp_path_factory.mktemp("clients")
    started: dict[str, ClientProgram] = {}

    def program(language: Language) -> ClientProgram:
        if language.name not in started:
            started[language.name] = ClientProgram(language, folder / f"{language.name}.log")
        return started[language.name]

    yield program
    assert {name: program.stop() for name, program in started.items()} == dict.fromkeys(started, 0)


@pytest.fixture(params=LANGUAGES)
def client(programs: Programs, request: pytest.FixtureRequest) -> ClientProgram:
    """The client program of each language in turn."""
    return programs(LANGUAGES[request.param])
