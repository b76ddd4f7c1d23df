"""The exchange of a device's certificate against a real TLS server with real certificates, right and wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from lightkeeper import RELEASED, config, errors
from lightkeeper.agent import cloud
from lightkeeper.providers.base import DeviceCertificate
from lightkeeper.providers.exchange import ANSWER_MAXIMUM_BYTES, THING_HEADER, CredentialExchange
from tests.support.certificates import AUTHORITY, BEGIN, END, Shape, make
from tests.support.endpoints import NAMES, PATH, Endpoint, Tunnel, answered, closed_port, served_by

DAY = timedelta(days=1)
QUICK_SECONDS = 0.3


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    """An endpoint that gives credentials."""
    with closing(Endpoint(tmp_path)) as made:
        yield made


def exchange(files: DeviceCertificate, **given: Any) -> CredentialExchange:
    """Return a device's exchange."""
    return CredentialExchange(files, "cam-1", **given)


def refused(files: DeviceCertificate, kind: type[errors.AgentError], **given: Any) -> errors.AgentError:
    """Return what an exchange is refused with."""
    with pytest.raises(errors.DeliveryFailed) as found:
        exchange(files, **given).credentials()
    assert type(found.value) is kind, found.value
    return found.value


def given(**changed: object) -> bytes:
    """Return the content of a good answer with something changed."""
    good = {"accessKeyId": "AK", "secretAccessKey": "s", "sessionToken": "t", "expiration": "2099-01-01T00:00:00Z"}
    return json.dumps({"credentials": good | changed}).encode()


def test_a_certificate_brings_credentials(endpoint: Endpoint) -> None:
    """With the thing's name in the header, at the role alias's path; no secret is in what a log could have."""
    got = exchange(endpoint.device()).credentials()
    assert (got.access_key_id, got.secret_access_key, got.session_token) == ("AK", "secret-word", "token-word")
    assert timedelta(minutes=59) < got.expiration - datetime.now(UTC) <= timedelta(hours=1)
    assert endpoint.requests == [f"GET {PATH} HTTP/1.1"]
    assert f"{THING_HEADER}: cam-1\r\n" in endpoint.headers[0]
    assert "word" not in repr(got)


def test_renewed_files_are_found_without_a_restart(endpoint: Endpoint) -> None:
    """A certificate that the endpoint does not take is replaced, and the next exchange succeeds."""
    asking = exchange(endpoint.device(issuer=make("another", None, AUTHORITY)))
    with pytest.raises(errors.DestinationDenied):
        asking.credentials()
    endpoint.device()
    asking.credentials()


# --- the way ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_addresses_are_taken_as_hosts(tmp_path: Path, address: str) -> None:
    """Of IPv4 and, in brackets, of IPv6; the certificate names them."""
    with closing(Endpoint(tmp_path, host=address)) as endpoint:
        exchange(endpoint.device()).credentials()
        assert len(endpoint.requests) == 1


@pytest.mark.parametrize("form", ["{0}", "https://{0}", "https://{0}/", "https://{0}/role-aliases/Own/credentials"])
@pytest.mark.parametrize("host", ["localhost", "::1"])
def test_a_configuration_names_the_endpoint_by_its_host_alone_or_in_full(tmp_path: Path, form: str, host: str) -> None:
    """A bare host means the fleet's role alias."""
    listening = "::1" if ":" in host else "127.0.0.1"
    with closing(Endpoint(tmp_path, host=listening)) as endpoint:
        files = endpoint.device()
        address = endpoint.address if ":" in host else f"{host}:{endpoint.port}"
        (tmp_path / "roots").mkdir()
        keys = {
            "sagemaker_edge_core_device_name": "cam-1",
            "sagemaker_edge_core_device_fleet_name": "yard",
            "sagemaker_edge_core_region": "eu-central-1",
            "sagemaker_edge_core_root_certs_path": str(tmp_path / "roots"),
            "sagemaker_edge_core_capture_data_disk_path": str(tmp_path / "captures"),
            "sagemaker_edge_provider_provider": "Aws",
            "sagemaker_edge_provider_s3_bucket_name": "bucket",
            "sagemaker_edge_provider_aws_ca_cert_file": str(files.ca_file),
            "sagemaker_edge_provider_aws_cert_file": str(files.certificate_file),
            "sagemaker_edge_provider_aws_cert_pk_file": str(files.key),
            "sagemaker_edge_provider_aws_iot_cred_endpoint": form.format(address),
        }
        (tmp_path / "config.json").write_text(json.dumps(keys))
        made = cloud.certificate(config.load(tmp_path / "config.json"))
        assert made is not None
        exchange(made).credentials()
        alias = "Own" if "Own" in form else "SageMakerEdge-yard"
        assert endpoint.requests == [f"GET /role-aliases/{alias}/credentials HTTP/1.1"]


