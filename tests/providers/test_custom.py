"""Provider Custom against real shared objects that gcc builds here and that write what they get to files."""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from lightkeeper import errors
from lightkeeper.capture.body import PacedBody
from lightkeeper.client import Client
from lightkeeper.device import DeviceIdentity
from lightkeeper.providers import customlibrary, discovery
from lightkeeper.providers.base import ProviderOptions
from lightkeeper.providers.custom import FAULTS, CustomProvider, Value
from lightkeeper.providers.report import Heartbeat, Metric, ModelReport
from tests.conftest import Stubs
from tests.support.agents import AgentProcess
from tests.test_capture_api import Application

SOURCES = Path(__file__).parent / "custom"

pytestmark = pytest.mark.skipif(
    not os.environ.get("CI") and not shutil.which("gcc"), reason="gcc is missing: apt-get install gcc"
)


class Unpaced:
    """A pace that holds nothing back."""

    piece_bytes = 1 << 20

    def begin(self, size_bytes: int) -> None:
        """Let it begin."""

    def let_through(self, size_bytes: int) -> None:
        """Let it through."""

    def end(self, size_bytes: int) -> None:
        """Let it end."""


def compiled(folder: Path, source: str, *flags: str) -> Path:
    """Build a C file and return what comes of it."""
    path = folder / f"{Path(source).stem}.so"
    subprocess.run(["gcc", "-Wall", "-Werror", *flags, "-o", path, SOURCES / source], check=True)
    return path


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The provider that writes files."""
    return compiled(tmp_path_factory.mktemp("library"), "writing.c", "-shared", "-fPIC")


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the provider writes."""
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.setenv("CUSTOM_OUT", str(folder))
    monkeypatch.delenv("CUSTOM_ERROR", raising=False)
    monkeypatch.delenv("CUSTOM_REASON", raising=False)
    return folder


def options(library: Path | None) -> ProviderOptions:
    """Return what a provider is made of."""
    return ProviderOptions(
        device=DeviceIdentity("cam-1", "yard", "cam-1", "x"), library=library, configuration={"key": "wert-ä"}
    )


@pytest.fixture
def provider(library: Path, out: Path) -> Iterator[CustomProvider]:
    """A provider that gives up soon on calls that hang."""
    made = CustomProvider(options(library), call_seconds=1.0)
    yield made
    (out / "slow").unlink(missing_ok=True)
    made.close()


def calls(out: Path) -> list[str]:
    """Return what was called, without the threads."""
    return [line.split(" ", 1)[1] for line in (out / "calls").read_text(encoding="utf-8").splitlines()]


def put(provider: CustomProvider, key: str, data: bytes) -> None:
    """Put an object."""
    with PacedBody(data, pace=Unpaced(), lost=errors.PayloadLost) as body:  # type: ignore[arg-type]  # the part that bodies use
        provider.store("bucket").put(key, body, content_type="text/plain", metadata={})


def test_structures_lie_as_the_c_compiler_lays_them(tmp_path: Path) -> None:
    """Sizes and offsets printed by C are those of ctypes."""
    program = compiled(tmp_path, "layout.c")
    printed = dict(line.split() for line in subprocess.check_output([program], text=True).splitlines())
    ours: dict[str, str] = {}
    for name in ("Result", "Element", "Registration", "Dimension", "Metric", "Model"):
        kind: type[ctypes.Structure] = getattr(customlibrary, name)
        ours[name] = str(ctypes.sizeof(kind))
        ours |= {f"{name}.{field[0]}": str(getattr(kind, field[0]).offset) for field in kind._fields_}
    assert ours == printed


