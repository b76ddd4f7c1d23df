"""What lies at a path: presence, absence, and a fault that is neither."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from lightkeeper import paths
from lightkeeper.capture.audit import LedgerReader
from lightkeeper.captures.place import Folder
from lightkeeper.config.surroundings import file_problem, folder_problem
from lightkeeper.errors import AgentError
from lightkeeper.modelpackage import source
from tests.support.users import ordinary_user

TOO_LONG = Path("/") / ("x" * 300)
"""The system cannot say what lies there, to root neither."""


def test_what_is_there_is_told_through_links(tmp_path: Path) -> None:
    """A link is what it leads to; one that leads nowhere is nothing."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "lost").symlink_to("nothing")
    assert [paths.is_file(tmp_path / name) for name in ("file", "link", "lost", "nothing")] == [
        True,
        True,
        False,
        False,
    ]
    assert (paths.is_folder(tmp_path), paths.is_folder(tmp_path / "file")) == (True, False)
    assert not paths.exists(tmp_path / "file" / "below")
    assert paths.nearest(tmp_path / "a" / "b") == tmp_path


@pytest.mark.parametrize("ask", [paths.exists, paths.is_file, paths.is_folder, paths.nearest])
def test_a_fault_is_no_absence(ask: Callable[[Path], object]) -> None:
    """On every version of Python."""
    with pytest.raises(OSError, match="File name too long") as found:
        ask(TOO_LONG)
    assert found.value.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize("ask", [Folder, LedgerReader, source.find])
def test_a_command_says_what_the_system_said(ask: Callable[[Path], object]) -> None:
    """And not that nothing lies there."""
    with pytest.raises(AgentError, match="cannot be reached: File name too long"):
        ask(TOO_LONG)


def test_the_configurations_paths_are_told_of_so_too() -> None:
    """Files and folders."""
    assert "cannot be reached" in file_problem(TOO_LONG)
    assert "cannot be reached" in folder_problem(TOO_LONG)


def test_what_a_user_may_not_look_at_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service's captures and ledger, looked at by somebody else."""
    (tmp_path / "state").mkdir(0o700)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    for ask in (Folder, LedgerReader):
        with ordinary_user(), pytest.raises(AgentError, match="cannot be reached: Permission denied"):
            ask(Path("state") / "captures")
