"""The exchange of a device's certificate for credentials, over real TLS and with a real S3 behind it."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import delete, func, select, update

from lightkeeper.hub import certificates
from lightkeeper.hub.audit import HOUR_MS, KEPT_DAYS, Entry, entries, tidy, write
from lightkeeper.hub.credentials import THING_HEADER
from lightkeeper.hub.database import Database
from lightkeeper.hub.reach import Object
from lightkeeper.hub.retention import sweep
from lightkeeper.hub.sessions import DeviceSessions
from lightkeeper.hub.settings import Settings
from lightkeeper.hub.sts import TokenService
from lightkeeper.hub.tables.fleet import DEVICES, FLEETS
from lightkeeper.hub.tables.identity import AUDIT, CERTIFICATES, SESSIONS
from lightkeeper.modelpackage.issuer import Issuer
from lightkeeper.providers.aws import Credentials
from tests.support.certified import ALIAS, DEVICE, FLEET, HOST, Certified, Held
from tests.support.postgres import Postgres
from tests.support.seaweed import Seaweed

CAPTURE = f"captures/{FLEET}/{DEVICE}/2026/11/24/10/batch.jsonl"


@pytest.fixture
def certified(seaweed: Seaweed, quick_folder: Path) -> Iterator[Certified]:
    """An endpoint with one fleet and one device."""
    certified = Certified(quick_folder, Database(f"sqlite:///{quick_folder / 'hub.sqlite'}"), seaweed.tokens())
    certified.add_fleet()
    certified.add_device()
    yield certified
    certified.close()


@pytest.fixture
def cut_off(tmp_path: Path) -> Iterator[Certified]:
    """The same, with a token service that nobody answers for."""
    nowhere = TokenService(
        Credentials("a", "b"), region="test-1", endpoint="http://127.0.0.1:9", role_arn="arn:aws:iam::0:role/r"
    )
    certified = Certified(tmp_path, Database(f"sqlite:///{tmp_path / 'hub.sqlite'}"), nowhere)
    certified.add_fleet()
    certified.add_device()
    yield certified
    certified.close()


def credentials_of(answer: Any) -> Credentials:
    """Return the credentials of an answer."""
    given = answer["credentials"]
    return Credentials(given["accessKeyId"], given["secretAccessKey"], given["sessionToken"])


def test_a_device_gets_credentials_that_work(certified: Certified, seaweed: Seaweed) -> None:
    """The answer has the four members that the old service's had, and S3 honours them for about an hour."""
    status, answer = certified.ask(certified.certify())
    assert status == 200
    assert set(answer) == {"credentials"}
    assert set(answer["credentials"]) == {"accessKeyId", "secretAccessKey", "sessionToken", "expiration"}
    expires = datetime.strptime(answer["credentials"]["expiration"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert timedelta(minutes=58) < expires - datetime.now(UTC) <= timedelta(minutes=60)
    s3 = seaweed.client(credentials_of(answer))
    s3.put_object(Bucket="lightkeeper", Key=CAPTURE, Body=b"{}")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.put_object(Bucket="lightkeeper", Key=f"captures/{FLEET}/cam-2/x", Body=b"{}")
    assert certified.audited() == {"CREDENTIALS_ISSUED": 1}


def test_boto_takes_the_answer_as_it_is(certified: Certified, seaweed: Seaweed) -> None:
    """Botocore's refreshable credentials do their bookkeeping with it."""
    from botocore.credentials import RefreshableCredentials

    held = certified.certify()

    def fetch() -> dict[str, str]:
        given = certified.ask(held)[1]["credentials"]
        return {
            "access_key": given["accessKeyId"],
            "secret_key": given["secretAccessKey"],
            "token": given["sessionToken"],
            "expiry_time": given["expiration"],
        }

    made = RefreshableCredentials.create_from_metadata(fetch(), fetch, "lightkeeper")
    assert made.refresh_needed() is False
    frozen = made.get_frozen_credentials()
    client = seaweed.client(Credentials(frozen.access_key, frozen.secret_key, frozen.token))
    client.put_object(Bucket="lightkeeper", Key=CAPTURE, Body=b"{}")


def test_a_device_that_asks_often_keeps_its_session(certified: Certified) -> None:
    """Asking is no way to make the hub work, until half of the session is over."""
    held = certified.certify()
    first = certified.ask(held)
    assert [certified.ask(held) for _ in range(5)] == [first] * 5
    certified.now += timedelta(minutes=29)
    assert certified.ask(held) == first
    certified.now += timedelta(minutes=2)
    status, second = certified.ask(held)
    assert (status, second != first[1]) == (200, True)
    assert certified.audited() == {"CREDENTIALS_ISSUED": 2}


def test_a_session_that_ended_is_dropped_with_the_next(certified: Certified) -> None:
    """The table holds what lives, and no more."""
    held = certified.certify()
    for _ in range(3):
        certified.ask(held)
        certified.now += timedelta(minutes=61)
    certified.now -= timedelta(minutes=61)
    with certified.database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(SESSIONS)) == 1


def test_the_hubs_own_sweep_drops_what_ended_and_what_is_old(certified: Certified) -> None:
    """The sessions of a device that never came back, and an audit from last year, are not kept for ever."""
    certified.ask(certified.certify())
    sweep(certified.database, Settings(), certified.now_ms())
    with certified.database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(SESSIONS)) == 1
    sweep(certified.database, Settings(), certified.now_ms() + 2 * HOUR_MS)
    with certified.database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(SESSIONS)) == 0
    assert certified.audited() == {"CREDENTIALS_ISSUED": 1}
    sweep(certified.database, Settings(), certified.now_ms() + (KEPT_DAYS * 24 + 1) * HOUR_MS)
    assert certified.audited() == {}


