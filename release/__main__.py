"""`python -m release`: build the archives into `dist/`."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

from lightkeeper.modelpackage import authority
from release.build import Release, build, version_of_commit
from release.platforms import PLATFORMS, SUPPORTED

OWN_AUTHORITY = Path("build/release-authority")


def main() -> None:
    """Build what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    parser.add_argument(
        "--platform", action="append", choices=PLATFORMS, help=f"{' and '.join(SUPPORTED)} where left out"
    )
    parser.add_argument("--dist", type=Path, default=Path("dist"), help="where the stores go (%(default)s)")
    parser.add_argument("--authority", type=Path, help="folder of `lightkeeper ca init`; one of its own where left out")
    parser.add_argument("--region", default="local", help="names the root certificate (%(default)s)")
    args = parser.parse_args()
    folder = args.authority or OWN_AUTHORITY
    if args.authority is None and not folder.exists():
        authority.create(folder, args.region, datetime.now(UTC))
        print(f"signed by an authority made for this machine: {folder}; give --authority for one that devices know")
    release = Release(*version_of_commit(), authority=folder, region=args.region)
    for name in args.platform or SUPPORTED:
        path = build(release, PLATFORMS[name], args.dist, print)
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
