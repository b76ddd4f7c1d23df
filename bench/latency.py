"""How long Predict takes: through the agent, through the bare server, and without either.

Without either means ONNX Runtime's `session.run` on arrays, and the agent's own handler from request bytes to response
bytes, both in this process: what they leave of the agent's figure is gRPC, the socket and the hand-over of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from bench import load
from bench.bare_server import open_model
from bench.comparison import AGENT, BARE, Comparison, compare
from bench.effort import Effort
from bench.load import Load
from bench.models import Model
from bench.workshop import Server, Workshop
from lightkeeper.client import Client
from lightkeeper.model import ModelDescription, PackageIdentity
from lightkeeper.recent import RecentInputs
from lightkeeper.registry import LoadedModel, Registry
from lightkeeper.runtimes.base import Array, RuntimeOptions
from lightkeeper.runtimes.onnx import SPIN_MICROSECONDS, OnnxRuntime
from lightkeeper.service import AgentService
from lightkeeper.transport import SERVICE
from lightkeeper.transport.method import Caller
from lightkeeper.transport.servicer import Servicer

RUN = "session.run"
HANDLER = "agent's handler"
SHARED_MEMORY = "agent, shared memory"
IN_FLIGHT = 8
H2LOAD = "h2load"
PYTHON = "Python client"

Contestants = dict[str, Callable[[], Load]]


class InProcess:
    """The models in this process: ONNX Runtime alone, and the agent's Predict without gRPC around it."""

    def __init__(self, models: Mapping[str, Model], threads: int) -> None:
        self._threads = threads
        runtime = OnnxRuntime(RuntimeOptions(threads=threads))
        registry = Registry()
        for name, model in models.items():
            session = runtime.open(model.path)
            description = ModelDescription(name, str(model.path), session.inputs, session.outputs)
            registry.publish(
                LoadedModel(description, PackageIdentity(name, "1.0", digest=""), session, RecentInputs(16))
            )
        unused: Any = SimpleNamespace(sampling=None)  # Predict loads nothing, and no rule looks at it
        service = AgentService(registry=registry, models=unused, captures=unused)
        self._predict = Servicer(service).methods()[f"/{SERVICE}/Predict"].handler

    def run(self, model: Model) -> Callable[[], list[Array]]:
        """Return a call of ONNX Runtime on arrays."""
        session = open_model(str(model.path), self._threads, SPIN_MICROSECONDS)
        feed = {"x": model.input()}
        return lambda: cast("list[Array]", session.run(None, feed))

    def handler(self, model: Model) -> Callable[[], bytes]:
        """Return a call of the agent's handler on bytes."""
        request, caller = model.request(), Caller(uid=None)
        return lambda: self._predict(request, caller)


def measure(workshop: Workshop, effort: Effort) -> Iterator[Comparison]:
    """Measure both models with every client, alone and eight at a time."""
    inside = InProcess(workshop.models, workshop.threads)
    with ExitStack() as stack:
        agent = stack.enter_context(workshop.agent())
        bare = stack.enter_context(workshop.bare_server(("small", "image")))
        clients = {
            AGENT: stack.enter_context(Client(str(agent.address), shared_memory_above_bytes=None)),
            BARE: stack.enter_context(Client(str(bare.address), shared_memory_above_bytes=None)),
            SHARED_MEMORY: stack.enter_context(Client(str(agent.address))),
        }
        for name, calls in (("small", effort.small_calls), ("image", effort.image_calls)):
            model = workshop.models[name]
            clients[AGENT].load_model(workshop.packages[name], name)
            _check(model, inside, clients)
            shared = name == "image"
            for in_flight in (1, IN_FLIGHT):
                floor = _inside(model, inside, calls, in_flight)
                if load.has_h2load():
                    with ExitStack() as segments:
                        servers = _by_h2load(model, agent, bare, calls, in_flight)
                        if shared:
                            request = segments.enter_context(model.shared_memory_request())
                            servers[SHARED_MEMORY] = _h2load(agent, model, request, calls, in_flight)
                        yield compare(name, H2LOAD, in_flight, {**floor, **servers}, effort.rounds)
                servers = _by_python(model, clients, calls, in_flight)
                if not shared:
                    del servers[SHARED_MEMORY]
                yield compare(name, PYTHON, in_flight, servers, effort.rounds)


def _inside(model: Model, inside: InProcess, calls: int, in_flight: int) -> Contestants:
    return {
        name: lambda call=call: load.in_threads(call, calls, in_flight)  # type: ignore[misc]  # a default binds it now
        for name, call in ((RUN, inside.run(model)), (HANDLER, inside.handler(model)))
    }


def _by_h2load(model: Model, agent: Server, bare: Server, calls: int, in_flight: int) -> Contestants:
    request = model.request()
    return {
        BARE: _h2load(bare, model, request, calls, in_flight),
        AGENT: _h2load(agent, model, request, calls, in_flight),
    }


def _h2load(server: Server, model: Model, request: bytes, calls: int, in_flight: int) -> Callable[[], Load]:
    def run() -> Load:
        before = server.processor_seconds()
        found = load.h2load(server.address, request, model.response_bytes(), calls=calls, in_flight=in_flight)
        return replace(found, processor_us=(server.processor_seconds() - before) / calls * 1e6)

    return run


def _by_python(model: Model, clients: dict[str, Client], calls: int, in_flight: int) -> Contestants:
    array = model.input()

    def calling(client: Client) -> Callable[[], Load]:
        return lambda: load.in_threads(lambda: client.predict(model.name, {"x": array}), calls, in_flight)

    return {name: calling(client) for name, client in clients.items()}


def _check(model: Model, inside: InProcess, clients: dict[str, Client]) -> None:
    """See that all contestants give the same answer before any of them is measured."""
    expected = inside.run(model)()
    for name in (AGENT, BARE):
        answer = clients[name].predict(model.name, {"x": model.input()})
        if not np.allclose(answer["y"], expected[0], rtol=1e-5):
            raise RuntimeError(f"the {name} answers model {model.name} differently from ONNX Runtime")
