"""Measure what fleet a hub carries: `python -m bench.hub [--effort full|quick|smoke] [--json] [--write FILE]`.

Simulated devices, each with a certificate of the hub's own authority, exchange it for credentials at the real endpoint
(mutual TLS, SeaweedFS's STS behind it) and send heartbeats with four models each, signed with them: to one hub process
on SQLite, to one on PostgreSQL, and to two on one PostgreSQL. The load generator runs on the same cores.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import psutil
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from rich.console import Console
from rich.table import Table as RichTable

from bench import machine
from bench.hubload import AGENT_METRICS, METRICS_A_MODEL, MODELS, Device, Generator, Target, cores
from lightkeeper.hub import authority, certificates
from lightkeeper.hub.database import Database
from lightkeeper.hub.folder import read
from tests.support.hubs import HubProcess
from tests.support.postgres import MISSING, Postgres, installed

FLEET = "bench"
HEARTBEAT_SECONDS = 300
RENEWAL_SECONDS = 3600
TARGET_DEVICES = 20_000
GENERATORS = 2
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: devices, heartbeats of each, connections at once, and seconds at the target's rate."""

    devices: int
    rounds: int
    connections: int
    paced_seconds: float


EFFORTS = {
    "full": Effort(devices=1000, rounds=10, connections=16, paced_seconds=30),
    "quick": Effort(devices=200, rounds=10, connections=16, paced_seconds=5),
    "smoke": Effort(devices=8, rounds=2, connections=4, paced_seconds=0.5),
}


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Hub processes on one database."""

    name: str
    title: str
    processes: int
    postgresql: bool


ARRANGEMENTS = (
    Arrangement("sqlite", "one process, SQLite", 1, postgresql=False),
    Arrangement("postgresql", "one process, PostgreSQL", 1, postgresql=True),
    Arrangement("two", "two processes, PostgreSQL", 2, postgresql=True),
)


@dataclass(slots=True)
class Figures:
    """What one arrangement of hub processes did."""

    name: str
    exchanges_a_second: float
    exchange_p50_ms: float
    exchange_p99_ms: float
    heartbeats_a_second: float
    p50_ms: float
    p99_ms: float
    paced_p50_ms: float
    paced_p99_ms: float
    hub_cpu_us: float
    database_cpu_us: float
    generator_cpu_share: float
    """Of the machine's cores, while heartbeats were sent as fast as they were answered."""

    hub_memory_mib: float
    faults: list[str] = field(default_factory=list)

    @property
    def fleet_size(self) -> int:
        """How many devices send a heartbeat every five minutes and renew every hour in the time that both take."""
        one = 1 / self.heartbeats_a_second + HEARTBEAT_SECONDS / RENEWAL_SECONDS / self.exchanges_a_second
        return int(HEARTBEAT_SECONDS / one)


@dataclass(frozen=True, slots=True)
class Setting:
    """Hub processes that run, their database, and its server where it has one."""

    hubs: Sequence[HubProcess]
    database: str
    server: Postgres | None = None


def main() -> None:
    """Measure, print the table or one JSON document, and write the page if asked to."""
    parser = argparse.ArgumentParser(prog="bench.hub", description="Measure what fleet a hub carries.")
    parser.add_argument("--effort", choices=EFFORTS, default="full", help="how much is measured (%(default)s)")
    names = [one.name for one in ARRANGEMENTS]
    parser.add_argument("--only", choices=names, action="append", help="leave the others out; may be repeated")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the figures as a Markdown page")
    args = parser.parse_args()
    described = {key: value for key, value in machine.describe().items() if key in _SAID}
    started = time.monotonic()
    figures = measure(EFFORTS[args.effort], args.only or names)
    minutes = max(1, round((time.monotonic() - started) / 60))
    if args.json:
        print(json.dumps([asdict(one) | {"fleet_size": one.fleet_size} for one in figures], indent=2))
    else:
        _to_terminal(figures)
    if args.write:
        args.write.write_text(to_markdown(figures, EFFORTS[args.effort], described, minutes), encoding="utf-8")
        _say(f"wrote {args.write}")
    if any(one.faults for one in figures):
        sys.exit("some calls failed: the figures are of no use")


_SAID = ("processor", "memory", "system", "Python", "lightkeeper", "load average before")


