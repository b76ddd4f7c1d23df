"""The walk-through of docs/hub.md, typed into terminals as it is printed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lightkeeper.hub.folder import ADDRESSES

PAGE = (Path(__file__).parents[2] / "docs" / "hub.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## From an empty folder")[2].partition("\n## ")[0]
READY = "this shell has done what was typed"
PATIENCE_SECONDS = 120.0


class Terminal:
    """A shell in a folder, which ends at the first command that fails."""

    def __init__(self, folder: Path) -> None:
        strangers = ("AWS_", "LIGHTKEEPER_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(strangers)}
        self.process = subprocess.Popen(
            ["bash", "-e"],
            cwd=folder,
            env=environment | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def begin(self, commands: str) -> None:
        """Type commands, and wait for nothing."""
        assert self.process.stdin is not None
        self.process.stdin.write(commands)
        self.process.stdin.flush()

    def type(self, commands: str) -> str:
        """Type commands, and return what they print."""
        self.begin(f"{commands}\necho '{READY}'\n")
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            if line.strip() == READY:
                return said
            said += line
        raise AssertionError(said)

    def close(self) -> None:
        """Press Ctrl-C and close the window: what still runs in it ends."""
        for how in (signal.SIGINT, signal.SIGTERM):
            try:
                os.killpg(self.process.pid, how)
            except ProcessLookupError:
                break
        self.process.communicate(timeout=60)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[[], Terminal]]:
    """Open terminals in one empty folder."""
    with ExitStack() as stack:

        def open_one() -> Terminal:
            opened = Terminal(tmp_path)
            stack.callback(opened.close)
            return opened

        yield open_one


def eventually(what: Callable[[], object], hint: Callable[[], str]) -> None:
    """Wait until something is so; `hint` tells why it is not."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline, hint()
        time.sleep(0.2)


@pytest.mark.timeout(400)
def test_two_devices_run_a_model_when_the_walk_through_is_followed(
    tmp_path: Path, terminal: Callable[[], Terminal]
) -> None:
    """Every command succeeds in its order, each device answers what the page says, and the report has both."""
    start, operator, devices, report, end = re.findall(r"^```sh\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
    first, second, third = terminal(), terminal(), terminal()
    first.begin(start)
    eventually((tmp_path / "hub" / ADDRESSES).exists, lambda: f"the hub's shell: {first.process.poll()}")
    said = second.type(operator)
    assert "FAILED" not in said, said
    answered = third.type(devices)
    assert len(re.findall(r"^y\s+float32\s+\[1, 3\]\s+0\s+0\s+2\s*$", answered, re.MULTILINE)) == 2, answered
    said = ""

    def both_reported() -> bool:
        nonlocal said
        said = second.type(report)
        return "2 of 2 devices connected" in said

    eventually(both_reported, lambda: said)
    assert {"cam-1", "cam-2"} <= set(said.split())
    third.type(f"{end}\nwait")
