"""The archive's service under a real systemd: installed, killed, booted, upgraded and removed.

The system is a Debian of the oldest release that can be had, without Python, booted by systemd-nspawn for each test.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from release import debian
from tests.support.archives import DEMO_CAPTURES, ask, demo, here, write_configuration
from tests.support.booted import Machine, lacking
from tests.support.objects import DEVICE, FLEET, S3Store
from tests.support.seaweed import Seaweed

CLIENT = "/opt/lightkeeper/bin/sagemaker_edge_agent_client_example"
LIGHTKEEPER = "/opt/lightkeeper/bin/lightkeeper"
SOCKET = "/tmp/agent.sock"  # noqa: S108  # inside
UNIT = "/etc/systemd/system/lightkeeper.service"
CONFIGURATION = "/device/agent.json"
UNPACKED = "usr/src"
CAPTURES = "/srv/captures"
MOST_EXPOSURE = 4.5
"""Of 10, by `systemd-analyze security`; the unit tells why the rest is not set."""

pytestmark = [
    pytest.mark.skipif("LIGHTKEEPER_RELEASE" not in os.environ, reason="minutes long: make test-release"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="session")
def installable(built: Path, device: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root of a Debian with systemd, with the archive unpacked and the device's files in it."""
    if lack := lacking():
        pytest.fail(lack)
    base = debian.root_of(here(), debian.SYSTEMD)
    if base is None:
        pytest.fail("needs root and debootstrap: apt-get install debootstrap")
    root = tmp_path_factory.mktemp("installable") / "root"
    subprocess.run(["cp", "-a", "--reflink=auto", str(base), str(root)], check=True)
    subprocess.run(["tar", "-xzf", str(built), "-C", str(root / UNPACKED)], check=True)
    shutil.copytree(device, root / "device")
    _configure(root)
    subprocess.run(["chmod", "-R", "a+rX", str(root / "device")], check=True)
    yield root
    shutil.rmtree(root)


