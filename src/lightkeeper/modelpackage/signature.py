"""Making signatures: the OpenSSF Model Signing v1.0 bundle of a package, signed with an X.509 certificate's key.

Its counterpart is `trust.verify`. Clauses marked § are those of the Model Signing specification v1.0.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lightkeeper.errors import SignerUnusable
from lightkeeper.modelpackage.certificate import CertificateUnreadable, from_pem

FILE_NAME = "model.sig"
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"

KEY_FILE_NAME = "signer.key"
CERTIFICATE_FILE_NAME = "signer.pem"


def pae(payload: bytes) -> bytes:
    """Return what is signed of a payload: DSSE's pre-authentication encoding of it and its type."""
    return b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def curve_hash(curve: ec.EllipticCurve) -> hashes.HashAlgorithm | None:
    """Return the hash that goes with a curve (§4.2), or None for a curve that the format does not have."""
    match curve:
        case ec.SECP256R1():
            return hashes.SHA256()
        case ec.SECP384R1():
            return hashes.SHA384()
        case ec.SECP521R1():
            return hashes.SHA512()
    return None


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key with its certificate, and the certificates between that and the root."""

    key: ec.EllipticCurvePrivateKey
    certificates: tuple[x509.Certificate, ...]

    @classmethod
    def load(cls, folder: Path) -> Signer:
        """Read `signer.key` and `signer.pem` (the signer's certificate first, then its issuers without the root).

        Raises `SignerUnusable`.
        """
        key_path, certificate_path = folder / KEY_FILE_NAME, folder / CERTIFICATE_FILE_NAME
        contents = []
        for path in (key_path, certificate_path):
            try:
                contents.append(path.read_bytes())
            except OSError as error:
                raise SignerUnusable(f"{path} cannot be read: {error.strerror}", file=path) from error
        return cls.parse(*contents, key_name=str(key_path), certificate_name=str(certificate_path))

    @classmethod
    def parse(
        cls, key_pem: bytes, certificates_pem: bytes, *, key_name: str = "the key", certificate_name: str = "the chain"
    ) -> Signer:
        """Take the content of `signer.key` and `signer.pem`; the names are for the errors.

        Raises `SignerUnusable`.
        """
        try:
            key = serialization.load_pem_private_key(key_pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise SignerUnusable(f"{key_name} is not a private key that can be read: {error}", file=key_name) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or curve_hash(key.curve) is None:
            raise SignerUnusable(f"{key_name} is not a key of the curve P-256, P-384 or P-521", file=key_name)
        try:
            certificates = from_pem(certificates_pem)
        except CertificateUnreadable as error:
            raise SignerUnusable(f"{certificate_name} is no certificate: {error}", file=certificate_name) from error
        if certificates[0].public_key() != key.public_key():
            raise SignerUnusable(
                f"the first certificate in {certificate_name} is not that of {key_name}", file=certificate_name
            )
        return cls(key, tuple(certificates))

    def bundle(self, model_name: str, digests: Mapping[str, str]) -> bytes:
        """Return `model.sig` for files with these SHA-256 digests (hexadecimal), by name.

        The same input gives the same bytes where the cryptographic library can sign deterministically (RFC 6979).
        """
        resources = [{"name": name, "algorithm": "sha256", "digest": digests[name]} for name in sorted(digests)]
        row = b"".join(bytes.fromhex(digests[name]) for name in sorted(digests))  # §6.5.1
        statement = {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": model_name, "digest": {"sha256": hashlib.sha256(row).hexdigest()}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "serialization": {
                    "method": "files",
                    "hash_type": "sha256",
                    "allow_symlinks": False,
                    "ignore_paths": [FILE_NAME],  # the signature lies in the folder that it signs (§9)
                },
                "resources": resources,
            },
        }
        payload = json.dumps(statement, ensure_ascii=False, sort_keys=True).encode()
        chain = [{"rawBytes": _base64(_der(certificate))} for certificate in self.certificates]
        bundle = {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {"x509CertificateChain": {"certificates": chain}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": _base64(payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": _base64(self._sign(pae(payload))), "keyid": ""}],
            },
        }
        return json.dumps(bundle).encode()

    def _sign(self, data: bytes) -> bytes:
        algorithm = curve_hash(self.key.curve)
        assert algorithm is not None  # noqa: S101  # `load` has refused every other curve
        try:
            return self.key.sign(data, ec.ECDSA(algorithm, deterministic_signing=True))
        except UnsupportedAlgorithm:
            return self.key.sign(data, ec.ECDSA(algorithm))


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
