"""The command line: one module a command group, each with `add_to(commands)`; they print, and never log.

A command is a function that takes the parsed arguments and returns nothing, or an exit code where what it prints is a
verdict; a refusal is an `AgentError` that it lets pass. Heavy modules are imported inside the command functions, so
that `--help` costs no more than argparse.

Exit codes: 0 done; 1 refused, with the reason on stderr; 2 wrong usage; 3 the agent cannot be reached; 70 a fault of
Lightkeeper's own; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from lightkeeper import __version__
from lightkeeper.cli import output
from lightkeeper.errors import AgentError, InternalError, Unavailable

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130

GROUPS = ("agent", "models", "predict", "capture", "captures", "package", "ca", "config", "doctor", "hub", "release")
"""The modules of this package, in the order `--help` shows their commands."""


def build_parser(only: str = "") -> argparse.ArgumentParser:
    """Return the parser of every command, or of one group's alone: the agent's start does not wait for the others."""
    parser = argparse.ArgumentParser(prog="lightkeeper", description="An inference agent for edge devices.")
    parser.add_argument("--version", action="version", version=f"lightkeeper {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in (only,) if only in GROUPS else GROUPS:
        import_module(f"lightkeeper.cli.{group}").add_to(commands)
    return parser


def exit_code(error: type[AgentError]) -> int:
    """Return the code the process exits with after this refusal."""
    if issubclass(error, Unavailable):
        return EXIT_UNREACHABLE
    return EXIT_INTERNAL if issubclass(error, InternalError) else EXIT_REFUSED


def run(argv: Sequence[str], program: str = "lightkeeper") -> int:
    """Run one command line and return the process's exit code; refusals are printed under the program's name."""
    args = build_parser(argv[0] if argv else "").parse_args(argv)
    return guarded(lambda: args.command(args), program, as_json=getattr(args, "json", False))


def guarded(command: Callable[[], object], program: str, *, as_json: bool = False) -> int:
    """Run a command and return the process's exit code; refusals are printed under the program's name."""
    try:
        returned = command()
    except AgentError as error:
        output.refusal(error, as_json=as_json, program=program)
        return exit_code(type(error))
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return returned if isinstance(returned, int) else 0
