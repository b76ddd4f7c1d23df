"""The destination `Cloud`: batches as objects of a bucket. Clauses: docs/spec/capture.md, section 3.

Payload objects go first, each at most once per batch whatever is cut short between: what has arrived is written down
(`Progress`) before the next thing is sent. Payloads larger than a part go in parts, of which only the missing ones are
sent again.

Invariants: the batch object is put last; a batch's objects and keys are the same however often it is delivered; an
upload id is written down before its first part is sent.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mimetypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lightkeeper.capture.body import Lost, PacedBody, sha256_of
from lightkeeper.capture.disk import lost
from lightkeeper.capture.ledger import Batch, Receipt, State, Waiting
from lightkeeper.capture.pace import Pace
from lightkeeper.capture.record import UNKNOWN_CONTENT_TYPE
from lightkeeper.capture.sink import Layout, Placed
from lightkeeper.capture.spool import Spool
from lightkeeper.errors import DeliveryFailed, RecordDamaged
from lightkeeper.providers.base import ObjectStore

PART_BYTES = 8 * 1024 * 1024
"""What is larger goes in parts of this size."""

MOST_PARTS = 10_000
"""S3's limit; larger objects get larger parts."""

LINES_CONTENT_TYPE = "application/x-ndjson"

log = logging.getLogger(__name__)


class Progress(Protocol):
    """What is remembered of one object's upload over a restart."""

    def load(self) -> str | None:
        """Return what was saved last, or None."""

    def save(self, text: str | None) -> None:
        """Remember a text, durably."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file to upload. `lost` makes the refusal for when it cannot be read."""

    path: Path
    size_bytes: int
    content_type: str
    lost: Lost


@dataclass(frozen=True, slots=True)
class Arrived:
    """An object as the store has it."""

    size_bytes: int
    sha256: str
    etag: str


