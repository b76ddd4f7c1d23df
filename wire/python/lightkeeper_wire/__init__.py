"""A unary gRPC server in Rust that calls Python handlers with bytes."""

from lightkeeper_wire._wire import Call, Server
from lightkeeper_wire.status import Status

__all__ = ["Call", "Server", "Status"]
