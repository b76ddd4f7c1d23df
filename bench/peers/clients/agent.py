"""`lightkeeper.client`, for the agent and for the bare grpcio servers that speak its protocol.

Run as `python -m bench.peers.clients.agent FOLDER ADDRESS`.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.models import Model
from bench.peers.catalog import Catalog
from bench.peers.driver import BYTES, Call, drive
from lightkeeper.client import Client


class AgentClient:
    """One client for each carrier, used by all threads."""

    def __init__(self, catalog: Catalog, address: str, stack: ExitStack) -> None:
        self._models = catalog.models
        self._address = address
        self._stack = stack
        self._clients: dict[str, Client] = {}

    def call(self, model: str, carrier: str) -> Call:
        """Return a call of `Client.predict`."""
        if carrier not in self._clients:
            sharing = {"shared_memory_above_bytes": None} if carrier == BYTES else {}
            self._clients[carrier] = self._stack.enter_context(Client(self._address, **sharing))
        client, array = self._clients[carrier], self._models[model].input()
        return lambda: client.predict(model, {"x": array})

    def output(self, answer: Any) -> Any:
        """Return the output in what a call returned."""
        return answer["y"]

    def request(self, model: str, carrier: str) -> bytes:
        """Return a PredictRequest."""
        entry = self._models[model]
        prepared = Model(model, Path(entry.path), entry.shape, entry.output_shape)
        if carrier == BYTES:
            return prepared.request()
        return self._stack.enter_context(prepared.shared_memory_request())


if __name__ == "__main__":
    with ExitStack() as stack:
        drive(AgentClient(Catalog.read(Path(sys.argv[1])), sys.argv[2], stack))
