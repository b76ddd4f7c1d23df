"""An agent that keeps captures on the disk and uploads them from time to time, to a real S3."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import grpc

from lightkeeper.client import Client
from tests.conftest import Stubs
from tests.support.agents import AgentProcess
from tests.support.objects import DiskStore, S3Store
from tests.support.seaweed import Seaweed

DELIVERY_SECONDS = 30.0


def test_what_lies_on_the_disk_is_uploaded_once_and_stays_there(
    tmp_path: Path, authority: Path, doubled_package: Path, stubs: Stubs, seaweed: Seaweed
) -> None:
    """Lines and payload files, over a restart; the ledger then says uploaded."""
    pb, pb_grpc = stubs
    disk, bucket = DiskStore(tmp_path / "captures"), S3Store(seaweed, tmp_path / "hub")
    settings = {
        **bucket.settings,
        **disk.settings,
        "sagemaker_edge_core_capture_data_destination": "Disk",
        "sagemaker_edge_core_capture_data_push_period_seconds": 1,
        "sagemaker_edge_core_capture_data_periodic_upload": "true",
        "sagemaker_edge_core_capture_data_periodic_upload_period_seconds": "1",
    }
    picture = bytes(range(256)) * 100
    ids = ["first", "second"]
    for capture_id in ids:
        agent = AgentProcess(
            tmp_path, authority / "certs", settings=settings, environment=bucket.environment
        ).wait_until_started()
        with Client(agent.address) as client, grpc.insecure_channel(agent.address) as channel:
            client.load_model(str(doubled_package), "m")
            pb_grpc.AgentStub(channel).CaptureData(
                pb.CaptureDataRequest(
                    model_name="m",
                    capture_id=capture_id,
                    input_tensors=[pb.Tensor(byte_data=b"small")],
                    inputs=[pb.AuxilaryData(name="camera.jpg", byte_data=picture)],
                )
            )
        deadline = time.monotonic() + DELIVERY_SECONDS
        while capture_id not in _ids(bucket):
            assert time.monotonic() < deadline, agent.log_file.read_text()
            time.sleep(0.1)
        assert agent.stop() == 0
    assert sorted(_ids(bucket)) == sorted(_ids(disk)) == ids
    for store in (disk, bucket):
        for line in map(json.loads, store.lines()):
            assert base64.b64decode(line["deviceFleetInputs"][0]["data"]) == b"small"
            assert store.read(line["deviceFleetAuxiliaryInputs"][0]["data-ref"]) == picture


def _ids(store: DiskStore | S3Store) -> list[str]:
    return [json.loads(line)["eventMetadata"]["eventId"] for line in store.lines()]
