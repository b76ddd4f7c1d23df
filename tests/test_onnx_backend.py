"""ONNX's own backend node tests through a real agent: packaged, signed, verified, loaded, predicted, unloaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from lightkeeper.client import Client
from lightkeeper.errors import ModelTypeUnsupported, ModelUnreadable
from lightkeeper.modelpackage import build, source
from lightkeeper.modelpackage.manifest import Manifest
from lightkeeper.modelpackage.signature import Signer
from lightkeeper.runtimes.base import RuntimeOptions
from lightkeeper.runtimes.onnx import OnnxRuntime
from tests.support.agents import AgentProcess
from tests.support.onnx_backend import Array, Case, Run, attempt, cases, in_process

LEAST_CARRIED = 1400
"""Fewer cases than this mean that the selection is broken, not that ONNX has shrunk."""
MOST_BEYOND_ONNX_RUNTIME = 90
CALLERS = 4


@pytest.fixture(scope="module")
def node_cases() -> list[Case]:
    """Every case of the installed `onnx` package; collecting them takes some seconds."""
    return list(cases())


@pytest.fixture(scope="module")
def through_the_agent(agent: AgentProcess, authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs a model the whole way: a package made and signed, loaded by the agent, one call, unloaded."""
    folder = tmp_path_factory.mktemp("backend")
    signer = Signer.load(authority)
    runtime = OnnxRuntime(RuntimeOptions(threads=1))
    numbers = count()

    with Client(agent.address, shared_memory_above_bytes=None) as client:

        def run(model: bytes, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            name = f"case-{next(numbers)}"
            place = folder / name
            place.mkdir()
            (place / "model.onnx").write_bytes(model)
            found = source.find(place / "model.onnx")
            session = runtime.open(found.main)
            said = Manifest(name, "1", found.format, found.model, tuple(session.inputs), tuple(session.outputs))
            session.close()
            package = build.build(build.Draft(found, said), signer, place)
            client.load_model(str(package), name)
            try:
                return client.predict(name, inputs)
            finally:
                client.unload_model(name)

        yield run


@pytest.mark.timeout(300)
def test_every_case_that_the_wire_can_carry_gives_the_expected_outputs(
    node_cases: list[Case], through_the_agent: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each answer is ONNX's own; what ONNX Runtime by itself does not pass ends in the same way, and is listed."""
    carried = [case for case in node_cases if not case.obstacle]
    failed: dict[str, str] = {}
    beyond: dict[str, str] = {}
    with ThreadPoolExecutor(CALLERS) as pool:
        outcomes = pool.map(lambda case: attempt(case, through_the_agent), carried)
        for case, outcome in zip(carried, outcomes, strict=True):
            fault = outcome.fault(case)
            if fault:
                alone = attempt(case, in_process)
                beyond_onnx_runtime = alone.fault(case) and outcome.same_as(alone, case)
                (beyond if beyond_onnx_runtime else failed)[case.name] = fault
    passed = len(carried) - len(beyond) - len(failed)
    lines = [
        f"ONNX backend node tests: {len(node_cases)} cases, {len(carried)} carried, {passed} passed",
        f"ONNX Runtime by itself does not pass {len(beyond)} of them:",
    ]
    lines += [f"  {name}: {fault[:160]}" for name, fault in beyond.items()]
    with capsys.disabled():
        print("", *lines, sep="\n")  # noqa: T201 -- the list is part of what this test is for
    assert failed == {}
    assert len(carried) >= LEAST_CARRIED
    assert len(beyond) <= MOST_BEYOND_ONNX_RUNTIME


def test_every_other_case_is_refused_naming_the_tensor(
    node_cases: list[Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model with a type the wire cannot carry is refused when it is opened, and never half served."""
    others = [case for case in node_cases if case.obstacle]
    runtime = OnnxRuntime(RuntimeOptions(threads=1))
    file = tmp_path / "model.onnx"
    opened: list[str] = []
    wrongly_named: list[str] = []
    unreadable = 0
    for case in others:
        file.write_bytes(case.model)
        try:
            runtime.open(file).close()
            opened.append(f"{case.name}: {case.obstacle}")
        except ModelTypeUnsupported as refusal:
            if refusal.facts["tensor"] != case.obstacle.split()[1]:
                wrongly_named.append(f"{case.name}: {case.obstacle}, not {refusal.message}")
        except ModelUnreadable:
            unreadable += 1  # an operator that ONNX Runtime does not have is found before any type
    lines = [f"The local API cannot carry {len(others)} of ONNX's backend node tests:"]
    obstacles = Counter(case.obstacle.split(" is ")[1] for case in others)
    lines += [f"  {number:4} {obstacle}" for obstacle, number in obstacles.most_common()]
    with capsys.disabled():
        print("", *lines, sep="\n")  # noqa: T201 -- the list is part of what this test is for
    assert opened == []
    assert wrongly_named == []
    assert unreadable < len(others) / 2, unreadable
