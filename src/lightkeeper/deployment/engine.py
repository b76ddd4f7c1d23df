"""Deployments as they happen: the fleet is asked, plans are carried out step by step, and results wait to be sent.

Threads: `deployment` asks and carries out (`run`); heartbeats take results from theirs (`result`, `acknowledge`).

A fleet that cannot be reached is asked again with growing pauses, said once when that begins and once when it ends. The
first look after a start, and every later one, comes at a random time within its period, so that devices that come back
together do not ask together.

Invariant: a step is in the journal before it begins and after it, and may be done twice (`plan.py`). At most one
deployment is under way; the next is begun once its result is in the journal.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from lightkeeper.backoff import Backoff
from lightkeeper.deployment.fetching import Fetching
from lightkeeper.deployment.journal import Journal
from lightkeeper.deployment.plan import Item, Phase, Plan, Step, words
from lightkeeper.errors import (
    AgentError,
    DeliveryInterrupted,
    DeploymentCutShort,
    ModelNotFound,
    Unexpected,
)
from lightkeeper.models.lifecycle import Models
from lightkeeper.models.record import Version
from lightkeeper.names import check_model_name
from lightkeeper.providers.fleet import Deployment, DeploymentResult, Fleet

WATCH_SECONDS = 0.5
"""How often it is looked whether a watch is over."""
CRASHES_MOST = 3
JOIN_SECONDS = 5.0
JITTER = 0.1
"""By what part of itself an interval may be shorter."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Polling:
    """When the fleet is asked: first within `first_seconds` of the start, then each `interval_seconds`, less a tenth.

    After a failure it is asked after the pauses of `retry`, which are no longer than the interval.
    """

    interval_seconds: float
    first_seconds: float
    retry: Backoff = Backoff(first_seconds=30.0, most_seconds=3600.0)  # noqa: RUF009  # frozen

    def wait_seconds(self, failures: int, draw: float) -> float:
        """Return how long to wait for the next look, after so many failures in a row."""
        if failures:
            return min(self.interval_seconds, self.retry.wait_seconds(failures, draw))
        return self.interval_seconds * (1 - JITTER * draw)


