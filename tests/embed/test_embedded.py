"""The agent inside another program, called as the C ABI calls it."""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightkeeper import embedded
from lightkeeper.tensor import DataType

X = np.array([[1, 2, 3, 4]], np.float32)
FLOAT32 = int(DataType.FLOAT32)


@pytest.fixture
def config(tmp_path: Path, authority: Path) -> Path:
    """A configuration with captures on the disk."""
    path = tmp_path / "agent.json"
    keys = {
        "sagemaker_edge_core_device_name": "inside",
        "sagemaker_edge_core_device_fleet_name": "fleet",
        "sagemaker_edge_core_root_certs_path": str(authority / "certs"),
        "sagemaker_edge_provider_provider": "None",
        "sagemaker_edge_core_capture_data_disk_path": str(tmp_path / "captures"),
        "sagemaker_edge_local_data_root_path": str(tmp_path / "state"),
    }
    path.write_text(json.dumps(keys))
    return path


@pytest.fixture
def root_logger() -> Iterator[None]:
    """The process's logging as it was."""
    root, own = logging.getLogger(), logging.getLogger("lightkeeper")
    levels, handlers = (root.level, own.level), root.handlers[:]
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    for logger, level in zip((root, own), levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def handle(config: Path, root_logger: None) -> Iterator[Any]:
    """A started agent."""
    started = result(embedded.start(str(config)))
    yield started
    result(embedded.stop(started))


def result(answer: embedded.Answer) -> Any:
    """Return the result of an answer that must be good."""
    assert answer[:4] == (0, "", "", ""), answer
    return answer[4]


def tensor(array: Any, name: str | None = "x") -> embedded.CTensor:
    """Return a tensor as C gives it: a view of somebody's memory."""
    return name, FLOAT32, array.shape, memoryview(array.tobytes())


def test_a_models_life(handle: Any, doubled_package: Path) -> None:
    """Load, list, describe, predict, unload, each with plain values."""
    result(embedded.load_model(handle, str(doubled_package), "m"))
    assert result(embedded.list_models(handle)) == ("m",)
    url, inputs, outputs = result(embedded.describe_model(handle, "m"))
    assert (url, inputs, outputs) == (str(doubled_package), (("x", FLOAT32, (1, 4)),), (("y", FLOAT32, (1, 4)),))
    ((name, data_type, shape, data),) = result(embedded.predict(handle, "m", (tensor(X),)))
    assert (name, data_type, shape) == ("y", FLOAT32, (1, 4))
    assert np.array_equal(np.frombuffer(data, np.float32), 2 * X[0])
    result(embedded.unload_model(handle, "m"))
    assert result(embedded.list_models(handle)) == ()


def test_the_callers_memory_is_let_go_of(handle: Any, doubled_package: Path) -> None:
    """After a call nothing reads the views any more, whether it went well or not."""
    result(embedded.load_model(handle, str(doubled_package), "m"))
    memory = bytearray(X.tobytes())
    for shape in ((1, 4), (4, 1)):
        embedded.predict(handle, "m", (("x", FLOAT32, shape, memoryview(memory)),))
    gc.collect()
    memory.append(0)  # raises a BufferError while a view is alive
    assert len(memory) == X.nbytes + 1


def test_a_capture_is_kept(handle: Any, doubled_package: Path) -> None:
    """With a time of 0 it is now's; the id is taken afterwards."""
    result(embedded.load_model(handle, str(doubled_package), "m"))
    words = (
        handle,
        "m",
        "capture1",
        0,
        0,
        (tensor(X),),
        (tensor(2 * X, "y"),),
        (("note.json", memoryview(b"{}")),),
        (),
    )
    result(embedded.capture_data(*words))
    assert result(embedded.capture_data_status(handle, "capture1")) in {1, 2}
    assert embedded.capture_data(*words)[:2] == (6, "CAPTURE_ID_TAKEN")
    assert result(embedded.capture_data_status(handle, "nobody")) == 3


def test_refusals_are_answers(handle: Any, config: Path, doubled_package: Path) -> None:
    """The status is gRPC's, the reason that of the errors' table; nothing is raised into C."""
    assert embedded.predict(handle, "nobody", ())[:2] == (5, "MODEL_NOT_FOUND")
    assert embedded.load_model(handle, "/nowhere", "m")[:2] == (5, "PACKAGE_NOT_FOUND")
    result(embedded.load_model(handle, str(doubled_package), "m"))
    odd = ("x", 99, (1, 4), memoryview(X.tobytes()))
    assert embedded.predict(handle, "m", (odd,))[:2] == (3, "TENSOR_TYPE_MISMATCH")
    assert embedded.start(str(config))[:2] == (9, "STATE_IN_USE")
    assert embedded.start("/nowhere/agent.json")[:2] == (9, "CONFIG_UNREADABLE")


def test_a_fault_of_its_own_is_told_without_detail(handle: Any, caplog: pytest.LogCaptureFixture) -> None:
    """INTERNAL with a fixed text; the log has the rest."""
    answer = embedded.predict(handle, "m", None)  # type: ignore[arg-type]  # what no caller in C can give
    assert answer[:2] == (13, "UNEXPECTED")
    assert "TypeError" not in answer[2]
    assert "call_failed" in caplog.text


def test_models_are_there_again_after_a_restart(config: Path, root_logger: None, doubled_package: Path) -> None:
    """As with the agent on a socket."""
    first = result(embedded.start(str(config)))
    result(embedded.load_model(first, str(doubled_package), "m"))
    result(embedded.stop(first))
    second = result(embedded.start(str(config)))
    result(embedded.load_model(second, str(doubled_package), "m"))  # adopts what is restored
    assert result(embedded.list_models(second)) == ("m",)
    result(embedded.stop(second))
