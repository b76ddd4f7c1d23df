"""Serves handlers of bytes over gRPC with the native wire (the distribution `lightkeeper-wire`).

Threads: one of the wire's own reads and writes; `worker` threads run quick methods, `slow` ones run methods that may
take seconds, so that any number of loads under way leaves the quick ones alone. The caller of each call is who the
kernel says opened the connection.

Invariants: at most `CALLS_LIMIT` calls are under way or waiting, `OPEN_STREAMS_LIMIT` of them with a stream that stays
open, the next is refused (RESOURCE_EXHAUSTED); a message is at most `max_message_bytes`; requests under way hold at
most `BUFFERED_MESSAGES` such messages. The wire refuses by itself, in the words that it is given here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from threading import Event

from lightkeeper_wire import Call, Response, Server, Status

from lightkeeper.errors import AgentError, SocketDenied, TransportMissing
from lightkeeper.transport import method, status
from lightkeeper.transport.method import Caller, Handler, Kind, Method

log = logging.getLogger(__name__)

BUFFERED_MESSAGES = 4
HURRY_POLL_SECONDS = 0.1
JOIN_SECONDS = 1.0
"""How long threads whose calls are over get to end, once the grace time has passed."""


class NativeServer:
    """A gRPC server on one address."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        *,
        worker_threads: int,
        max_message_bytes: int,
        compress_above_bytes: int | None = None,
    ) -> None:
        """Take the methods by full path. Raises `TransportMissing` where the wire is of another release."""
        max_buffered_bytes = BUFFERED_MESSAGES * max_message_bytes
        try:
            self._server = Server(
                {path: _behavior(each.handler) for path, each in methods.items()},
                slow=[path for path, each in methods.items() if each.slow],
                conversations=[path for path, each in methods.items() if each.kind is Kind.CONVERSATION],
                watches=[path for path, each in methods.items() if each.kind is Kind.WATCH],
                fallback=_behavior(method.unknown_method),
                workers=worker_threads,
                slow_workers=method.SLOW_THREADS,
                compress_above_bytes=compress_above_bytes,
                refusals={
                    "message_too_large": _status(method.message_too_large(max_message_bytes)),
                    "too_many_calls": _status(method.calls_too_many()),
                    "buffers_full": _status(method.buffers_full(max_buffered_bytes)),
                    "stopping": _status(method.stopping()),
                },
                max_calls=method.CALLS_LIMIT,
                max_open_streams=method.OPEN_STREAMS_LIMIT,
                max_message_bytes=max_message_bytes,
                max_buffered_bytes=max_buffered_bytes,
            )
        except TypeError as error:  # a setting that it does not know
            raise TransportMissing(f"the lightkeeper-wire that is installed is of another release: {error}") from error

    def start(self, address: str) -> None:
        """Bind and serve. Raises `SocketDenied`."""
        try:
            self._server.start(address)
        except OSError as error:
            raise SocketDenied(f"{address} cannot be served", address=address) from error

    def stop(self, grace_seconds: float, hurry: Event | None = None) -> bool:
        """Take no new call, let those under way finish within the grace time, and tell whether all of them did.

        Once `hurry` is set, the grace time is over.
        """
        self._server.drain()
        deadline = time.monotonic() + grace_seconds
        while not (hurry and hurry.is_set()):
            left_seconds = max(0.0, deadline - time.monotonic())
            if self._server.wait(min(left_seconds, HURRY_POLL_SECONDS)) or not left_seconds:
                break
        return self._server.close(JOIN_SECONDS)


def _behavior(handler: Handler) -> Callable[[bytes, Call], bytes | Response]:
    def behavior(body: bytes, call: Call) -> bytes | Response:
        try:
            reply = handler(body, Caller(call.peer_uid))
        except AgentError as error:
            raise _status(error) from error
        except Exception as error:
            log.exception("call_failed", extra={"handler": handler.__qualname__})
            raise _status(method.unforeseen()) from error
        if isinstance(reply, bytes):
            return reply
        return Response(reply.parts, initial_metadata=reply.initial_metadata, trailing_metadata=reply.trailing_metadata)

    return behavior


def _status(error: AgentError) -> Status:
    failure = status.failure(error)
    return Status(failure.code, failure.message, failure.details)
