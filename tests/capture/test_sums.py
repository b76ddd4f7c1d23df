"""The ledger's sums, where another release kept none (that they are right is held in `test_spool_machine.py`)."""

from __future__ import annotations

from pathlib import Path

from lightkeeper.capture.spool import Keep, Receipt, State
from lightkeeper.capture.sums import Sums, read
from lightkeeper.capture.upkeep import DAY_MS
from tests.support.spools import Clock, open_spool, stored


def test_a_ledger_without_sums_is_counted_once_when_it_is_opened(tmp_path: Path) -> None:
    """With what was forgotten, and what is open or waits left out."""
    clock, keep = Clock(), Keep(ledger_days=1)
    spool = open_spool(tmp_path / "spool", clock=clock, keep=keep)
    for number in range(8):
        spool.accept(stored(f"c-{number}"))
    first, second = spool.next_batch(), spool.next_batch(after=1)
    assert first is not None
    assert second is not None
    spool.settle(first, Receipt(State.UPLOADED, "a.jsonl", 1, "ab"))
    clock.ms += 2 * DAY_MS
    spool.maintain()
    spool.give_up(second, State.QUARANTINED, "PAYLOAD_LOST")
    sums = read(spool.journal)
    assert sums == Sums(8, sums.states)
    assert {state.name: count for state, count in sums.states.items() if count} == {
        "OPEN": 2,
        "UPLOADED": 3,
        "QUARANTINED": 3,
    }

    spool.journal.write(lambda database: database.execute("DELETE FROM meta WHERE name LIKE 'ended_%'"))
    assert read(spool.journal) != sums
    spool.close()
    spool = open_spool(tmp_path / "spool", clock=clock, keep=keep)
    assert read(spool.journal) == sums
    spool.close()
