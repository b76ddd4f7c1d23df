"""The only map from refusals to gRPC statuses, and from a status's details back to the refusal.

A failed call carries, beside its code and message, a serialized `google.rpc.Status` with one `google.rpc.ErrorInfo`:
`reason`, the domain `lightkeeper`, and the facts with the next step as metadata.

Invariants: every concrete error has a code (by MRO: its category's). What is sent fits the header limit of every known
client: message and each fact are cut at `MESSAGE_LIMIT_CHARACTERS` and `FACT_LIMIT_CHARACTERS`. What nobody foresaw
is INTERNAL with a fixed text, so that no inner detail leaves the agent.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from lightkeeper import errors

DOMAIN = "lightkeeper"
DETAILS_KEY = "grpc-status-details-bin"
NEXT_STEP_KEY = "next_step"
MESSAGE_LIMIT_CHARACTERS = 800
FACT_LIMIT_CHARACTERS = 300
FACTS_LIMIT = 8
"""Clients refuse a call whose trailers pass 8 KiB: message (twice), facts and base64 stay below 7 KiB."""


class StatusCode(IntEnum):
    """The gRPC status codes the agent answers with; the numbers are gRPC's."""

    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


STATUS: dict[type[errors.AgentError], StatusCode] = {
    errors.InvalidRequest: StatusCode.INVALID_ARGUMENT,
    errors.OutOfRange: StatusCode.OUT_OF_RANGE,
    errors.NotFound: StatusCode.NOT_FOUND,
    errors.AlreadyExists: StatusCode.ALREADY_EXISTS,
    errors.ResourcesExhausted: StatusCode.RESOURCE_EXHAUSTED,
    errors.DestinationUnusable: StatusCode.FAILED_PRECONDITION,
    errors.PackageRefused: StatusCode.FAILED_PRECONDITION,
    errors.SwapRefused: StatusCode.FAILED_PRECONDITION,
    errors.NotImplementedHere: StatusCode.UNIMPLEMENTED,
    errors.InternalError: StatusCode.INTERNAL,
    errors.Unavailable: StatusCode.UNAVAILABLE,
    errors.Unauthenticated: StatusCode.UNAUTHENTICATED,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """How a failed call is answered. `details` is a serialized `google.rpc.Status`."""

    code: StatusCode
    message: str
    details: bytes


def status_code(error: type[errors.AgentError]) -> StatusCode | None:
    """Return the code of an error class, or None for one that no call can raise (configuration, socket, signing)."""
    return next((STATUS[base] for base in error.__mro__ if base in STATUS), None)


def failure(error: errors.AgentError) -> Failure:
    """Return the answer to a call that ended with this error."""
    code = status_code(type(error)) or StatusCode.INTERNAL
    message = _sendable(error.message, MESSAGE_LIMIT_CHARACTERS)
    facts = list(error.facts.items())[:FACTS_LIMIT]
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    info.metadata.update({key: _sendable(value, FACT_LIMIT_CHARACTERS) for key, value in facts})
    if error.next_step:
        info.metadata[NEXT_STEP_KEY] = error.next_step
    status = status_pb2.Status(code=code, message=message)
    status.details.add().Pack(info)
    return Failure(code, message, status.SerializeToString())


def error_from_details(details: bytes) -> errors.AgentError | None:
    """Return the refusal that a status's details carry, or None where they carry none that this build knows."""
    try:
        status = status_pb2.Status.FromString(details)
    except DecodeError:
        return None
    for packed in status.details:
        info = error_details_pb2.ErrorInfo()
        if packed.Unpack(info) and info.domain == DOMAIN:
            error = errors.concrete_errors().get(info.reason)
            if error:
                facts = {key: value for key, value in sorted(info.metadata.items()) if key != NEXT_STEP_KEY}
                return error(status.message, **facts)
    return None


def _sendable(text: str, limit_characters: int) -> str:
    """Return text that UTF-8 can carry (a tensor's name may be any bytes), cut to a length."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= limit_characters else text[: limit_characters - 1] + "…"
