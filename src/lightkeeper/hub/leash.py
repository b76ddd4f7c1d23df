"""Becomes another program, which the kernel ends with the thread that started it: `python leash.py PARENT PROGRAM …`.

A program that outlives a killed hub would hold its ports and its data. `preexec_fn` could ask the kernel for this
between fork and exec, but is not safe beside threads; so the child is this file first, and the program then. It is run
by path, imports next to nothing, and leaves no process behind.

Only Linux knows such a request. Elsewhere the program is started all the same, and a killed hub leaves it running.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def become(parent: int, command: list[str]) -> None:
    """Replace this process; the parent may have died before the kernel was asked, which ends it here."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() == parent:
        os.execv(command[0], command)  # noqa: S606  # a program, no shell


def command(program: str, *arguments: str) -> list[str]:
    """Return the command line that runs a program on the leash of the calling thread."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), program, *arguments]


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