def test_a_new_deployment_is_reached_at_once(certified: Certified, seaweed: Seaweed) -> None:
    """What is deployed is part of the reach: the next session has it, and one without it again when it is withdrawn."""
    seaweed.client().put_object(Bucket="lightkeeper", Key="models/m-1.tar.gz", Body=b"package")
    held = certified.certify()
    before = certified.ask(held)[1]
    certified.packages.append(Object("lightkeeper", "models/m-1.tar.gz"))
    after = certified.ask(held)[1]
    with pytest.raises(ClientError, match="AccessDenied"):
        seaweed.client(credentials_of(before)).get_object(Bucket="lightkeeper", Key="models/m-1.tar.gz")
    got = seaweed.client(credentials_of(after)).get_object(Bucket="lightkeeper", Key="models/m-1.tar.gz")
    assert got["Body"].read() == b"package"
    certified.packages.clear()
    assert certified.ask(held)[1] == before


def deregister(certified: Certified) -> None:
    """Take the device out of its fleet."""
    with certified.database.write() as connection:
        connection.execute(delete(DEVICES))


def revoke(certified: Certified) -> None:
    """Revoke all certificates."""
    with certified.database.write() as connection:
        certificates.revoke(
            connection, list(connection.scalars(select(CERTIFICATES.c.fingerprint))), certified.now_ms()
        )


def close_alias(certified: Certified) -> None:
    """Close the fleet's role alias."""
    with certified.database.write() as connection:
        connection.execute(update(FLEETS).values(role_alias=False))


def rename_thing(certified: Certified) -> None:
    """Let the device be another thing."""
    with certified.database.write() as connection:
        connection.execute(update(DEVICES).values(thing="another"))


def forget(certified: Certified) -> None:
    """Forget every certificate, as a database from before would."""
    with certified.database.write() as connection:
        connection.execute(delete(CERTIFICATES))


