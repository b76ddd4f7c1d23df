"""The S3 in use: SeaweedFS of the hub's own, or one that is there; with the hub's own key to it and its token service.

A hub's own SeaweedFS is run by one process. Others of the same hub are told its address as they would be told any; that
it is the hub's own they see in the database, which has the keys to it. For every other S3 the keys come from where
boto3 looks for them.
"""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from lightkeeper.hub import secret
from lightkeeper.hub.database import Database
from lightkeeper.hub.keys import OperatorKey
from lightkeeper.hub.sts import TokenService
from lightkeeper.hub.weed import Weed
from lightkeeper.hub.weedaccess import DEVICE_ROLE_ARN, Access
from lightkeeper.objects import Objects
from lightkeeper.providers.aws import Credentials

_KEYS = "object-store-keys"
_OWN_ENDPOINT = "object-store-endpoint"


@dataclass(frozen=True, slots=True)
class Store:
    """Where objects are, and how the hub gets at them."""

    endpoint: str
    region: str
    credentials: Credentials | None
    tokens: TokenService

    @property
    def objects(self) -> Objects:
        """The hub's own access."""
        return Objects(self.endpoint, self.region, self.credentials)


@dataclass(frozen=True, slots=True)
class Stores:
    """How this hub's processes come by their S3."""

    database: Database
    region: str
    operator: OperatorKey
    now_ms: int

    def own(self, folder: Path, address: str) -> tuple[Weed, Store]:
        """Start SeaweedFS, and return it with the store. Raises `ObjectStoreFailed`, `ExtraMissing`."""
        weed = Weed(folder, self._access(), address=address, region=self.region).start().wait_until_ready()
        secret.replace(self.database, _OWN_ENDPOINT, weed.endpoint, self.now_ms)
        return weed, self._of_own(weed.endpoint)

    def at(self, endpoint: str) -> Store:
        """Return the store at an address."""
        if secret.find(self.database, _OWN_ENDPOINT) == endpoint:
            return self._of_own(endpoint)
        return Store(endpoint, self.region, None, TokenService(None, region=self.region, endpoint=endpoint))

    def _of_own(self, endpoint: str) -> Store:
        access = self._access()
        tokens = TokenService(access.assumer, region=self.region, endpoint=endpoint, role_arn=DEVICE_ROLE_ARN)
        return Store(endpoint, self.region, access.operators[0], tokens)

    def _access(self) -> Access:
        kept = json.loads(secret.made_once(self.database, _KEYS, _new_keys, self.now_ms))
        operator = Credentials(self.operator.access_key_id, self.operator.secret_access_key)
        return Access([operator], Credentials(kept["assumer_id"], kept["assumer_secret"]), kept["signing_key"])


def _new_keys() -> str:
    signing_key = base64.b64encode(secrets.token_bytes(32)).decode()
    assumer = {"assumer_id": f"LKST{secrets.token_hex(8).upper()}", "assumer_secret": secrets.token_urlsafe(30)}
    return json.dumps({**assumer, "signing_key": signing_key})
