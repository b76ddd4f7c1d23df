"""The names of the hub's resources as ARNs, in the form that the service gave them."""

from __future__ import annotations

from lightkeeper.hub.settings import Settings


def arn(settings: Settings, kind: str, *names: str) -> str:
    """Return `arn:aws:sagemaker:REGION:ACCOUNT:KIND/NAME…`."""
    return f"arn:aws:sagemaker:{settings.region}:{settings.account}:{'/'.join((kind, *names))}"


def fleet_arn(settings: Settings, fleet: str) -> str:
    """Return a device fleet's ARN."""
    return arn(settings, "device-fleet", fleet)


def device_arn(settings: Settings, fleet: str, device: str) -> str:
    """Return a device's ARN."""
    return arn(settings, "device-fleet", fleet, "device", device)


def role_alias(fleet: str) -> str:
    """Return the name of a fleet's role alias: what follows `/role-aliases/` at the credentials endpoint."""
    return f"SageMakerEdge-{fleet}"


def role_alias_arn(settings: Settings, fleet: str) -> str:
    """Return the ARN of a fleet's role alias."""
    return f"arn:aws:iot:{settings.region}:{settings.account}:rolealias/{role_alias(fleet)}"
