"""`requests`, which LitServe's documentation calls it with.

Run as `python -m bench.peers.clients.litserve FOLDER ADDRESS`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import requests

from bench.peers.catalog import Catalog
from bench.peers.driver import Call, drive

HEADERS = {"content-type": "application/octet-stream"}


class HttpClient:
    """A session, and so a connection that is kept, for each thread."""

    def __init__(self, catalog: Catalog, address: str) -> None:
        self._models = catalog.models
        self._address = address

    def call(self, model: str, _carrier: str) -> Call:
        """Return a call that posts the array's bytes."""
        array, session, url = self._models[model].input(), requests.Session(), f"http://{self._address}/{model}"
        session.trust_env = False

        def call() -> bytes:
            answer = session.post(url, data=array.tobytes(), headers=HEADERS)
            answer.raise_for_status()
            return answer.content

        return call

    def output(self, answer: Any) -> Any:
        """Return the output in what a call returned."""
        return np.frombuffer(answer, np.float32)

    def request(self, model: str, _carrier: str) -> bytes:
        """Return the array's bytes."""
        return self._models[model].input().tobytes()


if __name__ == "__main__":
    drive(HttpClient(Catalog.read(Path(sys.argv[1])), sys.argv[2]))
