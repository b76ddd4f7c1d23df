"""The disk: whose state folder it is, whether what lies there outlasts a power cut, and how much room there is."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lightkeeper.config.surroundings import folder_problem
from lightkeeper.doctor.diagnosis import Diagnosis, failed, ok, warning
from lightkeeper.errors import SpoolDiskFull, StateDiskBroken, StateUnusable
from lightkeeper.paths import nearest
from lightkeeper.state import LOCK_FILE

MIB = 1024 * 1024
INODES_LEAST = 1000
"""Files that can still be made; a capture with large payloads makes several."""

COUNTED_FILES = 100_000
"""How many files of the spool are added up."""

LOCKS = Path("/proc/locks")

_VOLATILE = frozenset({"tmpfs", "ramfs", "rootfs", "devtmpfs"})
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs", "fuse.sshfs", "virtiofs"})
_FRAGILE = frozenset({"vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk", "ext2"})
_UNSYNCED = frozenset({"nobarrier", "barrier=0", "fsync_mode=nobarrier", "eatmydata"})
_MORE_ROOM = "free some, put sagemaker_edge_local_data_root_path on a larger disk, or lower lightkeeper_spool_max_bytes"


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system."""

    folder: str
    kind: str
    options: tuple[str, ...] = ()
    device: str = ""


def mounts() -> list[Mount]:
    """Return every mounted file system, the latest last."""
    import psutil

    return [
        Mount(found.mountpoint, found.fstype, tuple(found.opts.split(",")), found.device)
        for found in psutil.disk_partitions(all=True)
    ]


def state_folder(path: Path, *, locks: Path = LOCKS) -> Diagnosis:
    """Whether this user can keep the agent's state there, and which process does; nothing is made or locked."""
    problem = folder_problem(path)
    try:
        found = path.stat()
    except OSError:
        found = None
    if problem:
        return failed(
            f"the state folder {problem}",
            fix=StateUnusable.next_step,
            reason=StateUnusable.reason,
            facts={"folder": path},
        )
    if found is None:
        return ok(f"{path} is made at the first start", facts={"folder": path})
    facts = {"folder": path, "mode": f"{found.st_mode & 0o7777:04o}", "agent": _holder(path, locks) or "none runs"}
    if found.st_mode & 0o022:
        return warning(f"others may change {path}", fix=f"chmod 700 {path}", facts=facts)
    if found.st_uid != os.geteuid():
        return warning(
            f"{path} is another user's: this command judges files and folders as you, not as the agent",
            fix=f"run it as the agent's user: sudo -u '#{found.st_uid}' lightkeeper doctor …",
            facts={**facts, "owner": found.st_uid},
        )
    held = f", kept by an agent: {facts['agent']}" if facts["agent"] != "none runs" else ""
    return ok(f"{path}{held}", facts=facts)


def power_cut(path: Path, mounted: Iterable[Mount], *, in_memory: bool) -> Diagnosis:
    """Whether captures that were accepted outlast a power cut where the spool lies."""
    mount = mount_of(path, list(mounted))
    facts = {"folder": path, "file_system": mount.kind, "mounted_at": mount.folder, "options": ",".join(mount.options)}
    kept = "set sagemaker_edge_local_data_root_path to a folder on the device's own disk, ext4, f2fs or btrfs"
    if mount.kind in _VOLATILE or mount.device.startswith("/dev/zram"):
        return failed(
            f"the spool lies in memory ({mount.kind} at {mount.folder}): captures that wait are lost with the power",
            fix=kept,
            facts=facts,
        )
    if "ro" in mount.options:
        return failed(
            f"the file system at {mount.folder} can only be read: nothing is captured",
            fix=f"see why in dmesg, repair it with fsck, then mount -o remount,rw {mount.folder}",
            reason=StateDiskBroken.reason,
            facts=facts,
        )
    if in_memory:
        return warning(
            "captures that wait are not written to the disk before they are acknowledged",
            fix="set lightkeeper_capture_durability to sync, unless they may be lost with the process",
            facts=facts,
        )
    doubt = _doubt(mount)
    if doubt:
        return warning(doubt, fix=kept, facts=facts)
    return ok(f"{mount.kind} at {mount.folder} keeps what is written through a power cut", facts=facts)


