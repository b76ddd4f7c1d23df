"""The loaded models by name, and the calls that use them.

Invariants:

- A name is free, reserved (its model is being loaded) or published; only one load at a time holds a name.
- Predict takes no lock: it finds the model in a dictionary, enters its call in the model's list, and only then looks
  whether the model is closing. Unloading marks the model as closing first and looks at the list afterwards. Whichever
  comes second sees the other, since each of these steps is one atomic operation of the interpreter.
- A session is closed once, after its last call has left.
- A name that is replaced is never without a model: the dictionary's entry goes from the old one to the new one in one
  step. Calls that found the old one end there; it is the caller's to close, or to put back.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic_ns

from lightkeeper.binding import Binding
from lightkeeper.errors import ModelAlreadyLoaded, ModelNotFound
from lightkeeper.metrics import Metrics
from lightkeeper.model import ModelDescription, PackageIdentity
from lightkeeper.recent import RecentInputs
from lightkeeper.runtimes.base import Array, Session


class LoadedModel:
    """A published model: what it says of itself, how calls bind to it, its open session, and what it has done."""

    __slots__ = ("_calls", "_closing", "_drained", "binding", "description", "metrics", "package", "recent", "session")

    def __init__(
        self,
        description: ModelDescription,
        package: PackageIdentity,
        session: Session,
        recent: RecentInputs | None = None,
    ) -> None:
        """Take what a model is made of; `recent` keeps some of its inputs, where that is wanted."""
        self.description = description
        self.package = package
        self.session = session
        self.metrics = Metrics()
        self.recent = RecentInputs(0) if recent is None else recent
        self.binding = Binding(session.inputs, session.optional_inputs)
        self._calls: list[None] = []
        self._closing = False
        self._drained = threading.Event()

    def enter(self) -> bool:
        """Count a call in; False if the model is closing, and the caller must not use it."""
        self._calls.append(None)
        if self._closing:
            self.leave()
            return False
        return True

    def leave(self) -> None:
        """Count a call out."""
        self._calls.pop()
        if self._closing and not self._calls:
            self._drained.set()

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Run the session once, and count it (see `Session.run`)."""
        started_ns = monotonic_ns()
        try:
            arrays = self.session.run(inputs)
        except BaseException:
            self.metrics.failed()
            raise
        ended_ns = monotonic_ns()
        self.metrics.answered(started_ns, ended_ns)
        if ended_ns >= self.recent.due_ns:
            self.recent.keep(inputs, ended_ns)
        return arrays

    def close(self) -> None:
        """Let no more calls in, wait for those under way, and give the session's memory back."""
        self._closing = True
        if self._calls:
            self._drained.wait()
        self.session.close()


class Registry:
    """Every loaded model. Thread-safe; its lock guards changes only, and is not held while a model loads or closes."""

    def __init__(self) -> None:
        self._models: dict[str, LoadedModel] = {}
        self._reserved: set[str] = set()
        self._changing = threading.Lock()

    def acquire(self, name: str) -> LoadedModel:
        """Return the model with this call entered; the caller must `leave` it. Raises `ModelNotFound`."""
        while True:
            model = self._models.get(name)
            if model is None:
                raise not_loaded(name)
            if model.enter():
                return model

    def describe(self, name: str) -> ModelDescription:
        """Return what the model says of itself. Raises `ModelNotFound`."""
        return self.find(name).description

    def package_of(self, name: str) -> PackageIdentity:
        """Return which package the model came from. Raises `ModelNotFound`."""
        return self.find(name).package

    def list(self) -> list[ModelDescription]:
        """Return every loaded model, in the order they were loaded."""
        return [model.description for model in self.models()]

    @contextmanager
    def reserve(self, name: str) -> Iterator[None]:
        """Hold a name while its model is being loaded. Raises `ModelAlreadyLoaded`."""
        with self._changing:
            if name in self._models or name in self._reserved:
                state = "loaded" if name in self._models else "being loaded"
                raise ModelAlreadyLoaded(f"a model named {name} is {state}", model=name, state=state)
            self._reserved.add(name)
        try:
            yield
        finally:
            with self._changing:
                self._reserved.discard(name)

    def publish(self, model: LoadedModel) -> None:
        """Make a model reachable under its name, which the caller has reserved."""
        with self._changing:
            self._models[model.description.name] = model

    def find(self, name: str) -> LoadedModel:
        """Return the model under a name, with no call entered. Raises `ModelNotFound`."""
        model = self._models.get(name)
        if model is None:
            raise not_loaded(name)
        return model

    def models(self) -> tuple[LoadedModel, ...]:
        """Return every loaded model, in the order they were loaded."""
        return tuple(self._models.values())

    def replace(self, old: LoadedModel, new: LoadedModel) -> None:
        """Put a model in another's place: calls from now on go to it. The caller closes the old one, or puts it back.

        Raises `ModelNotFound` where the old one is no longer what its name leads to.
        """
        name = old.description.name
        with self._changing:
            if self._models.get(name) is not old:
                raise not_loaded(name)
            self._models[name] = new

    def take(self, name: str) -> LoadedModel:
        """Take a model away, for the caller to close. Raises `ModelNotFound`."""
        with self._changing:
            model = self._models.pop(name, None)
        if model is None:
            raise not_loaded(name)
        return model


def not_loaded(name: str) -> ModelNotFound:
    """Return the refusal for a name under which nothing is loaded."""
    return ModelNotFound(f"no model named {name!r} is loaded", model=name)
