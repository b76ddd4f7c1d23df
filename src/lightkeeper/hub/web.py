"""What a listener hands to the code behind it, and what it gets back: plain values, no library's objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Request:
    """One request, whole: its body was read within the limits of `server.py`.

    `path` and `query` are as they came, still percent-encoded; `headers` has lower-case names, with every value a name
    was given, in order; `certificate` is the DER of the client's certificate where TLS has checked its chain.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, Sequence[str]]
    body: bytes
    remote: str
    certificate: bytes | None = None

    def header(self, name: str) -> str | None:
        """Return the header's value; where it came more than once, all values joined by commas."""
        values = self.headers.get(name)
        return None if values is None else ",".join(values)


@dataclass(frozen=True, slots=True)
class Response:
    """One answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


App = Callable[[Request], Response]
"""What stands behind a listener: called from many threads at once, and never raises."""
