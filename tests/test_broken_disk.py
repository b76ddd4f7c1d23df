"""An agent whose disk has gone read-only before its start: it runs models all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lightkeeper.client import Client
from lightkeeper.errors import SpoolBroken
from tests.support.agents import AgentProcess

CAN_UNSHARE = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'


@pytest.mark.skipif(not CAN_UNSHARE, reason="a read-only mount of its own needs privileges")
def test_models_run_on_a_device_whose_disk_is_read_only(tmp_path: Path, authority: Path, doubled_package: Path) -> None:
    """Loads stage in memory, captures are refused with the reason, an ERROR says what to repair."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    program = ("unshare", "-m", "sh", "-c", READ_ONLY, "sh", str(state), sys.executable, "-m", "lightkeeper", "agent")
    agent = AgentProcess(tmp_path, authority / "certs", program=program).wait_until_started()
    with Client(agent.address) as client:
        client.load_model(str(doubled_package), "m")
        assert client.predict("m", {"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[2, 2, 2, 2]]
        with pytest.raises(SpoolBroken) as caught:
            client.capture_data("m", inputs={"x": np.ones((1, 4), np.float32)})
    assert caught.value.facts["cause"] == "STATE_DISK_BROKEN"
    assert "Read-only" in agent.events("state_disk_broken")[0]["detail"]
    assert agent.stop() == 0
    assert list(state.iterdir()) == []
