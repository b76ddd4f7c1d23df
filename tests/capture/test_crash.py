"""The agent is killed at random moments under load, again and again; nothing that it answered OK is lost or doubled.

20 kills here, 200 with `make test-crash` (LIGHTKEEPER_CRASHES).
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from lightkeeper.cli import run
from lightkeeper.client import Client
from tests.conftest import Stubs
from tests.support.agents import AgentProcess
from tests.support.objects import DiskStore, ObjectStore, S3Store

CRASHES = int(os.environ.get("LIGHTKEEPER_CRASHES", "20"))
CALLERS = 4
DELIVERY_SECONDS = 120.0
EMBED_LIMIT_BYTES = 256
SIZES_BYTES = (24, 24, 24, 256, 257, 5000, 200_000)


@dataclass
class Callers:
    """Threads that capture without end, each id once, and keep what was answered OK."""

    address: str
    stubs: Stubs
    answered: dict[str, bytes] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    done: threading.Event = field(default_factory=threading.Event)

    def start(self) -> list[threading.Thread]:
        """Start the callers."""
        threads = [threading.Thread(target=self._call, args=(number,)) for number in range(CALLERS)]
        for thread in threads:
            thread.start()
        return threads

    def _call(self, number: int) -> None:
        pb, pb_grpc = self.stubs
        rng = random.Random(number)  # noqa: S311  # a load, no secret
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 100)]
        with grpc.insecure_channel(self.address, options) as channel:
            stub = pb_grpc.AgentStub(channel)
            for turn in itertools.count():
                if self.done.is_set():
                    return
                capture_id = f"c{number}-{turn}"
                payload = rng.randbytes(rng.choice(SIZES_BYTES))
                request = pb.CaptureDataRequest(
                    model_name="m", capture_id=capture_id, input_tensors=[pb.Tensor(byte_data=payload)]
                )
                try:
                    stub.CaptureData(request, timeout=20)
                    self.answered[capture_id] = payload
                except grpc.RpcError as error:
                    self.refused[error.code().name] += 1
                    time.sleep(0.01)


@pytest.fixture(params=["disk", "cloud"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """Where captures go: a folder, or a bucket of a real S3."""
    if request.param == "disk":
        return DiskStore(tmp_path / "captures")
    return S3Store(request.getfixturevalue("seaweed"), tmp_path / "hub")


@pytest.mark.timeout(60 + 12 * CRASHES)
def test_nothing_answered_ok_is_lost_or_doubled(
    tmp_path: Path, authority: Path, doubled_package: Path, stubs: Stubs, store: ObjectStore
) -> None:
    """Every such id is there exactly once with its bytes, and the audit agrees."""
    rng = random.Random(os.environ.get("LIGHTKEEPER_SEED", "7"))  # noqa: S311  # moments, no secret
    settings = {
        **store.settings,
        "sagemaker_edge_core_capture_data_buffer_size": "400",
        "sagemaker_edge_core_capture_data_batch_size": "20",
        "sagemaker_edge_core_capture_data_push_period_seconds": "1",
        "sagemaker_edge_core_capture_data_base64_embed_limit": str(EMBED_LIMIT_BYTES),
    }

    def start() -> AgentProcess:
        started = AgentProcess(
            tmp_path, authority / "certs", settings=settings, flags=("-f",), environment=store.environment
        )
        started.wait_until_started()
        with Client(started.address) as client:
            client.load_model(str(doubled_package), "m")
        return started

    agent = start()
    callers = Callers(agent.address, stubs)
    threads = callers.start()
    for _ in range(CRASHES // 2):
        time.sleep(rng.uniform(0.05, 1.0))
        agent.stop(signal.SIGKILL)
        agent = start()
    time.sleep(0.5)
    callers.done.set()
    for thread in threads:
        thread.join()
    deadline = time.monotonic() + DELIVERY_SECONDS
    while waiting(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert agent.stop() == 0

    found: Counter[str] = Counter()
    for line in store.lines():
        capture = json.loads(line)
        capture_id = capture["eventMetadata"]["eventId"]
        found[capture_id] += 1
        (entry,) = capture["deviceFleetInputs"]
        payload = base64.b64decode(entry["data"]) if "data" in entry else store.read(entry["data-ref"])
        if capture_id in callers.answered:
            assert payload == callers.answered[capture_id], capture_id
    assert set(callers.answered) - set(found) == set()
    assert [capture_id for capture_id, times in found.items() if times != 1] == []
    assert len(callers.answered) > 50 * CRASHES // 2
    assert run(["capture", "audit", "-c", str(tmp_path / "config.json")]) == 0


def waiting(folder: Path) -> int:
    """Return how many captures are not yet where they should be, as the ledger has it."""
    import sqlite3

    with closing(sqlite3.connect(f"file:{folder}/state/spool/spool.db?mode=ro", uri=True)) as database:
        ((count,),) = database.execute("SELECT COUNT(*) FROM captures WHERE state < 2")
    return int(count)
