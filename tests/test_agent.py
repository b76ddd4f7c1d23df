"""The agent as a process: how it starts, what keeps it from starting, how it stops, and that it leaks nothing."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightkeeper.client import Client
from lightkeeper.errors import AgentError, AgentUnreachable, ModelNotFound
from tests.conftest import PackageFactory
from tests.support import models
from tests.support.agents import AgentProcess

SLOW_TURNS = 1_500_000
ENTRY_POINT = Path(sys.executable).with_name("sagemaker_edge_agent_binary")


class Starter:
    """Starts agents in a folder of their own, and kills what is left of them."""

    def __init__(self, folder: Path, root_certs: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._root_certs = root_certs
        self._stack = stack

    def __call__(self, folder: Path | None = None, **options: Any) -> AgentProcess:
        """Start an agent, and return it without waiting."""
        process = AgentProcess(folder or self.folder, self._root_certs, **options)
        self._stack.callback(process.stop, signal.SIGKILL)
        return process


@pytest.fixture
def start(tmp_path: Path, authority: Path) -> Iterator[Starter]:
    """Start agents for one test."""
    with ExitStack() as stack:
        yield Starter(tmp_path, authority / "certs", stack)


@pytest.fixture(scope="session")
def slow_package(make_package: PackageFactory) -> Path:
    """The package of a model that takes as long as its input says."""
    return make_package(models.slow(), name="slow")


def slow_predict(address: str, turns: int) -> float:
    """Run the slow model, and return what it answers: the number of turns."""
    with Client(address, timeout_seconds=60) as client:
        answer = client.predict("slow", {"turns": np.array(turns), "x": np.array(0, np.float32)})
    return float(answer["y"])


# --- starting --------------------------------------------------------------------------------------------------------


def test_the_old_program_name_starts_the_agent(start: Starter) -> None:
    """Scripts call `sagemaker_edge_agent_binary -a … -c …`."""
    agent = start(program=(str(ENTRY_POINT),)).wait_until_started()
    with Client(agent.address) as client:
        assert client.list_models() == []
    assert agent.stop() == 0


@pytest.mark.parametrize("mode", ["0600", "0660"])
def test_the_socket_has_the_configured_rights(start: Starter, mode: str) -> None:
    """Its owner alone by default."""
    settings = {} if mode == "0600" else {"lightkeeper_socket_mode": mode}
    agent = start(settings=settings).wait_until_started()
    assert stat.S_IMODE(agent.socket.stat().st_mode) == int(mode, 8)
    assert stat.S_IMODE((agent.folder / "state").stat().st_mode) == 0o700


def refusal_at_start(agent: AgentProcess) -> str:
    """Return what the agent says that does not start."""
    assert agent.process.wait(30) == 1
    return agent.log_file.read_text()


def test_a_second_agent_on_a_live_socket_is_refused(start: Starter, tmp_path: Path) -> None:
    """With -f too; the first goes on."""
    first = start().wait_until_started()
    other_state = {"sagemaker_edge_local_data_root_path": str(tmp_path / "other")}
    second = start(settings=other_state, flags=("-f",))
    said = refusal_at_start(second)
    assert "SOCKET_IN_USE" in said
    assert "next step:" in said
    with Client(first.address) as client:
        assert client.list_models() == []


def test_a_second_agent_on_the_same_state_is_refused(start: Starter, tmp_path: Path) -> None:
    """Two agents would remove each other's files."""
    first = start().wait_until_started()
    (tmp_path / "second").mkdir()
    state = {"sagemaker_edge_local_data_root_path": str(first.folder / "state")}
    assert "STATE_IN_USE" in refusal_at_start(start(tmp_path / "second", settings=state))
    assert not (tmp_path / "second" / "agent.sock").exists()


def test_a_killed_agents_socket_is_stale_and_the_flag_removes_it(start: Starter) -> None:
    """The refusal names the flag."""
    first = start().wait_until_started()
    first.stop(signal.SIGKILL)
    assert first.socket.is_socket()
    said = refusal_at_start(start())
    assert "SOCKET_STALE" in said
    assert "-f" in said
    first.log_file.unlink()
    third = start(flags=("-f",)).wait_until_started()
    assert third.stop() == 0


