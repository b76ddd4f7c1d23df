"""Swap, rollback, restore and adoption as an application and an operator see them, on real agents."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from lightkeeper.cli import run
from lightkeeper.client import Client
from lightkeeper.errors import (
    ModelAlreadyLoaded,
    ModelNotFound,
    PreviousVersionMissing,
    SwapDisagrees,
    SwapInterfaceMismatch,
    SwapRunFailed,
    SwapTooSlow,
)
from lightkeeper.models.report import ModelStatus
from tests.conftest import PackageFactory
from tests.support import models
from tests.support.agents import AgentProcess
from tests.support.models_swapped import failing_above, heavy, scaled

X = np.array([[1, 2, 3, 4]], np.float32)
WAIT_SECONDS = 20.0
DIES_WITH_STATE = {"lightkeeper_swap_watch_seconds": 3600}

Start = Callable[..., AgentProcess]


@pytest.fixture
def start(tmp_path: Path, authority: Path) -> Iterator[Start]:
    """Start agents in one folder for one test, one after the other."""
    with ExitStack() as stack:

        def begin(**settings: object) -> AgentProcess:
            process = AgentProcess(tmp_path, authority / "certs", settings=settings, flags=("-f",))
            stack.callback(process.stop, signal.SIGKILL)
            return process.wait_until_started()

        yield begin


@pytest.fixture(scope="module")
def versions(make_package: PackageFactory) -> list[Path]:
    """Five versions of a model that multiplies by its version's number."""
    return [make_package(scaled(number), name="scaled", version=f"{number}.0") for number in range(1, 6)]


def status_of(client: Client, name: str) -> ModelStatus:
    """Return the status of one model."""
    return next(status for status in client.model_status() if status.name == name)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_SECONDS} s: {what}"
        time.sleep(0.02)


def first_of(client: Client, name: str = "m") -> float:
    """Return by what the model multiplies."""
    return float(client.predict(name, X)["y"][0, 0])


def test_a_swap_answers_with_the_new_version_and_reports_the_comparison(client: Client, versions: list[Path]) -> None:
    """The old version's last inputs are what both answered."""
    client.load_model(str(versions[0]), "m")
    assert first_of(client) == 1
    report = client.swap_model("m", str(versions[1]))
    assert first_of(client) == 2
    assert (report.old.version, report.new.version) == ("1.0", "2.0")
    assert report.comparison is not None
    assert (report.comparison.source, report.comparison.inputs) == ("recent", 1)
    (output,) = report.comparison.outputs
    assert (output.name, output.absolute_difference, output.relative_difference) == ("y", 4.0, 1.0)
    assert output.argmax_disagreement == 0
    status = status_of(client, "m")
    assert (status.package.version, status.reading.inferences) == ("2.0", 1)
    assert status.previous is not None
    assert status.previous.version == "1.0"
    assert client.describe_model("m").url == str(versions[1])


def test_without_inputs_zeros_are_compared_and_said(client: Client, versions: list[Path]) -> None:
    """A model that nobody called yet is swapped all the same."""
    client.load_model(str(versions[0]), "m")
    report = client.swap_model("m", str(versions[1]))
    assert report.comparison is not None
    assert (report.comparison.source, report.comparison.inputs) == ("zeros", 1)


def test_without_inputs_the_golden_one_is_compared(
    client: Client, versions: list[Path], make_package: PackageFactory, tmp_path: Path
) -> None:
    """A package that brings an input is compared on it."""
    np.savez(tmp_path / "x.npz", x=X)
    golden = make_package(scaled(3), "--golden-input", str(tmp_path / "x.npz"), name="scaled", version="3.1")
    client.load_model(str(versions[0]), "m")
    report = client.swap_model("m", str(golden))
    assert report.comparison is not None
    assert (report.comparison.source, report.comparison.outputs[0].absolute_difference) == ("golden", 8.0)


def test_the_running_package_is_left_alone(client: Client, versions: list[Path]) -> None:
    """A swap for what runs already says so, and compares nothing."""
    client.load_model(str(versions[0]), "m")
    report = client.swap_model("m", str(versions[0]))
    assert report.old == report.new
    assert report.comparison is None
    assert status_of(client, "m").previous is None


def test_rolling_back_goes_to_the_version_before_and_forth_again(client: Client, versions: list[Path]) -> None:
    """The last two versions are kept, whatever became of the files they came from."""
    client.load_model(str(versions[0]), "m")
    with pytest.raises(PreviousVersionMissing):
        client.roll_back_model("m")
    client.swap_model("m", str(versions[1]))
    client.swap_model("m", str(versions[2]))
    assert client.roll_back_model("m").new.version == "2.0"
    assert first_of(client) == 2
    assert client.roll_back_model("m").new.version == "3.0"
    assert first_of(client) == 3
    with pytest.raises(ModelNotFound):
        client.roll_back_model("ghost")


