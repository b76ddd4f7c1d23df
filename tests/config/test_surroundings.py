"""What `lightkeeper config check` finds on the device beside the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lightkeeper.config import Report
from lightkeeper.config.check import examine
from lightkeeper.config.surroundings import survey
from lightkeeper.errors import RootsMissing
from lightkeeper.system import user_id
from tests.support.systems import posix_only, windows_only


class Device:
    """A device with everything that a configuration with provider Aws names, and a folder for each kind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "config.json"
        self.file.touch(0o600)
        for name in ("ca.pem", "device.pem", "device.key"):
            (folder / name).touch(0o600)
        self.members: dict[str, str] = {
            "sagemaker_edge_core_device_name": "d",
            "sagemaker_edge_core_device_fleet_name": "f",
            "sagemaker_edge_core_region": "eu-west-1",
            "sagemaker_edge_core_root_certs_path": str(folder / "certs"),
            "sagemaker_edge_provider_aws_ca_cert_file": str(folder / "ca.pem"),
            "sagemaker_edge_provider_aws_cert_file": str(folder / "device.pem"),
            "sagemaker_edge_provider_aws_cert_pk_file": str(folder / "device.key"),
            "sagemaker_edge_provider_aws_iot_cred_endpoint": "host.example",
            "sagemaker_edge_core_capture_data_disk_path": str(folder / "captures"),
            "sagemaker_edge_local_data_root_path": str(folder / "state" / "deep"),
        }

    def survey(self, roots: type[Exception] | None = None) -> Report:
        """Return what is found here, where reading the root certificates raises this error or none."""

        def read_roots(folder: Path) -> None:
            assert folder == self.folder / "certs"
            if roots:
                raise roots("there are none")

        return survey(examine(tuple(self.members.items()), {}), self.file, read_roots)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """Return a device in a folder of its own."""
    return Device(tmp_path)


def test_a_device_with_everything_has_nothing_to_say(device: Device) -> None:
    """Folders that can be made need not exist yet, and looking makes none of them."""
    report = device.survey()
    assert (report.faults, report.warnings) == ((), ())
    assert report.config is not None
    assert not (device.folder / "state").exists()


def test_unusable_root_certificates_are_a_fault(device: Device) -> None:
    """Every package would be refused; the agent's own reader says why."""
    [fault] = device.survey(RootsMissing).faults
    assert fault.key == "sagemaker_edge_core_root_certs_path"
    assert "there are none" in fault.problem


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("ca.pem", "sagemaker_edge_provider_aws_ca_cert_file"),
        ("device.pem", "sagemaker_edge_provider_aws_cert_file"),
        ("device.key", "sagemaker_edge_provider_aws_cert_pk_file"),
    ],
)
def test_a_missing_file_of_the_provider_is_a_fault(device: Device, name: str, key: str) -> None:
    """The device could get no credentials."""
    (device.folder / name).unlink()
    [fault] = device.survey().faults
    assert (fault.key, fault.problem) == (key, f"names no file: {device.folder / name}")


def test_a_folder_in_place_of_a_file_is_a_fault(device: Device) -> None:
    """A folder cannot be read as a certificate."""
    device.members["sagemaker_edge_provider_aws_cert_file"] = str(device.folder)
    [fault] = device.survey().faults
    assert "something that is no file" in fault.problem


def test_a_missing_library_of_a_custom_provider_is_a_fault(device: Device) -> None:
    """With another provider the same path is not looked at."""
    device.members["sagemaker_edge_provider_provider_path"] = "/nowhere/lib.so"
    assert device.survey().faults == ()
    device.members["sagemaker_edge_provider_provider"] = "Custom"
    assert [fault.key for fault in device.survey().faults] == ["sagemaker_edge_provider_provider_path"]


@pytest.mark.parametrize(
    ("key", "below"),
    [
        ("sagemaker_edge_core_capture_data_disk_path", ""),
        ("sagemaker_edge_local_data_root_path", "state"),
    ],
)
def test_a_file_in_place_of_a_folder_is_a_fault(device: Device, key: str, below: str) -> None:
    """No folder can be made there or below."""
    device.members[key] = str(device.folder / "ca.pem" / below)
    [fault] = device.survey().faults
    assert (fault.key, fault.problem) == (key, f"needs a folder where a file lies: {device.folder / 'ca.pem'}")


@pytest.mark.skipif(user_id() in {0, None}, reason="root, and this user of Windows, may write everywhere")
def test_a_folder_that_cannot_be_written_is_a_fault(device: Device) -> None:
    """The judgement is that of the user who asks."""
    (device.folder / "captures").mkdir(0o500)
    [fault] = device.survey().faults
    assert "this user cannot write to" in fault.problem


