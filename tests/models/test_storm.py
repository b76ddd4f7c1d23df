"""Swaps under load: not a call fails, and not a session is left behind. `make test-swap` is the long form."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lightkeeper.client import Client
from tests.conftest import PackageFactory
from tests.support.agents import AgentProcess
from tests.support.models_swapped import laden

SWAPS = int(os.environ.get("LIGHTKEEPER_SWAPS", "12"))
CALLERS = 8
SETTLED = max(4, SWAPS // 4)
"""After so many swaps the process has what it needs."""
WEIGHTS = 2 * 1024 * 1024
WEIGHTS_BYTES = WEIGHTS * 4
ROOM_BYTES = 4 * WEIGHTS_BYTES
"""What the C library may keep: less than one version in ten leaves its weights behind in a long run."""


@pytest.fixture(params=["native", "grpcio"])
def agent(request: pytest.FixtureRequest, tmp_path: Path, authority: Path) -> Iterator[AgentProcess]:
    """An agent over each server, which watches nobody: old versions are closed as soon as their calls have left."""
    if request.param == "native":
        pytest.importorskip("lightkeeper_wire", reason="make setup builds the native wire where cargo is present")
    settings = {
        "lightkeeper_transport": request.param,
        "lightkeeper_swap_watch_seconds": 0,
        "lightkeeper_swap_latency_ratio": 1e9,
        "lightkeeper_threads": 1,
    }
    process = AgentProcess(tmp_path, authority / "certs", settings=settings).wait_until_started()
    yield process
    process.stop(signal.SIGKILL)


def test_swaps_under_load_fail_no_call_and_leave_nothing_behind(
    agent: AgentProcess, make_package: PackageFactory
) -> None:
    """Eight callers go on while two versions change places, with weights that would show in memory."""
    versions = [make_package(laden(WEIGHTS), name="laden", version=f"{number}.0") for number in (1, 2)]
    stop = threading.Event()
    failures: list[BaseException] = []
    answered = [0] * CALLERS

    def call(caller: int) -> None:
        x = np.arange(4, dtype=np.float32)
        with Client(agent.address) as client:
            while not stop.is_set():
                try:
                    np.testing.assert_array_equal(client.predict("m", x)["y"], x)
                    answered[caller] += 1
                except BaseException as error:  # noqa: BLE001  # any failure is what this test looks for
                    failures.append(error)

    with Client(agent.address, timeout_seconds=120) as client:
        client.load_model(str(versions[0]), "m")
        callers = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
        for caller in callers:
            caller.start()
        held_bytes, files = [], []
        for number in range(SWAPS):
            report = client.swap_model("m", str(versions[(number + 1) % 2]))
            assert report.old.version != report.new.version
            held_bytes.append(agent.resident_bytes())
            files.append(agent.open_files())
        stop.set()
        for caller in callers:
            caller.join()
        (status,) = client.model_status()
    assert failures == []
    assert min(answered) > 0
    assert status.reading.failures == 0
    assert max(held_bytes[SETTLED:]) - max(held_bytes[:SETTLED]) < ROOM_BYTES, held_bytes
    assert max(files[SETTLED:]) <= max(files[:SETTLED]) + 2
    assert len(list((agent.folder / "state" / "packages").iterdir())) == 2
    assert list((agent.folder / "state" / "staging").iterdir()) == []
