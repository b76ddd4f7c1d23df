"""A network that fails on command: a proxy between the agent and a server on the loopback."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

CHUNK_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """Each request is answered with this error in place of the server."""

    status: int
    code: str
    message: str = "as the test says"

    def render(self) -> bytes:
        """Return the answer, as S3 writes it."""
        body = f"<?xml version='1.0'?><Error><Code>{self.code}</Code><Message>{self.message}</Message></Error>".encode()
        head = f"HTTP/1.1 {self.status} Error\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"Connection: close\r\n\r\n" + body


@dataclass(frozen=True, slots=True)
class Portal:
    """Each request is answered as a captive portal does: all is well, here is a page."""

    page: bytes

    def render(self) -> bytes:
        """Return the answer."""
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(self.page)}\r\n"
        return head.encode() + b"Connection: close\r\n\r\n" + self.page


@dataclass(frozen=True, slots=True)
class CutRequest:
    """The connection breaks once so many more bytes have gone to the server; this happens once."""

    after_bytes: int


@dataclass(frozen=True, slots=True)
class CutDownload:
    """The connection breaks once so many more bytes have come from the server; this happens once."""

    after_bytes: int


@dataclass(frozen=True, slots=True)
class CutAnswer:
    """The server gets every request and its answers never arrive."""


@dataclass(frozen=True, slots=True)
class Slow:
    """So many bytes a second get through on a connection, each way."""

    bytes_per_second: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nobody listens."""


Fault = Answer | Portal | CutRequest | CutDownload | CutAnswer | Slow | Refuse


class FaultProxy:
    """Passes connections on to a server, and does to them what `fault` says."""

    def __init__(self, port: int) -> None:
        """Take the server's port."""
        self._server_port = port
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._left_bytes = 0
        self.sent_bytes = 0
        """What has gone to the server, heads of requests included."""
        self.received_bytes = 0
        """What has come from it."""
        self.arrivals: list[float] = []
        """When each connection came, by the monotonic clock."""
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self._listen()
        self.endpoint = f"http://127.0.0.1:{self.port}"

    @property
    def fault(self) -> Fault | None:
        """What is wrong with the network, or None."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault | None) -> None:
        with self._lock:
            self._fault = fault
            self._left_bytes = fault.after_bytes if isinstance(fault, CutRequest | CutDownload) else 0
        if isinstance(fault, Refuse):
            self._deafen()
        elif self._listener is None:
            self._listen()

    def close(self) -> None:
        """End all connections and threads."""
        self._deafen()
        for thread in self._threads:
            thread.join(10)

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(16)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._start(self._accept, listener)

    def _deafen(self) -> None:
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        with self._lock:
            left = list(self._open)
        for one in left:
            _reset(one)

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]  # our own methods
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.arrivals.append(time.monotonic())
            try:
                server = socket.create_connection(("127.0.0.1", self._server_port))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            self._start(self._up, client, server)
            self._start(self._down, client, server)

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(CHUNK_BYTES):
                fault = self._fault
                if isinstance(fault, (Answer, Portal)):
                    while b"\r\n\r\n" not in data and (more := client.recv(CHUNK_BYTES)):
                        data += more
                    client.sendall(fault.render())
                    break
                if isinstance(fault, Slow):
                    time.sleep(len(data) / fault.bytes_per_second)
                if isinstance(fault, CutRequest) and self._is_cut(client, server, partial(self._forward, server), data):
                    return
                self._forward(server, data)
        self._end(client, server)

    def _is_cut(
        self, client: socket.socket, server: socket.socket, passes: Callable[[bytes], None], data: bytes
    ) -> bool:
        """Whether the connection breaks within these bytes, of which those before the cut are passed on."""
        with self._lock:
            passed = data[: self._left_bytes]
            self._left_bytes -= len(data)
            if self._left_bytes > 0:
                return False
            self._fault = None
        passes(passed)
        _reset(client)
        _reset(server)
        self._end(client, server)
        return True

    def _forward(self, server: socket.socket, data: bytes) -> None:
        with self._lock:
            self.sent_bytes += len(data)
        server.sendall(data)

    def _answer(self, client: socket.socket, data: bytes) -> None:
        with self._lock:
            self.received_bytes += len(data)
        client.sendall(data)

    def _down(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(CHUNK_BYTES):
                fault = self._fault
                if isinstance(fault, CutAnswer) and not data.startswith(b"HTTP/1.1 100"):
                    break
                if isinstance(fault, Slow):
                    time.sleep(len(data) / fault.bytes_per_second)
                if isinstance(fault, CutDownload) and self._is_cut(client, server, partial(self._answer, client), data):
                    return
                self._answer(client, data)
        self._end(client, server)

    def _end(self, *sockets: socket.socket) -> None:
        with self._lock:
            self._open.difference_update(sockets)
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def _reset(one: socket.socket) -> None:
    """End a connection as a broken network does: with a reset."""
    with suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.shutdown(socket.SHUT_RDWR)
