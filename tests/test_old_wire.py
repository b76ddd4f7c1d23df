"""An agent beside a native wire of another release, as half an upgrade leaves it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightkeeper.client import Client
from tests.support.agents import AgentProcess

LACKING_NAMES = "class Call: ...\nclass Server: ...\n"
LACKING_SETTINGS = """
class Call: ...
class Response: ...
class Status:
    def __init__(self, *given, **named): ...
class Server:
    def __init__(self, methods, *, workers): ...
"""


@pytest.mark.parametrize("wire", [LACKING_NAMES, LACKING_SETTINGS, "raise ImportError('GLIBC_9.9 not found')\n"])
def test_grpcio_serves_where_the_native_wire_does_not_fit(tmp_path: Path, authority: Path, wire: str) -> None:
    """With one line that says so; the agent does everything else as ever."""
    agent = beside(tmp_path, authority, wire, "auto").wait_until_started()
    with Client(agent.address) as client:
        assert client.list_models() == []
    assert agent.stop() == 0
    (started,) = agent.events("agent_started")
    (said,) = agent.events("native_wire_unusable")
    assert started["transport"] == "grpcio"
    assert said["level"] == "WARNING"
    assert "lightkeeper-wire" in said["detail"]
    assert "this release" in said["next_step"]


def test_an_agent_that_is_to_use_the_native_wire_refuses_one_that_does_not_fit(tmp_path: Path, authority: Path) -> None:
    """With its reason, not with a trace of Python's."""
    agent = beside(tmp_path, authority, LACKING_SETTINGS, "native")
    assert agent.process.wait(60) == 1
    log = agent.log_file.read_text()
    assert "TRANSPORT_MISSING" in log
    assert "another release" in log
    assert "Traceback" not in log


def beside(tmp_path: Path, authority: Path, wire: str, transport: str) -> AgentProcess:
    """Start an agent that finds this wire in place of the installed one."""
    package = tmp_path / "older" / "lightkeeper_wire"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(wire)
    return AgentProcess(
        tmp_path,
        authority / "certs",
        settings={"lightkeeper_transport": transport},
        environment={"PYTHONPATH": str(package.parent)},
    )
