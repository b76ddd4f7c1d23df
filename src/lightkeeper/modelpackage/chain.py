"""Certificate paths: from the certificate that signed, over its issuers, to a root this device trusts.

Pure: certificates, read in full (`certificate`), in; a path or a refusal out. What a certificate asks for and this file
does not know, is refused: an unknown critical extension, a name constraint, a weak key. Validity in time is the matter
of `trust.TrustTime`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from lightkeeper.errors import CertificateUnusable, RootUnknown
from lightkeeper.modelpackage.certificate import name
from lightkeeper.modelpackage.roots import Root

Path = tuple[x509.Certificate, ...]
"""The leaf first, the trusted root last; a leaf that is a trusted root itself stands alone."""

PATH_MAXIMUM = 8
"""The most certificates of a path."""
STEPS_MAXIMUM = 100
"""The most steps of the search: hostile look-alikes make more paths than anybody can wait for."""
Value = TypeVar("Value", bound=x509.ExtensionType)

RSA_MINIMUM_BITS = 2048
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)

_HASHES = frozenset({"sha256", "sha384", "sha512"})
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        # Nothing here depends on a subject's other names, as nobody is asked for by name.
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)


def find(leaf: x509.Certificate, others: Sequence[x509.Certificate], roots: Sequence[Root]) -> Path:
    """Return the first path from the leaf to a root whose every certificate may stand where it stands.

    Raises `RootUnknown` where no signatures lead to a root, `CertificateUnusable` where some do and a certificate on
    the way may not be used for that.
    """
    refusal: CertificateUnusable | None = None
    for path in _paths((leaf,), others, roots, itertools.count(1)):
        try:
            _check(path)
        except CertificateUnusable as error:
            refusal = refusal or error
        else:
            return path
    if refusal is not None:
        raise refusal
    raise RootUnknown(
        f"no trusted root has issued the signer {name(leaf)}",
        signer=name(leaf),
        issuer=leaf.issuer.rfc4514_string(),
        trusted=", ".join(sorted({name(root.certificate) for root in roots})),
    )


def _paths(
    path: Path, others: Sequence[x509.Certificate], roots: Sequence[Root], steps: Iterator[int]
) -> Iterator[Path]:
    """Yield every chain of signatures from the path's end to a root, as far as the steps reach."""
    if next(steps) > STEPS_MAXIMUM:
        return
    last = path[-1]
    for root in roots:
        if root.certificate == last:
            yield path
        elif _issued(root.certificate, last):
            yield (*path, root.certificate)
    if len(path) + 1 < PATH_MAXIMUM:
        for other in others:
            if other not in path and _issued(other, last):
                yield from _paths((*path, other), others, roots, steps)


def _issued(issuer: x509.Certificate, subject: x509.Certificate) -> bool:
    """Tell whether names, key identifiers and signature say that one certificate issued the other (RFC 5280, 6.1)."""
    if issuer.subject != subject.issuer:
        return False
    try:
        wanted = subject.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        given = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        wanted = given = None
    if wanted is not None and wanted != given:
        return False
    try:
        subject.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _check(path: Path) -> None:
    """Raise `CertificateUnusable` unless every certificate may stand where it stands in the path (RFC 5280, 6.1.4)."""
    for certificate in path:
        _check_each(certificate)
    _check_leaf(path[0])
    for below, issuer in enumerate(path[1:]):
        _check_issuer(issuer, path[1 : below + 1])
        start = path[0].not_valid_before_utc
        if not issuer.not_valid_before_utc <= start <= issuer.not_valid_after_utc:
            raise _unusable(issuer, "was not valid when the signer's certificate began")


def _check_each(certificate: x509.Certificate) -> None:
    if certificate.version is not x509.Version.v3:
        raise _unusable(certificate, "is not of version 3")
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise _unusable(certificate, f"has the critical extension {extension.oid.dotted_string}, not known here")
        if isinstance(extension.value, x509.NameConstraints):
            raise _unusable(certificate, "has name constraints, which are not known here")
    _check_strength(certificate)


def _check_strength(certificate: x509.Certificate) -> None:
    key = certificate.public_key()
    algorithm = certificate.signature_hash_algorithm
    if isinstance(key, rsa.RSAPublicKey):
        strong = key.key_size >= RSA_MINIMUM_BITS
    elif isinstance(key, ec.EllipticCurvePublicKey):
        strong = isinstance(key.curve, CURVES)
    else:
        strong = isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)
    if not strong:
        raise _unusable(certificate, "has a key that is too weak or of an unknown kind")
    if algorithm is not None and algorithm.name not in _HASHES:
        raise _unusable(certificate, f"is signed over {algorithm.name}")


def _check_leaf(leaf: x509.Certificate) -> None:
    """The signer may make digital signatures, of code where its uses are listed, with a key of the format's."""
    if not isinstance(leaf.public_key(), ec.EllipticCurvePublicKey):
        raise _unusable(leaf, "has no elliptic curve key")
    usage = _extension(leaf, x509.KeyUsage)
    if usage is None or not usage.digital_signature:
        raise _unusable(leaf, "has no digital-signature key usage")
    uses = _extension(leaf, x509.ExtendedKeyUsage)
    if uses is not None and not {ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & {
        *uses
    }:
        raise _unusable(leaf, "has extended key usages, and code signing is none of them")


def _check_issuer(issuer: x509.Certificate, below: Path) -> None:
    """An issuer is an authority, may sign certificates, and has no more authorities below it than it allows."""
    constraints = _extension(issuer, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise _unusable(issuer, "is not an authority (basic constraints)")
    usage = _extension(issuer, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise _unusable(issuer, "may not sign certificates (key usage)")
    authorities = sum(certificate.subject != certificate.issuer for certificate in below)
    if constraints.path_length is not None and authorities > constraints.path_length:
        raise _unusable(issuer, f"allows {constraints.path_length} authorities below it, not {authorities}")


def _extension(certificate: x509.Certificate, kind: type[Value]) -> Value | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _unusable(certificate: x509.Certificate, why: str) -> CertificateUnusable:
    return CertificateUnusable(f"the certificate {name(certificate)} {why}", certificate=name(certificate), why=why)
