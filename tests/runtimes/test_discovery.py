"""Runtimes found by entry point, with plug-ins that are real modules on disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from lightkeeper.errors import FormatUnsupported
from lightkeeper.plugins import RUNTIMES
from lightkeeper.runtimes.base import RuntimeOptions
from lightkeeper.runtimes.discovery import Runtimes
from lightkeeper.runtimes.onnx import OnnxRuntime
from tests.support.plugins import plugin_on_path

OPTIONS = RuntimeOptions(threads=1)
ONNX = EntryPoint("onnx", "lightkeeper.runtimes.onnx:OnnxRuntime", RUNTIMES)


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[str]:
    """The name of an importable module with two runtimes."""
    with plugin_on_path(tmp_path) as name:
        yield name


def test_the_built_in_runtime_is_found_by_its_entry_point() -> None:
    """The package's own metadata names it, as any plug-in's would."""
    assert isinstance(Runtimes(OPTIONS).for_format("onnx"), OnnxRuntime)


def test_a_format_nobody_takes_is_refused_naming_those_there_are() -> None:
    """The person sees at once what this device can open."""
    with pytest.raises(FormatUnsupported, match="'tflite'") as refusal:
        Runtimes(OPTIONS, [ONNX]).for_format("tflite")
    assert refusal.value.facts == {"given": "tflite", "expected": "onnx"}


def test_a_device_without_any_runtime_says_so() -> None:
    """An empty list of formats would be a riddle."""
    with pytest.raises(FormatUnsupported) as refusal:
        Runtimes(OPTIONS, []).for_format("onnx")
    assert refusal.value.facts["expected"] == "(no runtime is installed)"


def test_a_plug_in_adds_its_format_and_gets_the_options(plugin: str) -> None:
    """A runtime from another distribution is made the same way as the built-in one."""
    runtimes = Runtimes(OPTIONS, [EntryPoint("made", f"{plugin}:Made", RUNTIMES)])
    assert runtimes.formats == ["made", "onnx"]
    assert vars(runtimes.for_format("made")) == {"options": OPTIONS}


def test_the_first_name_wins_where_two_runtimes_take_one_format(plugin: str) -> None:
    """Which of them opens a model does not depend on the order of installation."""
    made = EntryPoint("zz-made", f"{plugin}:Made", RUNTIMES)
    for plugins in ([ONNX, made], [made, ONNX]):
        assert isinstance(Runtimes(OPTIONS, plugins).for_format("onnx"), OnnxRuntime)


@pytest.mark.parametrize(
    "value", ["no_such_module:Made", "{plugin}:NoSuchName", "{plugin}:Refusing", "{plugin}:__name__"]
)
def test_a_plug_in_that_cannot_be_used_is_passed_over_with_a_warning(
    plugin: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The other runtimes work on, and the log names the one that does not."""
    broken = EntryPoint("broken", value.format(plugin=plugin), RUNTIMES)
    with caplog.at_level(logging.WARNING):
        runtimes = Runtimes(OPTIONS, [broken, ONNX])
    assert runtimes.formats == ["onnx"]
    (record,) = caplog.records
    assert (record.levelname, record.message) == ("WARNING", "runtime_unavailable")
    assert vars(record)["runtime"] == "broken"
    assert vars(record)["reason"]
