"""Where an agent on loopback TCP is and how a caller proves itself: a small file that only the agent's user can read.

It stands in for the socket file where Python and gRPC have no Unix sockets (docs/windows.md). The agent
listens on 127.0.0.1, on a port that the system chooses, and writes the port and a new random token into the file;
whoever may read the file may call, as with a socket whoever may open it. The file is one JSON object:

    {"address": "127.0.0.1:49712", "token": "0f6c…"}

A call carries the token as the metadata `authorization: Bearer TOKEN`.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lightkeeper.system import HAS_UNIX_SOCKETS

SCHEME = "loopback:"
HOST = "127.0.0.1"
AUTHORIZATION = "authorization"

_LIMIT_BYTES = 4096
_PORT_LIMIT = 65535


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A port of this machine, and the token that calls to it carry."""

    port: int
    token: str

    @property
    def target(self) -> str:
        """The gRPC target."""
        return f"{HOST}:{self.port}"

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        return ((AUTHORIZATION, f"Bearer {self.token}"),)

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        return json.dumps({"address": self.target, "token": self.token}).encode() + b"\n"


def admits(metadata: Iterable[tuple[str, str | bytes]], token: str) -> bool:
    """Tell whether a call's metadata carry the token, in a time that tells nothing of it."""
    given = [value for key, value in metadata if key == AUTHORIZATION]
    return len(given) == 1 and hmac.compare_digest(_as_bytes(given[0]), f"Bearer {token}".encode())


def path_of(address: str) -> Path | None:
    """Return the path of an endpoint's file that an address names, or None for an address of another kind.

    `loopback:PATH` everywhere; a bare path too, where it cannot be a Unix socket's.
    """
    if address.startswith(SCHEME):
        return Path(address.removeprefix(SCHEME))
    if HAS_UNIX_SOCKETS or ("/" not in address and "\\" not in address):
        return None
    return Path(address)


def read(path: Path) -> Endpoint | None:
    """Return the endpoint that a file tells of, or None where it is none. Raises `OSError`."""
    with path.open("rb") as file:
        content = file.read(_LIMIT_BYTES)
    try:
        told = json.loads(content)
        host, _, port = told["address"].rpartition(":")
        token = told["token"]
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    if host != HOST or not port.isdecimal() or not isinstance(token, str) or not token.isascii():
        return None
    return Endpoint(int(port), token) if int(port) <= _PORT_LIMIT else None


def _as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
