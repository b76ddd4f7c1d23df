"""Which server an agent runs: the word in its configuration, and what is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightkeeper.agent.transports import chosen
from lightkeeper.config.values import Transport
from lightkeeper.errors import TransportMissing
from tests.support.agents import AgentProcess
from tests.transport.conformance.conftest import NATIVE


def test_auto_takes_the_native_wire_where_it_is_installed() -> None:
    """And grpcio where it is not."""
    assert chosen(Transport.AUTO, find=lambda name: name) is Transport.NATIVE
    assert chosen(Transport.AUTO, find=lambda _name: None) is Transport.GRPCIO


def test_grpcio_is_taken_where_it_is_asked_for() -> None:
    """Whatever else is installed."""
    assert chosen(Transport.GRPCIO, find=lambda name: name) is Transport.GRPCIO


def test_the_native_wire_is_refused_where_it_is_not_installed() -> None:
    """Rather than served by something else."""
    with pytest.raises(TransportMissing):
        chosen(Transport.NATIVE, find=lambda _name: None)


@pytest.mark.parametrize("wanted", [NATIVE, pytest.param(Transport.GRPCIO, id="grpcio")])
def test_an_agent_says_which_it_runs_and_loads_no_other(wanted: Transport, authority: Path, tmp_path: Path) -> None:
    """The other costs neither memory nor time at the start."""
    agent = AgentProcess(tmp_path, authority / "certs", settings={"lightkeeper_transport": wanted})
    agent.wait_until_started()
    loaded = Path(f"/proc/{agent.process.pid}/maps").read_text(encoding="ascii")
    assert agent.events("agent_started")[0]["transport"] == wanted
    assert ("_wire.abi3.so" in loaded) == (wanted is Transport.NATIVE)
    assert ("cygrpc" in loaded) == (wanted is Transport.GRPCIO)
    assert agent.stop() == 0
