"""`lightkeeper release verify`: say whether an archive of Lightkeeper can be trusted."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightkeeper.cli import output


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `release`."""
    group = commands.add_parser("release", help="verify an archive of Lightkeeper itself")
    verbs = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    verify = verbs.add_parser(
        "verify",
        help="say whether an archive can be trusted",
        description="Verify an archive against its signature, ARCHIVE.sig.json. Exit code 0 says it can be trusted.",
    )
    verify.add_argument("archive", metavar="ARCHIVE", type=Path, help="the archive, such as 1.20261101.0a1b2c3.tgz")
    verify.add_argument("--root-certs", metavar="DIR", type=Path, required=True, help="folder of root certificates")
    output.add_json_flag(verify)
    verify.set_defaults(command=_verify)


def _verify(args: argparse.Namespace) -> None:
    from lightkeeper import releases

    with output.working(f"verifying {args.archive.name}"):
        verified = releases.verify(args.archive, args.root_certs)
    for warning in verified.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if args.json:
        output.document({"archive": str(args.archive), **asdict(verified)})
        return
    print(f"{args.archive.name}: the signature is good")
    print(f"  sha256      {verified.sha256}")
    print(f"  signed by   {verified.signer}")
    print(f"  trusted as  {verified.root}")