def test_the_library_is_started_with_the_configuration_and_shut_down_by_one_thread(library: Path, out: Path) -> None:
    """Calls come in the order of the interface."""
    made = discovery.make("Custom", options(library))
    put(made, "a/b.txt", b"\0\xff bytes")  # type: ignore[arg-type]  # what the name stands for
    made.close()
    assert calls(out) == [
        "initProvider",
        "key=wert-ä",
        "initCloudClient",
        "getNetworkStatus",
        "upload a/b.txt 8 text/plain",
        "shutdownProvider 1",
    ]
    assert len({line.split()[0] for line in (out / "calls").read_text(encoding="utf-8").splitlines()}) == 1
    assert (out / "object-a+b.txt").read_bytes() == b"\0\xff bytes"


def test_a_heartbeat_arrives_with_every_metric_that_fits(provider: CustomProvider, out: Path) -> None:
    """Names are cut to their arrays, metrics to their number."""
    many = tuple(Metric(f"m{number}", number, 0.0) for number in range(40))
    model = ModelReport("ä" * 200, "2.0", None, 1.5, many)
    provider.send_heartbeat(Heartbeat("1.0", (Metric("Starts", 3.0, 0.0),), (model,)))
    said = calls(out)
    assert "agent Starts 3 1970-01-01T00:00:00.000+00:00" in said
    assert f"model {'ä' * 128} 2.0 32" in said
    assert "metric LatestInference 1.5 1970-01-01T00:00:01.500+00:00" in said
    assert "metric m30 30 1970-01-01T00:00:00.000+00:00" in said


def test_a_registration_is_read(provider: CustomProvider) -> None:
    """Whether, and for how long."""
    found = provider.registration()
    assert found is not None
    assert (found.active, found.ttl_seconds) == (True, 3600.0)


@pytest.mark.parametrize("value", [*range(1, 13), 99])
def test_each_error_value_becomes_a_refusal(
    provider: CustomProvider, monkeypatch: pytest.MonkeyPatch, value: int
) -> None:
    """The table says which; a file that is there already is one that arrived."""
    monkeypatch.setenv("CUSTOM_ERROR", str(value))
    monkeypatch.setenv("CUSTOM_REASON", "because")
    if value == Value.ALREADY_EXISTS:
        put(provider, "k", b"x")
        return
    with pytest.raises(FAULTS.get(value, errors.DestinationRefusing)) as refused:
        put(provider, "k", b"x")
    assert "because" in str(refused.value)


@pytest.mark.parametrize("reason", [None, b"\xff\xfe bad"])
def test_a_reason_that_is_null_or_no_utf8_is_borne(
    provider: CustomProvider, monkeypatch: pytest.MonkeyPatch, reason: bytes | None
) -> None:
    """What the library says is told as far as it can be read."""
    monkeypatch.setenv("CUSTOM_ERROR", "5")
    if reason is not None:
        monkeypatch.setenv("CUSTOM_REASON", os.fsdecode(reason))
    with pytest.raises(errors.DestinationBusy, match="BUSY$" if reason is None else "bad"):
        put(provider, "k", b"x")


