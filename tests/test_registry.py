"""Loaded models, the calls that use them, and how a model leaves."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from lightkeeper.errors import ModelAlreadyLoaded, ModelNotFound
from lightkeeper.model import ModelDescription, PackageIdentity
from lightkeeper.registry import LoadedModel, Registry
from lightkeeper.runtimes.base import Array
from lightkeeper.tensor import DataType, TensorMetadata


class CountingSession:
    """A session that notes its closing, and whether a call was under way then."""

    inputs = (TensorMetadata("x", DataType.FLOAT32, (1,)),)
    optional_inputs = ()
    outputs = (TensorMetadata("y", DataType.FLOAT32, (1,)),)

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.times_closed = 0
        self.used_after_close = False

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Answer the input."""
        self.used_after_close |= self.closed.is_set()
        return [np.asarray(inputs["x"])]

    def close(self) -> None:
        """Note it."""
        self.times_closed += 1
        self.closed.set()


def loaded(name: str, session: CountingSession) -> LoadedModel:
    """Return a model of that name."""
    description = ModelDescription(name, f"/packages/{name}", session.inputs, session.outputs)
    return LoadedModel(description, PackageIdentity(name, "1.0", "0" * 64), session)


@pytest.fixture
def registry() -> Registry:
    """An empty registry."""
    return Registry()


def publish(registry: Registry, name: str) -> CountingSession:
    """Load a model as the service does."""
    session = CountingSession()
    with registry.reserve(name):
        registry.publish(loaded(name, session))
    return session


def test_a_published_model_is_found_until_it_is_removed(registry: Registry) -> None:
    """Listing and describing agree."""
    publish(registry, "a")
    publish(registry, "b")
    assert [model.name for model in registry.list()] == ["a", "b"]
    assert registry.describe("a").url == "/packages/a"
    registry.take("a").close()
    assert [model.name for model in registry.list()] == ["b"]


@pytest.mark.parametrize("verb", ["acquire", "describe", "take"])
def test_an_unknown_name_is_refused(registry: Registry, verb: str) -> None:
    """The refusal names it."""
    with pytest.raises(ModelNotFound) as caught:
        getattr(registry, verb)("ghost")
    assert caught.value.facts == {"model": "ghost"}


def test_a_name_in_use_is_refused(registry: Registry) -> None:
    """Whether its model is loaded already or just being loaded."""
    publish(registry, "a")
    with pytest.raises(ModelAlreadyLoaded) as caught, registry.reserve("a"):
        pytest.fail("the name was given twice")
    assert caught.value.facts["state"] == "loaded"
    with registry.reserve("b"), pytest.raises(ModelAlreadyLoaded) as caught, registry.reserve("b"):
        pytest.fail("the name was given twice")
    assert caught.value.facts["state"] == "being loaded"


def test_a_failed_load_frees_its_name(registry: Registry) -> None:
    """The next load of the same name may succeed."""
    with pytest.raises(ValueError, match="broken"), registry.reserve("a"):
        raise ValueError("broken")
    publish(registry, "a")
    assert registry.describe("a").name == "a"


def test_removing_waits_for_the_calls_under_way(registry: Registry) -> None:
    """The session is closed once, after the last call has left; new calls are refused meanwhile."""
    session = publish(registry, "a")
    first, second = registry.acquire("a"), registry.acquire("a")
    remover = threading.Thread(target=lambda: registry.take("a").close())
    remover.start()
    while registry.list():
        pass
    with pytest.raises(ModelNotFound):
        registry.acquire("a")
    first.leave()
    assert not session.closed.wait(0.05)
    second.leave()
    assert session.closed.wait(5)
    remover.join()
    assert session.times_closed == 1


def test_a_name_is_free_while_its_old_model_still_works(registry: Registry) -> None:
    """A long call does not keep an application from loading the next version."""
    publish(registry, "a")
    old = registry.acquire("a")
    remover = threading.Thread(target=lambda: registry.take("a").close())
    remover.start()
    while registry.list():
        pass
    publish(registry, "a")
    new = registry.acquire("a")
    assert new is not old
    new.leave()
    old.leave()
    remover.join()


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Make the interpreter change threads every few instructions."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("eager_switching")
def test_no_call_ever_uses_a_closed_session(registry: Registry) -> None:
    """Callers and a loader that changes the model under them, a few thousand times."""
    sessions: list[CountingSession] = []
    done = threading.Event()
    answered = [0, 0, 0]
    x = np.zeros(1, np.float32)

    def call(worker: int) -> None:
        while not done.is_set():
            try:
                model = registry.acquire("a")
            except ModelNotFound:
                continue
            try:
                model.session.run({"x": x})
                answered[worker] += 1
            finally:
                model.leave()

    callers = [threading.Thread(target=call, args=(worker,)) for worker in range(len(answered))]
    for caller in callers:
        caller.start()
    for round_number in range(1000):
        sessions.append(publish(registry, "a"))
        while sum(answered) <= round_number:
            pass
        registry.take("a").close()
    done.set()
    for caller in callers:
        caller.join()
    assert not any(session.used_after_close for session in sessions)
    assert all(session.times_closed == 1 for session in sessions)
    assert sum(answered) >= len(sessions)