def test_other_shapes_are_refused_and_the_old_version_goes_on(client: Client, make_package: PackageFactory) -> None:
    """Whoever calls the old version could not call the new one."""
    client.load_model(str(make_package(models.doubled((1, 4)))), "m")
    for shape in [(1, 5), (4,)]:
        with pytest.raises(SwapInterfaceMismatch) as caught:
            client.swap_model("m", str(make_package(models.doubled(shape), version="2.0")))
        assert caught.value.facts["old"] == "x FLOAT32[1, 4]"
    assert first_of(client) == 2


def test_a_version_that_fails_where_the_old_one_answers_is_refused(
    client: Client, make_package: PackageFactory
) -> None:
    """The inputs of real calls find what zeros do not."""
    client.load_model(str(make_package(failing_above(1e9))), "m")
    client.predict("m", np.full(4, 7, np.float32))
    with pytest.raises(SwapRunFailed):
        client.swap_model("m", str(make_package(failing_above(5), version="2.0")))
    assert client.predict("m", np.full(4, 7, np.float32))["y"][0] == 7


def test_a_version_that_is_far_slower_is_refused(client: Client, make_package: PackageFactory) -> None:
    """By the configuration's three times, unless the package itself allows more."""
    client.load_model(str(make_package(heavy(1))), "m")
    with pytest.raises(SwapTooSlow) as caught:
        client.swap_model("m", str(make_package(heavy(100), version="2.0")))
    assert float(caught.value.facts["latency_ratio"]) > 3
    allowed = make_package(heavy(100), "--swap-limit", "latency_ratio=1e6", version="2.1")
    assert client.swap_model("m", str(allowed)).new.version == "2.1"


def test_the_packages_limit_on_differences_is_kept(
    client: Client, versions: list[Path], make_package: PackageFactory
) -> None:
    """Differences are unlimited unless the package or the configuration says otherwise."""
    client.load_model(str(versions[0]), "m")
    first_of(client)
    strict = make_package(scaled(2), "--swap-limit", "relative_difference=0.5", name="scaled", version="2.2")
    with pytest.raises(SwapDisagrees) as caught:
        client.swap_model("m", str(strict))
    assert caught.value.facts["limit"] == "relative_difference 0.5"
    assert first_of(client) == 1


def test_a_version_that_fails_while_it_is_watched_is_taken_back(
    client: Client, agent: AgentProcess, make_package: PackageFactory
) -> None:
    """Nobody has to be there: the old version answers again, and the status says why."""
    client.load_model(str(make_package(failing_above(1e9, factor=2))), "m")
    client.predict("m", np.zeros(4, np.float32))
    client.swap_model("m", str(make_package(failing_above(5, factor=3), version="2.0")))

    def answered_by_the_old() -> bool:
        try:
            return float(client.predict("m", np.full(4, 7, np.float32))["y"][0]) == 14
        except Exception:  # noqa: BLE001  # the new version fails on purpose
            return False

    wait_for(answered_by_the_old, "the old version is back")
    status = status_of(client, "m")
    assert status.package.version == "1.0"
    assert status.returned is not None
    assert status.returned.reason == "SWAP_RUN_FAILED"
    assert status.watch_seconds_left is None
    wait_for(
        lambda: "SWAP_RUN_FAILED" in [event["reason"] for event in agent.events("model_rolled_back")],
        "the log says so",
    )


def test_no_call_fails_while_versions_change(client: Client, agent: AgentProcess, versions: list[Path]) -> None:
    """Each answer is of one version, and in the order in which they came."""
    client.load_model(str(versions[0]), "m")
    stop, failures, answers = threading.Event(), [], []

    def call() -> None:
        with Client(agent.address) as own:
            while not stop.is_set():
                try:
                    answers.append(first_of(own))
                except Exception as error:  # noqa: BLE001  # any failure is what this test looks for
                    failures.append(error)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for package in versions[1:]:
        seen = len(answers)
        client.swap_model("m", str(package))
        wait_for(lambda seen=seen: len(answers) > seen + 20, "calls go on")  # type: ignore[misc]  # bound now
    stop.set()
    for caller in callers:
        caller.join()
    assert failures == []
    assert set(answers) == {1, 2, 3, 4, 5}
    assert first_of(client) == 5


def test_models_are_there_again_after_a_kill_and_the_application_adopts_them(
    start: Start, versions: list[Path]
) -> None:
    """The same package under the same name answers OK once, as if it had been loaded; another one is refused."""
    agent = start()
    with Client(agent.address) as client:
        client.load_model(str(versions[0]), "m")
        client.load_model(str(versions[1]), "n")
        client.unload_model("n")
        client.load_model(str(versions[2]), "n")
    agent.stop(signal.SIGKILL)
    agent = start()
    with Client(agent.address) as client:
        wait_for(lambda: len(client.list_models()) == 2, "both are restored")
        assert (first_of(client, "m"), first_of(client, "n")) == (1, 3)
        with pytest.raises(ModelAlreadyLoaded) as caught:
            client.load_model(str(versions[1]), "m")
        assert caught.value.facts["state"] == "restored"
        assert client.load_model(str(versions[0]), "m").name == "m"
        with pytest.raises(ModelAlreadyLoaded):
            client.load_model(str(versions[0]), "m")
    assert agent.stop() == 0


