"""A client process: takes jobs as lines of JSON on its standard input, and answers each with a line of JSON.

It stays up for the whole run, so that no job pays for its start. It has one call a thread, and so a connection or a
piece of shared memory a thread where a client needs one.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol

from bench.load import together

BYTES = "bytes"
SHARED_MEMORY = "shared memory"

Call = Callable[[], Any]
"""Sends the model's input once and returns the answer, as `Client.output` takes it."""


class Client(Protocol):
    """What a contestant's client has to offer."""

    def call(self, model: str, carrier: str) -> Call:
        """Return a call for one thread; `carrier` says how the input travels."""

    def output(self, answer: Any) -> Any:
        """Return the output in what a call returned, an array."""

    def request(self, model: str, carrier: str) -> bytes:
        """Return the body that such a call sends; shared memory that it names stays until the process ends."""


def drive(client: Client) -> None:
    """Do jobs until the standard input ends."""
    calls: dict[tuple[str, str], list[Call]] = {}
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer = _do(client, calls, job)
        except Exception as error:  # noqa: BLE001 -- the harness says which job failed, and why
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _do(client: Client, calls: dict[tuple[str, str], list[Call]], job: dict[str, Any]) -> dict[str, Any]:
    model, carrier = job["model"], job["carrier"]
    if job["do"] == "request":
        return {"request": base64.b64encode(client.request(model, carrier)).decode()}
    ready = calls.setdefault((model, carrier), [])
    in_flight = job.get("in_flight", 1)
    while len(ready) < in_flight:
        ready.append(client.call(model, carrier))
    if job["do"] == "answer":
        return {"answer": [float(value) for value in client.output(ready[0]()).ravel()]}
    return asdict(together(ready[:in_flight], job["calls"]))