def measure(effort: Effort, names: Sequence[str]) -> list[Figures]:
    """Measure the arrangements named, as far as this machine has the programs for them."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(effort.devices)]
    figures = []
    with tempfile.TemporaryDirectory(prefix="bench-hub-") as folder:
        for arrangement in (one for one in ARRANGEMENTS if one.name in names):
            place = Path(folder, arrangement.name)
            place.mkdir()
            if not arrangement.postgresql:
                with _hubs(place, arrangement.processes, None) as hubs:
                    setting = Setting(hubs, f"sqlite:///{hubs[0].folder / 'hub.db'}")
                    figures.append(_measure(arrangement.title, setting, effort, keys))
            elif (programs := installed()) is None:
                _say(f"{MISSING}: going on without {arrangement.title}")
            else:
                server = Postgres(programs, durable=True)
                try:
                    url = server.wait_until_started().database()
                    with _hubs(place, arrangement.processes, url) as hubs:
                        figures.append(_measure(arrangement.title, Setting(hubs, url, server), effort, keys))
                finally:
                    server.stop()
    return figures


@contextmanager
def _hubs(folder: Path, number: int, database: str | None) -> Iterator[list[HubProcess]]:
    """Run hub processes that share a database, and the first one's SeaweedFS."""
    options = [] if database is None else ["--database", database]
    with ExitStack() as stack:
        first = HubProcess(folder / "hub-0", *options)
        stack.callback(first.end)
        addresses = first.start()
        hubs = [first]
        for one in range(1, number):
            keys = {
                "AWS_ACCESS_KEY_ID": addresses.access_key_id,
                "AWS_SECRET_ACCESS_KEY": addresses.secret_access_key,
            }
            shared = [*options, "--s3-endpoint", addresses.s3_endpoint]
            other = HubProcess(folder / f"hub-{one}", *shared, environment=keys)
            stack.callback(other.end)
            other.start()
            hubs.append(other)
        yield hubs


def _measure(name: str, setting: Setting, effort: Effort, keys: Sequence[Any]) -> Figures:
    hubs = setting.hubs
    _say(f"{name}: registering {effort.devices} devices")
    target, devices = _fleet(setting, keys)
    generator = Generator(target, devices, processes=GENERATORS, connections=effort.connections)
    try:
        _say(f"{name}: exchanging certificates for credentials")
        exchanged = generator.exchange()
        _say(f"{name}: {exchanged.per_second:.0f} exchanges a second; heartbeats")
        before = _cpu_seconds(setting)
        fired = generator.heartbeats(effort.rounds)
        after = _cpu_seconds(setting)
        memory = sum(_watched(hub).memory_info().rss for hub in hubs) / len(hubs) / MIB
        _say(f"{name}: {fired.per_second:.0f} heartbeats a second; at the target's rate")
        paced = generator.paced(TARGET_DEVICES / HEARTBEAT_SECONDS, effort.paced_seconds)
    finally:
        generator.close()
    number = max(1, len(fired.latencies_ms))
    return Figures(
        name=name,
        exchanges_a_second=exchanged.per_second,
        exchange_p50_ms=exchanged.percentile_ms(50),
        exchange_p99_ms=exchanged.percentile_ms(99),
        heartbeats_a_second=fired.per_second,
        p50_ms=fired.percentile_ms(50),
        p99_ms=fired.percentile_ms(99),
        paced_p50_ms=paced.percentile_ms(50),
        paced_p99_ms=paced.percentile_ms(99),
        hub_cpu_us=(after[0] - before[0]) / number * 1e6,
        database_cpu_us=(after[1] - before[1]) / number * 1e6,
        generator_cpu_share=fired.generator_cpu_seconds / fired.seconds / cores(),
        hub_memory_mib=memory,
        faults=[*exchanged.faults, *fired.faults, *paced.faults][:10],
    )


def _fleet(setting: Setting, keys: Sequence[Any]) -> tuple[Target, list[Device]]:
    """Make the fleet over the API, and sign its devices' certificates with the hub's own authority."""
    addresses, folder = [read(hub.folder) for hub in setting.hubs], setting.hubs[0].folder.parent
    control = boto3.client(
        "sagemaker",
        endpoint_url=addresses[0].endpoint,
        region_name=addresses[0].region,
        aws_access_key_id=addresses[0].access_key_id,
        aws_secret_access_key=addresses[0].secret_access_key,
    )
    control.create_device_fleet(
        DeviceFleetName=FLEET, OutputConfig={"S3OutputLocation": "s3://lightkeeper/captures"}, EnableIotRoleAlias=True
    )
    alias = control.describe_device_fleet(DeviceFleetName=FLEET)["IotRoleAlias"].rsplit("/", 1)[-1]
    names = [f"device-{number}" for number in range(len(keys))]
    for start in range(0, len(names), 100):
        control.register_devices(
            DeviceFleetName=FLEET,
            Devices=[{"DeviceName": name, "IotThingName": name} for name in names[start : start + 100]],
        )
    database = Database(setting.database)
    now = datetime.now(UTC)
    issuer = authority.devices(database, now)
    devices = []
    with database.write() as connection:
        for name, key in zip(names, keys, strict=True):
            certificate = authority.sign_device(issuer, name, key.public_key(), now)
            certificates.record(connection, certificate, FLEET, name, int(now.timestamp() * 1000))
            path = folder / f"{name}.pem"
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            path.write_bytes(certificate.public_bytes(Encoding.PEM) + pem)
            devices.append(Device(name, str(path)))
    database.close()
    roots = folder / "authority.pem"
    roots.write_bytes(issuer.certificate_pem)
    target = Target(
        fleet=FLEET,
        alias=alias,
        region=addresses[0].region,
        authority=str(roots),
        endpoints=tuple(one.endpoint for one in addresses),
        credentials_endpoints=tuple(one.credentials_endpoint for one in addresses),
    )
    return target, devices


