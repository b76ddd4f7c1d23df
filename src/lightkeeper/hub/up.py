"""The hub's composition: options to objects, the order of starting and stopping."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from lightkeeper.hub import settings
from lightkeeper.hub.api import Api
from lightkeeper.hub.database import Database
from lightkeeper.hub.folder import Addresses, HubFolder
from lightkeeper.hub.keys import OperatorKeys
from lightkeeper.hub.server import Listener, Server
from lightkeeper.hub.ticker import Ticker

LOOPBACK = "127.0.0.1"

_API, _CREDENTIALS = "api", "credentials"

logger = logging.getLogger(__name__)


def now_ms() -> int:
    """Return the machine's time."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How one hub process is started. Ports of None are those of the last start in this folder, at first any."""

    folder: Path
    host: str = LOOPBACK
    port: int | None = None
    credentials_port: int | None = None
    database: str | None = None
    """None: SQLite in the folder."""

    s3_endpoint: str | None = None
    """None: SeaweedFS, with its data in the folder."""

    settings: Mapping[str, str] = field(default_factory=dict)
    """What to set for the whole hub, of `Settings`."""


class Hub:
    """One hub process; any number of them may share one database and one S3."""

    def __init__(self, options: Options) -> None:
        """Open folder and database. Raises what `HubFolder`, `Database` and `settings.change` raise."""
        self._options = options
        self._ending = ExitStack()
        with ExitStack() as ending:
            self.folder = HubFolder(options.folder)
            ending.callback(self.folder.close)
            self.database = Database(options.database or f"sqlite:///{self.folder.path / 'hub.db'}")
            ending.callback(self.database.close)
            self.settings = settings.change(self.database, options.settings)
            self.keys = OperatorKeys(self.database)
            self.operator_key = self.keys.first(now_ms())
            self._ending = ending.pop_all()

    def start(self) -> Addresses:
        """Begin to answer, and say so in the folder. Raises `ListenerUnusable`; nothing is left running then."""
        with ExitStack() as ending:
            ending.push(self._ending.pop_all())
            ports = self.folder.ports()
            api = Api(self.database, self.settings, self.keys, now_ms)
            options = self._options
            server = Server([Listener(_API, options.host, _first(options.port, ports.get(_API)), api)])
            ports = server.start()
            ending.callback(server.stop)
            ticker = Ticker(self.database, self.settings, now_ms)
            ticker.start()
            ending.callback(ticker.stop)
            self.folder.keep_ports(ports)
            addresses = Addresses(
                endpoint=_url("http", options.host, ports[_API]),
                credentials_endpoint="",
                s3_endpoint=options.s3_endpoint or "",
                region=self.settings.region,
                access_key_id=self.operator_key.access_key_id,
                secret_access_key=self.operator_key.secret_access_key,
            )
            self.folder.publish(addresses)
            logger.info("hub_ready", extra={"endpoint": addresses.endpoint, "database": str(self.database)})
            self._ending = ending.pop_all()
        return addresses

    def stop(self) -> None:
        """Finish what is under way and let go of everything; safe to call again."""
        self._ending.close()


def _first(*ports: int | None) -> int:
    return next((port for port in ports if port is not None), 0)


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
