"""Reading X.509 certificates whole.

`cryptography` parses a certificate's parts when they are first asked for, so a damaged one would raise its errors
anywhere later. Here every part is asked for at once: what these functions return raises no parse error any more.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

_PARSE_ERRORS = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class CertificateUnreadable(ValueError):  # noqa: N818  # named like the reasons it becomes
    """The bytes are not a certificate that can be read in full. Readers translate it into their own error."""


def from_der(data: bytes) -> x509.Certificate:
    """Return the certificate in DER. Raises `CertificateUnreadable`."""
    try:
        return _read_whole(x509.load_der_x509_certificate(data))
    except _PARSE_ERRORS as error:
        raise CertificateUnreadable(str(error)) from error


def from_pem(data: bytes) -> list[x509.Certificate]:
    """Return the certificates in PEM, at least one. Raises `CertificateUnreadable`."""
    try:
        return [_read_whole(certificate) for certificate in x509.load_pem_x509_certificates(data)]
    except _PARSE_ERRORS as error:
        raise CertificateUnreadable(str(error)) from error


def name(certificate: x509.Certificate) -> str:
    """Return what to call a certificate in a message."""
    return certificate.subject.rfc4514_string() or f"serial {certificate.serial_number:x}"


def _read_whole(certificate: x509.Certificate) -> x509.Certificate:
    for part in ("version", "serial_number", "subject", "issuer", "not_valid_before_utc", "not_valid_after_utc"):
        getattr(certificate, part)
    for part in ("extensions", "signature_algorithm_oid", "signature_hash_algorithm"):
        getattr(certificate, part)
    certificate.public_key()
    name(certificate)
    return certificate
