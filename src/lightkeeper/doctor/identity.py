"""How the device proves who it is: its certificate, the key that belongs to it, and the authority it trusts."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.x509 import Certificate

from lightkeeper.doctor.diagnosis import Diagnosis, failed, ok, skipped, warning
from lightkeeper.errors import CertificateExpired, CertificateFilesUnusable, CertificateNotYetValid
from lightkeeper.modelpackage.certificate import CertificateUnreadable, from_pem, name
from lightkeeper.tokenkey import KeyAddress

WARNED_DAYS = 30
"""Before a certificate ends, that much time to renew it."""

_RENEW_AUTHORITY = (
    "get the authority's certificate anew: the hub's is hub-ca.pem in a device's folder, AWS IoT's is Amazon Root CA 1"
)
_RENEW = (
    "get a new certificate: on the hub, lightkeeper hub device add NAME --fleet FLEET; with AWS IoT, make one and "
    "attach it to the thing"
)


def certificate(file: Path, now: datetime) -> Diagnosis:
    """Whether the device's certificate, the first of its file, can be read and is valid."""
    what = "the device's certificate"
    found = _read(file, what)
    return found if isinstance(found, Diagnosis) else _dated(found[0], file, now, what=what, renew=_RENEW)


def authority(file: Path, now: datetime) -> Diagnosis:
    """Whether the endpoint's authority has a certificate there that is valid; of several, the last to end counts."""
    what = "the authority's certificate"
    found = _read(file, what)
    if isinstance(found, Diagnosis):
        return found
    latest = max(found, key=lambda one: one.not_valid_after_utc)
    return _dated(latest, file, now, what=what, renew=_RENEW_AUTHORITY)


def key(certificate_file: Path, key_file: Path | KeyAddress) -> Diagnosis:
    """Whether the private key belongs to the certificate, as TLS itself finds it."""
    if isinstance(key_file, KeyAddress):
        return skipped(f"the key is in a token, and the exchange itself is its trial: {key_file}")
    facts = {"certificate_file": certificate_file, "key_file": key_file}
    try:
        ssl.create_default_context().load_cert_chain(certificate_file, key_file, password="")
    except OSError as error:
        text = str(error).lower()
        if "mismatch" in text:
            found, fix = (
                "the key does not belong to the certificate",
                "take certificate and key from one and the same folder",
            )
        elif isinstance(error, ssl.SSLError) and "ENCRYPTED" in _beginning(key_file):
            found = "the key is encrypted, and nobody is there to be asked for its password"
            fix = f"openssl pkey -in {key_file} -out NEW, then chmod 600 NEW"
        else:
            found, fix = f"certificate and key cannot be used: {error}", CertificateFilesUnusable.next_step
        return failed(found, fix=fix, reason=CertificateFilesUnusable.reason, facts=facts)
    return ok("the key belongs to the certificate", facts=facts)


def _read(file: Path, what: str) -> list[Certificate] | Diagnosis:
    try:
        return from_pem(file.read_bytes())
    except (OSError, CertificateUnreadable) as error:
        return failed(
            f"{what} cannot be read: {error}",
            fix=CertificateFilesUnusable.next_step,
            reason=CertificateFilesUnusable.reason,
            facts={"file": file},
        )


def _dated(found: Certificate, file: Path, now: datetime, *, what: str, renew: str) -> Diagnosis:
    begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    facts = {"file": file, "subject": name(found), "begins": begins.isoformat(), "ends": ends.isoformat()}
    if now < begins:
        return failed(
            f"{what} begins on {begins:%Y-%m-%d %H:%M} UTC, and the device's clock says {now:%Y-%m-%d %H:%M}",
            fix="set the device's clock: timedatectl set-ntp true",
            reason=CertificateNotYetValid.reason,
            facts=facts,
        )
    if now > ends:
        return failed(f"{what} ended on {ends:%Y-%m-%d}", fix=renew, reason=CertificateExpired.reason, facts=facts)
    left = ends - now
    if left < timedelta(days=WARNED_DAYS):
        return warning(f"{what} ends in {left.days} days, on {ends:%Y-%m-%d}", fix=renew, facts=facts)
    return ok(f"{what} is valid until {ends:%Y-%m-%d}", facts=facts)


def _beginning(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")[:200]
    except OSError:
        return ""
