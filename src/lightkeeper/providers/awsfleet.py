"""The fleet's service (`sagemaker-edge`) for one device: registration, heartbeats, deployments and their packages.

Packages are fetched from S3 with the same credentials. These reach what is deployed when they are issued, so a package
that cannot be seen is looked for again with new ones before it counts as missing, however new those are that do not
reach it: another deployment may have come a moment ago.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from lightkeeper.device import DeviceIdentity
from lightkeeper.errors import (
    AgentError,
    DestinationDenied,
    DestinationRefusing,
    DestinationUnreachable,
    PackageNotFound,
)
from lightkeeper.providers.aws import AwsStore
from lightkeeper.providers.awsanswers import service_refusal, timeouts
from lightkeeper.providers.fleet import Definition, Deployment, DeploymentResult, DesiredState, FailurePolicy
from lightkeeper.providers.report import Heartbeat, Metric, ModelReport, Registration
from lightkeeper.providers.session import DeviceSession

SERVICE = "sagemaker-edge"
REGISTERED = "registered"
NAME_LEAST = 4
"""The service takes no shorter name of a model or metric; shorter ones are sent as `model-NAME`."""

_S3 = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<key>.+)")
_VERSION = re.compile(r"[^a-zA-Z0-9 _.]")


class AwsFleet:
    """See `Fleet`. Any thread may use it; requests of one client do not wait for each other."""

    def __init__(
        self, session: DeviceSession, device: DeviceIdentity, *, endpoint: str | None, s3_endpoint: str | None
    ) -> None:
        self._session = session
        self._device = device
        self._endpoint = endpoint
        self._s3_endpoint = s3_endpoint
        self._renewed_for = ""
        self._names = {"DeviceName": device.name, "DeviceFleetName": device.fleet}

    def get_deployments(self) -> Sequence[Deployment]:
        """See `Fleet.get_deployments`."""
        answer = self._call("get_deployments")
        try:
            return [_deployment(given) for given in answer.get("Deployments", [])]
        except (KeyError, ValueError) as error:
            raise DestinationRefusing(
                f"the fleet's service gave a deployment that cannot be read: {error!r}",
                service=self._endpoint or SERVICE,
            ) from error

    def size_bytes(self, url: str) -> int:
        """See `Fleet.size_bytes`."""
        bucket, key = _parts(url)
        for last in (False, True):
            store = self._store(bucket)
            try:
                found = store.look(key)
            finally:
                store.close()
            if found is not None:
                return found.size_bytes
            if last or not self._session.renew(again=self._renewed_for != url):
                break
            self._renewed_for = url
        raise PackageNotFound(f"there is no package at {url} that this device may fetch", url=url)

    def fetch(self, url: str, offset: int) -> Iterator[bytes]:
        """See `Fleet.fetch`."""
        bucket, key = _parts(url)
        store = self._store(bucket)
        try:
            download = store.stream(key, offset)
            if download is None:
                raise PackageNotFound(f"there is no package at {url}", url=url)
            yield from download.pieces
        finally:
            store.close()

    def registration(self) -> Registration:
        """Ask whether the device is registered."""
        answer = self._call("get_device_registration")
        ttl = str(answer.get("CacheTTL", ""))
        active = str(answer.get("DeviceRegistration", "")).strip().lower() == REGISTERED
        return Registration(active, float(ttl) if ttl.isdecimal() else 0.0)

    def send_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Send a report."""
        arguments: dict[str, Any] = {
            "AgentVersion": _version(heartbeat.agent_version),
            "AgentMetrics": [_metric(metric) for metric in heartbeat.metrics],
            "Models": [_model(model) for model in heartbeat.models],
        }
        if heartbeat.result is not None:
            arguments["DeploymentResult"] = _result(heartbeat.result)
        self._call("send_heartbeat", **arguments)

    def _store(self, bucket: str) -> AwsStore:
        return AwsStore(
            bucket,
            region=self._device.region or None,
            endpoint=self._s3_endpoint,
            session=self._session.boto3,
            denied=self._session.renew,
        )

    def _call(self, operation: str, **arguments: Any) -> Any:
        try:
            return self._asked(operation, **arguments)
        except DestinationDenied:
            self._session.renew()  # credentials may be refused long before they end
            raise

    def _asked(self, operation: str, **arguments: Any) -> Any:
        from botocore.config import Config

        with _translated(self._endpoint or SERVICE):
            client = self._session.boto3().client(SERVICE, endpoint_url=self._endpoint, config=Config(**timeouts()))
            try:
                answer = getattr(client, operation)(**self._names, **arguments)
            finally:
                client.close()
        meta = answer.get("ResponseMetadata", {})
        if not meta.get("RequestId") and "json" not in meta.get("HTTPHeaders", {}).get("content-type", ""):
            # boto3 takes whatever comes with status 200 for an answer, and a result would be thought to have arrived
            raise DestinationUnreachable(
                "the answer was not the fleet's service's, but of something on the way",
                service=self._endpoint or SERVICE,
            )
        return answer


