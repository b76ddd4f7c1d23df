"""`lightkeeper ca`: make the certificate authority that signs packages and that devices trust."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightkeeper.cli import output


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `ca init`."""
    group = commands.add_parser("ca", help="make a certificate authority for model packages")
    verbs = group.add_subparsers(metavar="VERB", required=True)
    init = verbs.add_parser(
        "init",
        help="make root and signer",
        description="Make DIR/root.key, DIR/certs/R.pem, DIR/signer.key and DIR/signer.pem. Nothing is overwritten. "
        "Devices get certs/R.pem; whoever builds packages gets signer.key and signer.pem; root.key goes into a safe.",
    )
    init.add_argument("folder", metavar="DIR", type=Path)
    init.add_argument("--region", metavar="R", required=True, help="names the root certificate's file, R.pem")
    output.add_json_flag(init)
    init.set_defaults(command=_init)


def _init(args: argparse.Namespace) -> None:
    from lightkeeper.modelpackage import authority

    made = authority.create(args.folder, args.region, datetime.now(UTC))
    if args.json:
        output.document({kind: str(path) for kind, path in asdict(made).items()})
        return
    for path, purpose in (
        (made.root_certificate, "root certificate: every device gets it (sagemaker_edge_core_root_certs_path)"),
        (made.signer_key, "signer's key: for whoever builds packages"),
        (made.signer_certificate, "signer's certificate: beside the signer's key"),
        (made.root_key, "root's key: keep it offline, it makes new signers"),
    ):
        print(f"{path}  {purpose}")
