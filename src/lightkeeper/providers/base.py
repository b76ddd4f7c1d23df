"""What carries captures to a cloud: a store of objects under keys, as S3 is one.

A provider translates its library's faults: every method raises a `DeliveryFailed`, of which `ObjectRefused` alone says
that this very object will never be taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol


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
