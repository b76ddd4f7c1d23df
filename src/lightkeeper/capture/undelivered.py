"""Batches that cannot be delivered: kept in the spool's quarantine, as they would have been delivered.

    spool/quarantine/<when closed>-<batch>/<batch>.jsonl           the lines of the captures that are whole
    spool/quarantine/<when closed>-<batch>/<batch>/                large payloads, and what is left of damaged ones
    spool/quarantine/<when closed>-<batch>/<batch>.damaged.jsonl   what the spool has of captures that are not whole
    spool/quarantine/<when closed>-<batch>.cause.json              why, written last

Invariants: when `keep` returns, all of it is durable, and the spool may let go of the batch; keeping a batch again
gives the same files.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from lightkeeper.capture.disk import DiskSink, require_whole
from lightkeeper.capture.files import PRIVATE_FILE, PRIVATE_FOLDER, Files
from lightkeeper.capture.ledger import Batch, Waiting
from lightkeeper.capture.quarantine import CAUSE
from lightkeeper.capture.record import precise_text
from lightkeeper.capture.sink import Layout
from lightkeeper.errors import AgentError, DeliveryFailed
from lightkeeper.system import file_url

DAMAGED_SUFFIX = ".damaged.jsonl"


class Undelivered:
    """The batches that were given up, in the quarantine folder, which `Spool.maintain` keeps within bounds."""

    def __init__(self, folder: Path, *, layout: Layout, files: Files) -> None:
        """Take the quarantine folder, and the layout that lines have elsewhere."""
        self._folder = folder
        self._layout = replace(layout, dated=False)
        self._files = files

    def keep(self, batch: Batch, captures: Sequence[Waiting], fault: AgentError, *, now_ns: int) -> Path:
        """Keep a batch with the fault that brought it here, and return the path of the cause.

        Raises `DestinationMissing`, `DestinationFull` or `DestinationFaulty` where it cannot be written.
        """
        place = self._folder / f"{batch.closed_ms:015d}-{batch.name}"
        kept = replace(batch, root=file_url(place))
        sink = DiskSink(place, layout=self._layout, files=self._files, mode=PRIVATE_FILE, folder_mode=PRIVATE_FOLDER)
        damaged = [capture for capture in captures if not self._is_whole(kept, capture)]
        whole = [capture for capture in captures if capture not in damaged]
        if whole:
            sink.deliver(kept, whole)
        cause = {
            "what": batch.name,
            "root": batch.root,
            "when": precise_text(now_ns),
            "why": fault.reason,
            "message": fault.message,
            "facts": fault.facts,
            "captures": [capture.id for capture in captures],
            "damaged": [capture.id for capture in damaged],
        }
        path = self._folder / f"{place.name}{CAUSE}"
        with sink.translated():
            if damaged:
                self._save_remains(place, batch, damaged)
            self._files.write(path, [json.dumps(cause, indent=2).encode() + b"\n"])
            self._files.sync_folder(self._folder)
        return path

    def _is_whole(self, batch: Batch, capture: Waiting) -> bool:
        try:
            for item in self._layout.payloads(batch, [capture]):
                require_whole(item)
            self._layout.line(batch, capture)
        except DeliveryFailed:  # no log: the cause lists the capture as damaged
            return False
        return True

    def _save_remains(self, place: Path, batch: Batch, damaged: Sequence[Waiting]) -> None:
        """Save what there is of captures that make no line."""
        lines = []
        payloads = place / batch.name
        self._files.make_folder(payloads)
        for capture in damaged:
            for payload in capture.large:
                with suppress(FileNotFoundError, FileExistsError):  # no log: lost, or saved by an earlier try
                    self._files.link(payload.path, payloads / f"{capture.id}-{payload.position}.bin")
            remains = {
                "captureId": capture.id,
                "acceptedMs": capture.accepted_ms,
                "header": base64.b64encode(capture.header).decode(),
                "inline": base64.b64encode(capture.inline).decode(),
                "payloads": [{"position": p.position, "sizeBytes": p.size_bytes} for p in capture.large],
            }
            lines.append(json.dumps(remains).encode() + b"\n")
        self._files.sync_folder(payloads)
        self._files.write(place / f"{batch.name}{DAMAGED_SUFFIX}", lines)
        self._files.sync_folder(place)
