"""The Python client: numpy in, numpy out, shared memory by itself, refusals as exceptions."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import sysv_ipc

from lightkeeper.capture.request import CaptureStatus
from lightkeeper.captures import open_captures
from lightkeeper.client import Client, target_of
from lightkeeper.errors import (
    AgentUnreachable,
    CallTimedOut,
    CaptureIdTaken,
    FileChanged,
    ModelAlreadyLoaded,
    ModelNotFound,
    PackageNotFound,
    TensorShapeMismatch,
    TensorTypeMismatch,
)
from lightkeeper.tensor import DataType, TensorMetadata
from tests.conftest import PackageFactory
from tests.support import models
from tests.support.agents import AgentProcess

X = np.array([[1, 2, 3, 4]], np.float32)
LARGE = (1, 3, 224, 224)
CAN_UNSHARE = subprocess.run(["unshare", "-i", "true"], capture_output=True, check=False).returncode == 0


def test_a_models_life(client: Client, doubled_package: Path) -> None:
    """Load, describe, predict, unload."""
    loaded = client.load_model(str(doubled_package), "m")
    assert loaded.inputs == (TensorMetadata("x", DataType.FLOAT32, (1, 4)),)
    assert client.describe_model("m") == loaded
    assert client.list_models() == [loaded]
    assert np.array_equal(client.predict("m", {"x": X})["y"], 2 * X)
    client.unload_model("m")
    with pytest.raises(ModelNotFound):
        client.describe_model("m")


@pytest.mark.parametrize("as_inputs", [lambda x: {"x": x}, lambda x: [x], lambda x: x])
def test_inputs_come_by_name_in_order_or_alone(client: Client, doubled_package: Path, as_inputs: object) -> None:
    """Whichever is handy."""
    client.load_model(str(doubled_package), "m")
    assert callable(as_inputs)
    assert np.array_equal(client.predict("m", as_inputs(X))["y"], 2 * X)


@pytest.mark.parametrize("array", [np.asfortranarray(np.arange(8, dtype=np.float32).reshape(2, 4)), X.astype(">f4")])
def test_layout_and_byte_order_are_put_right(client: Client, make_package: PackageFactory, array: np.ndarray) -> None:
    """They are no change of value; a type is, and stays as it is."""
    client.load_model(str(make_package(models.doubled(("n", 4)))), "m")
    assert np.array_equal(client.predict("m", {"x": array})["y"], 2 * array)
    with pytest.raises(TensorTypeMismatch):
        client.predict("m", {"x": array.astype(np.float64)})


@pytest.mark.parametrize("above", [256 * 1024, None, 0])
def test_large_inputs_arrive_whole_either_way(
    agent: AgentProcess, client: Client, make_package: PackageFactory, above: int | None
) -> None:
    """Through shared memory, as bytes, and small ones through shared memory too; segments are used again."""
    client.load_model(str(make_package(models.doubled(LARGE))), "large")
    rng = np.random.default_rng(7)
    with Client(agent.address, shared_memory_above_bytes=above) as own:
        for _ in range(5):
            image = rng.random(LARGE, np.float32)
            assert np.array_equal(own.predict("large", {"x": image})["y"], image + image)


def test_several_inputs_share_a_segment(client: Client, make_package: PackageFactory, agent: AgentProcess) -> None:
    """Each keeps its own bytes."""
    client.load_model(str(make_package(models.sum_and_difference((3,)))), "two")
    a, b = np.array([1, 2, 3], np.float32), np.array([5, 5, 5], np.float32)
    with Client(agent.address, shared_memory_above_bytes=0) as own:
        outputs = own.predict("two", {"a": a, "b": b})
    assert outputs["sum"].tolist() == [6, 7, 8]
    assert outputs["difference"].tolist() == [-4, -3, -2]


def test_no_segment_outlives_its_client(client: Client, make_package: PackageFactory, agent: AgentProcess) -> None:
    """Not even one that is killed in the middle of its work; the agent lets go a little later."""
    client.load_model(str(make_package(models.doubled(LARGE))), "large")
    program = (
        "import numpy, os, signal, sys; from lightkeeper.client import Client\n"
        "client = Client(sys.argv[1])\n"
        "client.predict('large', numpy.zeros((1, 3, 224, 224), numpy.float32))\n"
        "print(client._segments._idle[0].id, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, agent.address], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 20
    while True:
        try:
            sysv_ipc.attach(int(done.stdout)).detach()
        except (sysv_ipc.ExistentialError, ValueError):
            break
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.skipif(not CAN_UNSHARE, reason="a namespace of its own needs privileges")
def test_an_agent_that_cannot_see_our_memory_gets_bytes(
    tmp_path: Path, authority: Path, make_package: PackageFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """An agent in another container: one WARNING, and every call is answered."""
    program = ("unshare", "-i", sys.executable, "-m", "lightkeeper", "agent")
    agent = AgentProcess(tmp_path, authority / "certs", program=program).wait_until_started()
    image = np.ones(LARGE, np.float32)
    with Client(agent.address) as own:
        own.load_model(str(make_package(models.doubled(LARGE))), "large")
        for _ in range(3):
            assert np.array_equal(own.predict("large", {"x": image})["y"], 2 * image)
    assert [record.message for record in caplog.records] == ["shared_memory_refused"]
    assert agent.stop() == 0


def test_refusals_are_exceptions_with_their_facts(client: Client, doubled_package: Path, tmp_path: Path) -> None:
    """The classes of `lightkeeper.errors`, as if the agent were in this process."""
    client.load_model(str(doubled_package), "m")
    with pytest.raises(TensorShapeMismatch) as caught:
        client.predict("m", {"x": X.T})
    assert caught.value.facts["expected"] == "[1, 4]"
    with pytest.raises(ModelAlreadyLoaded):
        client.load_model(str(doubled_package), "m")
    with pytest.raises(PackageNotFound):
        client.load_model(str(tmp_path / "nothing"), "n")
    shutil.unpack_archive(doubled_package, tmp_path, filter="data")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(FileChanged) as refused:
        client.load_model(str(tmp_path), "n")
    assert refused.value.facts["file"] == "manifest.json"


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([True]), np.array([1], np.uint32), np.array([1j])])
def test_a_type_that_the_wire_cannot_carry_is_refused_at_once(client: Client, array: np.ndarray) -> None:
    """Before anything is sent."""
    with pytest.raises(TensorTypeMismatch):
        client.predict("m", {"x": array})


def test_nobody_there_is_said_so(tmp_path: Path) -> None:
    """With the address."""
    with Client(str(tmp_path / "agent.sock")) as nobody, pytest.raises(AgentUnreachable) as caught:
        nobody.list_models()
    assert str(tmp_path) in caught.value.facts["address"]


def test_a_call_past_its_time_is_said_so(client: Client, make_package: PackageFactory, agent: AgentProcess) -> None:
    """And the agent goes on."""
    client.load_model(str(make_package(models.slow())), "slow")
    with Client(agent.address, timeout_seconds=0.1) as hasty, pytest.raises(CallTimedOut):
        hasty.predict("slow", {"turns": np.array(1_000_000), "x": np.array(0, np.float32)})
    assert [model.name for model in client.list_models()] == ["slow"]


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("/run/agent.sock", "unix:/run/agent.sock"),
        ("agent.sock", "unix:agent.sock"),
        ("unix:///run/agent.sock", "unix:///run/agent.sock"),
        ("localhost:5000", "localhost:5000"),
    ],
)
def test_an_address_is_a_path_or_a_target(address: str, target: str) -> None:
    """Paths are what people type."""
    assert target_of(address) == target


def test_a_capture_is_kept_and_told_of(client: Client, doubled_package: Path, agent: AgentProcess) -> None:
    """With an id of its own or one that is given; refusals are exceptions."""
    client.load_model(str(doubled_package), "m")
    picture = b"\xff\xd8" * 5000
    made = client.capture_data("m", inputs={"x": X}, outputs={"y": 2 * X}, auxiliary_inputs={"camera.jpg": picture})
    given = client.capture_data("m", inputs={"x": X}, capture_id=f"own-{made}", time_ns=1_637_012_345_000_000_678)
    assert given == f"own-{made}"
    with pytest.raises(CaptureIdTaken):
        client.capture_data("m", inputs={"x": X}, capture_id=given)
    assert client.flush_captures(timeout_seconds=20)
    assert {client.capture_status(made), client.capture_status(given)} == {CaptureStatus.SUCCESS}
    assert client.capture_status("never-seen") is CaptureStatus.NOT_FOUND
    records = {record.id: record for record in open_captures(agent.folder / "captures").records()}
    assert np.array_equal(records[made].inputs[0].array(), X)
    assert np.array_equal(records[made].outputs[0].array(), 2 * X)
    assert records[made].auxiliary_inputs[0].data() == picture
    assert records[given].time == np.datetime64(1_637_012_345_000_000_678, "ns")
