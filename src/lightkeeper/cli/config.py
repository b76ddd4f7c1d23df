"""`lightkeeper config`: check a configuration file, write a new one, list the keys."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from lightkeeper import system
from lightkeeper.cli import address, interview, output
from lightkeeper.errors import ConfigInvalid, Finding
from lightkeeper.tokenkey import KeyAddress

DEFAULT_FILE = Path("lightkeeper.json")


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command group `config`."""
    group = commands.add_parser("config", help="check or write the configuration file", description=__doc__)
    verbs = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    checking = verbs.add_parser(
        "check",
        help="say everything that is wrong with a file",
        description="Say everything that is wrong with a configuration file at once. Exits 0 if the agent starts with "
        "it, though there may be warnings, and 1 if it does not.",
    )
    checking.add_argument("file", metavar="FILE", type=Path, help="configuration file, JSON")
    checking.add_argument(
        "--values-only",
        action="store_true",
        help="do not look at the files and folders the configuration names, as on a machine other than the device",
    )
    output.add_json_flag(checking)
    checking.set_defaults(command=_check)

    writing = verbs.add_parser(
        "init",
        help="write a new file",
        description="Write a configuration file. On a terminal, what no flag says is asked for.",
    )
    writing.add_argument(
        "file", metavar="FILE", type=Path, nargs="?", default=DEFAULT_FILE, help="default: %(default)s"
    )
    for question in interview.QUESTIONS:
        writing.add_argument(question.flag, dest=question.key, metavar="VALUE", help=question.text)
    writing.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="others",
        help="any other key; may be given several times (`lightkeeper config keys` lists them)",
    )
    writing.add_argument("--force", action="store_true", help="replace the file if there is one")
    output.add_json_flag(writing)
    writing.set_defaults(command=_init)

    listing = verbs.add_parser(
        "keys", help="list every key", description="List every key with its meaning and default."
    )
    output.add_json_flag(listing)
    listing.set_defaults(command=_keys)


def _check(args: argparse.Namespace) -> None:
    from lightkeeper.config import check
    from lightkeeper.config.surroundings import survey
    from lightkeeper.modelpackage import roots

    report = check(args.file)
    if not args.values_only:
        report = survey(report, args.file, roots.load)
    if args.json and report.config:
        output.document({"file": str(args.file), "faults": [], "warnings": output.findings(report.warnings)})
    if not args.json:
        _print_warnings(report.warnings)
    report.accepted()
    if not args.json:
        print(f"{args.file}: accepted{f', warnings: {len(report.warnings)}' if report.warnings else ''}")


def _init(args: argparse.Namespace) -> None:
    from lightkeeper.config import document
    from lightkeeper.config.check import examine
    from lightkeeper.config.model import every_key, name_of
    from lightkeeper.config.surroundings import survey
    from lightkeeper.modelpackage import roots

    if not args.force:
        document.refuse_to_replace(args.file)
    given = {question.key: getattr(args, question.key) for question in interview.QUESTIONS}
    given = {key: value for key, value in given.items() if value is not None}
    given |= interview.pairs(args.others)
    answers = interview.complete(given, ask=sys.stdin.isatty())
    report = examine(tuple(answers.items()), source="the new configuration")
    unknown = tuple(warning for warning in report.warnings if warning.key not in {key.name for key in every_key()})
    if unknown:
        raise ConfigInvalid("the new configuration would have keys that nothing reads", unknown)
    report.accepted()
    document.write(args.file, answers, replace=args.force)
    lacking = survey(report, args.file, roots.load).faults
    file = system.quoted(str(args.file))
    following = [f"lightkeeper config check {file}", f"lightkeeper agent {address.AGENT_FLAG}-c {file}"]
    if args.json:
        key_name, key = name_of("aws_private_key"), report.accepted().aws_private_key
        if isinstance(key, KeyAddress):
            answers[key_name] = str(key)  # without the PIN
        warnings = output.findings(report.warnings)
        output.document(
            {
                "file": str(args.file),
                "keys": answers,
                "warnings": warnings,
                "lacking": output.findings(lacking),
                "next": following,
            }
        )
        return
    _print_warnings(report.warnings)
    for finding in lacking:
        print(f"this device still lacks: {finding.key}: {finding}", file=sys.stderr)
    print(f"wrote {args.file}; next:", *following, sep="\n  ")


def _keys(args: argparse.Namespace) -> None:
    from lightkeeper.config.model import every_key

    if args.json:
        output.document([asdict(key) for key in every_key()])
        return
    rows = [(key.name, key.default or "required", key.meaning) for key in every_key()]
    output.table(["key", "default", "meaning"], rows)


def _print_warnings(warnings: tuple[Finding, ...]) -> None:
    for warning in warnings:
        print(f"warning: {warning.key}: {warning}", file=sys.stderr)
