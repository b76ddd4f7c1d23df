"""What a handler answers with, beside plain bytes.

Metadata are pairs of a lower-case name and its value: printable ASCII, or bytes where the name ends in `-bin`.
"""

from __future__ import annotations

from collections.abc import Sequence

Metadata = Sequence[tuple[str, str | bytes]]


class Response:
    """A message in parts, with metadata.

    The parts are sent one after the other as one message, the large ones from where they lie: nobody may write to them
    once the handler has returned. A part is bytes, or a contiguous view of anything's memory.
    """

    __slots__ = ("initial_metadata", "parts", "trailing_metadata")

    def __init__(
        self,
        parts: Sequence[bytes | memoryview],
        *,
        initial_metadata: Metadata = (),
        trailing_metadata: Metadata = (),
    ) -> None:
        self.parts = parts
        self.initial_metadata = initial_metadata
        self.trailing_metadata = trailing_metadata


class Status(Exception):  # noqa: N818  # gRPC's word for it
    """Ends a call with a gRPC status: its code (1 to 16), a message, and the bytes of `grpc-status-details-bin`."""

    def __init__(self, code: int, message: str = "", details: bytes = b"", *, trailing_metadata: Metadata = ()) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.details = details
        self.trailing_metadata = trailing_metadata
