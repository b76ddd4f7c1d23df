"""The hub's two certificate authorities, in its database, so that every process of the hub can sign.

One signs devices' certificates and the hub's own for the listener where devices come for credentials; the other is
`modelpackage.authority`: the root that devices trust for packages, and the signer that signs them.

How long: a device's certificate as long as the device (`DEVICE_YEARS`), for nobody is there to change it and the hub
looks up at every use whether it was revoked; the hub's own `SERVER_YEARS`, renewed with `RENEWAL_DAYS` left
(`listenertls.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from lightkeeper.errors import SigningRequestUnusable
from lightkeeper.hub import secret
from lightkeeper.hub.database import Database
from lightkeeper.modelpackage import authority as packages
from lightkeeper.modelpackage.issuer import Issuer, Subject, SubjectKey, new_key

CA_YEARS = 30
DEVICE_YEARS = 15
SERVER_YEARS = 2
RENEWAL_DAYS = 365

RSA_BITS = range(2048, 8193)
CURVES = ("secp256r1", "secp384r1", "secp521r1")
REQUEST_BYTES = 64 * 1024
"""The largest signing request that is read."""

_DEVICES, _PACKAGES, _SERVER = "device-authority", "package-authority", "credentials-listener"


@dataclass(frozen=True, slots=True)
class PackageAuthority:
    """What signs packages, in PEM: the signer's key and certificate, and the root that devices trust."""

    key: str = field(repr=False)
    certificates: str
    root: str


def devices(database: Database, now: datetime) -> Issuer:
    """Return the authority of devices' certificates; it is made where there is none."""

    def make() -> str:
        return _stored(Issuer.root("Lightkeeper hub devices", now, CA_YEARS))

    return _issuer(secret.made_once(database, _DEVICES, make, _ms(now)))


def package_authority(database: Database, region: str, now: datetime) -> PackageAuthority:
    """Return the authority of packages; it is made where there is none. The root's own key is kept, and not used."""

    def make() -> str:
        root, signer = packages.make(region, now)
        return json.dumps({"root": _stored(root), "signer": _stored(signer)})

    made = json.loads(secret.made_once(database, _PACKAGES, make, _ms(now)))
    root, signer = _issuer(made["root"]), _issuer(made["signer"])
    return PackageAuthority(signer.key_pem.decode(), signer.certificate_pem.decode(), root.certificate_pem.decode())


def sign_device(issuer: Issuer, thing: str, key: SubjectKey, now: datetime) -> x509.Certificate:
    """Return the certificate of a device: its common name is the thing's, its one purpose to be a TLS client."""
    return issuer.sign(Subject(thing, key, (ExtendedKeyUsageOID.CLIENT_AUTH,)), now, DEVICE_YEARS)


def requested_key(data: bytes) -> SubjectKey:
    """Return the key that a signing request (PEM) asks to have signed; what else it asks for is not looked at.

    Raises `SigningRequestUnusable` unless it is signed with that key, and the key is of `CURVES` or `RSA_BITS`.
    """
    try:
        request = x509.load_pem_x509_csr(data[:REQUEST_BYTES])
        genuine = request.is_signature_valid
        key = request.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise SigningRequestUnusable(f"this is no certificate signing request in PEM: {error}") from error
    if not genuine:
        raise SigningRequestUnusable("the request is not signed with the key it names")
    match key:
        case ec.EllipticCurvePublicKey() if key.curve.name in CURVES:
            return key
        case rsa.RSAPublicKey() if key.key_size in RSA_BITS:
            return key
        case ec.EllipticCurvePublicKey():
            given = f"the curve {key.curve.name}"
        case rsa.RSAPublicKey():
            given = f"RSA of {key.key_size} bits"
        case _:
            given = type(key).__name__.removesuffix("PublicKey")
    allowed = f"{', '.join(CURVES)}, RSA of {RSA_BITS[0]} to {RSA_BITS[-1]} bits"
    raise SigningRequestUnusable(f"the request's key is {given}", given=given, allowed=allowed)


def listener(database: Database, hosts: Sequence[str], now: datetime) -> Issuer:
    """Return the listener's certificate with its key: the one there was, while it lasts and names every host."""
    issuer = devices(database, now)
    found = secret.find(database, _SERVER)
    if found is not None:
        kept = json.loads(found)
        held = _issuer(kept["held"])
        lasts = held.certificate.not_valid_after_utc - now > timedelta(days=RENEWAL_DAYS)
        if lasts and kept["hosts"] == sorted(hosts) and held.certificate.issuer == issuer.certificate.subject:
            return held
    key = new_key()
    name = next(iter(sorted(hosts)), "lightkeeper-hub")
    subject = Subject(name, key.public_key(), (ExtendedKeyUsageOID.SERVER_AUTH,), tuple(sorted(hosts)))
    made = Issuer(issuer.sign(subject, now, SERVER_YEARS), key)
    secret.replace(database, _SERVER, json.dumps({"held": _stored(made), "hosts": sorted(hosts)}), _ms(now))
    return made


def _stored(issuer: Issuer) -> str:
    return json.dumps({"certificate": issuer.certificate_pem.decode(), "key": issuer.key_pem.decode()})


def _issuer(text: str) -> Issuer:
    stored = json.loads(text)
    return Issuer.from_pem(stored["certificate"].encode(), stored["key"].encode())


def _ms(now: datetime) -> int:
    return int(now.timestamp() * 1000)
