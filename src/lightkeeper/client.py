"""The client for Python applications: numpy in, numpy out, refusals as the exceptions of `lightkeeper.errors`.

    with Client("unix:/tmp/agent.sock") as client:
        client.load_model("/models/text-1.0.tar.gz", "text")
        outputs = client.predict("text", {"image": image})

Tensors that together pass `shared_memory_above_bytes` travel in a System V shared memory segment instead of the
socket. An agent that may not read the client's segments (another user, another container) makes the client send bytes
from then on, after one WARNING. A segment is marked for removal as soon as it is made: none outlives the process.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from lightkeeper.capture.request import AuxiliaryData, CaptureRequest, CaptureStatus
from lightkeeper.errors import (
    AgentError,
    AgentUnreachable,
    CallTimedOut,
    SharedMemoryRefused,
    TensorTypeMismatch,
    Unexpected,
)
from lightkeeper.model import ModelDescription
from lightkeeper.models.report import ModelStatus, Progress, SwapReport
from lightkeeper.tensor import DataType, Tensor
from lightkeeper.transport import CONTROL, SERVICE, codec, control_codec, endpoint, status
from lightkeeper.transport import agent_pb2 as wire
from lightkeeper.transport import control_pb2 as control_wire
from lightkeeper.transport.segments import Segment, SegmentPool

Array = npt.NDArray[Any]
ResponseType = TypeVar("ResponseType", bound=Message)

SHARED_MEMORY_ABOVE_BYTES = 256 * 1024
_AGENT_GONE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED})

log = logging.getLogger(__name__)


class Client:
    """A connection to an agent. May be used from any number of threads at once."""

    def __init__(
        self,
        address: str,
        *,
        timeout_seconds: float | None = 60.0,
        shared_memory_above_bytes: int | None = SHARED_MEMORY_ABOVE_BYTES,
    ) -> None:
        """Take the agent's address (a path, `unix:PATH`, `loopback:PATH`, another gRPC target) and a call's time.

        `shared_memory_above_bytes=None` sends every tensor as bytes.
        """
        self._endpoint_file = endpoint.path_of(address)
        self._line = None if self._endpoint_file else _Line(target_of(address))
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._shared_memory_above_bytes = shared_memory_above_bytes
        self._segments = SegmentPool()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and give the shared memory back."""
        if self._line is not None:
            self._line.channel.close()
        self._segments.close()

    def load_model(self, url: str, name: str) -> ModelDescription:
        """Have the agent verify a package and load it under a name.

        Raises `ModelAlreadyLoaded`, `PackageNotFound`, a `PackageRefused`, a `ResourcesExhausted` or an
        `InvalidRequest`.
        """
        response = self._call("LoadModel", wire.LoadModelRequest(url=url, name=name), wire.LoadModelResponse)
        return codec.model_from_wire(response.model)

    def unload_model(self, name: str) -> None:
        """Have the agent finish the model's calls and drop it. Raises `ModelNotFound`."""
        self._call("UnLoadModel", wire.UnLoadModelRequest(name=name), wire.UnLoadModelResponse)

    def list_models(self) -> list[ModelDescription]:
        """Return every loaded model."""
        response = self._call("ListModels", wire.ListModelsRequest(), wire.ListModelsResponse)
        return [codec.model_from_wire(model) for model in response.models]

    def describe_model(self, name: str) -> ModelDescription:
        """Return one loaded model's inputs and outputs. Raises `ModelNotFound`."""
        response = self._call("DescribeModel", wire.DescribeModelRequest(name=name), wire.DescribeModelResponse)
        return codec.model_from_wire(response.model)

    def predict(self, name: str, inputs: Mapping[str, Array] | Sequence[Array] | Array) -> dict[str, Array]:
        """Run a model once and return its outputs by name.

        `inputs` are arrays by input name, or in the model's order, or the only one. Raises `ModelNotFound`, an
        `InvalidTensor`, `ModelRunFailed` or `ModelOutOfMemory`.
        """
        arrays = [_carried(key, array) for key, array in _named(inputs)]
        sizes_bytes = [array.nbytes for _, _, array in arrays]
        limit_bytes = self._shared_memory_above_bytes
        if limit_bytes is not None and sum(sizes_bytes) > limit_bytes:
            segment = self._segments.take(sizes_bytes)
            if segment is not None:
                try:
                    return self._predict(name, arrays, segment)
                except SharedMemoryRefused as error:
                    self._shared_memory_above_bytes = None
                    log.warning("shared_memory_refused", extra={"address": self._address, "reason": error.reason})
                finally:
                    self._segments.put_back(segment)
        return self._predict(name, arrays, None)

    def capture_data(  # noqa: PLR0913  # what a capture is made of, each by its name
        self,
        model: str,
        *,
        inputs: Mapping[str, Array] | None = None,
        outputs: Mapping[str, Array] | None = None,
        auxiliary_inputs: Mapping[str, bytes] | None = None,
        auxiliary_outputs: Mapping[str, bytes] | None = None,
        capture_id: str | None = None,
        time_ns: int | None = None,
    ) -> str:
        """Have the agent keep an inference, and return the capture's id: the one given, or a new UUID.

        It is durable when this returns, as the agent is configured. Auxiliary data are named for what they are, such as
        `camera.jpg`. `time_ns` counts from 1970; None means now. Raises `ModelNotFound`, `CaptureIdTaken`,
        `CaptureIdInvalid`, `TimestampInFuture`, an `InvalidTensor`, `CaptureDestinationUnusable`, or a
        `ResourcesExhausted` such as `CaptureBufferFull` and `SpoolFull`.
        """
        request = CaptureRequest(
            model,
            capture_id or str(uuid.uuid4()),
            None if time_ns is None else divmod(time_ns, 1_000_000_000),
            _tensors(inputs or {}),
            _tensors(outputs or {}),
            _auxiliary(auxiliary_inputs or {}),
            _auxiliary(auxiliary_outputs or {}),
        )
        self._call("CaptureData", codec.capture_to_wire(request), wire.CaptureDataResponse)
        return request.id

    def capture_status(self, capture_id: str) -> CaptureStatus:
        """Return what became of a capture; an id that the agent never saw is `NOT_FOUND`."""
        request = wire.GetCaptureDataStatusRequest(capture_id=capture_id)
        response = self._call("GetCaptureDataStatus", request, wire.GetCaptureDataStatusResponse)
        return CaptureStatus(response.status)

    def _predict(self, name: str, arrays: Sequence[_Carried], segment: Segment | None) -> dict[str, Array]:
        request = wire.PredictRequest(name=name)
        for key, data_type, array in arrays:
            tensor = request.tensors.add()
            codec.describe(key, data_type, array.shape, tensor.tensor_metadata)
            if segment is None:
                tensor.byte_data = array.tobytes()
            else:
                handle = tensor.shared_memory_handle
                handle.segment_id, handle.size, handle.offset = segment.id, array.nbytes, segment.write(array)
        response = self._call("Predict", request, wire.PredictResponse)
        return {codec.name_from_wire(output.tensor_metadata.name): _array(output) for output in response.tensors}

    def flush_captures(self, timeout_seconds: float) -> bool:
        """Have the agent deliver every capture that waits; return whether all of it was, within the time (0 to 600 s).

        Raises `FlushTimeInvalid`.
        """
        request = control_wire.FlushCapturesRequest(timeout_seconds=timeout_seconds)
        return self._call("FlushCaptures", request, control_wire.FlushCapturesResponse, service=CONTROL).delivered

    def swap_model(self, name: str, url: str) -> SwapReport:
        """Have the agent put the package at a url in the place of a loaded model, with no failed call.

        The new version first answers the model's last inputs beside the old one. Raises `ModelNotFound`,
        `PackageNotFound`, a `PackageRefused`, a `ResourcesExhausted` or a `SwapRefused`; the old version then goes on.
        """
        request = control_wire.SwapModelRequest(name=name, url=url)
        response = self._call("SwapModel", request, control_wire.SwapModelResponse, service=CONTROL)
        return control_codec.report_from_wire(response)

    def roll_back_model(self, name: str) -> SwapReport:
        """Have the agent put the version before in the place of a loaded model.

        Raises `ModelNotFound`, `PreviousVersionMissing`, `SwapUnderway`, or what loading it raises.
        """
        request = control_wire.RollBackModelRequest(name=name)
        response = self._call("RollBackModel", request, control_wire.SwapModelResponse, service=CONTROL)
        return control_codec.report_from_wire(response)

    def swap_progress(self, name: str) -> Progress | None:
        """Return how far the swap of a model is, or None where none is under way."""
        request = control_wire.GetSwapProgressRequest(name=name)
        response = self._call("GetSwapProgress", request, control_wire.GetSwapProgressResponse, service=CONTROL)
        return Progress(response.stage, response.done, response.total) if response.stage else None

    def model_status(self) -> list[ModelStatus]:
        """Return the version of every loaded model, and what it has done since it was loaded."""
        request = control_wire.ListModelStatusRequest()
        response = self._call("ListModelStatus", request, control_wire.ListModelStatusResponse, service=CONTROL)
        return [control_codec.status_from_wire(model) for model in response.models]

    def _call(
        self, method: str, request: Message, response: type[ResponseType], *, service: str = SERVICE
    ) -> ResponseType:
        line = self._line or self._found(self._endpoint_file)
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = line.channel.unary_unary(f"/{service}/{method}")
        try:
            body = call(request.SerializeToString(), timeout=self._timeout_seconds, metadata=line.metadata)
        except grpc.RpcError as error:
            if line.metadata and error.code() in _AGENT_GONE:
                self._line = None
            raise _refusal(error, self._address) from error
        return response.FromString(body)

    def _found(self, path: Path | None) -> _Line:
        """Return a line to the agent that an endpoint's file tells of now: another agent has another port."""
        try:
            found = endpoint.read(path) if path else None
        except OSError as error:
            text = f"no agent's file can be read at {path}"
            raise AgentUnreachable(text, address=self._address, cause=error.strerror) from error
        if found is None:
            raise AgentUnreachable(f"what lies at {path} is no agent's file", address=self._address)
        self._line = line = _Line(found.target, found.metadata)
        return line


