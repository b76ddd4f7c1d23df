"""The streams that stay open on grpcio: each has a thread of its own while it does, and all end with the server.

Invariant: at most `OPEN_STREAMS_LIMIT` are open; one thread more is there to refuse the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import Protocol

from lightkeeper.transport import method


class Context(Protocol):
    """What of grpcio's context is needed here."""

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have something called when the stream is over; False where it is over by now."""

    def cancel(self) -> bool:
        """End the stream."""


class OpenStreams:
    """Which streams are open, and how they learn that it is time to end."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(method.OPEN_STREAMS_LIMIT + 1, thread_name_prefix="stream")
        self._ends: set[Callable[[], object]] = set()
        self._lock = Lock()
        self._stopping = False

    def watch(self, context: Context, answer: Callable[[], bytes]) -> Iterator[bytes]:
        """Give an answer now, and one more when the server stops. Raises `CallsTooMany` or `AgentStopping`."""
        over = Event()
        self._enter(over.set)
        try:
            if context.add_callback(over.set):
                yield answer()
                over.wait()
            if self._stopping:
                yield answer()
                raise method.stopping()
        finally:
            self._leave(over.set)

    def converse(self, context: Context, bodies: Iterator[bytes], answer: Callable[[bytes], bytes]) -> Iterator[bytes]:
        """Answer requests in turn, until the server stops. Raises `CallsTooMany`."""
        self._enter(context.cancel)
        try:
            yield from map(answer, bodies)
        finally:
            self._leave(context.cancel)

    def end(self) -> None:
        """End all of them, now and from now on."""
        with self._lock:
            self._stopping = True
            ends = list(self._ends)
        for end in ends:
            end()

    def _enter(self, end: Callable[[], object]) -> None:
        with self._lock:
            if self._stopping:
                raise method.stopping()
            if len(self._ends) >= method.OPEN_STREAMS_LIMIT:
                raise method.calls_too_many()
            self._ends.add(end)

    def _leave(self, end: Callable[[], object]) -> None:
        with self._lock:
            self._ends.discard(end)
