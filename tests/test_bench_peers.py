"""The run beside peers works and says what is missing. What the figures say is for `make bench-peers` to judge."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import grpc
import pytest

from bench.load import HOW_TO_GET_H2LOAD, PREDICT, Load
from bench.peers import profile, report, setup
from bench.peers.contestants import ECHO, GRPCIO, INSIDE, NATIVE, SYNC, TRITON
from bench.peers.driver import BYTES
from bench.peers.results import ALONE, FEW, H2LOAD, Cell, Life, PeerResults
from bench.workshop import Server

REPOSITORY = Path(__file__).parent.parent
MIB = 1 << 20


@pytest.mark.skipif(shutil.which("h2load") is None, reason=HOW_TO_GET_H2LOAD)
def test_every_figure_is_there(tmp_path: Path) -> None:
    """The shortest run measures its contestants with both clients, by bytes and by shared memory."""
    ours = NATIVE if find_spec("lightkeeper_wire") else GRPCIO
    page = tmp_path / "page.md"
    done = subprocess.run(
        [sys.executable, "-m", "bench.peers", "--effort", "smoke", "--only", ours, SYNC, "--json", "--write", page],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)

    found = {(cell["model"], cell["carrier"], cell["client"], cell["in_flight"]) for cell in document["cells"]}
    ways = {("small", "bytes"), ("image", "bytes"), ("image", "shared memory")}
    assert found == {(*way, client, calls) for way in ways for client in ("h2load", "usual client") for calls in (1, 8)}
    for cell in document["cells"]:
        assert {INSIDE, ours} <= set(cell["rounds"])
        assert all(load["p50_us"] > 0 for loads in cell["rounds"].values() for load in loads)
    for life in document["lives"].values():
        assert life["pss_bytes"] > MIB
        assert all(seconds > 0 for seconds in life["first_answers_seconds"])
    assert "## image by shared memory, h2load" in page.read_text()


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the compiled echo."""
    program = tmp_path_factory.mktemp("echo") / "echo"
    try:
        setup.compile_echo(program)
    except setup.SetupError as why:
        pytest.skip(str(why))
    return program


@pytest.mark.parametrize("way", ["sync", "async", "callback"])
def test_the_echo_answers_with_what_it_got(tmp_path: Path, echo: Path, way: str) -> None:
    """Small and large, many at once, by each of gRPC's interfaces; and it ends when told to."""
    address = tmp_path / "echo.sock"
    server = Server([str(echo), way, f"unix:{address}", "2"], address, tmp_path / "log")
    try:
        server.wait_for_socket()
        with grpc.insecure_channel(server.target) as channel, ThreadPoolExecutor(8) as pool:
            call = channel.unary_unary(PREDICT, None, None)
            bodies = [bytes([number]) * (number * 1000) for number in range(200)]
            assert list(pool.map(call, bodies)) == bodies
    finally:
        server.stop()
    assert server.pids() == []


def test_a_profile_knows_the_places() -> None:
    """Perf's rows become shares by the thread's name and the place, comments left out."""
    rows = [
        "# Overhead;Command;Shared Object",
        " 50.00%;wire-io;[kernel.kallsyms]",
        " 20.00%;lightkeeper;libpython3.11.so.1.0",
        " 10.00%;lightkeeper;libc.so.6",
        "  5.00%;lightkeeper;ld-linux-x86-64.so.2",
        " 15.00%;lightkeeper;_message.abi3.so",
        "",
    ]

    assert profile.shares(rows) == {
        ("wire-io", "the kernel"): 50.0,
        ("lightkeeper", "Python"): 20.0,
        ("lightkeeper", "the C library"): 15.0,
        ("lightkeeper", "protobuf"): 15.0,
    }


def results(p50_us: float) -> PeerResults:
    """Return a run with one cell, in which the agent's p50 is given, the echo's 60 and the model's 40."""
    rounds = {
        name: [Load(found_us, 2 * found_us, 1000.0)]
        for name, found_us in ((INSIDE, 40.0), (ECHO, 60.0), (NATIVE, p50_us))
    }
    cell = Cell("small", BYTES, H2LOAD, ALONE, rounds)
    lives = {NATIVE: Life([0.3, 0.5, 0.4], 90 * MIB, 0.001)}
    return PeerResults("full", "2026-01-01", {}, {NATIVE: "ours"}, {TRITON: "no Python"}, [cell], lives, [])


def test_a_missed_target_says_by_how_much() -> None:
    """The agent is held against the sum of the echo and the model alone; what was not measured is not met."""
    met, *others = results(140.0).targets()
    missed = results(150.0).targets()[0]

    assert (met.verdict(), missed.verdict()) == ("met", "missed by 0.10")
    assert {target.verdict() for target in others} == {"not measured"}


def test_a_peer_that_is_not_there_is_named_with_its_reason() -> None:
    """The page never passes over who could not be measured."""
    page = report.to_markdown(results(140.0), rounds=1, turn_seconds=0.5, threads=2, minutes=1)

    assert f"- **{TRITON}** is not there: no Python." in page
    assert f"| {NATIVE} | 0.40 | 0.30 | 0.50 | 90 | 0.1% |" in page


def test_a_ratio_of_a_contestant_who_is_not_there_is_not_known() -> None:
    """A ratio needs both its sides, at every number in flight."""
    found = results(140.0)

    assert found.cells[0].ratio(lambda load: load.p50_us, NATIVE, TRITON) is None
    assert found.cell("small", BYTES, H2LOAD, FEW) is None
