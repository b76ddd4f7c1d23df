"""The boto3 clients that the hub itself uses: of S3's administration and of its token service.

One request is tried `ATTEMPTS` times within seconds: whoever waits for it is a device, or a person.
"""

from __future__ import annotations

from typing import Any

from lightkeeper.errors import ExtraMissing
from lightkeeper.providers.aws import Credentials

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 3, 10, 2

Client = Any


def client(service: str, credentials: Credentials | None, *, endpoint: str | None, region: str) -> Client:
    """Return a client; without credentials it takes boto3's usual chain. Raises `ExtraMissing`."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise ExtraMissing("the hub needs boto3, which is not installed", extra="hub") from error
    session = boto3.session.Session(
        aws_access_key_id=credentials and credentials.access_key_id,
        aws_secret_access_key=credentials and credentials.secret_access_key,
        aws_session_token=credentials and credentials.session_token,
        region_name=region,
    )
    return session.client(
        service,
        endpoint_url=endpoint,
        config=Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"total_max_attempts": ATTEMPTS},
            s3={"addressing_style": "path"} if endpoint else {},
        ),
    )


def faults() -> tuple[type[Exception], ...]:
    """Return what a client raises: the service's own refusals, and what came between."""
    from botocore.exceptions import BotoCoreError, ClientError

    return BotoCoreError, ClientError
