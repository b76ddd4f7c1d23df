"""Who is measured: how each is started, where its client lies, what h2load sends it, and what a reader must know of it.

Each peer is set up as its documentation says is fast on few processors; where that left a choice, it was measured.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.load import PREDICT, Prepared
from bench.models import Model
from bench.peers import setup
from bench.peers.catalog import Catalog, Entry
from bench.peers.driver import BYTES, SHARED_MEMORY
from bench.peers.form import FORM_HEADERS
from bench.workshop import Server, Workshop
from lightkeeper.agent import transports
from lightkeeper.client import Client
from lightkeeper.config.values import Transport

INSIDE = "session.run, in process"
HANDLER = "Lightkeeper's handler, in process"
ECHO = "C++ echo"
NATIVE = "Lightkeeper, native wire"
GRPCIO = "Lightkeeper, grpcio"
SYNC = "grpcio, sync"
ASYNCIO = "grpcio, asyncio"
TRITON = "Triton"
MLSERVER = "MLServer"
LITSERVE = "LitServe"
BENTOML = "BentoML"

INFER = "/inference.GRPCInferenceService/ModelInfer"
RAW_HEADERS = {"content-type": "application/octet-stream"}


@dataclass(frozen=True, slots=True)
class Scene:
    """What contestants are started with."""

    folder: Path
    catalog: Catalog
    workshop: Workshop


Start = Callable[[Scene, Sequence[str]], Server | None]


@dataclass(frozen=True, slots=True)
class Contestant:
    """One of those who are measured.

    `start` gives the server's process with the models of these names, or None where there is no server; `prepare` is
    what must be done once its socket is served. `message` makes what h2load sends out of a request's body; its answer's
    size is not known yet.
    """

    name: str
    about: str
    client: str
    start: Start
    prepare: Callable[[Scene, Server, Sequence[str]], None] = lambda _scene, _server, _names: None
    message: Callable[[Server, str, bytes], Prepared] = lambda _server, _model, _body: _nothing()
    carriers: tuple[str, ...] = (BYTES,)
    python: str = sys.executable
    peer: str | None = None
    package: str | None = None

    def version(self) -> str | None:
        """Return a peer's version, and that of its own ONNX Runtime."""
        if self.peer is None:
            return None
        if self.package is None:
            return setup.version_of_grpc()
        return " and ".join(setup.version_of(self.peer, name) for name in (self.package, "onnxruntime"))

    def reason_to_skip(self) -> str | None:
        """Return why it cannot be measured here, or None."""
        if self.name == NATIVE and transports.chosen(Transport.AUTO) is not Transport.NATIVE:
            return "the native wire is not installed (it needs cargo: make setup)"
        return setup.reason(self.peer) if self.peer else None


def _nothing() -> Prepared:
    raise ValueError("there is no server to send a request to")


def _predict(server: Server, _model: str, body: bytes) -> Prepared:
    return Prepared.grpc(server.target, PREDICT, body, 0)


def _infer(server: Server, _model: str, body: bytes) -> Prepared:
    return Prepared.grpc(server.target, INFER, body, 0)


def _post(server: Server, model: str, body: bytes) -> Prepared:
    return Prepared(server.target, f"/{model}", body, 0, RAW_HEADERS, http1=True)


def _upload(server: Server, model: str, body: bytes) -> Prepared:
    return Prepared(server.target, f"/{model}", body, 0, FORM_HEADERS, http1=True)


def _start_agent(transport: Transport) -> Callable[[Scene, Sequence[str]], Server]:
    def start(scene: Scene, _names: Sequence[str]) -> Server:
        return scene.workshop.start_agent(transport)

    return start


def _load_models(scene: Scene, server: Server, names: Sequence[str]) -> None:
    with Client(str(server.address)) as client:
        for name in names:
            client.load_model(scene.workshop.packages[name], name)


def _start_grpcio(module: str) -> Callable[[Scene, Sequence[str]], Server]:
    def start(scene: Scene, names: Sequence[str]) -> Server:
        address = scene.folder / f"{module}.sock"
        address.unlink(missing_ok=True)
        catalog = scene.catalog
        command = [sys.executable, "-m", module, str(address), str(catalog.threads), str(catalog.spin_microseconds)]
        command += [str(scene.workshop.workers), *(f"{name}={catalog.models[name].path}" for name in names)]
        return Server(command, address, scene.folder / f"{module}.log")

    return start


