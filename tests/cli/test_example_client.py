"""The old agent's example client: its commands, arguments and words, against a real agent."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lightkeeper.client import Client
from tests.conftest import PackageFactory
from tests.support import models
from tests.support.agents import AgentProcess

WIDTH, HEIGHT = 4, 2
VALUES = np.arange(24, dtype=np.uint8)


def run(agent: AgentProcess, *words: str, code: int = 0) -> str:
    """Run the client and return what it says."""
    program = Path(sys.executable).with_name("sagemaker_edge_agent_client_example")
    environment = os.environ | {"LIGHTKEEPER_ADDRESS": agent.address}
    done = subprocess.run([program, *words], capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def bitmap(tmp_path: Path) -> Path:
    """A bitmap of 4 x 2 pixels with the values 0 to 23, blue first, as bitmaps have them."""
    path = tmp_path / "picture.bmp"
    header = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54 + 24, 0, 0, 54, 40, WIDTH, HEIGHT, 1, 24, 0, 24, 0, 0, 0, 0)
    path.write_bytes(header + VALUES.tobytes())
    return path


@pytest.fixture
def loaded(client: Client, make_package: PackageFactory) -> str:
    """A model of FLOAT32[1, 3, 4, 2] that doubles its input, loaded under a name."""
    client.load_model(str(make_package(models.doubled((1, 3, WIDTH, HEIGHT)))), "picture")
    return "picture"


def test_a_models_life_in_the_old_words(agent: AgentProcess, client: Client, doubled_package: Path) -> None:
    """Load, list, describe, unload."""
    assert client.list_models() == []
    said = run(agent, "LoadModel", str(doubled_package), "m")
    assert said == f"Model m located at  {doubled_package} loaded\nLoadModel succeeded\n"
    assert run(agent, "ListModels") == "There are 1 models\nModel 0  m\nListModels succeeded\n"
    assert "Input x FLOAT32 [1, 4]" in run(agent, "DescribeModel", "m")
    assert run(agent, "UnloadModel", "m") == "Model m has been unloaded\nUnLoadModel succeeded\n"


@pytest.mark.parametrize("command", ["Predict", "PredictSHM", "PredictAndCapture", "PredictSHMAndCapture"])
def test_a_bitmap_is_predicted(agent: AgentProcess, loaded: str, bitmap: Path, command: str) -> None:
    """Red before blue, each value doubled; by bytes and by shared memory, with a capture and without."""
    said = run(agent, command, loaded, str(bitmap), "x", "4", "2", "3").splitlines()
    rgb = VALUES.reshape(-1, 3)[:, ::-1].ravel()
    assert said[:2] == ["Done reading the image", "Predict succeeded"]
    assert said[-2:] == ["Flattened RAW Output Tensor:1", " ".join(str(2 * value) for value in rgb.tolist())]
    assert ("CaptureData succeeded" in said) == command.endswith("AndCapture")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "Usage: ./client [command_name]"),
        (("Ping",), "command Ping not valid"),
        (("Predict", "m"), "./client Predict [model_name] [input_bmp_image] [input_name] [w] [h] [c]"),
    ],
)
def test_words_that_are_no_command_are_explained(agent: AgentProcess, words: tuple[str, ...], text: str) -> None:
    """With exit code 2."""
    assert text in run(agent, *words, code=2)


def test_what_cannot_be_done_ends_with_a_reason(agent: AgentProcess, loaded: str, bitmap: Path) -> None:
    """A model that is not there, a picture of another size, a file that is no bitmap, a word that is no number."""
    picture = str(bitmap)
    assert "MODEL_NOT_FOUND" in run(agent, "Predict", "nobody", picture, "x", "4", "2", "3", code=1)
    assert "has 24 values, not 8 x 2 x 3" in run(agent, "Predict", loaded, picture, "x", "8", "2", "3", code=1)
    assert "is no bitmap" in run(agent, "Predict", loaded, __file__, "x", "4", "2", "3", code=1)
    assert "is no whole number" in run(agent, "Predict", loaded, picture, "x", "four", "2", "3", code=1)