@contextmanager
def _translated(service: str) -> Iterator[None]:
    """Turn botocore's faults into the delivery's."""
    from botocore import exceptions as aws

    try:
        yield
    except AgentError:
        raise
    except aws.ClientError as error:
        kind, status, code = service_refusal(error)
        said = error.response.get("Error", {}).get("Message", "")
        raise kind(f"the fleet's service answered {status} {code}: {said}", status=status, code=code) from error
    except (aws.HTTPClientError, aws.ConnectionError) as error:
        raise DestinationUnreachable(f"the fleet's service cannot be reached: {error}", service=service) from error
    except (aws.BotoCoreError, ValueError) as error:
        raise DestinationRefusing(f"the request cannot be made: {error}", service=service) from error


def _parts(url: str) -> tuple[str, str]:
    match = _S3.fullmatch(url)
    if match is None:
        raise PackageNotFound(f"{url} is no address of an object", url=url)
    return match["bucket"], match["key"]


def _deployment(given: Any) -> Deployment:
    return Deployment(
        str(given["DeploymentName"]),
        FailurePolicy(given.get("FailureHandlingPolicy", FailurePolicy.DO_NOTHING)),
        tuple(
            Definition(
                str(one["ModelHandle"]),
                DesiredState(one["State"]),
                str(one.get("S3Url", "")),
                str(one.get("Checksum", {}).get("Sum", "")).lower(),
            )
            for one in given.get("Definitions", [])
        ),
    )


def _metric(metric: Metric) -> dict[str, Any]:
    return {"MetricName": metric.name, "Value": metric.value, "Timestamp": _time(metric.time)}


def _model(model: ModelReport) -> dict[str, Any]:
    sent: dict[str, Any] = {
        "ModelName": _name(model.name),
        "ModelVersion": _version(model.version),
        "ModelMetrics": [_metric(metric) for metric in model.metrics],
    }
    if model.latest_sample is not None:
        sent["LatestSampleTime"] = _time(model.latest_sample)
    if model.latest_inference is not None:
        sent["LatestInference"] = _time(model.latest_inference)
    return sent


def _result(result: DeploymentResult) -> dict[str, Any]:
    return {
        "DeploymentName": result.name,
        "DeploymentStatus": "SUCCESS" if result.succeeded else "FAIL",
        "DeploymentStatusMessage": result.message,
        "DeploymentStartTime": _time(result.started_ms / 1000),
        "DeploymentEndTime": _time(result.ended_ms / 1000),
        "DeploymentModels": [
            {
                "ModelHandle": model.handle,
                **({"ModelName": _name(model.name)} if model.name else {}),
                **({"ModelVersion": _version(model.version)} if model.version else {}),
                "DesiredState": model.desired_state.value,
                "State": model.state.value,
                "Status": "SUCCESS" if model.succeeded else "FAIL",
                "StatusReason": model.reason,
                "RollbackFailureReason": model.rollback_failure,
            }
            for model in result.models
        ],
    }


def _name(name: str) -> str:
    return name if len(name) >= NAME_LEAST else f"model-{name}"


def _version(version: str) -> str:
    return _VERSION.sub("_", version)[:64] or "_"


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