@pytest.mark.parametrize("form", ["http://{0}", "{0}", "http://user:pass%20word@{0}"])
def test_the_environments_proxy_carries_the_exchange_without_reading_it(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """It is asked for a tunnel, with the address's own user and password; TLS goes through it to the endpoint."""
    with closing(Tunnel(endpoint.port)) as tunnel:
        monkeypatch.setenv("HTTPS_PROXY", form.format(tunnel.address))
        exchange(endpoint.device(address=f"localhost:{endpoint.port}")).credentials()
        (asked,) = tunnel.asked
    assert asked.startswith(f"CONNECT localhost:{endpoint.port} HTTP/1.")
    assert ("Basic dXNlcjpwYXNzIHdvcmQ=" in asked) == ("user" in form)


@pytest.mark.parametrize("names", ["localhost", ".example,localhost", "*"])
def test_a_host_that_needs_no_proxy_is_asked_itself(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    """NO_PROXY wins over HTTPS_PROXY."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("NO_PROXY", names)
    exchange(endpoint.device(address=f"localhost:{endpoint.port}")).credentials()
    assert len(endpoint.requests) == 1


def test_a_proxy_that_refuses_is_named_and_its_password_is_not(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the log says leads to the proxy."""
    with closing(Tunnel(endpoint.port, refusing=True)) as tunnel:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:hidden@{tunnel.address}")
        fault = refused(endpoint.device(), errors.DestinationUnreachable)
    assert "407" in fault.message
    assert "hidden" not in f"{fault.message} {fault.facts}"


def test_a_refused_connection_is_no_network(endpoint: Endpoint) -> None:
    """Nobody listens."""
    fault = refused(endpoint.device(address=f"127.0.0.1:{closed_port()}"), errors.DestinationUnreachable)
    assert "refused" in fault.message


def test_a_host_that_no_name_server_knows_is_no_network(endpoint: Endpoint) -> None:
    """The name is in what is said."""
    fault = refused(endpoint.device(address="no-such-host.invalid"), errors.DestinationUnreachable)
    assert "no-such-host.invalid" in fault.message


def test_an_endpoint_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    """Neither for the first byte, nor for ever while the content drips in."""

    def silent(_: str) -> Iterator[bytes]:
        time.sleep(3 * QUICK_SECONDS)
        yield b""

    def dripping(_: str) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
        for _ in range(1000):
            time.sleep(QUICK_SECONDS / 10)
            yield b" "

    for answer in (silent, dripping):
        with closing(Endpoint(tmp_path, answer)) as endpoint:
            given = {"timeout_seconds": QUICK_SECONDS, "deadline_seconds": QUICK_SECONDS}
            fault = refused(endpoint.device(), errors.DestinationUnreachable, **given)
            assert endpoint.address in str(fault.facts["endpoint"])


def test_an_endpoint_that_goes_away_in_the_middle_is_no_network(tmp_path: Path) -> None:
    """Half an answer is none."""

    def half(_: str) -> list[bytes]:
        return [b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"credentials"']

    with closing(Endpoint(tmp_path, half)) as endpoint:
        fault = refused(endpoint.device(), errors.DestinationUnreachable)
    assert "credentials endpoint" in fault.message


# --- what it says ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, errors.DestinationDenied),
        (403, errors.DestinationDenied),
        (404, errors.DestinationDenied),
        (408, errors.DestinationBusy),
        (429, errors.DestinationBusy),
        (500, errors.DestinationBusy),
        (503, errors.DestinationBusy),
    ],
)
def test_a_refusal_is_told_with_the_endpoints_own_words(
    endpoint: Endpoint, status: int, kind: type[errors.AgentError]
) -> None:
    """Such as that the certificate was revoked."""
    endpoint.answer = answered(b'{"message": "the certificate was revoked"}', status=status)
    fault = refused(endpoint.device(), kind)
    assert fault.message == f"the credentials endpoint answered {status}: the certificate was revoked"
    assert (fault.facts["status"], fault.facts["thing"]) == (str(status), "cam-1")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"credentials": null}',
        b'{"credentials": {"accessKeyId": "AK"}}',
        given(accessKeyId=None),
        given(secretAccessKey=""),
        given(expiration=5),
        given(expiration="soon"),
        given(expiration="2099-01-01T00:00:00"),
        b"[" * ANSWER_MAXIMUM_BYTES,
        b'{"credentials": "' + b"x" * 3 * ANSWER_MAXIMUM_BYTES + b'"}',
    ],
    ids=lambda body: f"{len(body)}-{body[-20:].decode('latin-1')}",
)
def test_an_answer_that_is_no_credentials_is_the_endpoints_fault(endpoint: Endpoint, body: bytes) -> None:
    """However it is broken; of a huge one no more is read than may be."""
    endpoint.answer = answered(body)
    fault = refused(endpoint.device(), errors.DestinationBusy)
    assert fault.message.endswith("gave an answer that is no credentials")


