"""Provider `Aws`: S3 and the fleet's service, with the credentials that the device's certificate is exchanged for.

It holds no other secret. Making it touches neither the network nor boto3.
"""

from __future__ import annotations

from lightkeeper.errors import ProviderUnusable
from lightkeeper.providers import tokenexchange
from lightkeeper.providers.aws import AwsStore
from lightkeeper.providers.awsfleet import AwsFleet
from lightkeeper.providers.base import ObjectStore, ProviderOptions
from lightkeeper.providers.fleet import Fleet
from lightkeeper.providers.report import Heartbeat, Registration
from lightkeeper.providers.session import DeviceSession


class AwsProvider:
    """See `Provider`."""

    takes_parts = True

    def __init__(self, options: ProviderOptions) -> None:
        """Take the device's certificate and the addresses. Raises `ProviderUnusable` without a certificate."""
        if options.certificate is None:
            raise ProviderUnusable("the provider Aws needs the device's certificate", given="Aws")
        device = options.device
        self._options = options
        self._session = DeviceSession(
            tokenexchange.exchange(options.certificate, device.thing_name), device.region or None
        )
        self._fleet = AwsFleet(self._session, device, endpoint=options.endpoint, s3_endpoint=options.s3_endpoint)

    def store(self, bucket: str) -> ObjectStore:
        """See `Provider.store`."""
        return AwsStore(
            bucket,
            region=self._options.device.region or None,
            endpoint=self._options.s3_endpoint,
            session=self._session.boto3,
            denied=self._session.renew,
        )

    def fleet(self) -> Fleet:
        """See `Provider.fleet`."""
        return self._fleet

    def registration(self) -> Registration:
        """See `Provider.registration`."""
        return self._fleet.registration()

    def send_heartbeat(self, heartbeat: Heartbeat) -> None:
        """See `Provider.send_heartbeat`."""
        self._fleet.send_heartbeat(heartbeat)

    def close(self) -> None:
        """See `Provider.close`; each client is closed after its request."""
