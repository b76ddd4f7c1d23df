"""What a server of the local API carries: methods as handlers of bytes, for any server that speaks gRPC.

A handler takes a request's bytes and the caller, and returns the response or raises an `AgentError`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from lightkeeper.errors import (
    AgentError,
    AgentStopping,
    BuffersFull,
    CallerWithoutToken,
    CallsTooMany,
    MessageTooLarge,
    MethodUnknown,
    Unexpected,
)

CALLS_LIMIT = 1024
"""The most calls under way or waiting, on any server."""

OPEN_STREAMS_LIMIT = 32
"""The most of them whose stream stays open, on any server."""

SLOW_THREADS = 4
"""The threads for slow methods, on any server."""

Metadata = Sequence[tuple[str, str | bytes]]
"""Pairs of a lower-case name and its value: printable ASCII, or bytes where the name ends in `-bin`."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as far as the transport can tell: the user id of the process at the other end, or None."""

    uid: int | None


@dataclass(frozen=True, slots=True)
class Reply:
    """A response in parts, which are sent as one message, with metadata.

    Large parts may be sent from where they lie: nobody writes to them once the handler has returned.
    """

    parts: Sequence[bytes | memoryview]
    initial_metadata: Metadata = ()
    trailing_metadata: Metadata = ()


Handler = Callable[[bytes, Caller], bytes | Reply]


class Kind(Enum):
    """How many messages go which way."""

    UNARY = "one request, one answer"
    CONVERSATION = "any number of requests, each answered in turn"
    WATCH = "one request, answered at once and again when the server begins to stop"


@dataclass(frozen=True, slots=True)
class Method:
    """One method. A `slow` one may take seconds, and must not hold up the others."""

    handler: Handler
    slow: bool = False
    kind: Kind = Kind.UNARY


def unknown_method(_body: bytes, _caller: Caller) -> bytes:
    """Answer a call of a method that nobody knows."""
    raise MethodUnknown("the service has no such method")


def unproven_caller(_body: bytes, _caller: Caller) -> bytes:
    """Answer a call that does not carry the token."""
    raise CallerWithoutToken("the call does not carry the agent's token")


def message_too_large(max_message_bytes: int) -> AgentError:
    """Return how a request past the limit is refused."""
    return MessageTooLarge(
        f"the request has more than {max_message_bytes} bytes, or unpacks to more", limit_bytes=max_message_bytes
    )


def calls_too_many() -> AgentError:
    """Return how a call or stream past the limit is refused."""
    return CallsTooMany("too many calls are under way", limit_calls=CALLS_LIMIT, limit_open_streams=OPEN_STREAMS_LIMIT)


def buffers_full(limit_bytes: int) -> AgentError:
    """Return how a large request is refused while others fill the buffers."""
    return BuffersFull(f"requests under way hold {limit_bytes} bytes or more", limit_bytes=limit_bytes)


def stopping() -> AgentError:
    """Return how what is still open ends when the server stops."""
    return AgentStopping("the agent is stopping")


def unforeseen() -> AgentError:
    """Return how a call ends whose handler failed in a way that nobody foresaw."""
    return Unexpected("the agent failed to answer; its log tells why")