def test_what_an_endpoint_says_is_cut_to_a_line_of_the_log(endpoint: Endpoint) -> None:
    """A refusal may be a megabyte."""
    endpoint.answer = answered(b'{"message": "' + b"x" * 60_000 + b'"}', status=403)
    assert len(refused(endpoint.device(), errors.DestinationDenied).message) < 300


# --- who it is -------------------------------------------------------------------------------------------------------


def test_an_endpoint_of_another_authority_is_not_trusted(endpoint: Endpoint, tmp_path: Path) -> None:
    """The file of the authority is in the facts: it may be the wrong one."""
    ca = tmp_path / "other.pem"
    ca.write_bytes(make("other", None, AUTHORITY).pem)
    fault = refused(endpoint.device(ca=ca), errors.DestinationUntrusted)
    assert fault.facts["ca_file"] == str(ca)
    assert endpoint.requests == []


def test_an_authority_that_makes_plain_certificates_is_trusted_on_every_python(tmp_path: Path) -> None:
    """OpenSSL's own tools leave out the identifiers that Python asks for by default since 3.13."""
    plain = make("plain", None, Shape(ca=True, uses=("key_cert_sign",), key_identifiers=False))
    names = ((x509.SubjectAlternativeName(NAMES), False),)
    server = make("endpoint", plain, Shape(extras=names, key_identifiers=False))
    with closing(Endpoint(tmp_path, authority=plain, server=server)) as endpoint:
        assert exchange(endpoint.device(Shape(key_identifiers=False))).credentials().access_key_id == "AK"


def test_an_endpoint_of_another_name_is_not_trusted(tmp_path: Path) -> None:
    """Though it is of the authority."""
    authority = make("hub", None, AUTHORITY)
    server = served_by(authority, x509.DNSName("elsewhere.example"))
    with closing(Endpoint(tmp_path, authority=authority, server=server)) as endpoint:
        fault = refused(endpoint.device(address=f"localhost:{endpoint.port}"), errors.DestinationUntrusted)
    assert "localhost" in fault.message


def test_a_device_of_another_authority_is_denied(endpoint: Endpoint) -> None:
    """By the endpoint, while it shakes hands."""
    fault = refused(endpoint.device(issuer=make("other", None, AUTHORITY)), errors.DestinationDenied)
    assert fault.facts["alert"] == "unknown ca"


def test_a_device_whose_certificate_ended_is_told_when(endpoint: Endpoint) -> None:
    """Its own clock and the endpoint agree."""
    ended = datetime.now(UTC).replace(microsecond=0) - DAY
    fault = refused(endpoint.device(Shape(end=ended)), errors.DestinationDenied)
    assert f"the device's certificate ended on {ended:%FT%TZ}" in fault.message


@pytest.mark.parametrize("fault", ["ca", "certificate", "key", "other key", "encrypted key", "no certificate"])
def test_files_that_cannot_be_used_are_named(endpoint: Endpoint, tmp_path: Path, fault: str) -> None:
    """A person sees which files are meant; nobody is asked for a password."""
    files = endpoint.device()
    path = {"ca": files.ca_file, "certificate": files.certificate_file}.get(fault, files.key)
    key = make("other", None, Shape())
    match fault:
        case "other key":
            path.write_bytes(key.key_pem)
        case "encrypted key":
            form = serialization.PrivateFormat.PKCS8
            cipher = serialization.BestAvailableEncryption(b"word")
            path.write_bytes(key.key.private_bytes(serialization.Encoding.PEM, form, cipher))
        case "no certificate":
            files.certificate_file.write_text("nothing")
        case _:
            path.unlink()
    found = refused(files, errors.CertificateFilesUnusable)
    assert set(found.facts) == {"ca_file", "certificate_file", "key_file"}


