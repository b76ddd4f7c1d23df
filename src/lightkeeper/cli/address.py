"""Where commands find the agent: `-a`, else the environment, else where it lies on this system by custom."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from lightkeeper.errors import SocketFolderMissing
from lightkeeper.system import AGENT_SERVES_DEFAULT, DEFAULT_ADDRESS

if TYPE_CHECKING:
    from lightkeeper.client import Client

VARIABLE = "LIGHTKEEPER_ADDRESS"
AGENT_FLAG = "" if AGENT_SERVES_DEFAULT else f"-a {DEFAULT_ADDRESS} "
"""What must be said to have an agent serve the default address."""


def add_address_flag(parser: argparse.ArgumentParser) -> None:
    """Give a command the flag `-a`."""
    parser.add_argument(
        "-a",
        "--address",
        default=_default(),
        help=f"the agent's socket (default: ${VARIABLE}, else {_for_help(DEFAULT_ADDRESS)})",
    )


def add_served_address_flag(parser: argparse.ArgumentParser, *, has_default: bool = AGENT_SERVES_DEFAULT) -> None:
    """Give the agent's command the flag `-a`, which may be left out where an agent serves the default address."""
    told = f"path of the file that lets callers in (default: ${VARIABLE}, else {_for_help(DEFAULT_ADDRESS)})"
    parser.add_argument(
        "-a",
        dest="address",
        metavar="ADDRESS",
        required=not has_default,
        default=_default() if has_default else None,
        help=told if has_default else "path of the Unix socket to serve",
    )


def make_default_folder(address: str, *, default: str = DEFAULT_ADDRESS) -> None:
    """Make the folder of the default address, for its user alone; no other's, whose rights are the operator's to say.

    Raises `SocketFolderMissing`.
    """
    if address != default:
        return
    folder = Path(default).parent
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SocketFolderMissing(f"{folder} cannot be made: {error.strerror}", path=default) from error


def package_url(package: str) -> str:
    """Return a package's path as the agent, which runs in another folder, can take it; a URL stays as it is."""
    return package if "://" in package else str(Path(package).absolute())


def _default() -> str:
    return os.environ.get(VARIABLE, DEFAULT_ADDRESS)


def _for_help(text: str) -> str:
    return text.replace("%", "%%")


def connect(args: argparse.Namespace) -> Client:
    """Return a client of the agent that the arguments name; a call may take as long as it takes."""
    from lightkeeper.client import Client

    return Client(args.address, timeout_seconds=None)