class Uploader:
    """Puts files and bytes under keys of one bucket."""

    def __init__(self, store: ObjectStore, *, place: str, pace: Pace, part_bytes: int = PART_BYTES) -> None:
        """Take the store. `place` names the bucket: what was begun in another is not gone on with here."""
        self._store = store
        self._place = place
        self._pace = pace
        self._part_bytes = part_bytes

    def put_bytes(self, key: str, data: bytes, *, content_type: str = LINES_CONTENT_TYPE) -> Arrived:
        """Put bytes. Raises `DeliveryFailed`."""
        sha256 = hashlib.sha256(data).hexdigest()
        with PacedBody(data, pace=self._pace, lost=_impossible) as body:
            etag = self._store.put(key, body, content_type=content_type, metadata={"sha256": sha256})
        return Arrived(len(data), sha256, etag)

    def put_file(self, key: str, source: Source, progress: Progress) -> None:
        """Put a file, unless `progress` says that it has arrived. Raises `DeliveryFailed`."""
        state = _State.parse(progress.load(), f"{self._place}/{key}")
        if state.arrived:
            return
        if source.size_bytes <= self._part_bytes:
            self._put_whole(key, source)
        else:
            self._put_parts(key, source, state, progress)
        progress.save(_State(f"{self._place}/{key}", arrived=True).text())

    def sweep(self, prefix: str, *, keep: set[str]) -> int:
        """Abort the uploads under a prefix that nobody goes on with, and return how many; a store may not allow it."""
        aborted = 0
        with suppress(DeliveryFailed):  # no log: they cost room in the bucket, and the next sweep tries again
            for key, upload in self._store.unfinished_uploads(prefix):
                if upload not in keep:
                    self._store.abort_upload(key, upload)
                    aborted += 1
        return aborted

    def _put_whole(self, key: str, source: Source) -> None:
        sha256 = sha256_of(source.path, source.lost)
        with self._body(source, 0, source.size_bytes) as body:
            self._store.put(key, body, content_type=source.content_type, metadata={"sha256": sha256})

    def _put_parts(self, key: str, source: Source, state: _State, progress: Progress) -> None:
        while True:
            if state.upload is None:
                sha256 = sha256_of(source.path, source.lost)
                upload = self._store.begin_upload(key, content_type=source.content_type, metadata={"sha256": sha256})
                state = _State(state.target, upload=upload)
                progress.save(state.text())
            if self._send_parts(key, source, state, progress):
                return
            if self._is_there(key, source):  # it was finished, and the answer was lost
                return
            state = _State(state.target)

    def _send_parts(self, key: str, source: Source, state: _State, progress: Progress) -> bool:
        """Send what is missing and make the object; False where the store has forgotten the upload."""
        upload, etags = str(state.upload), list(state.etags)
        for number, start, size_bytes in self._parts(source.size_bytes):
            if number <= len(etags):
                continue
            with self._body(source, start, size_bytes) as body:
                etag = self._store.put_part(key, upload, number, body)
            if etag is None:
                return False
            etags.append(etag)
            progress.save(_State(state.target, upload=upload, etags=tuple(etags)).text())
        return self._store.finish_upload(key, upload, etags) is not None

    def _parts(self, size_bytes: int) -> Iterator[tuple[int, int, int]]:
        """Yield number, start and size of each part."""
        part_bytes = max(self._part_bytes, -(-size_bytes // MOST_PARTS))
        for number, start in enumerate(range(0, size_bytes, part_bytes), 1):
            yield number, start, min(part_bytes, size_bytes - start)

    def _is_there(self, key: str, source: Source) -> bool:
        found = self._store.look(key)
        return (
            found is not None
            and found.size_bytes == source.size_bytes
            and found.metadata.get("sha256") == sha256_of(source.path, source.lost)
        )

    def _body(self, source: Source, start: int, size_bytes: int) -> PacedBody:
        return PacedBody(source.path, pace=self._pace, lost=source.lost, start=start, size_bytes=size_bytes)


class ObjectSink:
    """The sink of a bucket."""

    def __init__(self, uploader: Uploader, *, layout: Layout, spool: Spool) -> None:
        """Take the uploader, and the spool to write progress into."""
        self._uploader = uploader
        self._layout = layout
        self._spool = spool
        self._swept = False

    def deliver(self, batch: Batch, captures: Sequence[Waiting]) -> Receipt:
        """See `Sink.deliver`."""
        placed = self._layout.payloads(batch, captures)
        lines = self._layout.lines(batch, captures)
        key = self._layout.batch_key(batch)
        for item in placed:
            source = Source(item.payload.path, item.payload.size_bytes, _content_type(item), _lost_of(item))
            self._uploader.put_file(item.key, source, _SpoolProgress(self._spool, item))
        arrived = self._uploader.put_bytes(key, lines)
        if not self._swept:
            self._swept = True
            self._sweep()
        return Receipt(State.UPLOADED, key, arrived.size_bytes, arrived.sha256, arrived.etag)

    def _sweep(self) -> None:
        """Drop the uploads of payloads that wait no more: expired, quarantined, or sent elsewhere since."""
        rows = self._spool.journal.read("SELECT progress FROM payloads WHERE progress IS NOT NULL")
        keep = {upload for (text,) in rows if (upload := _State.parse(text, None).upload)}
        aborted = self._uploader.sweep(self._layout.device_prefix, keep=keep)
        if aborted:
            log.info("stale_uploads_aborted", extra={"uploads": aborted})


@dataclass(frozen=True, slots=True)
class _State:
    """How far an upload to a target (bucket and key) is."""

    target: str
    upload: str | None = None
    etags: tuple[str, ...] = ()
    arrived: bool = False

    @classmethod
    def parse(cls, text: str | None, target: str | None) -> _State:
        """Return what was saved; what is of another target, or damaged, counts as nothing."""
        try:
            said = json.loads(text or "{}")
            state = cls(said["target"], said.get("upload"), tuple(said.get("etags", ())), said.get("arrived", False))
        except (ValueError, KeyError, TypeError):  # no log: the upload begins anew
            return cls(target or "")
        return state if target in {None, state.target} else cls(target or "")

    def text(self) -> str:
        """Return what is saved."""
        said: dict[str, object] = {"target": self.target}
        if self.arrived:
            return json.dumps(said | {"arrived": True})
        return json.dumps(said | {"upload": self.upload, "etags": self.etags})


class _SpoolProgress:
    """A large payload's progress, in its row of the spool."""

    def __init__(self, spool: Spool, item: Placed) -> None:
        self._spool = spool
        self._item = item

    def load(self) -> str | None:
        return self._item.payload.progress

    def save(self, text: str | None) -> None:
        self._spool.note_progress(self._item.capture.seq, self._item.payload.position, text)


def _content_type(item: Placed) -> str:
    return mimetypes.guess_type(item.key)[0] or UNKNOWN_CONTENT_TYPE


def _lost_of(item: Placed) -> Callable[[str], DeliveryFailed]:
    return lambda cause: lost(item, cause)


def _impossible(cause: str) -> RecordDamaged:
    return RecordDamaged(f"bytes in memory cannot be read: {cause}", cause=cause)
