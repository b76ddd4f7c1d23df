"""The token service of the S3 in use: makes temporary credentials for a device, bound by a session policy.

One way for SeaweedFS and AWS: AssumeRole where there is a role, GetFederationToken where there is none, both with the
policy inline, so that a session may do what the role (or the hub's own user) may *and* the policy says, no more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

from lightkeeper.errors import SessionsUnavailable
from lightkeeper.hub import clients
from lightkeeper.providers.aws import Credentials

SESSION_SECONDS = 3600
ROLE_SESSION_NAME, FEDERATED_NAME = 64, 32
"""The longest names the service takes."""


@dataclass(frozen=True, slots=True)
class Session:
    """Temporary credentials."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires_ms: int


class TokenService:
    """The token service of the S3 in use."""

    def __init__(
        self, credentials: Credentials | None, *, region: str, endpoint: str | None = None, role_arn: str | None = None
    ) -> None:
        """Take the hub's own key (None: boto3's usual chain), and S3's endpoint, where its token service is too.

        `role_arn` is the role of every session, whatever a fleet says; without one each fleet's own counts.
        """
        self._client = clients.client("sts", credentials, endpoint=_beside(endpoint), region=region)
        self._role_arn = role_arn

    def session(self, policy: str, *, device: str, fleet: str, role_arn: str | None) -> Session:
        """Return new credentials with a policy. Raises `SessionsUnavailable`."""
        role = self._role_arn or role_arn
        try:
            if role:
                answer = self._client.assume_role(
                    RoleArn=role,
                    RoleSessionName=f"{device}@{fleet}"[:ROLE_SESSION_NAME],
                    Policy=policy,
                    DurationSeconds=SESSION_SECONDS,
                )
            else:
                answer = self._client.get_federation_token(
                    Name=f"{device}@{fleet}"[:FEDERATED_NAME], Policy=policy, DurationSeconds=SESSION_SECONDS
                )
        except clients.faults() as error:
            raise SessionsUnavailable(
                f"the token service gives no session: {error}", device=device, cause=type(error).__name__
            ) from error
        made = answer["Credentials"]
        return Session(made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"], _ms(made["Expiration"]))

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()


def _beside(s3_endpoint: str | None) -> str | None:
    """Return where the token service of an S3 is: AWS's own is at an address that boto3 knows."""
    host = urlsplit(s3_endpoint or "").hostname or ""
    return None if host.endswith((".amazonaws.com", ".amazonaws.com.cn")) else s3_endpoint


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)
