"""The local API's methods, one each, with frozen values in and out. Knows no protobuf and no gRPC."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Protocol

from lightkeeper.capture.recorder import Recorder
from lightkeeper.capture.request import CaptureRequest, CaptureStatus
from lightkeeper.capture.sampling import Sampling
from lightkeeper.capture.spool import Spool, State
from lightkeeper.errors import AgentError, FlushTimeInvalid
from lightkeeper.model import ModelDescription, PackageIdentity
from lightkeeper.names import check_model_name
from lightkeeper.registry import LoadedModel, Registry
from lightkeeper.runtimes.base import Session
from lightkeeper.tensor import Tensor

FLUSH_MOST_SECONDS = 600.0
"""The longest that a flush may hold its call."""

log = logging.getLogger(__name__)


_STATUS = {
    State.OPEN: CaptureStatus.IN_PROGRESS,
    State.WAITING: CaptureStatus.IN_PROGRESS,
    State.WRITTEN: CaptureStatus.SUCCESS,
    State.UPLOADED: CaptureStatus.SUCCESS,
    State.EXPIRED: CaptureStatus.FAILURE,
    State.THINNED: CaptureStatus.FAILURE,
    State.QUARANTINED: CaptureStatus.FAILURE,
}


class Loader(Protocol):
    """Makes a session from a url: verified, opened, warmed up."""

    def load(self, url: str) -> tuple[Session, PackageIdentity]:
        """Return the open session and which package it came from.

        Raises a `PackageRefused`, `PackageNotFound`, a `ResourcesExhausted` or `UrlInvalid`.
        """


class CaptureControl(Protocol):
    """What can be asked of the delivery of captures from outside."""

    def flush(self, timeout_seconds: float) -> bool:
        """Close what is open and deliver what waits; return whether all of it is done within the time."""


class AgentService:
    """What the agent does for applications. Every method may be called from any number of threads at once."""

    def __init__(  # noqa: PLR0913  # collaborators, one for each part of what the agent does
        self,
        *,
        registry: Registry,
        loader: Loader,
        recorder: Recorder,
        spool: Spool,
        captures: CaptureControl,
        sampling: Sampling | None = None,
    ) -> None:
        """Take the collaborators; without `sampling`, no rule looks at predictions."""
        self._registry = registry
        self._loader = loader
        self._recorder = recorder
        self._spool = spool
        self._captures = captures
        self._sampling = sampling

    def load_model(self, url: str, name: str) -> ModelDescription:
        """Verify the package at a url and publish its model under a name."""
        check_model_name(name)
        started = time.monotonic()
        try:
            with self._registry.reserve(name):
                session, package = self._loader.load(url)
                description = ModelDescription(name, url, tuple(session.inputs), tuple(session.outputs))
                self._registry.publish(LoadedModel(description, package, session))
        except AgentError as error:
            log.warning(
                "model_load_refused",
                extra={"model": name, "url": url, "reason": error.reason, "detail": error.message},
            )
            raise
        log.info("model_loaded", extra={"model": name, "url": url, "seconds": round(time.monotonic() - started, 3)})
        return description

    def unload_model(self, name: str) -> None:
        """Wait for the calls that use the model, then give its memory back."""
        started = time.monotonic()
        self._registry.remove(name)
        log.info("model_unloaded", extra={"model": name, "seconds": round(time.monotonic() - started, 3)})

    def list_models(self) -> list[ModelDescription]:
        """Return every loaded model."""
        return self._registry.list()

    def describe_model(self, name: str) -> ModelDescription:
        """Return one loaded model."""
        return self._registry.describe(name)

    def predict(self, name: str, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Run a model once. The tensors' data are read in place and not kept."""
        model = self._registry.acquire(name)
        try:
            inputs = model.binding.bind(tensors)
            arrays = model.session.run(inputs)
            if self._sampling is not None:
                self._sampling.consider(name, model.package, inputs, model.description.outputs, arrays)
        finally:
            model.leave()
        return [
            Tensor(metadata.name, metadata.data_type, array.shape, array.data)
            for metadata, array in zip(model.description.outputs, arrays, strict=True)
        ]

    def capture_data(self, request: CaptureRequest) -> None:
        """Keep the tensors of an inference; they are durable, as configured, when this returns."""
        self._recorder.record(request, self._registry.package_of(request.model))

    def capture_data_status(self, capture_id: str) -> CaptureStatus:
        """Tell what became of a capture."""
        state = self._spool.state_of(capture_id)
        return CaptureStatus.NOT_FOUND if state is None else _STATUS[state]

    def flush_captures(self, timeout_seconds: float) -> bool:
        """Have everything that waits delivered now; return whether it is, within the time."""
        if not 0 <= timeout_seconds <= FLUSH_MOST_SECONDS:
            raise FlushTimeInvalid(
                f"{timeout_seconds:g} seconds is no time to wait for a flush",
                given=timeout_seconds,
                most_seconds=FLUSH_MOST_SECONDS,
            )
        return self._captures.flush(timeout_seconds)
