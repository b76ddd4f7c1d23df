"""The exchange with a key in a real token: SoftHSM's, by the system's curl, against a real TLS server."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lightkeeper import errors
from lightkeeper.providers.base import DeviceCertificate
from lightkeeper.providers.exchange import ANSWER_MAXIMUM_BYTES, THING_HEADER
from lightkeeper.providers.tokenexchange import TokenExchange
from lightkeeper.tokenkey import KeyAddress
from tests.support.certificates import AUTHORITY, make
from tests.support.endpoints import PATH, Endpoint, Tunnel, answered, closed_port, served_by
from tests.support.tokens import PIN, Token, needs_tokens

pytestmark = needs_tokens


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Token:
    """A token with the device's key."""
    return Token(tmp_path_factory.mktemp("token") / "softhsm")


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    """An endpoint that gives credentials."""
    with closing(Endpoint(tmp_path)) as made:
        yield made


class Device:
    """A device with its key in the token, at an endpoint."""

    def __init__(
        self, token: Token, endpoint: Endpoint, *, address: str = "", life: timedelta = timedelta(days=9)
    ) -> None:
        self.token = token
        self.certificate = token.certificate("cam-1", endpoint.authority, life=life)
        self.url = f"https://{address or endpoint.address}{PATH}"
        self.ca = endpoint.ca

    def exchange(self, key: KeyAddress | None = None, **given: Any) -> TokenExchange:
        """Return its exchange."""
        key = key or self.token.address()
        files = DeviceCertificate(self.url, self.ca, self.certificate, key)
        return TokenExchange(files, key, "cam-1", **{"environment": self.token.environment} | given)

    def refused(self, kind: type[errors.AgentError], key: KeyAddress | None = None, **given: Any) -> errors.AgentError:
        """Return what its exchange is refused with, in which there is no PIN."""
        with pytest.raises(errors.DeliveryFailed) as found:
            self.exchange(key, **given).credentials()
        assert type(found.value) is kind, found.value
        assert "secret" not in found.value.diagnostics()
        return found.value


def spy(folder: Path) -> Path:
    """Return a curl that notes its arguments and environment, and then is the system's."""
    folder.mkdir()
    program = folder / "curl"
    program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/noted\nenv >> {folder}/noted\nexec /usr/bin/curl "$@"\n')
    program.chmod(0o755)
    return program


# --- what works ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pin", ["", "pin-value=7c1%3bd%20e9%2540%26secret"])
def test_a_key_in_a_token_brings_credentials(token: Token, endpoint: Endpoint, pin: str) -> None:
    """With the PIN in a file, or in the address; the header names the thing, and the way is the fleet's role alias."""
    got = Device(token, endpoint).exchange(token.address(pin=pin)).credentials()
    assert (got.access_key_id, got.secret_access_key, got.session_token) == ("AK", "secret-word", "token-word")
    assert endpoint.requests == [f"GET {PATH} HTTP/1.1"]
    assert f"{THING_HEADER}: cam-1\r\n" in endpoint.headers[0]


def test_neither_arguments_nor_environment_of_the_program_have_the_pin(
    token: Token, endpoint: Endpoint, tmp_path: Path
) -> None:
    """Other users may list both; and no variable of the agent's is handed on but those for tokens."""
    program = spy(tmp_path / "spy")
    environment = {**token.environment, "AWS_SECRET_ACCESS_KEY": "of another program"}
    Device(token, endpoint).exchange(curl=str(program), environment=environment).credentials()
    noted = (tmp_path / "spy" / "noted").read_text()
    assert noted.splitlines()[0] == "-q -K -"
    assert "SOFTHSM2_CONF=" in noted
    assert "secret" not in noted
    assert "AWS_" not in noted


