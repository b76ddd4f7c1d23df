"""What the process may use, read from made-up trees in the kernel's own file formats."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from lightkeeper.resources import available_memory_bytes, usable_cpus

MIB = 1 << 20
V1_NONE = "9223372036854771712\n"
"""What cgroup v1 says where there is no memory limit."""

V1_GROUPS = """\
12:cpuset:/docker/4f2a
11:memory:/docker/4f2a
4:cpu,cpuacct:/docker/4f2a
1:name=systemd:/docker/4f2a
0::/system.slice/containerd.service
"""


def tree(root: Path, files: Mapping[str, str]) -> Path:
    """Write files below a root."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="ascii")
    return root


def v2(root: Path, group: str, files: Mapping[str, str]) -> Path:
    """Write a tree of cgroup v2 with this process in a group; the files are below the mount."""
    mount = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    return tree(
        root,
        {
            "proc/self/cgroup": f"0::{group}\n",
            "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
            **mount,
        },
    )


def scheduled() -> int:
    """Return how many processors this test may run on."""
    return len(os.sched_getaffinity(0))


# --- processors ------------------------------------------------------------------------------------------------------


def test_without_control_groups_the_affinity_decides(tmp_path: Path) -> None:
    """A system without cgroup files is limited by what the scheduler allows."""
    assert usable_cpus(root=tmp_path) == scheduled()


def test_affinity_limits_the_processors() -> None:
    """A process pinned to one processor gets one, however many the machine has."""
    program = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from lightkeeper.resources import usable_cpus
print(usable_cpus())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    ("quota", "processors"),
    [
        ("100000 100000", 1),
        ("50000 100000", 1),  # half a processor is still one thread
        ("1000 100000", 1),
        ("150000 100000", 2),  # rounded up
        ("200000 100000", 2),
        ("6400000 100000", None),
        ("max 100000", None),
        ("", None),
        ("100000 0", None),
    ],
)
def test_a_v2_quota_limits_the_processors_rounded_up(tmp_path: Path, quota: str, processors: int | None) -> None:
    """The second version's cpu.max holds quota and period; more than the affinity allows does not help."""
    root = v2(tmp_path, "/agent", {"agent/cpu.max": f"{quota}\n"})
    assert usable_cpus(root=root) == min(processors or scheduled(), scheduled())


def test_a_quota_of_a_group_above_counts_too(tmp_path: Path) -> None:
    """A slice may be limited where the service in it is not."""
    root = v2(tmp_path, "/edge.slice/agent.service", {"edge.slice/cpu.max": "100000 100000\n"})
    tree(root, {"sys/fs/cgroup/edge.slice/agent.service/cpu.max": "max 100000\n"})
    assert usable_cpus(root=root) == 1


@pytest.mark.parametrize("folder", ["cpu,cpuacct", "cpu"])
def test_a_v1_quota_limits_the_processors(tmp_path: Path, folder: str) -> None:
    """The first version has one file each for quota and period, under either name of the mount."""
    place = f"sys/fs/cgroup/{folder}/docker/4f2a"
    root = tree(tmp_path, {"proc/self/cgroup": V1_GROUPS, f"{place}/cpu.cfs_quota_us": "100000\n"})
    tree(root, {f"{place}/cpu.cfs_period_us": "100000\n"})
    assert usable_cpus(root=root) == 1


def test_a_v1_quota_of_minus_one_is_no_quota(tmp_path: Path) -> None:
    """So the first version says that there is none."""
    place = "sys/fs/cgroup/cpu,cpuacct/docker/4f2a"
    root = tree(tmp_path, {"proc/self/cgroup": V1_GROUPS, f"{place}/cpu.cfs_quota_us": "-1\n"})
    tree(root, {f"{place}/cpu.cfs_period_us": "100000\n"})
    assert usable_cpus(root=root) == scheduled()


# --- memory ----------------------------------------------------------------------------------------------------------


def test_without_control_groups_the_systems_memory_decides(tmp_path: Path) -> None:
    """The figure is the system's own, which moves a little between two looks."""
    assert available_memory_bytes(root=tmp_path) == pytest.approx(psutil.virtual_memory().available, rel=0.1)


def test_the_kernels_own_figure_is_taken(tmp_path: Path) -> None:
    """In kibibytes, among others."""
    meminfo = "MemTotal:       16000 kB\nMemFree:          10 kB\nMemAvailable:    3000 kB\nSwapTotal: 0 kB\n"
    assert available_memory_bytes(root=tree(tmp_path, {"proc/meminfo": meminfo})) == 3000 * 1024


def test_a_v2_limit_leaves_what_is_not_used(tmp_path: Path) -> None:
    """File cache that the kernel can drop counts as room; active cache does not."""
    stat = f"anon {40 * MIB}\nfile {30 * MIB}\ninactive_file {20 * MIB}\nactive_file {10 * MIB}\n"
    root = v2(
        tmp_path,
        "/agent",
        {
            "agent/memory.max": f"{100 * MIB}\n",
            "agent/memory.current": f"{70 * MIB}\n",
            "agent/memory.stat": stat,
        },
    )
    assert available_memory_bytes(root=root) == 50 * MIB


