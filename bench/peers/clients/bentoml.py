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
from bench.peers.form import FORM_END, FORM_START


class BentoClient:
    """A client, and so a connection that is kept, for each thread."""

    def __init__(self, catalog: Catalog, address: str) -> None:
        self._models = catalog.models
        self._address = address

    def call(self, model: str, _carrier: str) -> Call:
        """Return a call that sends the file of the input."""
        client, file = bentoml.SyncHTTPClient(f"http://{self._address}"), Path(self._models[model].input_path)
        return lambda: client.call(model, x=file).read_bytes()

    def output(self, answer: Any) -> Any:
        """Return the output in what a call returned."""
        return np.frombuffer(answer, np.float32)

    def request(self, model: str, _carrier: str) -> bytes:
        """Return a form with the array's bytes as a file."""
        array = self._models[model].input()
        return FORM_START + array.tobytes() + FORM_END


if __name__ == "__main__":
    drive(BentoClient(Catalog.read(Path(sys.argv[1])), sys.argv[2]))
