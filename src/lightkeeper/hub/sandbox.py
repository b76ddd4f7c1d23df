"""Starting a worker for one step of a job, watching over it, and ending it, whatever becomes of either.

Invariant: when `run` returns or raises, the worker's process group is gone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightkeeper.errors import AgentError, JobTimedOut, Unexpected, WorkerDied, concrete_errors
from lightkeeper.hub.worker import OUTCOME

POLL_SECONDS = 0.05
OUTCOME_MAXIMUM_BYTES = 4 * 1024 * 1024
LOG_TAIL_BYTES = 2000

_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT", "LD_LIBRARY_PATH")
"""What a worker sees of the hub's environment, which has secrets."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Confines:
    """What one step may take."""

    memory_bytes: int
    file_bytes: int
    wall_seconds: float


def run(
    step: str, task: Mapping[str, Any], folder: Path, confines: Confines, check: Callable[[], None]
) -> dict[str, str]:
    """Do a step in a process of its own in a folder, and return its facts.

    `check` is called all the while; what it raises ends the worker. Raises `JobTimedOut`, `WorkerDied`, or what the
    step raised.
    """
    deadline = time.monotonic() + confines.wall_seconds
    outcome = folder / OUTCOME
    outcome.unlink(missing_ok=True)
    order = {
        "step": step,
        "task": task,
        "parent": os.getpid(),
        "memory_bytes": confines.memory_bytes,
        "file_bytes": confines.file_bytes,
    }
    log = folder / f"{step}.log"
    with log.open("wb") as errors, _started(folder, errors.fileno()) as process:
        assert process.stdin is not None  # noqa: S101  # it was asked for
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(json.dumps(order).encode())
        while not _has_ended(process.pid):
            check()
            if time.monotonic() > deadline:
                raise JobTimedOut(f"TimeOut: the step {step} took more than {confines.wall_seconds:g} seconds")
            time.sleep(POLL_SECONDS)
    code = process.returncode
    if code != 0:
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        tail = log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        logger.warning("job_worker_died", extra={"step": step, "how": how, "stderr": tail})
        raise WorkerDied(f"the process of the step {step} died of {how}", step=step, how=how)
    return _read(outcome)


def _has_ended(pid: int) -> bool:
    """Tell whether a child has ended, without giving its number free: its group is still to be ended by it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


@contextlib.contextmanager
def _started(folder: Path, errors: int) -> Iterator[subprocess.Popen[bytes]]:
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TMPDIR": str(folder), "HOME": str(folder)}
    process = subprocess.Popen(
        [sys.executable, "-I", "-m", "lightkeeper.hub.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        cwd=folder,
        env=environment,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with whatever it started
        process.wait()


def _read(outcome: Path) -> dict[str, str]:
    """Return the facts of an outcome, or raise the error that it tells; what it says is not trusted to be either."""
    try:
        if outcome.is_symlink() or outcome.stat().st_size > OUTCOME_MAXIMUM_BYTES:
            raise Unexpected("a worker left something else than an outcome")
        said = json.loads(outcome.read_bytes())
        facts = {str(key): str(value) for key, value in said["facts"].items() if key != "message"}
        reason = said.get("reason")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise WorkerDied("the process of a step ended without an outcome") from error
    if reason is None:
        return facts
    kind: type[AgentError] = concrete_errors().get(str(reason), Unexpected)
    raise kind(str(said.get("message", "")), **facts)
