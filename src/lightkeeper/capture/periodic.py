"""The periodic upload: with the destination Disk, what lies under the disk path goes to a bucket from time to time.

Every file `*.jsonl` is a batch: its payload files go first, then its lines, under the key that is its path below the
folder. In the uploaded lines, `data-ref` names the uploaded payload; the file on the disk stays as it is, and nothing
there is ever removed. Clauses: docs/spec/capture.md, section 5.

Invariants: a file that was sent and has not changed is not sent again; nothing outside the folder is read, whatever a
`data-ref` says; a capture of the ledger becomes UPLOADED only after the store has its batch.
"""

from __future__ import annotations

import json
import logging
import mimetypes
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from lightkeeper.capture.disk import UNFINISHED
from lightkeeper.capture.ledger import Batch, Receipt, State
from lightkeeper.capture.reach import Reach
from lightkeeper.capture.record import UNKNOWN_CONTENT_TYPE, Part
from lightkeeper.capture.retry import Quarantine, decide, is_suspect
from lightkeeper.capture.sent import SentFiles, Version
from lightkeeper.capture.sink import BATCH_SUFFIX
from lightkeeper.capture.spool import Spool
from lightkeeper.capture.uploader import Source, Uploader
from lightkeeper.errors import AgentError, DeliveryInterrupted, PayloadLost, Unexpected
from lightkeeper.system import path_of_url

SETTLED_NS = 2_000_000_000
"""A folder that changed this recently is looked into again: its time of change may be too coarse to tell."""

log = logging.getLogger(__name__)