def test_what_is_no_socket_is_left_alone(start: Starter) -> None:
    """Even with -f."""
    (start.folder / "agent.sock").write_text("precious")
    assert "SOCKET_PATH_EXISTS" in refusal_at_start(start(flags=("-f",)))
    assert (start.folder / "agent.sock").read_text() == "precious"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("missing/agent.sock", "SOCKET_FOLDER_MISSING"),
        ("a" * 200, "SOCKET_PATH_TOO_LONG"),
        ("", "SOCKET_ADDRESS_INVALID"),
    ],
)
def test_a_path_that_cannot_be_served_is_refused(start: Starter, address: str, reason: str) -> None:
    """Each with its reason."""
    agent = start()
    agent.stop(signal.SIGKILL)
    command = [sys.executable, "-m", "lightkeeper", "agent", "-c", str(agent.config), "-a"]
    where = str(start.folder / address) if address else ""
    done = subprocess.run([*command, where], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_configuration_says_every_fault_and_starts_nothing(start: Starter) -> None:
    """All at once, with exit code 1."""
    said = refusal_at_start(start(settings={"sagemaker_edge_core_device_name": "a b", "lightkeeper_threads": "many"}))
    assert "sagemaker_edge_core_device_name" in said
    assert "lightkeeper_threads" in said
    assert not (start.folder / "agent.sock").exists()


# --- stopping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_calls_finish_and_removes_the_socket(start: Starter, slow_package: Path, number: int) -> None:
    """The call in flight gets its answer, the exit code is 0."""
    agent = start().wait_until_started()
    with Client(agent.address) as client:
        client.load_model(str(slow_package), "slow")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(slow_predict, agent.address, SLOW_TURNS)
        time.sleep(0.3)
        assert not call.done()
        assert agent.stop(number) == 0
        assert call.result() == SLOW_TURNS
    assert not agent.socket.exists()
    assert agent.events("agent_stopped")[0]["calls_finished"] is True


@pytest.mark.parametrize("prefix", ["", "@"])
def test_the_service_manager_is_told_when_calls_are_taken_and_when_they_end(
    start: Starter, tmp_path: Path, prefix: str
) -> None:
    """By the words that systemd waits for, at a socket file or at an abstract address."""
    address = f"{prefix}{tmp_path / 'manager'}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0", 1))
        manager.settimeout(30)
        process = start(environment={"NOTIFY_SOCKET": address})
        assert manager.recv(100) == b"READY=1"
        with Client(process.address) as client:
            assert client.list_models() == []
        assert process.stop() == 0
        assert manager.recv(100) == b"STOPPING=1"


def test_a_service_manager_that_is_gone_is_logged_and_keeps_nobody_from_serving(start: Starter, tmp_path: Path) -> None:
    """The agent was asked to serve, not to report."""
    process = start(environment={"NOTIFY_SOCKET": str(tmp_path / "gone")}).wait_until_started()
    with Client(process.address) as client:
        assert client.list_models() == []
    assert process.stop() == 0
    assert [line["word"] for line in process.events("service_manager_unreachable")] == ["READY=1", "STOPPING=1"]


def test_a_librarys_thread_does_not_take_the_signal(start: Starter) -> None:
    """Numpy's threads, where the environment asks for some, would end the process as if nobody had cared."""
    agent = start(environment={"OPENBLAS_NUM_THREADS": "4"}).wait_until_started()
    assert agent.stop() == 0
    assert not agent.socket.exists()


def test_no_new_call_is_taken_while_stopping(start: Starter, slow_package: Path) -> None:
    """A client is told that nobody is there."""
    agent = start().wait_until_started()
    with Client(agent.address) as client, ThreadPoolExecutor(1) as pool:
        client.load_model(str(slow_package), "slow")
        call = pool.submit(slow_predict, agent.address, SLOW_TURNS)
        time.sleep(0.3)
        agent.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        with pytest.raises(AgentUnreachable):
            client.list_models()
        assert call.result() == SLOW_TURNS
    assert agent.stop() == 0


