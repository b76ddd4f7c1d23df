"""A kill at any change of the agent's files during a deployment: afterwards each version is whole, and the end is told.

The agent kills itself at the n-th change of a file in its state folder (`tests/support/fleet_agent.py`), and is started
again. `make test-deployments` takes every n until a deployment comes through; the short form a few.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightkeeper.client import Client
from lightkeeper.providers.fleet import Definition, Deployment, DesiredState, FailurePolicy
from tests.conftest import PackageFactory
from tests.support.agents import AgentProcess
from tests.support.fleet_agent import JOURNAL, RESULTS
from tests.support.fleets import FolderFleet
from tests.support.models import doubled
from tests.support.models_swapped import scaled

EVERY = "LIGHTKEEPER_EVERY_KILL"
WAIT_SECONDS = 60.0
KILLS_MOST = 500
FEW = {"good": (4, 33, 60), "bad": (50, 75)}
"""Kills of the short form: in the first entry, while a package is kept, and while models change or go back."""
SETTINGS = {
    "lightkeeper_deployments": True,
    "lightkeeper_heartbeat_seconds": 5,
    "lightkeeper_swap_watch_seconds": 1,
    "sagemaker_edge_model_deployment_poll_interval": 60,
}
X = np.ones((1, 4), np.float32)


class Yard:
    """A device that runs versions 1 of `a` and `b`, as it was before a deployment; each trial begins with a copy."""

    def __init__(self, folder: Path, root_certs: Path, make_package: PackageFactory) -> None:
        self._folder = folder
        self._root_certs = root_certs
        self._tried = 0
        packages = {
            f"{name}{factor}": make_package(scaled(factor), name=name, version=f"{factor}.0")
            for name, factor in (("a", 1), ("b", 1), ("a", 2), ("c", 3))
        }
        wrong = make_package(doubled((4,)), name="b", version="2.0")
        fleet = FolderFleet(folder / "fleet")
        gone = Definition("b", DesiredState.UNDEPLOY)
        new_a, new_c = fleet.put(packages["a2"]), fleet.put(packages["c3"])
        rollback = FailurePolicy.ROLLBACK_ON_FAILURE
        self.deployments = {
            "good": Deployment("good", rollback, (new_a, new_c, gone)),
            "bad": Deployment("bad", rollback, (new_a, new_c, fleet.put(wrong))),
        }
        agent = AgentProcess(self._place("before"), root_certs, settings=SETTINGS).wait_until_started()
        with Client(agent.address) as client:
            client.load_model(str(packages["a1"]), "a")
            client.load_model(str(packages["b1"]), "b")
        assert agent.stop() == 0

    def _place(self, name: str) -> Path:
        place = self._folder / name
        place.mkdir()
        return place

    def begin(self, scenario: str) -> Path:
        """Return the folder of a new trial, with the deployment on offer."""
        self._tried += 1
        place = self._place(f"trial-{self._tried}")
        shutil.copytree(self._folder / "before" / "state", place / "state")
        FolderFleet(self._folder / "fleet").offer(self.deployments[scenario])
        return place

    def start(self, place: Path, kill_at: int = 0) -> AgentProcess:
        """Start the agent of a trial."""
        program = (sys.executable, "-m", "tests.support.fleet_agent", str(self._folder / "fleet"), str(kill_at))
        return AgentProcess(place, self._root_certs, settings=SETTINGS, program=program)


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory, authority: Path, make_package: PackageFactory) -> Yard:
    """What every trial begins with."""
    return Yard(tmp_path_factory.mktemp("yard"), authority / "certs", make_package)


def is_under_way(place: Path) -> bool:
    """Return whether the journal has a deployment that has not come to its end."""
    file = place / "state" / JOURNAL
    return file.exists() and json.loads(file.read_text())["plan"] is not None


def results(place: Path) -> list[dict[str, Any]]:
    """Return what was reported of deployments."""
    file = place / RESULTS
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def wait_for_the_end(agent: AgentProcess, place: Path) -> bool:
    """Wait until the deployment is over and reported, or the agent dead; return whether it is over."""
    deadline = time.monotonic() + WAIT_SECONDS
    while agent.process.poll() is None:
        if results(place) and not is_under_way(place):
            return True
        assert time.monotonic() < deadline, agent.log_file.read_text()
        time.sleep(0.02)
    return False


def wait_until_restored(agent: AgentProcess, earlier: int) -> None:
    """Wait until an agent has restored its models; `earlier` agents' lines in the same log do not count."""
    deadline = time.monotonic() + WAIT_SECONDS
    while len(agent.events("models_restored")) <= earlier:
        assert time.monotonic() < deadline, agent.log_file.read_text()
        time.sleep(0.02)


def factors(agent: AgentProcess) -> dict[str, float]:
    """Return by what each model multiplies: each of them must answer, and as one version does."""
    with Client(agent.address) as client:
        found = {}
        for model in client.list_models():
            values = client.predict(model.name, X)["y"]
            assert np.all(values == values[0, 0])
            found[model.name] = float(values[0, 0])
        return found


def killed_and_started_again(yard: Yard, scenario: str, kill_at: int) -> bool:
    """Kill an agent at a change, start it again, and check what came of it; return whether it was killed."""
    place = yard.begin(scenario)
    first = yard.start(place, kill_at)
    second = None
    try:
        whole = wait_for_the_end(first, place)
        if whole:
            assert first.stop(signal.SIGKILL) == -signal.SIGKILL
        assert first.process.returncode == -signal.SIGKILL, first.log_file.read_text()
        restored = len(first.events("models_restored"))
        second = yard.start(place).wait_until_started()
        wait_until_restored(second, restored)  # where the first one came to the end, the journal says so before
        assert wait_for_the_end(second, place)
        result, *again = results(place)
        assert all(other == result for other in again)  # a kill before it is known to be taken: it is told twice
        if scenario == "good":
            assert result["succeeded"], result
            assert factors(second) == {"a": 2, "c": 3}
        else:
            assert not result["succeeded"]
            assert [model["reason"].partition(":")[0] for model in result["models"]] == [
                "TAKEN_BACK",
                "TAKEN_BACK",
                "SWAP_INTERFACE_MISMATCH",
            ]
            assert not any(model["rollback_failure"] for model in result["models"])
            assert factors(second) == {"a": 1, "b": 1}
        assert second.stop() == 0
        assert not list((place / "state" / "deployments").iterdir())
        assert not list((place / "state" / "staging").iterdir())
    finally:
        for agent in (first, second):
            if agent is not None:
                agent.stop(signal.SIGKILL)
    shutil.rmtree(place)
    return not whole


def kills(scenario: str) -> Iterator[int]:
    """Yield at which changes to kill."""
    yield from range(1, KILLS_MOST) if EVERY in os.environ else FEW[scenario]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scenario", ["good", "bad"])
def test_a_kill_leaves_each_model_whole_and_the_deployment_comes_to_its_end(yard: Yard, scenario: str) -> None:
    """Whether it succeeds or is rolled back: the second start finishes what the first began."""
    killed = 0
    for number in kills(scenario):
        if not killed_and_started_again(yard, scenario, number):
            break
        killed += 1
    assert killed >= len(FEW[scenario])
