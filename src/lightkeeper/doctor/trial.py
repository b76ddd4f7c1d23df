"""A model of one multiplication, opened and run as the agent does: what runs models works here, or it does not."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

SIDE = 8
MODEL = (
    b'\x08\x07:@\n\x11\n\x01x\n\x01x\x12\x01y"\x06MatMul\x12\x01tZ\x13\n\x01x\x12\x0e\n\x0c\x08\x01\x12\x08\n\x02\x08'
    b"\x08\n\x02\x08\x08b\x13\n\x01y\x12\x0e\n\x0c\x08\x01\x12\x08\n\x02\x08\x08\n\x02\x08\x08B\x04\n\x00\x10\r"
)
"""In ONNX: `y = MatMul(x, x)` for `x` of FLOAT32[8, 8], opset 13."""


def run() -> str:
    """Return what the trial used. Raises whatever keeps it from working."""
    from lightkeeper.runtimes.base import RuntimeOptions
    from lightkeeper.runtimes.onnx import OnnxRuntime, library

    with tempfile.TemporaryDirectory(prefix="lightkeeper-doctor-") as folder:
        file = Path(folder) / "trial.onnx"
        file.write_bytes(MODEL)
        session = OnnxRuntime(RuntimeOptions(threads=1)).open(file)
        (given,) = session.run({"x": np.ones((SIDE, SIDE), np.float32)})
        session.close()
    if not np.array_equal(given, np.full((SIDE, SIDE), SIDE, np.float32)):
        raise ArithmeticError(f"the processor computes a wrong product: {given.ravel()[:4]}")
    return f"ONNX Runtime {library().__version__}, numpy {np.__version__}"
