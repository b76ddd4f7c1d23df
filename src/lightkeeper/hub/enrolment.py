"""Adding a device to a fleet: its registration, its certificate, and one folder to copy to it.

Invariants: the folder is there whole or not at all, for its owner alone. A key made here is in that folder and nowhere
else. What is refused leaves nothing behind, neither in the database nor on the disk.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, select

from lightkeeper.errors import DeviceAmbiguous, DeviceUnknown, OutputExists, OutputUnwritable
from lightkeeper.hub import audit, authority, certificates, devices, fleets
from lightkeeper.hub.arns import role_alias
from lightkeeper.hub.context import Context
from lightkeeper.hub.database import Database
from lightkeeper.hub.keys import Operator
from lightkeeper.hub.protocol import Protocol
from lightkeeper.hub.reach import Object, captures_of
from lightkeeper.hub.settings import Settings
from lightkeeper.hub.shapes import check_of
from lightkeeper.hub.tables.fleet import DEVICES
from lightkeeper.modelpackage.issuer import new_key, pem_of, pem_of_key
from lightkeeper.tokenkey import KeyAddress

CONFIG_FILE, CERTIFICATE_FILE, KEY_FILE, CA_FILE, ROOTS_FOLDER, README_FILE = (
    "config.json",
    "device.pem",
    "device.key",
    "hub-ca.pem",
    "roots",
    "README.txt",
)
DEPLOYMENT_POLL_MINUTES = 5

ADDED, REVOKED = "DEVICE_CERTIFICATE_ISSUED", "DEVICE_CERTIFICATES_REVOKED"

_PRIVATE, _READABLE, _READ_ONLY, _PRIVATE_FOLDER = 0o600, 0o644, 0o444, 0o700
_OPERATION = "RegisterDevices"


@dataclass(frozen=True, slots=True)
class Reachable:
    """Where devices find the hub. Without an S3 of its own, `s3_endpoint` is empty: they use the region's."""

    endpoint: str
    credentials_endpoint: str
    s3_endpoint: str
    region: str


@dataclass(frozen=True, slots=True)
class Added:
    """A device's folder. `older` counts certificates of the same device that are still good."""

    folder: Path
    has_key: bool
    fingerprint: str
    ends: datetime
    older: int


class Enrolment:
    """The hub's door for devices."""

    def __init__(self, database: Database, settings: Settings, reachable: Reachable) -> None:
        self._database = database
        self._settings = settings
        self._reachable = reachable

    def add(  # noqa: PLR0913  # what a folder is of; the key's two by keyword
        self,
        name: str,
        fleet: str,
        folder: Path,
        now: datetime,
        *,
        request: bytes | None = None,
        key_address: KeyAddress | None = None,
    ) -> Added:
        """Register a device unless it is, sign its key, and write its folder; with a `request`, its key is elsewhere.

        The folder's configuration names the key by its address in a token where there is one.

        Raises `OutputExists`, `OutputUnwritable`, `SigningRequestUnusable`, `ShapeMismatch`, `FleetUnknown`,
        `DeviceExists` (another thing has its name), `DeviceLimit`, `CapturePlaceUnusable`.
        """
        if os.path.lexists(folder):
            raise OutputExists(f"{folder} is there already", file=folder)
        key = new_key() if request is None else None
        public = key.public_key() if key is not None else authority.requested_key(request or b"")
        given = {"DeviceFleetName": fleet, "Devices": [{"DeviceName": name, "IotThingName": name}]}
        check_of(Protocol([_OPERATION]).shapes(_OPERATION)[0]).read(given, "")
        now_ms = _ms(now)
        with self._database.read() as connection:
            place = captures_of(fleets.find(connection, fleet).output_config)
            registered = _thing(connection, fleet, name)
        issuer = authority.devices(self._database, now)
        signed = authority.sign_device(issuer, registered or name, public, now)
        files = {
            CONFIG_FILE: (_json(self._config(name, registered or name, fleet, place, key_address)), _PRIVATE),
            CERTIFICATE_FILE: (pem_of(signed), _READABLE),
            CA_FILE: (issuer.certificate_pem, _READABLE),
            f"{ROOTS_FOLDER}/{self._reachable.region}.pem": (self._root(now), _READ_ONLY),
            README_FILE: (_readme(name, key_address, has_key=key is not None).encode(), _READABLE),
        }
        if key is not None:
            files[KEY_FILE] = (pem_of_key(key), _PRIVATE)
        with _Folder(folder, files) as written:
            if registered is None:
                context = Context(self._database, self._settings, Operator("command line"), now_ms)
                devices.register(context, given)
            with self._database.write() as connection:
                older = certificates.standing(connection, fleet, registered or name)
                known_by = certificates.record(connection, signed, fleet, registered or name, now_ms)
                audit.write(
                    connection, audit.Entry(ADDED, "", known_by, registered or name, fleet), now_ms, level=logging.INFO
                )
            written.keep()
        return Added(folder, key is not None, known_by, signed.not_valid_after_utc, len(older))

    def revoke(self, name: str, now: datetime, *, fleet: str | None = None, older: bool = False) -> int:
        """Revoke a device's certificates, or all but its newest, and return how many.

        Raises `DeviceUnknown`, and `DeviceAmbiguous` where several fleets have a device of that name.
        """
        with self._database.write() as connection:
            matching = (
                (DEVICES.c.name == name) if fleet is None else (DEVICES.c.name == name) & (DEVICES.c.fleet == fleet)
            )
            found = connection.execute(select(DEVICES).where(matching)).all()
            if not found:
                raise DeviceUnknown(f"there is no device {name}", device=name)
            if len(found) > 1:
                among = ", ".join(sorted(row.fleet for row in found))
                raise DeviceAmbiguous(f"several fleets have a device {name}", device=name, fleets=among)
            thing = found[0].thing or name
            standing = certificates.standing(connection, found[0].fleet, thing)[1 if older else 0 :]
            for row in standing:
                entry = audit.Entry(REVOKED, "", row.fingerprint, thing, found[0].fleet)
                audit.write(connection, entry, _ms(now), level=logging.INFO)
            certificates.revoke(connection, [row.fingerprint for row in standing], _ms(now))
            return len(standing)

    def _root(self, now: datetime) -> bytes:
        return authority.package_authority(self._database, self._reachable.region, now).root.encode()

    def _config(self, name: str, thing: str, fleet: str, place: Object, key: KeyAddress | None) -> Mapping[str, Any]:
        at = self._reachable
        s3 = {"lightkeeper_s3_endpoint": at.s3_endpoint} if at.s3_endpoint else {}
        return {
            "sagemaker_edge_core_device_name": name,
            "sagemaker_edge_core_iot_thing_name": thing,
            "sagemaker_edge_core_device_fleet_name": fleet,
            "sagemaker_edge_core_region": at.region,
            "sagemaker_edge_core_root_certs_path": ROOTS_FOLDER,
            "sagemaker_edge_core_endpoint_override": at.endpoint,
            "sagemaker_edge_provider_provider": "Aws",
            "sagemaker_edge_provider_aws_ca_cert_file": CA_FILE,
            "sagemaker_edge_provider_aws_cert_file": CERTIFICATE_FILE,
            "sagemaker_edge_provider_aws_cert_pk_file": key.written() if key else KEY_FILE,
            "sagemaker_edge_provider_aws_iot_cred_endpoint": (
                f"{at.credentials_endpoint}/role-aliases/{role_alias(fleet)}/credentials"
            ),
            "sagemaker_edge_provider_s3_bucket_name": place.bucket,
            "sagemaker_edge_core_capture_data_destination": "Cloud",
            "sagemaker_edge_core_folder_prefix": place.key,
            "sagemaker_edge_deployment_lib_path": "built-in",
            "sagemaker_edge_db_module_path": "built-in",
            "sagemaker_edge_model_deployment_poll_interval": DEPLOYMENT_POLL_MINUTES,
            "lightkeeper_relative_paths": "file",
            **s3,
        }