def grow_old(certified: Certified) -> None:
    """Let the certificate end in the hub's eyes, before its TLS notices."""
    certified.now += timedelta(days=16 * 365)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (deregister, "DEVICE_UNREGISTERED"),
        (revoke, "DEVICE_CERTIFICATE_REVOKED"),
        (close_alias, "ROLE_ALIAS_CLOSED"),
        (rename_thing, "DEVICE_UNREGISTERED"),
        (forget, "DEVICE_CERTIFICATE_UNKNOWN"),
        (grow_old, "DEVICE_CERTIFICATE_EXPIRED"),
    ],
)
def test_what_ends_a_device_ends_its_credentials(
    certified: Certified, change: Callable[[Certified], None], reason: str
) -> None:
    """Whatever was true an hour ago, each call is judged anew: 403, with a reason and an audit line."""
    held = certified.certify()
    change(certified)
    status, answer = certified.ask(held)
    assert status == 403
    assert answer["message"].startswith("Access Denied")
    assert f"[{reason}]" in answer["message"]
    assert certified.audited() == {reason: 1}


def test_a_revoked_certificate_ends_its_session_with_the_hub_at_once(certified: Certified) -> None:
    """The data plane knows the session's key until the certificate is revoked, then no more."""
    held = certified.certify()
    given = credentials_of(certified.ask(held)[1])
    lookup = DeviceSessions(certified.database)
    key = lookup(given.access_key_id)
    assert key is not None
    assert (key.secret, key.token) == (given.secret_access_key, given.session_token)
    assert (key.caller.fleet, key.caller.device) == (FLEET, DEVICE)  # type: ignore[union-attr]  # a device's, as the next line would fail otherwise
    revoke(certified)
    assert lookup(given.access_key_id) is None
    assert lookup("ASIAUNKNOWN") is None


@pytest.mark.parametrize(
    "thing",
    [
        "cam-2",
        "CAM-1",
        "cam-1 ",
        "cam-1,cam-1",
        "cam%2D1",
        "cam-1\u00ad".encode(),
        "\u0441\u0430m-1".encode(),
        b"cam-1\xff",
        b"cam-1\x00",
        "",
        "a" * 4000,
        None,
    ],
    ids=ascii,
)
def test_no_other_name_is_taken_for_the_things(certified: Certified, thing: str | bytes | None) -> None:
    """The header must be the thing's name, letter for letter; what cannot be a header at all is refused before."""
    status, _ = certified.ask(certified.certify(), thing)
    if thing == "cam-1 ":  # HTTP drops the white space around a value
        assert status == 200
        return
    assert status in {400, 403}
    assert status == 400 or set(certified.audited()) == {"THING_MISMATCH"}


def test_two_names_in_two_headers_are_refused(certified: Certified) -> None:
    """Neither the first nor the last of them counts."""
    held = certified.certify()
    for first, second in ((DEVICE, "cam-2"), ("cam-2", DEVICE), (DEVICE, DEVICE)):
        assert certified.ask(held, first, headers={"X-Amzn-IoT-Thingname": second})[0] == 403
    assert certified.audited() == {"THING_MISMATCH": 3}


def test_another_devices_certificate_is_no_good(certified: Certified) -> None:
    """A device cannot ask in another's name, whichever of both names it gives."""
    certified.add_device("cam-2")
    other = certified.certify("cam-2")
    assert certified.ask(other, DEVICE)[0] == 403
    assert certified.ask(other, "cam-2")[0] == 200


def test_a_device_of_the_same_name_in_another_fleet_is_another_device(certified: Certified) -> None:
    """Names are unique within a fleet alone; a certificate is good for the fleet it was made for."""
    certified.add_fleet("towers")
    certified.add_device(DEVICE, fleet="towers")
    status, answer = certified.ask(certified.certify(), alias="SageMakerEdge-towers")
    assert (status, "[DEVICE_UNREGISTERED]" in answer["message"]) == (403, True)


def test_a_thing_may_have_another_name_than_its_device(certified: Certified, seaweed: Seaweed) -> None:
    """The header and the certificate name the thing, the prefix in S3 the device."""
    certified.add_device("cam-9", thing="thing:9")
    status, answer = certified.ask(certified.certify("thing:9"), "thing:9")
    assert status == 200
    s3 = seaweed.client(credentials_of(answer))
    s3.put_object(Bucket="lightkeeper", Key=f"captures/{FLEET}/cam-9/x", Body=b"{}")


