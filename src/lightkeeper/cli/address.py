"""Where commands find the agent: `-a`, else the environment, else the path that applications have always used."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightkeeper.client import Client

VARIABLE = "LIGHTKEEPER_ADDRESS"
DEFAULT = "/tmp/agent.sock"  # noqa: S108  # the old agent's customary path; the agent itself never assumes it


def add_address_flag(parser: argparse.ArgumentParser) -> None:
    """Give a command the flag `-a`."""
    parser.add_argument(
        "-a",
        "--address",
        default=os.environ.get(VARIABLE, DEFAULT),
        help=f"the agent's socket (default: ${VARIABLE}, else {DEFAULT})",
    )


def package_url(package: str) -> str:
    """Return a package's path as the agent, which runs in another folder, can take it; a URL stays as it is."""
    return package if "://" in package else str(Path(package).absolute())


def connect(args: argparse.Namespace) -> Client:
    """Return a client of the agent that the arguments name; a call may take as long as it takes."""
    from lightkeeper.client import Client

    return Client(args.address, timeout_seconds=None)
