"""What the AWS SDK says and expects: its own service model is the only description; the home of botocore in the hub.

Two services answer at one address: the control plane (`sagemaker`, JSON 1.1, the operation in `X-Amz-Target`) and the
device data plane (`sagemaker-edge`, rest-json, the operation in the path).

Invariants: a body is one JSON object in UTF-8 without doubled names, NaN or infinities, no deeper than Python's own
limit; every input and every answer fits its shape (`shapes.py`), and an answer that does not is the hub's own fault.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lightkeeper.errors import (
    AnswerUnfit,
    BodyMalformed,
    BodyTypeUnsupported,
    ExtraMissing,
    OperationUnknown,
    ShapeMismatch,
)
from lightkeeper.hub.shapes import Check, Structure, check_of
from lightkeeper.hub.web import Request

CONTROL = "sagemaker"
DATA = "sagemaker-edge"

_NOTHING = Structure({}, ())


@dataclass(frozen=True)
class Operation:
    """One operation of a service, with the checks of its input and of its answer."""

    service: str
    name: str
    content_type: str
    _input: Check
    _output: Check

    def decode(self, request: Request) -> dict[str, Any]:
        """Return the input. Raises `BodyTypeUnsupported`, `BodyMalformed`, `ShapeMismatch`."""
        given = (request.header("content-type") or "").split(";")[0].strip().lower()
        if given not in {"application/json", "application/x-amz-json-1.1"} and (given or request.body):
            raise BodyTypeUnsupported(
                f"{self.name} takes {self.content_type}, not {given or 'a body without Content-Type'}",
                given=given,
                expected=self.content_type,
            )
        found: dict[str, Any] = self._input.read(parsed(request.body), "")
        return found

    def encode(self, output: Mapping[str, Any]) -> bytes:
        """Return an answer's body. Raises `AnswerUnfit`."""
        try:
            return json.dumps(self._output.write(dict(output), ""), ensure_ascii=False, allow_nan=False).encode()
        except ShapeMismatch as error:
            raise AnswerUnfit(
                f"the answer to {self.name} is not of its shape", operation=self.name, **error.facts
            ) from (error)


class Protocol:
    """The operations that this hub offers, of both services."""

    def __init__(self, offered: Iterable[str]) -> None:
        """Read the service models. Raises `ExtraMissing`, and `ValueError` for an operation that no service has."""
        try:
            import botocore.session
        except ImportError as error:
            raise ExtraMissing("the hub needs botocore, which is not installed", extra="hub") from error
        session = botocore.session.get_session()
        self._models = {service: session.get_service_model(service) for service in (CONTROL, DATA)}
        wanted = set(offered)
        self._offered = {
            operation.name: operation
            for service, model in self._models.items()
            for name in model.operation_names
            if name in wanted
            for operation in [_operation(service, model.operation_model(name))]
        }
        if missing := wanted - set(self._offered):
            raise ValueError(f"no service has the operations {sorted(missing)}")

    @cached_property
    def modelled_errors(self) -> frozenset[str]:
        """The codes that are exception classes of the SDK's clients; the others are what every service may answer."""
        return frozenset(error.name for model in self._models.values() for error in model.error_shapes)

    def shapes(self, operation: str) -> tuple[Any, Any]:
        """Return botocore's own shapes of an operation's input and output; the output may be None."""
        model = self._models[self._offered[operation].service].operation_model(operation)
        return model.input_shape, model.output_shape

    def operation(self, request: Request) -> Operation:
        """Return what is asked for. Raises `OperationUnknown`."""
        target = request.header("x-amz-target")
        if target is not None:
            prefix, _, name = target.rpartition(".")
            service = CONTROL if prefix == "SageMaker" else ""
        else:
            name, service = request.path.removeprefix("/"), DATA
        operation = self._offered.get(name)
        if request.method != "POST" or operation is None or operation.service != service:
            asked = (target or f"{request.method} {request.path}")[:200]
            raise OperationUnknown(f"the hub does not offer {asked}", asked=asked)
        return operation


def parsed(body: bytes) -> Any:
    """Return the JSON of a body; an empty one is an empty object. Raises `BodyMalformed`."""
    if not body:
        return {}
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise BodyMalformed("the body is not UTF-8", position=error.start) from error
    except RecursionError as error:
        raise BodyMalformed("the body is nested too deeply") from error
    except ValueError as error:
        raise BodyMalformed(f"the body is not JSON: {str(error)[:200]}") from error


def _operation(service: str, model: Any) -> Operation:
    content_type = "application/x-amz-json-1.1" if service == CONTROL else "application/json"
    made: dict[str, Check] = {}
    shapes = [check_of(shape, made) if shape else _NOTHING for shape in (model.input_shape, model.output_shape)]
    return Operation(service, model.name, content_type, *shapes)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice in one object")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
