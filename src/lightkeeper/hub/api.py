"""The API: from a request to its answer; what stands behind the listener of control and data plane.

Steps, in order: 1. who signed it; 2. which operation; 3. does the input fit; 4. may this caller; 5. the handler; 6.
does the answer fit. Nothing of a request is believed before step 1 has passed.

Invariant: it never raises. A refusal is answered with the service's code; whatever else goes wrong is answered with a
fixed text and logged as ERROR under the request's id.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from lightkeeper.errors import (
    AccessRefused,
    AgentError,
    CallerUnproven,
    DatabaseBusy,
    HubRefusal,
    OperatorOnly,
    OtherDevice,
)
from lightkeeper.hub import status
from lightkeeper.hub.context import Context
from lightkeeper.hub.database import Database
from lightkeeper.hub.keys import Caller, DeviceCaller, Lookup
from lightkeeper.hub.operations import HANDLERS, Handler
from lightkeeper.hub.protocol import CONTROL, Operation, Protocol
from lightkeeper.hub.settings import Settings
from lightkeeper.hub.sigv4 import signing_time_ms, verify
from lightkeeper.hub.web import Request, Response

HEALTH_PATH = "/health"

logger = logging.getLogger(__name__)


class Api:
    """Control plane and device data plane of one hub. Called from many threads at once."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        keys: Lookup,
        clock_ms: Callable[[], int],
        handlers: Mapping[str, Handler] = HANDLERS,
    ) -> None:
        self._database = database
        self._settings = settings
        self._keys = keys
        self._clock_ms = clock_ms
        self._handlers = handlers
        self.protocol = Protocol(handlers)

    def __call__(self, request: Request) -> Response:
        """See `App`."""
        if request.path == HEALTH_PATH and request.method == "GET":
            return Response(200, b'{"status":"ready"}\n', {"Content-Type": "application/json"})
        request_id = str(uuid.uuid4())
        data_plane = request.header("x-amz-target") is None
        content_type = "application/json" if data_plane else "application/x-amz-json-1.1"
        try:
            body = self._answer(request)
            answer = Response(200, body, {"Content-Type": content_type})
        except Exception as error:  # noqa: BLE001 - the outermost edge of a call
            refusal = _as_refusal(error)
            answer = status.answer(refusal, content_type, data_plane=data_plane)
            _log(refusal, request, request_id)
        return Response(answer.status, answer.body, {**answer.headers, "x-amzn-RequestId": request_id})

    def _answer(self, request: Request) -> bytes:
        now_ms = self._clock_ms()
        caller, signature = verify(request, self._keys, now_ms)
        operation = self.protocol.operation(request)
        given = operation.decode(request)
        _require_allowed(operation, caller, given)
        signed_ms = signing_time_ms(request)
        context = Context(self._database, self._settings, caller, now_ms, signature, signed_ms=signed_ms)
        return operation.encode(self._handlers[operation.name](context, given))


def _require_allowed(operation: Operation, caller: Caller, given: Mapping[str, Any]) -> None:
    """Raise `OperatorOnly` or `OtherDevice` unless this caller may do this."""
    if not isinstance(caller, DeviceCaller):
        return
    if operation.service == CONTROL:
        raise OperatorOnly(f"{operation.name} is for operators, not for devices", operation=operation.name)
    named = (given.get("DeviceFleetName"), given.get("DeviceName"))
    if named != (caller.fleet, caller.device):
        raise OtherDevice(
            f"the credentials are those of device {caller.device} of fleet {caller.fleet}",
            device=caller.device,
            fleet=caller.fleet,
        )


def _as_refusal(error: Exception) -> Exception:
    """Return what the database says of its load as a refusal, so that clients try again."""
    if isinstance(error, PoolTimeout) or (isinstance(error, OperationalError) and "locked" in str(error.orig)):
        return DatabaseBusy("the database is busy")
    return error


def _log(error: Exception, request: Request, request_id: str) -> None:
    what = {
        "request_id": request_id,
        "operation": (request.header("x-amz-target") or request.path)[:200],
        "remote": request.remote,
    }
    if isinstance(error, HubRefusal):
        level = logging.WARNING if isinstance(error, CallerUnproven | AccessRefused) else logging.INFO
        logger.log(level, "call_refused", extra={**what, "reason": error.reason, "why": error.message})
        return
    facts = error.facts if isinstance(error, AgentError) else {}
    logger.error("call_failed", exc_info=error, extra={**what, "facts": facts})
