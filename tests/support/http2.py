"""A client that speaks HTTP/2 by hand, frame by frame: for what no well-behaved client would send."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
CANCEL = 8
TIMEOUT_SECONDS = 20.0

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame's bytes."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def packed(headers: Headers) -> bytes:
    """Return a header block of literals that leave no trace in the peer's table."""
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers)


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    rest, length = len(data) - 127, bytearray([127])
    while rest >= 128:
        length.append(rest % 128 + 128)
        rest //= 128
    return bytes(length) + bytes([rest]) + data


def request_headers(path: str, *more: tuple[str, str], method: str = "POST") -> list[tuple[str, str]]:
    """Return the headers of a gRPC call."""
    pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "%2Ftmp%2Fagent.sock")]
    return [*pseudo, ("content-type", "application/grpc"), ("te", "trailers"), *more]


def message(body: bytes, *, compressed: int = 0) -> bytes:
    """Return a message behind its prefix."""
    return struct.pack(">BI", compressed, len(body)) + body


class Peer:
    """A connection to a Unix socket."""

    def __init__(self, path: Path, *, hello: bool = True) -> None:
        """Connect, and say the preface and empty settings unless told not to."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_SECONDS)
        self._socket.connect(os.fspath(path))
        self._read = b""
        if hello:
            self.send(PREFACE + frame(SETTINGS, 0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> bool:
        """Send bytes, and tell whether the other end took them all."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            return False
        return True

    def call(self, stream: int, path: str, body: bytes, *more: tuple[str, str], end: bool = True) -> bool:
        """Begin a call, and end it unless told not to."""
        head = frame(HEADERS, END_HEADERS, stream, packed(request_headers(path, *more)))
        return self.send(head + frame(DATA, END_STREAM if end else 0, stream, body))

    def frames(self) -> Iterator[Frame]:
        """Yield what comes until the other end closes."""
        while True:
            while len(self._read) < 9 or len(self._read) < 9 + self._length():
                try:
                    more = self._socket.recv(65536)
                except ConnectionResetError:
                    return
                if not more:
                    return
                self._read += more
            end = 9 + self._length()
            kind, flags, stream = struct.unpack(">BBI", self._read[3:9])
            found, self._read = self._read[9:end], self._read[end:]
            yield Frame(kind, flags, stream & 0x7FFFFFFF, found)

    def first(self, *kinds: int) -> Frame | None:
        """Return the next frame of one of these kinds, or None where the other end closes first."""
        return next((found for found in self.frames() if found.kind in kinds), None)

    def stream(self, stream: int) -> bytes:
        """Return all data of a stream, once it has ended; the other end's windows are kept open."""
        data = b""
        for found in self.frames():
            if found.stream != stream:
                continue
            if found.kind == DATA and found.payload:
                data += found.payload
                more = struct.pack(">I", len(found.payload))
                self.send(frame(WINDOW_UPDATE, 0, 0, more) + frame(WINDOW_UPDATE, 0, stream, more))
            if found.flags & END_STREAM or found.kind == RST_STREAM:
                break
        return data

    def is_closed(self) -> bool:
        """Read to the end, and tell whether the other end has closed."""
        try:
            for _ in self.frames():
                pass
        except TimeoutError:
            return False
        return True

    def _length(self) -> int:
        return int.from_bytes(self._read[:3], "big")
