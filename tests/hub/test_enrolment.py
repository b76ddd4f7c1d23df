"""A device's way into a fleet: one folder to copy, that the agent's own check and the hub's door accept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import func, select

from lightkeeper.agent import cloud
from lightkeeper.config import check
from lightkeeper.errors import (
    AgentError,
    CapturePlaceUnusable,
    DeviceAmbiguous,
    DeviceUnknown,
    FleetUnknown,
    OutputExists,
    OutputUnwritable,
    ShapeMismatch,
    SigningRequestUnusable,
)
from lightkeeper.hub.database import Database
from lightkeeper.hub.enrolment import Enrolment, Reachable, set_alias
from lightkeeper.hub.settings import Settings
from lightkeeper.hub.tables.fleet import DEVICES
from lightkeeper.hub.tables.identity import CERTIFICATES
from lightkeeper.modelpackage.issuer import new_key, pem_of_key
from lightkeeper.providers import tokenexchange
from tests.support.certified import DEVICE, FLEET, HOST, Certified, Held
from tests.support.seaweed import REGION, Seaweed
from tests.support.tokens import Token, needs_tokens


@dataclass
class Door:
    """A hub with a door for devices, and a place for their folders."""

    certified: Certified
    enrolment: Enrolment
    folder: Path

    def add(self, name: str = DEVICE, **given: Any) -> Path:
        """Add a device and return its folder."""
        fleet = given.pop("fleet", FLEET)
        return self.enrolment.add(name, fleet, self.folder / name, datetime.now(UTC), **given).folder

    def counts(self) -> tuple[int, int]:
        """Return how many devices and certificates there are."""
        with self.certified.database.read() as connection:
            devices, certificates = (
                connection.scalar(select(func.count()).select_from(table)) or 0 for table in (DEVICES, CERTIFICATES)
            )
        return devices, certificates


@pytest.fixture
def door(seaweed: Seaweed, quick_folder: Path, tmp_path: Path) -> Iterator[Door]:
    """A hub with one fleet and no device."""
    certified = Certified(quick_folder, Database(f"sqlite:///{quick_folder / 'hub.sqlite'}"), seaweed.tokens())
    certified.add_fleet()
    at = Reachable("http://127.0.0.1:9999", f"https://{HOST}:{certified.port}", seaweed.endpoint, REGION)
    yield Door(certified, Enrolment(certified.database, Settings(), at), tmp_path / "devices")
    certified.close()


def held_in(folder: Path) -> Held:
    """Return the certificate and key of a device's folder, in one file."""
    certificate = x509.load_pem_x509_certificate((folder / "device.pem").read_bytes())
    path = folder.parent / f"{folder.name}.both.pem"
    path.write_bytes((folder / "device.key").read_bytes() + (folder / "device.pem").read_bytes())
    return Held(certificate, path)


