"""`bentoml.SyncHTTPClient`, BentoML's own.

Run as `python -m bench.peers.clients.bentoml FOLDER ADDRESS`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import bentoml
import numpy as np

from bench.peers.catalog import Catalog
from bench.peers.driver import Call, drive


class BentoClient:
    """A client, and so a connection that is kept, for each thread."""

    def __init__(self, catalog: Catalog, address: str) -> None:
        self._models = catalog.models
        self._address = address

    def call(self, model: str, _carrier: str) -> Call:
        """Return a call that sends the file of the input."""
        client, file = bentoml.SyncHTTPClient(f"http://{self._address}"), Path(self._models[model].input_path)
        return lambda: client.call(model, file).read_bytes()

    def output(self, answer: Any) -> Any:
        """Return the output in what a call returned."""
        return np.frombuffer(answer, np.float32)

    def request(self, model: str, _carrier: str) -> bytes:
        """Return the array's bytes."""
        return self._models[model].input().tobytes()


if __name__ == "__main__":
    drive(BentoClient(Catalog.read(Path(sys.argv[1])), sys.argv[2]))
