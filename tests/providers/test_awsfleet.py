"""The fleet's service as a device asks it: boto3 and the exchange, each against a real TLS server on the loopback."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lightkeeper import errors
from lightkeeper.device import DeviceIdentity
from lightkeeper.heartbeat import Heartbeats
from lightkeeper.providers.awsprovider import AwsProvider
from lightkeeper.providers.base import ProviderOptions
from lightkeeper.providers.fleet import (
    Definition,
    Deployment,
    DeploymentResult,
    DesiredState,
    FailurePolicy,
    ModelResult,
)
from lightkeeper.providers.report import Heartbeat, Metric, ModelReport, Registration
from tests.support.endpoints import Endpoint, Service, answered, closed_port

DEPLOYMENTS, HEARTBEAT, REGISTRATION = "/GetDeployments", "/SendHeartbeat", "/GetDeviceRegistration"
REPORT = Heartbeat("1.0.0+build", (Metric("Startups", 2, 1_700_000_000.5),), ())


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """An endpoint that gives credentials; what boto3 trusts is its authority."""
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with closing(Endpoint(tmp_path)) as made:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(made.ca))
        yield made


@pytest.fixture
def service(endpoint: Endpoint, tmp_path: Path) -> Iterator[Service]:
    """The fleet's service."""
    with closing(Service(tmp_path, endpoint.authority)) as made:
        yield made


def provider_at(endpoint: Endpoint, url: str) -> AwsProvider:
    """Return the provider of a device."""
    device = DeviceIdentity("cam-1", "yard", "cam-1", "eu-central-1")
    return AwsProvider(ProviderOptions(device=device, certificate=endpoint.device(), endpoint=url))


@pytest.fixture
def provider(endpoint: Endpoint, service: Service) -> AwsProvider:
    """The provider of a device."""
    return provider_at(endpoint, service.url)


def test_requests_are_signed_with_what_the_certificate_brought(
    endpoint: Endpoint, service: Service, provider: AwsProvider
) -> None:
    """One exchange does for all, and the device names itself."""
    for _ in range(3):
        provider.send_heartbeat(REPORT)
    assert len(endpoint.requests) == 1
    assert [path for path, _, _ in service.asked] == [HEARTBEAT] * 3
    _, headers, body = service.asked[0]
    assert "Credential=AK/" in headers["Authorization"]
    assert headers["X-Amz-Security-Token"] == "token-word"
    given = json.loads(body)
    assert (given["DeviceName"], given["DeviceFleetName"]) == ("cam-1", "yard")


def test_a_report_is_sent_in_the_services_words(service: Service, provider: AwsProvider) -> None:
    """Short names and odd versions are sent as the service takes them; times that are not known are left out."""
    model = ModelReport("net", "1.0+cpu-2", None, 1_700_000_000.0, (Metric("Inferences", 3, 1_700_000_001.0),))
    other = ModelReport("scores", "2", 1_700_000_002.0, None, ())
    handled = ModelResult("net", "net", "1.0", DesiredState.DEPLOY, DesiredState.UNDEPLOY, False, "NO_ROOM: none")
    result = DeploymentResult("d-1", False, "1 failed", 1_700_000_000_000, 1_700_000_001_000, (handled,))
    provider.send_heartbeat(Heartbeat("1.0.0+build", REPORT.metrics, (model, other), result))
    sent: Any = json.loads(service.asked[-1][2])
    assert sent["AgentVersion"] == "1.0.0_build"
    assert sent["AgentMetrics"] == [{"MetricName": "Startups", "Value": 2, "Timestamp": 1_700_000_000.5}]
    assert sent["Models"] == [
        {
            "ModelName": "model-net",
            "ModelVersion": "1.0_cpu_2",
            "LatestInference": 1_700_000_000,
            "ModelMetrics": [{"MetricName": "Inferences", "Value": 3, "Timestamp": 1_700_000_001}],
        },
        {"ModelName": "scores", "ModelVersion": "2", "LatestSampleTime": 1_700_000_002, "ModelMetrics": []},
    ]
    told = sent["DeploymentResult"]
    assert (told["DeploymentName"], told["DeploymentStatus"], told["DeploymentStatusMessage"]) == (
        "d-1",
        "FAIL",
        "1 failed",
    )
    assert told["DeploymentEndTime"] - told["DeploymentStartTime"] == 1
    (handled_told,) = told["DeploymentModels"]
    assert (handled_told["ModelHandle"], handled_told["Status"], handled_told["StatusReason"]) == (
        "net",
        "FAIL",
        "NO_ROOM: none",
    )


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"DeviceRegistration": "REGISTERED", "CacheTTL": "60"}, Registration(active=True, ttl_seconds=60)),
        ({"DeviceRegistration": "registered"}, Registration(active=True, ttl_seconds=0)),
        ({"DeviceRegistration": "NOT_REGISTERED", "CacheTTL": "soon"}, Registration(active=False, ttl_seconds=0)),
        ({}, Registration(active=False, ttl_seconds=0)),
    ],
)
def test_a_registration_is_read(
    service: Service, provider: AwsProvider, answer: dict[str, str], expected: Registration
) -> None:
    """What is missing counts as not registered, and holds no time."""
    service.answers[REGISTRATION] = 200, json.dumps(answer).encode()
    assert provider.registration() == expected


