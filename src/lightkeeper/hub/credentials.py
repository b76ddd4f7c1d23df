"""The credentials endpoint: a device's certificate in exchange for credentials of about an hour.

`GET /role-aliases/ALIAS/credentials` over mutual TLS, with the header `x-amzn-iot-thingname`. TLS has checked that the
hub's own authority signed the certificate and that it is within its time; everything else is decided here, anew at
every call, from the database.

Invariants: every refusal and every new session is in the audit; no answer but the one to the device has a credential
in it. A device that asks often gets the session it has, while `REUSED_WITH_SECONDS` are left of it and it reaches what
the device needs now: a changed deployment is a changed reach, and so a new session.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from sqlalchemy import Connection, Row, or_, select

from lightkeeper import errors
from lightkeeper.hub import audit, certificates, sessions
from lightkeeper.hub.arns import role_alias
from lightkeeper.hub.database import Database
from lightkeeper.hub.reach import Object, Reach, captures_of, device_prefix, policy
from lightkeeper.hub.sts import SESSION_SECONDS, Session, TokenService
from lightkeeper.hub.tables.fleet import DEVICES, FLEETS
from lightkeeper.hub.web import Request, Response

THING_HEADER = "x-amzn-iot-thingname"

REUSED_WITH_SECONDS = SESSION_SECONDS // 2
"""AWS's SDKs ask again with a quarter of an hour left: what they get must be newer than what they have."""

LENT_WITH_SECONDS = 300
"""While the token service is away, the session there is serves for as long as this is left of it."""

ISSUED, HANDSHAKE_FAILED = "CREDENTIALS_ISSUED", "HANDSHAKE_FAILED"

_PATH = re.compile(r"/role-aliases/(?P<alias>[\w=,@-]{1,128})/credentials", re.ASCII)
_ALIAS_PREFIX = role_alias("")

Packages = Callable[[Connection, str, str], Iterable[Object]]
"""The packages deployed to a device of a fleet now, the most wanted first."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a request says."""

    alias: str
    things: tuple[str, ...]
    certificate: bytes | None
    remote: str

    @property
    def fingerprint(self) -> str:
        return certificates.fingerprint(self.certificate) if self.certificate else ""


@dataclass(frozen=True, slots=True)
class _Admitted:
    """A device that may have credentials, and what they are to reach."""

    fleet: str
    device: str
    thing: str
    role_arn: str | None
    policy: str

    @property
    def reach(self) -> str:
        return hashlib.sha256(f"{self.role_arn} {self.policy}".encode()).hexdigest()


