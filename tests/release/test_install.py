"""install.sh and uninstall.sh, run over a stand-in for an archive: a folder with a program that says its version."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

FILES = Path(__file__).resolve().parent.parent.parent / "release" / "files"
PROGRAM = "sagemaker_edge_agent_binary"


class Device:
    """A system below a folder, in which archives are installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prefix = folder / "opt" / "lightkeeper"

    def archive(self, version: str, *, machine: str = platform.machine(), starts: bool = True) -> Path:
        """Unpack an archive."""
        root = self.folder / "download" / version
        (root / "bin").mkdir(parents=True)
        for name in ("lightkeeper", PROGRAM):
            program = root / "bin" / name
            program.write_text(f"#!/bin/sh\necho {name} {version}\nexit {0 if starts else 1}\n")
            program.chmod(0o755)
        for folder in ("lib", "docs"):
            (root / folder).mkdir()
        (root / "VERSION").write_text(f"{version}\n")
        (root / "MACHINE").write_text(f"{machine}\n")
        for file in FILES.iterdir():
            if file.is_file():
                shutil.copy(file, root)
        return root

    def run(self, script: Path, *words: str, code: int = 0) -> str:
        """Run a script with the prefix, and return what it says."""
        arguments = [str(script), "--prefix", str(self.prefix), *words]
        done = subprocess.run(
            arguments, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def install(self, archive: Path, *words: str, code: int = 0) -> str:
        """Install an archive without a service."""
        return self.run(archive / "install.sh", "--no-service", *words, code=code)

    def says(self) -> str:
        """Run the installed agent."""
        told = subprocess.run([self.prefix / "bin" / PROGRAM], capture_output=True, text=True, check=True)
        return told.stdout.split()[1]

    def releases(self) -> set[str]:
        """Return the versions that are kept."""
        return {path.name for path in (self.prefix / "releases").iterdir()}


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """A device with nothing installed."""
    return Device(tmp_path)


def test_an_archive_is_installed_with_its_settings(device: Device) -> None:
    """The program runs under the path that scripts call, and agent.env names socket and configuration."""
    said = device.install(device.archive("1.1"), "--socket", "/run/a.sock", "--config", "/etc/a.json")
    assert device.says() == "1.1"
    env = (device.prefix / "agent.env").read_text()
    assert "SOCKET_ADDRESS=/run/a.sock\n" in env
    assert "AGENT_CONFIG_FILE_PATH=/etc/a.json\n" in env
    assert "config init /etc/a.json" in said


def test_an_upgrade_keeps_the_settings_and_the_release_before(device: Device) -> None:
    """And drops the one before that."""
    device.install(device.archive("1.1"), "--socket", "/run/mine.sock")
    for version in ("1.2", "1.3"):
        device.install(device.archive(version))
    assert device.says() == "1.3"
    assert device.releases() == {"1.2", "1.3"}
    assert "SOCKET_ADDRESS=/run/mine.sock\n" in (device.prefix / "agent.env").read_text()


def test_a_rollback_switches_to_the_release_before_and_forth(device: Device) -> None:
    """Either release can be had again."""
    device.install(device.archive("1.1"))
    newer = device.archive("1.2")
    device.install(newer)
    device.run(newer / "install.sh", "--rollback")
    assert device.says() == "1.1"
    device.run(newer / "install.sh", "--rollback")
    assert device.says() == "1.2"


def test_a_rollback_with_nothing_before_is_refused(device: Device) -> None:
    """With what to do instead."""
    archive = device.archive("1.1")
    device.install(archive)
    assert "next step" in device.run(archive / "install.sh", "--rollback", code=1)


def test_a_release_that_does_not_start_changes_nothing(device: Device) -> None:
    """The old one goes on."""
    device.install(device.archive("1.1"))
    said = device.install(device.archive("1.2", starts=False), code=1)
    assert "nothing was changed" in said
    assert device.says() == "1.1"
    assert device.releases() == {"1.1"}


def test_the_same_release_can_be_installed_again(device: Device) -> None:
    """As when an installation was cut short; the release before is still the one before."""
    device.install(device.archive("1.1"))
    again = device.archive("1.2")
    for _ in range(2):
        device.install(again)
    assert (device.says(), device.releases()) == ("1.2", {"1.1", "1.2"})


def test_an_archive_of_another_machine_is_refused(device: Device) -> None:
    """Before anything is written."""
    said = device.install(device.archive("1.1", machine="riscv64"), code=1)
    assert "this archive is for riscv64" in said
    assert not device.prefix.exists()


@pytest.mark.parametrize("words", [("--socket", "/tmp/a b"), ("--config", '/tmp/"'), ("--user", "a|b")])  # noqa: S108  # named, not made
def test_a_value_that_would_break_a_file_is_refused(device: Device, words: tuple[str, str]) -> None:
    """Blanks and quotes have a meaning in units and shells."""
    assert "choose one without" in device.install(device.archive("1.1"), *words, code=1)


def test_a_flag_that_is_unknown_ends_with_the_usage(device: Device) -> None:
    """And with exit code 2."""
    assert "--no-service" in device.install(device.archive("1.1"), "--wat", code=2)


def test_the_unit_is_written_into_an_image(device: Device) -> None:
    """With the user, the prefix and the restart rules of old; into a system below a folder nothing is started."""
    archive, image = device.archive("1.1"), device.folder / "image"
    words = ["--root", str(image), "--prefix", "/opt/aws/sagemaker_edge", "--user", "edge", "--yes"]
    if os.geteuid() != 0:
        pytest.skip("a service is installed by root")
    subprocess.run([str(archive / "install.sh"), *words], check=True, stdin=subprocess.DEVNULL)
    unit = (image / "etc/systemd/system/lightkeeper.service").read_text()
    assert "User=edge\n" in unit
    assert (
        f"ExecStart=/opt/aws/sagemaker_edge/bin/{PROGRAM} -a ${{SOCKET_ADDRESS}} -c ${{AGENT_CONFIG_FILE_PATH}} -f\n"
        in unit
    )
    assert "Restart=always\nRestartSec=15\n" in unit
    assert "TimeoutStopSec=120\n" in unit
    assert "@" not in unit.replace("[Install]", "")
    subprocess.run([str(archive / "uninstall.sh"), "--root", str(image), *words[2:4]], check=True)
    assert not (image / "etc/systemd/system/lightkeeper.service").exists()


def test_an_upgrade_in_an_image_keeps_the_services_user_and_folder(device: Device) -> None:
    """What is not given is what the unit says; the unit of one folder does not go with another's releases."""
    if os.geteuid() != 0:
        pytest.skip("a service is installed by root")
    image = device.folder / "image"
    (image / "etc").mkdir(parents=True)
    (image / "etc" / "passwd").write_text("edge:x:990:990::/nonexistent:/usr/sbin/nologin\n")
    first = ("--prefix", "/opt/mine", "--user", "edge", "--keep-socket")
    for version, words in (("1.1", first), ("1.2", ())):
        script = device.archive(version) / "install.sh"
        subprocess.run([script, "--root", image, *words, "--yes"], check=True, stdin=subprocess.DEVNULL)
    unit = image / "etc/systemd/system/lightkeeper.service"
    assert {"User=edge", "WorkingDirectory=/opt/mine"} <= set(unit.read_text().splitlines())
    assert " -f\n" not in unit.read_text()
    assert (image / "opt/mine/current").readlink() == Path("releases/1.2")

    other = device.archive("1.3")
    subprocess.run([other / "install.sh", "--root", image, "--prefix", "/opt/other", "--no-service"], check=True)
    subprocess.run([other / "uninstall.sh", "--root", image, "--prefix", "/opt/other"], check=True)
    assert unit.exists()
    subprocess.run([other / "uninstall.sh", "--root", image, "--purge"], check=True)
    assert not unit.exists()
    assert not (image / "opt/mine").exists()
    assert "edge:" in (image / "etc" / "passwd").read_text()  # not the installer's


def test_what_is_removed_leaves_what_is_the_users(device: Device) -> None:
    """The settings stay; with --purge they go too."""
    device.install(device.archive("1.1"))
    device.run(device.prefix / "current" / "uninstall.sh")
    assert [path.name for path in device.prefix.iterdir()] == ["agent.env"]
    archive = device.archive("1.2")
    device.install(archive)
    device.run(archive / "uninstall.sh", "--purge")
    assert not device.prefix.exists()


def test_scripts_are_clean_for_a_plain_shell() -> None:
    """They parse in a POSIX shell, which is what small devices have."""
    for script in ("install.sh", "uninstall.sh"):
        subprocess.run(["sh", "-n", str(FILES / script)], check=True)
        assert (FILES / script).read_text().startswith("#!/bin/sh\n")