@pytest.fixture
def root(installable: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it for one test."""
    copy = tmp_path / "root"
    subprocess.run(["cp", "-a", "--reflink=auto", str(installable), str(copy)], check=True)
    yield copy
    shutil.rmtree(copy)


@pytest.fixture
def archive(built: Path) -> str:
    """Where the archive is unpacked inside."""
    return f"/{UNPACKED}/{built.stem}"


@contextmanager
def _booted(root: Path, *, own_network: bool = True) -> Iterator[Machine]:
    """Boot the system, with two users of applications: `alice`, who will be let in to the agent, and `bob`."""
    machine = Machine(root, {"LIGHTKEEPER_ADDRESS": SOCKET}, own_network=own_network)
    try:
        for user in ("alice", "bob"):
            machine.run("useradd", "--create-home", user)
        yield machine
    finally:
        machine.close()


@pytest.fixture
def machine(root: Path) -> Iterator[Machine]:
    """The booted system, with a network of its own that leads nowhere."""
    with _booted(root) as machine:
        yield machine


@pytest.fixture
def installed(machine: Machine, archive: str) -> Machine:
    """With the archive installed, the service not yet started."""
    _install(machine, archive)
    return machine


def _install(machine: Machine, archive: str) -> None:
    # from a shell whose files nobody else may read, as careful administrators have it
    said = machine.run("sh", "-c", f"umask 077 && {archive}/install.sh --config {CONFIGURATION} --yes")
    assert "installed the service lightkeeper, run as lightkeeper" in said
    _let_in(machine, "lightkeeper")


@pytest.fixture
def served(installed: Machine) -> Machine:
    """With the service started: it can be called as soon as systemd says so."""
    installed.run("systemctl", "enable", "--now", "lightkeeper")
    return installed


def _configure(root: Path, **more: object) -> None:
    keys = {
        "sagemaker_edge_local_data_root_path": None,  # what systemd gives the service
        "sagemaker_edge_core_capture_data_disk_path": CAPTURES,
        "lightkeeper_socket_mode": "0660",
    }
    write_configuration(root / "device", "/device", **(keys | more))


def _let_in(machine: Machine, group: str) -> None:
    machine.run("usermod", "--append", "--groups", group, "alice")
    machine.run("install", "--directory", f"--owner={group}", f"--group={group}", CAPTURES)


def _captures(machine: Machine) -> list[Path]:
    return sorted((machine.root / CAPTURES.lstrip("/")).rglob("*.jsonl"))


def test_the_service_serves_its_group_and_nobody_else(installed: Machine, device: Path) -> None:
    """An application's user gets the models' true answers and captures; another cannot reach the socket."""
    assert installed.run("systemd-analyze", "verify", UNIT) == ""
    installed.run("systemctl", "enable", "--now", "lightkeeper")
    demo(partial(installed.run, user="alice"), device, CLIENT, "orientation")
    assert "Permission denied" in installed.run(LIGHTKEEPER, "models", "list", user="bob", code=3)
    installed.wait_until(lambda: len(_captures(installed)) == DEMO_CAPTURES, "both captures are in their folder")
    assert "orientation" in installed.run(LIGHTKEEPER, "captures", "show", CAPTURES, user="alice")

    installed.run("systemctl", "stop", "lightkeeper")
    assert (installed.unit("Result"), installed.unit("ExecMainStatus")) == ("success", "0")
    assert '"event": "agent_stopped"' in installed.journal()
    installed.run("test", "!", "-e", SOCKET)


def test_the_agent_has_no_right_that_it_does_not_need(served: Machine) -> None:
    """No capability, no way to gain one; files of users and of the system are what their owners let it have."""
    status = served.run("cat", f"/proc/{served.unit('MainPID')}/status")
    facts = dict(re.findall(r"(\w+):\s+(\S+)", status))
    assert {facts[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    exposure = served.run("systemd-analyze", "--no-pager", "security", "lightkeeper").strip().splitlines()[-1]
    assert float(exposure.split(":")[1].split()[0]) <= MOST_EXPOSURE, exposure

    load = (LIGHTKEEPER, "models", "load")
    served.run("cp", "/device/doubled-1.0.tar.gz", "/home/alice", user="alice")
    served.run(*load, "/home/alice/doubled-1.0.tar.gz", "--name", "shared", user="alice")
    served.run("chmod", "0700", "/home/alice")
    refused = served.run(*load, "/home/alice/doubled-1.0.tar.gz", "--name", "private", user="alice", code=1)
    assert "PACKAGE_" in refused
    assert "next step" in refused

    _configure(served.root, sagemaker_edge_core_capture_data_disk_path="/etc/captures")
    served.run("install", "--directory", "--owner=lightkeeper", "/etc/captures")
    served.run("systemctl", "restart", "lightkeeper")
    served.run(CLIENT, "LoadModel", "/device/orientation-1.0.tar.gz", "orientation", user="alice")
    words = ("PredictAndCapture", "orientation", "/device/line.bmp", "x", "48", "192", "3")
    assert "[CAPTURE_DESTINATION_UNUSABLE]" in served.run(CLIENT, *words, user="alice", code=1)


def test_the_drop_in_of_the_manual_gives_and_takes(installed: Machine, device: Path) -> None:
    """With it captures go below /usr, and packages in homes are out of reach."""
    (drop_in,) = re.findall(
        r"```ini\n(.*?)```", (installed.root / "opt/lightkeeper/current/INSTALL.md").read_text(), re.DOTALL
    )
    (folder,) = re.findall(r"ReadWritePaths=(.*)", drop_in)
    (group,) = re.findall(r"SupplementaryGroups=(.*)", drop_in)
    installed.run("install", "--directory", "--owner=lightkeeper", folder)
    installed.run("groupadd", group)
    place = installed.root / f"{UNIT.lstrip('/')}.d"
    place.mkdir()
    (place / "override.conf").write_text(drop_in)
    _configure(installed.root, sagemaker_edge_core_capture_data_disk_path=folder)
    installed.run("systemctl", "enable", "--now", "lightkeeper")

    installed.run(CLIENT, "LoadModel", "/device/orientation-1.0.tar.gz", "orientation", user="alice")
    ask(partial(installed.run, user="alice"), device, CLIENT, "PredictAndCapture", "orientation")
    installed.run(LIGHTKEEPER, "capture", "flush", user="alice")
    assert len(list((installed.root / folder.lstrip("/")).rglob("*.jsonl"))) == 1
    installed.run("cp", "/device/doubled-1.0.tar.gz", "/home/alice", user="alice")
    words = ("models", "load", "/home/alice/doubled-1.0.tar.gz", "--name", "home")
    assert "PACKAGE_" in installed.run(LIGHTKEEPER, *words, user="alice", code=1)


def test_a_killed_agent_comes_back_with_its_models_and_delivers_what_it_took(installed: Machine, device: Path) -> None:
    """A capture that waited for its batch when the agent was killed is delivered, once, and the books agree."""
    served = installed
    _configure(
        served.root,
        sagemaker_edge_core_capture_data_batch_size=10,
        sagemaker_edge_core_capture_data_push_period_seconds=3600,
    )
    served.run("systemctl", "enable", "--now", "lightkeeper")
    served.run(CLIENT, "LoadModel", "/device/orientation-1.0.tar.gz", "orientation", user="alice")
    ask(partial(served.run, user="alice"), device, CLIENT, "PredictAndCapture", "orientation")
    served.run("systemctl", "kill", "--signal=KILL", "lightkeeper")
    assert _captures(served) == []
    served.wait_until(lambda: served.unit("NRestarts") == "1", "systemd starts it again")
    served.wait_until(lambda: served.unit("ActiveState") == "active", "it can be called again")
    served.wait_until(lambda: '"event": "models_restored"' in served.journal(), "its models are loaded again")
    ask(partial(served.run, user="alice"), device, CLIENT, "Predict", "orientation")
    served.run(LIGHTKEEPER, "capture", "flush", user="alice")
    (batch,) = _captures(served)
    assert len(batch.read_text().splitlines()) == 1
    served.run(LIGHTKEEPER, "capture", "audit", "-c", CONFIGURATION)


def test_the_agent_starts_with_the_machine(served: Machine, device: Path) -> None:
    """With the models it had, and the socket's rights."""
    served.run(CLIENT, "LoadModel", "/device/orientation-1.0.tar.gz", "orientation", user="alice")
    served.reboot()
    served.wait_until(lambda: '"event": "models_restored"' in served.journal(), "its models are loaded again")
    ask(partial(served.run, user="alice"), device, CLIENT, "Predict", "orientation")
    assert "Permission denied" in served.run(LIGHTKEEPER, "models", "list", user="bob", code=3)


def test_a_broken_configuration_is_said_at_each_try_until_it_is_mended(installed: Machine) -> None:
    """Starting the service fails with it; once the file is right the service comes up by itself."""
    _configure(installed.root, lightkeeper_threads="many")
    installed.run("systemctl", "enable", "--now", "lightkeeper", code=1)
    said = installed.journal()
    assert "[CONFIG_INVALID]" in said
    assert "lightkeeper_threads" in said
    assert "next step" in said
    installed.wait_until(lambda: installed.journal().count("[CONFIG_INVALID]") == 2, "it is tried again")
    _configure(installed.root)
    installed.wait_until(lambda: installed.unit("ActiveState") == "active", "it is up")
    assert "no model is loaded" in installed.run(LIGHTKEEPER, "models", "list", user="alice")


def test_an_upgrade_restarts_the_service_and_one_that_does_not_start_is_taken_back(
    machine: Machine, archive: str
) -> None:
    """User and folder stay what they were; a rollback restarts it too; a purge leaves nothing behind."""
    words = ("--user", "edge", "--prefix", "/opt/aws/sagemaker_edge", "--config", CONFIGURATION, "--yes")
    machine.run(f"{archive}/install.sh", *words)
    _let_in(machine, "edge")
    machine.run("systemctl", "enable", "--now", "lightkeeper")
    first = archive.rsplit("/", 1)[1]
    assert _running(machine) == first

    newer = _newer(machine, archive, "1.29991231.fffffff")
    assert "restarted the service" in machine.run(f"{newer}/install.sh", "--yes")
    assert _running(machine) == "1.29991231.fffffff"
    assert machine.run("stat", "--format=%U", f"/proc/{machine.unit('MainPID')}").strip() == "edge"

    broken = _newer(machine, archive, "1.29991231.eeeeeee")
    program = machine.root / broken.lstrip("/") / "bin/sagemaker_edge_agent_binary"
    program.unlink()
    program.write_text("#!/bin/sh\necho does not start\nexit 1\n")
    program.chmod(0o755)
    said = machine.run(f"{broken}/install.sh", "--socket", "/run/elsewhere.sock", "--yes", code=1)
    assert "does not start with 1.29991231.eeeeeee; it runs 1.29991231.fffffff again" in said
    assert _running(machine) == "1.29991231.fffffff"
    assert "elsewhere" not in (machine.root / "opt/aws/sagemaker_edge/agent.env").read_text()

    assert "restarted the service" in machine.run(f"{newer}/install.sh", "--rollback")
    assert _running(machine) == first

    said = machine.run("/opt/aws/sagemaker_edge/current/uninstall.sh", "--purge")
    assert "removed the user edge" in said
    assert machine.unit("LoadState") == "not-found"
    assert machine.run("systemctl", "--failed", "--no-legend") == ""
    left = ("/opt/aws/sagemaker_edge", "/var/lib/lightkeeper", SOCKET, UNIT)
    machine.run("sh", "-c", 'for each; do [ ! -e "$each" ] || exit 1; done', "sh", *left)
    assert machine.run("find", "/etc/systemd/system", "-name", "lightkeeper*") == ""
    kept = machine.run("find", "/", "-xdev", "(", "-nouser", "-o", "-nogroup", ")")
    assert set(kept.split()) == {CAPTURES}


def _newer(machine: Machine, archive: str, version: str) -> str:
    """Lay a copy of the archive beside it that says it is another version."""
    place = f"{archive.rsplit('/', 1)[0]}/{version}"
    machine.run("cp", "-a", archive, place)
    (machine.root / place.lstrip("/") / "VERSION").write_text(f"{version}\n")
    return place


def _running(machine: Machine) -> str:
    """Return the version whose program is running as the service."""
    assert machine.unit("ActiveState") == "active"
    return machine.run("readlink", f"/proc/{machine.unit('MainPID')}/exe").split("/")[-3]


def test_captures_reach_a_bucket_by_the_devices_certificate(
    root: Path, archive: str, device: Path, seaweed: Seaweed, tmp_path: Path
) -> None:
    """The service's limits leave it what credentials, TLS and S3 need."""
    bucket = S3Store(seaweed, tmp_path / "hub")
    keys = dict(bucket.settings)
    for key in [key for key in keys if key.endswith("_file")]:
        shutil.copy(str(keys[key]), root / "device" / Path(str(keys[key])).name)
        keys[key] = f"/device/{Path(str(keys[key])).name}"
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    identity = {"sagemaker_edge_core_device_name": DEVICE, "sagemaker_edge_core_device_fleet_name": FLEET}
    _configure(root, **(keys | identity))
    with _booted(root, own_network=False) as machine:
        _install(machine, archive)
        machine.run("chown", "--recursive", "lightkeeper", "/device")
        machine.run("systemctl", "enable", "--now", "lightkeeper")
        machine.run(CLIENT, "LoadModel", "/device/orientation-1.0.tar.gz", "orientation", user="alice")
        ask(partial(machine.run, user="alice"), device, CLIENT, "PredictAndCapture", "orientation")
        machine.run(LIGHTKEEPER, "capture", "flush", user="alice")
    assert len(list(bucket.lines())) == 1


def test_an_image_is_installed_into_and_boots_with_the_agent(root: Path, archive: str) -> None:
    """Its user is made in the image, and nothing on the machine that makes it."""
    install = [str(root / archive.lstrip("/") / "install.sh"), "--root", str(root), "--config", CONFIGURATION, "--yes"]
    said = subprocess.run(install, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    assert "made the user lightkeeper" in said
    subprocess.run(["systemctl", "--root", str(root), "enable", "lightkeeper"], check=True, capture_output=True)
    machine = Machine(root)
    try:
        machine.wait_until(lambda: machine.unit("ActiveState") == "active", "it is up")
        assert machine.run("stat", "--format=%U", SOCKET).strip() == "lightkeeper"
    finally:
        machine.close()
