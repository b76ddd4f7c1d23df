"""Deployments on a device: real packages, real models, and a fleet in a folder."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lightkeeper import config
from lightkeeper.agent import modelling
from lightkeeper.deployment.engine import Deployments, Polling
from lightkeeper.deployment.fetching import Fetching
from lightkeeper.deployment.journal import Journal
from lightkeeper.errors import DeliveryInterrupted
from lightkeeper.models.lifecycle import Models
from lightkeeper.providers.fleet import Definition, Deployment, DeploymentResult, DesiredState, FailurePolicy
from lightkeeper.registry import Registry
from tests.conftest import PackageFactory
from tests.support import models as onnx_models
from tests.support.fleets import FolderFleet
from tests.support.models_swapped import scaled

ROLLBACK, NOTHING = FailurePolicy.ROLLBACK_ON_FAILURE, FailurePolicy.DO_NOTHING


class Device:
    """An agent's models and deployments, without its socket. `restart` begins anew with the same state."""

    def __init__(self, folder: Path, root_certs: Path, fleet: FolderFleet) -> None:
        self.fleet = fleet
        self.state = folder / "state"
        self.state.mkdir()
        keys = {
            "sagemaker_edge_core_device_name": "device",
            "sagemaker_edge_core_device_fleet_name": "fleet",
            "sagemaker_edge_core_root_certs_path": str(root_certs),
            "sagemaker_edge_provider_provider": "None",
            "sagemaker_edge_core_capture_data_disk_path": str(folder / "captures"),
            "sagemaker_edge_local_data_root_path": str(self.state),
            "lightkeeper_deployments": True,
            "lightkeeper_swap_watch_seconds": 0,
        }
        (folder / "config.json").write_text(json.dumps(keys))
        self._config = config.load(folder / "config.json")
        self._begin()

    def _begin(self) -> None:
        self.registry = Registry()
        self.models: Models = modelling.models(self._config, self.registry, self.state)
        self.stopping = threading.Event()
        self.journal = Journal(self.state / "deployments.json")
        fetching = Fetching(self.fleet, self.state / "deployments", most_bytes=2**30, stopping=self.stopping)
        self.due = threading.Event()
        self.deployments = Deployments(
            self.fleet,
            self.models,
            self.journal,
            fetching,
            polling=Polling(60, 0),
            stopping=self.stopping,
            finished=self.due.set,
        )
        self.models.start()
        assert self.models.wait_until_restored(20)

    def restart(self) -> None:
        """Stop as an agent does, and begin again."""
        self.stop()
        self._begin()

    def stop(self) -> None:
        """Close everything."""
        self.models.stop()
        for model in self.registry.models():
            self.registry.take(model.description.name).close()

    def deploy(self, *definitions: Definition, policy: FailurePolicy = ROLLBACK, name: str = "d") -> DeploymentResult:
        """Have the fleet deploy, and return the result."""
        self.fleet.offer(Deployment(name, policy, definitions))
        assert self.deployments.once()
        result = self.deployments.result()
        assert result is not None
        self.deployments.acknowledge(result)
        return result

    def factors(self) -> dict[str, float]:
        """Return by what each loaded model multiplies."""
        found = {}
        for model in self.registry.models():
            (output,) = model.run({"x": np.ones((1, 4), np.float32)})
            found[model.description.name] = float(output[0, 0])
        return found


Made = Callable[[str, float], Definition]


@pytest.fixture
def device(tmp_path: Path, authority: Path) -> Iterator[Device]:
    """A device with nothing loaded."""
    made = Device(tmp_path, authority / "certs", FolderFleet(tmp_path / "fleet"))
    yield made
    made.stop()


@pytest.fixture
def made(device: Device, make_package: PackageFactory) -> Made:
    """Puts a version of a model into the fleet's bucket."""

    def make(name: str, factor: float) -> Definition:
        return device.fleet.put(make_package(scaled(factor), name=name, version=f"{factor:g}"))

    return make


def undeployed(handle: str) -> Definition:
    """Return the definition that takes a model away."""
    return Definition(handle, DesiredState.UNDEPLOY)


def test_models_are_loaded_swapped_and_taken_away(device: Device, made: Made) -> None:
    """As the fleet names them, under their handles; the result says what runs now."""
    result = device.deploy(made("a", 1), made("b", 1))
    assert result.succeeded
    assert device.factors() == {"a": 1, "b": 1}
    result = device.deploy(made("a", 2), undeployed("b"), undeployed("ghost"), name="e")
    assert result.succeeded
    assert (result.name, result.message) == ("e", "done")
    assert device.factors() == {"a": 2}
    assert [(each.handle, each.name, each.version, each.state) for each in result.models] == [
        ("a", "a", "2", DesiredState.DEPLOY),
        ("b", "", "", DesiredState.UNDEPLOY),
        ("ghost", "", "", DesiredState.UNDEPLOY),
    ]
    assert 0 < result.started_ms <= result.ended_ms
    assert device.models.status()[0].url == "s3://packages/a-2.tar.gz"


def test_what_is_done_is_not_done_again(device: Device, made: Made) -> None:
    """However often the fleet offers it, over restarts."""
    definition = made("a", 1)
    device.deploy(definition)
    device.restart()
    assert not device.deployments.once()
    assert device.deployments.result() is None
    assert device.factors() == {"a": 1}


