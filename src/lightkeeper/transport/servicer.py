"""The local API as handlers of bytes: one a method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from lightkeeper.service import AgentService
from lightkeeper.transport import CONTROL, SERVICE, codec, control_codec, inplace
from lightkeeper.transport import agent_pb2 as wire
from lightkeeper.transport import control_pb2 as control_wire
from lightkeeper.transport.kept_segments import KeptSegments
from lightkeeper.transport.method import Caller, Method, Reply
from lightkeeper.transport.shared_memory import Attachments

_TENSORS = wire.PredictRequest.TENSORS_FIELD_NUMBER


class Servicer:
    """Turns messages into calls of the service and its answers into messages."""

    def __init__(self, service: AgentService) -> None:
        self._service = service
        self._segments = KeptSegments()

    def methods(self) -> Mapping[str, Method]:
        """Return every method by its full path."""
        methods = {
            "Predict": Method(self._predict),
            "LoadModel": Method(self._load_model, slow=True),
            "UnLoadModel": Method(self._unload_model, slow=True),
            "ListModels": Method(self._list_models),
            "DescribeModel": Method(self._describe_model),
            "CaptureData": Method(self._capture_data),
            "GetCaptureDataStatus": Method(self._capture_data_status),
        }
        control = {
            "FlushCaptures": Method(self._flush_captures, slow=True),
            "SwapModel": Method(self._swap_model, slow=True),
            "RollBackModel": Method(self._roll_back_model, slow=True),
            "GetSwapProgress": Method(self._swap_progress),
            "ListModelStatus": Method(self._model_status),
        }
        return {
            f"/{service}/{name}": method
            for service, its in ((SERVICE, methods), (CONTROL, control))
            for name, method in its.items()
        }

    def _predict(self, body: bytes, caller: Caller) -> bytes | Reply:
        body, taken = inplace.lifted(body, inplace.PREDICT)
        request = codec.parse(wire.PredictRequest, body)
        with Attachments(caller.uid, self._segments) as attachments:
            tensors = [
                codec.tensor_from_wire(message, position, attachments, taken.get((_TENSORS, position)))
                for position, message in enumerate(request.tensors)
            ]
            outputs = self._service.predict(request.name, tensors)
        return inplace.predict_reply(outputs)

    def _load_model(self, body: bytes, _caller: Caller) -> bytes:
        request = codec.parse(wire.LoadModelRequest, body)
        response = wire.LoadModelResponse()
        codec.model_to_wire(self._service.load_model(request.url, request.name), response.model)
        return response.SerializeToString()

    def _unload_model(self, body: bytes, _caller: Caller) -> bytes:
        self._service.unload_model(codec.parse(wire.UnLoadModelRequest, body).name)
        return wire.UnLoadModelResponse().SerializeToString()

    def _list_models(self, body: bytes, _caller: Caller) -> bytes:
        codec.parse(wire.ListModelsRequest, body)
        response = wire.ListModelsResponse()
        for model in self._service.list_models():
            codec.model_to_wire(model, response.models.add())
        return response.SerializeToString()

    def _describe_model(self, body: bytes, _caller: Caller) -> bytes:
        response = wire.DescribeModelResponse()
        name = codec.parse(wire.DescribeModelRequest, body).name
        codec.model_to_wire(self._service.describe_model(name), response.model)
        return response.SerializeToString()

    def _capture_data(self, body: bytes, caller: Caller) -> bytes:
        body, taken = inplace.lifted(body, inplace.CAPTURE)
        request = codec.parse(wire.CaptureDataRequest, body)
        with Attachments(caller.uid, self._segments) as attachments:
            self._service.capture_data(codec.capture_from_wire(request, attachments, taken))
        return wire.CaptureDataResponse().SerializeToString()

    def _capture_data_status(self, body: bytes, _caller: Caller) -> bytes:
        capture_id = codec.parse(wire.GetCaptureDataStatusRequest, body).capture_id
        response = wire.GetCaptureDataStatusResponse()
        response.status = cast("wire.CaptureDataStatus", self._service.capture_data_status(capture_id))
        return response.SerializeToString()

    def _flush_captures(self, body: bytes, _caller: Caller) -> bytes:
        request = codec.parse(control_wire.FlushCapturesRequest, body)
        delivered = self._service.flush_captures(request.timeout_seconds)
        return control_wire.FlushCapturesResponse(delivered=delivered).SerializeToString()

    def _swap_model(self, body: bytes, _caller: Caller) -> bytes:
        request = codec.parse(control_wire.SwapModelRequest, body)
        report = self._service.swap_model(request.name, request.url)
        return control_codec.report_to_wire(report).SerializeToString()

    def _roll_back_model(self, body: bytes, _caller: Caller) -> bytes:
        name = codec.parse(control_wire.RollBackModelRequest, body).name
        return control_codec.report_to_wire(self._service.roll_back_model(name)).SerializeToString()

    def _swap_progress(self, body: bytes, _caller: Caller) -> bytes:
        progress = self._service.swap_progress(codec.parse(control_wire.GetSwapProgressRequest, body).name)
        response = control_wire.GetSwapProgressResponse()
        if progress is not None:
            response.stage, response.done, response.total = progress.stage, progress.done, progress.total
        return response.SerializeToString()

    def _model_status(self, body: bytes, _caller: Caller) -> bytes:
        codec.parse(control_wire.ListModelStatusRequest, body)
        statuses = [control_codec.status_to_wire(status) for status in self._service.model_status()]
        return control_wire.ListModelStatusResponse(models=statuses).SerializeToString()