def test_an_application_that_is_there_first_waits_and_adopts(start: Start, versions: list[Path]) -> None:
    """LoadModel right after the start gives one answer, whether the model is restored already or not."""
    agent = start()
    with Client(agent.address) as client:
        for name in "abcdef":
            client.load_model(str(versions[0]), name)
    agent.stop(signal.SIGKILL)
    agent = start()
    with Client(agent.address) as client:
        assert client.load_model(str(versions[0]), "f").name == "f"
        assert first_of(client, "f") == 1
        with pytest.raises(ModelAlreadyLoaded):
            client.load_model(str(versions[1]), "e")


def test_a_swapped_model_is_restored_in_its_new_version_and_its_application_still_adopts_it(
    start: Start, versions: list[Path]
) -> None:
    """An application loads the package that it knows; what took its place since is what it gets."""
    agent = start()
    with Client(agent.address) as client:
        client.load_model(str(versions[0]), "m")
        client.swap_model("m", str(versions[1]))
    assert agent.stop() == 0
    agent = start()
    with Client(agent.address) as client:
        client.load_model(str(versions[0]), "m")
        assert first_of(client) == 2
        assert client.roll_back_model("m").new.version == "1.0"


def test_a_model_that_cannot_be_restored_is_said_and_loaded_as_ever(start: Start, versions: list[Path]) -> None:
    """A damaged copy is found out by its signature, and does not keep the application from its model."""
    agent = start()
    with Client(agent.address) as client:
        client.load_model(str(versions[0]), "m")
    assert agent.stop() == 0
    (kept,) = (agent.folder / "state" / "packages").iterdir()
    (kept / "model.onnx").write_bytes(b"damaged")
    agent = start()
    with Client(agent.address) as client:
        client.load_model(str(versions[0]), "m")
        assert first_of(client) == 1
    (refusal,) = agent.events("model_not_restored")
    assert refusal["reason"] == "FILE_CHANGED"


def test_nothing_is_restored_where_that_is_not_wanted(start: Start, versions: list[Path]) -> None:
    """As of old: the agent starts empty, and keeps no packages."""
    agent = start(lightkeeper_restore_models="false")
    with Client(agent.address) as client:
        client.load_model(str(versions[0]), "m")
    assert agent.stop() == 0
    assert not (agent.folder / "state" / "packages").exists()
    agent = start(lightkeeper_restore_models="false")
    with Client(agent.address) as client:
        assert client.list_models() == []
        client.load_model(str(versions[1]), "m")


def test_packages_of_no_use_are_removed(start: Start, versions: list[Path]) -> None:
    """Two versions a model are kept, and none of a model that was unloaded."""
    agent = start(lightkeeper_swap_watch_seconds=0)
    shelf = agent.folder / "state" / "packages"
    with Client(agent.address) as client:
        client.load_model(str(versions[0]), "m")
        for package in versions[1:]:
            client.swap_model("m", str(package))
        assert len(list(shelf.iterdir())) == 2
        client.unload_model("m")
        assert list(shelf.iterdir()) == []


def test_an_agent_that_dies_twice_in_a_watch_comes_back_with_the_old_version(
    start: Start, versions: list[Path]
) -> None:
    """A version that kills the agent does not do so for ever."""
    agent = start(**DIES_WITH_STATE)
    with Client(agent.address) as client:
        client.load_model(str(versions[0]), "m")
        client.swap_model("m", str(versions[1]))
    agent.stop(signal.SIGKILL)
    agent = start(**DIES_WITH_STATE)
    with Client(agent.address) as client:
        wait_for(lambda: bool(client.list_models()), "it is restored")
        assert first_of(client) == 2
        assert status_of(client, "m").watch_seconds_left is not None
    agent.stop(signal.SIGKILL)
    agent = start(**DIES_WITH_STATE)
    with Client(agent.address) as client:
        wait_for(lambda: bool(client.list_models()), "it is restored")
        assert first_of(client) == 1
        returned = status_of(client, "m").returned
        assert returned is not None
        assert returned.reason == "SWAP_CUT_SHORT"


def test_the_command_line_swaps_rolls_back_and_tells(
    client: Client, agent: AgentProcess, versions: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """As text and as JSON."""
    client.load_model(str(versions[0]), "m")
    first_of(client)
    assert run(["models", "swap", "m", str(versions[1]), "-a", agent.address, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["comparison"]["inputs"] == 1
    assert report["new"]["version"] == "2.0"
    assert run(["models", "rollback", "m", "-a", agent.address]) == 0
    assert capsys.readouterr().out == "m: version 1.0 took the place of 2.0\n"
    assert run(["models", "status", "-a", agent.address, "--json"]) == 0
    (status,) = json.loads(capsys.readouterr().out)["models"]
    assert (status["package"]["version"], status["previous"]["version"]) == ("1.0", "2.0")
    assert run(["models", "swap", "m", str(versions[1]), "-a", agent.address]) == 0
    text = capsys.readouterr().out
    assert "version 2.0 took the place of 1.0" in text
    assert "compared on 1 input: the last inputs of Predict" in text
    assert "watched for 60 s" in text
