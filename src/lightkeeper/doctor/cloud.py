"""The cloud itself: what the device's certificate is exchanged for, and what that lets the device do."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

from lightkeeper import __version__
from lightkeeper.doctor.diagnosis import Diagnosis, failed, ok, refused
from lightkeeper.errors import (
    AgentError,
    DestinationBusy,
    DestinationDenied,
    DestinationMissing,
    DestinationUnreachable,
    DestinationUntrusted,
)
from lightkeeper.providers.base import ObjectStore
from lightkeeper.providers.customlibrary import Library
from lightkeeper.providers.exchange import CredentialExchange
from lightkeeper.providers.report import Registration

OBJECT_NAME = "lightkeeper-doctor.txt"
"""The one object that a dry-run upload leaves below a device's prefix; the next one takes its place."""

_CONTENT_TYPE = "text/plain"


class Note(io.BytesIO):
    """A body of a few bytes: see `providers.base.Body`."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.size_bytes = len(content)

    def md5(self) -> bytes:
        """See `Body.md5`."""
        return hashlib.md5(self.getvalue(), usedforsecurity=False).digest()

    def start_sending(self) -> None:
        """See `Body.start_sending`."""


def role_alias(exchange: CredentialExchange, endpoint: str) -> Diagnosis:
    """Exchange the certificate for credentials, as the agent does."""
    try:
        got = exchange.credentials()
    except AgentError as error:
        fixes: dict[type[AgentError], str] = {
            DestinationDenied: "on the hub, lightkeeper hub audit tells why: alias closed (hub alias open FLEET), "
            "certificate revoked, or device not registered; in AWS IoT, see that the certificate is active, "
            "attached to the thing, and that its policy allows iot:AssumeRoleWithCertificate on the alias",
            DestinationUnreachable: "check host and port in sagemaker_edge_provider_aws_iot_cred_endpoint, the "
            "firewall on the way (TCP)",
            DestinationUntrusted: "see that sagemaker_edge_provider_aws_ca_cert_file is the endpoint's authority (a "
            "hub's is hub-ca.pem in a device's folder), and that the endpoint's name is in its certificate",
            DestinationBusy: "see to the hub: lightkeeper hub report, and its log",
        }
        return refused(error, fix=fixes.get(type(error), ""))
    return ok(
        f"credentials until {got.expiration:%Y-%m-%d %H:%M} UTC",
        facts={"endpoint": endpoint, "expiration": got.expiration.isoformat()},
    )


def registration(ask: Callable[[], Registration | None], service: str) -> Diagnosis:
    """Ask the fleet's service whether this device is registered."""
    try:
        found = ask()
    except AgentError as error:
        fixes: dict[type[AgentError], str] = {
            DestinationDenied: "register the device with its fleet: lightkeeper hub device add, or RegisterDevices",
            DestinationUnreachable: "set sagemaker_edge_core_endpoint_override to the hub's address: AWS switched "
            "its own service off in April 2024",
        }
        return refused(error, fix=fixes.get(type(error), ""))
    if found is None:
        return ok("this provider registers no devices", facts={"service": service})
    if not found.active:
        return failed(
            "the device is not registered with its fleet",
            fix="register it: lightkeeper hub device add, or RegisterDevices",
            reason=DestinationDenied.reason,
            facts={"service": service},
        )
    return ok("the device is registered with its fleet", facts={"service": service})


def upload(open_store: Callable[[], ObjectStore], bucket: str, prefix: str) -> Diagnosis:
    """Put one small object below the device's own prefix. The device may not delete it: it stays."""
    key = f"{prefix}{OBJECT_NAME}"
    content = f"Written by lightkeeper doctor {__version__}: this device may upload here. May be deleted.\n".encode()
    stays = "the object stays, since a device may not delete; the next dry run takes its place"
    try:
        store = open_store()
        try:
            store.put(key, Note(content), content_type=_CONTENT_TYPE, metadata={})
        finally:
            store.close()
    except AgentError as error:
        fixes: dict[type[AgentError], str] = {
            DestinationDenied: f"let the device's role put objects to s3://{bucket}/{prefix}*; with a hub, bucket and "
            "sagemaker_edge_core_folder_prefix must be those of the fleet's S3OutputLocation",
            DestinationMissing: f"make the bucket {bucket}, or correct sagemaker_edge_provider_s3_bucket_name",
            DestinationUnreachable: "check lightkeeper_s3_endpoint and the firewall on the way (TCP)",
        }
        return refused(error, fix=fixes.get(type(error), ""))
    return ok(f"s3://{bucket}/{key} was put ({len(content)} bytes); {stays}", facts={"bucket": bucket, "key": key})


def library(path: Path) -> None:
    """Load a Custom provider's shared object, and start nothing in it. Raises `ProviderUnusable`."""
    Library(path)
