"""Triton's Python model that calls ONNX Runtime, copied into the model repository of each model.

Triton finds it by its path and runs it with its own stub; the catalog's folder is a parameter of the model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as triton

from bench.peers.catalog import Catalog


class TritonPythonModel:
    """One instance of the model."""

    def initialize(self, arguments: dict[str, str]) -> None:
        """Open the model."""
        settings = json.loads(arguments["model_config"])
        catalog = Catalog.read(Path(settings["parameters"]["folder"]["string_value"]))
        self._session = catalog.open(settings["name"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests one by one: nobody batches."""
        answers = []
        for request in requests:
            x = triton.get_input_tensor_by_name(request, "x").as_numpy()
            (y,) = self._session.run(None, {"x": x})
            answers.append(triton.InferenceResponse([triton.Tensor("y", y)]))
        return answers
