"""A disk that fails under the spool at every write and sync, and the syncs themselves counted: clauses 2.1 and 2.6."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from lightkeeper.capture.spool import Spool
from tests.support.spools import audited, is_whole, open_spool

SUPPORT = Path(__file__).parent.parent / "support"
ROOT = SUPPORT.parent.parent

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None, reason="needs a C compiler and preloading, as on Linux"
)


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The failing disk, compiled."""
    library = tmp_path_factory.mktemp("shim") / "faultfs.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, SUPPORT / "faultfs.c", "-ldl"], check=True
    )
    return library


@dataclass(frozen=True)
class Told:
    """What the program that accepts was told, and what it cost."""

    accepted: frozenset[str]
    refused: dict[str, str]
    syncs: int
    writes: int


def accept(shim: Path, home: Path, fault: dict[str, str] | None = None, /, **how: int) -> Told:
    """Have a process accept captures into `home/spool` on a disk that may fail, and return what it was told."""
    log, counts, switch = home / "log", home / "counts", home / "switch"
    for path in (log, counts, switch):
        path.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(shim),
        "FAULT_PREFIX": str(home / "spool"),
        "FAULT_COUNTS": str(counts),
        "FAULT_SWITCH": str(switch),
        **(fault or {}),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.acceptor", home / "spool", log, json.dumps({"callers": 1, **how})],
        cwd=ROOT,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == (-9 if how.get("dies") else 0), done.stderr
    lines = log.read_text().splitlines()
    assert lines[-1] == "."
    refused = dict(line[1:].split(" ") for line in lines if line.startswith("-"))
    syncs, writes = map(int, counts.read_text().split()) if counts.exists() else (0, 0)
    return Told(frozenset(line[1:] for line in lines if line.startswith("+")), refused, syncs, writes)


def kept(spool: Spool) -> frozenset[str]:
    """Return the ids of all captures that the spool holds, each of them whole."""
    spool.close_batch()
    found: list[str] = []
    after = 0
    while (batch := spool.next_batch(after=after)) is not None:
        captures = spool.captures_of(batch)
        assert all(is_whole(capture) for capture in captures)
        found += [capture.id for capture in captures]
        after = batch.seq
    assert len(found) == len(set(found))
    return frozenset(found)


def idle_syncs(shim: Path, home: Path, **how: int) -> int:
    """Return how many syncs opening and closing a spool costs that was made before."""
    accept(shim, home, None, captures=0, **how)
    return accept(shim, home, None, captures=0, **how).syncs


@pytest.mark.parametrize("dies", [0, 1])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_one_refused_operation_costs_only_the_captures_that_were_refused(
    shim: Path, tmp_path: Path, error: int, dies: int, fault_effort: int
) -> None:
    """Whichever write or sync it is: what was answered OK is there, what was refused is not, and the audit adds up."""
    step = max(1, 5 // fault_effort)
    for at in range(1, 30, step):
        home = tmp_path / str(at)
        home.mkdir()
        fault = {"FAULT_AT": str(at), "FAULT_ERRNO": str(error), "FAULT_SHORT": str(at % 2)}
        told = accept(shim, home, fault, captures=8, large_bytes=5000, dies=dies)
        assert len(told.accepted) + len(told.refused) == 8
        assert len(told.refused) <= 1, told
        reasons = {"SPOOL_BROKEN", "SPOOL_DISK_FULL"} if error == errno.ENOSPC else {"SPOOL_BROKEN"}
        assert set(told.refused.values()) <= reasons  # SQLite says of a full disk's refused sync that it is broken
        spool = open_spool(home / "spool")
        assert kept(spool) == told.accepted
        spool.close()
        audit = audited(home / "spool")
        assert (audit.accepted, audit.faults) == (len(told.accepted), ())


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EROFS], ids=["EIO", "ENOSPC", "EROFS"])
def test_a_disk_that_fails_for_good_loses_nothing_that_was_accepted(
    shim: Path, tmp_path: Path, error: int, fault_effort: int
) -> None:
    """All after the fault is refused; only the one whose last sync was refused may turn up after the restart, whole."""
    step = max(1, 7 // fault_effort)
    for at in range(1, 30, step):
        home = tmp_path / str(at)
        home.mkdir()
        fault = {"FAULT_AT": str(at), "FAULT_ERRNO": str(error), "FAULT_LASTING": "1"}
        told = accept(shim, home, fault, captures=8, large_bytes=5000, dies=1)
        spool = open_spool(home / "spool")
        there = kept(spool)
        assert told.accepted <= there
        assert len(there - told.accepted) <= 1
        spool.close()
        audit = audited(home / "spool")
        assert (audit.accepted, audit.faults) == (len(there), ())


def test_a_capture_is_synced_before_it_is_accepted(shim: Path, tmp_path: Path) -> None:
    """A single caller's every capture costs a sync, and one with a large payload also its file's and its folder's."""
    idle = idle_syncs(shim, tmp_path)
    told = accept(shim, tmp_path, captures=50)
    assert len(told.accepted) == 50
    assert 50 <= told.syncs - idle <= 55
    shutil.rmtree(tmp_path / "spool")
    idle = idle_syncs(shim, tmp_path)
    told = accept(shim, tmp_path, captures=50, large_bytes=5000)
    assert len(told.accepted) == 50
    assert 50 + 2 * 25 <= told.syncs - idle <= 110


def test_callers_share_their_syncs(shim: Path, tmp_path: Path) -> None:
    """Eight callers at once need far fewer syncs than they have captures."""
    idle = idle_syncs(shim, tmp_path)
    told = accept(shim, tmp_path, captures=800, callers=8)
    assert len(told.accepted) == 800
    assert told.syncs - idle < 600


def test_with_an_interval_captures_are_synced_when_the_timer_says_so(shim: Path, tmp_path: Path) -> None:
    """A sync for each call of the timer, here after every fourth capture, and none between."""
    idle = idle_syncs(shim, tmp_path, interval_ms=100)
    told = accept(shim, tmp_path, captures=80, interval_ms=100)
    assert len(told.accepted) == 80
    assert 20 <= told.syncs - idle <= 25