def start_echo(way: str, threads: int) -> Start:
    """Return how the echo is started; `way` is gRPC's sync, async or callback API."""

    def start(scene: Scene, _names: Sequence[str]) -> Server:
        address = scene.folder / f"echo-{way}-{threads}.sock"
        address.unlink(missing_ok=True)
        command = [str(setup.ECHO), way, f"unix:{address}", str(threads)]
        return Server(command, address, scene.folder / "echo.log")

    return start


TRITON_MODEL = """\
name: "{name}"
backend: "python"
max_batch_size: 0
input [{{ name: "x" data_type: TYPE_FP32 dims: {shape} }}]
output [{{ name: "y" data_type: TYPE_FP32 dims: {output_shape} }}]
instance_group [{{ kind: KIND_CPU count: {count} }}]
parameters {{ key: "folder" value: {{ string_value: "{folder}" }} }}
"""


def start_triton(instances: int) -> Start:
    """Return how Triton is started, with so many instances of each model."""

    def start(scene: Scene, names: Sequence[str]) -> Server:
        repository = scene.folder / "triton"
        shutil.rmtree(repository, ignore_errors=True)
        for name in names:
            entry = scene.catalog.models[name]
            version = repository / name / "1"
            version.mkdir(parents=True)
            shutil.copy(Path(__file__).parent / "servers" / "triton_model.py", version / "model.py")
            settings = TRITON_MODEL.format(
                name=name,
                shape=list(entry.shape),
                output_shape=list(entry.output_shape),
                count=instances,
                folder=scene.folder,
            )
            (repository / name / "config.pbtxt").write_text(settings)
        port, server = free_port(), setup.triton_folder()
        command = [str(server / "bin" / "tritonserver"), f"--model-repository={repository}"]
        command += [f"--backend-directory={server / 'backends'}", "--allow-http=false", "--allow-metrics=false"]
        command += ["--grpc-address=127.0.0.1", f"--grpc-port={port}", "--disable-auto-complete-config"]
        command += ["--log-info=false", "--exit-timeout-secs=2"]
        return Server(
            command,
            scene.folder / "unused",
            scene.folder / "triton.log",
            port=port,
            environment={"PATH": f"{setup.python_of('triton').parent}:{os.environ['PATH']}", **_ON_PATH},
        )

    return start


