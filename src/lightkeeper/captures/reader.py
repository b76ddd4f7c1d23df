"""The reader: every capture of a place, one after the other, as many times as wanted.

A line that is no capture is never passed over in silence: it is refused, or handed to whoever asked to be told of
damage, with its file, its line's number and what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from lightkeeper.captures.place import BUCKET_SCHEME, FILE_SCHEME, Bucket, Folder, Place
from lightkeeper.captures.record import Record, parse
from lightkeeper.errors import CaptureDamaged, CapturesUnreadable

MAX_LINE_BYTES = 256 * 1024 * 1024
"""A longer line is damaged: what follows one that was torn off might have no end."""

ATTEMPTS = 5
"""How often a request to a bucket is tried."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which captures to read; what is left out is wanted whatever it is. `since` counts, `until` does not."""

    model: str | None = None
    version: str | None = None
    device: str | None = None
    fleet: str | None = None
    since: np.datetime64 | None = None
    until: np.datetime64 | None = None

    def admits(self, record: Record) -> bool:
        """Whether a capture is wanted."""
        return (
            self.model in {None, record.model}
            and self.version in {None, record.version}
            and self.device in {None, record.device}
            and self.fleet in {None, record.fleet}
            and (self.since is None or bool(record.time >= self.since))
            and (self.until is None or bool(record.time < self.until))
        )


EVERYTHING = Wanted()


@dataclass(frozen=True, slots=True)
class Damage:
    """A line that is no capture, or one whose payload cannot be read."""

    file: str
    line: int
    problem: str

    def __str__(self) -> str:
        """Return the damage on one line."""
        return f"{self.file}:{self.line}: {self.problem}"


def refuse(damage: Damage) -> NoReturn:
    """Raise `CaptureDamaged`."""
    raise CaptureDamaged(f"{damage.file}, line {damage.line}: {damage.problem}", file=damage.file, line=damage.line)


def open_captures(address: str | Path, *, region: str | None = None, endpoint: str | None = None) -> Captures:
    """Return the captures of a folder, of one `.jsonl` file, or of `s3://bucket/prefix`.

    Credentials, and the region where it is left out, come from boto3's usual chain; an `endpoint` is another S3's.
    Raises `ExtraMissing` where a bucket is to be read and boto3 is not installed.
    """
    text = str(address)
    if not text.startswith(BUCKET_SCHEME):
        return Captures(Folder(Path(text.removeprefix(FILE_SCHEME))))
    from lightkeeper.providers.aws import AwsStore

    name, _, prefix = text.removeprefix(BUCKET_SCHEME).partition("/")
    return Captures(Bucket(name, prefix, AwsStore(name, region=region, endpoint=endpoint, attempts=ATTEMPTS)))


class Captures:
    """The captures of a place."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def records(
        self,
        wanted: Wanted = EVERYTHING,
        *,
        on_damage: Callable[[Damage], object] = refuse,
        on_batch: Callable[[int, int], object] = lambda _done, _total: None,
        newest_first: bool = False,
    ) -> Iterator[Record]:
        """Yield the wanted captures, batch by batch in the order of their paths, which is that of their hours.

        `on_damage` is told of every damaged line; by default it is refused. `on_batch` is told how many of how many
        batches are done. `newest_first` turns the order around. Raises `CapturesMissing`, `CapturesUnreadable` or
        `CaptureDamaged`.
        """
        batches = self.place.batches()
        for done, batch in enumerate(reversed(batches) if newest_first else batches):
            on_batch(done, len(batches))
            records = self._batch(batch, on_damage)
            yield from filter(wanted.admits, reversed(list(records)) if newest_first else records)
        on_batch(len(batches), len(batches))

    def _batch(self, batch: str, on_damage: Callable[[Damage], object]) -> Iterator[Record]:
        def payload(reference: str) -> bytes:
            return self.place.payload(batch, reference)

        for number, text in enumerate(self._lines(batch), 1):
            if len(text) == MAX_LINE_BYTES:
                on_damage(Damage(batch, number, f"the line does not end within {MAX_LINE_BYTES} bytes"))
                return
            try:
                record = parse(text, batch, number, payload)
            except ValueError as error:
                on_damage(Damage(batch, number, str(error)))
            else:
                yield record

    def _lines(self, batch: str) -> Iterator[bytes]:
        with self.place.open(batch) as file:
            try:
                while text := file.readline(MAX_LINE_BYTES):
                    yield text
            except OSError as error:
                raise CapturesUnreadable(f"{batch} cannot be read: {error.strerror}", file=batch) from error