@pytest.mark.parametrize("alias", ["SageMakerEdge-nobody", "lines", "SageMakerEdge-", "SageMakerEdge-lines-"])
def test_an_unknown_alias_is_not_found(certified: Certified, alias: str) -> None:
    """404, and an audit line."""
    status, answer = certified.ask(certified.certify(), alias=alias)
    assert (status, "[ROLE_ALIAS_UNKNOWN]" in answer["message"]) == (404, True)
    assert certified.audited() == {"ROLE_ALIAS_UNKNOWN": 1}


@pytest.mark.parametrize(
    "path",
    [
        "/",
        f"/role-aliases/{ALIAS}",
        f"/role-aliases/{ALIAS}/credentials/",
        f"//role-aliases/{ALIAS}/credentials",
        "/role-aliases//credentials",
        "/role-aliases/SageMakerEdge%2Dlines/credentials",
        f"/role-aliases/{'a' * 129}/credentials",
        f"/role-aliases/x/../{ALIAS}/credentials",
    ],
)
def test_other_paths_are_not_found(certified: Certified, path: str) -> None:
    """The endpoint has one address, taken as it is written."""
    assert certified.ask(certified.certify(), path=path)[0] == 404


def test_other_methods_are_not_allowed(certified: Certified) -> None:
    """GET alone."""
    assert certified.ask(certified.certify(), method="POST", headers={"Content-Length": "0"})[0] == 405


def test_who_shows_no_certificate_is_told_so(certified: Certified) -> None:
    """The handshake passes, so that the refusal can be read: 403 in words."""
    status, answer = certified.ask(None)
    assert (status, "[DEVICE_CERTIFICATE_ABSENT]" in answer["message"]) == (403, True)
    assert certified.audited() == {"DEVICE_CERTIFICATE_ABSENT": 1}


def expect_failed_handshake(certified: Certified, held: Held) -> None:
    """Ask, and expect that TLS fails and the audit says so."""
    with pytest.raises((ssl.SSLError, ConnectionError)):
        certified.ask(held)
    expect_audited_handshake(certified)


def expect_audited_handshake(certified: Certified) -> None:
    """Expect that a failed handshake comes into the audit."""
    deadline = datetime.now(UTC) + timedelta(seconds=30)
    while "HANDSHAKE_FAILED" not in certified.audited():
        assert datetime.now(UTC) < deadline


def test_a_certificate_of_another_authority_with_the_same_names_fails(certified: Certified) -> None:
    """Names prove nothing: the chain must end in the hub's own key."""
    imitation = Issuer.root("Lightkeeper certified devices", certified.now, 10)
    expect_failed_handshake(certified, certified.certify(issuer=imitation))


def test_a_certificate_that_signed_itself_fails(certified: Certified) -> None:
    """So does one that is its own authority, even if it were on record."""
    imitation = Issuer.root(DEVICE, certified.now, 10)
    expect_failed_handshake(certified, certified.certify(issuer=imitation, on_record=True))


def test_an_expired_certificate_fails(certified: Certified) -> None:
    """TLS itself holds the certificate against the clock."""
    expect_failed_handshake(certified, certified.certify(now=certified.now - timedelta(days=16 * 365)))