class _Line:
    """A connection, and what every call on it carries."""

    def __init__(self, target: str, metadata: tuple[tuple[str, str], ...] | None = None) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        if metadata is not None:
            options.append(("grpc.enable_http_proxy", 0))  # http_proxy counts for 127.0.0.1 too: it would get the token
        self.channel = grpc.insecure_channel(target, options=options)
        self.metadata = metadata


def target_of(address: str) -> str:
    """Return the gRPC target of an address: a bare path is a Unix socket's."""
    return f"unix:{address}" if address.startswith(("/", ".")) or ":" not in address else address


_Carried = tuple[str, DataType, Array]


def _named(inputs: Mapping[str, Array] | Sequence[Array] | Array) -> list[tuple[str, Array]]:
    if isinstance(inputs, Mapping):
        return list(inputs.items())
    arrays = [inputs] if isinstance(inputs, np.ndarray) else inputs
    return [("", array) for array in arrays]


def _carried(key: str, value: Array) -> _Carried:
    """Return an input as the wire carries it: its type as it is (nothing is converted silently), its bytes in order."""
    array = np.asarray(value)
    data_type = DataType.from_dtype(array.dtype)
    if data_type is None:
        raise TensorTypeMismatch(
            f"input {key or '(by position)'} is of numpy type {array.dtype}, which the local API cannot carry",
            tensor=key,
            expected=", ".join(known.name for known in DataType),
            given=array.dtype,
        )
    return key, data_type, np.asarray(array, data_type.dtype, order="C")


