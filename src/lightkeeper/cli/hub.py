"""`lightkeeper hub`: run a fleet's control plane, and look at a fleet."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightkeeper.cli import hubdevice, output
from lightkeeper.errors import HubFolderUnusable

if TYPE_CHECKING:
    from lightkeeper.hub.folder import Addresses

HUB_VARIABLE = "LIGHTKEEPER_HUB"
CAPTURE_COLUMNS = {
    "accepted": ("CapturesAccepted",),
    "delivered": ("CapturesWritten", "CapturesUploaded"),
    "waiting": ("CapturesOpen", "CapturesWaiting"),
    "lost": ("CapturesExpired", "CapturesThinned", "CapturesQuarantined", "CapturesRefused", "SamplesLost"),
}
"""What a report tells of captures, as sums of heartbeats' metrics."""


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `hub up`, `hub env`, `hub report`, and those of `hubdevice.py`."""
    group = commands.add_parser("hub", help="run a fleet's control plane, and look at a fleet")
    verbs = group.add_subparsers(metavar="VERB", required=True)
    _add_up(verbs)
    env = verbs.add_parser(
        "env",
        help="print the variables for the AWS CLI and SDKs",
        description='Print shell commands that set what the AWS CLI and SDKs need to call the hub: eval "$(lightkeeper '
        "hub env)\". They have the operator's secret key.",
    )
    add_hub_option(env)
    env.set_defaults(command=_env)
    report = verbs.add_parser("report", help="show a fleet's devices and what they run")
    report.add_argument("fleet", metavar="FLEET")
    add_hub_option(report)
    output.add_json_flag(report)
    report.set_defaults(command=_report)
    hubdevice.add_to(verbs, add_hub_option)


def add_hub_option(parser: argparse.ArgumentParser) -> None:
    """Give a command the option that says which hub it talks to."""
    parser.add_argument(
        "--hub",
        metavar="DIR",
        type=Path,
        default=Path(os.environ.get(HUB_VARIABLE, ".")),
        help=f"the hub's folder (default: {HUB_VARIABLE}, else this folder)",
    )


def _add_up(verbs: argparse._SubParsersAction[Any]) -> None:
    up = verbs.add_parser(
        "up",
        help="run a hub until SIGTERM or SIGINT",
        description="Run a hub with its state in DIR: SQLite and SeaweedFS unless others are given. When it is ready, "
        "DIR/hub.json (mode 0600) has the addresses and the operator's key. A second process on a folder of its own, "
        "with the same --database and --s3-endpoint, serves the same fleets.",
    )
    up.add_argument("folder", metavar="DIR", type=Path)
    up.add_argument(
        "--host", metavar="ADDRESS", help="where to listen (default: as at the last start; at first loopback)"
    )
    up.add_argument(
        "--name", metavar="HOST", help="the name or address that devices call this machine by (default: --host)"
    )
    up.add_argument("--port", type=int, metavar="N", help="control and data plane (default: likewise; at first any)")
    up.add_argument("--credentials-port", type=int, metavar="N", help="credentials endpoint (default: likewise)")
    up.add_argument("--database", metavar="URL", help="such as postgresql://user:password@host/name")
    up.add_argument("--s3-endpoint", metavar="URL", help="an S3; its keys come from the environment, as boto3 reads it")
    up.add_argument("--region", metavar="R", help="the hub's region, kept in its database")
    up.add_argument(
        "--set", metavar="NAME=VALUE", action="append", default=[], help="a setting of the hub, kept in its database"
    )
    up.add_argument("--json", action="store_true", help="log JSON lines, on a terminal too")
    up.set_defaults(command=_up)


def _up(args: argparse.Namespace) -> None:
    from lightkeeper import logs
    from lightkeeper.errors import ExtraMissing, HubSettingInvalid

    try:
        from lightkeeper.hub.process import run
        from lightkeeper.hub.up import Options
    except ImportError as error:
        if not (error.name or "").startswith(("sqlalchemy", "aiohttp", "boto")):
            raise
        raise ExtraMissing(f"the hub needs {error.name}, which is not installed", extra="hub") from error
    logs.configure(style=logs.Style.JSON if args.json else None)
    given = dict([("region", args.region)] if args.region else [])
    for pair in args.set:
        name, separator, value = pair.partition("=")
        if not separator:
            raise HubSettingInvalid(f"--set takes NAME=VALUE, not {pair}", given=pair)
        given[name] = value
    options = Options(
        folder=args.folder,
        host=args.host,
        name=args.name,
        port=args.port,
        credentials_port=args.credentials_port,
        database=args.database,
        s3_endpoint=args.s3_endpoint,
        settings=given,
    )
    run(options, lambda addresses: _introduce(args.folder, addresses))


def _introduce(folder: Path, addresses: Addresses) -> None:
    """Say on a terminal where the hub answers and what to do next."""
    if not sys.stdout.isatty():
        return
    where = shlex.quote(str(folder))
    output.table(
        ("what", "where"),
        [
            ("control and data plane", addresses.endpoint),
            ("devices' credentials", addresses.credentials_endpoint),
            ("S3", addresses.s3_endpoint),
            ("addresses and operator's key", str(folder / "hub.json")),
        ],
    )
    print("Next, in another terminal:")
    print(f'  eval "$(lightkeeper hub env --hub {where})"')
    print(
        "  aws sagemaker create-device-fleet --device-fleet-name yard"
        " --output-config S3OutputLocation=s3://lightkeeper/captures"
    )
    print(f"  lightkeeper hub device add cam-1 --fleet yard --hub {where}")
    sys.stdout.flush()


def _env(args: argparse.Namespace) -> None:
    from lightkeeper.hub import folder

    variables = {**folder.read(args.hub).environment(), HUB_VARIABLE: str(args.hub.absolute())}
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")


def _report(args: argparse.Namespace) -> None:
    from lightkeeper.hub import folder
    from lightkeeper.hub.caller import Caller
    from lightkeeper.hub.captures import LATEST

    with output.working("asking the hub"), Caller(folder.read(args.hub)) as caller:
        found = caller.fleet(args.fleet)
        said = _captures(args.hub, args.fleet)
    for device in found["Devices"]:
        device["Captures"] = said.get(device["DeviceName"], {})
    if args.json:
        output.document(found)
        return
    stats = found["DeviceStats"]
    print(f"{args.fleet}: {stats['ConnectedDeviceCount']} of {stats['RegisteredDeviceCount']} devices connected")
    output.table(
        ("device", "agent", "last heartbeat", "models", "last capture", *CAPTURE_COLUMNS),
        [
            (
                device["DeviceName"],
                device.get("AgentVersion", "-"),
                _ago(device.get("LatestHeartbeat")),
                "\n".join(f"{model['ModelName']} {model['ModelVersion']}" for model in device["Models"]) or "-",
                _ago(device["Captures"].get(LATEST)),
                *(_sum(device["Captures"], names) for names in CAPTURE_COLUMNS.values()),
            )
            for device in found["Devices"]
        ],
        empty="no devices are registered",
    )


def _captures(hub: Path, fleet: str) -> dict[str, dict[str, Any]]:
    """Return what the devices said of their captures: the service's API has no word for it, the hub's database has."""
    from lightkeeper.hub import captures

    try:
        database = hubdevice.database(hub)
    except HubFolderUnusable as refusal:
        output.note(f"captures are shown beside the hub's database alone: {refusal.message}")
        return {}
    with database.read() as connection:
        return captures.of_fleet(connection, fleet)


def _sum(counts: dict[str, Any], names: tuple[str, ...]) -> str:
    """Return the sum of what a device said, or a dash where it said nothing."""
    said = [counts[name] for name in names if name in counts]
    return str(sum(said)) if said else "-"


def _ago(time: str | None) -> str:
    """Return how long ago a time was, for people."""
    if time is None:
        return "never"
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{max(seconds, 0)} s ago"