def test_a_device_certificate_cannot_sign_another(certified: Certified) -> None:
    """A device is no authority: what it signs is refused, with its own certificate in the chain."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    device = certified.certify()
    key = load_pem_private_key(device.path.read_bytes(), None)
    below = certified.certify(issuer=Issuer(device.certificate, key))  # type: ignore[arg-type]  # the kind this file has
    below.path.write_bytes(below.path.read_bytes() + device.certificate.public_bytes(Encoding.PEM))
    expect_failed_handshake(certified, below)


def test_old_tls_fails(certified: Certified) -> None:
    """TLS 1.1 is not spoken."""
    context = certified.tls(certified.certify())
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", certified.port), timeout=30) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname=HOST)
    expect_audited_handshake(certified)


def test_the_listeners_certificate_is_renewed_while_it_serves(
    certified: Certified, caplog: pytest.LogCaptureFixture
) -> None:
    """A hub that nobody starts anew for years goes on being trusted; where nothing is due, nothing changes."""

    def shown() -> x509.Certificate:
        return x509.load_pem_x509_certificate(ssl.get_server_certificate((HOST, certified.port)).encode())

    first = shown()
    with caplog.at_level("INFO", logger="lightkeeper"):
        certified.listener_tls.renew()
        assert shown() == first
        certified.now += timedelta(days=400)
        certified.listener_tls.renew()
    second = shown()
    second.verify_directly_issued_by(certified.issuer.certificate)
    assert second.not_valid_after_utc - first.not_valid_after_utc > timedelta(days=399)
    assert [record.message for record in caplog.records].count("listener_certificate_renewed") == 1
    assert not list(certified.folder.glob(".listener*"))


def test_handshakes_that_are_never_finished_stand_in_nobodys_way(certified: Certified) -> None:
    """Fifty clients that connect and say nothing leave the endpoint answering."""
    held = certified.certify()
    silent = [socket.create_connection(("127.0.0.1", certified.port)) for _ in range(50)]
    try:
        assert certified.ask(held)[0] == 200
    finally:
        for one in silent:
            one.close()


def test_a_recorded_exchange_is_of_no_use_to_who_recorded_it(certified: Certified) -> None:
    """Bytes of a device's connection, sent again, come to no session: TLS is never the same twice."""
    held = certified.certify()
    sent: list[bytes] = []
    relay = socket.create_server(("127.0.0.1", 0))

    def listen_in() -> None:
        near, _ = relay.accept()
        with near, socket.create_connection(("127.0.0.1", certified.port)) as far:

            def back() -> None:
                with suppress(OSError):
                    while data := far.recv(65536):
                        near.sendall(data)

            answers = Thread(target=back)
            answers.start()
            while data := near.recv(65536):
                sent.append(data)
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)
            answers.join()

    listener = Thread(target=listen_in)
    listener.start()
    lines = (
        f"GET /role-aliases/{ALIAS}/credentials HTTP/1.1",
        "Host: h",
        "Connection: close",
        f"{THING_HEADER}: {DEVICE}",
    )
    request = "".join(f"{line}\r\n" for line in (*lines, ""))
    with (
        socket.create_connection(relay.getsockname()) as plain,
        certified.tls(held).wrap_socket(plain, server_hostname=HOST) as tls,
    ):
        tls.sendall(request.encode())
        assert b"accessKeyId" in b"".join(iter(lambda: tls.recv(65536), b""))
    listener.join()
    relay.close()
    assert certified.audited() == {"CREDENTIALS_ISSUED": 1}
    with socket.create_connection(("127.0.0.1", certified.port), timeout=30) as again:
        again.sendall(b"".join(sent))
        received = b""
        with suppress(OSError):
            while data := again.recv(65536):
                received += data
    assert b"accessKeyId" not in received
    assert certified.audited()["CREDENTIALS_ISSUED"] == 1


def test_two_processes_on_one_postgresql_are_one_hub(seaweed: Seaweed, postgres: Postgres, tmp_path: Path) -> None:
    """What one issued the other knows, gives again and refuses; what both refuse is one row of the audit."""
    url = postgres.database()
    hubs = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        hubs.append(Certified(tmp_path / name, Database(url), seaweed.tokens()))
    one, other = hubs
    try:
        one.add_fleet()
        one.add_device()
        held = one.certify()
        first = one.ask(held)
        assert first[0] == 200
        assert other.ask(held) == first
        assert DeviceSessions(other.database)(credentials_of(first[1]).access_key_id) is not None
        revoke(one)
        assert [hub.ask(held)[0] for hub in (one, other, one)] == [403, 403, 403]
        assert DeviceSessions(other.database)(credentials_of(first[1]).access_key_id) is None
        assert other.audited() == {"CREDENTIALS_ISSUED": 1, "DEVICE_CERTIFICATE_REVOKED": 3}
        with other.database.write() as connection:
            tidy(connection, other.now_ms() + KEPT_DAYS * 24 * HOUR_MS + HOUR_MS)
        assert one.audited() == {}
    finally:
        one.close()
        other.close()


