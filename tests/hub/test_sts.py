"""What the hub asks of a token service other than SeaweedFS's, held against one that speaks AWS's protocol."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

import pytest

from lightkeeper.errors import SessionsUnavailable
from lightkeeper.hub.reach import Reach, policy
from lightkeeper.hub.sts import TokenService
from lightkeeper.providers.aws import Credentials

ROLE = "arn:aws:iam::123456789012:role/fleet"
EXPIRES = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
POLICY = policy(Reach("cam-1", "bucket", "lines/cam-1/"))


class AwsSts:
    """AWS's token service as far as the hub calls it: the query protocol, two actions, and a refusal."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.refusal = ""
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                service.asked.append({name: values[0] for name, values in form.items()})
                status, body = service.answer(service.asked[-1]["Action"])
                self.send_response(status)
                self.send_header("Content-Type", "text/xml")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, action: str) -> tuple[int, bytes]:
        """Return status and body of an answer."""
        namespace = 'xmlns="https://sts.amazonaws.com/doc/2011-06-15/"'
        if self.refusal:
            error = (
                f"<Error><Type>Sender</Type><Code>{self.refusal}</Code><Message>{escape('no & no')}</Message></Error>"
            )
            return 403, f"<ErrorResponse {namespace}>{error}<RequestId>1</RequestId></ErrorResponse>".encode()
        made = (
            "<Credentials><AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>"
            f"<SessionToken>token</SessionToken><Expiration>{EXPIRES:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials>"
        )
        result = f"<{action}Result>{made}</{action}Result>"
        return 200, f"<{action}Response {namespace}>{result}</{action}Response>".encode()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def aws() -> Iterator[AwsSts]:
    """A token service of its own for each test."""
    service = AwsSts()
    yield service
    service.close()


def tokens(aws: AwsSts) -> TokenService:
    """Return the hub's client of it."""
    return TokenService(Credentials("AKIAEXAMPLE", "secret"), region="eu-central-1", endpoint=aws.endpoint)


def test_the_fleets_role_is_assumed(aws: AwsSts) -> None:
    """With the policy inline, for an hour, under a name that says which device it is."""
    service = tokens(aws)
    made = service.session(POLICY, device="cam-1", fleet="lines", role_arn=ROLE)
    service.close()
    assert (made.access_key_id, made.secret_access_key, made.session_token) == ("ASIAEXAMPLE", "secret", "token")
    assert made.expires_ms == int(EXPIRES.timestamp() * 1000)
    (asked,) = aws.asked
    assert asked == {
        "Action": "AssumeRole",
        "Version": "2011-06-15",
        "RoleArn": ROLE,
        "RoleSessionName": "cam-1@lines",
        "Policy": POLICY,
        "DurationSeconds": "3600",
    }


def test_without_a_role_the_hubs_own_user_lends_its_rights(aws: AwsSts) -> None:
    """GetFederationToken, under the same policy."""
    service = tokens(aws)
    service.session(POLICY, device="cam-1", fleet="lines", role_arn=None)
    service.close()
    (asked,) = aws.asked
    assert (asked["Action"], asked["Name"], asked["Policy"]) == ("GetFederationToken", "cam-1@lines", POLICY)


@pytest.mark.parametrize(("role", "field", "longest"), [(ROLE, "RoleSessionName", 64), (None, "Name", 32)])
def test_names_fit_the_service(aws: AwsSts, role: str | None, field: str, longest: int) -> None:
    """A device's name may be one letter or sixty-three; the service wants two and takes less."""
    service = tokens(aws)
    for device in ("c", "c" * 63):
        service.session(POLICY, device=device, fleet="f" * 63, role_arn=role)
    service.close()
    assert [2 <= len(asked[field]) <= longest for asked in aws.asked] == [True, True]


def test_a_refusal_names_the_service_and_no_secret(aws: AwsSts) -> None:
    """What AWS said is in the message; the caller is asked to come back."""
    aws.refusal = "AccessDenied"
    service = tokens(aws)
    with pytest.raises(SessionsUnavailable, match=r"AccessDenied.*no & no") as refused:
        service.session(POLICY, device="cam-1", fleet="lines", role_arn=ROLE)
    service.close()
    assert "secret" not in refused.value.diagnostics()


@pytest.mark.parametrize(
    ("s3", "sts"),
    [
        ("https://s3.eu-central-1.amazonaws.com", "https://sts.eu-central-1.amazonaws.com"),
        ("https://S3.eu-central-1.AmazonAWS.com:443/", "https://sts.eu-central-1.amazonaws.com"),
        (None, "https://sts.eu-central-1.amazonaws.com"),
        ("http://10.0.0.7:8333", "http://10.0.0.7:8333"),
        ("https://s3.amazonaws.com.example.org", "https://s3.amazonaws.com.example.org"),
    ],
)
def test_the_token_service_is_beside_its_s3(s3: str | None, sts: str) -> None:
    """AWS has it at an address of its own; every other store that has one, at S3's."""
    service = TokenService(Credentials("AKIAEXAMPLE", "secret"), region="eu-central-1", endpoint=s3)
    assert service._client.meta.endpoint_url == sts
    service.close()
