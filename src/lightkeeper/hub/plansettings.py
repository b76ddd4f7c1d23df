"""How a plan is rolled out: what the API's shapes have no field for, as tags of the plan.

| tag | takes | without it |
| --- | --- | --- |
| `lightkeeper:batch-size` | devices at it at once: `20`, or a share of the stage, `0.1` | `rollout_batch_size` |
| `lightkeeper:failure-threshold` | failed devices that stop the stage: `3` or `0.1` | `rollout_failure_threshold` |
| `lightkeeper:silence-threshold` | silent ones of those that took it: `5` or `0.5` | `rollout_silence_threshold` |
| `lightkeeper:device-timeout-seconds` | how long a device may take, 1 to 2592000 | `rollout_device_timeout_seconds` |

The last column names the hub's setting. A plan keeps what was in force when it was made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lightkeeper.errors import PlanTagInvalid
from lightkeeper.hub.rollout import Amount, RolloutSettings
from lightkeeper.hub.settings import Settings

PREFIX = "lightkeeper:"
TIMEOUT_MAXIMUM_SECONDS = 30 * 86_400
ROLLBACK = "ROLLBACK_ON_FAILURE"
"""The API's word for the policy that rolls back, and its default."""

BATCH, FAILURES, SILENCE, TIMEOUT = (
    "batch-size",
    "failure-threshold",
    "silence-threshold",
    "device-timeout-seconds",
)


def read_tags(tags: Iterable[Mapping[str, str]], settings: Settings) -> dict[str, str]:
    """Return a plan's settings as texts. Raises `PlanTagInvalid`, also for one of our tags that is none."""
    texts = {
        BATCH: settings.rollout_batch_size,
        FAILURES: settings.rollout_failure_threshold,
        SILENCE: settings.rollout_silence_threshold,
        TIMEOUT: str(settings.rollout_device_timeout_seconds),
    }
    for tag in tags:
        key, value = tag["Key"], tag["Value"]
        if not key.startswith(PREFIX):
            continue
        name = key.removeprefix(PREFIX)
        if name not in texts:
            known = ", ".join(PREFIX + one for one in texts)
            raise PlanTagInvalid(f"no setting of a plan is named {key}", tag=key, known=known)
        texts[name] = value
        try:
            _timeout_ms(value) if name == TIMEOUT else Amount.parse(value)
        except ValueError as error:
            raise PlanTagInvalid(f"{key} takes {error}, not {value!r}", tag=key, given=value) from error
    return texts


def rollout_settings(texts: Mapping[str, Any], policy: str) -> RolloutSettings:
    """Return what `rollout.py` works with."""
    return RolloutSettings(
        batch=Amount.parse(texts[BATCH]),
        failures=Amount.parse(texts[FAILURES]),
        silence=Amount.parse(texts[SILENCE]),
        device_timeout_ms=_timeout_ms(texts[TIMEOUT]),
        rolls_back=policy == ROLLBACK,
    )


def _timeout_ms(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= TIMEOUT_MAXIMUM_SECONDS:
        raise ValueError(f"whole seconds from 1 to {TIMEOUT_MAXIMUM_SECONDS}")
    return int(text) * 1000
