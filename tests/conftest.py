"""What many tests need: an authority, packages signed by it, an agent, and stubs made apart from the package."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from grpc_tools import protoc
from hypothesis import settings

from lightkeeper.cli import run
from lightkeeper.client import Client
from tests.support import models
from tests.support.agents import AgentProcess
from tests.support.seaweed import Seaweed

settings.register_profile("project", deadline=None)  # machines are noisy: a property is no stopwatch
settings.load_profile("project")

PackageFactory = Callable[..., Path]
Stubs = tuple[ModuleType, ModuleType]
HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate authority, as `lightkeeper ca init` makes it."""
    folder = tmp_path_factory.mktemp("authority") / "ca"
    assert run(["ca", "init", str(folder), "--region", "test-1"]) == 0
    return folder


@pytest.fixture(scope="session")
def make_package(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> PackageFactory:
    """Package a model's bytes as `lightkeeper package` does, and return the archive's path."""
    folder = tmp_path_factory.mktemp("packages")

    def make(model: bytes, *options: str, name: str = "model", version: str = "1.0") -> Path:
        place = folder / str(len(list(folder.iterdir())))
        place.mkdir()
        source = place / "model.onnx"
        source.write_bytes(model)
        words = ["--name", name, "--version", version, "--signer", str(authority), "--output", str(place), *options]
        assert run(["package", str(source), *words]) == 0
        return place / f"{name}-{version}.tar.gz"

    return make


@pytest.fixture(scope="session")
def agent(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """One agent for all tests that leave it as they found it."""
    process = AgentProcess(tmp_path_factory.mktemp("agent"), authority / "certs").wait_until_started()
    yield process
    assert process.stop() == 0


@pytest.fixture
def client(agent: AgentProcess) -> Iterator[Client]:
    """A client of the shared agent; whatever is loaded at the end is unloaded."""
    with Client(agent.address) as client:
        yield client
        for model in client.list_models():
            client.unload_model(model.name)


@pytest.fixture(scope="session")
def doubled_package(make_package: PackageFactory) -> Path:
    """The package of y = x + x for FLOAT32[1, 4]."""
    return make_package(models.doubled(), name="doubled")


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Stubs:
    """Messages and stubs generated from the proto of an application of 2021, by protoc and grpc's own plug-in."""
    folder = tmp_path_factory.mktemp("stubs")
    arguments = [f"--proto_path={HERE / 'wire'}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main(["protoc", *arguments, "edge_agent_2021.proto"]) == 0
    return _imported(folder, "edge_agent_2021_pb2"), _imported(folder, "edge_agent_2021_pb2_grpc")


def _imported(folder: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # the stubs import the messages by this name
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """One real S3 for all tests; each makes buckets of its own."""
    server = Seaweed(tmp_path_factory.mktemp("seaweed"))
    try:
        yield server.wait_until_started()
    finally:
        server.stop()
