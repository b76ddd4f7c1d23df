"""Metrics: the latest value of each, and the sums of the running hour. Pure.

A device's metrics are one document, so that a heartbeat of any size is one row read and one row written:

    {source: {metric: [value, time_ms, count, sum, minimum, maximum]}}

`source` is `agent`, or a model as `model NAME VERSION`; `metric` is the name, and behind a space its dimension where it
has one. `value` is the latest, `time_ms` when the device took it (0 where it did not say), and the rest is what the
hour has had so far. An hour that is over keeps `{source: {metric: [count, sum, minimum, maximum]}}`.

Invariant: a sample counts once, though the heartbeat that brings it may be sent again: a metric whose time is that of
the latest sample is the latest sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

AGENT = "agent"
HOUR_MS = 3_600_000
MOST_METRICS = 1000
"""Of one device. The service model names no limit; what is beyond this one is not kept."""

Document = dict[str, dict[str, list[Any]]]

_VALUE, _TIME, _COUNT, _SUM, _MINIMUM, _MAXIMUM = range(6)


def source_of(model: Mapping[str, Any]) -> str:
    """Return under which source a model's metrics are kept."""
    return f"model {model.get('ModelName', '?')} {model.get('ModelVersion', '?')}"


def samples(heartbeat: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[Mapping[str, Any]]]]:
    """Yield each source of a heartbeat with its metrics."""
    yield AGENT, heartbeat.get("AgentMetrics", ())
    for model in heartbeat.get("Models", ()):
        yield source_of(model), model.get("ModelMetrics", ())


def add(document: Document, heartbeat: Mapping[str, Any]) -> tuple[Document, int]:
    """Return the document with a heartbeat's metrics, and how many could not be kept.

    What the heartbeat does not name any more goes once the hour has nothing of it.
    """
    kept: Document = {}
    for source, known in document.items():
        if counted := {name: entry for name, entry in known.items() if entry[_COUNT]}:
            kept[source] = counted
    number, lost = sum(len(entries) for entries in kept.values()), 0
    for source, metrics in samples(heartbeat):
        before = document.get(source, {})
        entries = kept.setdefault(source, {})
        for metric in metrics:
            name, value = _name(metric), metric.get("Value")
            if value is None or not math.isfinite(value) or (name not in entries and number >= MOST_METRICS):
                lost += 1
                continue
            number += name not in entries
            entries[name] = _entry(before.get(name), value, metric.get("Timestamp", 0))
    return {source: entries for source, entries in kept.items() if entries}, lost


def _entry(before: list[Any] | None, value: float, time_ms: int) -> list[Any]:
    """Return a metric's entry with one more sample."""
    if before is None or not before[_COUNT]:
        if before is not None and time_ms and time_ms == before[_TIME]:
            return before
        return [value, time_ms, 1, value, value, value]
    if time_ms and time_ms == before[_TIME]:
        return before
    return [
        value,
        time_ms,
        before[_COUNT] + 1,
        before[_SUM] + value,
        min(before[_MINIMUM], value),
        max(before[_MAXIMUM], value),
    ]


def close_hour(document: Document) -> tuple[Document, Document]:
    """Return the sums of the hour that is over, and the document with which the next begins."""
    over = {
        source: sums
        for source, metrics in document.items()
        if (sums := {name: entry[_COUNT:] for name, entry in metrics.items() if entry[_COUNT]})
    }
    begins = {
        source: {name: [*entry[:_COUNT], 0, 0, 0, 0] for name, entry in metrics.items()}
        for source, metrics in document.items()
    }
    return over, begins


def latest(document: Document, source: str = AGENT) -> dict[str, float]:
    """Return the latest value of each of a source's metrics."""
    return {name: entry[_VALUE] for name, entry in document.get(source, {}).items()}


def _name(metric: Mapping[str, Any]) -> str:
    dimension = metric.get("Dimension")
    name = str(metric.get("MetricName", "?"))
    return f"{name} {dimension}" if dimension else name
