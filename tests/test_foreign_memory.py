"""An agent with more rights than its caller reads no memory for it that the caller could not read itself."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import grpc
import numpy as np
import pytest
import sysv_ipc

from lightkeeper.client import Client
from tests.conftest import Stubs
from tests.support.agents import AgentProcess
from tests.support.users import OTHER_UID, ordinary_user
from tests.test_local_api import refusal

X = np.array([[1, 2, 3, 4]], "<f4")

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or find_spec("lightkeeper_wire") is None,
    reason="becoming another user needs root, and only the native wire knows who calls",
)


@pytest.fixture
def open_agent(authority: Path) -> Iterator[AgentProcess]:
    """A root agent whose socket everybody may open, in a folder that everybody may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    settings = {"lightkeeper_transport": "native", "lightkeeper_socket_mode": "0666"}
    agent = AgentProcess(folder, authority / "certs", settings=settings).wait_until_started()
    yield agent
    assert agent.stop() == 0
    shutil.rmtree(folder)


@pytest.fixture
def segment() -> Iterator[sysv_ipc.SharedMemory]:
    """Root's segment, which nobody else may read."""
    made = sysv_ipc.SharedMemory(None, sysv_ipc.IPC_CREX, mode=0o600, size=X.nbytes)
    made.write(X.tobytes())
    made.mode = 0o400
    yield made
    made.detach()
    made.remove()


def test_another_users_call_cannot_have_roots_memory_read(
    open_agent: AgentProcess, doubled_package: Path, segment: sysv_ipc.SharedMemory, stubs: Stubs
) -> None:
    """The same call from root is answered."""
    pb, pb_grpc = stubs
    with Client(open_agent.address) as client:
        client.load_model(str(doubled_package), "m")
    handle = pb.SharedMemoryHandle(segment_id=segment.id)
    request = pb.PredictRequest(name="m", tensors=[pb.Tensor(shared_memory_handle=handle)])
    own = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(open_agent.address, own) as channel:
        answer = pb_grpc.AgentStub(channel).Predict(request).tensors[0]
        assert np.array_equal(np.frombuffer(answer.byte_data, "<f4"), 2 * X[0])
    with ordinary_user(), grpc.insecure_channel(open_agent.address, own) as channel:
        code, reason, facts = refusal(lambda: pb_grpc.AgentStub(channel).Predict(request))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "SHARED_MEMORY_FOREIGN")
    assert (facts["owner_uid"], facts["caller_uid"]) == ("0", str(OTHER_UID))
    assert segment.number_attached == 1
