"""Providers found by entry point, with plug-ins that are real modules on disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from lightkeeper.device import DeviceIdentity
from lightkeeper.errors import CloudAbsent, ProviderUnusable
from lightkeeper.plugins import PROVIDERS
from lightkeeper.providers import discovery
from lightkeeper.providers.base import Provider, ProviderOptions
from lightkeeper.providers.none import NoProvider
from lightkeeper.providers.report import Heartbeat, Metric, ModelReport
from tests.support.plugins import plugin_on_path

OPTIONS = ProviderOptions(device=DeviceIdentity("cam-1", "yard", "cam-1", ""))


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[str]:
    """The name of an importable module with two providers."""
    with plugin_on_path(tmp_path) as name:
        yield name


def test_the_built_in_provider_is_found_by_its_entry_point() -> None:
    """The package's own metadata names it, as any plug-in's would."""
    assert isinstance(discovery.make("None", OPTIONS), NoProvider)


def test_a_provider_of_somebody_else_gets_the_options(plugin: str) -> None:
    """A distribution of its own can bring a provider."""
    made = discovery.make("Made", OPTIONS, [EntryPoint("Made", f"{plugin}:Made", PROVIDERS)])
    assert made.options is OPTIONS  # type: ignore[attr-defined]  # what the plug-in above keeps


@pytest.mark.parametrize("value", ["{plugin}:Refusing", "{plugin}:Absent", "lightkeeper_no_such_module:Made"])
def test_a_provider_that_cannot_be_made_is_refused_with_its_cause(plugin: str, value: str) -> None:
    """The agent does not start without whom its configuration names."""
    with pytest.raises(ProviderUnusable) as refused:
        discovery.make("Made", OPTIONS, [EntryPoint("Made", value.format(plugin=plugin), PROVIDERS)])
    assert refused.value.__cause__ is not None


def test_a_provider_that_is_not_there_is_refused_naming_those_there_are() -> None:
    """The person sees what is installed."""
    with pytest.raises(ProviderUnusable) as refused:
        discovery.make("Elsewhere", OPTIONS)
    assert "None" in str(refused.value.facts["expected"])


def test_provider_none_writes_heartbeats_to_the_log_and_reaches_no_bucket(caplog: pytest.LogCaptureFixture) -> None:
    """Everything stays on the device."""
    provider: Provider = NoProvider(OPTIONS)
    model = ModelReport("reader", "2.0", None, None, (Metric("Inferences", 5.0, 0.0),))
    with caplog.at_level(logging.DEBUG, logger="lightkeeper"):
        provider.send_heartbeat(Heartbeat("1.0", (Metric("Starts", 1.0, 0.0),), (model,)))
    assert caplog.records[-1].__dict__["models"] == {"reader 2.0": {"Inferences": 5.0}}
    with pytest.raises(CloudAbsent):
        provider.store("bucket")
