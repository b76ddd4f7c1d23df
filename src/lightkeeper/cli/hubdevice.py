"""`lightkeeper hub device`, `hub alias` and `hub audit`: which devices get in, and who tried."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightkeeper import tokenkey
from lightkeeper.cli import output
from lightkeeper.tokenkey import KeyAddress

if TYPE_CHECKING:
    from lightkeeper.hub.database import Database
    from lightkeeper.hub.enrolment import Enrolment

NEWEST = 1000


def add_to(verbs: argparse._SubParsersAction[Any], add_hub_option: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add the verbs to `hub`; `add_hub_option` gives each the option that says which hub."""
    device = verbs.add_parser("device", help="let a device into a fleet, or out of it")
    deeds = device.add_subparsers(metavar="VERB", required=True)
    add = deeds.add_parser(
        "add",
        help="register a device and write its folder",
        description="Register NAME with a fleet unless it is, make its key and certificate, and write one folder to "
        "copy to the device: configuration, key, certificate, the hub's authority and the root of model packages. With "
        "--csr the key stays where it was made, and only the certificate is in the folder.",
    )
    add.add_argument("name", metavar="NAME")
    add.add_argument("--fleet", metavar="F", required=True)
    add.add_argument("--csr", metavar="FILE", type=Path, help="a signing request in PEM, of a key made elsewhere")
    add.add_argument(
        "--key-address",
        metavar="URI",
        type=_key_address,
        help="with --csr, of a key in the device's PKCS#11 token: the address for its configuration, "
        "pkcs11:token=T;object=O?pin-source=file:/PATH",
    )
    add.add_argument("--output", metavar="DIR", type=Path, help="the folder to write (default: NAME)")
    add_hub_option(add)
    output.add_json_flag(add)
    add.set_defaults(command=_add)
    revoke = deeds.add_parser("revoke", help="end a device's certificates and its sessions with the hub")
    revoke.add_argument("name", metavar="NAME")
    revoke.add_argument("--fleet", metavar="F", help="where several fleets have a device of this name")
    revoke.add_argument("--older", action="store_true", help="all but the newest, once the device has that")
    add_hub_option(revoke)
    output.add_json_flag(revoke)
    revoke.set_defaults(command=_revoke)
    alias = verbs.add_parser(
        "alias", help="open or close the role alias of a fleet: whether its devices get credentials"
    )
    alias.add_argument("deed", choices=("open", "close"))
    alias.add_argument("name", metavar="NAME", help="the fleet, or SageMakerEdge-FLEET")
    add_hub_option(alias)
    alias.set_defaults(command=_alias)
    audit = verbs.add_parser("audit", help="show who got credentials and who did not, the latest first")
    add_hub_option(audit)
    output.add_json_flag(audit)
    audit.set_defaults(command=_audit)


def database(hub: Path) -> Database:
    """Return the hub's database: what the root of trust signs with lies there, and nobody else may do this."""
    from lightkeeper.hub import folder
    from lightkeeper.hub.database import Database

    return Database(folder.database_url(hub))


def _enrolment(hub: Path) -> Enrolment:
    from lightkeeper.hub import folder, settings
    from lightkeeper.hub.enrolment import Enrolment, Reachable

    found, opened = folder.read(hub), database(hub)
    at = Reachable(found.endpoint, found.credentials_endpoint, found.s3_endpoint, found.region)
    return Enrolment(opened, settings.load(opened), at)


def _key_address(text: str) -> KeyAddress:
    if not tokenkey.is_address(text):
        raise argparse.ArgumentTypeError("is no address that begins with pkcs11:")
    try:
        address = tokenkey.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if address.pin_value is not None:
        raise argparse.ArgumentTypeError("has a PIN that all users of this machine can see: write pin-source=file:/…")
    return address


def _add(args: argparse.Namespace) -> None:
    from lightkeeper.errors import SigningRequestUnusable

    request = None
    if args.csr is not None:
        try:
            request = args.csr.read_bytes()
        except OSError as error:
            raise SigningRequestUnusable(f"{args.csr} cannot be read: {error.strerror}", file=args.csr) from error
    if args.key_address is not None and request is None:
        raise SigningRequestUnusable("--key-address is of a key in a token, and needs its signing request: give --csr")
    folder = args.output or Path(args.name)
    made = _enrolment(args.hub).add(
        args.name, args.fleet, folder, datetime.now(UTC), request=request, key_address=args.key_address
    )
    if args.json:
        output.document(
            {
                "folder": str(made.folder),
                "has_key": made.has_key,
                "fingerprint": made.fingerprint,
                "ends": made.ends.isoformat(),
                "older": made.older,
            }
        )
        return
    print(f"{made.folder}: copy this folder to the device; its certificate lasts until {made.ends:%Y-%m-%d}")
    if args.key_address is not None:
        print(f"the key stays in the device's token: {args.key_address}")
    elif not made.has_key:
        print(f"the key stays yours: put it into the folder on the device, as {made.folder / 'device.key'}, mode 0600")
    if made.older:
        output.note(
            f"older certificates of {args.name} that are still good: {made.older}; once it has the new one: "
            f"lightkeeper hub device revoke {args.name} --fleet {args.fleet} --older"
        )


def _revoke(args: argparse.Namespace) -> None:
    count = _enrolment(args.hub).revoke(args.name, datetime.now(UTC), fleet=args.fleet, older=args.older)
    if args.json:
        output.document({"revoked": count})
        return
    print(f"certificates of {args.name} revoked: {count}; sessions that S3 has already given end within an hour")


def _alias(args: argparse.Namespace) -> None:
    from lightkeeper.hub.enrolment import set_alias

    name = set_alias(database(args.hub), args.name, datetime.now(UTC), opened=args.deed == "open")
    print(f"{name} is {'open' if args.deed == 'open' else 'closed: its devices get no new credentials'}")


def _audit(args: argparse.Namespace) -> None:
    from lightkeeper.hub.audit import entries

    with database(args.hub).read() as connection:
        rows = [row._asdict() for row in entries(connection, NEWEST)]
    if args.json:
        output.document(rows)
        return
    output.table(
        ("last", "count", "event", "thing", "from", "certificate", "detail"),
        [
            (
                f"{datetime.fromtimestamp(row['last_ms'] // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}",
                str(row["count"]),
                row["event"],
                row["thing"],
                row["remote"],
                row["fingerprint"][:16],
                row["detail"],
            )
            for row in rows
        ],
        empty="nothing is in the audit",
    )
