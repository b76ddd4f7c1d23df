"""Where the agent serves, and commands look for it, when nobody says."""

from __future__ import annotations

import argparse
import stat
from pathlib import Path

import pytest

from lightkeeper.cli import address
from lightkeeper.errors import SocketFolderMissing
from lightkeeper.system import DEFAULT_ADDRESS, HAS_MODES


def parsed(*words: str, has_default: bool) -> argparse.Namespace:
    """Parse the agent's words, on a system where it has a default address or has none."""
    parser = argparse.ArgumentParser()
    address.add_served_address_flag(parser, has_default=has_default)
    return parser.parse_args(words)


def test_the_agent_must_be_told_where_its_folder_would_be_everybodys() -> None:
    """The customary path lies in a folder that all users share."""
    with pytest.raises(SystemExit):
        parsed(has_default=False)
    assert parsed("-a", "here", has_default=False).address == "here"


def test_an_agent_with_a_default_serves_where_commands_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment counts for both, and a word before it."""
    commands = argparse.ArgumentParser()
    monkeypatch.delenv(address.VARIABLE, raising=False)
    address.add_address_flag(commands)
    assert parsed(has_default=True).address == commands.parse_args([]).address == DEFAULT_ADDRESS
    monkeypatch.setenv(address.VARIABLE, "elsewhere")
    assert parsed(has_default=True).address == "elsewhere"
    assert parsed("-a", "here", has_default=True).address == "here"


def test_only_the_default_folder_is_made_and_for_its_user_alone(tmp_path: Path) -> None:
    """Any other folder's rights are the operator's to say."""
    default = tmp_path / "lightkeeper" / "agent.endpoint"
    address.make_default_folder(str(tmp_path / "other" / "agent.endpoint"), default=str(default))
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):
        address.make_default_folder(str(default), default=str(default))
    assert default.parent.is_dir()
    assert not HAS_MODES or stat.S_IMODE(default.parent.stat().st_mode) == 0o700


def test_a_default_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """With the cause."""
    default = tmp_path / "none" / "lightkeeper" / "agent.endpoint"
    with pytest.raises(SocketFolderMissing, match="cannot be made"):
        address.make_default_folder(str(default), default=str(default))
