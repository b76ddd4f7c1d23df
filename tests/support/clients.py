"""Clients of other languages: programs that are built once, take orders (orders.proto) and report what came of them.

What is built lies in `build/clients`, one folder a language and state of the sources and tools, so that the next run
finds it. A language whose tools are missing skips its tests and says what to install; where `CI` is `true` it fails.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import google.rpc
import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "tests" / "transport" / "conformance" / "clients"
BUILT = ROOT / "build" / "clients"
EDGE = ROOT / "tests" / "wire"
GOOGLE = Path(next(iter(google.rpc.__path__))).parents[1]
"""The folder below which the protos of google.rpc lie."""

REPORT_SECONDS = 60.0
BUILD_SECONDS = 600.0

Json = dict[str, Any]
Metadata = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Language:
    """How a client program comes about: `build` makes it in a folder, `command` starts it from there."""

    name: str
    versions: Sequence[Sequence[str]]
    """Commands that fail where a tool is missing, and print the versions that the build depends on."""
    install: str
    build: Callable[[Path], None]
    command: Callable[[Path], Sequence[str]]
    environment: Mapping[str, str] = field(default_factory=dict)


def _build_cpp(folder: Path) -> None:
    makefile = SOURCES / "cpp" / "Makefile"
    _run(folder, "make", "--file", str(makefile), f"-j{os.cpu_count()}", f"EDGE={EDGE}", f"GOOGLE={GOOGLE}", "client")


def _build_go(folder: Path) -> None:
    shutil.copytree(SOURCES / "go", folder, dirs_exist_ok=True)
    go = ("go", "build", "-buildvcs=false", "-mod=readonly")
    _run(folder, *go, "-o", "bin/", "tool")
    options = [f"--plugin={plugin}" for plugin in (folder / "bin").iterdir()]
    options += [f"--proto_path={place}" for place in (SOURCES, EDGE)]
    packages = {"orders.proto": "orders", "edge_agent_2021.proto": "edge"}
    for kind in ("go", "go-grpc"):
        options += [f"--{kind}_out={folder}", f"--{kind}_opt=module=lightkeeper/client"]
        options += [f"--{kind}_opt=M{proto}=lightkeeper/client/{name}" for proto, name in packages.items()]
    _run(folder, sys.executable, "-m", "grpc_tools.protoc", *options, *packages)
    _run(folder, *go, "-o", "client", ".")


def _build_node(folder: Path) -> None:
    shutil.copytree(SOURCES / "node", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--omit-lockfile-registry-resolved")
    _run(folder, "npm", "ci", *quiet)


PYTHON = Language(
    "python",
    [],
    "",
    build=lambda _folder: None,
    command=lambda _folder: [sys.executable, str(SOURCES / "python" / "client.py")],
)
CPP = Language(
    "cpp",
    [
        ["g++", "--version"],
        ["make", "--version"],
        ["protoc", "--version"],
        ["sh", "-c", "command -v grpc_cpp_plugin"],
        ["pkg-config", "--modversion", "grpc++", "protobuf"],
    ],
    "g++ make pkg-config libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc (Debian's packages)",
    build=_build_cpp,
    command=lambda folder: [str(folder / "client")],
)
GO = Language(
    "go",
    [["go", "version"]],
    "Go 1.25 or later",
    build=_build_go,
    command=lambda folder: [str(folder / "client")],
)
NODE = Language(
    "node",
    [["node", "--version"], ["npm", "--version"]],
    "Node.js 18 or later, with npm",
    build=_build_node,
    command=lambda folder: ["node", str(folder / "client.js")],
    environment={"PROTO_PATH": f"{EDGE}:{GOOGLE}"},
)
LANGUAGES = {language.name: language for language in (PYTHON, CPP, GO, NODE)}


def _run(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"


def _versions(language: Language) -> str:
    """Return the versions of the tools, or skip the test where one is missing."""
    try:
        return "".join(subprocess.check_output(command, text=True) for command in language.versions)
    except (FileNotFoundError, subprocess.CalledProcessError):
        reason = f"the {language.name} client needs {language.install}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def built(language: Language) -> Path:
    """Return the folder with the language's program, which is built unless it is there."""
    state = hashlib.sha256(_versions(language).encode())
    sources = [SOURCES / "orders.proto", EDGE / "edge_agent_2021.proto", *sorted((SOURCES / language.name).iterdir())]
    for source in sources:
        state.update(source.name.encode() + source.read_bytes())
    folder = BUILT / f"{language.name}-{state.hexdigest()[:16]}"
    BUILT.mkdir(parents=True, exist_ok=True)
    with (BUILT / f"{language.name}.lock").open("w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=BUILT, prefix="unfinished-") as unfinished:
                language.build(Path(unfinished))
                Path(unfinished).rename(folder)
                Path(unfinished).mkdir()  # for the context to remove
            for older in BUILT.glob(f"{language.name}-*"):
                if older != folder:
                    shutil.rmtree(older)
    return folder


@dataclass(frozen=True, slots=True)
class Report:
    """What a client program says of an order: `code` is gRPC's number, `refusal` the ErrorInfo with it."""

    code: int
    message: str
    body: bytes
    initial_metadata: Metadata
    trailing_metadata: Metadata
    refusal: Json | None
    models: Sequence[str]
    outputs: Sequence[float]

    @classmethod
    def of(cls, said: Json) -> Self:
        """Return a report from its JSON, where what is not said is empty."""
        return cls(
            code=said.get("code", 0),
            message=said.get("message", ""),
            body=base64.b64decode(said.get("body", "")),
            initial_metadata=_pairs(said.get("initial_metadata", ())),
            trailing_metadata=_pairs(said.get("trailing_metadata", ())),
            refusal=said.get("refusal"),
            models=said.get("models", ()),
            outputs=said.get("outputs", ()),
        )


def _pairs(entries: Sequence[Json]) -> Metadata:
    return [(entry["key"], base64.b64decode(entry.get("value", ""))) for entry in entries]


class Order(Future[Report]):
    """An order under way: the future of its report."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class ClientProgram:
    """A client program at work."""

    def __init__(self, language: Language, log_file: Path) -> None:
        """Start it, built first where it is not; what it says of itself goes to the file."""
        self.language = language
        self._log_file = log_file
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                language.command(built(language)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | dict(language.environment),
            )
        self._numbers = itertools.count(1)
        self._orders: dict[int, Order] = {}
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def begin(self, address: str, kind: str, **fields: Any) -> Order:
        """Give an order and return the future of its report; one that has ended fails the test."""
        order = Order(next(self._numbers))
        self._orders[order.number] = order
        line = json.dumps({"id": order.number, "address": address, kind: fields})
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return order

    def begin_call(
        self, address: str, method: str, body: bytes = b"", *, metadata: Metadata = (), **fields: str | int
    ) -> Order:
        """Begin a call; further fields are those of `Call` in orders.proto."""
        entries = [{"key": key, "value": base64.b64encode(value).decode()} for key, value in metadata]
        packed = base64.b64encode(body).decode()
        return self.begin(address, "call", method=method, body=packed, metadata=entries, **fields)

    def call(self, address: str, method: str, body: bytes = b"", **fields: Any) -> Report:
        """Call, and return the report."""
        return self.begin_call(address, method, body, **fields).result(REPORT_SECONDS)

    def cancel(self, order: Order) -> None:
        """Cancel the call of an order."""
        self.begin("", "cancel", id=order.number).result(REPORT_SECONDS)

    def close(self, address: str) -> None:
        """Close every connection to an address."""
        self.begin(address, "close").result(REPORT_SECONDS)

    def stop(self) -> int:
        """Give no more orders, and return the exit code."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended before
            self._process.stdin.close()
        try:
            return self._process.wait(REPORT_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            with self._process.stdout as lines:
                for line in lines:
                    said = json.loads(line)
                    self._orders.pop(said["id"]).set_result(Report.of(said))
        finally:
            for order in list(self._orders.values()):
                order.set_exception(self._ended())

    def _ended(self) -> AssertionError:
        return AssertionError(f"the {self.language.name} client has ended:\n{self._log_file.read_text()}")
