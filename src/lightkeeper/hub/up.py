"""The hub's composition: options to objects, the order of starting and stopping.

Order: folder, database and keys; the S3 in use; what answers; what works by itself; and last `hub.json`. It ends the
other way round, and so does a start that fails half-way.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection

from lightkeeper.errors import HubSettingInvalid
from lightkeeper.hub import authority, deployments, settings
from lightkeeper.hub.api import Api
from lightkeeper.hub.credentials import CredentialsEndpoint
from lightkeeper.hub.database import Database
from lightkeeper.hub.folder import DATABASE, Addresses, HubFolder, Started
from lightkeeper.hub.jobrunner import JobRunner
from lightkeeper.hub.jobs import Jobs
from lightkeeper.hub.jobwork import Allowance, PackageSigner, Workshop
from lightkeeper.hub.keys import Key, OperatorKeys
from lightkeeper.hub.listenertls import ListenerTls
from lightkeeper.hub.reach import Object
from lightkeeper.hub.server import Listener, Server
from lightkeeper.hub.sessions import DeviceSessions
from lightkeeper.hub.store import Store, Stores
from lightkeeper.hub.ticker import Ticker
from lightkeeper.objects import Address

LOOPBACK = "127.0.0.1"
EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - to tell that it was asked for

_API, _CREDENTIALS = "api", "credentials"

logger = logging.getLogger(__name__)


def now_ms() -> int:
    """Return the machine's time."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How one hub process is started. What is None is as at the last start in this folder."""

    folder: Path
    host: str | None = None
    """Where it listens; at first the loopback."""

    name: str | None = None
    """How devices and operators call this machine; at first `host`."""

    port: int | None = None
    credentials_port: int | None = None
    """At first any."""

    database: str | None = None
    """At first SQLite in the folder."""

    s3_endpoint: str | None = None
    """At first SeaweedFS, run by this process, with its data in the folder."""

    settings: Mapping[str, str] = field(default_factory=dict)
    """What to set for the whole hub, of `Settings`."""

    def started(self, before: Started) -> Started:
        """Return what holds for this start. Raises `HubSettingInvalid`."""
        given = {name: value for name in Started.__slots__ if (value := getattr(self, name)) is not None}
        now = replace(before, **given)
        if now.host in EVERYWHERE and not now.name:
            raise HubSettingInvalid(
                f"a hub that listens on {now.host} needs --name: how devices call this machine",
                given=now.host,
            )
        return now


class Hub:
    """One hub process; any number of them may share one database and one S3."""

    def __init__(self, options: Options) -> None:
        """Open folder and database. Raises what `HubFolder`, `Database` and `settings.change` raise."""
        self._options = options
        self._ending = ExitStack()
        with ExitStack() as ending:
            self.folder = HubFolder(options.folder)
            ending.callback(self.folder.close)
            self.started = options.started(self.folder.started())
            self.database = Database(self.started.database or f"sqlite:///{self.folder.path / DATABASE}")
            ending.callback(self.database.close)
            self.settings = settings.change(self.database, options.settings)
            self._operators = OperatorKeys(self.database)
            self._sessions = DeviceSessions(self.database)
            self.operator_key = self._operators.first(now_ms())
            self.api = Api(self.database, self.settings, self._key, now_ms)
            self._ending = ending.pop_all()

    def start(self) -> Addresses:
        """Begin to answer and to work, and say so in the folder.

        Raises `ListenerUnusable`, `ObjectStoreFailed`, `ExtraMissing`; nothing is left running then.
        """
        with ExitStack() as ending:
            ending.push(self._ending.pop_all())
            store = self._store(ending)
            ports = self._listen(store, ending)
            ticker = Ticker(self.database, self.settings, now_ms)
            ticker.start()
            ending.callback(ticker.stop)
            self._work(store, ending)
            name = self.started.name or self.started.host
            addresses = Addresses(
                endpoint=_url("http", name, ports[_API]),
                credentials_endpoint=_url("https", name, ports[_CREDENTIALS]),
                s3_endpoint=store.endpoint,
                region=self.settings.region,
                access_key_id=self.operator_key.access_key_id,
                secret_access_key=self.operator_key.secret_access_key,
            )
            self.folder.keep(self.started, ports)
            self.folder.publish(addresses)
            logger.info("hub_ready", extra={"endpoint": addresses.endpoint, "database": str(self.database)})
            self._ending = ending.pop_all()
        return addresses

    def stop(self) -> None:
        """Finish what is under way and let go of everything; safe to call again."""
        self._ending.close()

    def _store(self, ending: ExitStack) -> Store:
        stores = Stores(self.database, self.settings.region, self.operator_key, now_ms())
        if self.started.s3_endpoint:
            store = stores.at(self.started.s3_endpoint)
        else:
            weed, store = stores.own(self.folder.path / "s3", self.started.host)
            ending.callback(weed.stop)
        ending.callback(store.tokens.close)
        return store

    def _listen(self, store: Store, ending: ExitStack) -> Mapping[str, int]:
        host, options, before = self.started.host, self._options, self.folder.ports()
        exchange = CredentialsEndpoint(self.database, store.tokens, _packages, now_ms)
        hosts = sorted({self.started.name or host, host, "localhost", LOOPBACK} - EVERYWHERE)
        tls = ListenerTls(self.database, hosts, self.folder.path, lambda: datetime.now(UTC))
        port = _first(options.port, before.get(_API))
        credentials_port = _first(options.credentials_port, before.get(_CREDENTIALS))
        server = Server(
            [
                Listener(_API, host, port, self.api),
                Listener(_CREDENTIALS, host, credentials_port, exchange, tls.context, exchange.handshake_failed),
            ]
        )
        ports = server.start()
        ending.callback(server.stop)
        tls.start()
        ending.callback(tls.stop)
        return ports

    def _work(self, store: Store, ending: ExitStack) -> None:
        workshop = Workshop(Jobs(self.database, now_ms), store.objects, self._signer, Allowance())
        runner = JobRunner(workshop, self.folder.path / "work")
        runner.start()
        ending.callback(runner.stop)

    def _signer(self) -> PackageSigner:
        made = authority.package_authority(self.database, self.settings.region, datetime.now(UTC))
        return PackageSigner(made.key, made.certificates, made.root)

    def _key(self, access_key_id: str) -> Key | None:
        return self._operators(access_key_id) or self._sessions(access_key_id)


def _packages(connection: Connection, fleet: str, device: str) -> Iterable[Object]:
    """Return the packages deployed to a device, as its credentials reach them."""
    found = (Address.parse(uri) for uri in deployments.reachable(connection, fleet, device))
    return [Object(address.bucket, address.key) for address in found]


def _first(*ports: int | None) -> int:
    return next((port for port in ports if port is not None), 0)


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