def test_a_call_that_hangs_is_told_of_once_and_its_answer_taken_later(
    provider: CustomProvider, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for ever, and the object is not sent twice."""
    (out / "slow").touch()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with pytest.raises(errors.DestinationBusy):
                put(provider, "k", b"x")
        with pytest.raises(errors.DestinationBusy):
            provider.registration()
    assert [record.message for record in caplog.records].count("provider_call_slow") == 1
    (out / "slow").unlink()
    deadline = time.monotonic() + 20
    while True:
        try:
            put(provider, "k", b"x")
            break
        except errors.DestinationBusy:
            assert time.monotonic() < deadline
    assert calls(out).count("upload k 1 text/plain") == 1


def test_a_device_starts_without_a_network_and_connects_later(library: Path, out: Path) -> None:
    """A cloud client that cannot be made is made before the next call."""
    (out / "offline").touch()
    made = CustomProvider(options(library))
    with pytest.raises(errors.DestinationUnreachable, match="no carrier"):
        put(made, "k", b"x")
    (out / "offline").unlink()
    put(made, "k", b"x")
    made.close()
    assert (out / "object-k").read_bytes() == b"x"


@pytest.mark.parametrize("fault", ["missing", "text", "machine", "writable", "empty", "none"])
def test_a_library_that_cannot_be_used_is_refused_with_the_reason(tmp_path: Path, library: Path, fault: str) -> None:
    """The agent does not start, and says why."""
    path = tmp_path / "lib.so"
    if fault == "text":
        path.write_text("no library, but long enough to be read")
    elif fault == "empty":
        path = compiled(tmp_path, "layout.c", "-shared", "-fPIC")
    elif fault != "missing":
        content = bytearray(library.read_bytes())
        if fault == "machine":
            content[18:20] = b"\x28\x00"
        path.write_bytes(content)
    if fault == "writable":
        path.chmod(0o666)
    words = {
        "missing": "cannot be read",
        "text": "is not a shared object",
        "machine": "ELF machine 40",
        "writable": "chmod o-w",
        "empty": "lacks the functions initProvider, shutdownProvider",
        "none": "needs a library",
    }
    with pytest.raises(errors.ProviderUnusable, match=words[fault]):
        CustomProvider(options(None if fault == "none" else path))


def test_captures_for_the_cloud_go_through_the_library(
    tmp_path: Path, library: Path, out: Path, authority: Path, doubled_package: Path, stubs: Stubs
) -> None:
    """An application captures, and the library gets the payload's file and the batch, with the keys of the bucket."""
    with ExitStack() as stack:
        application = Application(tmp_path, authority / "certs", doubled_package, stubs, stack).start(
            destination="Cloud",
            push_period_seconds=1,
            sagemaker_edge_provider_provider="Custom",
            sagemaker_edge_provider_provider_path=str(library),
            sagemaker_edge_provider_s3_bucket_name="bucket",
            sagemaker_edge_core_region="eu-central-1",
            base64_embed_limit=2,
        )
        application.capture("c-1")
        application.wait_for("c-1")
        application.agent.stop()
    uploads = [line.split()[1] for line in calls(out) if line.startswith("upload ")]
    assert [Path(name).suffix == ".jsonl" for name in uploads] == [False, True]
    assert "sagemaker_edge_core_device_name=test-device" in calls(out)
    assert calls(out)[-1] == "shutdownProvider 1"


def test_an_agents_heartbeats_and_its_registration_go_through_the_library(
    tmp_path: Path, library: Path, out: Path, authority: Path, doubled_package: Path
) -> None:
    """With what models did and the ledger's sums, as C structures; the device asks once whether it is registered."""
    settings = {
        "sagemaker_edge_provider_provider": "Custom",
        "sagemaker_edge_provider_provider_path": str(library),
        "sagemaker_edge_provider_s3_bucket_name": "bucket",
        "sagemaker_edge_core_region": "eu-central-1",
        "lightkeeper_heartbeat_seconds": 1,
        "lightkeeper_capture_rules": [{"name": "all", "model": "*", "every": 1}],
    }
    agent = AgentProcess(tmp_path, authority / "certs", settings=settings).wait_until_started()
    with Client(agent.address) as client:
        client.load_model(str(doubled_package), "net")
        for _ in range(3):
            client.predict("net", {"x": np.ones((1, 4), np.float32)})
    deadline = time.monotonic() + 30
    while not any(line.startswith("agent CapturesAccepted 3 ") for line in calls(out)):
        assert time.monotonic() < deadline, calls(out)
        time.sleep(0.05)
    assert agent.stop() == 0
    said = calls(out)
    starts = [line.split() for line in said if line.startswith("agent Startups ")]
    assert {value for _, _, value, _ in starts} == {"1"}
    assert all(datetime.fromisoformat(when).tzinfo is not None for _, _, _, when in starts)
    assert "model doubled 1.0 6" in said  # with the times of the latest inference and sample
    assert any(line.startswith("metric Inferences 3 ") for line in said)
    assert len(agent.events("device_registered")) == 1
    assert agent.events("heartbeat_refused") == []
    assert said[-1] == "shutdownProvider 1"
