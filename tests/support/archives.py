"""What is done with a built archive wherever it is tried: its platform, a device's files, and the old client's demo."""

from __future__ import annotations

import json
import platform as this
from collections.abc import Callable
from pathlib import Path

import numpy as np

from release.platforms import PLATFORMS, Platform

PICTURE = (48, 192)
"""What the orientation model takes: height, width."""

DEMO_CAPTURES = 2
"""How many of the demo's four predictions are captured."""


def here() -> Platform:
    """Return this machine's platform."""
    return next(platform for platform in PLATFORMS.values() if platform.machine == this.machine())


def orientation() -> Path:
    """Return a model that tells whether a line of text stands on its head."""
    import rapidocr

    return Path(rapidocr.__file__).parent / "models" / "ch_ppocr_mobile_v2.0_cls_mobile.onnx"


def write_configuration(folder: Path, place: str, **more: object) -> str:
    """Write `agent.json` into a device's folder, which is `place` to the agent, and return its path there."""
    keys = {
        "sagemaker_edge_core_device_name": "cam-1",
        "sagemaker_edge_core_device_fleet_name": "yard",
        "sagemaker_edge_core_root_certs_path": f"{place}/certs",
        "sagemaker_edge_provider_provider": "None",
        "sagemaker_edge_core_capture_data_disk_path": f"{place}/captures",
        "sagemaker_edge_core_capture_data_batch_size": 1,
        "sagemaker_edge_local_data_root_path": f"{place}/state",
    }
    kept = {key: value for key, value in (keys | more).items() if value is not None}
    (folder / "agent.json").write_text(json.dumps(kept))
    return f"{place}/agent.json"


def demo(run: Callable[..., str], device: Path, client: str, name: str) -> None:
    """Load, describe, predict by bytes and by shared memory, capture; the answers are those of the model alone."""
    run(client, "LoadModel", "/device/orientation-1.0.tar.gz", name)
    assert "Input x FLOAT32 [-1, 3, -1, -1]" in run(client, "DescribeModel", name)
    for command in ("Predict", "PredictSHM", "PredictAndCapture", "PredictSHMAndCapture"):
        ask(run, device, client, command, name)
    assert "has been unloaded" in run(client, "UnloadModel", name)


def ask(run: Callable[..., str], device: Path, client: str, command: str, name: str) -> None:
    """Run a model on the device's picture by one of the client's commands; the answer is that of the model alone."""
    said = run(client, command, name, "/device/line.bmp", "x", "48", "192", "3")
    numbers = [float(word) for word in said.strip().splitlines()[-1].split()]
    assert np.allclose(numbers, expected(device), rtol=1e-3, atol=1e-5), command


def expected(device: Path) -> np.ndarray:
    """Return what the model gives for the picture in this process, without Lightkeeper."""
    import onnxruntime

    outputs: list[np.ndarray] = onnxruntime.InferenceSession(orientation()).run(None, {"x": picture(device)})
    return outputs[0].ravel()


def picture(device: Path) -> np.ndarray:
    """Return the picture as the example client sends it."""
    pixels = np.frombuffer((device / "line.bmp").read_bytes(), np.uint8, offset=54).reshape(-1, 3)[:, ::-1]
    height, width = PICTURE
    return pixels.astype(np.float32).reshape(1, 3, height, width)