@pytest.mark.parametrize("signals", [1, 2])
def test_calls_past_the_grace_time_are_cut_short(start: Starter, slow_package: Path, signals: int) -> None:
    """After the grace time, or at a second signal; the exit code is 0 all the same, and a WARNING says so."""
    agent = start(settings={"lightkeeper_grace_seconds": 1 if signals == 1 else 600}).wait_until_started()
    with Client(agent.address) as client:
        client.load_model(str(slow_package), "slow")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(slow_predict, agent.address, 100 * SLOW_TURNS)
        time.sleep(0.3)
        for _ in range(signals):
            agent.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        assert agent.stop() == 0
        with pytest.raises(AgentError):
            call.result()
    assert not agent.socket.exists()
    assert agent.events("calls_cut_short")


# --- bad input -------------------------------------------------------------------------------------------------------


def test_refusals_leak_neither_files_nor_memory_nor_disk(start: Starter, doubled_package: Path, tmp_path: Path) -> None:
    """Hundreds of failed loads, bad tensors and bad names; the good model answers throughout."""
    agent = start().wait_until_started()
    truncated = tmp_path / "truncated.tar.gz"
    truncated.write_bytes(doubled_package.read_bytes()[:-200])
    wrong = np.zeros((7, 7), np.float32)
    right = np.ones((1, 4), np.float32)

    def storm(client: Client, rounds: int) -> None:
        for _ in range(rounds):
            for call in (
                lambda: client.load_model(str(truncated), "m"),
                lambda: client.load_model(str(doubled_package), "good"),
                lambda: client.predict("good", {"x": wrong}),
                lambda: client.predict("ghost", {"x": right}),
                lambda: client.unload_model("ghost"),
            ):
                with pytest.raises(AgentError):
                    call()
            assert client.predict("good", {"x": right})["y"].tolist() == [[2, 2, 2, 2]]

    with Client(agent.address) as client:
        client.load_model(str(doubled_package), "good")
        storm(client, 30)
        files, memory = agent.open_files(), agent.resident_bytes()
        storm(client, 100)
    assert agent.open_files() <= files
    assert agent.resident_bytes() < memory * 1.05
    assert [entry for entry in (agent.folder / "state" / "staging").rglob("*") if entry.is_file()] == []


def test_connections_that_say_nothing_or_nonsense_harm_nobody(start: Starter, doubled_package: Path) -> None:
    """Silent ones, closed ones and ones that speak another protocol, while a client works."""
    agent = start().wait_until_started()
    with Client(agent.address) as client, ExitStack() as stack:
        client.load_model(str(doubled_package), "good")
        for noise in (
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            os.urandom(10_000),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 99,
        ):
            for _ in range(10):
                peer = stack.enter_context(socket.socket(socket.AF_UNIX))
                peer.connect(os.fspath(agent.socket))
                with suppress(BrokenPipeError, ConnectionResetError):
                    peer.sendall(noise)
            answer = client.predict("good", {"x": np.ones((1, 4), np.float32)})
            assert answer["y"].tolist() == [[2, 2, 2, 2]]
    assert agent.stop() == 0


def test_models_come_and_go_under_load(start: Starter, doubled_package: Path) -> None:
    """Callers get an answer or MODEL_NOT_FOUND and nothing else, while the model is loaded and unloaded."""
    agent = start().wait_until_started()
    done = threading.Event()
    answers: list[int] = []
    faults: list[Exception] = []

    def call() -> None:
        with Client(agent.address) as client:
            while not done.is_set():
                try:
                    client.predict("m", {"x": np.ones((1, 4), np.float32)})
                    answers.append(1)
                except ModelNotFound:
                    continue
                except Exception as fault:  # noqa: BLE001  # whatever else it is, it is the finding
                    faults.append(fault)
                    return

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    with Client(agent.address) as client:
        for _ in range(30):
            client.load_model(str(doubled_package), "m")
            time.sleep(0.02)
            client.unload_model("m")
    done.set()
    for caller in callers:
        caller.join()
    assert faults == []
    assert len(answers) > 30
