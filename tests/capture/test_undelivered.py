"""Batches that are given up: what is whole can be read as if it had arrived, the rest is kept as it is."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from lightkeeper.capture.files import RealFiles
from lightkeeper.capture.ledger import Batch
from lightkeeper.capture.spool import Spool
from lightkeeper.capture.undelivered import Undelivered
from lightkeeper.errors import ObjectRefused
from lightkeeper.modelpackage.package import local_path
from tests.support.batches import LAYOUT, START_MS, open_spool, picture, stored, tree

FAULT = ObjectRefused("too large", key="k")
NOW_NS = (START_MS + 5000) * 1_000_000


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """A spool with a waiting batch of three captures, two with a large payload."""
    spool = open_spool(tmp_path / "spool", root="s3://bucket", batch=3)
    spool.accept(stored("one"))
    spool.accept(stored("two", large=picture(2)))
    spool.accept(stored("three", large=picture(3)))
    return spool


def keep(spool: Spool) -> tuple[Batch, Path]:
    """Keep the batch that waits, and return it and the path of its cause."""
    batch = spool.next_batch()
    assert batch is not None
    undelivered = Undelivered(spool.quarantine, layout=LAYOUT, files=RealFiles())
    return batch, undelivered.keep(batch, spool.captures_of(batch), FAULT, now_ns=NOW_NS)


def test_a_whole_batch_is_kept_as_it_would_have_been_delivered(spool: Spool) -> None:
    """Its lines refer to the payloads beside them."""
    batch, _ = keep(spool)
    place = spool.quarantine / f"{START_MS:015d}-{batch.name}"
    lines = [json.loads(line) for line in (place / f"{batch.name}.jsonl").read_bytes().splitlines()]
    assert [line["eventMetadata"]["eventId"] for line in lines] == ["one", "two", "three"]
    reference = lines[1]["deviceFleetAuxiliaryInputs"][0]["data-ref"]
    assert local_path(reference).read_bytes() == picture(2)
    assert place in local_path(reference).parents


def test_the_cause_says_what_why_and_when(spool: Spool) -> None:
    """With the facts of the fault, for whoever finds it."""
    batch, path = keep(spool)
    cause = json.loads(path.read_bytes())
    assert path.parent == spool.quarantine
    assert (cause["what"], cause["why"], cause["message"]) == (batch.name, "OBJECT_REFUSED", "too large")
    assert (cause["root"], cause["facts"]) == ("s3://bucket", {"key": "k"})
    assert cause["when"].startswith("2026-01-01T00:00:05")
    assert (cause["captures"], cause["damaged"]) == (["one", "two", "three"], [])


def test_a_capture_without_its_payload_is_kept_apart(spool: Spool) -> None:
    """The others are as they would have been delivered."""
    two = next(path for path in spool.payloads.iterdir() if path.read_bytes() == picture(2))
    two.unlink()
    batch, path = keep(spool)
    place = path.parent / f"{START_MS:015d}-{batch.name}"
    assert json.loads(path.read_bytes())["damaged"] == ["two"]
    (damaged,) = [json.loads(line) for line in (place / f"{batch.name}.damaged.jsonl").read_bytes().splitlines()]
    assert damaged["captureId"] == "two"
    assert base64.b64decode(damaged["inline"]) == b"two"
    assert len((place / f"{batch.name}.jsonl").read_bytes().splitlines()) == 2


def test_a_damaged_record_is_kept_byte_for_byte(spool: Spool) -> None:
    """And so is its payload."""
    spool.journal.write(lambda database: database.execute("UPDATE captures SET header = x'ff00' WHERE id = 'three'"))
    batch, path = keep(spool)
    place = path.parent / f"{START_MS:015d}-{batch.name}"
    damaged = json.loads((place / f"{batch.name}.damaged.jsonl").read_bytes())
    assert base64.b64decode(damaged["header"]) == b"\xff\x00"
    assert (place / batch.name / "three-1.bin").read_bytes() == picture(3)


def test_keeping_again_gives_the_same_files(spool: Spool) -> None:
    """A crash between keeping and the ledger's entry leaves no second copy."""
    next(path for path in spool.payloads.iterdir() if path.read_bytes() == picture(2)).unlink()
    keep(spool)
    before = tree(spool.quarantine)
    keep(spool)
    assert tree(spool.quarantine) == before
