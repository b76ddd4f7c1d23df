"""The exchange where the certificate's key is in a PKCS#11 token: the system's curl makes the request.

It can have OpenSSL sign with such a key, and Python's TLS cannot.

- The child gets all it needs over its standard input, so neither list of processes nor disk ever has the PIN.
- What it writes to stderr may hold the PIN: it is looked through for the few phrases below, and is never passed on.
- Tokens lock after a few wrong PINs. One that was refused is not tried again until its file changes, or at a restart.
- The child has ended when an exchange is over; its answer is read up to `ANSWER_MAXIMUM_BYTES`.
"""

from __future__ import annotations

import http.client
import io
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any, cast
from urllib.parse import urlsplit

from lightkeeper.errors import (
    AgentError,
    CertificateFilesUnusable,
    DestinationBusy,
    DestinationUnreachable,
    TokenKeyUnusable,
    TokenToolsMissing,
)
from lightkeeper.providers import connection, handshake
from lightkeeper.providers.base import DeviceCertificate
from lightkeeper.providers.exchange import ANSWER_MAXIMUM_BYTES, THING_HEADER, CredentialExchange
from lightkeeper.tokenkey import KeyAddress

SIGNING_SECONDS = 10.0
"""What a token may take beside the network; then the child is ended."""

_WRITTEN_MAXIMUM_BYTES = ANSWER_MAXIMUM_BYTES + 64 * 1024  # with its head
_SAID_MAXIMUM_BYTES = 32 * 1024
_ENVIRONMENT = frozenset(
    {"HOME", "LANG", "PATH", "OPENSSL_CONF", "OPENSSL_ENGINES", "OPENSSL_MODULES", "SOFTHSM2_CONF"}
)
_OF_MODULES = ("PKCS11_", "P11_KIT_", "TPM2_PKCS11_", "YUBIHSM_PKCS11_")

# curl's exit codes, as its manual has them
_TOO_OLD, _BAD_KEY, _UNTRUSTED, _BAD_AUTHORITY, _TOO_MUCH = {2, 4, 48}, 58, {51, 60}, 77, 63
_NO_ENGINE = {53, 54, 66}
_CUT = {35, 52, 55, 56, 98}
_WHY = {
    5: "the proxy's name is not known",
    6: "its name is not known",
    7: "the connection was refused, or there is no way",
    28: "it took too long",
    35: "TLS did not come about",
    52: "it closed the connection",
    55: "the connection was cut",
    56: "the connection was cut, or a proxy refuses",
    98: "it cut TLS for want of a certificate",
}
_WRONG_PIN = "login failed"
_KEY_FAULTS = {
    "ui_process failed": "the token wants a PIN, and the address has none",
    _WRONG_PIN: "the token refuses the PIN",
    "no matching initialized token": "there is no such token",
    "private key was not found": "the token has no such key",
    "unable to set private key": "the key does not belong to the certificate",
}
_ALERTS = (
    "access denied",
    "bad certificate",
    "certificate expired",
    "certificate required",
    "certificate revoked",
    "certificate unknown",
    "handshake failure",
    "unknown ca",
    "unsupported certificate",
)


@dataclass(frozen=True, slots=True)
class _Done:
    """How curl ended: its exit code, what it wrote, and what it complained of in lower case."""

    code: int
    written: bytes
    said: str


