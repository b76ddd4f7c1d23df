"""What joins a device to its cloud: a provider, and the store of objects that captures go to, as S3 is one.

A provider translates its library's faults: every method raises a `DeliveryFailed`, of which `ObjectRefused` alone says
that this very object will never be taken.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lightkeeper.device import DeviceIdentity
from lightkeeper.providers.fleet import Fleet
from lightkeeper.providers.report import Heartbeat, Registration
from lightkeeper.tokenkey import KeyAddress

HASH_PIECE_BYTES = 256 * 1024


class Body(Protocol):
    """The bytes of one request, which can be read more than once."""

    size_bytes: int

    def md5(self) -> bytes:
        """Return the MD5 of all bytes, by which the store checks what it receives."""

    def read(self, amount: int = -1, /) -> bytes:
        """Return further bytes, as many as `amount` or fewer, none at the end."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place, as a file does."""

    def tell(self) -> int:
        """Return the place."""

    def start_sending(self) -> None:
        """Say that what is read from now on goes over the network."""


class RewindableBody:
    """What bodies have in common that are read from a place of their own: see `Body`."""

    size_bytes: int
    _place = 0

    def md5(self) -> bytes:
        """Return the MD5 of all bytes."""
        digest = hashlib.md5(usedforsecurity=False)  # what stores check transfers by
        self.seek(0)
        while piece := self.read(HASH_PIECE_BYTES):
            digest.update(piece)
        self.seek(0)
        return digest.digest()

    def read(self, amount: int = -1, /) -> bytes:
        """Return further bytes, none at the end, and move the place on."""
        raise NotImplementedError

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place, as a file does."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size_bytes}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        """Return the place."""
        return self._place


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What the store says of an object."""

    size_bytes: int
    etag: str
    metadata: Mapping[str, str]


class ObjectStore(Protocol):
    """A bucket. One thread uses it. Every method raises a `DeliveryFailed`."""

    def put(self, key: str, body: Body, *, content_type: str, metadata: Mapping[str, str]) -> str:
        """Store an object whole, in place of what the key had, and return its ETag."""

    def look(self, key: str) -> StoredObject | None:
        """Return what lies under a key, or None."""

    def begin_upload(self, key: str, *, content_type: str, metadata: Mapping[str, str]) -> str:
        """Begin an object that comes in parts, and return the upload's id."""

    def put_part(self, key: str, upload: str, number: int, body: Body) -> str | None:
        """Store a part, counted from 1, and return its ETag, or None where the upload is gone."""

    def finish_upload(self, key: str, upload: str, etags: list[str]) -> str | None:
        """Make the object of its parts and return its ETag, or None where the upload is gone."""

    def abort_upload(self, key: str, upload: str) -> None:
        """Drop an upload and its parts; one that is gone is dropped already."""

    def unfinished_uploads(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield key and id of each upload that was begun under a prefix and not finished."""

    def close(self) -> None:
        """Let go of the connections."""


@dataclass(frozen=True, slots=True)
class DeviceCertificate:
    """How a device proves who it is: where its certificate is exchanged for credentials, and what it has for that."""

    endpoint: str
    ca_file: Path
    certificate_file: Path
    key: Path | KeyAddress
    """The private key: a file, or where it lies in a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderOptions:
    """What a provider is made of. Addresses of None are the region's own."""

    device: DeviceIdentity
    certificate: DeviceCertificate | None = None
    endpoint: str | None = None
    """The service that takes heartbeats and gives deployments."""
    s3_endpoint: str | None = None
    library: Path | None = None
    """The shared object of a Custom provider."""
    configuration: Mapping[str, str] = field(default_factory=dict)
    """Every key of the configuration that has a value, as a file would have it."""


class Provider(Protocol):
    """Who carries data between the device and its cloud. Any thread may call; making one touches no network.

    Every method raises a `DeliveryFailed` for what may pass by itself, and answers without one soon: a cloud that is
    away is known to be for a while, and is not asked at each call.
    """

    takes_parts: bool
    """Whether large objects may go up in parts; where not, a store is asked for `put` alone, and has no uploads."""

    def store(self, bucket: str) -> ObjectStore:
        """Return a bucket, for one thread to use. Raises `CloudAbsent` where the provider has no cloud."""

    def fleet(self) -> Fleet | None:
        """Return who gives deployments, for one thread to use, or None where nobody does."""

    def registration(self) -> Registration | None:
        """Ask whether the device is registered; None where nobody registers devices."""

    def send_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Report to the fleet; the fleet has it, its deployment's result too, when this returns."""

    def close(self) -> None:
        """Let go of connections; called once, when no other method is under way."""
