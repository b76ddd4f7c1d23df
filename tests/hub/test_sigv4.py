"""Who signed a request: botocore as the signer, and every way to get it wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightkeeper import errors
from lightkeeper.hub.keys import DeviceCaller, Key, Operator
from lightkeeper.hub.sigv4 import SKEW_SECONDS, verify
from lightkeeper.hub.up import now_ms
from lightkeeper.hub.web import Request
from tests.support.signed import signed

OPERATOR, DEVICE = ("LKOPTEST", "secret"), ("LKDEVICE", "secret-2", "token")
ENDED_MS = 1_000
KEYS = {
    "LKOPTEST": Key("secret", Operator("LKOPTEST")),
    "LKDEVICE": Key("secret-2", DeviceCaller("yard", "cam-1", "LKDEVICE"), "token", 4_000_000_000_000),
    "LKENDED": Key("secret-3", DeviceCaller("yard", "cam-1", "LKENDED"), "token", ENDED_MS),
}


def request(key: Any = OPERATOR, **options: Any) -> Request:
    """Return a signed request."""
    return signed("ListDevices", b"{}", key, **options)


def changed(given: Request, **headers: str) -> Request:
    """Return a request with other headers (None: without)."""
    return replace(given, headers={**given.headers, **{name.replace("_", "-"): [v] for name, v in headers.items()}})


def without(given: Request, name: str) -> Request:
    """Return a request without a header."""
    return replace(given, headers={known: value for known, value in given.headers.items() if known != name})


def test_botocores_signature_is_that_of_the_operator_or_the_device() -> None:
    """With any region, and with the token of a session."""
    assert verify(request(), KEYS.get, now_ms())[0] == Operator("LKOPTEST")
    assert verify(request(region="eu-central-1"), KEYS.get, now_ms())[0] == Operator("LKOPTEST")
    assert verify(request(DEVICE), KEYS.get, now_ms())[0] == DeviceCaller("yard", "cam-1", "LKDEVICE")


def test_headers_may_have_spaces_and_be_signed_in_any_order() -> None:
    """What is signed is the canonical form; proxies may change spaces."""
    spaced = request(headers={"X-Odd": "a   b"})
    assert verify(changed(spaced, x_odd="  a b "), KEYS.get, now_ms())


@pytest.mark.parametrize(
    ("wrong", "refusal"),
    [
        (lambda r: without(r, "authorization"), errors.SignatureAbsent),
        (lambda r: changed(r, authorization="Bearer x"), errors.SignatureIncomplete),
        (lambda r: changed(r, authorization=r.header("authorization")[:-1]), errors.SignatureIncomplete),
        (lambda r: changed(r, authorization=r.header("authorization") + ",x=y"), errors.SignatureIncomplete),
        (lambda r: changed(r, x_amz_date="yesterday"), errors.SignatureIncomplete),
        (lambda r: changed(r, x_amz_date="20200101T000000Z"), errors.SignatureIncomplete),
        (lambda r: without(r, "host"), errors.SignatureIncomplete),
        (lambda r: without(r, "x-amz-date"), errors.SignatureIncomplete),
        (lambda r: changed(r, **{"x-amz-security-token": "t"}), errors.SignatureIncomplete),
        (lambda _: request(service="s3"), errors.SignatureIncomplete),
        (lambda _: request(("LKNOBODY", "x")), errors.AccessKeyUnknown),
        (lambda _: request(("LKOPTEST", "secret", "token")), errors.AccessKeyUnknown),
        (lambda _: request(("LKDEVICE", "secret-2")), errors.AccessKeyUnknown),
        (lambda _: request(("LKDEVICE", "secret-2", "other")), errors.AccessKeyUnknown),
        (lambda _: request(("LKENDED", "secret-3", "token")), errors.SessionEnded),
        (lambda _: request(("LKOPTEST", "wrong")), errors.SignatureWrong),
        (lambda r: replace(r, body=b'{"MaxResults":1}'), errors.SignatureWrong),
        (lambda r: replace(r, path="/other"), errors.SignatureWrong),
        (lambda r: replace(r, query="a=b"), errors.SignatureWrong),
        (lambda r: replace(r, method="PUT"), errors.SignatureWrong),
        (lambda r: changed(r, x_amz_target="SageMaker.DeleteDeviceFleet"), errors.SignatureWrong),
    ],
)
def test_a_request_that_proves_nobody_is_refused(
    wrong: Callable[[Request], Request], refusal: type[errors.AgentError]
) -> None:
    """Each with its own reason."""
    with pytest.raises(refusal):
        verify(wrong(request()), KEYS.get, now_ms())


@pytest.mark.parametrize(("off_seconds", "words"), [(SKEW_SECONDS + 60, "earlier"), (-SKEW_SECONDS - 60, "later")])
def test_a_clock_that_is_off_is_refused_with_both_times(off_seconds: int, words: str) -> None:
    """Whoever reads the message sees which clock is wrong, and by how much."""
    at_ms = now_ms() + off_seconds * 1000
    with pytest.raises(errors.SignatureTimeWrong) as caught:
        verify(request(), KEYS.get, at_ms)
    ours = datetime.fromtimestamp(at_ms / 1000, UTC)
    assert words in caught.value.message
    assert caught.value.facts["now"] == f"{ours:%Y%m%dT%H%M%SZ}"
    assert re.fullmatch(r"\d{8}T\d{6}Z", caught.value.facts["signed"])
    assert verify(request(), KEYS.get, now_ms() + (SKEW_SECONDS - 60) * 1000)


@given(text=st.text(max_size=300))
def test_no_header_makes_anything_but_a_refusal(text: str) -> None:
    """Whatever is sent as Authorization, date or token."""
    for name in ("authorization", "x_amz_date", "x_amz_security_token"):
        with pytest.raises(errors.CallerUnproven):
            verify(changed(request(), **{name: text + "~"}), KEYS.get, now_ms())
