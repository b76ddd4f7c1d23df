"""One check of a device: what it needs, and how long it may take."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from lightkeeper.doctor.diagnosis import Diagnosis, failed, refused
from lightkeeper.errors import AgentError, DestinationUnreachable

LOCAL_SECONDS = 90.0
NETWORK_SECONDS = 30.0
UPLOAD_SECONDS = 60.0
"""How long a check may take; what it asks has shorter bounds of its own."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check: the fields of the configuration that it uses, the checks it builds on, and its bound.

    Without a bound in `seconds` it has one of its own.
    """

    name: str
    run: Callable[[], Diagnosis]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    seconds: float | None = LOCAL_SECONDS


def bounded(check: Check) -> Diagnosis:
    """Run a check, in a thread of its own where it has a bound, and wait no longer than that."""
    if check.seconds is None:
        return _made(check)
    outcome: list[Diagnosis] = []
    thread = threading.Thread(target=lambda: outcome.append(_made(check)), name=f"doctor-{check.name}", daemon=True)
    thread.start()
    thread.join(check.seconds)
    if outcome:
        return outcome[0]
    return failed(
        f"there was no answer within {check.seconds:g} s",
        fix="look at the disk or network that this check uses, then run it again",
        reason=DestinationUnreachable.reason if check.seconds != LOCAL_SECONDS else "",
    )


def _made(check: Check) -> Diagnosis:
    try:
        return check.run()
    except AgentError as error:
        return refused(error)
    except Exception as fault:  # noqa: BLE001  # one check that breaks must not hide what the others find
        return failed(f"the check itself broke: {fault!r}", fix="report this as a fault of Lightkeeper")