def test_a_failure_puts_every_model_back(device: Device, made: Made, make_package: PackageFactory) -> None:
    """What was swapped, what was loaded anew; and what was to go was not touched yet."""
    device.deploy(made("a", 1), made("z", 9))
    wrong = device.fleet.put(make_package(onnx_models.doubled((4,)), name="b", version="2"))
    device.deploy(made("b", 1), name="second")
    result = device.deploy(made("a", 2), made("n", 3), wrong, undeployed("z"), name="third")
    assert not result.succeeded
    assert device.factors() == {"a": 1, "b": 1, "z": 9}
    reasons = {each.handle: each.reason.partition(":")[0] for each in result.models}
    assert reasons == {
        "a": "TAKEN_BACK",
        "n": "TAKEN_BACK",
        "b": "SWAP_INTERFACE_MISMATCH",
        "z": "TAKEN_BACK",
    }
    assert all(not each.rollback_failure for each in result.models)
    assert device.factors() == {"a": 1, "b": 1, "z": 9}


def test_a_failure_leaves_the_others_alone_where_the_policy_says_so(device: Device, made: Made) -> None:
    """Here a package that is not there."""
    missing = Definition("b", DesiredState.DEPLOY, "s3://packages/ghost.tar.gz", "0" * 40)
    result = device.deploy(missing, made("a", 2), policy=NOTHING)
    assert [each.succeeded for each in result.models] == [False, True]
    assert result.models[0].reason.startswith("PACKAGE_NOT_FOUND")
    assert device.factors() == {"a": 2}


def test_a_forged_package_is_refused_before_anything_changes(device: Device, made: Made, tmp_path: Path) -> None:
    """Its checksum is the deployment's, its signature is nobody's."""
    device.deploy(made("a", 1))
    forged = tmp_path / "b-1.tar.gz"
    forged.write_bytes(b"no archive")
    result = device.deploy(made("a", 2), device.fleet.put(forged), name="e")
    assert result.models[1].reason.startswith("PACKAGE_UNREADABLE")
    assert result.models[0].reason.startswith("TAKEN_BACK")
    assert device.factors() == {"a": 1}


def test_a_result_waits_for_its_heartbeat_over_restarts(device: Device, made: Made) -> None:
    """It is forgotten when it was sent, and not before."""
    device.fleet.offer(Deployment("d", ROLLBACK, (made("a", 1),)))
    device.deployments.once()
    device.restart()
    result = device.deployments.result()
    assert result is not None
    assert (result.name, result.succeeded) == ("d", True)
    device.deployments.acknowledge(result)
    device.restart()
    assert device.deployments.result() is None


def test_a_heartbeat_is_due_whenever_a_result_waits(device: Device, made: Made) -> None:
    """After each deployment, and after each result that was taken while another one waits."""
    for name in ("first", "second"):
        device.fleet.offer(Deployment(name, ROLLBACK, (made("net", 2),)))
        assert not device.due.is_set()
        assert device.deployments.once()
        assert device.due.is_set()
        device.due.clear()
    for name, more in (("first", True), ("second", False)):
        result = device.deployments.result()
        assert result is not None
        assert result.name == name
        device.deployments.acknowledge(result)
        assert device.due.is_set() is more
        device.due.clear()


def test_a_fleet_that_is_away_is_said_once_and_asked_later(
    device: Device, made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    """Offline is no fault; the first answer afterwards is said too."""
    caplog.set_level(logging.INFO)
    device.fleet.away = True
    for _ in range(3):
        assert not device.deployments.once()
    assert caplog.text.count("deployments_away") == 1
    device.fleet.away = False
    assert device.deploy(made("a", 1)).succeeded
    assert caplog.text.count("deployments_back") == 1


def test_a_stopped_agent_goes_on_with_its_deployment_at_the_next_start(device: Device, made: Made) -> None:
    """And does not ask the fleet for it again."""
    device.fleet.offer(Deployment("d", ROLLBACK, (made("a", 1), made("b", 2))))
    device.stopping.set()
    with pytest.raises(DeliveryInterrupted):
        device.deployments.once()
    plan = device.journal.plan
    assert plan is not None
    device.restart()
    device.fleet.offer()
    asked = device.fleet.asked
    assert device.deployments.once()
    assert device.fleet.asked == asked
    assert device.factors() == {"a": 1, "b": 2}


def test_nothing_that_no_model_needs_is_left(device: Device, made: Made) -> None:
    """Neither archives nor packages, beyond the last two versions of a model."""
    for factor in range(1, 5):
        device.deploy(made("a", factor), name=f"d{factor}")
    assert list((device.state / "deployments").iterdir()) == []
    assert len(list((device.state / "packages").iterdir())) <= 3
    device.restart()
    assert len(list((device.state / "packages").iterdir())) == 2


def test_looks_are_spread_and_failures_wait_longer_each_time() -> None:
    """Devices that come back together do not ask together."""
    polling = Polling(interval_seconds=600, first_seconds=30)
    assert (polling.wait_seconds(0, 0.0), polling.wait_seconds(0, 1.0)) == (600, 540)
    assert [polling.wait_seconds(failures, 1.0) for failures in (1, 2, 3, 9)] == [30, 60, 120, 600]
