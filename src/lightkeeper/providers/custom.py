"""Provider `Custom`: a shared object of the device's maker carries the data (docs/custom-provider.md).

Its error values become this project's refusals by one table. It can only put objects whole: an object whose answer was
lost or late is put again, the same bytes under the same name.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

from lightkeeper.errors import (
    DeliveryFailed,
    DestinationBusy,
    DestinationDenied,
    DestinationMissing,
    DestinationRefusing,
    DestinationUnreachable,
    ObjectRefused,
    ProviderUnusable,
)
from lightkeeper.providers import customlibrary as c
from lightkeeper.providers.base import Body, ObjectStore, ProviderOptions, StoredObject
from lightkeeper.providers.fleet import Fleet
from lightkeeper.providers.report import Heartbeat, Metric, ModelReport, Registration

SHUTDOWN_SECONDS = 5.0
"""How long a stopping agent waits for the library."""

log = logging.getLogger(__name__)


class Value(IntEnum):
    """The error values of the C interface."""

    OK = 0
    ERR = 1
    IN_PROGRESS = 2
    ERR_NO_PROVIDER = 3
    ERR_NOT_REG = 4
    BUSY = 5
    UNKNOWN = 6
    NOT_FOUND = 7
    BAD_CONFIG = 8
    INVALID_ARGUMENT = 9
    ALREADY_EXISTS = 10
    FAILED_PRECONDITION = 11
    NO_NETWORK_ACCESS = 12


FAULTS: Mapping[int, type[DeliveryFailed]] = {
    Value.ERR: DestinationRefusing,
    Value.IN_PROGRESS: DestinationBusy,
    Value.ERR_NO_PROVIDER: DestinationRefusing,
    Value.ERR_NOT_REG: DestinationDenied,
    Value.BUSY: DestinationBusy,
    Value.UNKNOWN: DestinationRefusing,
    Value.NOT_FOUND: DestinationMissing,
    Value.BAD_CONFIG: DestinationRefusing,
    Value.INVALID_ARGUMENT: DestinationRefusing,
    Value.ALREADY_EXISTS: DestinationRefusing,
    Value.FAILED_PRECONDITION: DestinationRefusing,
    Value.NO_NETWORK_ACCESS: DestinationUnreachable,
}
"""What error values mean; one that is not in the interface is a refusal too."""


class CustomProvider:
    """See `Provider`. Making one loads the library and calls initProvider, initConfiguration and initCloudClient.

    A cloud client that cannot be made yet is made before the next call that needs it: devices start without a network.
    """

    takes_parts = False

    def __init__(self, options: ProviderOptions, *, call_seconds: float = c.CALL_SECONDS) -> None:
        """Take the library and the configuration. Raises `ProviderUnusable`."""
        if options.library is None:
            raise ProviderUnusable("provider Custom needs a library", given="")
        self._library = c.Library(options.library, call_seconds=call_seconds)
        self._connected = False
        self._cut: set[str] = set()
        try:
            self._must_answer("initProvider", *self._library.start())
            elements = [c.Element(key.encode(), value.encode()) for key, value in options.configuration.items()]
            array = (c.Element * len(elements))(*elements)
            self._must_answer("initConfiguration", *self._library.call("initConfiguration", array, len(elements)))
        except DestinationBusy as fault:
            raise ProviderUnusable(f"the provider's library does not start: {fault.message}", **fault.facts) from fault
        try:
            self._connect()
        except DeliveryFailed as fault:
            log.warning("provider_client_missing", extra={"reason": fault.reason, "problem": fault.message})

    def store(self, bucket: str) -> ObjectStore:
        """Return the store; which bucket it is, the library knows from the configuration."""
        return CustomStore(self, bucket)

    def fleet(self) -> Fleet | None:
        """Return None: the interface knows no deployments."""
        return None

    def registration(self) -> Registration | None:
        """See `Provider.registration`."""
        found = c.Registration()
        self.ask("getDeviceRegistrationFromCloud", ctypes.byref(found))
        return Registration(active=bool(found.active), ttl_seconds=float(max(0, found.ttl)))

    def send_heartbeat(self, heartbeat: Heartbeat) -> None:
        """See `Provider.send_heartbeat`."""
        models = [self._model(model) for model in heartbeat.models]
        metrics = [_metric(metric) for metric in heartbeat.metrics]
        self.ask(
            "sendHeartBeatToCloud",
            (ctypes.POINTER(c.Model) * len(models))(*map(ctypes.pointer, models)),
            len(models),
            (ctypes.POINTER(c.Metric) * len(metrics))(*map(ctypes.pointer, metrics)),
            len(metrics),
        )

    def upload(self, key: str, data: bytes, content_type: str) -> None:
        """Put an object, if the library has a network. Raises a `DeliveryFailed`."""
        self._connect()

        def work() -> c.Answer:
            status = self._library.ask("getNetworkStatus")
            if status[0] != Value.OK:
                return status
            return self._library.ask("uploadSampleDataToCloud", data, len(data), key.encode(), content_type.encode())

        value, reason = self._library.run("uploadSampleDataToCloud", work, token=(key, hash(data)))
        if value != Value.ALREADY_EXISTS:  # the answer to an earlier put of the same bytes was lost
            _require("uploadSampleDataToCloud", value, reason)

    def ask(self, function: str, *arguments: Any) -> None:
        """Call a function. Raises a `DeliveryFailed`."""
        self._connect()
        _require(function, *self._library.call(function, *arguments))

    def close(self) -> None:
        """Call shutdownProvider, if the library returns in time."""
        self._library.end(SHUTDOWN_SECONDS)

    def _connect(self) -> None:
        if not self._connected:
            _require("initCloudClient", *self._library.call("initCloudClient", token="initCloudClient"))  # noqa: S106  # the name of a call
            self._connected = True

    def _must_answer(self, function: str, value: int, reason: str) -> None:
        if value != Value.OK:
            self._library.end(SHUTDOWN_SECONDS)
            raise ProviderUnusable(
                f"the provider's library refuses {function}: {_said(value, reason)}", function=function, value=value
            )

    def _model(self, report: ModelReport) -> c.Model:
        times = (("LatestInference", report.latest_inference), ("LatestSampleTime", report.latest_sample))
        metrics = [Metric(name, time, time) for name, time in times if time is not None]
        metrics += report.metrics
        if len(metrics) > c.MODEL_METRICS and report.name not in self._cut:
            self._cut.add(report.name)
            log.warning(
                "heartbeat_metrics_cut",
                extra={"model": report.name, "metrics": len(metrics), "most": c.MODEL_METRICS},
            )
        kept = [_metric(metric) for metric in metrics[: c.MODEL_METRICS]]
        made = c.Model(name=c.text(report.name, 257), version=c.text(report.version, 65), num_metrics=len(kept))
        made.metrics[: len(kept)] = kept
        return made


class CustomStore:
    """See `ObjectStore`; it can put, and nothing else."""

    def __init__(self, provider: CustomProvider, bucket: str) -> None:
        """Take the provider, and the bucket's name for refusals."""
        self._provider = provider
        self._bucket = bucket

    def put(self, key: str, body: Body, *, content_type: str, metadata: Mapping[str, str]) -> str:
        """Store an object whole. It has no ETag: what is returned is empty."""
        if body.size_bytes > c.MOST_BYTES:
            raise ObjectRefused(
                f"an object of {body.size_bytes} bytes is larger than a Custom provider takes",
                key=key,
                given=body.size_bytes,
                limit=c.MOST_BYTES,
            )
        body.start_sending()
        pieces = []
        while piece := body.read():
            pieces.append(piece)
        self._provider.upload(key, b"".join(pieces), content_type)
        return ""

    def look(self, key: str) -> StoredObject | None:
        """Return None: the library cannot say what is there."""
        return None

    def begin_upload(self, key: str, *, content_type: str, metadata: Mapping[str, str]) -> str:
        """Refuse: objects go whole."""
        raise DestinationRefusing("a Custom provider takes no parts", key=key)

    def put_part(self, key: str, upload: str, number: int, body: Body) -> str | None:
        """Return None: there is no such upload."""
        return None

    def finish_upload(self, key: str, upload: str, etags: list[str]) -> str | None:
        """Return None: there is no such upload."""
        return None

    def abort_upload(self, key: str, upload: str) -> None:
        """There is none."""

    def unfinished_uploads(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield nothing."""
        return iter(())

    def close(self) -> None:
        """The provider is closed by whoever made it."""


def _metric(metric: Metric) -> c.Metric:
    time = datetime.fromtimestamp(metric.time, UTC).isoformat(timespec="milliseconds")
    return c.Metric(metricName=c.text(metric.name, 101), metricValue=metric.value, timestamp=c.text(time, 33))


def _require(function: str, value: int, reason: str) -> None:
    if value != Value.OK:
        kind = FAULTS.get(value, DestinationRefusing)
        raise kind(f"the provider's {function} answered {_said(value, reason)}", function=function, value=value)


def _said(value: int, reason: str) -> str:
    name = Value(value).name if value in set(Value) else "an error it does not define"
    return f"{value} {name}" + (f": {reason}" if reason else "")
