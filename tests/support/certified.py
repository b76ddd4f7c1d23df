"""A credentials endpoint as a hub has it, with real TLS and a real token service, and devices that ask it."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from sqlalchemy import insert, select

from lightkeeper.hub import authority, certificates
from lightkeeper.hub.credentials import THING_HEADER, CredentialsEndpoint
from lightkeeper.hub.database import Database
from lightkeeper.hub.listenertls import ListenerTls
from lightkeeper.hub.reach import Object
from lightkeeper.hub.server import Listener, Server
from lightkeeper.hub.sts import TokenService
from lightkeeper.hub.tables.fleet import DEVICES, FLEETS
from lightkeeper.hub.tables.identity import AUDIT
from lightkeeper.modelpackage.issuer import Issuer, new_key, pem_of, pem_of_key

HOST = "localhost"
FLEET, DEVICE = "lines", "cam-1"
ALIAS = f"SageMakerEdge-{FLEET}"


@dataclass(frozen=True)
class Held:
    """A certificate with its key, in one file as a device would have it."""

    certificate: x509.Certificate
    path: Path


@dataclass
class Certified:
    """The endpoint of one hub. `now` is the hub's clock, `packages` what is deployed to every device."""

    folder: Path
    database: Database
    tokens: TokenService
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    packages: list[Object] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.issuer = authority.devices(self.database, self.now)
        self.endpoint = CredentialsEndpoint(self.database, self.tokens, lambda *_: list(self.packages), self.now_ms)
        self.listener_tls = ListenerTls(self.database, [HOST], self.folder, lambda: self.now)
        shown = self.listener_tls.context
        listener = Listener("credentials", "127.0.0.1", 0, self.endpoint, shown, self.endpoint.handshake_failed)
        self._server = Server([listener])
        self.port = self._server.start()["credentials"]
        self.ca = self.folder / "hub-ca.pem"
        self.ca.write_bytes(self.issuer.certificate_pem)

    def now_ms(self) -> int:
        """Return the hub's time."""
        return int(self.now.timestamp() * 1000)

    def add_fleet(self, name: str = FLEET, *, place: str = "s3://lightkeeper/captures", alias: bool = True) -> None:
        """Make a fleet."""
        row = {"name": name, "output_config": {"S3OutputLocation": place}, "role_alias": alias}
        with self.database.write() as connection:
            connection.execute(insert(FLEETS).values(**row, created_ms=self.now_ms(), modified_ms=self.now_ms()))

    def add_device(self, name: str = DEVICE, *, fleet: str = FLEET, thing: str | None = None) -> None:
        """Register a device."""
        row = {"fleet": fleet, "name": name, "thing": thing, "registered_ms": self.now_ms()}
        with self.database.write() as connection:
            connection.execute(insert(DEVICES).values(**row))

    def certify(
        self,
        thing: str = DEVICE,
        *,
        fleet: str = FLEET,
        issuer: Issuer | None = None,
        now: datetime | None = None,
        on_record: bool = True,
    ) -> Held:
        """Make a device's certificate, as a hub does or, with another issuer or time, as it would not."""
        key = new_key()
        made = authority.sign_device(issuer or self.issuer, thing, key.public_key(), now or self.now)
        if on_record:
            with self.database.write() as connection:
                certificates.record(connection, made, fleet, thing, self.now_ms())
        path = self.folder / f"{made.serial_number:x}.pem"
        path.write_bytes(pem_of_key(key) + pem_of(made))
        return Held(made, path)

    def tls(self, held: Held | None) -> ssl.SSLContext:
        """Return the TLS of a client that trusts the hub's authority alone."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if held is not None:
            context.load_cert_chain(held.path)
        return context

    def ask(
        self,
        held: Held | None,
        thing: str | bytes | None = DEVICE,
        *,
        alias: str = ALIAS,
        path: str = "",
        method: str = "GET",
        headers: Mapping[str, str | bytes] | None = None,
    ) -> tuple[int, Any]:
        """Ask for credentials and return status and answer."""
        connection = http.client.HTTPSConnection(HOST, self.port, timeout=30, context=self.tls(held))
        try:
            connection.putrequest(method, path or f"/role-aliases/{alias}/credentials")
            if thing is not None:
                connection.putheader(THING_HEADER, thing)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            body = answer.read()
            return answer.status, json.loads(body) if answer.getheader("Content-Type") == "application/json" else body
        finally:
            connection.close()

    def audited(self) -> dict[str, int]:
        """Return how often each event is in the audit."""
        found: dict[str, int] = {}
        with self.database.read() as connection:
            for row in connection.execute(select(AUDIT)):
                found[row.event] = found.get(row.event, 0) + row.count
        return found

    def close(self) -> None:
        """End everything."""
        self._server.stop()
        self.tokens.close()
        self.database.close()
