"""An agent with provider Aws whose cloud is not there, and then is: nothing local notices, and the log stays short."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from lightkeeper.capture.request import CaptureStatus
from lightkeeper.client import Client
from tests.support.agents import AgentProcess
from tests.support.endpoints import Endpoint, Service

PATIENCE_SECONDS = 60.0
X = np.ones((1, 4), np.float32)
NO_PROXY = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), "")


def eventually(what: Callable[[], object], agent: AgentProcess) -> None:
    """Wait until something is so; the agent's log tells why it is not."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline, agent.log_file.read_text()[-5000:]
        time.sleep(0.05)


def test_an_agent_whose_cloud_is_away_predicts_and_captures_and_says_each_change_once(
    tmp_path: Path, authority: Path, doubled_package: Path
) -> None:
    """The endpoint begins to listen while reports and captures are tried; each change is one line."""
    endpoint = Endpoint(tmp_path)
    files, port = endpoint.device(address=f"localhost:{endpoint.port}"), endpoint.port
    endpoint.close()
    with closing(Service(tmp_path, endpoint.authority)) as service:
        settings = {
            "sagemaker_edge_provider_provider": "Aws",
            "sagemaker_edge_core_region": "eu-central-1",
            "sagemaker_edge_provider_s3_bucket_name": "bucket",
            "sagemaker_edge_provider_aws_ca_cert_file": str(files.ca_file),
            "sagemaker_edge_provider_aws_cert_file": str(files.certificate_file),
            "sagemaker_edge_provider_aws_cert_pk_file": str(files.key),
            "sagemaker_edge_provider_aws_iot_cred_endpoint": f"localhost:{port}",
            "sagemaker_edge_core_endpoint_override": service.url,
            "sagemaker_edge_core_capture_data_destination": "Cloud",
            "sagemaker_edge_core_capture_data_batch_size": 1,
            "lightkeeper_s3_endpoint": "http://127.0.0.1:9",
            "lightkeeper_heartbeat_seconds": 1,
        }
        service.answers["/GetDeviceRegistration"] = 200, b'{"DeviceRegistration": "REGISTERED", "CacheTTL": "3600"}'
        agent = AgentProcess(
            tmp_path,
            authority / "certs",
            settings=settings,
            environment={"AWS_CA_BUNDLE": str(endpoint.ca), **NO_PROXY},
        ).wait_until_started()
        with Client(agent.address) as client:
            client.load_model(str(doubled_package), "net")
            eventually(lambda: agent.events("heartbeat_refused"), agent)
            for number in range(20):
                np.testing.assert_array_equal(client.predict("net", {"x": X})["y"], X + X)
                client.capture_data("net", inputs={"x": X}, capture_id=f"c-{number}")
            assert client.capture_status("c-0") is CaptureStatus.IN_PROGRESS
            eventually(lambda: agent.events("destination_away"), agent)
            refusals = [line["reason"] for line in agent.events("cloud_unreachable")]
            assert refusals == ["DESTINATION_UNREACHABLE"]
            with closing(Endpoint(tmp_path, authority=endpoint.authority, port=port)):
                eventually(lambda: agent.events("heartbeat_taken_again"), agent)
            assert client.capture_status("c-0") is CaptureStatus.IN_PROGRESS  # S3 is still away
        assert agent.stop() == 0
    counts = {
        word: len(agent.events(word))
        for word in ("cloud_unreachable", "cloud_reachable", "heartbeat_refused", "heartbeat_taken_again")
    }
    assert set(counts.values()) == {1}, counts
    assert len(agent.events("destination_away")) == 1
    assert len(agent.events("device_registered")) == 1
    assert "secret-word" not in agent.log_file.read_text()
