"""The outcome: what a device's DeploymentResult says. Pure.

The service model leaves `DeploymentStatus` open (a word of the agent's), and closes each model's `Status` (SUCCESS or
FAIL). So, in this order: a model that failed makes the whole fail; a word that means success or failure counts; a word
that means it goes on is no final answer; without a word every handle's model must have succeeded; any other word is an
error's code, final once there is an end time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

SUCCESS = frozenset({"SUCCESS", "SUCCEEDED", "DEPLOYED", "COMPLETED"})
FAILURE = frozenset({"FAIL", "FAILED", "FAILURE", "ERROR", "ROLLEDBACK"})
GOES_ON = frozenset({"INPROGRESS", "IN-PROGRESS", "PENDING", "STARTED", "STARTING", "RUNNING"})

MESSAGE_MAXIMUM = 1000
"""Characters kept of what a device says."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A final answer. `done` are the handles that are as the deployment wants them.

    `clean` is whether the device is whole: as the deployment wants it, or as it was before.
    """

    succeeded: bool
    done: frozenset[str]
    clean: bool
    message: str


def outcome(result: Mapping[str, Any], handles: Collection[str]) -> Outcome | None:
    """Return what a result says of a deployment about these handles; None where it is not final."""
    models = {model["ModelHandle"]: model for model in result.get("DeploymentModels", ()) if "ModelHandle" in model}
    word = result.get("DeploymentStatus", "").upper()
    failed = [model for model in models.values() if model.get("Status") == "FAIL"]
    done = frozenset(handle for handle in handles if models.get(handle, {}).get("Status") == "SUCCESS")
    if failed or word in FAILURE:
        succeeded = False
    elif word in SUCCESS or (not word and done == set(handles)):
        succeeded = True
    elif word in GOES_ON or not word or "DeploymentEndTime" not in result:
        return None
    else:
        succeeded = False
    if succeeded:
        return Outcome(succeeded=True, done=frozenset(handles), clean=True, message=_message(result, word, ()))
    clean = not done and not any(model.get("RollbackFailureReason") for model in models.values())
    return Outcome(succeeded=False, done=done, clean=clean, message=_message(result, word, failed))


def _message(result: Mapping[str, Any], word: str, failed: Collection[Mapping[str, Any]]) -> str:
    """Return what the device says of it, in one line."""
    said = [result.get("DeploymentStatusMessage", "")]
    for model in failed:
        reasons = [model.get("StatusReason", ""), model.get("RollbackFailureReason", "")]
        said.append(f"{model.get('ModelHandle', '?')}: {'; not rolled back: '.join(filter(None, reasons))}")
    text = "; ".join(" ".join(one.split()) for one in said if one.strip(": "))
    return (text or word)[:MESSAGE_MAXIMUM]
