"""The ticker: a thread that looks at the stages under way, and does what the clock and the devices' answers ask for.

Every process of a hub has one; the one that holds the lease works, the others wait for it to end. The lease only saves
work: each stage is one transaction under the stage's own lock, so that a process that was held up and comes back after
its lease does no harm, and one that is killed leaves nothing half done.

Leases are times of the processes' own clocks: those that share a database must agree to well within `LEASE_MS`.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable

from sqlalchemy import Connection, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from lightkeeper.hub import conduct, retention
from lightkeeper.hub.database import Database, insert_or_skip
from lightkeeper.hub.settings import Settings
from lightkeeper.hub.tables.rollout import LEASES, STAGES

LEASE = "rollouts"
LEASE_MS = 10_000
SWEEP_EVERY_MS = 60_000

log = logging.getLogger(__name__)


class Ticker:
    """Runs the rollouts of one hub. `now_ms` is the clock."""

    def __init__(self, database: Database, settings: Settings, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._settings = settings
        self._now_ms = now_ms
        self._owner = secrets.token_hex(16)
        self._holds_until_ms = 0
        self._swept_ms = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hub-ticker", daemon=True)

    def start(self) -> None:
        """Begin to work, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the tick under way, and let another process work at once."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        """Work until told to stop; what goes wrong is logged, and tried again at the next tick."""
        while not self._stop.wait(self._settings.rollout_tick_ms / 1000):
            try:
                self.once()
            except SQLAlchemyError as error:
                log.warning("ticker_without_database", extra={"error": type(error).__name__})
            except Exception:
                log.exception("ticker_failed")
        self._release()

    def once(self) -> bool:
        """Do what is due in every stage, if the lease is to be had; return whether it was."""
        now_ms = self._now_ms()
        if not self._hold(now_ms):
            return False
        with self._database.read() as connection:
            due = list(connection.scalars(select(STAGES.c.id).where(STAGES.c.ticking).order_by(STAGES.c.id)))
        for stage in due:
            self._tick(stage)
            if not self._hold(self._now_ms()):
                return False
        if now_ms - self._swept_ms >= SWEEP_EVERY_MS:
            retention.sweep(self._database, self._settings, now_ms)
            self._swept_ms = now_ms
        return True

    def _release(self) -> None:
        try:
            with self._database.write() as connection:
                connection.execute(
                    update(LEASES).where(LEASES.c.name == LEASE, LEASES.c.owner == self._owner).values(until_ms=0)
                )
        except SQLAlchemyError as error:
            log.debug("lease_not_released", extra={"error": type(error).__name__})
        self._holds_until_ms = 0

    def _tick(self, stage: int) -> None:
        """Do what is due in one stage; a fault in it keeps no other from its turn."""
        try:
            with self._database.write() as connection:
                conduct.tick(connection, stage, self._now_ms())
        except SQLAlchemyError as error:
            log.warning("stage_not_ticked", extra={"stage": stage, "error": type(error).__name__})
        except Exception:
            log.exception("stage_not_ticked", extra={"stage": stage})

    def _hold(self, now_ms: int) -> bool:
        """Take the lease or keep it; while it is long enough, without a word to the database."""
        if now_ms + LEASE_MS // 2 < self._holds_until_ms <= now_ms + LEASE_MS:
            return True
        until_ms = now_ms + LEASE_MS
        with self._database.read() as connection:
            row = connection.execute(select(LEASES).where(LEASES.c.name == LEASE)).first()
        if row is not None and row.owner != self._owner and now_ms < row.until_ms <= now_ms + LEASE_MS:
            return False
        with self._database.write() as connection:
            held = self._take(connection, now_ms, until_ms)
        self._holds_until_ms = until_ms if held else 0
        return held

    def _take(self, connection: Connection, now_ms: int, until_ms: int) -> bool:
        mine = {"name": LEASE, "owner": self._owner, "until_ms": 0}
        insert_or_skip(connection, LEASES, [mine])
        free = or_(LEASES.c.owner == self._owner, LEASES.c.until_ms <= now_ms, LEASES.c.until_ms > now_ms + LEASE_MS)
        taken = connection.execute(
            update(LEASES).where(LEASES.c.name == LEASE, free).values(owner=self._owner, until_ms=until_ms)
        )
        return taken.rowcount == 1