def start_mlserver(workers: int) -> Start:
    """Return how MLServer is started; without workers, models run in the process that serves."""

    def start(scene: Scene, names: Sequence[str]) -> Server:
        folder = scene.folder / "mlserver"
        shutil.rmtree(folder, ignore_errors=True)
        port, others = free_port(), [free_port(), free_port()]
        folder.mkdir()
        settings = {
            "debug": False,
            "host": "127.0.0.1",
            "grpc_port": port,
            "http_port": others[0],
            "metrics_port": others[1],
            "metrics_endpoint": None,
            "parallel_workers": workers,
            "grpc_max_message_length": 64 * 1024 * 1024,
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        for name in names:
            (folder / name).mkdir()
            model = {
                "name": name,
                "implementation": "bench.peers.servers.mlserver_model.OnnxModel",
                "parameters": {"uri": scene.catalog.models[name].path, "folder": str(scene.folder)},
            }
            (folder / name / "model-settings.json").write_text(json.dumps(model))
        command = [str(setup.python_of("mlserver").parent / "mlserver"), "start", str(folder)]
        return Server(command, scene.folder / "unused", scene.folder / "mlserver.log", port=port, environment=_ON_PATH)

    return start


def start_litserve(workers: int) -> Start:
    """Return how LitServe is started, with so many workers a model."""

    def start(scene: Scene, names: Sequence[str]) -> Server:
        port = free_port()
        command = [str(setup.python_of("litserve")), "-m", "bench.peers.servers.litserve_server", str(scene.folder)]
        command += [str(port), str(workers), *names]
        return Server(command, scene.folder / "unused", scene.folder / "litserve.log", port=port, environment=_ON_PATH)

    return start


def start_bentoml(workers: int) -> Start:
    """Return how BentoML is started, with so many workers."""

    def start(scene: Scene, names: Sequence[str]) -> Server:
        port = free_port()
        command = [
            str(setup.python_of("bentoml").parent / "bentoml"),
            "serve",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        command.append("bench.peers.servers.bentoml_service:Models")
        environment = {
            **_ON_PATH,
            "BENCH_FOLDER": str(scene.folder),
            "BENCH_WORKERS": str(workers),
            "BENCH_MODELS": ",".join(names),
            "BENTOML_HOME": str(scene.folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "true",
        }
        return Server(
            command, scene.folder / "unused", scene.folder / "bentoml.log", port=port, environment=environment
        )

    return start


_ON_PATH = {"PYTHONPATH": str(setup.REPOSITORY)}

CONTESTANTS = (
    Contestant(
        INSIDE,
        "ONNX Runtime's `session.run` on arrays, in the calling process: nothing can be quicker",
        "inside",
        lambda _scene, _names: None,
    ),
    Contestant(
        HANDLER,
        "the agent's own code from request bytes to answer bytes, in the calling process, no gRPC",
        "handler",
        lambda _scene, _names: None,
    ),
    Contestant(
        ECHO,
        "`bench/peers/echo.cc`: answers with the request's bytes; asynchronous API, one completion queue and thread",
        "echo",
        start_echo("async", 1),
        message=_predict,
        peer="echo",
    ),
    Contestant(
        NATIVE,
        "`lightkeeper agent` as installed, models from signed packages, `lightkeeper_transport` native",
        "agent",
        _start_agent(Transport.NATIVE),
        _load_models,
        _predict,
        (BYTES, SHARED_MEMORY),
    ),
    Contestant(
        GRPCIO,
        "the same with `lightkeeper_transport` grpcio",
        "agent",
        _start_agent(Transport.GRPCIO),
        _load_models,
        _predict,
        (BYTES, SHARED_MEMORY),
    ),
    Contestant(
        SYNC,
        "`bench/bare_server.py`: the least grpcio server with ONNX Runtime, on threads, as many as the agent's",
        "agent",
        _start_grpcio("bench.bare_server"),
        message=_predict,
    ),
    Contestant(
        ASYNCIO,
        "`bench/peers/servers/grpcio_asyncio.py`: the same on asyncio; models of over a millisecond run in threads",
        "agent",
        _start_grpcio("bench.peers.servers.grpcio_asyncio"),
        message=_predict,
    ),
    Contestant(
        TRITON,
        "`tritonserver` of the package nvidia-pytriton with a Python model, two instances of each model, HTTP and "
        "metrics off; KServe v2 gRPC over TCP, raw tensors",
        "kserve",
        start_triton(2),
        message=_infer,
        carriers=(BYTES, SHARED_MEMORY),
        python=str(setup.python_of("triton")),
        peer="triton",
        package="nvidia-pytriton",
    ),
    Contestant(
        MLSERVER,
        "a custom runtime, no parallel workers, debug and metrics off; KServe v2 gRPC over TCP, raw tensors (which it "
        "unpacks into lists of Python's numbers)",
        "kserve",
        start_mlserver(0),
        message=_infer,
        python=str(setup.python_of("mlserver")),
        peer="mlserver",
        package="mlserver",
    ),
    Contestant(
        LITSERVE,
        "two workers a model, one HTTP server, the fast queue, access log off; HTTP/1.1 over TCP, raw bytes",
        "litserve",
        start_litserve(2),
        message=_post,
        python=str(setup.python_of("litserve")),
        peer="litserve",
        package="litserve",
    ),
    Contestant(
        BENTOML,
        "two workers, access log and metrics off; HTTP/1.1 over TCP, raw bytes as a file in a form, "
        "the quickest raw input it has (its gRPC server takes only services of its old kind)",
        "bentoml",
        start_bentoml(2),
        message=_upload,
        python=str(setup.python_of("bentoml")),
        peer="bentoml",
        package="bentoml",
    ),
)


def free_port() -> int:
    """Return a port of the loopback address that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def catalog_of(models: dict[str, Model], folder: Path, *, threads: int, spin_microseconds: int) -> Catalog:
    """Write the models' inputs and their catalog into a folder, and return it."""
    entries = {}
    for name, model in models.items():
        file = folder / f"{name}.input"
        file.write_bytes(model.input().tobytes())
        entries[name] = Entry(name, str(model.path), model.shape, model.output_shape, str(file))
    catalog = Catalog(entries, threads, spin_microseconds)
    catalog.write(folder)
    return catalog