def test_a_proxy_carries_the_exchange(token: Token, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of HTTPS_PROXY, as without a token; a host in NO_PROXY is reached without."""
    with closing(Tunnel(endpoint.port)) as tunnel:
        monkeypatch.setenv("https_proxy", f"http://user:word@{tunnel.address}")
        Device(token, endpoint).exchange().credentials()
        assert tunnel.asked[0].startswith(f"CONNECT {endpoint.address} HTTP/1.1\r\n")
        assert "Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n" in tunnel.asked[0]
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        Device(token, endpoint).exchange().credentials()
        assert len(tunnel.asked) == 1


def test_an_address_of_ipv6_is_reached(token: Token, tmp_path: Path) -> None:
    """Its brackets are no pattern of addresses."""
    with closing(Endpoint(tmp_path, host="::1")) as endpoint:
        Device(token, endpoint).exchange().credentials()
        assert endpoint.requests == [f"GET {PATH} HTTP/1.1"]


# --- the token -------------------------------------------------------------------------------------------------------


def test_a_wrong_pin_is_refused_is_nowhere_and_is_not_tried_again(
    token: Token,
    endpoint: Endpoint,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A token locks after a few wrong ones: the next is tried once the file has another."""
    caplog.set_level(logging.DEBUG)
    pin_file = tmp_path / "pin"
    pin_file.write_text("wrong-secret\n")
    program = spy(tmp_path / "spy")
    asking = Device(token, endpoint).exchange(token.address(pin=f"pin-source=file:{pin_file}"), curl=str(program))
    for why in ("refuses the PIN", "not asked again"):
        with pytest.raises(errors.TokenKeyUnusable, match=why) as found:
            asking.credentials()
        assert "wrong-secret" not in found.value.diagnostics()
    assert (tmp_path / "spy" / "noted").read_text().count("-q -K -\n") == 1
    assert "wrong-secret" not in caplog.text + "".join(capfd.readouterr())
    pin_file.write_text(PIN)
    asking.credentials()
    assert len(endpoint.requests) == 1


def test_a_token_that_is_absent_is_named(token: Token, endpoint: Endpoint) -> None:
    """As are a key that it lacks and a PIN that nobody gave."""
    device, pin = Device(token, endpoint), f"pin-source={token.pin_file}"
    assert "no such token" in str(device.refused(errors.TokenKeyUnusable, token.address(label="other", pin=pin)))
    assert "no such key" in str(device.refused(errors.TokenKeyUnusable, token.address(key="other", pin=pin)))
    without = KeyAddress("pkcs11:token=unit%207;object=device;type=private")
    assert "wants a PIN" in str(device.refused(errors.TokenKeyUnusable, without))
    assert endpoint.requests == []


def test_a_pins_file_that_cannot_be_read_is_named(token: Token, endpoint: Endpoint, tmp_path: Path) -> None:
    """Before the token is asked."""
    found = Device(token, endpoint).refused(errors.TokenKeyUnusable, token.address(pin=f"pin-source={tmp_path}/none"))
    assert found.facts["pin_file"] == f"{tmp_path}/none"


def test_a_key_that_is_not_the_certificates_is_refused(token: Token, endpoint: Endpoint) -> None:
    """The certificate of another key lies beside it."""
    device = Device(token, endpoint)
    device.certificate.write_bytes(make("cam-1", endpoint.authority, AUTHORITY).pem)
    assert "does not belong" in str(device.refused(errors.TokenKeyUnusable))


def test_files_that_are_missing_are_told_apart_from_the_token(token: Token, endpoint: Endpoint, tmp_path: Path) -> None:
    """They are the certificate's and the authority's."""
    device = Device(token, endpoint)
    device.certificate = tmp_path / "none.pem"
    assert "device's certificate cannot be read" in str(device.refused(errors.CertificateFilesUnusable))
    device = Device(token, endpoint)
    device.ca = tmp_path / "none.pem"
    assert device.refused(errors.CertificateFilesUnusable).facts["ca_file"] == str(device.ca)


def test_without_curl_or_the_engine_the_refusal_says_what_to_install(
    token: Token, endpoint: Endpoint, tmp_path: Path
) -> None:
    """And a curl that breaks off at once is told as what it is."""
    device = Device(token, endpoint)
    found = device.refused(errors.TokenToolsMissing, curl="no-such-curl")
    assert "libengine-pkcs11-openssl" in found.diagnostics()
    environment = {**token.environment, "OPENSSL_ENGINES": str(tmp_path), "OPENSSL_MODULES": str(tmp_path)}
    device.refused(errors.TokenToolsMissing, environment=environment)
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\nexit 2\n")
    old.chmod(0o755)
    device.refused(errors.TokenToolsMissing, curl=str(old))


# --- the way ---------------------------------------------------------------------------------------------------------


def test_an_endpoint_that_is_away_is_unreachable(token: Token, endpoint: Endpoint) -> None:
    """Nobody listens, or no such name is known."""
    found = Device(token, endpoint, address=f"127.0.0.1:{closed_port()}").refused(errors.DestinationUnreachable)
    assert found.facts["curl_exit"] == "7"
    found = Device(token, endpoint, address="nowhere.invalid").refused(errors.DestinationUnreachable)
    assert "name is not known" in str(found)


def test_a_token_that_does_not_answer_is_not_waited_for(token: Token, endpoint: Endpoint, tmp_path: Path) -> None:
    """The program is ended, whatever it hangs in."""
    hanging = tmp_path / "hanging"
    hanging.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    hanging.chmod(0o755)
    device, times = Device(token, endpoint), {"deadline_seconds": 0.5, "signing_seconds": 0.5}
    assert "took too long" in str(device.refused(errors.DestinationUnreachable, curl=str(hanging), **times))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_refusal_is_told_with_the_endpoints_own_words(token: Token, endpoint: Endpoint) -> None:
    """As without a token, and 5xx may pass."""
    endpoint.answer = answered(b'{"message": "revoked"}', status=403)
    assert "403: revoked" in str(Device(token, endpoint).refused(errors.DestinationDenied))
    endpoint.answer = answered(b"", status=503)
    Device(token, endpoint).refused(errors.DestinationBusy)


def test_an_answer_that_is_none_or_too_long_is_no_credentials(token: Token, endpoint: Endpoint) -> None:
    """It is read up to a bound, whether it says its length or not."""
    endpoint.answer = answered(b"x" * (ANSWER_MAXIMUM_BYTES + 1))
    assert "no credentials" in str(Device(token, endpoint).refused(errors.DestinationBusy))
    endless = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", *[b"x" * 65536] * 64]
    endpoint.answer = lambda _: endless
    assert "no credentials" in str(Device(token, endpoint).refused(errors.DestinationBusy))


def test_a_clock_that_is_off_is_told_by_the_answers_date(token: Token, endpoint: Endpoint) -> None:
    """With the seconds."""
    endpoint.answer = answered(date=datetime.now(UTC) + timedelta(hours=1))
    found = Device(token, endpoint).refused(errors.ClockWrong)
    assert abs(int(found.facts["skew_seconds"]) + 3600) < 60


def test_an_endpoint_of_another_authority_gets_nothing(token: Token, tmp_path: Path) -> None:
    """Nor does one whose certificate has ended."""
    with closing(Endpoint(tmp_path, server=served_by(make("another", None, AUTHORITY)))) as endpoint:
        Device(token, endpoint).refused(errors.DestinationUntrusted)
        assert endpoint.requests == []
    authority = make("hub", None, AUTHORITY)
    server = served_by(authority, end=datetime(2026, 2, 1, tzinfo=UTC))
    with closing(Endpoint(tmp_path, authority=authority, server=server)) as endpoint:
        assert "ended" in str(Device(token, endpoint).refused(errors.DestinationUntrusted))
        assert endpoint.requests == []


def test_a_certificate_that_the_endpoint_does_not_take_is_denied(token: Token, endpoint: Endpoint) -> None:
    """By an alert: it has ended, or is of another authority."""
    found = Device(token, endpoint, life=timedelta(days=-1)).refused(errors.DestinationDenied)
    assert "ended on" in str(found)
    device = Device(token, endpoint)
    device.certificate = token.certificate("cam-1", make("another", None, AUTHORITY))
    assert device.refused(errors.DestinationDenied).facts["alert"]
