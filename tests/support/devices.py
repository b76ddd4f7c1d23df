"""Real devices of a running hub: each an agent in the folder that `hub device add` writes, and what it is let do."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import numpy as np
from botocore.config import Config

from lightkeeper.client import Client
from lightkeeper.config import check
from lightkeeper.errors import AgentError
from tests.support.agents import TRANSPORT_VARIABLE, RunningAgent

PATIENCE_SECONDS = 120.0
X = np.ones((1, 4), np.float32)

SETTINGS: Mapping[str, object] = {
    "lightkeeper_heartbeat_seconds": 1,
    "lightkeeper_deployment_poll_seconds": 1,
    "lightkeeper_swap_watch_seconds": 5,
    "sagemaker_edge_core_capture_data_push_period_seconds": 1,
    "sagemaker_edge_local_data_root_path": "state",
}
"""What is not as `hub device add` writes it: a test waits less, and many devices share a machine."""


CLOUD_LINES = ("heartbeat_refused", "deployments_away", "cloud_unreachable", "destination_away")
"""The events in which an agent says that a part of its cloud is away; each has a reason."""


class Device(RunningAgent):
    """An agent started from a device's folder."""

    def __init__(self, folder: Path, settings: Mapping[str, object], environment: Mapping[str, str]) -> None:
        """Start it. `settings` stand above the folder's."""
        self.name = folder.name
        transport = {"lightkeeper_transport": os.environ.get(TRANSPORT_VARIABLE, "auto")}
        keys = json.loads((folder / "config.json").read_text()) | SETTINGS | transport | dict(settings)
        super().__init__(folder, keys, flags=("-f",), environment=environment)

    def client(self) -> Client:
        """Return a client of the agent."""
        return Client(self.address)

    def runs(self) -> dict[str, str]:
        """Return the loaded models and their versions, as the agent says."""
        with self.client() as client:
            return {status.name: status.package.version for status in client.model_status()}

    def said(self) -> Counter[tuple[str, str]]:
        """Return how often it said of each part of its cloud that it is away, by event and reason."""
        return Counter((event, line["reason"]) for event in CLOUD_LINES for line in self.events(event))


class Application(threading.Thread):
    """What a device is for: inferences without a pause, each captured. `ids` are the captures that were answered OK."""

    def __init__(self, device: Device, *, every_seconds: float = 0.1) -> None:
        """Begin at once."""
        super().__init__(daemon=True)
        self._device = device
        self._every_seconds = every_seconds
        self._ending = threading.Event()
        self.ids: list[str] = []
        self.failures: list[AgentError] = []
        self.start()

    def run(self) -> None:
        """Work until `end`."""
        with self._device.client() as client:
            while not self._ending.wait(self._every_seconds):
                try:
                    outputs = client.predict("scores", {"x": X})
                    name = f"{self._device.name}-{len(self.ids)}"
                    self.ids.append(client.capture_data("scores", inputs={"x": X}, outputs=outputs, capture_id=name))
                except AgentError as error:
                    self.failures.append(error)

    def goes_on(self) -> bool:
        """Wait for three more captures, and return whether nothing failed until now."""
        before = len(self.ids)
        eventually(lambda: self.failures or len(self.ids) >= before + 3, self._device)
        return not self.failures

    def end(self) -> None:
        """Stop, and require that not a call failed."""
        self._ending.set()
        self.join()
        assert self.failures == []


def eventually(what: Callable[[], object], *devices: Device, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until something is so; the devices' logs tell why it is not."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline or any(device.process.poll() is not None for device in devices):
            raise AssertionError("\n".join(device.log_file.read_text()[-3000:] for device in devices))
        time.sleep(0.1)


def credentials(folder: Path) -> tuple[int, Any]:
    """Exchange the certificate in a device's folder, as its configuration says; return status and answer."""
    config = check(folder / "config.json").accepted()
    tls = ssl.create_default_context(cafile=str(config.aws_ca_cert_file))
    tls.load_cert_chain(str(config.aws_cert_file), str(config.aws_private_key))
    address = urlsplit(str(config.aws_credential_endpoint))
    connection = http.client.HTTPSConnection(str(address.hostname), address.port, timeout=30, context=tls)
    connection.request("GET", address.path, headers={"x-amzn-iot-thingname": config.thing_name})
    answer = connection.getresponse()
    said = json.loads(answer.read())
    connection.close()
    return answer.status, said


def device_client(service: str, endpoint: str, answer: Any) -> Any:
    """Return a boto3 client with a device's session."""
    given = answer["credentials"]
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=given["accessKeyId"],
        aws_secret_access_key=given["secretAccessKey"],
        aws_session_token=given["sessionToken"],
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )
