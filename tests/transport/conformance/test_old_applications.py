"""Applications of 2021 in C++, Go and Node, with stubs made from their own proto, and a real agent on either server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from lightkeeper import errors
from lightkeeper.captures import Entry, open_captures
from lightkeeper.client import Client
from lightkeeper.config.values import Transport
from tests.support.agents import AgentProcess
from tests.support.clients import CPP, GO, NODE, REPORT_SECONDS, Language
from tests.transport.conformance.conftest import NATIVE, Programs

NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]

pytestmark = pytest.mark.timeout(400)  # the first test of a language builds its client


@pytest.fixture(scope="module", params=[NATIVE, pytest.param(Transport.GRPCIO, id="grpcio")])
def agent(
    request: pytest.FixtureRequest, authority: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AgentProcess]:
    """An agent on each server in turn, which writes captures each second."""
    settings = {"lightkeeper_transport": request.param, "sagemaker_edge_core_capture_data_push_period_seconds": 1}
    process = AgentProcess(tmp_path_factory.mktemp("agent"), authority / "certs", settings=settings)
    yield process.wait_until_started()
    assert process.stop() == 0


def values(entries: tuple[Entry, ...]) -> dict[str, list[Any]]:
    """Return the elements of captured tensors by name."""
    return {entry.name: entry.array().tolist() for entry in entries}


def attached_segments(agent: AgentProcess) -> list[str]:
    """Return the System V segments in the agent's memory."""
    maps = psutil.Process(agent.process.pid).memory_maps(grouped=False)
    return [entry.path for entry in maps if entry.path.startswith("/SYSV")]


@pytest.mark.parametrize("form", ["unix://{socket}", "unix:{socket}"], ids=["slashes", "plain"])
@pytest.mark.parametrize("language", [CPP, GO, NODE], ids=lambda language: language.name)
def test_an_application_of_2021_runs_unchanged(
    agent: AgentProcess, programs: Programs, doubled_package: Path, form: str, language: Language
) -> None:
    """From LoadModel to UnLoadModel; the C++ one with its tensors in shared memory."""
    address, capture_id = form.format(socket=agent.socket), f"{language.name}-{len(form)}"
    order = programs(language).begin(
        address, "application", url=str(doubled_package), model="my-model", capture_id=capture_id
    )
    report = order.result(REPORT_SECONDS)
    assert report.refusal is not None, report.message  # of the last call, a Predict of what is no longer loaded
    assert (report.code, report.refusal["reason"]) == (NOT_FOUND, errors.ModelNotFound.reason)
    assert (list(report.models), list(report.outputs)) == (["my-model"], [2, 4, 6, 8])
    (capture,) = [one for one in open_captures(agent.folder / "captures").records() if one.id == capture_id]
    assert values(capture.inputs) == {"x": [[1, 2, 3, 4]]}
    assert values(capture.outputs) == {"y": [[2, 4, 6, 8]]}
    with Client(agent.address) as client:
        assert client.list_models() == []
    assert attached_segments(agent) == []
