"""A gRPC server in Rust that calls Python handlers with bytes."""

from lightkeeper_wire._wire import Call, Server
from lightkeeper_wire.answer import Response, Status

__all__ = ["Call", "Response", "Server", "Status"]