# --- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 403])
@pytest.mark.parametrize(("hours", "way"), [(-2, "behind"), (2, "ahead")])
def test_a_clock_that_is_off_is_named_with_how_far(endpoint: Endpoint, hours: int, way: str, status: int) -> None:
    """The header `Date` tells it, whatever else the endpoint says."""
    endpoint.answer = answered(None if status == 200 else b"no", status=status)
    fault = refused(endpoint.device(), errors.ClockWrong, now=lambda: datetime.now(UTC) + timedelta(hours=hours))
    assert f" seconds {way} of " in fault.message
    assert abs(int(fault.facts["skew_seconds"]) - hours * 3600) < 30


@pytest.mark.parametrize("dates", [(datetime.now(UTC) + 400 * DAY, END), (BEGIN, datetime.now(UTC) - 30 * DAY)])
@pytest.mark.parametrize("clock", ["wrong", "right", "unknown"])
def test_a_server_certificate_out_of_date_is_told_from_a_clock_that_is_off(
    tmp_path: Path, dates: tuple[datetime, datetime], clock: str
) -> None:
    """The endpoint is asked for its time: where that differs it is the clock, where it agrees it is not."""
    authority = make("hub", None, AUTHORITY)
    server = served_by(authority, begin=dates[0], end=dates[1])
    true = {"wrong": dates[0] + 5 * DAY, "right": datetime.now(UTC)}.get(clock)
    answer = answered(date=true, dated=true is not None)
    with closing(Endpoint(tmp_path, answer, authority=authority, server=server)) as endpoint:
        kind = errors.ClockWrong if clock == "wrong" else errors.DestinationUntrusted
        fault = refused(endpoint.device(), kind)
        assert endpoint.requests == ["HEAD / HTTP/1.1"]  # no name, no alias, and no credentials came back
        assert THING_HEADER not in endpoint.headers[0]
    early = dates[0] > datetime.now(UTC)
    words = {
        "wrong": "seconds behind of" if early else "seconds ahead of",
        "right": "its clock agrees with the device's",
        "unknown": f"unless the device's clock is {'behind' if early else 'ahead'}, the endpoint needs a new one",
    }
    assert words[clock] in fault.message


def test_the_time_of_an_endpoint_of_another_authority_is_not_believed(tmp_path: Path) -> None:
    """Its dates alone go unchecked."""
    other = make("other", None, AUTHORITY)
    server = served_by(other, begin=datetime.now(UTC) + 400 * DAY)
    with closing(Endpoint(tmp_path, server=server)) as endpoint:
        refused(endpoint.device(), errors.DestinationUntrusted)
        assert endpoint.requests == []


@pytest.mark.parametrize("bound", [RELEASED, RELEASED + DAY])
def test_a_clock_before_the_release_or_the_certificate_is_wrong_whoever_answers(
    tmp_path: Path, bound: datetime
) -> None:
    """The true time is not before either."""
    authority = make("hub", None, AUTHORITY)
    server = served_by(authority, begin=datetime.now(UTC) + 400 * DAY)
    with closing(Endpoint(tmp_path, answered(dated=False), authority=authority, server=server)) as endpoint:
        files = endpoint.device(Shape(begin=bound if bound > RELEASED else BEGIN))
        fault = refused(files, errors.ClockWrong, now=lambda: bound - timedelta(minutes=1))
    assert fault.message.endswith(f"it is {bound:%FT%TZ} at the least")


def test_credentials_that_ended_before_they_were_given_tell_a_clock_that_is_ahead(endpoint: Endpoint) -> None:
    """Where the endpoint says no time of its own."""
    endpoint.answer = answered(dated=False)
    fault = refused(endpoint.device(), errors.ClockWrong, now=lambda: datetime.now(UTC) + 2 * DAY)
    assert "ahead" in fault.message


def test_a_date_that_is_none_is_no_reason_to_refuse(endpoint: Endpoint) -> None:
    """A proxy or an odd server may write anything."""
    made: Callable[[str], Any] = answered()
    endpoint.answer = lambda first: [piece.replace(b" GMT", b" soon") for piece in made(first)]
    assert exchange(endpoint.device()).credentials().access_key_id == "AK"