def set_alias(database: Database, name: str, now: datetime, *, opened: bool) -> str:
    """Open or close a role alias, given by its name or its fleet's, and return it. Raises `FleetUnknown`."""
    fleet = name.removeprefix(role_alias(""))
    with database.write() as connection:
        if not fleets.set_role_alias(connection, fleet, opened=opened, now_ms=_ms(now)):
            raise fleets.unknown(fleet)
    return role_alias(fleet)


class _Folder:
    """A folder that is there when `keep` was called, and is not when it was not."""

    def __init__(self, path: Path, files: Mapping[str, tuple[bytes, int]]) -> None:
        self._path = path
        self._files = files
        self._begun: Path | None = None

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._begun = Path(tempfile.mkdtemp(prefix=f".{self._path.name}.", dir=self._path.parent))
            (self._begun / ROOTS_FOLDER).mkdir(mode=_PRIVATE_FOLDER)
            for name, (data, mode) in self._files.items():
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                with os.fdopen(os.open(self._begun / name, flags, _PRIVATE), "wb") as file:
                    file.write(data)
                    os.fchmod(file.fileno(), mode)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            self.__exit__()
            raise OutputUnwritable(f"{self._path} cannot be written: {error.strerror}", file=self._path) from error
        return self

    def keep(self) -> None:
        """Give the folder its name."""
        assert self._begun is not None  # noqa: S101  # entered
        try:
            self._begun.rename(self._path)
        except OSError as error:
            raise OutputUnwritable(f"{self._path} cannot be written: {error.strerror}", file=self._path) from error
        self._begun = None

    def __exit__(self, *_: object) -> None:
        if self._begun is not None:
            shutil.rmtree(self._begun, ignore_errors=True)


def _thing(connection: Connection, fleet: str, name: str) -> str | None:
    """Return the thing of a registered device, or None where it is not registered."""
    row = connection.execute(select(DEVICES).where(DEVICES.c.fleet == fleet, DEVICES.c.name == name)).first()
    return None if row is None else row.thing or name


def _readme(name: str, address: KeyAddress | None, *, has_key: bool) -> str:
    if has_key:
        key = f"{KEY_FILE} is this device's own: no copy of it is kept anywhere else."
    elif address is not None:
        key = f"The key stays in the device's token: {address}"
    else:
        key = f"{KEY_FILE} is missing: put the key that the signing request was made with beside this file, mode 0600."
    return f"""Device {name}: copy this folder to the device as it is, to any place.

{key}

    lightkeeper config check {CONFIG_FILE}
    lightkeeper agent -a /tmp/lightkeeper.sock -c {CONFIG_FILE}
"""


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()


def _ms(now: datetime) -> int:
    return int(now.timestamp() * 1000)
