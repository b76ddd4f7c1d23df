"""A hub process's folder: its lock, the ports it had, and `hub.json`, which says where it answers and with which key.

Invariants: one hub process a folder, by a lock that the kernel lets go of with the process; what is in the folder is
for its owner alone; `hub.json` is there only when everything in it answers, and is written whole or not at all.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lightkeeper import paths
from lightkeeper.errors import HubFolderInUse, HubFolderUnusable, HubNotRunning

ADDRESSES = "hub.json"
DATABASE = "hub.db"

_PORTS = "ports.json"
_STARTED = "started.json"
_LOCK = "hub.lock"
_PRIVATE, _PRIVATE_FOLDER = 0o600, 0o700


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a hub answers, and the operator's key: what `hub.json` has. Without S3 of its own, the key is not S3's."""

    endpoint: str
    credentials_endpoint: str
    s3_endpoint: str
    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)

    def environment(self) -> dict[str, str]:
        """Return the variables with which the AWS CLI and SDKs call this hub, with no change to a script."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_ENDPOINT_URL_SAGEMAKER": self.endpoint,
            "AWS_ENDPOINT_URL_SAGEMAKER_EDGE": self.endpoint,
            "AWS_ENDPOINT_URL_S3": self.s3_endpoint,
        }


@dataclass(frozen=True, slots=True)
class Started:
    """What the next start in a folder does without being told again. Empty: what the folder itself has."""

    host: str = "127.0.0.1"
    name: str = ""
    database: str = field(default="", repr=False)  # it may have a password
    s3_endpoint: str = ""


class HubFolder:
    """The folder, held by this process until `close`."""

    def __init__(self, path: Path) -> None:
        """Make the folder where it is missing, lock it, and take away what a hub that was killed left of `hub.json`.

        Raises `HubFolderUnusable`, `HubFolderInUse`.
        """
        self.path = path.absolute()
        try:
            path.mkdir(_PRIVATE_FOLDER, parents=True, exist_ok=True)
            self._lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
        except OSError as error:
            raise HubFolderUnusable(f"the folder {path} cannot be used: {error.strerror}", folder=path) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (path / ADDRESSES).unlink(missing_ok=True)
        except BlockingIOError:
            os.close(self._lock)
            raise HubFolderInUse(f"a hub runs in {path} already", folder=path) from None

    def ports(self) -> dict[str, int]:
        """Return the ports of the listeners at the last start, by name."""
        try:
            found = json.loads((self.path / _PORTS).read_text(encoding="utf-8"))
            return {name: port for name, port in found.items() if type(port) is int and 0 < port < 1 << 16}
        except (OSError, ValueError, AttributeError):
            return {}

    def started(self) -> Started:
        """Return how the hub was started last in this folder."""
        return started(self.path)

    def keep(self, started: Started, ports: Mapping[str, int]) -> None:
        """Remember for the next start."""
        self._write(_STARTED, asdict(started))
        self._write(_PORTS, {**self.ports(), **ports})

    def publish(self, addresses: Addresses) -> None:
        """Say that the hub is ready, and where."""
        self._write(ADDRESSES, asdict(addresses))

    def close(self) -> None:
        """Let another hub have the folder."""
        os.close(self._lock)

    def _write(self, name: str, document: Mapping[str, object]) -> None:
        fresh = self.path / f"{name}.new"
        try:
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(json.dumps(document, indent=2) + "\n")
                file.flush()
                os.fsync(descriptor)
            fresh.replace(self.path / name)
        except OSError as error:
            raise HubFolderUnusable(
                f"cannot write {self.path / name}: {error.strerror}", folder=self.path, file=name
            ) from error


def started(path: Path) -> Started:
    """Return how the hub was started last in a folder."""
    try:
        found = json.loads((path / _STARTED).read_text(encoding="utf-8"))
        return Started(**{name: str(found[name]) for name in Started.__slots__ if name in found})
    except (OSError, ValueError, TypeError):
        return Started()


def database_url(path: Path) -> str:
    """Return the address of the database that the hub in this folder uses. Raises `HubFolderUnusable`."""
    file = path.absolute() / DATABASE
    address = started(path).database
    try:
        if not address and not paths.exists(file):
            raise HubFolderUnusable(f"there is no hub's database in {path}", folder=path)
    except OSError as error:
        raise HubFolderUnusable(f"{file} cannot be reached: {error.strerror}", folder=path) from error
    return address or f"sqlite:///{file}"


def read(path: Path) -> Addresses:
    """Return what a running hub has published in its folder. Raises `HubNotRunning`, `HubFolderUnusable`."""
    try:
        found = json.loads((path / ADDRESSES).read_text(encoding="utf-8"))
        return Addresses(**{name: str(found[name]) for name in Addresses.__slots__})
    except FileNotFoundError:
        raise HubNotRunning(f"no hub is ready in {path}", folder=path) from None
    except OSError as error:
        raise HubFolderUnusable(f"cannot read {path / ADDRESSES}: {error.strerror}", folder=path) from error
    except (ValueError, KeyError, TypeError) as error:
        raise HubFolderUnusable(f"{path / ADDRESSES} is not what a hub writes", folder=path) from error