class CredentialsEndpoint:
    """What stands behind the listener with mutual TLS; an `App`."""

    def __init__(
        self, database: Database, tokens: TokenService, packages: Packages, clock_ms: Callable[[], int]
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._packages = packages
        self._clock_ms = clock_ms

    def __call__(self, request: Request) -> Response:
        """Answer one request."""
        found = _PATH.fullmatch(request.path)
        if found is None:
            return _answer(HTTPStatus.NOT_FOUND, {"message": "Not Found: ask for /role-aliases/ALIAS/credentials"})
        if request.method != "GET":
            return _answer(HTTPStatus.METHOD_NOT_ALLOWED, {"message": "Method Not Allowed"}, allow="GET")
        asked = _Asked(
            found["alias"], tuple(request.headers.get(THING_HEADER, ())), request.certificate, request.remote
        )
        try:
            session = self._exchange(asked)
        except errors.HubRefusal as error:
            self._put_down(asked, error)
            return _refused(error)
        except Exception:
            logger.exception("credentials_failed", extra={"remote": asked.remote})
            return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, {"message": "Internal Server Error"})
        return _answer(HTTPStatus.OK, {"credentials": session})

    def handshake_failed(self, remote: str, why: str) -> None:
        """Put down a TLS handshake that did not come about: a foreign or expired certificate, or no patience."""
        self._audit(audit.Entry(HANDSHAKE_FAILED, remote=remote, detail=why))

    def _exchange(self, asked: _Asked) -> dict[str, str]:
        now_ms = self._clock_ms()
        with self._database.read() as connection:
            admitted = self._admit(connection, asked, now_ms)
            kept = sessions.latest(connection, asked.fingerprint, admitted.reach)
        left_ms = kept.expires_ms - now_ms if kept is not None else 0
        if kept is not None and left_ms > REUSED_WITH_SECONDS * 1000:
            return _said(kept.access_key_id, kept.secret_access_key, kept.session_token, kept.expires_ms)
        try:
            made = self._tokens.session(
                admitted.policy, device=admitted.device, fleet=admitted.fleet, role_arn=admitted.role_arn
            )
        except errors.SessionsUnavailable as error:
            if kept is None or left_ms < LENT_WITH_SECONDS * 1000:
                raise
            logger.warning("session_lent", extra={"device": admitted.device, "why": error.message})
            return _said(kept.access_key_id, kept.secret_access_key, kept.session_token, kept.expires_ms)
        self._keep(asked, admitted, made, now_ms)
        return _said(made.access_key_id, made.secret_access_key, made.session_token, made.expires_ms)

    def _admit(self, connection: Connection, asked: _Asked, now_ms: int) -> _Admitted:
        """Return the device that asks. Raises a `CredentialsRefused`, `RoleAliasUnknown`, `CapturePlaceUnusable`."""
        # 1. A certificate of the hub's own, on record, not revoked, within its time.
        certificate = _on_record(connection, asked, now_ms)
        # 2. The header names the thing it is attached to, once, letter for letter.
        thing = certificate.thing
        if asked.things != (thing,):
            raise errors.ThingMismatch(f"the certificate is not attached to the thing in the header {THING_HEADER}")
        # 3. The alias is a fleet's, and open.
        fleet = _fleet(connection, asked.alias)
        if not fleet.role_alias:
            raise errors.RoleAliasClosed(f"the role alias {asked.alias} is closed")
        # 4. The certificate was made for that fleet, and its thing is a device there.
        is_thing = or_(DEVICES.c.thing == thing, DEVICES.c.thing.is_(None) & (DEVICES.c.name == thing))
        device = connection.scalar(select(DEVICES.c.name).where(DEVICES.c.fleet == fleet.name, is_thing))
        if device is None or certificate.fleet != fleet.name:
            raise errors.DeviceUnregistered(f"the fleet {fleet.name} has no device with this certificate")
        # 5. It reaches its own prefix, and the packages deployed to it now.
        captures = captures_of(fleet.output_config)
        packages = tuple(self._packages(connection, fleet.name, device))
        reach = Reach(device, captures.bucket, device_prefix(captures, fleet.name, device), packages)
        return _Admitted(fleet.name, device, thing, fleet.role_arn, policy(reach))

    def _keep(self, asked: _Asked, admitted: _Admitted, made: Session, now_ms: int) -> None:
        with self._database.write() as connection:
            _on_record(connection, asked, now_ms)  # it may have been revoked since
            owner = sessions.Owner(asked.fingerprint, admitted.fleet, admitted.device, admitted.reach)
            sessions.keep(connection, made, owner, now_ms)
            entry = audit.Entry(ISSUED, asked.remote, asked.fingerprint, admitted.thing, asked.alias)
            audit.write(connection, entry, now_ms, level=logging.INFO)

    def _put_down(self, asked: _Asked, error: errors.HubRefusal) -> None:
        thing = ",".join(asked.things)
        self._audit(
            audit.Entry(error.reason, asked.remote, asked.fingerprint, thing, f"{asked.alias}: {error.message}")
        )

    def _audit(self, entry: audit.Entry) -> None:
        """Put an entry down; a database that does not take it takes the answer from nobody."""
        now_ms = self._clock_ms()
        try:
            with self._database.write(durable=False) as connection:
                audit.write(connection, entry, now_ms)
        except Exception:
            logger.exception("audit_failed", extra={"event": entry.event, "remote": entry.remote})


def _on_record(connection: Connection, asked: _Asked, now_ms: int) -> Row[Any]:
    """Return what is on record of the certificate shown. Raises a `CredentialsRefused`."""
    if asked.certificate is None:
        raise errors.DeviceCertificateAbsent("no client certificate was shown")
    known = certificates.find(connection, asked.fingerprint)
    if known is None:
        raise errors.DeviceCertificateUnknown("the certificate is not on this hub's record")
    if known.revoked_ms is not None:
        raise errors.DeviceCertificateRevoked("the certificate was revoked")
    if not known.begins_ms <= now_ms < known.ends_ms:
        raise errors.DeviceCertificateExpired("the certificate is not valid at this time")
    return known


def _fleet(connection: Connection, alias: str) -> Row[Any]:
    fleet = None
    if alias.startswith(_ALIAS_PREFIX):
        fleet = connection.execute(select(FLEETS).where(FLEETS.c.name == alias.removeprefix(_ALIAS_PREFIX))).first()
    if fleet is None:
        raise errors.RoleAliasUnknown(f"there is no role alias {alias}")
    return fleet


def _said(access_key_id: str, secret_access_key: str, session_token: str, expires_ms: int) -> dict[str, str]:
    expires = datetime.fromtimestamp(expires_ms // 1000, UTC)
    return {
        "accessKeyId": access_key_id,
        "secretAccessKey": secret_access_key,
        "sessionToken": session_token,
        "expiration": f"{expires:%Y-%m-%dT%H:%M:%SZ}",
    }


def _refused(error: errors.HubRefusal) -> Response:
    match error:
        case errors.AccessRefused():
            status, begins = HTTPStatus.FORBIDDEN, "Access Denied"
        case errors.ResourceMissing():
            status, begins = HTTPStatus.NOT_FOUND, "Not Found"
        case errors.HubBusy():
            status, begins = HTTPStatus.SERVICE_UNAVAILABLE, "Service Unavailable"
        case _:
            status, begins = HTTPStatus.CONFLICT, "Conflict"
    return _answer(status, {"message": f"{begins}: {error.message} [{error.reason}]; {error.next_step}"})


def _answer(status: HTTPStatus, body: object, *, allow: str = "") -> Response:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return Response(status, json.dumps(body).encode(), headers | ({"Allow": allow} if allow else {}))