def test_deployments_are_read(service: Service, provider: AwsProvider) -> None:
    """Policy and checksum may be left out; the sum is in small letters."""
    one = {"ModelHandle": "net", "S3Url": "s3://b/k", "Checksum": {"Type": "SHA1", "Sum": "AB" * 20}, "State": "DEPLOY"}
    two = {"ModelHandle": "old", "State": "UNDEPLOY"}
    given = {"DeploymentName": "d-1", "Type": "Model", "Definitions": [one, two]}
    service.answers[DEPLOYMENTS] = 200, json.dumps({"Deployments": [given]}).encode()
    definitions = (
        Definition("net", DesiredState.DEPLOY, "s3://b/k", "ab" * 20),
        Definition("old", DesiredState.UNDEPLOY),
    )
    assert provider.fleet().get_deployments() == [Deployment("d-1", FailurePolicy.DO_NOTHING, definitions)]


@pytest.mark.parametrize(
    "deployment",
    [
        {"Definitions": []},
        {"DeploymentName": "d", "FailureHandlingPolicy": "PERHAPS"},
        {"DeploymentName": "d", "Definitions": [{"ModelHandle": "net", "State": "MAYBE"}]},
        {"DeploymentName": "d", "Definitions": [{"State": "DEPLOY"}]},
    ],
)
def test_a_deployment_that_cannot_be_read_is_the_services_fault(
    service: Service, provider: AwsProvider, deployment: dict[str, object]
) -> None:
    """A refusal like any other, not an error of the agent's."""
    service.answers[DEPLOYMENTS] = 200, json.dumps({"Deployments": [deployment]}).encode()
    with pytest.raises(errors.DestinationRefusing, match="cannot be read"):
        provider.fleet().get_deployments()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"<html>", errors.DestinationUnreachable),
        (400, b'{"__type": "ValidationException", "message": "no such device"}', errors.DestinationRefusing),
        (403, b'{"__type": "AccessDenied", "message": "no"}', errors.DestinationDenied),
        (403, b"", errors.DestinationDenied),
        (429, b"", errors.DestinationBusy),
        (500, b"", errors.DestinationBusy),
        (503, b"<html>", errors.DestinationBusy),
        (400, b'{"__type": "RequestTimeTooSkewed", "message": "late"}', errors.ClockWrong),
        (403, b'{"__type": "InvalidSignatureException", "message": "Signature expired: too late"}', errors.ClockWrong),
        (403, b'{"__type": "InvalidSignatureException", "message": "the bytes differ"}', errors.DestinationDenied),
    ],
)
def test_each_answer_becomes_a_refusal(
    service: Service, provider: AwsProvider, status: int, body: bytes, kind: type[errors.AgentError]
) -> None:
    """Whatever the service, or what stands before it, says; a page of something on the way is no answer."""
    service.answers[DEPLOYMENTS] = status, body
    with pytest.raises(errors.DeliveryFailed) as refused:
        provider.fleet().get_deployments()
    assert type(refused.value) is kind


def test_credentials_that_the_service_refuses_are_exchanged_anew(
    endpoint: Endpoint, service: Service, provider: AwsProvider
) -> None:
    """Such as those of a session that was ended: the next report brings new ones."""
    service.answers[HEARTBEAT] = 403, b'{"__type": "ExpiredTokenException", "message": "ended"}'
    for _ in range(3):
        with pytest.raises(errors.DestinationDenied):
            provider.send_heartbeat(REPORT)
    service.answers.clear()
    provider.send_heartbeat(REPORT)
    assert len(endpoint.requests) == 2  # and no third within the minute


def test_a_service_that_is_gone_or_of_another_authority_is_no_network(
    endpoint: Endpoint, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """boto3 says which."""
    with pytest.raises(errors.DestinationUnreachable, match="cannot be reached"):
        provider_at(endpoint, f"https://localhost:{closed_port()}").send_heartbeat(REPORT)
    monkeypatch.delenv("AWS_CA_BUNDLE")
    with pytest.raises(errors.DestinationUnreachable, match="certificate verify failed"):
        provider_at(endpoint, service.url).send_heartbeat(REPORT)


def test_a_cloud_that_goes_and_comes_back_is_two_lines_each(
    endpoint: Endpoint, provider: AwsProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """The session's and the heartbeats', with reason and cause; a hundred reports in between say nothing."""
    caplog.set_level(logging.INFO, "lightkeeper")
    beats = Heartbeats(provider, lambda: REPORT, interval_seconds=300)
    endpoint.answer = answered(b'{"message": "the certificate was revoked"}', status=403)
    for _ in range(100):
        beats.once()
    assert [(record.getMessage(), record.__dict__["reason"]) for record in caplog.records] == [
        ("cloud_unreachable", "DESTINATION_DENIED"),
        ("heartbeat_refused", "DESTINATION_DENIED"),
    ]
    assert all("the certificate was revoked" in record.__dict__["detail"] for record in caplog.records)
    assert len(endpoint.requests) <= 100


def test_nothing_of_a_secret_is_in_the_log_at_its_loudest(
    provider: AwsProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even where every request is logged."""
    caplog.set_level(logging.DEBUG, "lightkeeper")
    provider.send_heartbeat(REPORT)
    provider.registration()
    assert "secret-word" not in caplog.text
    assert "token-word" not in caplog.text
