"""The checks of the disk, on real file systems where this user may mount one, else on what a kernel lists."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightkeeper.doctor import State, storage
from lightkeeper.doctor.storage import Mount
from lightkeeper.state import StateFolder

MIB = 1024 * 1024
EXT4 = Mount("/", "ext4", ("rw", "relatime"), "/dev/sda1")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A small file system in memory."""
    folder = tmp_path / "memory"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a tmpfs")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_spool_in_memory_fails(mounted: Path) -> None:
    """A tmpfs is gone with the power, wherever it is mounted."""
    found = storage.power_cut(mounted / "state", storage.mounts(), in_memory=False)
    assert found.state is State.FAILED
    assert "tmpfs" in found.found
    assert "sagemaker_edge_local_data_root_path" in found.fix


def test_a_file_system_that_can_only_be_read_fails(mounted: Path) -> None:
    """As the kernel remounts one after an error."""
    listed = [Mount(str(mounted), "ext4", ("ro",)), EXT4]
    found = storage.power_cut(mounted, listed, in_memory=False)
    assert (found.state, found.reason) == (State.FAILED, "STATE_DISK_BROKEN")


@pytest.mark.parametrize(
    ("listed", "state", "word"),
    [
        ([EXT4], State.OK, "ext4"),
        ([EXT4, Mount("/data", "ext4", ("rw", "nobarrier"))], State.WARNING, "does not wait"),
        ([EXT4, Mount("/data", "vfat", ("rw",))], State.WARNING, "journal"),
        ([EXT4, Mount("/data", "nfs4", ("rw",))], State.WARNING, "another machine's"),
        ([EXT4, Mount("/data", "ext4", ("rw",), "/dev/zram0")], State.FAILED, "memory"),
        ([EXT4, Mount("/data", "ext4"), Mount("/data", "tmpfs")], State.FAILED, "tmpfs"),
        ([Mount("/", "overlay", ("rw", "upperdir=/var/docker/diff"))], State.WARNING, "container"),
        (
            [Mount("/media/rw", "tmpfs", ("rw",)), Mount("/", "overlay", ("rw", "upperdir=/media/rw/overlay"))],
            State.FAILED,
            "tmpfs",
        ),
    ],
)
def test_a_file_system_is_judged_by_what_it_does_in_a_power_cut(listed: list[Mount], state: State, word: str) -> None:
    """What is mounted over another counts, and of a read-only root the layer that takes what is written."""
    found = storage.power_cut(Path("/data/state"), listed, in_memory=False)
    assert (found.state, word in found.found) == (state, True), found


def test_captures_in_memory_are_a_warning() -> None:
    """The configuration asks for it; whoever looks should know."""
    found = storage.power_cut(Path("/data"), [EXT4], in_memory=True)
    assert (found.state, "lightkeeper_capture_durability" in found.fix) == (State.WARNING, True)


def test_a_disk_with_too_little_room_fails_or_warns(mounted: Path) -> None:
    """Below the floor nothing is taken; above it the spool's own limit may never be reached."""
    state = mounted / "state"
    (state / "spool").mkdir(parents=True)
    (state / "spool" / "payload").write_bytes(bytes(MIB))
    full = storage.disk_space(state, spool_max_bytes=8 * MIB, floor_bytes=4 * MIB)
    assert (full.state, full.reason) == (State.FAILED, "SPOOL_DISK_FULL")
    short = storage.disk_space(state, spool_max_bytes=8 * MIB, floor_bytes=0)
    assert short.state is State.WARNING
    enough = storage.disk_space(state, spool_max_bytes=3 * MIB, floor_bytes=0)
    assert (enough.state, enough.facts["spool_bytes"]) == (State.OK, str(MIB))


def test_a_state_folder_where_a_file_lies_fails(tmp_path: Path) -> None:
    """With the code that the agent would refuse to start with."""
    (tmp_path / "file").touch()
    found = storage.state_folder(tmp_path / "file" / "state")
    assert (found.state, found.reason) == (State.FAILED, "STATE_UNUSABLE")


def test_a_state_folder_that_others_may_change_warns(tmp_path: Path) -> None:
    """And its mode is told."""
    tmp_path.chmod(0o770)
    found = storage.state_folder(tmp_path)
    assert (found.state, found.facts["mode"]) == (State.WARNING, "0770")


def test_the_agent_that_keeps_the_state_folder_is_named_and_keeps_it(tmp_path: Path) -> None:
    """Looking takes no lock: whoever looks may do so at any time."""
    tmp_path.chmod(0o700)
    assert storage.state_folder(tmp_path).facts["agent"] == "none runs"
    held = StateFolder(tmp_path)
    assert storage.state_folder(tmp_path).facts["agent"] == f"process {os.getpid()}"
    held.close()
    with (tmp_path / "agent.lock").open() as file:
        storage.state_folder(tmp_path)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert storage.state_folder(tmp_path / "none").found.endswith("is made at the first start")


def test_a_folder_of_captures_that_cannot_be_made_fails(tmp_path: Path) -> None:
    """A file lies in its way."""
    (tmp_path / "captures").touch()
    found = storage.capture_folder(tmp_path / "captures", floor_bytes=0)
    assert found.state is State.FAILED
    assert storage.capture_folder(tmp_path / "others", floor_bytes=0).state is State.OK
    assert storage.capture_folder(tmp_path / "others", floor_bytes=1 << 60).state is State.WARNING
    assert not (tmp_path / "others").exists()
