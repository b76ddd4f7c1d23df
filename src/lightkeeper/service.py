"""The local API's methods, one each, with frozen values in and out. Knows no protobuf and no gRPC."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Protocol

from lightkeeper.capture.ledger import State
from lightkeeper.capture.request import CaptureRequest, CaptureStatus
from lightkeeper.capture.sampling import Sampling
from lightkeeper.errors import AgentError, FlushTimeInvalid
from lightkeeper.model import ModelDescription, PackageIdentity
from lightkeeper.models.lifecycle import Models
from lightkeeper.models.report import ModelStatus, Progress, SwapReport
from lightkeeper.registry import Registry
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


class Captures(Protocol):
    """Keeps captures, and knows what became of them. Each method raises what its disk refuses with."""

    @property
    def sampling(self) -> Sampling | None:
        """What looks at predictions, where capture rules ask for it."""

    def record(self, request: CaptureRequest, package: PackageIdentity) -> None:
        """Keep a capture; it is durable, as configured, when this returns."""

    def state_of(self, capture_id: str) -> State | None:
        """Return where a capture stands, or None for an id that the ledger does not know."""

    def flush(self, timeout_seconds: float) -> bool:
        """Close what is open and deliver what waits; return whether all of it is done within the time."""


class AgentService:
    """What the agent does for applications. Every method may be called from any number of threads at once."""

    def __init__(self, *, registry: Registry, models: Models, captures: Captures) -> None:
        self._registry = registry
        self._models = models
        self._captures = captures

    def load_model(self, url: str, name: str) -> ModelDescription:
        """Verify the package at a url and publish its model under a name, or adopt the restored one of that name."""
        started = time.monotonic()
        try:
            description = self._models.load(url, name)
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
        self._models.unload(name)
        log.info("model_unloaded", extra={"model": name, "seconds": round(time.monotonic() - started, 3)})

    def swap_model(self, name: str, url: str) -> SwapReport:
        """Put the package at a url in the place of a loaded model, with no failed call (see `models/swapping.py`)."""
        try:
            return self._models.swap(name, url)
        except AgentError as error:
            log.warning(
                "model_swap_refused",
                extra={"model": name, "url": url, "reason": error.reason, "detail": error.message},
            )
            raise

    def swap_progress(self, name: str) -> Progress | None:
        """Return how far the swap of a model is, or None where none is under way."""
        return self._models.swap_progress(name)

    def roll_back_model(self, name: str) -> SwapReport:
        """Put the version before in the place of a loaded model."""
        return self._models.roll_back(name)

    def model_status(self) -> list[ModelStatus]:
        """Return the version of every loaded model, and what it has done."""
        return self._models.status()

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
            arrays = model.run(inputs)
            sampling = self._captures.sampling
            if sampling is not None:
                sampling.consider(name, model.package, inputs, model.description.outputs, arrays)
        finally:
            model.leave()
        return [
            Tensor(metadata.name, metadata.data_type, array.shape, array.data)
            for metadata, array in zip(model.description.outputs, arrays, strict=True)
        ]

    def capture_data(self, request: CaptureRequest) -> None:
        """Keep the tensors of an inference; they are durable, as configured, when this returns."""
        self._captures.record(request, self._registry.package_of(request.model))

    def capture_data_status(self, capture_id: str) -> CaptureStatus:
        """Tell what became of a capture."""
        state = self._captures.state_of(capture_id)
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
