"""What an answer of AWS's services, or of those that speak like them, means for a delivery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightkeeper.errors import (
    ClockWrong,
    DeliveryFailed,
    DestinationBusy,
    DestinationDenied,
    DestinationMissing,
    DestinationRefusing,
    DestinationUnreachable,
    ObjectRefused,
)

CONNECT_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 30

FAULTS: Mapping[str, type[DeliveryFailed]] = {
    "RequestTimeTooSkewed": ClockWrong,
    "RequestExpired": ClockWrong,
    "NoSuchBucket": DestinationMissing,
    "BadDigest": DestinationBusy,
    "IncompleteBody": DestinationBusy,
    "InternalError": DestinationBusy,
    "RequestTimeout": DestinationBusy,
    "RequestTimeoutException": DestinationBusy,
    "ServiceUnavailable": DestinationBusy,
    "SlowDown": DestinationBusy,
    "Throttling": DestinationBusy,
    "ThrottlingException": DestinationBusy,
    "TooManyRequestsException": DestinationBusy,
    "AccessDenied": DestinationDenied,
    "ExpiredToken": DestinationDenied,
    "InvalidAccessKeyId": DestinationDenied,
    "InvalidToken": DestinationDenied,
    "SignatureDoesNotMatch": DestinationDenied,
    "TokenRefreshRequired": DestinationDenied,
    "EntityTooLarge": ObjectRefused,
    "KeyTooLongError": ObjectRefused,
    "MetadataTooLarge": ObjectRefused,
}
"""What S3's error codes mean; the status decides where the code says nothing."""

SIGNATURE_CODES = frozenset({"InvalidSignatureException", "SignatureDoesNotMatch"})
SIGNED_AT_ANOTHER_TIME = ("Signature expired", "Signature not yet current")
"""How services other than S3 say that the clocks differ: under the code of a wrong signature."""

STATUSES: Mapping[int, type[DeliveryFailed]] = {
    401: DestinationDenied,
    403: DestinationDenied,
    407: DestinationUnreachable,
    408: DestinationBusy,
    413: ObjectRefused,
    429: DestinationBusy,
}


def timeouts(attempts: int = 1) -> dict[str, Any]:
    """Return how long a client of boto3 waits, and how often it asks: what comes of a failure is decided elsewhere."""
    return {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "read_timeout": READ_TIMEOUT_SECONDS,
        "retries": {"total_max_attempts": attempts},
    }


def service_refusal(error: Any) -> tuple[type[DeliveryFailed], int, str]:
    """Return what a `ClientError` means, with its status and code."""
    said = error.response.get("Error", {})
    status, code = status_of(error), str(said.get("Code", ""))
    kind = FAULTS.get(code) or STATUSES.get(status)
    if code in SIGNATURE_CODES and str(said.get("Message", "")).startswith(SIGNED_AT_ANOTHER_TIME):
        kind = ClockWrong
    if kind is None:
        kind = DestinationBusy if status >= 500 else DestinationRefusing  # noqa: PLR2004  # the service's own fault
    return kind, status, code


def status_of(error: Any) -> int:
    """Return the HTTP status of a `ClientError`, 0 where it has none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
