"""Where a batch goes that cannot be delivered: beside the spool, as it would have been delivered, with its cause.

    spool/quarantine/<batch>.jsonl           the lines of the captures that are whole
    spool/quarantine/<batch>/                their large payloads, and what is left of the others'
    spool/quarantine/<batch>.damaged.jsonl   captures that are not whole: what the spool has of them, in base64
    spool/quarantine/<batch>.cause.json      why, written last

Invariant: when `keep` returns, all of it is durable, and the spool may let go of the batch.
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
from lightkeeper.capture.record import precise_text
from lightkeeper.capture.sink import Layout
from lightkeeper.capture.spool import Batch, Waiting
from lightkeeper.errors import AgentError, DeliveryFailed


class QuarantineFolder:
    """The folder that undeliverable batches are kept in."""

    def __init__(self, folder: Path, *, layout: Layout, files: Files) -> None:
        """Take the folder, and the layout that lines have elsewhere."""
        self._folder = folder
        self._layout = replace(layout, dated=False)
        self._files = files
        self._sink = DiskSink(folder, layout=self._layout, files=files, mode=PRIVATE_FILE, folder_mode=PRIVATE_FOLDER)

    def keep(self, batch: Batch, captures: Sequence[Waiting], fault: AgentError, *, now_ns: int) -> Path:
        """Keep a batch with the fault that brought it here, and return the path of the cause.

        Raises `DestinationMissing`, `DestinationFull` or `DestinationFaulty` where it cannot be written.
        """
        kept = replace(batch, root=self._folder.as_uri())
        whole = [capture for capture in captures if self._is_whole(kept, capture)]
        damaged = [capture for capture in captures if capture not in whole]
        if whole:
            self._sink.deliver(kept, whole)
        cause = {
            "batch": batch.name,
            "root": batch.root,
            "time": precise_text(now_ns),
            "reason": fault.reason,
            "message": fault.message,
            "facts": fault.facts,
            "captures": [capture.id for capture in captures],
            "damaged": [capture.id for capture in damaged],
        }
        path = self._folder / f"{batch.name}.cause.json"
        with self._sink.translated():
            if damaged:
                self._save_remains(batch, damaged)
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

    def _save_remains(self, batch: Batch, damaged: Sequence[Waiting]) -> None:
        """Save what there is of captures that make no line."""
        remains = []
        for capture in damaged:
            for payload in capture.large:
                folder = self._folder / batch.name
                self._files.make_folder(folder)
                with suppress(FileNotFoundError, FileExistsError):  # no log: lost, or saved by an earlier try
                    self._files.link(payload.path, folder / f"{capture.id}-{payload.position}.bin")
                self._files.sync_folder(folder)
            remains.append(
                {
                    "captureId": capture.id,
                    "acceptedMs": capture.accepted_ms,
                    "header": base64.b64encode(capture.header).decode(),
                    "inline": base64.b64encode(capture.inline).decode(),
                    "payloads": [{"position": p.position, "sizeBytes": p.size_bytes} for p in capture.large],
                }
            )
        lines = [json.dumps(entry).encode() + b"\n" for entry in remains]
        self._files.write(self._folder / f"{batch.name}.damaged.jsonl", lines)
