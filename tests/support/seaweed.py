"""A real S3 for the tests: the hub's own SeaweedFS, on free ports of the loopback."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path
from typing import Any

from lightkeeper.hub.sts import TokenService
from lightkeeper.hub.weed import LOOPBACK, Weed, free_ports
from lightkeeper.hub.weedaccess import DEVICE_ROLE_ARN, Access
from lightkeeper.providers.aws import Credentials

__all__ = ["ENVIRONMENT", "REGION", "Seaweed", "free_ports"]

ACCESS_KEY = "test-access"
SECRET_KEY = "test-secret"  # noqa: S105  # of a server that lives as long as the tests
REGION = "test-1"
VOLUME_MIB = 64

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}
"""What a process needs to be let in."""


def access() -> Access:
    """Return the keys of the tests; the assumer's and the one that signs sessions are new each time."""
    assumer = Credentials("test-assumer", secrets.token_hex(16))
    return Access([Credentials(ACCESS_KEY, SECRET_KEY)], assumer, base64.b64encode(secrets.token_bytes(32)).decode())


class Seaweed:
    """The server, with its data in a folder. It answers signed requests only."""

    def __init__(self, folder: Path) -> None:
        self._access = access()
        self.weed = Weed(folder, self._access, region=REGION, volume_mib=VOLUME_MIB).start()
        self.host, self.port, self.endpoint = LOOPBACK, self.weed.port, self.weed.endpoint

    def wait_until_started(self) -> Seaweed:
        """Wait until an object can be put."""
        self.weed.wait_until_ready()
        return self

    def client(self, session: Credentials | None = None) -> Any:
        """Return a boto3 client that goes to the server itself, with a session's credentials or the tests' own."""
        import boto3
        from botocore.config import Config

        given = session or self._access.operators[0]
        return boto3.client(
            "s3",
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id=given.access_key_id,
            aws_secret_access_key=given.secret_access_key,
            aws_session_token=given.session_token,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    def tokens(self) -> TokenService:
        """Return its token service, as the hub uses it."""
        return TokenService(self._access.assumer, region=REGION, endpoint=self.endpoint, role_arn=DEVICE_ROLE_ARN)

    def stop(self) -> None:
        """End the server; its data is thrown away anyway."""
        self.weed.stop()
