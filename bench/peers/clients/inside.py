"""No server: ONNX Runtime's `session.run` in the calling process.

Run as `python -m bench.peers.clients.inside FOLDER`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bench.peers.catalog import Catalog
from bench.peers.driver import BYTES, Call, drive


class Inside:
    """The models, opened once for all threads, as a server does."""

    def __init__(self, catalog: Catalog) -> None:
        self._models = catalog.models
        self._sessions = {name: catalog.open(name) for name in catalog.models}

    def call(self, model: str, carrier: str) -> Call:
        """Return a call of `session.run` on arrays."""
        if carrier != BYTES:
            raise ValueError(carrier)
        session, feed = self._sessions[model], {"x": self._models[model].input()}
        return lambda: session.run(None, feed)

    def output(self, answer: Any) -> Any:
        """Return the output in what a call returned."""
        return answer[0]

    def request(self, model: str, carrier: str) -> bytes:
        """There is nothing to send."""
        raise NotImplementedError(model, carrier)


if __name__ == "__main__":
    drive(Inside(Catalog.read(Path(sys.argv[1]))))
