"""`tritonclient.grpc`, for Triton and for MLServer, which name it as their client.

Run as `python -m bench.peers.clients.kserve FOLDER ADDRESS`, in the virtual environment of either. Tensors travel as
raw bytes (`raw_input_contents`), or lie in the server's system shared memory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tritonclient import grpc as triton
from tritonclient.grpc._utils import _get_inference_request
from tritonclient.utils import shared_memory

from bench.peers.catalog import Catalog
from bench.peers.driver import SHARED_MEMORY, Call, drive


class KServeClient:
    """One client, used by all threads, each with a shared memory region of its own."""

    def __init__(self, catalog: Catalog, address: str, stack: ExitStack) -> None:
        self._models = catalog.models
        self._client = triton.InferenceServerClient(address)
        self._stack = stack
        self._regions = 0

    def call(self, model: str, carrier: str) -> Call:
        """Return a call of `infer`, which hands the array over anew each time."""
        fill = self._fill(model, carrier)
        wanted = [triton.InferRequestedOutput("y")]
        return lambda: self._client.infer(model, [fill()], outputs=wanted)

    def output(self, answer: Any) -> Any:
        """Return the output in what a call returned."""
        return answer.as_numpy("y")

    def request(self, model: str, carrier: str) -> bytes:
        """Return a ModelInferRequest."""
        wanted = [triton.InferRequestedOutput("y")]
        prepared = _get_inference_request(
            inputs=[self._fill(model, carrier)()],
            model_name=model,
            model_version="",
            outputs=wanted,
            request_id="",
            sequence_id=0,
            sequence_start=False,
            sequence_end=False,
            priority=0,
            timeout=None,
            parameters=None,
        )
        return prepared.SerializeToString()

    def _fill(self, model: str, carrier: str) -> Callable[[], Any]:
        array = self._models[model].input()
        return self._sharing(array) if carrier == SHARED_MEMORY else lambda: _with_bytes(array)

    def _sharing(self, array: Any) -> Callable[[], Any]:
        self._regions += 1
        name = f"bench-{os.getpid()}-{self._regions}"
        region = shared_memory.create_shared_memory_region(name, name, array.nbytes)
        self._stack.callback(shared_memory.destroy_shared_memory_region, region)
        self._client.register_system_shared_memory(name, name, array.nbytes)

        def fill() -> Any:
            shared_memory.set_shared_memory_region(region, [array])
            tensor = triton.InferInput("x", array.shape, "FP32")
            tensor.set_shared_memory(name, array.nbytes)
            return tensor

        return fill


def _with_bytes(array: Any) -> Any:
    tensor = triton.InferInput("x", array.shape, "FP32")
    tensor.set_data_from_numpy(array)
    return tensor


if __name__ == "__main__":
    with ExitStack() as stack:
        drive(KServeClient(Catalog.read(Path(sys.argv[1])), sys.argv[2], stack))
