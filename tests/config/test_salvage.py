"""What a refused configuration still says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightkeeper.config.salvage import salvage
from lightkeeper.errors import ConfigUnreadable

SOUND = {
    "sagemaker_edge_core_device_name": "cam-1",
    "sagemaker_edge_core_device_fleet_name": "yard",
    "sagemaker_edge_core_root_certs_path": "roots",
    "sagemaker_edge_core_region": "eu-west-1",
    "sagemaker_edge_core_capture_data_disk_path": "captures",
    "sagemaker_edge_provider_aws_ca_cert_file": "ca.pem",
    "sagemaker_edge_provider_aws_cert_file": "device.pem",
    "sagemaker_edge_provider_aws_cert_pk_file": "device.key",
    "sagemaker_edge_provider_aws_iot_cred_endpoint": "hub.example",
}


def written(folder: Path, **keys: object) -> Path:
    """Write a sound file with other values; None leaves a key out."""
    file = folder / "config.json"
    members = {name: value for name, value in (SOUND | keys).items() if value is not None}
    file.write_text(json.dumps(members))
    return file


def test_a_sound_file_is_what_it_is(tmp_path: Path) -> None:
    """Nothing is unknown."""
    found = salvage(written(tmp_path))
    assert found.config == found.report.accepted()
    assert found.unknown == frozenset()


@pytest.mark.parametrize("name", SOUND)
def test_one_missing_key_leaves_the_others(tmp_path: Path, name: str) -> None:
    """The report still refuses, and the field that is not the file's is named."""
    found = salvage(written(tmp_path, **{name: None}))
    assert [fault.key for fault in found.report.faults] == [name]
    assert found.config is not None
    assert len(found.unknown) == 1
    assert name == "sagemaker_edge_core_region" or found.config.region == "eu-west-1"


def test_faults_that_hide_others_are_all_found(tmp_path: Path) -> None:
    """A rule between two keys is judged once both are sound; every fault gives way at last."""
    wrong = {"sagemaker_edge_provider_provider": "Azure", "sagemaker_edge_core_capture_data_batch_size": 99}
    found = salvage(
        written(
            tmp_path,
            **wrong,
            sagemaker_edge_core_capture_data_buffer_size="many",
            sagemaker_edge_core_device_uuid="another",
        )
    )
    assert found.config is not None
    assert found.unknown == {"provider", "capture_batch_size", "capture_buffer_size", "device_name"}


def test_paths_count_from_where_the_file_says(tmp_path: Path) -> None:
    """As for an agent."""
    found = salvage(written(tmp_path, lightkeeper_relative_paths="file", lightkeeper_threads="x"))
    assert found.config is not None
    assert found.config.root_certs_path == tmp_path / "roots"


def test_what_is_no_object_is_refused(tmp_path: Path) -> None:
    """Nothing can be read out of it."""
    file = tmp_path / "config.json"
    file.write_text("[")
    with pytest.raises(ConfigUnreadable):
        salvage(file)
