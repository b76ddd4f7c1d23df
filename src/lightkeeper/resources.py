"""What this process may use of the machine, and how it gives back what it no longer needs.

Every figure is read anew at each call, from the kernel's own files: a container's limits change while it runs. A limit
that cannot be read does not count; the machine's own figure then does.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path

ROOT = Path("/")

MAPPED_FROM_BYTES = 4 * 1024 * 1024
"""A block this large is mapped by itself and unmapped when it is freed: weights are, a picture's tensor is not."""

KEPT_FREE_BYTES = 16 * 1024 * 1024
"""What the C library keeps at hand of what is freed, so that a picture a call does not go to the system and back."""

ARENAS = 2
"""Heaps that the C library shares out to threads; each keeps memory at hand, and by itself it makes 8 a processor."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # <malloc.h>

_UNLIMITED_BYTES = 1 << 60
"""A memory limit from here on is cgroup v1's way to say none."""


def usable_cpus(*, root: Path = ROOT) -> int:
    """Return how many processors this process may keep busy: at least 1.

    The least of the processors it may be scheduled on and, for each control group it is in and each group above, the
    quota rounded up.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for group in _groups(root, "cpu") if (quota := group.cpu_quota()) is not None]
    return max(1, min([usable, *map(ceil, quotas)]))


def available_memory_bytes(*, root: Path = ROOT) -> int:
    """Return how much more memory this process can take before the kernel must kill something.

    The least of what the system calls available and, for each control group, its limit less what it uses; the file
    cache that the kernel can drop counts as available.
    """
    rooms = [room for group in _groups(root, "memory") if (room := group.memory_room_bytes()) is not None]
    return max(0, min([_system_available_bytes(root), *rooms]))


def _system_available_bytes(root: Path) -> int:
    words = _words(root / "proc/meminfo")
    if "MemAvailable:" in words:
        return int(words[words.index("MemAvailable:") + 1]) * 1024
    import psutil  # takes a megabyte of memory itself

    return int(psutil.virtual_memory().available)


def settle_memory() -> None:
    """Have the C library give large blocks back as soon as they are freed, and keep few heaps (docs/adr/0004).

    Left alone, it raises its limits to the size of the largest block it has seen freed: once a model is closed, the
    next one's weights are laid among small blocks, and part of them stays with the process. Does nothing off glibc.
    """
    if sys.platform != "linux":
        return
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    if option is not None:
        option(_M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)
        option(_M_TRIM_THRESHOLD, KEPT_FREE_BYTES)
        option(_M_ARENA_MAX, ARENAS)


def give_back_memory() -> None:
    """Return freed memory to the system now; the C library alone keeps it for later use. Does nothing off glibc."""
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@dataclass(frozen=True, slots=True)
class _Group:
    """One control group's folder; `unified` tells the second version's layout from the first's."""

    folder: Path
    unified: bool

    def cpu_quota(self) -> float | None:
        """Return the processors' worth of time the group may use, or None where it has no quota."""
        if self.unified:
            quota, period, *_ = [*_words(self.folder / "cpu.max"), "", ""]
        else:
            quota = _word(self.folder / "cpu.cfs_quota_us")
            period = _word(self.folder / "cpu.cfs_period_us")
        if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
            return None  # "max" and -1 say that there is no quota
        return int(quota) / int(period)

    def memory_room_bytes(self) -> int | None:
        """Return how much more the group may take, or None where it has no limit."""
        if self.unified:
            names = ("memory.max", "memory.current", "inactive_file")
        else:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        limit, used = (_word(self.folder / name) for name in names[:2])
        if not limit.isdecimal() or not used.isdecimal() or int(limit) >= _UNLIMITED_BYTES:
            return None
        statistics = _words(self.folder / "memory.stat")
        droppable = dict(zip(statistics[::2], statistics[1::2], strict=False)).get(names[2], "0")
        return int(limit) - max(0, int(used) - int(droppable))


def _groups(root: Path, controller: str) -> Iterator[_Group]:
    """Yield the control groups of a controller that this process is in, innermost first."""
    mounts = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        unified = number == "0"
        if unified:
            mount = mounts if (mounts / "cgroup.controllers").exists() else mounts / "unified"
        elif controller in controllers.split(","):
            mount = mounts / controllers if (mounts / controllers).is_dir() else mounts / controller
        else:
            continue
        # In a container the path is often the host's, and the container's own group is mounted as the root: a folder
        # that is not there is passed over, and the root is looked at in any case.
        own = Path(path.lstrip("/"))
        for below in (own, *own.parents):
            if (mount / below).is_dir():
                yield _Group(mount / below, unified)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _words(file: Path) -> list[str]:
    return _text(file).split()


def _word(file: Path) -> str:
    return _text(file).strip()
