"""`lightkeeper agent`: run the agent. The flags are the old agent's."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from lightkeeper import resources, system
from lightkeeper.cli import address


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `agent`."""
    parser = commands.add_parser("agent", help="run the agent", description="Run the agent until SIGTERM or SIGINT.")
    address.add_served_address_flag(parser)
    parser.add_argument(
        "-c", dest="config", metavar="CONFIG", type=Path, required=True, help="configuration file, JSON"
    )
    parser.add_argument("-f", dest="force", action="store_true", help="remove a stale socket file first")
    parser.set_defaults(command=_run)


def _run(args: argparse.Namespace) -> None:
    # Before any library starts a thread: one that lets these signals in would end the process, with calls under way.
    system.block_endings()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's own threads: never used here, and their start costs
    resources.settle_memory()

    from lightkeeper import config, logs
    from lightkeeper.agent import Agent

    logs.configure()
    settings = config.load(args.config)
    if system.AGENT_SERVES_DEFAULT:
        address.make_default_folder(args.address)
    if settings.log_verbose:
        logs.configure("DEBUG")
    Agent(settings, address=args.address, force=args.force).run_until_signal()
