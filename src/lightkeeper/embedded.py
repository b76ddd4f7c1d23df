"""The agent inside another program: what the C ABI calls (`embed/src/library.c`), one function for each of its own.

Every function takes plain values, as C can make them, and returns an `Answer`; none raises. A tensor is a tuple of name
or None, data type, shape or None, and bytes; those of a caller are views of its memory, which are read in place and let
go of before a function returns.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

from lightkeeper import resources
from lightkeeper.errors import AgentError, ConfigurationError, TensorTypeMismatch, Unexpected
from lightkeeper.tensor import DataType, Tensor, TensorMetadata

if TYPE_CHECKING:
    from lightkeeper.capture.request import AuxiliaryData
    from lightkeeper.service import AgentService

Answer = tuple[int, str, str, str, object]
"""A status (0, or a gRPC code), the reason, the message, the next step, and the result."""

CTensor = tuple[str | None, int, tuple[int, ...] | None, memoryview]
CAuxiliary = tuple[str, memoryview]
CDescription = tuple[str, int, tuple[int, ...]]

OK, FAILED_PRECONDITION, INTERNAL = 0, 9, 13
Arguments = ParamSpec("Arguments")

log = logging.getLogger(__name__)


class Handle:
    """One agent of the process."""

    def __init__(self, config_path: str) -> None:
        """Start the agent. Raises a `ConfigurationError`."""
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's own threads: never used here
        resources.settle_memory()

        from lightkeeper import config, logs
        from lightkeeper.agent.inside import compose

        logs.configure()
        settings = config.load(Path(config_path))
        if settings.log_verbose:
            logs.configure("DEBUG")
        with ExitStack() as stack:
            inside = compose(settings, stack)
            stack.callback(inside.close_models)
            inside.start(stack)
            self._ends = stack.pop_all()
        self.service: AgentService = inside.service
        log.info("agent_started", extra={"address": "none: inside another program", "device": settings.device_name})

    def stop(self) -> None:
        """Let the calls under way finish, drop every model, and let go of the state folder."""
        self._ends.close()
        log.info("agent_stopped")


def answered(function: Callable[Arguments, object]) -> Callable[Arguments, Answer]:
    """Turn what a function returns or raises into an answer."""

    @wraps(function)
    def answer(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        try:
            return OK, "", "", "", function(*args, **kwargs)
        except AgentError as error:
            return refused(error)
        except Exception:
            log.exception("call_failed", extra={"function": function.__name__})
            return refused(Unexpected("the agent failed to answer; its log tells why"))

    return answer


def refused(error: AgentError) -> Answer:
    """Return the answer of a refusal."""
    from lightkeeper.transport.status import status_code

    code = status_code(type(error))
    if code is None and isinstance(error, ConfigurationError):
        return FAILED_PRECONDITION, error.reason, error.diagnostics(), error.next_step, None
    return int(INTERNAL if code is None else code), error.reason, error.message, error.next_step, None


@answered
def start(config_path: str) -> Handle:
    """Start an agent."""
    return Handle(config_path)


@answered
def stop(handle: Handle) -> None:
    """Stop an agent."""
    handle.stop()


@answered
def load_model(handle: Handle, url: str, name: str) -> None:
    """See `AgentService.load_model`."""
    handle.service.load_model(url, name)


@answered
def unload_model(handle: Handle, name: str) -> None:
    """See `AgentService.unload_model`."""
    handle.service.unload_model(name)


@answered
def list_models(handle: Handle) -> tuple[str, ...]:
    """Return the names of the loaded models."""
    return tuple(model.name for model in handle.service.list_models())


@answered
def describe_model(handle: Handle, name: str) -> tuple[str, tuple[CDescription, ...], tuple[CDescription, ...]]:
    """Return a model's url, inputs and outputs."""
    model = handle.service.describe_model(name)
    return model.url, tuple(map(_described, model.inputs)), tuple(map(_described, model.outputs))


@answered
def predict(handle: Handle, name: str, inputs: Sequence[CTensor]) -> tuple[tuple[object, ...], ...]:
    """Run a model, and return its outputs as tuples of name, data type, shape and bytes."""
    outputs = handle.service.predict(name, _tensors(inputs))
    for *_, view in inputs:
        view.release()  # a BufferError here would mean that something still reads the caller's memory
    return tuple((output.name, int(output.data_type or 0), output.shape, output.data) for output in outputs)


@answered
def capture_data(  # noqa: PLR0913, PLR0917  # what a capture is made of, in the order of C's call
    handle: Handle,
    model: str,
    capture_id: str,
    seconds: int,
    nanos: int,
    inputs: Sequence[CTensor],
    outputs: Sequence[CTensor],
    auxiliary_inputs: Sequence[CAuxiliary],
    auxiliary_outputs: Sequence[CAuxiliary],
) -> None:
    """Keep an inference; it is durable, as configured, when this returns. A time of 0 and 0 means now."""
    from lightkeeper.capture.request import CaptureRequest

    request = CaptureRequest(
        model,
        capture_id,
        (seconds, nanos) if seconds or nanos else None,
        _tensors(inputs),
        _tensors(outputs),
        _auxiliary(auxiliary_inputs),
        _auxiliary(auxiliary_outputs),
    )
    handle.service.capture_data(request)


@answered
def capture_data_status(handle: Handle, capture_id: str) -> int:
    """Tell what became of a capture."""
    return int(handle.service.capture_data_status(capture_id))


def _tensors(tensors: Sequence[CTensor]) -> list[Tensor]:
    return [
        Tensor(name or "", None if shape is None else _data_type(data_type, name), shape, data)
        for name, data_type, shape, data in tensors
    ]


def _data_type(number: int, tensor: str | None) -> DataType:
    try:
        return DataType(number)
    except ValueError as error:
        raise TensorTypeMismatch(
            f"tensor {tensor or '(by position)'} has the unknown data type {number}", tensor=tensor or "", given=number
        ) from error


def _auxiliary(pieces: Sequence[CAuxiliary]) -> list[AuxiliaryData]:
    from lightkeeper.capture.request import AuxiliaryData

    return [AuxiliaryData(name, data) for name, data in pieces]


def _described(tensor: TensorMetadata) -> CDescription:
    return tensor.name, int(tensor.data_type), tensor.shape