def test_a_v1_limit_leaves_what_is_not_used(tmp_path: Path) -> None:
    """The first version counts whole subtrees under names that begin with total."""
    place = "sys/fs/cgroup/memory/docker/4f2a"
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": V1_GROUPS,
            f"{place}/memory.limit_in_bytes": f"{100 * MIB}\n",
            f"{place}/memory.usage_in_bytes": f"{70 * MIB}\n",
            f"{place}/memory.stat": f"inactive_file {5 * MIB}\ntotal_inactive_file {20 * MIB}\n",
        },
    )
    assert available_memory_bytes(root=root) == 50 * MIB


def test_the_tightest_group_on_the_way_up_decides(tmp_path: Path) -> None:
    """A roomy service in a full slice has no room."""
    root = v2(
        tmp_path,
        "/edge.slice/agent.service",
        {
            "edge.slice/agent.service/memory.max": f"{100 * MIB}\n",
            "edge.slice/agent.service/memory.current": f"{10 * MIB}\n",
            "edge.slice/memory.max": f"{200 * MIB}\n",
            "edge.slice/memory.current": f"{195 * MIB}\n",
            "memory.stat": "",
        },
    )
    assert available_memory_bytes(root=root) == 5 * MIB


def test_a_group_past_its_limit_has_no_room(tmp_path: Path) -> None:
    """A limit lowered under a running process leaves nothing, and not less than nothing."""
    files = {"agent/memory.max": f"{MIB}\n", "agent/memory.current": f"{2 * MIB}\n"}
    assert available_memory_bytes(root=v2(tmp_path, "/agent", files)) == 0


@pytest.mark.parametrize("limit", ["max\n", ""])
def test_a_v2_group_without_a_limit_does_not_count(tmp_path: Path, limit: str) -> None:
    """The system's own figure then does."""
    root = v2(tmp_path, "/agent", {"agent/memory.max": limit, "agent/memory.current": f"{MIB}\n"})
    assert available_memory_bytes(root=root) > MIB


def test_a_v1_group_without_a_limit_does_not_count(tmp_path: Path) -> None:
    """The first version writes a number larger than any machine's memory."""
    place = "sys/fs/cgroup/memory/docker/4f2a"
    root = tree(tmp_path, {"proc/self/cgroup": V1_GROUPS, f"{place}/memory.limit_in_bytes": V1_NONE})
    tree(root, {f"{place}/memory.usage_in_bytes": f"{MIB}\n"})
    assert available_memory_bytes(root=root) == pytest.approx(psutil.virtual_memory().available, rel=0.1)


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_that_sees_its_own_group_as_the_root_is_limited(tmp_path: Path, version: int) -> None:
    """The path in /proc is the host's and is not mounted here; the mount's root is the container's own group."""
    if version == 1:
        names = {"memory.limit_in_bytes": 64, "memory.usage_in_bytes": 16}
        files = {f"sys/fs/cgroup/memory/{name}": f"{mib * MIB}\n" for name, mib in names.items()}
        root = tree(tmp_path, {"proc/self/cgroup": V1_GROUPS, **files})
    else:
        root = v2(tmp_path, "/docker/4f2a", {"memory.max": f"{64 * MIB}\n", "memory.current": f"{16 * MIB}\n"})
    assert available_memory_bytes(root=root) == 48 * MIB


def test_a_hybrid_system_reads_each_controller_where_it_is(tmp_path: Path) -> None:
    """Systemd's hybrid mode has the memory controller in version 1, and version 2 under `unified` without any."""
    place = "sys/fs/cgroup/memory/docker/4f2a"
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": V1_GROUPS,
            "sys/fs/cgroup/unified/cgroup.controllers": "\n",
            "sys/fs/cgroup/unified/system.slice/containerd.service/cgroup.procs": "1\n",
            f"{place}/memory.limit_in_bytes": f"{8 * MIB}\n",
            f"{place}/memory.usage_in_bytes": f"{2 * MIB}\n",
        },
    )
    assert available_memory_bytes(root=root) == 6 * MIB


def test_this_machines_own_files_can_be_read() -> None:
    """Whatever this machine's layout is, the figures are sane."""
    assert 1 <= usable_cpus() <= scheduled()
    assert 0 < available_memory_bytes() <= psutil.virtual_memory().total


def test_freed_memory_goes_back_to_the_system() -> None:
    """Many small pieces below a last one that stays are kept by the C library until it is asked."""
    program = """
import psutil
from lightkeeper.resources import give_back_memory
resident = lambda: psutil.Process().memory_info().rss
pieces = [bytes(2000) for _ in range(50_000)]
last = bytes(2000)
full = resident()
del pieces
kept = resident()
give_back_memory()
give_back_memory()  # a second time is harmless
print(full - kept, full - resident())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    by_itself, after = map(int, done.stdout.split())
    assert by_itself < after
    assert after > 80 * MIB


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="counts blocks as glibc 2.33 and later does")
def test_large_block_is_mapped_by_itself_whatever_was_freed_before() -> None:
    """Once the memory is settled, freeing a large block does not make the C library keep the next one."""
    counts = """
import ctypes
from lightkeeper import resources

class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "mapped_blocks")]
    _fields_ += [(f"rest{n}", ctypes.c_size_t) for n in range(6)]

library = ctypes.CDLL(None)
library.mallinfo2.restype = Mallinfo
resources.settle_memory()
for _ in range(3):
    before = library.mallinfo2().mapped_blocks
    block = bytearray(resources.MAPPED_FROM_BYTES)
    print(library.mallinfo2().mapped_blocks - before)
    del block
"""
    done = subprocess.run([sys.executable, "-c", counts], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["1", "1", "1"]
