"""The hub's composition: settings to objects, the order of starting and stopping."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lightkeeper.hub.api import Api
from lightkeeper.hub.database import Database
from lightkeeper.hub.keys import OperatorKey, OperatorKeys
from lightkeeper.hub.server import Listener, Server
from lightkeeper.hub.settings import Settings, load
from lightkeeper.hub.ticker import Ticker

API_LISTENER = "api"


def now_ms() -> int:
    """Return the machine's time."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running hub answers."""

    endpoint: str


class Hub:
    """One hub process's parts; any number of them may share one database and one S3."""

    def __init__(self, database_url: str, *, host: str = "127.0.0.1", port: int = 0) -> None:
        """Open the database. Raises what `Database` raises."""
        self.database = Database(database_url)
        self.settings: Settings = load(self.database)
        self.keys = OperatorKeys(self.database)
        self.operator_key: OperatorKey = self.keys.first(now_ms())
        self.api = Api(self.database, self.settings, self.keys, now_ms)
        self._ticker = Ticker(self.database, self.settings, now_ms)
        self._host = host
        self._server = Server([Listener(API_LISTENER, host, port, self.api)])

    def start(self) -> Addresses:
        """Begin to answer. Raises `ListenerUnusable`."""
        ports = self._server.start()
        self._ticker.start()
        return Addresses(f"http://{self._host}:{ports[API_LISTENER]}")

    def stop(self) -> None:
        """Finish what is under way and let go of everything."""
        self._server.stop()
        self._ticker.stop()
        self.database.close()
