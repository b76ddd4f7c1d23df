"""The standard health service (`grpc.health.v1`): whether the agent takes calls.

Every service of the agent is as the agent is: SERVING until `stop_serving`, NOT_SERVING from then on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from lightkeeper.errors import ServiceUnknown
from lightkeeper.transport import codec
from lightkeeper.transport import health_pb2 as wire
from lightkeeper.transport.method import Caller, Kind, Method

HEALTH = "grpc.health.v1.Health"


class Health:
    """How the agent is, and the methods that tell."""

    def __init__(self, services: Collection[str]) -> None:
        """Take the full names of the services that can be asked for; the empty name stands for all of them."""
        self._services = frozenset(services) | {""}
        self._serving = True

    def stop_serving(self) -> None:
        """Answer NOT_SERVING from now on."""
        self._serving = False

    def methods(self) -> Mapping[str, Method]:
        """Return both methods by their full path."""
        return {
            f"/{HEALTH}/Check": Method(self._check),
            f"/{HEALTH}/Watch": Method(self._watch, kind=Kind.WATCH),
        }

    def _check(self, body: bytes, _caller: Caller) -> bytes:
        service = codec.parse(wire.HealthCheckRequest, body).service
        if service not in self._services:
            raise ServiceUnknown(f"the agent has no service {service}", service=service)
        return self._answer()

    def _watch(self, body: bytes, _caller: Caller) -> bytes:
        if codec.parse(wire.HealthCheckRequest, body).service not in self._services:
            return wire.HealthCheckResponse(status=wire.HealthCheckResponse.SERVICE_UNKNOWN).SerializeToString()
        return self._answer()

    def _answer(self) -> bytes:
        states = wire.HealthCheckResponse
        return states(status=states.SERVING if self._serving else states.NOT_SERVING).SerializeToString()
