"""What a fleet asks of a device, and where its packages come from: the values of a deployment, and who gives them.

The words are those of the service: a deployment has definitions, each about the model under one handle, which is the
name it is loaded under on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class DesiredState(StrEnum):
    """Whether a model should run under its handle."""

    DEPLOY = "DEPLOY"
    UNDEPLOY = "UNDEPLOY"


class FailurePolicy(StrEnum):
    """What becomes of a deployment's other models when one fails."""

    ROLLBACK_ON_FAILURE = "ROLLBACK_ON_FAILURE"
    DO_NOTHING = "DO_NOTHING"


@dataclass(frozen=True, slots=True)
class Definition:
    """What should run under a handle. `url` and `sha1` (of the archive, in hexadecimal) are empty with UNDEPLOY."""

    handle: str
    state: DesiredState
    url: str = ""
    sha1: str = ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment for this device."""

    name: str
    policy: FailurePolicy
    definitions: tuple[Definition, ...]


@dataclass(frozen=True, slots=True)
class ModelResult:
    """What became of a definition. `name` and `version` are the package's, empty where it was never read.

    `state` is what the device is in now. `reason` is empty where it succeeded, `rollback_failure` where nothing had to
    be put back, or all was.
    """

    handle: str
    name: str
    version: str
    desired_state: DesiredState
    state: DesiredState
    succeeded: bool
    reason: str = ""
    rollback_failure: str = ""


@dataclass(frozen=True, slots=True)
class DeploymentResult:
    """What became of a deployment. Times are milliseconds since 1970, by the device's clock."""

    name: str
    succeeded: bool
    message: str
    started_ms: int
    ended_ms: int
    models: tuple[ModelResult, ...]


class Fleet(Protocol):
    """Gives deployments and packages. One thread uses it.

    A method that cannot reach its fleet just now raises a `DeliveryFailed`, and is tried again later. Any other refusal
    is the end of what it was asked for.
    """

    def get_deployments(self) -> Sequence[Deployment]:
        """Return the deployments for this device, the one to begin with first; those done with may be among them."""

    def size_bytes(self, url: str) -> int:
        """Return the size of a package's archive. Raises `PackageNotFound`."""

    def fetch(self, url: str, offset: int) -> Iterator[bytes]:
        """Yield the archive's bytes from an offset on, in pieces. Raises `PackageNotFound`."""
