"""Every refusal has a status, and travels with its reason, its facts and the next step."""

from __future__ import annotations

import pytest
from google.rpc import error_details_pb2, status_pb2

from lightkeeper import errors
from lightkeeper.transport import status
from lightkeeper.transport.status import StatusCode

NEVER_ANSWERED = (
    errors.ConfigurationError,
    errors.SocketError,
    errors.SigningError,
    errors.CommandError,
    errors.DeliveryFailed,
    errors.DeploymentFailed,
    errors.ReadingError,
    errors.HubUnusable,
    errors.HubRefusal,
    errors.JobFailed,
)
"""The agent does not start with these, or a command or the hub raises them: no call to the agent ends with one."""

EVERY_ERROR = sorted(errors.concrete_errors().items())


@pytest.mark.parametrize(("reason", "error"), EVERY_ERROR)
def test_every_error_that_a_call_can_raise_has_a_status(reason: str, error: type[errors.AgentError]) -> None:
    """And no other has one."""
    assert (status.status_code(error) is None) == issubclass(error, NEVER_ANSWERED), reason


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ModelNotFound, StatusCode.NOT_FOUND),
        (errors.PackageNotFound, StatusCode.NOT_FOUND),
        (errors.ModelAlreadyLoaded, StatusCode.ALREADY_EXISTS),
        (errors.MemoryShort, StatusCode.RESOURCE_EXHAUSTED),
        (errors.NameInvalid, StatusCode.INVALID_ARGUMENT),
        (errors.TensorShapeMismatch, StatusCode.INVALID_ARGUMENT),
        (errors.SharedMemoryWritable, StatusCode.INVALID_ARGUMENT),
        (errors.SignatureInvalid, StatusCode.FAILED_PRECONDITION),
        (errors.FileChanged, StatusCode.FAILED_PRECONDITION),
        (errors.TargetMismatch, StatusCode.FAILED_PRECONDITION),
        (errors.ModelUnreadable, StatusCode.FAILED_PRECONDITION),
        (errors.Unexpected, StatusCode.INTERNAL),
        (errors.ModelRunFailed, StatusCode.INTERNAL),
        (errors.TimestampInFuture, StatusCode.OUT_OF_RANGE),
        (errors.CaptureIdTaken, StatusCode.ALREADY_EXISTS),
        (errors.CaptureBufferFull, StatusCode.RESOURCE_EXHAUSTED),
        (errors.CaptureDestinationUnusable, StatusCode.FAILED_PRECONDITION),
        (errors.MethodUnknown, StatusCode.UNIMPLEMENTED),
    ],
)
def test_the_status_is_the_one_that_old_clients_know(error: type[errors.AgentError], code: StatusCode) -> None:
    """The wire contract names it for each kind of refusal."""
    assert status.status_code(error) is code


@pytest.mark.parametrize("error", [error for _, error in EVERY_ERROR if status.status_code(error)])
def test_a_refusal_comes_back_as_it_went(error: type[errors.AgentError]) -> None:
    """Class, message and facts survive the wire."""
    sent = error("something is wrong", tensor="x", expected=[1, 2], given=3)
    received = status.error_from_details(status.failure(sent).details)
    assert type(received) is error
    assert received.message == sent.message
    assert received.facts == {"tensor": "x", "expected": "[1, 2]", "given": "3"}


def test_the_details_are_an_error_info_that_other_languages_read() -> None:
    """Reason, domain, facts and next step lie where google.rpc puts them."""
    failure = status.failure(errors.ModelNotFound("no model named 'a' is loaded", model="a"))
    sent = status_pb2.Status.FromString(failure.details)
    info = error_details_pb2.ErrorInfo()
    assert sent.details[0].Unpack(info)
    assert (sent.code, sent.message) == (5, "no model named 'a' is loaded")
    assert (info.reason, info.domain) == ("MODEL_NOT_FOUND", "lightkeeper")
    assert dict(info.metadata) == {"model": "a", "next_step": errors.ModelNotFound.next_step}


def test_endless_facts_are_cut_to_what_a_header_holds() -> None:
    """Clients drop a call whose trailers pass 8 KiB; message and details count, the latter as base64."""
    facts = {f"fact_{number}": "ü" * 10_000 for number in range(20)}
    failure = status.failure(errors.TensorUnknown("ü" * 10_000, **facts))
    percent_encoded = 3 * len(failure.message.encode())
    assert percent_encoded + len(failure.details) * 4 // 3 < 16 * 1024
    assert len(failure.details) < 8 * 1024


def test_names_that_are_no_text_are_spelt_out() -> None:
    """A tensor's name may be any bytes; protobuf's strings may not."""
    name = b"\xff\x00".decode("utf-8", "surrogateescape")
    received = status.error_from_details(status.failure(errors.TensorUnknown(f"no input {name}", tensor=name)).details)
    assert received is not None
    assert received.facts["tensor"] == "\\udcff\x00"


@pytest.mark.parametrize("details", [b"", b"\xff\xff", status_pb2.Status(code=5).SerializeToString()])
def test_details_of_others_are_no_refusal_of_ours(details: bytes) -> None:
    """A client must live with whatever stands between it and the agent."""
    assert status.error_from_details(details) is None


def test_a_reason_from_a_later_agent_is_no_refusal_of_ours() -> None:
    """The client then falls back on the status code."""
    sent = status_pb2.Status(code=5, message="gone")
    sent.details.add().Pack(error_details_pb2.ErrorInfo(reason="FROM_THE_FUTURE", domain="lightkeeper"))
    assert status.error_from_details(sent.SerializeToString()) is None
