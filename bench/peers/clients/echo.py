"""grpcio, for the C++ echo: it sends the agent's request and takes whatever comes back.

Run as `python -m bench.peers.clients.echo FOLDER ADDRESS`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from bench.load import PREDICT
from bench.models import Model
from bench.peers.catalog import Catalog
from bench.peers.driver import Call, drive


class EchoClient:
    """One channel, used by all threads."""

    def __init__(self, catalog: Catalog, address: str) -> None:
        self._models = catalog.models
        self._channel = grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)])

    def call(self, model: str, carrier: str) -> Call:
        """Return a call that sends a prepared request."""
        request, predict = self.request(model, carrier), self._channel.unary_unary(PREDICT)
        return lambda: predict(request)

    def output(self, answer: Any) -> Any:
        """Return the output in what a call returned."""
        return np.frombuffer(answer, np.uint8)

    def request(self, model: str, _carrier: str) -> bytes:
        """Return a PredictRequest."""
        entry = self._models[model]
        return Model(model, Path(entry.path), entry.shape, entry.output_shape).request()


if __name__ == "__main__":
    drive(EchoClient(Catalog.read(Path(sys.argv[1])), sys.argv[2]))
