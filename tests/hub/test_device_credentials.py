"""A device's own exchange of its certificate against a hub's endpoint, with a real token service behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from lightkeeper.errors import DestinationDenied
from lightkeeper.hub import certificates
from lightkeeper.hub.certificates import fingerprint
from lightkeeper.hub.database import Database
from lightkeeper.providers.base import DeviceCertificate
from lightkeeper.providers.exchange import CredentialExchange
from lightkeeper.providers.session import DeviceSession
from tests.support.certified import ALIAS, DEVICE, HOST, Certified, Held
from tests.support.seaweed import REGION, Seaweed


@pytest.fixture
def certified(seaweed: Seaweed, quick_folder: Path) -> Iterator[Certified]:
    """A hub's endpoint with one registered device."""
    database = Database(f"sqlite:///{quick_folder / 'hub.sqlite'}")
    with closing(Certified(quick_folder, database, seaweed.tokens())) as made:
        made.add_fleet()
        made.add_device()
        yield made


def exchange(certified: Certified, held: Held) -> CredentialExchange:
    """Return the exchange of a device that has this certificate."""
    endpoint = f"https://{HOST}:{certified.port}/role-aliases/{ALIAS}/credentials"
    return CredentialExchange(DeviceCertificate(endpoint, certified.ca, held.path, held.path), DEVICE)


def test_a_certificate_brings_what_boto3_signs_with_for_about_an_hour(certified: Certified) -> None:
    """Nothing but the certificate and its key proves the device."""
    asking = exchange(certified, certified.certify())
    got = asking.credentials()
    assert timedelta(minutes=10) < got.expiration - datetime.now(UTC) < timedelta(hours=2)
    held = DeviceSession(asking, REGION).boto3().get_credentials().get_frozen_credentials()
    assert held.token
    assert held.access_key.startswith("ASIA")


def test_a_certificate_revoked_in_mid_flight_is_denied_with_the_hubs_own_reason(certified: Certified) -> None:
    """What was good a moment ago is refused."""
    held = certified.certify()
    asking = exchange(certified, held)
    assert asking.credentials().access_key_id
    der = held.certificate.public_bytes(Encoding.DER)
    with certified.database.write() as connection:
        certificates.revoke(connection, [fingerprint(der)], certified.now_ms())
    with pytest.raises(DestinationDenied, match="revoked"):
        asking.credentials()


def test_a_certificate_that_ended_by_the_hubs_clock_is_denied(certified: Certified) -> None:
    """By the handshake: the hub need not look it up."""
    held = certified.certify(now=datetime.now(UTC) - timedelta(days=20 * 365))
    with pytest.raises(DestinationDenied, match="ended on"):
        exchange(certified, held).credentials()
