"""Counters on Predict's path: exact over threads, and what they say."""

from __future__ import annotations

import threading
import time

from lightkeeper.metrics import Metrics, Reading

MILLISECOND_NS = 1_000_000


def test_nothing_counted_reads_as_nothing() -> None:
    """Before the first call there is no last inference, and no mean to divide."""
    reading = Metrics().read()
    assert reading == Reading()
    assert (reading.mean_seconds, reading.failure_share) == (0.0, 0.0)


def test_sums_and_the_slowest_are_those_of_all_calls() -> None:
    """Times are in seconds, and the last inference is a time of day."""
    metrics = Metrics(now=lambda: 1000.0)
    now_ns = time.monotonic_ns()
    metrics.answered(now_ns - 3 * MILLISECOND_NS, now_ns)
    metrics.answered(now_ns - 1 * MILLISECOND_NS, now_ns)
    metrics.failed()
    reading = metrics.read()
    assert (reading.inferences, reading.failures) == (2, 1)
    assert abs(reading.total_seconds - 0.004) < 1e-9
    assert abs(reading.slowest_seconds - 0.003) < 1e-9
    assert abs(reading.mean_seconds - 0.002) < 1e-9
    assert abs(reading.failure_share - 1 / 3) < 1e-9
    assert reading.last_inference is not None
    assert 0 <= 1000.0 - reading.last_inference < 60


def test_no_call_of_any_thread_is_lost() -> None:
    """Threads count at once, and the sum is exact when they are done."""
    metrics = Metrics()
    calls, threads = 20_000, 8

    def count() -> None:
        for _ in range(calls):
            metrics.answered(0, 1)
            metrics.failed()

    counting = [threading.Thread(target=count) for _ in range(threads)]
    for thread in counting:
        thread.start()
    readings = []
    while any(thread.is_alive() for thread in counting):
        readings.append(metrics.read().inferences)
    for thread in counting:
        thread.join()
    assert readings == sorted(readings)
    reading = metrics.read()
    assert (reading.inferences, reading.failures) == (calls * threads, calls * threads)
    assert abs(reading.total_seconds - calls * threads / 1e9) < 1e-12
