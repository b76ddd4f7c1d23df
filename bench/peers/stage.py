"""A contestant that is up: its server's process and its client's, and a request that h2load can send."""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import IO, Any, Self, cast

import grpc

from bench import load
from bench.load import GRPC_PREFIX, Load, Prepared
from bench.peers.contestants import Contestant, Scene
from bench.peers.driver import BYTES
from bench.workshop import REPOSITORY, STOP_SECONDS, Memory, Server, memory_of

FIRST_ANSWER_SECONDS = 60.0
RETRY_SECONDS = 0.002


class Driver:
    """A contestant's client process; see `bench.peers.driver`."""

    def __init__(self, contestant: Contestant, scene: Scene, server: Server | None) -> None:
        command = [contestant.python, "-m", f"bench.peers.clients.{contestant.client}", str(scene.folder)]
        if server:
            command.append(server.target)
        self._log = scene.folder / f"client-{contestant.client}.log"
        self._name = contestant.name
        with self._log.open("ab") as said:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, cwd=REPOSITORY, stdin=pipe, stdout=pipe, stderr=said, text=True)
        self._jobs, self._answers = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)

    def ask(self, **job: Any) -> dict[str, Any]:
        """Have a job done. Raises `RuntimeError` where the client failed."""
        self._jobs.write(json.dumps(job) + "\n")
        self._jobs.flush()
        line = self._answers.readline()
        answer = json.loads(line) if line else {"error": f"its client ended:\n{self._log.read_text()[-2000:]}"}
        if "error" in answer:
            raise RuntimeError(f"{self._name}, {job}: {answer['error']}")
        return dict(answer)

    def memory(self) -> Memory:
        """Return the client's own memory."""
        return memory_of(self._process.pid)

    def stop(self) -> None:
        """End the process."""
        self._jobs.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()


class Running:
    """A contestant with the models of these names."""

    def __init__(self, contestant: Contestant, scene: Scene, names: Sequence[str]) -> None:
        """Start it, and return once it can be asked."""
        self.contestant = contestant
        self._scene = scene
        self._requests: dict[tuple[str, str], Prepared] = {}
        self.server = contestant.start(scene, names)
        try:
            if self.server:
                self.server.wait_for_socket()
                contestant.prepare(scene, self.server, names)
            self.driver = Driver(contestant, scene, self.server)
        except BaseException:
            if self.server:
                self.server.stop()
            raise

    @property
    def served(self) -> Server:
        """The server's process, of a contestant that has one."""
        if self.server is None:
            raise ValueError(f"{self.contestant.name} has no server")
        return self.server

    def request(self, model: str, carrier: str) -> Prepared:
        """Return what h2load is to send; a first answer has told the size of all of them."""
        key = (model, carrier)
        if key not in self._requests:
            request = self.contestant.message(self.served, model, self.body(model, carrier))
            self._requests[key] = answered(request, self.served)
        return self._requests[key]

    def body(self, model: str, carrier: str) -> bytes:
        """Return the body of a request, as the usual client makes it."""
        return base64.b64decode(self.driver.ask(do="request", model=model, carrier=carrier)["request"])

    def answer(self, model: str, carrier: str) -> list[float]:
        """Return the output for the model's input, by the usual client, as soon as the model answers."""
        deadline = time.perf_counter() + FIRST_ANSWER_SECONDS
        while True:
            try:
                return list(self.driver.ask(do="answer", model=model, carrier=carrier)["answer"])
            except RuntimeError:
                if time.perf_counter() > deadline:
                    raise
                time.sleep(0.1)

    def by_client(self, model: str, carrier: str, in_flight: int) -> Callable[[int], Load]:
        """Return a way to call so many times with the usual client."""

        def run(calls: int) -> Load:
            return Load(**self.driver.ask(do="load", model=model, carrier=carrier, in_flight=in_flight, calls=calls))

        return run

    def by_h2load(self, model: str, carrier: str, in_flight: int) -> Callable[[int], Load]:
        """Return a way to call so many times with h2load."""
        request, server = self.request(model, carrier), self.served

        def run(calls: int) -> Load:
            before = server.processor_seconds()
            found = load.send(request, calls=calls, in_flight=in_flight)
            return replace(found, processor_us=(server.processor_seconds() - before) / calls * 1e6)

        return run

    def memory(self) -> Memory:
        """Return what the server holds; without one, what the calling process does."""
        return self.server.memory() if self.server else self.driver.memory()

    def stop(self) -> None:
        """End both processes."""
        self.driver.stop()
        if self.server:
            self.server.stop()


def answered(request: Prepared, server: Server) -> Prepared:
    """Return the request with the size of its answer, known from a first one."""
    return replace(request, answer_bytes=len(first_answer(request, server)))


def first_answer(request: Prepared, server: Server) -> bytes:
    """Send a request until it is answered; return the answer's body as it is on the wire.

    Raises `RuntimeError` with the last refusal.
    """
    deadline = time.perf_counter() + FIRST_ANSWER_SECONDS
    with _Asker(request) as asker:
        while True:
            try:
                return asker.ask()
            except (grpc.RpcError, OSError, http.client.HTTPException, _RefusedError) as refusal:
                if time.perf_counter() > deadline:
                    raise RuntimeError(f"{request.path} is not answered: {refusal}\n{server.log_end()}") from refusal
                time.sleep(RETRY_SECONDS)


class _RefusedError(Exception):
    """An HTTP status that is not 200."""


class _Asker:
    """A connection to a server that sends one prepared request."""

    def __init__(self, request: Prepared) -> None:
        self._request = request
        self._channel = None if request.http1 else grpc.insecure_channel(request.address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._channel:
            self._channel.close()

    def ask(self) -> bytes:
        """Send it once."""
        request = self._request
        if self._channel:
            message: bytes = self._channel.unary_unary(request.path, None, None)(
                request.body[GRPC_PREFIX.size :], timeout=10
            )
            return GRPC_PREFIX.pack(0, len(message)) + message
        connection = http.client.HTTPConnection(request.address, timeout=10)
        try:
            connection.request("POST", request.path, request.body, request.headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise _RefusedError(f"{answer.status} {body[:300]!r}")
        return body


def check(running: Running, expected: dict[str, list[float]]) -> None:
    """See that a contestant gives ONNX Runtime's answers, by its usual client, however the input travels."""
    import numpy as np

    for model, wanted in expected.items():
        for carrier in running.contestant.carriers:
            if carrier != BYTES and model == "small":
                continue
            answer = running.answer(model, carrier)
            if len(answer) != len(wanted) or not np.allclose(answer, wanted, rtol=1e-3, atol=1e-4):
                raise RuntimeError(f"{running.contestant.name} answers model {model} by {carrier} wrongly")
