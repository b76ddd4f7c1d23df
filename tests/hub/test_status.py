"""Refusals as the service says them, and faults of the hub's own."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from lightkeeper import errors
from lightkeeper.hub import status
from lightkeeper.hub.api import Api
from lightkeeper.hub.keys import Key, Operator
from lightkeeper.hub.up import now_ms
from tests.support.hubs import RunningHub
from tests.support.signed import signed

REFUSALS = [error for error in errors.concrete_errors().values() if issubclass(error, errors.HubRefusal)]
KEY = ("LKOPTEST", "secret")


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: error.reason)
def test_every_refusal_has_a_code_of_the_services_and_says_ours(error: type[errors.AgentError]) -> None:
    """Code in body and header, our reason and the next step in the message, within the model's length."""
    answer = status.answer(error("m" * 5000), "application/json", data_plane=False)
    body = json.loads(answer.body)
    code = status.code_of(error)
    assert code is not None
    assert 400 <= answer.status < 500
    assert body["__type"] == answer.headers["x-amzn-ErrorType"] == code.name
    assert answer.headers[status.REASON_HEADER] == error.reason
    assert body["Message"] == body["message"]
    assert body["Message"].endswith(f"[{error.reason}]; {error.next_step}")
    assert len(body["Message"]) <= 1024


def broken(*_: Any) -> dict[str, Any]:
    """Fail as nobody foresaw."""
    raise ZeroDivisionError("a secret of the hub's")


def test_a_fault_of_the_hub_is_an_error_that_tells_nothing(hub: RunningHub, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that fails, an answer that does not fit: ERROR under the request's id, and a fixed text outside."""
    handlers = {"ListDevices": broken, "DescribeDevice": lambda *_: {"Surplus": "a secret of the hub's"}}
    key = Key("secret", Operator("LKOPTEST"))
    api = Api(hub.database, hub.hub.settings, lambda _: key, now_ms, handlers)
    given = json.dumps({"DeviceName": "a", "DeviceFleetName": "a"}).encode()
    for operation, body in (("ListDevices", b"{}"), ("DescribeDevice", given)):
        caplog.clear()
        with caplog.at_level(logging.ERROR, "lightkeeper"):
            answer = api(signed(operation, body, KEY))
        assert (answer.status, json.loads(answer.body)["__type"]) == (500, "InternalFailure")
        assert b"secret" not in answer.body
        (record,) = caplog.records
        assert (record.levelname, record.message) == ("ERROR", "call_failed")
        assert vars(record)["request_id"] == answer.headers["x-amzn-RequestId"]
