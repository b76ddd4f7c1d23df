"""The client program in Python: reads orders (orders.proto) and reports what grpcio makes of them."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Iterable
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

UNLIMITED = -1

Json = dict[str, Any]
Call = Any
"""A grpc.Call that is a grpc.Future too; grpcio has no type for it."""


def entries(metadata: Iterable[tuple[str, str | bytes]] | None) -> list[Json]:
    """Return metadata as a report has them."""
    pairs = [(key, value if isinstance(value, bytes) else value.encode()) for key, value in metadata or ()]
    return [{"key": key, "value": base64.b64encode(value).decode()} for key, value in pairs]


def refusal(call: Call) -> Json | None:
    """Return the ErrorInfo of a failed call."""
    status = rpc_status.from_call(call)
    info = error_details_pb2.ErrorInfo()
    if status is None or not status.details or not status.details[0].Unpack(info):
        return None
    return {"reason": info.reason, "domain": info.domain, "metadata": dict(info.metadata)}


class Program:
    """The channels, and the calls under way."""

    def __init__(self) -> None:
        self._channels: dict[tuple[str, str], grpc.Channel] = {}
        self._calls: dict[int, Call] = {}
        self._output = threading.Lock()

    def begin(self, order: Json) -> None:
        """Begin one order."""
        if "call" in order:
            self._begin_call(order, order["call"])
            return
        if "cancel" in order:
            self._calls[order["cancel"]["id"]].cancel()
        if "close" in order:
            for where in [where for where in self._channels if where[0] == order["address"]]:
                self._channels.pop(where).close()
        self._tell({"id": order["id"]})

    def _begin_call(self, order: Json, call: Json) -> None:
        metadata = [
            (entry["key"], value if entry["key"].endswith("-bin") else value.decode())
            for entry in call.get("metadata", ())
            for value in [base64.b64decode(entry["value"])]
        ]
        method: Call = self._channel(order["address"], call).unary_unary(call["method"])
        begun = method.future(
            base64.b64decode(call.get("body", "")),
            timeout=call["timeout_ms"] / 1000 if call.get("timeout_ms") else None,
            metadata=metadata,
            wait_for_ready=call.get("wait_for_ready"),
        )
        self._calls[order["id"]] = begun
        begun.add_done_callback(lambda done: self._report(order["id"], done))

    def _channel(self, address: str, call: Json) -> grpc.Channel:
        where = (address, call.get("connection", ""))
        if where not in self._channels:
            options = [("grpc.max_receive_message_length", UNLIMITED), ("grpc.use_local_subchannel_pool", 1)]
            if call.get("keepalive_ms"):
                options += [("grpc.keepalive_time_ms", call["keepalive_ms"]), ("grpc.http2.max_pings_without_data", 0)]
            gzip = grpc.Compression.Gzip if call.get("gzip") else None
            self._channels[where] = grpc.insecure_channel(address, options, compression=gzip)
        return self._channels[where]

    def _report(self, number: int, call: Call) -> None:
        code = call.code()
        report = {
            "id": number,
            "code": code.value[0],
            "message": call.details() or "",
            "initial_metadata": entries(call.initial_metadata()),
            "trailing_metadata": entries(call.trailing_metadata()),
        }
        if code is grpc.StatusCode.OK:
            report["body"] = base64.b64encode(call.result()).decode()
        elif (info := refusal(call)) is not None:
            report["refusal"] = info
        self._tell(report)

    def _tell(self, report: Json) -> None:
        line = json.dumps(report) + "\n"
        with self._output:
            sys.stdout.write(line)
            sys.stdout.flush()


def main() -> None:
    """Take orders until there are no more."""
    program = Program()
    for line in sys.stdin:
        program.begin(json.loads(line))


if __name__ == "__main__":
    main()
