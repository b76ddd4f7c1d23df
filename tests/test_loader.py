"""From a package to an open session, and what refuses it after its signature was found good."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lightkeeper.errors import (
    FormatUnsupported,
    GoldenMismatch,
    MemoryShort,
    ModelSignatureMismatch,
    ModelUnreadable,
    WarmUpFailed,
)
from lightkeeper.loader import ModelLoader
from lightkeeper.modelpackage.manifest import Golden, GoldenTensor, Manifest
from lightkeeper.runtimes.base import RuntimeOptions
from lightkeeper.runtimes.discovery import Runtimes
from lightkeeper.tensor import DataType, TensorMetadata
from tests.support import models
from tests.support.packages import Workshop

GIB = 1024**3
DOUBLED = Manifest(
    name="probe",
    version="1.0",
    format="onnx",
    model="model.onnx",
    inputs=(TensorMetadata("x", DataType.FLOAT32, (1, 4)),),
    outputs=(TensorMetadata("y", DataType.FLOAT32, (1, 4)),),
)
GOLDEN = Golden((GoldenTensor("x", "golden/x.npy"),), (GoldenTensor("y", "golden/y.npy"),), relative_tolerance=0.0)
X = np.array([[1, 2, 3, 4]], np.float32)

Load = Callable[..., object]


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """Makes packages that a loader trusts."""
    return Workshop(tmp_path)


def load(workshop: Workshop, manifest: Manifest, files: dict[str, bytes], free_bytes: int = GIB) -> list[np.ndarray]:
    """Package the files, load the package, and return what the model makes of X."""
    loader = ModelLoader(
        store=workshop.store(),
        runtimes=Runtimes(RuntimeOptions(threads=1)),
        memory_reserve_bytes=GIB // 4,
        available_memory_bytes=lambda: free_bytes,
    )
    opened = loader.load(str(workshop.write_folder(workshop.package(manifest, files))))
    assert (opened.package.name, opened.package.version) == (manifest.name, manifest.version)
    outputs = opened.session.run({"x": X})
    opened.session.close()
    return outputs


def npy(array: np.ndarray) -> bytes:
    """Return the bytes of an .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_a_good_package_becomes_a_session(workshop: Workshop) -> None:
    """And no copy of it is left on the disk."""
    (y,) = load(workshop, DOUBLED, {"model.onnx": models.doubled()})
    assert np.array_equal(y, 2 * X)
    assert list((workshop.folder / "staging").rglob("*.onnx")) == []


def test_a_golden_output_that_is_reproduced_lets_the_package_in(workshop: Workshop) -> None:
    """Here exactly."""
    files = {"model.onnx": models.doubled(), "golden/x.npy": npy(X), "golden/y.npy": npy(2 * X)}
    (y,) = load(workshop, replace(DOUBLED, golden=GOLDEN), files)
    assert np.array_equal(y, 2 * X)


def test_a_golden_output_that_is_not_reproduced_refuses_the_package(workshop: Workshop) -> None:
    """With the tensor and both values."""
    files = {"model.onnx": models.doubled(), "golden/x.npy": npy(X), "golden/y.npy": npy(3 * X)}
    with pytest.raises(GoldenMismatch) as caught:
        load(workshop, replace(DOUBLED, golden=GOLDEN), files)
    assert caught.value.facts["tensor"] == "y"
    assert {caught.value.facts["expected"], caught.value.facts["given"]} == {"12.0", "8.0"}


def test_a_model_that_fails_on_its_golden_input_is_refused(workshop: Workshop) -> None:
    """It cannot run here, whatever else it can."""
    manifest = replace(
        DOUBLED,
        inputs=(TensorMetadata("index", DataType.INT64, (-1,)),),
        outputs=(TensorMetadata("y", DataType.FLOAT32, (-1,)),),
        golden=replace(GOLDEN, inputs=(GoldenTensor("index", "golden/x.npy"),)),
    )
    files = {
        "model.onnx": models.gather(),
        "golden/x.npy": npy(np.array([99])),
        "golden/y.npy": npy(np.zeros(1, np.float32)),
    }
    with pytest.raises(WarmUpFailed):
        load(workshop, manifest, files)


def test_a_model_that_fails_on_zeros_is_let_in_with_a_warning(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    """Zeros are the agent's own idea of an input: nothing says that the model must take them."""
    manifest = replace(
        DOUBLED,
        inputs=(TensorMetadata("place", DataType.INT64, ()),),
        outputs=(TensorMetadata("y", DataType.FLOAT32, ()),),
    )
    loader = ModelLoader(store=workshop.store(), runtimes=Runtimes(RuntimeOptions(threads=1)), memory_reserve_bytes=0)
    folder = workshop.write_folder(workshop.package(manifest, {"model.onnx": models.from_the_end()}))
    session = loader.load(str(folder)).session
    assert [record.message for record in caplog.records] == ["warm_up_failed"]
    (y,) = session.run({"place": np.array(1)})
    assert y == 3


@pytest.mark.parametrize(
    "lie",
    [
        {"inputs": (TensorMetadata("x", DataType.FLOAT32, (1, 5)),)},
        {"inputs": (TensorMetadata("z", DataType.FLOAT32, (1, 4)),)},
        {"outputs": (TensorMetadata("y", DataType.FLOAT64, (1, 4)),)},
    ],
)
def test_a_manifest_that_describes_another_model_is_refused(
    workshop: Workshop, lie: dict[str, tuple[TensorMetadata, ...]]
) -> None:
    """Name, type and shape are the model's own."""
    with pytest.raises(ModelSignatureMismatch):
        load(workshop, replace(DOUBLED, **lie), {"model.onnx": models.doubled()})  # type: ignore[arg-type]  # one field


def test_a_file_that_is_no_model_is_refused(workshop: Workshop) -> None:
    """Signed nonsense is nonsense."""
    with pytest.raises(ModelUnreadable) as caught:
        load(workshop, DOUBLED, {"model.onnx": b"nonsense"})
    assert caught.value.facts["file"] == "model.onnx"


def test_a_format_without_a_runtime_is_refused(workshop: Workshop) -> None:
    """The refusal says what there is."""
    with pytest.raises(FormatUnsupported) as caught:
        load(workshop, replace(DOUBLED, format="tflite"), {"model.onnx": models.doubled()})
    assert caught.value.facts["expected"] == "onnx"


def test_a_model_that_would_eat_into_the_reserve_is_refused_before_it_is_opened(workshop: Workshop) -> None:
    """The kernel would end the agent, and every model with it."""
    with pytest.raises(MemoryShort) as caught:
        load(workshop, DOUBLED, {"model.onnx": models.doubled()}, free_bytes=GIB // 4)
    assert caught.value.facts["reserve_bytes"] == str(GIB // 4)
