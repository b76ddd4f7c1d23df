"""What comes next in a deployment: a pure state machine. No clock, no disk, no model.

A definition goes through these phases, each of them in the journal before the next step begins:

    WAITING --Fetch--> KEPT --Begin--> CHANGING --Change--> CHANGED --Settle--> SETTLED
       `---------------- any refusal ----------------> FAILED
                                     CHANGING, CHANGED, SETTLED --PutBack--> RETURNED

All packages are fetched and verified before the first model changes. Models are then changed one after the other, and
each is watched to its end; UNDEPLOY comes last, since nothing watches what is gone. When one fails under
ROLLBACK_ON_FAILURE, what was changed is put back, the last first; under DO_NOTHING the others go on.

Invariant: `before`, what ran when the change began, is known from CHANGING on; so a step that is done twice, because
the process died between the step and its entry in the journal, ends where one does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from lightkeeper.errors import AgentError, HandleTwice, TakenBack
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


class Phase(StrEnum):
    """How far a definition is."""

    WAITING = "waiting"
    KEPT = "kept"
    CHANGING = "changing"
    CHANGED = "changed"
    SETTLED = "settled"
    FAILED = "failed"
    RETURNED = "returned"


_OVER = frozenset({Phase.SETTLED, Phase.FAILED, Phase.RETURNED})
_TOUCHED = frozenset({Phase.CHANGING, Phase.CHANGED, Phase.SETTLED})


class Step(StrEnum):
    """What is to be done with one definition."""

    FETCH = "fetch"
    BEGIN = "begin"
    CHANGE = "change"
    SETTLE = "settle"
    PUT_BACK = "put back"


@dataclass(frozen=True, slots=True)
class Item:
    """A definition, and how far it is. `cause` and `rollback_cause` say why it failed: reason code and message."""

    definition: Definition
    phase: Phase = Phase.WAITING
    package: PackageIdentity | None = None
    before: Version | None = None
    cause: str = ""
    rollback_cause: str = ""

    @property
    def wants_package(self) -> bool:
        """Whether something is to run."""
        return self.definition.state is DesiredState.DEPLOY

    def failed(self, error: AgentError) -> Item:
        """Return the item after a refusal."""
        return replace(self, phase=Phase.FAILED, cause=words(error))


@dataclass(frozen=True, slots=True)
class Plan:
    """A deployment under way. `crashes` counts the agent's deaths at the present step."""

    deployment: Deployment
    started_ms: int
    items: tuple[Item, ...]
    crashes: int = 0

    @classmethod
    def begin(cls, deployment: Deployment, now_ms: int) -> Plan:
        """Return the plan of a new deployment."""
        seen: set[str] = set()
        items = []
        for definition in deployment.definitions:
            item = Item(definition)
            if definition.handle in seen:
                item = item.failed(HandleTwice(f"the handle {definition.handle} is there twice"))
            seen.add(definition.handle)
            items.append(item)
        return cls(deployment, now_ms, tuple(items))

    @property
    def rolls_back(self) -> bool:
        """Whether what was changed is to be put back."""
        failed = any(item.phase is Phase.FAILED for item in self.items)
        return failed and self.deployment.policy is FailurePolicy.ROLLBACK_ON_FAILURE

    def next(self) -> tuple[Step, int] | None:
        """Return the next step and the number of its definition, or None where the deployment is over."""
        numbered = list(enumerate(self.items))
        if self.rolls_back:
            touched = (number for number, item in reversed(numbered) if item.phase in _TOUCHED)
            return next(((Step.PUT_BACK, number) for number in touched), None)
        for number, item in numbered:
            if item.phase is Phase.WAITING and item.wants_package:
                return Step.FETCH, number
        changes_first = sorted(numbered, key=lambda pair: not pair[1].wants_package)
        for number, item in changes_first:
            match item.phase:
                case Phase.WAITING | Phase.KEPT:
                    return Step.BEGIN, number
                case Phase.CHANGING:
                    return Step.CHANGE, number
                case Phase.CHANGED:
                    return Step.SETTLE, number
        return None

    def with_item(self, number: int, item: Item) -> Plan:
        """Return the plan after a step."""
        items = (*self.items[:number], item, *self.items[number + 1 :])
        return replace(self, items=items, crashes=0)

    def digests(self) -> frozenset[str]:
        """Return the packages that the plan may still need."""
        packages = [item.package for item in self.items] + [item.before.package for item in self.items if item.before]
        return frozenset(package.digest for package in packages if package is not None)

    def result(self, now_ms: int, running: frozenset[str]) -> DeploymentResult:
        """Return what became of it; `running` has the handles under which a model is loaded now."""
        models = tuple(
            _result(item, running=item.definition.handle in running, over=self.rolls_back) for item in self.items
        )
        wrong = [model.handle for model in models if not model.succeeded]
        if not wrong:
            message = "done"
        elif self.rolls_back:
            stuck = [model.handle for model in models if model.rollback_failure]
            message = (
                f"failed: {', '.join(item.definition.handle for item in self.items if item.phase is Phase.FAILED)}; "
            )
            message += f"not put back: {', '.join(stuck)}" if stuck else "every model is what it was before"
        else:
            message = f"failed: {', '.join(wrong)}; the others are done"
        return DeploymentResult(self.deployment.name, not wrong, message, self.started_ms, now_ms, models)


def words(error: AgentError) -> str:
    """Return a refusal in one line, with its reason code."""
    return f"{error.reason}: {error.message}"


def _result(item: Item, *, running: bool, over: bool) -> ModelResult:
    cause = item.cause
    if not cause and over and item.phase is not Phase.FAILED:
        cause = words(TakenBack("another model of the deployment failed"))
    return ModelResult(
        handle=item.definition.handle,
        name=item.package.name if item.package else "",
        version=item.package.version if item.package else "",
        desired_state=item.definition.state,
        state=DesiredState.DEPLOY if running else DesiredState.UNDEPLOY,
        succeeded=not cause and item.phase in _OVER,
        reason=cause,
        rollback_failure=item.rollback_cause,
    )
