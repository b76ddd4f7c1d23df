"""What a destination of captures is, and where under it a batch's files go.

Everything here follows from the batch alone, so that delivering a batch twice gives the same files under the same
names. Clauses: docs/spec/capture.md, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import quote

from lightkeeper.capture import record
from lightkeeper.capture.ledger import Batch, LargePayload, Receipt, Waiting
from lightkeeper.device import DeviceIdentity
from lightkeeper.errors import RecordDamaged

BATCH_SUFFIX = ".jsonl"


class Sink(Protocol):
    """A destination. One thread uses it."""

    def deliver(self, batch: Batch, captures: Sequence[Waiting]) -> Receipt:
        """Put a batch where it belongs: every payload first, then the lines that name them.

        Safe to call again after it failed or was cut short anywhere. Raises `DeliveryFailed`.
        """


@dataclass(frozen=True, slots=True)
class Placed:
    """A large payload with the key it gets."""

    key: str
    capture: Waiting
    payload: LargePayload


@dataclass(frozen=True, slots=True)
class Layout:
    """The keys of one device's files under a root, and the lines that go there (clauses 3.1 to 3.4).

    `folder_prefix` has no slash at its ends. Without `dated`, batches lie at the root itself.
    """

    device: DeviceIdentity
    folder_prefix: str = ""
    dated: bool = True

    @property
    def device_prefix(self) -> str:
        """What all keys of this device begin with, with a slash at its end."""
        parts = [self.folder_prefix, self.device.fleet, self.device.name]
        return "".join(f"{part}/" for part in parts if part)

    def batch_key(self, batch: Batch) -> str:
        """Return the key of a batch's lines: `<prefix>/<fleet>/<device>/YYYY/MM/DD/HH/<batch>.jsonl`, in UTC."""
        return f"{self._stem(batch)}{BATCH_SUFFIX}"

    def payload_key(self, batch: Batch, capture: Waiting, position: int) -> str:
        """Return the key of a large payload: beside the batch, in a folder of the batch's name."""
        return f"{self._stem(batch)}/{capture.id}-{position}{record.payload_suffix(capture.header, position)}"

    def payloads(self, batch: Batch, captures: Sequence[Waiting]) -> list[Placed]:
        """Return every large payload of a batch with its key. Raises `RecordDamaged`."""
        placed: list[Placed] = []
        for capture in captures:
            with _intact(capture):
                if record.large_positions(capture.header) != [payload.position for payload in capture.large]:
                    raise ValueError("the record does not name the payloads that are there")
                placed += [Placed(self.payload_key(batch, capture, p.position), capture, p) for p in capture.large]
        return placed

    def lines(self, batch: Batch, captures: Sequence[Waiting]) -> bytes:
        """Return a batch as its readers find it: one line a capture. Raises `RecordDamaged`."""
        return b"".join(self.line(batch, capture) for capture in captures)

    def line(self, batch: Batch, capture: Waiting) -> bytes:
        """Return a capture's line. Raises `RecordDamaged`."""
        with _intact(capture):
            return record.line(
                capture.id,
                capture.header,
                capture.inline,
                device=self.device,
                reference=lambda position: address(batch.root, self.payload_key(batch, capture, position)),
                weight=capture.weight,
            )

    def _stem(self, batch: Batch) -> str:
        if not self.dated:
            return batch.name
        closed = datetime.fromtimestamp(batch.closed_ms // 1000, UTC)
        return f"{self.device_prefix}{closed:%Y/%m/%d/%H}/{batch.name}"


def address(root: str, key: str) -> str:
    """Return the address of what lies under a key: a file's as a URL, an object's as `s3://bucket/key`, unquoted."""
    return f"{root}/{quote(key) if root.startswith('file:') else key}"


@contextmanager
def _intact(capture: Waiting) -> Iterator[None]:
    """Say which record it is that cannot be understood."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RecordDamaged(
            f"the record of capture {capture.id} is damaged: {error}", capture=capture.id, cause=type(error).__name__
        ) from error
