"""The models of a run, in a folder: how a process in any virtual environment learns of them and of their inputs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

FILE = "catalog.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """A model under its name: one input `x` and one output `y` of floats, and what every client sends."""

    name: str
    path: str
    shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    input_path: str

    def input(self) -> Any:
        """Return the input, an array of float32 of the model's shape."""
        return np.fromfile(self.input_path, np.float32).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Models by name, and how ONNX Runtime is set up for all of them."""

    models: dict[str, Entry]
    threads: int
    spin_microseconds: int

    def write(self, folder: Path) -> None:
        """Write it for `read`."""
        (folder / FILE).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Catalog:
        """Return what was written into a folder."""
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        entries = {
            name: Entry(**entry | {key: tuple(entry[key]) for key in ("shape", "output_shape")})
            for name, entry in found["models"].items()
        }
        return cls(entries, found["threads"], found["spin_microseconds"])

    def open(self, name: str) -> Any:
        """Return a session of ONNX Runtime, set up as the agent's are (docs/adr/0003-onnx-runtime-settings.md)."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(self.spin_microseconds))
        return onnxruntime.InferenceSession(self.models[name].path, options, providers=["CPUExecutionProvider"])
