"""Objects in S3, for the hub's jobs and for publishing: addresses, read strictly, and whole files fetched and put.

A put is whole or not at all: one request, or parts that become an object when the last is there; what an attempt that
died left of parts is dropped by the next one for the same key. Each object carries the metadata it is put with, by
which a later attempt knows its own. What goes wrong is said of an object, not of a device's captures.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lightkeeper import errors
from lightkeeper.modelpackage.limits import Limits
from lightkeeper.providers.aws import AwsStore, Credentials
from lightkeeper.providers.base import RewindableBody, StoredObject

PART_BYTES = 64 * 1024 * 1024
"""The size of a part, and the largest object that is put in one request."""

KEY_MAXIMUM_BYTES = 1024
_SCHEME = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")

Advance = Callable[[int], None]
"""Told of bytes as they go; what it raises ends the transfer."""


@dataclass(frozen=True, slots=True)
class Address:
    """A bucket and a key, or the beginning of keys."""

    bucket: str
    key: str

    def __str__(self) -> str:
        """Return the address as the API has it."""
        return f"{_SCHEME}{self.bucket}/{self.key}"

    @property
    def file_name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @classmethod
    def parse(cls, uri: str) -> Address:
        """Read the address of an object. Raises `ObjectAddressInvalid`."""
        address = cls.parse_prefix(uri)
        if not address.file_name:
            raise _invalid(uri, "it names no object")
        return address

    @classmethod
    def parse_prefix(cls, uri: str) -> Address:
        """Read the address of a place for objects: the key may be empty. Raises `ObjectAddressInvalid`."""
        if not uri.startswith(_SCHEME):
            raise _invalid(uri, f"it does not begin with {_SCHEME}")
        bucket, _, key = uri.removeprefix(_SCHEME).partition("/")
        if not _BUCKET.fullmatch(bucket) or ".." in bucket:
            raise _invalid(uri, "its bucket is no bucket's name")
        parts = key.split("/")
        if not {".", ".."}.isdisjoint(parts) or "" in parts[:-1]:
            raise _invalid(uri, "its key has an empty part, . or ..")
        if not key.isprintable() or "?" in key or "#" in key or "\\" in key:
            raise _invalid(uri, "its key has a character that is not taken here")
        if len(key.encode()) > KEY_MAXIMUM_BYTES:
            raise _invalid(uri, f"its key has more than {KEY_MAXIMUM_BYTES} bytes")
        return cls(bucket, key)

    def below(self, name: str) -> Address:
        """Return the address of an object of this name at this place."""
        key = f"{self.key.rstrip('/')}/{name}" if self.key else name
        return Address.parse(str(Address(self.bucket, key)))


@dataclass(frozen=True, slots=True)
class Objects:
    """Where the objects are: an S3, and the key to it. Every method raises a `JobFailed`."""

    endpoint: str | None
    region: str | None
    credentials: Credentials | None = None
    part_bytes: int = PART_BYTES

    def look(self, address: Address) -> StoredObject | None:
        """Return what lies there, or None."""
        with self._store(address) as store:
            return store.look(address.key)

    def fetch(self, address: Address, path: Path, *, limit_bytes: int, advance: Advance = lambda _: None) -> None:
        """Bring an object into a new file. Also raises `ObjectTooLarge` and `DiskShort`."""
        with self._store(address) as store:
            download = store.stream(address.key)
            if download is None:
                raise errors.ObjectMissing(f"there is no object {address}", uri=address)
            if download.size_bytes > limit_bytes:
                raise errors.ObjectTooLarge(
                    f"{address} has {download.size_bytes} bytes, and {limit_bytes} are the most",
                    uri=address,
                    expected=limit_bytes,
                    given=download.size_bytes,
                )
            _require_room(path.parent, download.size_bytes)
            got_bytes = 0
            with path.open("xb") as file:
                for piece in download.pieces:
                    got_bytes += len(piece)
                    if got_bytes > download.size_bytes:
                        break
                    file.write(piece)
                    advance(len(piece))
            if got_bytes != download.size_bytes:
                raise errors.ObjectStoreUnreachable(
                    f"{address} came with {got_bytes} of its {download.size_bytes} bytes", uri=address
                )

    def put(
        self,
        address: Address,
        path: Path,
        *,
        content_type: str,
        metadata: Mapping[str, str],
        advance: Advance = lambda _: None,
    ) -> None:
        """Store a file whole, in place of what lies there."""
        size_bytes = path.stat().st_size
        with self._store(address) as store:
            if size_bytes <= self.part_bytes:
                with _Stretch(path, 0, size_bytes, advance) as body:
                    store.put(address.key, body, content_type=content_type, metadata=metadata)
                return
            for key, upload in store.unfinished_uploads(address.key):
                if key == address.key:
                    store.abort_upload(key, upload)
            upload = store.begin_upload(address.key, content_type=content_type, metadata=metadata)
            try:
                etags = []
                for number, start in enumerate(range(0, size_bytes, self.part_bytes), 1):
                    with _Stretch(path, start, min(self.part_bytes, size_bytes - start), advance) as body:
                        etags.append(store.put_part(address.key, upload, number, body))
                finished = None not in etags and store.finish_upload(address.key, upload, [tag for tag in etags if tag])
            except BaseException:
                store.abort_upload(address.key, upload)
                raise
            if not finished:
                raise errors.ObjectStoreUnreachable(f"the upload of {address} was dropped by the store", uri=address)

    @contextmanager
    def _store(self, address: Address) -> Iterator[AwsStore]:
        store = AwsStore(
            address.bucket, region=self.region, endpoint=self.endpoint, credentials=self.credentials, attempts=3
        )
        try:
            yield store
        except errors.DeliveryFailed as error:
            raise _translated(error, address) from error
        finally:
            store.close()


class _Stretch(RewindableBody, io.RawIOBase):
    """A stretch of a file as the body of a request (`providers.base.Body`)."""

    def __init__(self, path: Path, start: int, size_bytes: int, advance: Advance) -> None:
        self.size_bytes = size_bytes
        self._file = path.open("rb")
        self._start = start
        self._advance: Advance = lambda _: None
        self._told = advance

    def close(self) -> None:
        self._file.close()
        super().close()

    def start_sending(self) -> None:
        self._advance = self._told

    def read(self, amount: int = -1, /) -> bytes:
        left = self.size_bytes - self._place
        self._file.seek(self._start + self._place)
        piece = self._file.read(left if amount < 0 else min(amount, left))
        self._place += len(piece)
        self._advance(len(piece))
        return piece


def _require_room(folder: Path, size_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free - Limits().free_bytes_kept
    if size_bytes > free_bytes:
        raise errors.DiskShort(
            f"the object needs {size_bytes} bytes, {max(free_bytes, 0)} are free beside the reserve",
            needed_bytes=size_bytes,
            free_bytes=max(free_bytes, 0),
        )


def _invalid(uri: str, why: str) -> errors.ObjectAddressInvalid:
    shown = uri[:200] if uri.isprintable() else repr(uri[:200])
    return errors.ObjectAddressInvalid(f"{shown!r} cannot be used: {why}", uri=shown)


def _translated(error: errors.DeliveryFailed, address: Address) -> errors.AgentError:
    match error:
        case errors.DestinationMissing():
            return errors.ObjectMissing(f"there is no bucket {address.bucket}", uri=address)
        case errors.DestinationDenied() | errors.ClockWrong():
            return errors.ObjectDenied(f"{address}: {error.message}", uri=address)
        case errors.DestinationBusy() | errors.DestinationUnreachable():
            return errors.ObjectStoreUnreachable(f"{address}: {error.message}", uri=address)
    return errors.ObjectNotStored(f"{address}: {error.message}", uri=address)