class PeriodicUpload:
    """Uploads a folder. `run` is the thread's work."""

    def __init__(  # noqa: PLR0913  # collaborators, each of which a test replaces
        self,
        folder: Path,
        uploader: Uploader,
        *,
        spool: Spool,
        bucket: str,
        period_seconds: float,
        stopping: threading.Event,
        now_ns: Callable[[], int],
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Take the folder and where it goes. Raises `SpoolBroken` or `SpoolDiskFull`."""
        self.counts: Counter[str] = Counter(uploaded=0, failed=0, refused=0)
        self._folder = folder
        self._uploader = uploader
        self._spool = spool
        self._root = f"s3://{bucket}"
        self._period_seconds = period_seconds
        self._stopping = stopping
        self._now_ns = now_ns
        self._draw = draw
        self._sent = SentFiles(spool.journal)
        self._reach = Reach(self._root)
        self._attempts = 0
        self._refused: dict[Path, Version] = {}
        self._settled: dict[str, tuple[int, list[str]]] = {}

    def run(self) -> None:
        """Upload until the agent stops."""
        while not self._stopping.is_set():
            self._stopping.wait(self.step())

    def step(self) -> float:
        """Send what has not been sent, and return after how many seconds to look again."""
        try:
            return self._send_all()
        except DeliveryInterrupted:  # no log: the agent stops
            return 0
        except AgentError as error:  # the spool's own
            return self._wait(error)
        except Exception:
            log.exception("periodic_upload_failed")
            return self._wait(Unexpected("the periodic upload failed"))

    def _send_all(self) -> float:
        held: tuple[Path, Version, AgentError] | None = None
        for path, version in self._pending():
            fault = self._try(path, version)
            if fault is None:
                self._attempts = 0
                self._reach.back()
                if held is not None:  # others get through
                    self._refuse(*held)
                    held = None
            elif isinstance(decide(fault, 1, others_pass=False, draw=0), Quarantine):
                self._refuse(path, version, fault)
            elif held is None and is_suspect(fault, self._attempts + 1):
                held = (path, version, fault)
            else:
                return self._wait(fault)
        if held is not None:
            return self._wait(held[2])
        self._sent.prune(self._folder)
        return self._period_seconds

    def _wait(self, fault: AgentError) -> float:
        self.counts["failed"] += 1
        self._attempts += 1
        decision = decide(fault, self._attempts, others_pass=False, draw=self._draw())
        seconds = self._period_seconds if isinstance(decision, Quarantine) else decision.after_seconds
        self._reach.away(fault, retry_seconds=seconds)
        return seconds

    def _refuse(self, path: Path, version: Version, fault: AgentError) -> None:
        """Leave a file out until it changes or the agent starts again."""
        self._refused[path] = version
        self.counts["refused"] += 1
        extra = {"file": path, "reason": fault.reason, "problem": fault.message, "next_step": fault.next_step}
        log.warning("upload_refused", extra=extra)

    # --- finding -----------------------------------------------------------------------------------------------------

    def _pending(self) -> Iterator[tuple[Path, Version]]:
        """Yield the batches that were not sent, the oldest of a device first."""
        folders = [os.fspath(self._folder)]
        while folders:
            place = folders.pop()
            try:
                changed_ns = os.stat(place).st_mtime_ns  # noqa: PTH116  # paths are text here, for speed
                known_ns, below = self._settled.get(place, (-1, []))
                if changed_ns != known_ns:
                    below = yield from self._look_into(place, changed_ns)
            except OSError as error:  # it may be gone by now, and comes back into sight when it is there again
                log.debug("folder_not_read", extra={"folder": place, "problem": str(error)})
                continue
            folders += reversed(below)

    def _look_into(self, place: str, changed_ns: int) -> Generator[tuple[Path, Version], None, list[str]]:
        """Yield what is pending in one folder, and return the folders in it that may have batches."""
        with os.scandir(place) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        files = {entry.name for entry in found if entry.name.endswith(BATCH_SUFFIX) and entry.is_file()}
        below = [
            entry.path
            for entry in found
            if entry.is_dir(follow_symlinks=False)
            and f"{entry.name}{BATCH_SUFFIX}" not in files
            and entry.name != UNFINISHED
        ]
        all_sent = True
        for name in sorted(files):
            path = Path(place, name)
            version = Version.of(self._folder, path)
            if self._refused.get(path) != version and not self._sent.has(version):
                all_sent = False
                yield path, version
        if all_sent and self._now_ns() - changed_ns > SETTLED_NS:
            self._settled[place] = (changed_ns, below)
        return below

    # --- sending -----------------------------------------------------------------------------------------------------

    def _try(self, path: Path, version: Version) -> AgentError | None:
        try:
            self._send(path, version)
        except DeliveryInterrupted:
            raise
        except AgentError as error:
            return error
        self.counts["uploaded"] += 1
        log.debug("batch_uploaded", extra={"file": path})
        return None

    def _send(self, path: Path, version: Version) -> None:
        """Send one batch: its payloads, then its lines."""
        try:
            lines = path.read_bytes().splitlines(keepends=True)
        except OSError as error:
            raise _lost(path, str(error.strerror)) from error
        arrived = self._uploader.put_bytes(version.path, b"".join(self._uploaded(path, line) for line in lines))
        receipt = Receipt(State.UPLOADED, version.path, arrived.size_bytes, arrived.sha256, arrived.etag)
        for row in self._spool.journal.read(
            "SELECT seq, name, root, closed_ms, captures FROM batches WHERE name = ? AND state = 2", path.stem
        ):
            self._spool.settle(Batch(*row), receipt)
        self._sent.add(version, sha256=arrived.sha256, etag=arrived.etag)

    def _uploaded(self, path: Path, line: bytes) -> bytes:
        """Send the payloads that a line names, and return the line as it is to be uploaded."""
        try:
            said = json.loads(line)
            entries = [entry for part in Part for entry in said.get(part.value, ()) if "data-ref" in entry]
        except (ValueError, TypeError, AttributeError):  # no log: not a capture, sent as it is
            return line
        if not entries:
            return line
        for entry in entries:
            payload = self._payload_of(path, entry)
            if payload is None:
                log.warning("payload_not_found", extra={"file": path, "data_ref": str(entry["data-ref"])})
                continue
            version = Version.of(self._folder, payload)
            source = Source(
                payload,
                version.size_bytes,
                mimetypes.guess_type(payload.name)[0] or UNKNOWN_CONTENT_TYPE,
                partial(_lost, payload),
            )
            self._uploader.put_file(version.path, source, self._sent.progress(version))
            entry["data-ref"] = f"{self._root}/{version.path}"
        return json.dumps(said, separators=(",", ":")).encode() + b"\n"

    def _payload_of(self, path: Path, entry: dict[str, Any]) -> Path | None:
        """Return the file that an entry means: beside its batch, or where it says, but in the folder alone."""
        parts = urlsplit(str(entry["data-ref"]))
        if parts.scheme != "file":
            return None
        named, top = path_of_url(unquote(parts.path)), self._folder.resolve()
        if named is None:
            return None
        for candidate in (path.with_suffix("") / Path(named).name, Path(named)):
            real = candidate.resolve()
            if real.is_relative_to(top) and real.is_file():
                return self._folder / real.relative_to(top)
        return None


def _lost(path: Path, cause: str) -> PayloadLost:
    return PayloadLost(f"{path} cannot be read: {cause}", file=path)
