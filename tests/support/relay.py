"""A Unix socket in front of a server's, which tells what passes: how many bytes, and which HTTP/2 frames."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.support import http2

CHUNK_BYTES = 65_536


class Relay:
    """Passes on what clients send to the server and what it answers."""

    def __init__(self, path: Path, server: Path) -> None:
        """Listen at `path` for clients of the server."""
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._sockets = [self._listener]
        self._requests: list[bytearray] = []
        self._responses: list[bytearray] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        for one in self._sockets:
            with suppress(OSError):  # the other end was quicker
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()

    def request_bytes(self) -> int:
        """Return how much the clients have sent."""
        return sum(map(len, self._requests))

    def response_bytes(self) -> int:
        """Return how much the server has answered."""
        return sum(map(len, self._responses))

    def pings(self) -> int:
        """Return how many pings of the clients' the server has answered."""
        asked = [frame.payload for sent in self._requests for frame in _frames(sent[len(http2.PREFACE) :], http2.PING)]
        answered = [frame.payload for sent in self._responses for frame in _frames(sent, http2.PING, http2.ACK)]
        return len([payload for payload in answered if payload in asked])

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # shut down
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._server))
            self._sockets += [client, server]
            for source, sink, seen in ((client, server, self._requests), (server, client, self._responses)):
                seen.append(bytearray())
                self._threads.append(threading.Thread(target=_pass_on, args=(source, sink, seen[-1])))
                self._threads[-1].start()


def _pass_on(source: socket.socket, sink: socket.socket, seen: bytearray) -> None:
    try:
        while data := source.recv(CHUNK_BYTES):
            seen += data
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return  # one end is gone


def _frames(sent: bytearray, kind: int, flags: int = 0) -> Iterator[http2.Frame]:
    """Yield the whole frames of a kind with exactly these flags."""
    data, start = bytes(sent), 0
    while start + 9 <= len(data):
        end = start + 9 + int.from_bytes(data[start : start + 3], "big")
        found = http2.Frame(data[start + 3], data[start + 4], 0, data[start + 9 : end])
        if (found.kind, found.flags) == (kind, flags) and end <= len(data):
            yield found
        start = end
