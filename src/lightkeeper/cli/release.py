"""`lightkeeper release verify|publish`: archives of Lightkeeper itself, checked and put into a store in S3."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightkeeper.cli import output

DIGEST = "sha256"
"""The metadata of an object that says what was published."""


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `release`."""
    group = commands.add_parser("release", help="verify and publish archives of Lightkeeper itself")
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

    publish = verbs.add_parser(
        "publish",
        help="put a store into a bucket",
        description="Put the files of a store's folder into a bucket. What is there is left alone; a file of the same "
        "name with another content ends the command. Credentials come from boto3's usual chain.",
    )
    publish.add_argument("store", metavar="DIR", type=Path, help="such as dist/release-store-linux-x64")
    publish.add_argument("place", metavar="S3-URL", help="s3://bucket, or s3://bucket/prefix")
    publish.add_argument("--endpoint", metavar="URL", help="another address of the S3 service")
    publish.add_argument("--region", metavar="R", help="the bucket's region")
    output.add_json_flag(publish)
    publish.set_defaults(command=_publish)


def _publish(args: argparse.Namespace) -> None:
    from lightkeeper import releases
    from lightkeeper.errors import ReleaseTaken
    from lightkeeper.objects import Address, Objects

    place = Address.parse_prefix(args.place)
    objects = Objects(args.endpoint, args.region)
    done = []
    for file in releases.files_of(args.store):
        address = place.below(file.name)
        there = objects.look(address)
        if there is not None and there.metadata.get(DIGEST) != file.sha256:
            raise ReleaseTaken(f"{address} is there with another content", uri=address)
        if there is None:
            size_bytes = file.path.stat().st_size
            with output.progress(f"publishing {file.path.name}", size_bytes, size_bytes) as advance:
                objects.put(
                    address,
                    file.path,
                    content_type="application/octet-stream",
                    metadata={DIGEST: file.sha256},
                    advance=advance,
                )
        done.append({"url": str(address), "sha256": file.sha256, "was_there": there is not None})
        if not args.json:
            print(f"{address}{'  (was there)' if there else ''}")
    if args.json:
        output.document({"published": done})


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
