"""Requests as botocore signs them, handed to the API without a network."""

from __future__ import annotations

import json
import uuid
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from lightkeeper.hub.web import Request

ENDPOINT = "http://127.0.0.1:80"
CONTENT_TYPE = "application/x-amz-json-1.1"


def signed(
    operation: str,
    body: bytes,
    key: tuple[str, str] | tuple[str, str, str],
    *,
    data_plane: bool = False,
    headers: dict[str, str] | None = None,
    region: str = "us-east-1",
    service: str = "sagemaker",
) -> Request:
    """Return a request for an operation, signed now with a key (id, secret, token)."""
    path = f"/{operation}" if data_plane else "/"
    given = {"Content-Type": CONTENT_TYPE, "Host": "127.0.0.1", "amz-sdk-invocation-id": str(uuid.uuid4())}
    if data_plane:
        given["Content-Type"] = "application/json"
    else:
        given["X-Amz-Target"] = f"SageMaker.{operation}"
    asked = AWSRequest("POST", ENDPOINT + path, given | (headers or {}), body)
    SigV4Auth(Credentials(*key), service, region).add_auth(asked)
    return Request("POST", path, "", {name.lower(): [value] for name, value in asked.headers.items()}, body, "test")


def code_of(body: bytes) -> Any:
    """Return the code of an error's answer."""
    return json.loads(body)["__type"]