def test_a_copied_folder_passes_the_agents_check_and_the_hubs_door(door: Door, tmp_path: Path) -> None:
    """Copied anywhere and checked from anywhere, nothing has to be edited; its certificate brings credentials."""
    copy = shutil.copytree(door.add(), tmp_path / "elsewhere" / "on-the-device")
    checked = subprocess.run(
        [sys.executable, "-m", "lightkeeper", "config", "check", str(copy / "config.json"), "--json"],
        cwd="/",
        env={**os.environ, "STATE_DIRECTORY": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    config = check(copy / "config.json").accepted()
    assert (config.device_name, config.thing_name, config.device_fleet_name) == (DEVICE, DEVICE, FLEET)
    assert (config.bucket, config.folder_prefix, config.captures_to_cloud) == ("lightkeeper", "captures", True)
    assert config.deployments_enabled
    assert config.aws_ca_cert_file is not None
    assert config.aws_ca_cert_file.read_bytes() == door.certified.ca.read_bytes()
    status, answer = door.certified.ask(held_in(copy), config.thing_name)
    assert (status, set(answer)) == (200, {"credentials"})
    assert (
        config.aws_credential_endpoint
        == f"https://{HOST}:{door.certified.port}/role-aliases/SageMakerEdge-lines/credentials"
    )


def test_what_is_secret_in_the_folder_is_for_its_owner_alone(door: Door) -> None:
    """The key 0600, the roots read-only for everyone, nothing more than there should be."""
    folder = door.add()
    modes = {str(path.relative_to(folder)): path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    assert modes == {
        "config.json": 0o600,
        "device.key": 0o600,
        "device.pem": 0o644,
        "hub-ca.pem": 0o644,
        "README.txt": 0o644,
        f"roots/{REGION}.pem": 0o444,
    }
    assert folder.stat().st_mode & 0o077 == 0


def test_a_key_made_elsewhere_stays_there(door: Door) -> None:
    """With a signing request the folder lacks the key, says where to put it, and works once it is there."""
    key = new_key()
    name = x509.Name([])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    folder = door.add(request=request.public_bytes(Encoding.PEM))
    assert not (folder / "device.key").exists()
    assert "device.key is missing" in (folder / "README.txt").read_text()
    (folder / "device.key").write_bytes(pem_of_key(key))
    assert door.certified.ask(held_in(folder))[0] == 200


@needs_tokens
def test_a_key_in_a_token_is_named_by_the_folders_configuration_and_brings_credentials(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way: the request is made with the token, the hub signs it, and the folder needs no change."""
    token = Token(tmp_path / "softhsm")
    monkeypatch.setenv("SOFTHSM2_CONF", token.environment["SOFTHSM2_CONF"])
    folder = door.add(request=token.request(DEVICE).read_bytes(), key_address=token.address())
    assert f"stays in the device's token: {token.address()}" in (folder / "README.txt").read_text()
    files = cloud.certificate(check(folder / "config.json").accepted())
    assert files is not None
    got = tokenexchange.exchange(files, DEVICE).credentials()
    assert got.access_key_id.startswith("ASIA")


@pytest.mark.parametrize(
    ("name", "given", "error"),
    [
        ("cam_1!", {}, ShapeMismatch),
        ("c" * 64, {}, ShapeMismatch),
        ("..", {}, ShapeMismatch),
        ("cam-1", {"fleet": "nobody"}, FleetUnknown),
        ("cam-1", {"fleet": "odd"}, CapturePlaceUnusable),
        ("cam-1", {"request": b"no request"}, SigningRequestUnusable),
    ],
)
def test_a_refused_device_leaves_nothing_behind(
    door: Door, name: str, given: dict[str, Any], error: type[AgentError]
) -> None:
    """No row and no file."""
    door.certified.add_fleet("odd", place="https://somewhere/else")
    with pytest.raises(error):
        door.enrolment.add(
            name, given.get("fleet", FLEET), door.folder / "x", datetime.now(UTC), request=given.get("request")
        )
    assert door.counts() == (0, 0)
    assert not door.folder.exists() or list(door.folder.iterdir()) == []


def test_nothing_is_overwritten_or_half_written(door: Door, tmp_path: Path) -> None:
    """A folder that is there is left as it is; one that cannot be written costs no registration."""
    (door.folder / DEVICE).mkdir(parents=True)
    with pytest.raises(OutputExists):
        door.add()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputUnwritable):
        door.enrolment.add("cam-2", FLEET, tmp_path / "file" / "cam-2", datetime.now(UTC))
    assert door.counts() == (0, 0)


def test_a_second_certificate_replaces_the_first_without_a_gap(door: Door, tmp_path: Path) -> None:
    """Both are good until the older is revoked; the newer stays."""
    first = held_in(door.add())
    made = door.enrolment.add(DEVICE, FLEET, tmp_path / "second", datetime.now(UTC))
    assert made.older == 1
    second = held_in(made.folder)
    assert [door.certified.ask(held)[0] for held in (first, second)] == [200, 200]
    assert door.enrolment.revoke(DEVICE, datetime.now(UTC), older=True) == 1
    assert [door.certified.ask(held)[0] for held in (first, second)] == [403, 200]
    assert door.enrolment.revoke(DEVICE, datetime.now(UTC)) == 1
    assert [door.certified.ask(held)[0] for held in (first, second)] == [403, 403]
    assert door.counts() == (1, 2)


def test_a_device_of_two_fleets_is_revoked_by_its_fleet(door: Door) -> None:
    """Nobody is locked out by a name that somebody else has too."""
    door.certified.add_fleet("towers")
    held = held_in(door.add())
    door.enrolment.add(DEVICE, "towers", door.folder / "other", datetime.now(UTC))
    with pytest.raises(DeviceAmbiguous):
        door.enrolment.revoke(DEVICE, datetime.now(UTC))
    with pytest.raises(DeviceUnknown):
        door.enrolment.revoke("nobody", datetime.now(UTC))
    assert door.enrolment.revoke(DEVICE, datetime.now(UTC), fleet="towers") == 1
    assert door.certified.ask(held)[0] == 200


def test_a_registered_devices_thing_keeps_its_name(door: Door) -> None:
    """A device that was registered with another thing gets its certificate for that."""
    door.certified.add_device("cam-9", thing="thing:9")
    folder = door.add("cam-9")
    assert json.loads((folder / "config.json").read_text())["sagemaker_edge_core_iot_thing_name"] == "thing:9"
    assert door.certified.ask(held_in(folder), "thing:9")[0] == 200


@pytest.mark.parametrize("name", [FLEET, f"SageMakerEdge-{FLEET}"])
def test_an_alias_is_closed_and_opened(door: Door, name: str) -> None:
    """Closed, no device of the fleet gets credentials; opened, all do again."""
    held = held_in(door.add())
    assert set_alias(door.certified.database, name, datetime.now(UTC), opened=False) == f"SageMakerEdge-{FLEET}"
    assert door.certified.ask(held)[0] == 403
    set_alias(door.certified.database, name, datetime.now(UTC), opened=True)
    assert door.certified.ask(held)[0] == 200
    with pytest.raises(FleetUnknown):
        set_alias(door.certified.database, "nobody", datetime.now(UTC), opened=True)
