"""Sampling around Predict: what is kept, and that losing a sample harms nobody."""

from __future__ import annotations

import logging
import threading
import uuid
from typing import Any

import numpy as np
import pytest

from lightkeeper.capture.request import CaptureRequest
from lightkeeper.capture.sampler import Sampler
from lightkeeper.capture.sampling import WAITING_LIMIT, WAITING_LIMIT_BYTES, Sampling
from lightkeeper.config.rules import CaptureRule
from lightkeeper.errors import AgentError, CaptureBufferFull, SpoolBroken
from lightkeeper.model import PackageIdentity
from lightkeeper.tensor import DataType, Tensor, TensorMetadata

PACKAGE = PackageIdentity("net", "1.0", "ab" * 32)
INPUTS: dict[str, np.ndarray] = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "empty": np.zeros((0, 4), np.int16)}
OUTPUTS = (TensorMetadata("y", DataType.FLOAT32, (2, 2)), TensorMetadata("n", DataType.INT64, ()))
ARRAYS = (np.arange(8, dtype=np.float32).reshape(2, 4)[:, ::2], np.array(7))


class Keeper:
    """Keeps requests in a list, or refuses with what it is given."""

    def __init__(self) -> None:
        self.kept: list[tuple[CaptureRequest, PackageIdentity, str]] = []
        self.fault: AgentError | MemoryError | None = None

    def record(self, request: CaptureRequest, package: PackageIdentity, *, rule: str = "") -> None:
        """See `lightkeeper.capture.sampling.Keeper`."""
        if self.fault is not None:
            raise self.fault
        self.kept.append((request, package, rule))


def consider(sampling: Sampling, times: int = 1) -> None:
    """Let some inferences pass."""
    for _ in range(times):
        sampling.consider("alias", PACKAGE, INPUTS, OUTPUTS, ARRAYS)
        sampling.keep_waiting()


def sampling_by(keeper: Keeper, **rule: Any) -> Sampling:
    """Return sampling by one rule."""
    return Sampling(Sampler([CaptureRule("rule", "*", **rule)]), keeper, now_ns=lambda: 1_700_000_000_000_000_005)


def test_a_sample_is_a_capture_of_what_went_in_and_out() -> None:
    """With an id of its own, the rule's name, and the bytes in order (clauses 4.5 and 4.7)."""
    keeper = Keeper()
    consider(sampling_by(keeper, every=2), times=4)
    (first, package, rule), (second, _, _) = keeper.kept
    assert (first.model, package, rule, first.time) == ("alias", PACKAGE, "rule", (1_700_000_000, 5))
    assert uuid.UUID(first.id) != uuid.UUID(second.id)
    assert first.inputs == [
        Tensor("x", DataType.FLOAT32, (2, 3), INPUTS["x"].tobytes()),
        Tensor("empty", DataType.INT16, (0, 4), b""),
    ]
    assert first.outputs == [
        Tensor("y", DataType.FLOAT32, (2, 2), np.array([0, 2, 4, 6], np.float32).tobytes()),
        Tensor("n", DataType.INT64, (), np.array(7).tobytes()),
    ]
    assert all(len(tensor.data) == memoryview(tensor.data).nbytes for tensor in [*first.inputs, *first.outputs])


@pytest.mark.parametrize(("inputs", "outputs"), [(True, False), (False, True)])
def test_a_rule_may_keep_one_side_alone(inputs: bool, outputs: bool) -> None:
    """Inputs are large, or private (clause 4.5)."""
    keeper = Keeper()
    consider(sampling_by(keeper, every=1, inputs=inputs, outputs=outputs))
    ((request, _, _),) = keeper.kept
    assert (bool(request.inputs), bool(request.outputs)) == (inputs, outputs)


def test_an_inference_that_no_rule_chooses_leaves_no_trace() -> None:
    """Sampling is off where no rule says otherwise (clause 4.1)."""
    keeper = Keeper()
    sampling = Sampling(Sampler([]), keeper)
    consider(sampling, 3)
    assert keeper.kept == []
    assert not sampling.kept
    assert not sampling.lost


def test_a_lost_sample_is_counted_and_said_when_it_begins_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    """Predict is not disturbed, and the log is not flooded (clause 4.8)."""
    keeper = Keeper()
    sampling = sampling_by(keeper, every=1)
    with caplog.at_level(logging.INFO, "lightkeeper"):
        consider(sampling)
        keeper.fault = CaptureBufferFull("the buffer is full", buffer=1)
        consider(sampling, 50)
        keeper.fault = SpoolBroken("the disk is gone")
        consider(sampling, 49)
        keeper.fault = MemoryError()
        consider(sampling)
        keeper.fault = None
        consider(sampling, 2)
        keeper.fault = SpoolBroken("the disk is gone again")
        consider(sampling)
    assert sampling.kept == {"rule": 3}
    assert sampling.lost == {"CAPTURE_BUFFER_FULL": 50, "SPOOL_BROKEN": 50, "MEMORY_SHORT": 1}
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "samples_lost"),
        ("INFO", "samples_kept_again"),
        ("WARNING", "samples_lost"),
    ]
    assert vars(caplog.records[0])["reason"] == "CAPTURE_BUFFER_FULL"
    assert vars(caplog.records[1])["lost_meanwhile"] == 100


def test_samples_that_the_disk_cannot_follow_are_lost_and_bounded() -> None:
    """Predict only ever queues; what waits is bounded in number, and is kept when the disk comes to it (clause 4.8)."""
    keeper = Keeper()
    sampling = sampling_by(keeper, every=1)
    for _ in range(WAITING_LIMIT + 5):
        sampling.consider("alias", PACKAGE, INPUTS, OUTPUTS, ARRAYS)
    assert keeper.kept == []
    assert sampling.lost == {"SAMPLES_BEHIND": 5}
    sampling.keep_waiting()
    assert len(keeper.kept) == WAITING_LIMIT


def test_samples_wait_within_a_bound_of_bytes() -> None:
    """Large ones reach it long before their number does (clause 4.8)."""
    keeper = Keeper()
    sampling = sampling_by(keeper, every=1)
    large = {"x": np.zeros(WAITING_LIMIT_BYTES // 2, np.uint8)}
    for _ in range(4):
        sampling.consider("alias", PACKAGE, large, (), ())
    assert sampling.lost == {"SAMPLES_BEHIND": 2}
    sampling.keep_waiting()
    sampling.consider("alias", PACKAGE, large, (), ())
    sampling.keep_waiting()
    assert len(keeper.kept) == 3


def test_a_stop_keeps_what_waits() -> None:
    """The thread ends when the queue is empty, not before (clause 4.8)."""
    keeper = Keeper()
    sampling = sampling_by(keeper, every=1)
    thread = threading.Thread(target=sampling.run)
    thread.start()
    for _ in range(20):
        sampling.consider("alias", PACKAGE, INPUTS, OUTPUTS, ARRAYS)
    sampling.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert len(keeper.kept) == 20


def test_the_data_of_a_sample_are_those_of_its_inference() -> None:
    """The caller takes its memory back before the sample is written."""
    keeper = Keeper()
    sampling = sampling_by(keeper, every=1)
    x = np.ones(3, np.uint8)
    sampling.consider("alias", PACKAGE, {"x": x}, (), ())
    x[:] = 9
    sampling.keep_waiting()
    ((request, _, _),) = keeper.kept
    assert request.inputs[0].data == b"\x01\x01\x01"