def _cpu_seconds(setting: Setting) -> tuple[float, float]:
    """Return the processor time of the hub processes, and of the database server's."""
    hub = sum(_own_cpu(_watched(one)) for one in setting.hubs)
    database = 0.0
    if setting.server is not None:
        parent = psutil.Process(setting.server.process.pid)
        database = sum(_own_cpu(one) for one in [parent, *parent.children(recursive=True)])
    return hub, database


def _watched(hub: HubProcess) -> psutil.Process:
    if hub.process is None:
        raise RuntimeError("the hub is not running")
    return psutil.Process(hub.process.pid)


def _own_cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


ROWS: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("heartbeats a second", lambda one: f"{one.heartbeats_a_second:.0f}"),
    ("... p50 / p99 at that load (ms)", lambda one: f"{one.p50_ms:.1f} / {one.p99_ms:.1f}"),
    (
        f"... p50 / p99 at {TARGET_DEVICES / HEARTBEAT_SECONDS:.0f} a second (ms)",
        lambda one: f"{one.paced_p50_ms:.1f} / {one.paced_p99_ms:.1f}",
    ),
    ("processor time a heartbeat, hub (us)", lambda one: f"{one.hub_cpu_us:.0f}"),
    ("processor time a heartbeat, PostgreSQL (us)", lambda one: f"{one.database_cpu_us:.0f}"),
    ("processor share of the load generator", lambda one: f"{one.generator_cpu_share:.0%}"),
    ("memory of a hub process (MiB)", lambda one: f"{one.hub_memory_mib:.0f}"),
    ("credential exchanges a second", lambda one: f"{one.exchanges_a_second:.0f}"),
    ("... p50 / p99 (ms)", lambda one: f"{one.exchange_p50_ms:.0f} / {one.exchange_p99_ms:.0f}"),
    ("**devices carried**", lambda one: f"**{one.fleet_size:,}**"),
    (f"target: {TARGET_DEVICES:,} devices", lambda one: "met" if one.fleet_size >= TARGET_DEVICES else "missed"),
)


def _to_terminal(figures: Sequence[Figures]) -> None:
    table = RichTable()
    table.add_column("")
    for one in figures:
        table.add_column(one.name, justify="right")
    for title, cell in ROWS:
        table.add_row(title.replace("*", ""), *(cell(one).replace("*", "") for one in figures))
    Console().print(table)


ABOUT = """\
# The hub under load

Written by `make bench-hub` in one run of about {minutes} minutes. {devices} simulated devices, each with a certificate
of the hub's own authority, exchange it for credentials at the credentials endpoint (mutual TLS, a connection each,
SeaweedFS's STS behind it), and then send {rounds} heartbeats each: {models} models with {metrics} metrics each and
{agent_metrics} metrics of the agent, signed with those credentials (SigV4), over {connections} connections at once.
Hub, database, SeaweedFS and the load generator share the same {cores} cores. The generator signs before the clock
runs and sends bytes that are ready; what it still takes is in the table, and is the machine's and not the hub's.

**Devices carried** is how many devices send a heartbeat every five minutes and renew their credentials every hour in
the time that so many heartbeats and exchanges take here, with nothing to spare. A latency at the lower rate begins
when a heartbeat is due.

"""


def to_markdown(figures: Sequence[Figures], effort: Effort, described: dict[str, str], minutes: int) -> str:
    """Return the page."""
    about = ABOUT.format(
        minutes=minutes,
        devices=f"{effort.devices:,}",
        rounds=effort.rounds,
        models=MODELS,
        metrics=METRICS_A_MODEL,
        agent_metrics=AGENT_METRICS,
        connections=effort.connections,
        cores=cores(),
    )
    machine_lines = [f"- {key}: {value}" for key, value in described.items()]
    head = f"| | {' | '.join(one.name for one in figures)} |\n|---|{'---:|' * len(figures)}"
    rows = [f"| {title} | {' | '.join(cell(one) for one in figures)} |" for title, cell in ROWS]
    return about + "\n".join([head, *rows]) + "\n\nMade with:\n\n" + "\n".join(machine_lines) + "\n"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
