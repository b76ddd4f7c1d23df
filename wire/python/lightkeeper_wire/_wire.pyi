from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, final

from lightkeeper_wire.answer import Response, Status

__all__ = ["Call", "Server"]

_Handler: TypeAlias = Callable[[bytes, Call], bytes | Response]

@final
class Call:
    @property
    def method(self) -> str: ...
    @property
    def metadata(self) -> tuple[tuple[str, str | bytes], ...]: ...
    @property
    def peer_uid(self) -> int | None: ...
    @property
    def peer_gid(self) -> int | None: ...
    @property
    def peer_pid(self) -> int | None: ...
    def time_remaining(self) -> float | None: ...
    def is_active(self) -> bool: ...

@final
class Server:
    def __new__(
        cls,
        methods: Mapping[str, _Handler],
        *,
        slow: Sequence[str] = ...,
        conversations: Sequence[str] = ...,
        watches: Sequence[str] = ...,
        fallback: _Handler | None = None,
        workers: int,
        slow_workers: int = 4,
        compress_above_bytes: int | None = None,
        refusals: Mapping[str, Status] | None = None,
        max_message_bytes: int = ...,
        max_calls: int = 1024,
        max_open_streams: int = 32,
        max_buffered_bytes: int = ...,
        max_connections: int = 256,
        max_streams: int = 256,
        max_header_list_bytes: int = ...,
        stream_window_bytes: int = ...,
        connection_window_bytes: int = ...,
        max_frame_bytes: int = ...,
        handshake_seconds: float = 5.0,
        stall_seconds: float = 20.0,
        idle_seconds: float = 3600.0,
        max_resets: int = 200,
        resets_per_second: int = 100,
    ) -> Server: ...
    def start(self, address: str) -> str: ...
    def drain(self) -> None: ...
    def wait(self, limit_seconds: float) -> bool: ...
    def close(self, join_seconds: float) -> bool: ...
    def stop(self, grace_seconds: float) -> bool: ...