class Deployments:
    """Makes the loaded models what the fleet wants."""

    def __init__(  # noqa: PLR0913  # named collaborators, none of which can be left out
        self,
        fleet: Fleet,
        models: Models,
        journal: Journal,
        fetching: Fetching,
        *,
        polling: Polling,
        stopping: threading.Event,
        finished: Callable[[], None] = lambda: None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Take what deployments need; packages of one that was cut short are held from now on.

        `finished` is told that a result waits to be sent.
        """
        self._fleet = fleet
        self._models = models
        self._journal = journal
        self._fetching = fetching
        self._polling = polling
        self._stopping = stopping
        self._finished = finished
        self._draw = draw
        self._failures = 0
        self._thread = threading.Thread(target=self.run, name="deployment", daemon=True)
        self._models.hold(journal.plan.digests() if journal.plan else frozenset())

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a deployment under way goes on at the next start."""
        self._stopping.set()
        self._thread.join(JOIN_SECONDS)

    def result(self) -> DeploymentResult | None:
        """Return the oldest result that the fleet has not yet, for the next heartbeat."""
        return self._journal.result()

    def acknowledge(self, result: DeploymentResult) -> None:
        """Forget a result that a heartbeat has carried to the fleet."""
        try:
            self._journal.acknowledge(result)
        except OSError as error:
            log.warning("deployment_journal_unwritable", extra={"error": str(error)})
            return
        if self._journal.result() is not None:
            self._finished()

    def run(self) -> None:
        """Carry out what was cut short, then ask and carry out, until the agent stops."""
        while not self._models.wait_until_restored(WATCH_SECONDS):
            if self._stopping.is_set():
                return
        wait_seconds = 0.0 if self._journal.plan else self._draw() * self._polling.first_seconds
        while not self._stopping.wait(wait_seconds):
            try:
                more = self.once()
                wait_seconds = 0.0 if more else self._polling.wait_seconds(self._failures, self._draw())
            except DeliveryInterrupted:
                return
            except OSError as error:
                log.error("deployment_journal_unwritable", extra={"error": str(error)})  # noqa: TRY400  # a disk, no bug
                wait_seconds = self._polling.retry.most_seconds
            except Exception:
                log.exception("deployment_stopped_unexpectedly")
                wait_seconds = self._polling.retry.most_seconds

    def once(self) -> bool:
        """Carry out the deployment under way, or ask for one and do that; return whether there was one.

        Raises `DeliveryInterrupted` where the agent stops in the middle, `OSError` where the journal cannot be written.
        """
        plan = self._journal.plan
        if plan is not None:
            plan = replace(plan, crashes=plan.crashes + 1)
            self._journal.save(plan)
            log.info("deployment_resumed", extra={"deployment": plan.deployment.name, "crashes": plan.crashes})
        else:
            deployment = self._look()
            if deployment is None:
                return False
            plan = Plan.begin(deployment, _now_ms())
            self._journal.save(plan)
            log.info(
                "deployment_begun",
                extra={"deployment": deployment.name, "models": [each.handle for each in deployment.definitions]},
            )
        self._carry_out(plan)
        return True

    def _look(self) -> Deployment | None:
        try:
            offered = self._fleet.get_deployments()
        except AgentError as fault:
            if not self._failures:
                log.warning("deployments_away", extra={"reason": fault.reason, "detail": fault.message})
            self._failures += 1
            return None
        if self._failures:
            log.info("deployments_back", extra={"failures": self._failures})
        self._failures = 0
        return next((each for each in offered if not self._journal.is_done(each)), None)

    def _carry_out(self, plan: Plan) -> None:
        while (step := plan.next()) is not None:
            if self._stopping.is_set():
                self._stand(plan)
            verb, number = step
            item = plan.items[number]
            try:
                after = self._done(verb, item, plan.crashes)
            except DeliveryInterrupted:
                self._stand(plan)
            except AgentError as error:
                after = self._refused(verb, item, error)
            except Exception as error:
                log.exception("deployment_step_failed", extra={"deployment": plan.deployment.name, "step": verb})
                after = self._refused(verb, item, Unexpected(f"{type(error).__name__}; the agent's log tells more"))
            if after.cause and not item.cause:
                log.warning("deployment_model_failed", extra={"model": item.definition.handle, "detail": after.cause})
            plan = plan.with_item(number, after)
            self._journal.save(plan)
        running = frozenset(each.name for each in self._models.status())
        result = plan.result(_now_ms(), running)
        self._journal.finish(plan, result)
        self._models.hold(frozenset())
        self._fetching.clear()
        facts = {"deployment": result.name, "succeeded": result.succeeded, "detail": result.message}
        log.log(logging.INFO if result.succeeded else logging.WARNING, "deployment_finished", extra=facts)
        self._finished()

    def _stand(self, plan: Plan) -> None:
        """Leave a plan where it is: the agent was asked to stop, and did not die of this step."""
        self._journal.save(replace(plan, crashes=0))
        raise DeliveryInterrupted("the agent stops; the deployment goes on at the next start")

    def _done(self, step: Step, item: Item, crashes: int) -> Item:
        """Do a step, and return the item after it."""
        match step:
            case Step.FETCH:
                return self._fetched(item)
            case Step.BEGIN:
                self._models.forget_returned(item.definition.handle)
                return replace(item, phase=Phase.CHANGING, before=self._models.version(item.definition.handle))
            case Step.CHANGE:
                return self._changed(item, crashes)
            case Step.SETTLE:
                return self._settled(item)
            case Step.PUT_BACK:
                self._models.put_back(item.definition.handle, item.before)
                return replace(item, phase=Phase.RETURNED)

    def _fetched(self, item: Item) -> Item:
        check_model_name(item.definition.handle)
        archive = self._fetching.fetch(item.definition)
        package = self._models.keep(str(archive))
        archive.unlink(missing_ok=True)
        return replace(item, phase=Phase.KEPT, package=package)

    def _changed(self, item: Item, crashes: int) -> Item:
        name = item.definition.handle
        if crashes >= CRASHES_MOST:
            raise DeploymentCutShort(f"the agent died {crashes} times while it changed {name}", model=name)
        if item.package is None:
            try:
                self._models.unload(name)
            except ModelNotFound:
                log.info("model_absent_already", extra={"model": name})
        elif (taken_back := self._taken_back(item)) is not None:
            return taken_back  # by its watch, before the journal had it
        else:
            self._models.deploy(name, Version(item.package, item.definition.url))
        return replace(item, phase=Phase.CHANGED)

    def _settled(self, item: Item) -> Item:
        """Wait for the watch of a changed model to end."""
        name = item.definition.handle
        while item.package is not None:
            taken_back = self._taken_back(item)
            if taken_back is not None:
                return taken_back
            entry = self._models.entry(name)
            if entry is None or not entry.on_trial or entry.current.package.digest != item.package.digest:
                break
            if self._stopping.wait(WATCH_SECONDS):
                raise DeliveryInterrupted("the agent stops; the watch goes on at the next start")
        return replace(item, phase=Phase.SETTLED)

    def _taken_back(self, item: Item) -> Item | None:
        """Return the item of a model whose new version was taken back by its watch."""
        entry = self._models.entry(item.definition.handle)
        returned = entry.returned if entry else None
        if returned is None or item.package is None or returned.digest != item.package.digest:
            return None
        return replace(item, phase=Phase.FAILED, cause=f"{returned.reason}: {returned.message}")

    def _refused(self, step: Step, item: Item, error: AgentError) -> Item:
        """Return the item of a step that was refused; a change that was, wholly or not, leaves what ran before."""
        if step is Step.PUT_BACK:
            return replace(item, phase=Phase.RETURNED, rollback_cause=words(error))
        failed = item.failed(error)
        if step is Step.CHANGE:
            try:
                self._models.put_back(item.definition.handle, item.before)
            except AgentError as fault:
                return replace(failed, rollback_cause=words(fault))
        return failed


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
