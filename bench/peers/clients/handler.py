"""No server: the agent's own handler, from request bytes to answer bytes, in the calling process.

Run as `python -m bench.peers.clients.handler FOLDER`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from bench.latency import InProcess
from bench.models import Model
from bench.peers.catalog import Catalog
from bench.peers.driver import BYTES, Call, drive
from lightkeeper.transport import agent_pb2 as wire


class Handler:
    """The agent's Predict without gRPC around it."""

    def __init__(self, catalog: Catalog) -> None:
        self._models = {
            name: Model(name, Path(entry.path), entry.shape, entry.output_shape)
            for name, entry in catalog.models.items()
        }
        self._inside = InProcess(self._models, catalog.threads)

    def call(self, model: str, carrier: str) -> Call:
        """Return a call of the handler."""
        if carrier != BYTES:
            raise ValueError(carrier)
        return self._inside.handler(self._models[model])

    def request(self, model: str, _carrier: str) -> bytes:
        """Return a PredictRequest."""
        return self._models[model].request()

    def output(self, answer: bytes) -> np.ndarray:
        """Return the output in an answer."""
        return np.frombuffer(wire.PredictResponse.FromString(answer).tensors[0].byte_data, np.float32)


if __name__ == "__main__":
    drive(Handler(Catalog.read(Path(sys.argv[1]))))
