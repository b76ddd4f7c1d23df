"""The TLS of the listener where devices come for credentials: one context whose certificate is renewed while it serves.

Thread: `hub-certificate`, which looks every `LOOK_SECONDS`. The certificate lies in the database, so that every process
of the hub shows the same one; connections that are open keep the one they began with.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from lightkeeper.errors import AgentError
from lightkeeper.hub import authority
from lightkeeper.hub.database import Database
from lightkeeper.system import write_private

LOOK_SECONDS = 12 * 3600.0

log = logging.getLogger(__name__)


class ListenerTls:
    """Keeps `context` with a certificate that lasts. `now` is the clock."""

    def __init__(self, database: Database, hosts: Sequence[str], folder: Path, now: Callable[[], datetime]) -> None:
        """Take the certificate, which names these hosts and addresses; it is made where there is none.

        A client's certificate is checked where it shows one; `credentials.py` refuses, in words, who shows none.
        `folder` is where OpenSSL can read the key from: a file that is there, for its owner alone, while it is read.
        """
        self._database = database
        self._hosts = hosts
        self._folder = folder
        self._now = now
        issuer = authority.devices(database, now())
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=issuer.certificate_pem.decode())
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.verify_mode = ssl.CERT_OPTIONAL
        self._shown = b""
        self.renew()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hub-certificate", daemon=True)

    def start(self) -> None:
        """Begin to look after it, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def renew(self) -> None:
        """Show new connections the certificate of today: another one where the end of the last is near."""
        server = authority.listener(self._database, self._hosts, self._now())
        if server.certificate_pem == self._shown:
            return
        path = self._folder / f".listener-{os.getpid()}.pem"
        path.unlink(missing_ok=True)
        try:
            write_private(path, server.key_pem + server.certificate_pem)
            self.context.load_cert_chain(path)
        finally:
            path.unlink(missing_ok=True)
        if self._shown:
            log.info(
                "listener_certificate_renewed", extra={"until": server.certificate.not_valid_after_utc.isoformat()}
            )
        self._shown = server.certificate_pem

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self.renew()
            except (AgentError, SQLAlchemyError, OSError) as error:  # there is a year left to try again
                log.warning("listener_certificate_not_renewed", extra={"error": str(error)})
