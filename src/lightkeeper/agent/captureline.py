"""The capture line of one agent: recorder -> spool -> delivery -> where captures go, with the threads that move it.

Threads: `sampling` keeps what capture rules chose, where there are rules; `delivery` closes and delivers batches;
`upkeep` syncs (with an interval of durability) and maintains the spool; `periodic-upload` sends what lies on the disk,
where that is configured. All end at `stop`; what is not delivered by then waits in the spool.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from lightkeeper import paths
from lightkeeper.agent import cloud
from lightkeeper.capture.delivery import Delivery
from lightkeeper.capture.disk import DiskSink
from lightkeeper.capture.files import RealFiles
from lightkeeper.capture.journal import Durability
from lightkeeper.capture.notes import Notes
from lightkeeper.capture.pace import Pace
from lightkeeper.capture.periodic import PeriodicUpload
from lightkeeper.capture.recorder import Recorder
from lightkeeper.capture.sampler import Sampler
from lightkeeper.capture.sampling import Sampling
from lightkeeper.capture.sink import Layout, Sink
from lightkeeper.capture.spool import Batch, Keep, Receipt, Room, Spool, Waiting
from lightkeeper.capture.undelivered import Undelivered
from lightkeeper.capture.uploader import PART_BYTES, ObjectSink, Uploader
from lightkeeper.config import Config, Provider
from lightkeeper.config.values import WhenFull
from lightkeeper.errors import AgentError
from lightkeeper.providers.base import Provider as CloudProvider
from lightkeeper.system import file_url

UPKEEP_SECONDS = 1.0
JOIN_SECONDS = 2.0

log = logging.getLogger(__name__)


class CaptureLine:
    """Everything of capture, composed."""

    def __init__(self, config: Config, state: Path, provider: CloudProvider) -> None:
        """Open the spool in the state folder. Raises `SpoolBroken` or `SpoolDiskFull`."""
        self._config = config
        self._state = state
        self._provider = provider
        self._stopping = threading.Event()
        durability = Durability(config.capture_durability.interval_ms, config.capture_durability.in_memory)
        self._sync_seconds = durability.interval_ms / 1000
        files = RealFiles(synced=not durability.in_memory)
        layout = Layout(
            device=cloud.identity(config),
            folder_prefix=config.folder_prefix,
        )
        self.spool = Spool(
            state / "spool",
            room=Room(
                buffer=config.capture_buffer_size,
                batch=config.capture_batch_size,
                spool_max_bytes=config.spool_max_bytes,
                free_floor_bytes=config.spool_free_floor_bytes,
                thin=config.capture_when_full is WhenFull.THIN,
            ),
            keep=Keep(expire_days=config.capture_expire_days, ledger_days=config.ledger_retention_days),
            root=self._root(),
            durability=durability,
            files=files,
            now_ms=lambda: time.time_ns() // 1_000_000,
        )
        notes = Notes(self.spool.journal)
        self.delivery = Delivery(
            self.spool,
            self._sink(layout, files, notes),
            undelivered=Undelivered(self.spool.quarantine, layout=layout, files=files),
            push_period_seconds=config.push_period_seconds,
            stopping=self._stopping,
        )
        self.recorder = Recorder(
            self.spool,
            embed_limit_bytes=config.base64_embed_limit_bytes,
            destination_fault=self._destination_fault,
            accepted=self.delivery.accepted,
        )
        self.sampling = Sampling(Sampler(config.capture_rules), self.recorder) if config.capture_rules else None
        self._cloud_fault = _cloud_fault(config) if config.captures_to_cloud else None
        self._threads = [self._thread("delivery", self.delivery.run), self._thread("upkeep", self._keep_up)]
        if self._uploads_from_disk():
            self._threads.append(self._thread("periodic-upload", lambda: self._periodic_upload(notes).run()))
        if self.sampling is not None:
            self._threads.insert(0, self._thread("sampling", self.sampling.run))

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads; samples that wait for the disk are kept first, and what is in the spool stays there."""
        if self.sampling is not None:
            self.sampling.stop()
            self._threads.pop(0).join(JOIN_SECONDS)
        self._stopping.set()
        self.delivery.stop()
        for thread in self._threads:
            thread.join(JOIN_SECONDS)
        self.spool.close()

    def _root(self) -> str:
        config = self._config
        return f"s3://{config.bucket}" if config.captures_to_cloud else file_url(self._disk_path())

    def _disk_path(self) -> Path:
        """Return where captures lie that stay on the disk; the configuration names it wherever they do."""
        return (self._config.capture_disk_path or self._state / "captures").absolute()

    def _sink(self, layout: Layout, files: RealFiles, notes: Notes) -> Sink:
        config = self._config
        if config.captures_to_cloud:
            return _Later(lambda: ObjectSink(self._uploader(notes), layout=layout, spool=self.spool))
        sink = DiskSink(self._disk_path(), layout=layout, files=files, notes=notes)
        sink.clean(self.spool.id)
        return sink

    def _uploads_from_disk(self) -> bool:
        config = self._config
        if not config.periodic_upload or config.captures_to_cloud or config.bucket is None:
            return False
        if config.provider is Provider.NONE:
            return False
        fault = _cloud_fault(config)
        if fault is not None:
            log.warning("periodic_upload_off", extra={"reason": fault})
        return fault is None

    def _periodic_upload(self, notes: Notes) -> PeriodicUpload:
        return PeriodicUpload(
            self._disk_path(),
            self._uploader(notes),
            spool=self.spool,
            bucket=self._config.bucket or "",
            period_seconds=self._config.periodic_upload_period_seconds,
            stopping=self._stopping,
            now_ns=time.time_ns,
        )

    def _uploader(self, notes: Notes) -> Uploader:
        config = self._config
        bucket = config.bucket or ""
        store = self._provider.store(bucket)
        part_bytes = PART_BYTES if self._provider.takes_parts else sys.maxsize
        pace = Pace(
            bytes_per_second=config.upload_bytes_per_second,
            bytes_per_day=config.upload_bytes_per_day,
            notes=notes,
            stopping=self._stopping,
        )
        return Uploader(store, place=f"s3://{bucket}", pace=pace, part_bytes=part_bytes)

    def _destination_fault(self) -> str | None:
        """Return why captures could never be delivered as configured, or None."""
        if self._config.captures_to_cloud:
            return self._cloud_fault
        try:
            nearest = paths.nearest(self._disk_path())
            if not paths.is_folder(nearest):
                return f"{nearest} is not a folder"
        except OSError as error:
            return f"{self._disk_path()} cannot be reached: {error.strerror}"
        if not os.access(nearest, os.W_OK | os.X_OK):
            return f"{nearest} cannot be written by this user"
        return None

    def _keep_up(self) -> None:
        maintained = -UPKEEP_SECONDS
        while not self._stopping.wait(self._sync_seconds or UPKEEP_SECONDS):
            try:
                self.spool.sync()
                if time.monotonic() - maintained >= UPKEEP_SECONDS:
                    self.spool.maintain()
                    maintained = time.monotonic()
            except AgentError as error:
                log.warning("upkeep_failed", extra={"reason": error.reason, "detail": error.message})
            except Exception:
                log.exception("upkeep_failed")

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=work, name=name, daemon=True)


class _Later:
    """A sink that its first delivery makes, in the delivery's own thread: importing boto3 takes a good while."""

    def __init__(self, make: Callable[[], Sink]) -> None:
        self._make = make
        self._sink: Sink | None = None

    def deliver(self, batch: Batch, captures: Sequence[Waiting]) -> Receipt:
        """See `Sink.deliver`."""
        if self._sink is None:
            self._sink = self._make()
        return self._sink.deliver(batch, captures)


def _cloud_fault(config: Config) -> str | None:
    """Return why this build could never upload with this configuration, or None."""
    if config.provider is Provider.AWS and find_spec("boto3") is None:
        return "boto3 is not installed (the extra `aws`)"
    return None
