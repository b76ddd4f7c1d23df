"""The only map from the hub's refusals to the service's codes and HTTP statuses, and to the bytes of an error's answer.

Invariants: every error below `HubRefusal` has a code, by MRO; anything else is InternalFailure with a fixed text, and
the log has the rest. A message ends with our own reason code and the next step, so that both reach whoever sees only
what the SDK or the CLI prints.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus

from lightkeeper import errors
from lightkeeper.hub.web import Response

MESSAGE_LIMIT_CHARACTERS = 1000
"""The service model's own limit of an error's message is 1024."""


@dataclass(frozen=True, slots=True)
class Code:
    """How the service says it."""

    name: str
    status: int = HTTPStatus.BAD_REQUEST


CODES: dict[type[errors.HubRefusal], Code] = {
    errors.CallInvalid: Code("ValidationException"),
    errors.CallUnreadable: Code("SerializationException"),
    errors.OperationUnknown: Code("UnknownOperationException"),
    errors.BodyTooLarge: Code("RequestEntityTooLargeException", HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    errors.CallAbandoned: Code("RequestTimeoutException", HTTPStatus.REQUEST_TIMEOUT),
    errors.SignatureAbsent: Code("MissingAuthenticationTokenException", HTTPStatus.FORBIDDEN),
    errors.SignatureIncomplete: Code("IncompleteSignatureException", HTTPStatus.FORBIDDEN),
    errors.AccessKeyUnknown: Code("UnrecognizedClientException", HTTPStatus.FORBIDDEN),
    errors.SessionEnded: Code("ExpiredTokenException", HTTPStatus.FORBIDDEN),
    errors.CallerUnproven: Code("InvalidSignatureException", HTTPStatus.FORBIDDEN),
    errors.AccessRefused: Code("AccessDeniedException", HTTPStatus.FORBIDDEN),
    errors.ResourceMissing: Code("ResourceNotFound"),
    errors.ResourceBusy: Code("ResourceInUse"),
    errors.ResourceConflict: Code("ConflictException"),
    errors.ResourceLimit: Code("ResourceLimitExceeded"),
    errors.HubBusy: Code("ThrottlingException"),
}

INTERNAL = Code("InternalFailure", HTTPStatus.INTERNAL_SERVER_ERROR)
INTERNAL_OF_DATA_PLANE = Code("InternalServiceException", HTTPStatus.INTERNAL_SERVER_ERROR)
INTERNAL_TEXT = "an internal fault of the hub; its log says more under this request's id"

REASON_HEADER = "x-lightkeeper-reason"


def code_of(error: type[Exception]) -> Code | None:
    """Return the service's code for a refusal, or None for what is no refusal."""
    return next((CODES[base] for base in error.__mro__ if base in CODES), None)


def answer(error: Exception, content_type: str, *, data_plane: bool) -> Response:
    """Return the answer to a call that ended with this error; both protocols find the code, in body and header."""
    code = code_of(type(error))
    if code is None or not isinstance(error, errors.HubRefusal):
        code, text, reason = INTERNAL_OF_DATA_PLANE if data_plane else INTERNAL, INTERNAL_TEXT, "UNEXPECTED"
    else:
        ending = f" [{error.reason}]; {error.next_step}"
        room = MESSAGE_LIMIT_CHARACTERS - len(ending)
        text = (error.message if len(error.message) <= room else f"{error.message[: room - 1]}…") + ending
        reason = error.reason
    body = {"__type": code.name, "Message": text, "message": text}
    headers = {"Content-Type": content_type, "x-amzn-ErrorType": code.name, REASON_HEADER: reason}
    return Response(code.status, json.dumps(body).encode(), headers)