def _doubt(mount: Mount) -> str:
    if mount.kind == "overlay":
        return f"{mount.folder} is a layer (overlay), which goes with its container"
    if mount.kind in _REMOTE:
        return f"{mount.folder} is another machine's disk ({mount.kind}): locks and syncs may not hold"
    if mount.kind in _FRAGILE:
        return f"{mount.kind} has no journal for what a power cut leaves half done"
    unsynced = not _UNSYNCED.isdisjoint(mount.options)
    return f"{mount.folder} is mounted so that a sync does not wait for the disk" if unsynced else ""


def mount_of(path: Path, mounted: list[Mount]) -> Mount:
    """Return the file system that a path's files lie on: of an overlay, the one that what is new goes to."""
    real = Path(os.path.realpath(path))
    here = [mount for mount in mounted if real.is_relative_to(mount.folder)]
    if not here:
        return Mount("/", "unknown")
    deepest = max(len(mount.folder) for mount in here)
    mount = [mount for mount in here if len(mount.folder) == deepest][-1]  # mounted over the others
    upper = next((option[9:] for option in mount.options if option.startswith("upperdir=")), "")
    if mount.kind == "overlay" and upper.startswith("/"):
        below = mount_of(Path(upper), [other for other in mounted if other is not mount and other.folder != "/"])
        return below if below.kind in _VOLATILE else mount
    return mount


def disk_space(path: Path, *, spool_max_bytes: int, floor_bytes: int) -> Diagnosis:
    """Whether the disk has room for as much as the spool may hold, beside what captures leave free."""
    found = os.statvfs(nearest(path))
    free_bytes = found.f_bavail * found.f_frsize
    used_bytes = sum(_sizes(path / "spool"))
    wanted_bytes = max(0, spool_max_bytes - used_bytes)
    facts = {
        "free_bytes": free_bytes,
        "spool_bytes": used_bytes,
        "spool_max_bytes": spool_max_bytes,
        "free_floor_bytes": floor_bytes,
    }
    if free_bytes <= floor_bytes:
        return failed(
            f"{_size(free_bytes)} are free, and captures leave {_size(floor_bytes)}: none is taken",
            fix=_MORE_ROOM,
            reason=SpoolDiskFull.reason,
            facts=facts,
        )
    if found.f_files and found.f_favail < INODES_LEAST:
        return failed(
            f"the file system has room for {found.f_favail} more files",
            fix="remove files",
            facts={**facts, "files": found.f_favail},
        )
    if free_bytes - floor_bytes < wanted_bytes:
        return warning(
            f"{_size(free_bytes)} are free: the disk is full before the spool has {_size(spool_max_bytes)}",
            fix=_MORE_ROOM,
            facts=facts,
        )
    return ok(f"{_size(free_bytes)} are free", facts=facts)


def capture_folder(path: Path, *, floor_bytes: int) -> Diagnosis:
    """Whether captures can be written where the configuration sends them."""
    problem = folder_problem(path)
    if problem:
        return failed(
            f"the folder of captures {problem}",
            fix="set sagemaker_edge_core_capture_data_disk_path to a folder that the agent's user may write",
            facts={"folder": path},
        )
    found = os.statvfs(nearest(path))
    free_bytes = found.f_bavail * found.f_frsize
    if free_bytes <= floor_bytes:
        return warning(
            f"{_size(free_bytes)} are free there",
            fix="move captures that are written away",
            facts={"free_bytes": free_bytes},
        )
    return ok(f"{path}, {_size(free_bytes)} free", facts={"folder": path, "free_bytes": free_bytes})


def _holder(state: Path, locks: Path) -> str:
    """Return which process holds the state folder's lock, as the kernel lists it, or nothing."""
    try:
        found = (state / LOCK_FILE).stat()
        listed = locks.read_text(encoding="ascii").splitlines()
    except OSError:
        return ""
    for line in listed:
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(found.st_ino):  # noqa: PLR2004  # lock: kind at 1, device and inode at 5
            major, minor = (int(part, 16) for part in words[5].split(":")[:2])
            if os.makedev(major, minor) == found.st_dev:
                return f"process {words[4]}"
    return ""


def _sizes(folder: Path) -> Iterator[int]:
    """Yield the sizes of files in a folder, of the first `COUNTED_FILES`; those it may not look at count for none."""
    seen = 0
    for place, _, names in os.walk(folder):
        for name in names:
            seen += 1
            if seen > COUNTED_FILES:
                return
            try:
                yield os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118  # a path object a file is slow
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.EACCES}:
                    raise


def _size(size_bytes: int) -> str:
    return f"{size_bytes / MIB / 1024:.1f} GiB" if size_bytes >= 1024 * MIB else f"{size_bytes / MIB:.0f} MiB"
