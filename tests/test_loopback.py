"""The agent on loopback TCP, as on Windows, which has no Unix socket: the same calls, for whoever has the token."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from lightkeeper.agent import transports
from lightkeeper.capture.request import CaptureStatus
from lightkeeper.client import Client
from lightkeeper.config.values import Transport
from lightkeeper.errors import AgentUnreachable, CallerWithoutToken, TransportMissing
from lightkeeper.system import AGENT_SERVES_DEFAULT, HAS_UNIX_SOCKETS
from lightkeeper.transport import endpoint, status
from tests.conftest import Stubs
from tests.support.agents import AgentProcess
from tests.support.systems import windows_only

GRPCIO = {"lightkeeper_transport": "grpcio"}


IN_A_CONSOLE = """
import ctypes, subprocess, sys, time
from pathlib import Path
kernel32 = ctypes.WinDLL("kernel32")
kernel32.FreeConsole()
assert kernel32.AllocConsole()
stay = ctypes.WINFUNCTYPE(ctypes.c_int, ctypes.c_uint32)(lambda event: 1)
assert kernel32.SetConsoleCtrlHandler(stay, 1)
agent = subprocess.Popen([sys.executable, "-m", "lightkeeper", "agent", *sys.argv[2:]], stdout=1, stderr=2)
while not Path(sys.argv[1]).exists():
    time.sleep(0.05)
assert kernel32.GenerateConsoleCtrlEvent(0, 0)
sys.exit(agent.wait())
"""
"""A program of Windows that has a console with an agent in it, and presses Ctrl-C when a file appears."""


@pytest.fixture
def agent(authority: Path, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent of this test's own."""
    agent = AgentProcess(tmp_path, authority / "certs", scheme="loopback", settings=GRPCIO).wait_until_started()
    yield agent
    agent.process.kill()
    agent.process.wait()


def test_an_application_loads_predicts_and_captures(agent: AgentProcess, doubled_package: Path) -> None:
    """By the same client and the same path as on a socket."""
    with Client(agent.address) as client:
        client.load_model(str(doubled_package), "doubled")
        inputs = np.array([[1, 2, 3, 4]], np.float32)
        outputs = client.predict("doubled", {"x": inputs})
        np.testing.assert_array_equal(outputs["y"], inputs * 2)
        taken = client.capture_data("doubled", inputs={"x": inputs}, outputs=outputs)
        assert client.flush_captures(10)
        assert client.capture_status(taken) is CaptureStatus.SUCCESS


def test_a_proxy_of_the_environment_is_not_asked(agent: AgentProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """GRPC obeys `http_proxy` for this machine's addresses too; the token is no other program's."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Client(agent.address) as client:
        assert client.list_models() == []


@pytest.mark.skipif(not AGENT_SERVES_DEFAULT, reason="an agent here must be told where to serve")
def test_agent_and_commands_meet_where_neither_is_told_an_address(
    authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent makes the folder below its user's local data."""
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.delenv("LIGHTKEEPER_ADDRESS", raising=False)
    agent = AgentProcess(tmp_path, authority / "certs", scheme=None, settings=GRPCIO).wait_until_started()
    try:
        program = (sys.executable, "-m", "lightkeeper", "models", "list", "--json")
        listed = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
        assert (listed.returncode, json.loads(listed.stdout)) == (0, {"models": []})
        assert (tmp_path / "lightkeeper" / "agent.endpoint").exists()
    finally:
        agent.process.kill()
        agent.process.wait()


@windows_only
def test_ctrl_c_lets_an_agent_end_in_order(authority: Path, tmp_path: Path) -> None:
    """As SIGTERM does elsewhere: its file is gone, and it exits with 0."""
    pressed = tmp_path / "pressed"
    program = (sys.executable, "-c", IN_A_CONSOLE, str(pressed))
    agent = AgentProcess(tmp_path, authority / "certs", scheme="loopback", settings=GRPCIO, program=program)
    try:
        agent.wait_until_started()
        pressed.touch()
        assert agent.process.wait(30) == 0
        assert [event["calls_finished"] for event in agent.events("agent_stopped")] == [True]
        assert not agent.socket.exists()
    finally:
        agent.process.kill()
        agent.process.wait()


def test_who_has_no_token_or_another_is_refused_by_every_service(agent: AgentProcess, stubs: Stubs) -> None:
    """Local users that may not read the file may not call."""
    messages, services = stubs
    found = endpoint.read(agent.socket)
    assert found is not None
    with grpc.insecure_channel(found.target) as channel:
        calls = (
            services.AgentStub(channel).ListModels,
            channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=bytes),
        )
        requests = (messages.ListModelsRequest(), b"")
        for call, request in zip(calls, requests, strict=True):
            for metadata in ((), (("authorization", "Bearer 00"),)):
                with pytest.raises(grpc.RpcError) as refused:
                    call(request, metadata=metadata)
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
                trailers = dict(refused.value.trailing_metadata())
                assert isinstance(status.error_from_details(trailers[status.DETAILS_KEY]), CallerWithoutToken)
        assert not calls[0](requests[0], metadata=found.metadata).models


def test_a_client_finds_the_agent_that_comes_after(agent: AgentProcess, authority: Path) -> None:
    """Another start means another port and token; a call in between says that nobody is there."""
    with Client(agent.address) as client:
        assert client.list_models() == []
        agent.process.kill()
        agent.process.wait()
        for _ in range(2):
            with pytest.raises(AgentUnreachable):
                client.list_models()
        successor = AgentProcess(agent.folder, authority / "certs", scheme="loopback", settings=GRPCIO, flags=("-f",))
        successor.wait_until_started()
        assert client.list_models() == []
        assert successor.stop() == (0 if HAS_UNIX_SOCKETS else 1)  # Windows has no SIGTERM: the process is ended
        for _ in range(2):
            with pytest.raises(AgentUnreachable):
                client.list_models()


def test_a_client_says_what_it_found_in_place_of_an_agents_file(tmp_path: Path) -> None:
    """Without a call to anywhere."""
    path = tmp_path / "other"
    path.write_text("not an agent's")
    with Client(f"loopback:{path}") as client, pytest.raises(AgentUnreachable, match="no agent's file"):
        client.list_models()


def test_the_native_wire_is_not_asked_to_serve_it() -> None:
    """It serves Unix sockets: `auto` comes to grpcio, and `native` is refused."""
    assert transports.chosen(Transport.AUTO, token="t", find=lambda _: object()) is Transport.GRPCIO  # noqa: S106  # no secret
    with pytest.raises(TransportMissing):
        transports.chosen(Transport.NATIVE, token="t", find=lambda _: object())  # noqa: S106  # no secret