def _tensors(arrays: Mapping[str, Array]) -> list[Tensor]:
    carried = [_carried(key, array) for key, array in arrays.items()]
    return [Tensor(key, data_type, array.shape, array.tobytes()) for key, data_type, array in carried]


def _auxiliary(pieces: Mapping[str, bytes]) -> list[AuxiliaryData]:
    return [AuxiliaryData(name, data) for name, data in pieces.items()]


def _array(output: wire.Tensor) -> Array:
    metadata = output.tensor_metadata
    return np.ndarray(tuple(metadata.shape), DataType(metadata.data_type).dtype, output.byte_data)


def _refusal(error: grpc.RpcError, address: str) -> AgentError:
    """Return the refusal that a failed call carries, or the nearest one where its details say nothing."""
    code, text = error.code(), error.details() or ""
    trailers: dict[str, bytes] = dict(error.trailing_metadata() or ())  # type: ignore[arg-type]  # a metadatum is a pair
    known = status.error_from_details(trailers.get(status.DETAILS_KEY, b""))
    if known:
        return known
    if code is grpc.StatusCode.UNAVAILABLE:
        return AgentUnreachable(f"no agent answers at {address}", address=address, cause=text)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return CallTimedOut(f"the agent at {address} did not answer in time", address=address)
    return Unexpected(f"the call ended with {code.name}: {text}", status=code.name)