def test_while_the_token_service_is_away_devices_are_asked_to_come_back(cut_off: Certified) -> None:
    """503, which every client tries again, and no word of it in the audit but the reason."""
    status, answer = cut_off.ask(cut_off.certify())
    assert (status, "[SESSIONS_UNAVAILABLE]" in answer["message"]) == (503, True)
    assert cut_off.audited() == {"SESSIONS_UNAVAILABLE": 1}


def test_while_the_token_service_is_away_a_session_serves_on(seaweed: Seaweed, tmp_path: Path) -> None:
    """A device that has a session gets it again until five minutes before its end."""
    certified = Certified(tmp_path, Database(f"sqlite:///{tmp_path / 'hub.sqlite'}"), seaweed.tokens())
    try:
        certified.add_fleet()
        certified.add_device()
        held = certified.certify()
        first = certified.ask(held)
        certified.endpoint._tokens = TokenService(
            Credentials("a", "b"), region="r", endpoint="http://127.0.0.1:9", role_arn="arn:aws:iam::0:role/r"
        )
        certified.now += timedelta(minutes=54)
        assert certified.ask(held) == first
        certified.now += timedelta(minutes=2)
        assert certified.ask(held)[0] == 503
    finally:
        certified.close()


def test_a_fault_of_the_hub_is_told_without_its_details(certified: Certified, caplog: pytest.LogCaptureFixture) -> None:
    """The device gets a fixed text; the log has the rest."""
    held = certified.certify()
    certified.packages = None  # type: ignore[assignment]  # a fault that nobody foresaw
    with caplog.at_level(logging.ERROR):
        assert certified.ask(held) == (500, {"message": "Internal Server Error"})
    assert "TypeError" in caplog.text


def test_neither_audit_nor_log_has_a_credential(certified: Certified, caplog: pytest.LogCaptureFixture) -> None:
    """Fingerprints, names and reasons; no key, secret, token or PEM."""
    held = certified.certify()
    with caplog.at_level(logging.DEBUG, logger="lightkeeper"):
        given = credentials_of(certified.ask(held)[1])
        certified.ask(held, "cam-2")
        certified.ask(None)
    with certified.database.read() as connection:
        audited = " ".join(str(row) for row in entries(connection))
    logged = " ".join(str(record.__dict__) for record in caplog.records)
    for secret in (given.secret_access_key, str(given.session_token), "BEGIN "):
        assert secret not in audited
        assert secret not in logged
    assert certificates.fingerprint(held.certificate.public_bytes(Encoding.DER)) in audited


def test_what_repeats_is_counted_and_what_is_old_is_dropped(certified: Certified) -> None:
    """An attacker who asks a thousand times makes one row an hour."""
    with certified.database.write() as connection:
        for attempt in range(1000):
            write(connection, Entry("THING_MISMATCH", "192.0.2.1", thing=f"guess-{attempt}\n"), certified.now_ms())
        write(connection, Entry("THING_MISMATCH", "192.0.2.1"), certified.now_ms() + HOUR_MS)
        rows = list(entries(connection))
        assert [row.count for row in rows] == [1, 1000]
        assert rows[1].thing == "guess-999?"
        tidy(connection, certified.now_ms() + KEPT_DAYS * 24 * HOUR_MS + 1)
        assert [row.count for row in entries(connection)] == [1]
        assert connection.scalar(select(func.count()).select_from(AUDIT)) == 1
