"""How a handler refuses a call."""

from __future__ import annotations


class Status(Exception):  # noqa: N818  # gRPC's word for it
    """Ends a call with a gRPC status: its code (1 to 16), a message, and the bytes of `grpc-status-details-bin`."""

    def __init__(self, code: int, message: str = "", details: bytes = b"") -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.details = details