@posix_only
def test_a_file_system_that_nobody_writes_to_is_a_fault_for_every_user(device: Device) -> None:
    """Root too is told where the system itself refuses."""
    device.members["sagemaker_edge_core_capture_data_disk_path"] = "/proc/1/captures"
    [fault] = device.survey().faults
    assert fault.key == "sagemaker_edge_core_capture_data_disk_path"


@posix_only
def test_a_path_too_long_for_the_system_is_a_fault(device: Device) -> None:
    """The system's own reason is given."""
    device.members["sagemaker_edge_core_capture_data_disk_path"] = "/" + "x" * 300
    [fault] = device.survey().faults
    assert "cannot be reached" in fault.problem


@posix_only
def test_an_unknown_socket_group_is_a_fault(device: Device) -> None:
    """The agent could not give the socket to it; a group that exists is accepted."""
    import grp

    device.members["lightkeeper_socket_group"] = "no-such-group-here"
    assert [fault.key for fault in device.survey().faults] == ["lightkeeper_socket_group"]
    device.members["lightkeeper_socket_group"] = grp.getgrgid(os.getgid()).gr_name
    assert device.survey().faults == ()


@windows_only
def test_rights_without_effect_are_warnings(device: Device) -> None:
    """A configuration that was made for Linux is accepted, and what it cannot do is told."""
    device.members["lightkeeper_socket_group"] = "no-such-group-here"
    device.members["lightkeeper_socket_mode"] = "0660"
    report = device.survey()
    assert report.faults == ()
    assert [warning.key for warning in report.warnings] == ["lightkeeper_socket_mode", "lightkeeper_socket_group"]


@posix_only
def test_a_private_key_that_others_may_read_is_a_warning(device: Device) -> None:
    """It works, and it should not stay so."""
    (device.folder / "device.key").chmod(0o640)
    [warning] = device.survey().warnings
    assert warning.key == "sagemaker_edge_provider_aws_cert_pk_file"
    assert "chmod 600" in warning.problem


@posix_only
def test_a_configuration_that_others_may_change_is_a_warning(device: Device) -> None:
    """Whoever changes it decides whom the device trusts."""
    device.file.chmod(0o664)
    [warning] = device.survey().warnings
    assert warning.key == str(device.file)


@posix_only
def test_everything_the_device_lacks_comes_at_once(device: Device) -> None:
    """One round of corrections is enough."""
    (device.folder / "ca.pem").unlink()
    (device.folder / "device.pem").unlink()
    device.members["lightkeeper_socket_group"] = "no-such-group-here"
    assert len(device.survey(RootsMissing).faults) == 4


def test_a_report_with_faults_is_left_as_it_is(device: Device) -> None:
    """Without a configuration there is nothing to look for."""
    device.members["lightkeeper_threads"] = "many"
    (device.folder / "ca.pem").unlink()
    assert [fault.key for fault in device.survey().faults] == ["lightkeeper_threads"]


@posix_only
def test_a_key_in_a_token_needs_its_pins_file_and_curl(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token itself is not asked, since it counts wrong PINs."""
    pin = device.folder / "pin"
    name = "sagemaker_edge_provider_aws_cert_pk_file"
    device.members[name] = f"pkcs11:object=device?pin-source=file:{pin}"
    programs = device.folder / "programs"
    programs.mkdir()
    (programs / "curl").touch(0o755)
    monkeypatch.setenv("PATH", str(programs))
    (fault,) = device.survey().faults
    assert (fault.key, f"pin-source that names no file: {pin}" in fault.problem) == (name, True)
    pin.touch(0o644)
    report = device.survey()
    assert report.faults == ()
    assert [warning.problem for warning in report.warnings] == [
        f"can be read or changed by other users: run chmod 600 {pin}"
    ]
    (programs / "curl").unlink()
    (fault,) = device.survey().faults
    assert "there is no curl: install curl" in fault.problem


@posix_only
def test_a_pin_in_the_file_makes_the_whole_file_a_secret(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a PIN in a file of its own is what is proposed; what is said does not repeat the PIN."""
    (device.folder / "curl").touch(0o755)
    monkeypatch.setenv("PATH", str(device.folder))
    device.members["sagemaker_edge_provider_aws_cert_pk_file"] = "pkcs11:object=device?pin-value=4711"
    device.file.chmod(0o640)
    report = device.survey()
    assert report.faults == ()
    proposal, opened = report.warnings
    assert "write pin-source" in proposal.problem
    assert f"chmod 600 {device.file}" in opened.problem
    assert "4711" not in repr(report)
