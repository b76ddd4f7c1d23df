"""What is remembered of deployments over restarts: the one under way, results nobody took yet, and those done with.

Invariants
1. The file is replaced as a whole, synced, before a step begins and after it; a kill leaves one step to be done again.
2. A result is kept until it is acknowledged; at most `RESULTS_MOST`, then the oldest goes, with a WARNING.
3. A deployment that is done with is not begun again, however often the fleet names it; the last `DONE_MOST` are known.
4. A file that cannot be read is set aside with a WARNING; one that cannot be written stops deployments, since a step
   that is not remembered could not be finished after a kill.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lightkeeper.deployment.plan import Item, Phase, Plan
from lightkeeper.model import PackageIdentity
from lightkeeper.models.record import Version
from lightkeeper.providers.fleet import (
    Definition,
    Deployment,
    DeploymentResult,
    DesiredState,
    FailurePolicy,
    ModelResult,
)
from lightkeeper.state import replace_file

FORMAT_VERSION = 1
RESULTS_MOST = 32
DONE_MOST = 64

log = logging.getLogger(__name__)


class Journal:
    """The file of deployments. The engine writes it; any thread may take results."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._plan: Plan | None = None
        self._results: tuple[DeploymentResult, ...] = ()
        self._done: tuple[str, ...] = ()
        self._read()

    @property
    def plan(self) -> Plan | None:
        """The deployment under way."""
        return self._plan

    def is_done(self, deployment: Deployment) -> bool:
        """Whether a deployment, with these very definitions, is done with."""
        return _fingerprint(deployment) in self._done

    def save(self, plan: Plan) -> None:
        """Remember how far the deployment under way is. Raises `OSError`; what was remembered before then stays."""
        with self._lock:
            self._write(plan, self._results, self._done)

    def finish(self, plan: Plan, result: DeploymentResult) -> None:
        """Remember that the deployment under way is done with, and its result. Raises `OSError`."""
        with self._lock:
            results = (*self._results, result)
            while len(results) > RESULTS_MOST:
                log.warning("deployment_result_dropped", extra={"deployment": results[0].name, "kept": RESULTS_MOST})
                results = results[1:]
            done = (*self._done, _fingerprint(plan.deployment))[-DONE_MOST:]
            self._write(None, results, done)

    def result(self) -> DeploymentResult | None:
        """Return the oldest result that was not acknowledged yet."""
        with self._lock:
            return self._results[0] if self._results else None

    def acknowledge(self, result: DeploymentResult) -> None:
        """Forget a result that the fleet has. Raises `OSError`; it is then sent again."""
        with self._lock:
            left = tuple(kept for kept in self._results if kept != result)
            if left != self._results:
                self._write(self._plan, left, self._done)

    def _write(self, plan: Plan | None, results: tuple[DeploymentResult, ...], done: tuple[str, ...]) -> None:
        document = {
            "format_version": FORMAT_VERSION,
            "plan": None if plan is None else asdict(plan),
            "results": [asdict(result) for result in results],
            "done": done,
        }
        replace_file(self._path, json.dumps(document, indent=1).encode())
        self._plan, self._results, self._done = plan, results, done

    def _read(self) -> None:
        try:
            document = json.loads(self._path.read_bytes())
            if document["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format version {document['format_version']}")  # noqa: TRY301  # one place to say it
            plan = None if document["plan"] is None else _plan(document["plan"])
            results = tuple(_result(item) for item in document["results"])
            self._plan, self._results, self._done = plan, results, tuple(map(str, document["done"]))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("deployment_journal_unreadable", extra={"file": str(self._path), "error": str(error)})
            with contextlib.suppress(OSError):
                self._path.replace(self._path.with_suffix(".unreadable"))


def _fingerprint(deployment: Deployment) -> str:
    return hashlib.sha256(json.dumps(asdict(deployment), sort_keys=True).encode()).hexdigest()


def _plan(item: dict[str, Any]) -> Plan:
    return Plan(
        _deployment(item["deployment"]),
        int(item["started_ms"]),
        tuple(_item(each) for each in item["items"]),
        int(item["crashes"]),
    )


def _deployment(item: dict[str, Any]) -> Deployment:
    definitions = tuple(_definition(each) for each in item["definitions"])
    return Deployment(item["name"], FailurePolicy(item["policy"]), definitions)


def _definition(item: dict[str, Any]) -> Definition:
    return replace(Definition(**item), state=DesiredState(item["state"]))


def _item(item: dict[str, Any]) -> Item:
    package, before = item["package"], item["before"]
    return Item(
        _definition(item["definition"]),
        Phase(item["phase"]),
        None if package is None else PackageIdentity(**package),
        None if before is None else Version(PackageIdentity(**before["package"]), before["url"]),
        item["cause"],
        item["rollback_cause"],
    )


def _result(item: dict[str, Any]) -> DeploymentResult:
    models = tuple(
        replace(
            ModelResult(**each),
            desired_state=DesiredState(each["desired_state"]),
            state=DesiredState(each["state"]),
        )
        for each in item["models"]
    )
    return replace(DeploymentResult(**item), models=models)
