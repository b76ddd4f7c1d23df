"""Where captures end up, as a consumer sees it: a folder, or a bucket."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from lightkeeper.hub.database import Database
from tests.support.certified import Certified
from tests.support.seaweed import REGION, Seaweed

DEVICE, FLEET = "test-device", "test-fleet"
"""Which device the tests' agents are."""


class ObjectStore(Protocol):
    """What the tests need of either."""

    @property
    def settings(self) -> Mapping[str, object]:
        """The configuration keys that send captures there."""

    @property
    def environment(self) -> Mapping[str, str]:
        """What the agent's environment must have."""

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of every batch."""

    def read(self, address: str) -> bytes:
        """Return what lies at a `data-ref`."""


class DiskStore:
    """Captures in a folder, with provider None."""

    environment: Mapping[str, str] = {}

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.settings: Mapping[str, object] = {"sagemaker_edge_core_capture_data_disk_path": str(folder)}

    def lines(self) -> Iterator[bytes]:
        """See `ObjectStore.lines`."""
        for file in sorted(self._folder.rglob("*.jsonl")):
            yield from file.read_bytes().splitlines()

    def read(self, address: str) -> bytes:
        """See `ObjectStore.read`."""
        parts = urlsplit(address)
        assert parts.scheme == "file"
        return Path(unquote(parts.path)).read_bytes()


class S3Store:
    """Captures in a bucket of its own of a real S3, read with boto3 as a consumer would.

    The agent gets to it as in the field: its certificate is exchanged for credentials at a real endpoint.
    """

    environment: Mapping[str, str] = {}

    def __init__(self, seaweed: Seaweed, folder: Path) -> None:
        self._client = seaweed.client()
        self._bucket = f"captures-{secrets.token_hex(4)}"
        self._client.create_bucket(Bucket=self._bucket)
        folder.mkdir()
        database = Database(f"sqlite:///{folder / 'hub.sqlite'}")
        self._endpoint = Certified(folder, database, seaweed.tokens())
        self._endpoint.add_fleet(FLEET, place=f"s3://{self._bucket}")
        self._endpoint.add_device(DEVICE, fleet=FLEET)
        held = self._endpoint.certify(DEVICE, fleet=FLEET)
        self.settings: Mapping[str, object] = {
            "sagemaker_edge_provider_provider": "Aws",
            "sagemaker_edge_core_region": REGION,
            "sagemaker_edge_core_capture_data_destination": "Cloud",
            "sagemaker_edge_provider_s3_bucket_name": self._bucket,
            "sagemaker_edge_provider_aws_ca_cert_file": str(self._endpoint.ca),
            "sagemaker_edge_provider_aws_cert_file": str(held.path),
            "sagemaker_edge_provider_aws_cert_pk_file": str(held.path),
            "sagemaker_edge_provider_aws_iot_cred_endpoint": f"https://localhost:{self._endpoint.port}",
            "lightkeeper_s3_endpoint": seaweed.endpoint,
        }

    def lines(self) -> Iterator[bytes]:
        """See `ObjectStore.lines`."""
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket):
            for item in page.get("Contents", ()):
                if item["Key"].endswith(".jsonl"):
                    yield from self._object(item["Key"]).splitlines()

    def read(self, address: str) -> bytes:
        """See `ObjectStore.read`."""
        prefix = f"s3://{self._bucket}/"
        assert address.startswith(prefix)
        return self._object(address.removeprefix(prefix))

    def _object(self, key: str) -> bytes:
        content: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return content