def exchange(
    certificate: DeviceCertificate, thing_name: str, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> CredentialExchange:
    """Return the exchange for where the certificate's key lies."""
    if isinstance(certificate.key, KeyAddress):
        return TokenExchange(certificate, certificate.key, thing_name, now=now)
    return CredentialExchange(certificate, thing_name, now=now)


class TokenExchange(CredentialExchange):
    """See `CredentialExchange`; it raises `TokenKeyUnusable` and `TokenToolsMissing` too."""

    def __init__(  # noqa: PLR0913  # the device's three; the rest by keyword
        self,
        certificate: DeviceCertificate,
        key: KeyAddress,
        thing_name: str,
        *,
        curl: str = "curl",
        environment: Mapping[str, str] = os.environ,
        signing_seconds: float = SIGNING_SECONDS,
        **given: Any,
    ) -> None:
        """Take the certificate and where its key is, and the program, looked for in the environment's PATH."""
        super().__init__(certificate, thing_name, **given)
        self._key = key
        self._curl = curl
        self._environment = environment
        self._signing_seconds = signing_seconds
        self._refused_pin: str | None = None

    def _answer(self) -> tuple[int, bytes, str | None]:
        files, key = self._certificate, self._key
        connection.context(files)  # for what is wrong with the authority's file
        if handshake.valid_within(files.certificate_file) is None:
            raise CertificateFilesUnusable(
                "the device's certificate cannot be read", certificate_file=files.certificate_file
            )
        curl = shutil.which(self._curl, path=self._environment.get("PATH"))
        if curl is None:
            raise TokenToolsMissing("there is no curl, which signs with a key in a token", key=key)
        pin = self._pin(key)
        done = self._run(curl, key.with_pin(pin))
        if done.code in _CUT and _alert(done) is None:  # with TLS 1.3 an alert may be lost: see `handshake`
            again = self._run(curl, key.with_pin(pin), 'tls-max = "1.2"')
            done = again if again.code else done
        if done.code:
            if done.code == _BAD_KEY and _WRONG_PIN in done.said:
                self._refused_pin = pin
            raise self._failure(done, key)
        return _parsed(done.written, files.endpoint)

    def _pin(self, key: KeyAddress) -> str | None:
        try:
            pin = key.pin()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "is not one line of text"
            raise TokenKeyUnusable(f"the PIN's file cannot be used: {why}", key=key, pin_file=key.pin_file) from None
        if pin is not None and pin == self._refused_pin:
            raise TokenKeyUnusable(
                "the token has refused this PIN, and is not asked again, since tokens lock after a few wrong ones",
                key=key,
            )
        return pin

    def _settings(self, address: str) -> Iterator[str]:
        """Yield the lines of curl's configuration."""
        files, endpoint = self._certificate, self._certificate.endpoint
        values = {
            "url": endpoint,
            "header": f"{THING_HEADER}: {self._thing_name}",
            "key": address,
            "cert": str(files.certificate_file.absolute()),
            "cacert": str(files.ca_file.absolute()),
            "capath": os.devnull,  # else a distribution's curl trusts the system's authorities too
            "proto": "=https",
            "connect-timeout": f"{self._timeout_seconds:g}",
            "max-time": f"{self._deadline_seconds:g}",
            "max-filesize": str(ANSWER_MAXIMUM_BYTES),
        }
        proxy = connection.proxy_for(urlsplit(endpoint).hostname or "")
        values |= {"noproxy": "*"} if proxy is None else {"proxy": proxy, "noproxy": ""}
        yield from (f"{name} = {_quoted(value)}" for name, value in values.items())
        yield from ("tlsv1.2", "http1.1", "include", "suppress-connect-headers", "globoff", "silent", "show-error")

    def _run(self, curl: str, address: str, *more: str) -> _Done:
        settings = "\n".join([*self._settings(address), *more, ""]).encode()
        environment = {
            name: value
            for name, value in self._environment.items()
            if name in _ENVIRONMENT or name.startswith(_OF_MODULES)
        }
        try:
            child = subprocess.Popen(  # noqa: S603  # the system's curl, no shell
                [curl, "-q", "-K", "-"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,  # without a terminal, on which it would ask for a PIN
            )
        except OSError as error:
            raise TokenToolsMissing(f"curl cannot be started: {error.strerror}", curl=curl) from None
        limit = threading.Timer(self._deadline_seconds + self._signing_seconds, child.kill)
        limit.daemon = True
        limit.start()
        with child:
            try:
                stdin, stdout, stderr = (cast("IO[bytes]", one) for one in (child.stdin, child.stdout, child.stderr))
                with suppress(OSError):  # it has ended already: its exit code tells why
                    stdin.write(settings)
                    stdin.close()
                written = stdout.read(_WRITTEN_MAXIMUM_BYTES)
                if len(written) == _WRITTEN_MAXIMUM_BYTES:
                    return _Done(_TOO_MUCH, b"", "")
                said = stderr.read(_SAID_MAXIMUM_BYTES)
                if len(said) < _SAID_MAXIMUM_BYTES:
                    child.wait()
            finally:
                limit.cancel()
                child.kill()
        return _Done(child.returncode, written, said.decode(errors="replace").lower())

    def _failure(self, done: _Done, key: KeyAddress) -> AgentError:
        """Return what curl's end means, as far as it is about this device."""
        code = done.code
        if code in _NO_ENGINE or code in _TOO_OLD or (code == _BAD_KEY and "engine 'pkcs11' not found" in done.said):
            what = "is too old" if code in _TOO_OLD else "finds no way to PKCS#11 tokens"
            return TokenToolsMissing(f"the system's curl {what}", key=key, curl_exit=code)
        if code == _BAD_KEY:
            why = next((why for phrase, why in _KEY_FAULTS.items() if phrase in done.said), "OpenSSL cannot load it")
            return TokenKeyUnusable(f"the device's key in a token cannot be used: {why}", key=key)
        if code == _BAD_AUTHORITY:
            ca_file = self._certificate.ca_file
            return CertificateFilesUnusable("curl cannot use the authority's certificate", ca_file=ca_file)
        return self._failure_of_the_way(done)

    def _failure_of_the_way(self, done: _Done) -> AgentError:
        files, endpoint, code = self._certificate, self._certificate.endpoint, done.code
        if said := _alert(done):
            return handshake.denial(files, self._now(), said)
        if code in _UNTRUSTED:
            return handshake.mistrust(files, self._now(), self._timeout_seconds)
        if code == _TOO_MUCH:
            return DestinationBusy(f"{endpoint} gave an answer that is no credentials", endpoint=endpoint)
        if code in _CUT and (fault := handshake.out_of_date(files, self._now())):
            return fault
        why = "it, or the token, took too long" if code < 0 else _WHY.get(code, f"curl ended with {code}")
        return DestinationUnreachable(
            f"the credentials endpoint cannot be reached: {why}", endpoint=endpoint, curl_exit=code
        )


def _parsed(written: bytes, endpoint: str) -> tuple[int, bytes, str | None]:
    """Return status, content and header `Date` of the last answer of those that curl wrote down."""
    rest = io.BytesIO(written)
    try:
        while True:
            status = int(rest.readline().split()[1])
            headers = http.client.parse_headers(rest)
            if status >= http.client.OK:
                return status, rest.read(), headers.get("Date")
    except (ValueError, IndexError, http.client.HTTPException) as error:
        raise DestinationBusy(f"{endpoint} gave an answer that is no credentials", endpoint=endpoint) from error


def _alert(done: _Done) -> str | None:
    """Return which alert the endpoint sent, of those that mean the device's certificate."""
    return next((one for one in _ALERTS if f"alert {one}" in done.said), None)


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
