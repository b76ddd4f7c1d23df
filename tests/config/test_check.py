"""What becomes of a configuration: which are accepted, which are refused, and what is said."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightkeeper.config import Config, Destination, Provider, Report, check, load
from lightkeeper.config.check import OLDER_NAMES, default_state_path, examine
from lightkeeper.config.model import every_key
from lightkeeper.config.rules import CaptureRule
from lightkeeper.config.values import Durability, PathBase, Transport, WhenFull
from lightkeeper.errors import ConfigInvalid, ConfigUnreadable
from tests.support.systems import posix_only

ENVIRONMENT = {"STATE_DIRECTORY": "/var/lib/here"}

DEVICE = {
    "sagemaker_edge_core_device_name": "turbine-7",
    "sagemaker_edge_core_device_fleet_name": "north-sea",
    "sagemaker_edge_core_root_certs_path": "/etc/lightkeeper/certs",
}
ON_DISK = {
    **DEVICE,
    "sagemaker_edge_provider_provider": "None",
    "sagemaker_edge_core_capture_data_disk_path": "/data/captures",
}
IN_CLOUD = {
    **DEVICE,
    "sagemaker_edge_core_region": "eu-central-1",
    "sagemaker_edge_provider_provider": "Aws",
    "sagemaker_edge_provider_aws_ca_cert_file": "/keys/ca.pem",
    "sagemaker_edge_provider_aws_cert_file": "/keys/device.pem",
    "sagemaker_edge_provider_aws_cert_pk_file": "/keys/device.key",
    "sagemaker_edge_provider_aws_iot_cred_endpoint": "https://iot.example/role-aliases/Alias/credentials",
    "sagemaker_edge_core_capture_data_destination": "Cloud",
    "sagemaker_edge_provider_s3_bucket_name": "captures-bucket",
}
EVERY_KEY = {
    **IN_CLOUD,
    "sagemaker_edge_core_iot_thing_name": "thing:7",
    "sagemaker_edge_provider_provider_path": "/opt/libprovider_aws.so",
    "sagemaker_edge_core_endpoint_override": "https://edge.example:8443/",
    "sagemaker_edge_core_capture_data_disk_path": "/data/captures",
    "sagemaker_edge_core_folder_prefix": "/line/1/",
    "sagemaker_edge_core_capture_data_buffer_size": 40,
    "sagemaker_edge_core_capture_data_batch_size": 20,
    "sagemaker_edge_core_capture_data_push_period_seconds": 5,
    "sagemaker_edge_core_capture_data_base64_embed_limit": 2048,
    "sagemaker_edge_core_capture_data_periodic_upload": True,
    "sagemaker_edge_core_capture_data_periodic_upload_period_seconds": 9,
    "lightkeeper_capture_durability": "interval:250",
    "lightkeeper_spool_max_bytes": 2**30,
    "lightkeeper_spool_free_floor_bytes": 2**27,
    "lightkeeper_capture_when_full": "thin",
    "lightkeeper_capture_expire_days": 14,
    "lightkeeper_ledger_retention_days": 60,
    "lightkeeper_s3_endpoint": "http://127.0.0.1:8333",
    "lightkeeper_upload_bytes_per_second": 100_000,
    "lightkeeper_upload_bytes_per_day": 10_000_000,
    "lightkeeper_capture_rules": '[{"name": "few", "model": "*", "every": "100"}]',
    "sagemaker_edge_local_data_root_path": "/data/state",
    "sagemaker_edge_model_deployment_poll_interval": 60,
    "sagemaker_edge_deployment_lib_path": "/opt/libdeployment.so",
    "sagemaker_edge_db_module_path": "/opt/libdb.so",
    "sagemaker_edge_dlr_backend_options": "-x 1",
    "sagemaker_edge_telemetry_libsystemd_path": "/opt/libsystemd.so",
    "lightkeeper_restore_models": False,
    "lightkeeper_heartbeat_seconds": 60,
    "lightkeeper_deployments": False,
    "lightkeeper_deployment_poll_seconds": 15,
    "lightkeeper_swap_inputs": 4,
    "lightkeeper_swap_latency_ratio": 1.5,
    "lightkeeper_swap_absolute_difference": "0.25",
    "lightkeeper_swap_relative_difference": 1e-3,
    "lightkeeper_swap_argmax_disagreement": "0.1",
    "lightkeeper_swap_failure_share": 0.5,
    "lightkeeper_swap_watch_seconds": 10,
    "sagemaker_edge_log_verbose": True,
    "lightkeeper_relative_paths": "file",
    "lightkeeper_threads": 2,
    "lightkeeper_max_message_bytes": 2**31 - 1,
    "lightkeeper_compress_above_bytes": 1024,
    "lightkeeper_transport": "Native",
    "lightkeeper_grace_seconds": 0,
    "lightkeeper_socket_mode": "0660",
    "lightkeeper_socket_group": "cameras",
    "lightkeeper_memory_reserve_bytes": 1000,
    "lightkeeper_max_package_bytes": 2**20,
}


def judged(*members: tuple[str, object], **more: object) -> Report:
    """Judge a configuration with a fixed environment."""
    return examine((*members, *more.items()), ENVIRONMENT)


def judged_dict(members: dict[str, Any]) -> Report:
    """Judge a configuration in which no key is repeated."""
    return judged(*members.items())


def accepted(members: dict[str, Any]) -> Config:
    """Return the configuration, which must be accepted."""
    return judged_dict(members).accepted()


def faults_of(members: dict[str, Any]) -> dict[str, str]:
    """Return each fault by its key."""
    return {fault.key: str(fault) for fault in judged_dict(members).faults}


def warnings_of(members: dict[str, Any]) -> dict[str, str]:
    """Return each warning by its key; the configuration must be accepted."""
    report = judged_dict(members)
    assert report.faults == ()
    return {warning.key: str(warning) for warning in report.warnings}


def test_every_key_is_read_into_its_field() -> None:
    """A file with every key gives a configuration with every value, and nothing to warn of."""
    assert set(EVERY_KEY) == {key.name for key in every_key()}
    assert warnings_of(EVERY_KEY) == {}
    assert dict(accepted(EVERY_KEY)) == {
        "device_name": "turbine-7",
        "device_fleet_name": "north-sea",
        "heartbeat_seconds": 60,
        "thing_name": "thing:7",
        "root_certs_path": Path("/etc/lightkeeper/certs"),
        "state_path": Path("/data/state"),
        "provider": Provider.AWS,
        "provider_path": Path("/opt/libprovider_aws.so"),
        "region": "eu-central-1",
        "aws_ca_cert_file": Path("/keys/ca.pem"),
        "aws_cert_file": Path("/keys/device.pem"),
        "aws_private_key": Path("/keys/device.key"),
        "aws_credential_endpoint": "https://iot.example/role-aliases/Alias/credentials",
        "endpoint_override": "https://edge.example:8443",
        "capture_destination": Destination.CLOUD,
        "capture_disk_path": Path("/data/captures"),
        "bucket": "captures-bucket",
        "folder_prefix": "line/1",
        "capture_buffer_size": 40,
        "capture_batch_size": 20,
        "push_period_seconds": 5,
        "base64_embed_limit_bytes": 2048,
        "periodic_upload": True,
        "periodic_upload_period_seconds": 9,
        "capture_durability": Durability(interval_ms=250),
        "spool_max_bytes": 2**30,
        "spool_free_floor_bytes": 2**27,
        "capture_when_full": WhenFull.THIN,
        "capture_expire_days": 14,
        "ledger_retention_days": 60,
        "s3_endpoint": "http://127.0.0.1:8333",
        "upload_bytes_per_second": 100_000,
        "upload_bytes_per_day": 10_000_000,
        "capture_rules": (CaptureRule("few", "*", every=100),),
        "deployment_poll_interval_minutes": 60,
        "deployment_library": "/opt/libdeployment.so",
        "state_library": "/opt/libdb.so",
        "crash_counter_library": "/opt/libsystemd.so",
        "dlr_backend_options": "-x 1",
        "restore_models": False,
        "deployments": False,
        "deployment_poll_seconds": 15,
        "swap_inputs": 4,
        "swap_latency_ratio": 1.5,
        "swap_absolute_difference": 0.25,
        "swap_relative_difference": 1e-3,
        "swap_argmax_disagreement": 0.1,
        "swap_failure_share": 0.5,
        "swap_watch_seconds": 10,
        "log_verbose": True,
        "relative_paths": PathBase.FILE,
        "threads": 2,
        "max_message_bytes": 2**31 - 1,
        "compress_above_bytes": 1024,
        "transport": Transport.NATIVE,
        "grace_seconds": 0,
        "socket_mode": 0o660,
        "socket_group": "cameras",
        "memory_reserve_bytes": 1000,
        "max_package_bytes": 2**20,
    }


@posix_only
def test_what_is_left_out_gets_its_default() -> None:
    """The shortest file without a cloud gives the documented defaults."""
    config = accepted(ON_DISK)
    assert config.thing_name == "turbine-7"
    assert (config.provider, config.region, config.bucket) == (Provider.NONE, "", None)
    assert (config.capture_destination, config.captures_to_cloud) == (Destination.DISK, False)
    assert config.state_path == Path("/var/lib/here")
    assert (config.capture_buffer_size, config.capture_batch_size, config.push_period_seconds) == (30, 10, 4)
    assert config.base64_embed_limit_bytes == 3072
    assert (config.periodic_upload, config.periodic_upload_period_seconds) == (False, 8)
    assert (config.deployment_poll_interval_minutes, config.deployment_interval_seconds) == (1440, 86_400)
    assert (config.deployments_enabled, config.local_state_enabled) == (False, False)
    assert (config.restore_models, config.swap_inputs, config.swap_watch_seconds) == (True, 16, 60)
    assert (config.swap_latency_ratio, config.swap_failure_share) == (3.0, 0.05)
    differences = (config.swap_absolute_difference, config.swap_relative_difference, config.swap_argmax_disagreement)
    assert differences == (None, None, None)
    assert (config.folder_prefix, config.dlr_backend_options, config.log_verbose) == ("", "", False)
    assert (config.threads, config.max_message_bytes, config.grace_seconds) == (0, 64 * 2**20, 20)
    assert config.transport is Transport.AUTO
    assert (config.socket_mode, config.socket_group) == (0o600, None)
    assert (config.memory_reserve_bytes, config.max_package_bytes) == (64 * 2**20, 8 * 2**30)


def test_an_empty_object_is_refused_with_every_missing_key() -> None:
    """The default provider is Aws and the default destination Disk: what both need is listed at once."""
    assert set(faults_of({})) == {
        "sagemaker_edge_core_device_name",
        "sagemaker_edge_core_device_fleet_name",
        "sagemaker_edge_core_root_certs_path",
        "sagemaker_edge_core_region",
        "sagemaker_edge_provider_aws_ca_cert_file",
        "sagemaker_edge_provider_aws_cert_file",
        "sagemaker_edge_provider_aws_cert_pk_file",
        "sagemaker_edge_provider_aws_iot_cred_endpoint",
        "sagemaker_edge_core_capture_data_disk_path",
    }


@pytest.mark.parametrize(
    "field",
    [
        {"sagemaker_edge_core_capture_data_destination": "Cloud"},
        {"sagemaker_edge_core_capture_data_base64_embed_limit": 2},
        {"sagemaker_edge_core_capture_data_base64_embed_limit": "20"},
        {"sagemaker_edge_core_capture_data_base64_embed_limit": 2048},
        {"sagemaker_edge_core_capture_data_base64_embed_limit": "3072"},
        {
            "sagemaker_edge_core_capture_data_buffer_size": "2",
            "sagemaker_edge_core_capture_data_batch_size": "1",
        },
        {
            "sagemaker_edge_core_capture_data_buffer_size": 2048,
            "sagemaker_edge_core_capture_data_batch_size": 2048,
        },
        {"sagemaker_edge_core_capture_data_push_period_seconds": 4000},
        {"sagemaker_edge_core_folder_prefix": ""},
        {"sagemaker_edge_core_root_certs_path": "certificates"},
        {"sagemaker_edge_core_capture_data_periodic_upload": "false"},
        {"sagemaker_edge_provider_s3_bucket_name": ""},
        {"sagemaker_edge_log_verbose": "True"},
    ],
    ids=str,
)
@pytest.mark.parametrize("base", [ON_DISK, IN_CLOUD], ids=["disk", "cloud"])
def test_configurations_of_the_field_are_accepted(base: dict[str, str], field: dict[str, Any]) -> None:
    """What runs on devices today runs on."""
    if field == {"sagemaker_edge_provider_s3_bucket_name": ""} and base is IN_CLOUD:
        field = {"sagemaker_edge_provider_provider_path": ""}
    assert isinstance(accepted({**base, **field}), Config)


@posix_only
def test_relative_paths_start_from_the_file_where_it_says_so(tmp_path: Path) -> None:
    """A folder with the configuration and what it names works wherever it is copied, and through a link to the file."""
    relative = {
        **IN_CLOUD,
        "sagemaker_edge_core_root_certs_path": "roots",
        "sagemaker_edge_provider_aws_cert_file": "device.pem",
        "sagemaker_edge_local_data_root_path": "/data/state",
    }
    folder = tmp_path / "turbine-7"
    folder.mkdir()
    link = tmp_path / "link.json"
    link.symlink_to(folder / "config.json")
    (folder / "config.json").write_text(json.dumps({**relative, "lightkeeper_relative_paths": "file"}))
    for path in (folder / "config.json", link):
        config = load(path, ENVIRONMENT)
        assert config.root_certs_path == folder.resolve() / "roots"
        assert config.aws_cert_file == folder.resolve() / "device.pem"
        assert config.aws_private_key == Path("/keys/device.key")
        assert config.state_path == Path("/data/state")
    (folder / "config.json").write_text(json.dumps(relative))
    assert load(folder / "config.json", ENVIRONMENT).root_certs_path == Path("roots")


NUMBERS = [key for key, value in EVERY_KEY.items() if isinstance(value, int)]


@given(st.sets(st.sampled_from(NUMBERS)), st.sampled_from(["{}", " {} ", "{}\n"]))
def test_strings_and_numbers_give_the_same_configuration(as_strings: set[str], form: str) -> None:
    """Deployment tools write every value as a string; nothing depends on it."""
    mixed = {key: form.format(value) if key in as_strings else value for key, value in EVERY_KEY.items()}
    assert accepted(mixed) == accepted(EVERY_KEY)


@pytest.mark.parametrize("value", [True, "true", "True", "TRUE", " true ", 1, "1", "yes", "on"])
def test_a_boolean_is_true_in_every_usual_form(value: object) -> None:
    """Booleans come as such, as words and as 1."""
    assert accepted({**ON_DISK, "sagemaker_edge_log_verbose": value}).log_verbose is True


@pytest.mark.parametrize("value", [False, "false", "False", 0, "0", "no", "off", "", None])
def test_a_boolean_is_false_in_every_usual_form(value: object) -> None:
    """Booleans come as such, as words and as 0; nothing at all is the default."""
    assert accepted({**ON_DISK, "sagemaker_edge_log_verbose": value}).log_verbose is False


@pytest.mark.parametrize("value", ["maybe", 2, -1, 1.0, [True], {}, "truefalse"])
def test_what_is_no_boolean_is_a_fault(value: object) -> None:
    """Neither other words nor other numbers are guessed at."""
    assert (
        "neither true nor false"
        in faults_of({**ON_DISK, "sagemaker_edge_log_verbose": value})["sagemaker_edge_log_verbose"]
    )


@pytest.mark.parametrize(
    "value", ["ten", "1e3", "0x10", "1_000", "1.5", 1.5, True, [10], {}, float("inf"), float("nan")]
)
def test_what_is_no_whole_number_is_a_fault(value: object) -> None:
    """Only digits are a whole number: a boolean, a fraction or a word is none."""
    key = "sagemaker_edge_core_capture_data_push_period_seconds"
    assert "whole number" in faults_of({**ON_DISK, key: value})[key]


@pytest.mark.parametrize("value", ["ten", "0x1", "1_0", "nan", "inf", True, [1], {}, -0.1, "-1", float("nan")])
def test_what_is_no_limit_is_a_fault(value: object) -> None:
    """A limit is a number of zero or more, as such or as text."""
    key = "lightkeeper_swap_latency_ratio"
    assert (
        "number" in faults_of({**ON_DISK, key: value})[key]
        or "is not from 0" in faults_of({**ON_DISK, key: value})[key]
    )


@pytest.mark.parametrize(("given", "expected"), [("true", True), (False, False), (None, False)])
def test_deployments_are_on_where_the_key_says_so(given: object, expected: bool) -> None:  # a value, no switch
    """The key stands above the presence of the old agent's plug-in, and without either they are off."""
    assert accepted({**ON_DISK, "lightkeeper_deployments": given}).deployments_enabled is expected


def test_seconds_between_looks_for_deployments_stand_above_the_minutes() -> None:
    """Where both are given, the finer key counts."""
    minutes = {**ON_DISK, "sagemaker_edge_model_deployment_poll_interval": 2}
    assert accepted(minutes).deployment_interval_seconds == 120
    assert accepted({**minutes, "lightkeeper_deployment_poll_seconds": 15}).deployment_interval_seconds == 15


def test_a_number_with_an_empty_fraction_is_whole() -> None:
    """Tools that know only floating point write 10.0 for 10."""
    key = "sagemaker_edge_core_capture_data_push_period_seconds"
    assert accepted({**ON_DISK, key: 10.0}).push_period_seconds == 10


@pytest.mark.parametrize(
    ("key", "low", "high"),
    [
        ("sagemaker_edge_core_capture_data_base64_embed_limit", 0, 3072),
        ("sagemaker_edge_core_capture_data_buffer_size", 20, 2**31 - 1),
        ("sagemaker_edge_core_capture_data_push_period_seconds", 1, 2**31 - 1),
        ("sagemaker_edge_model_deployment_poll_interval", 1, 2**31 - 1),
        ("lightkeeper_deployment_poll_seconds", 0, 86_400),
        ("lightkeeper_threads", 0, 1024),
        ("lightkeeper_max_message_bytes", 2**20, 2**31 - 1),
        ("lightkeeper_grace_seconds", 0, 3600),
        ("lightkeeper_memory_reserve_bytes", 0, 2**40),
        ("lightkeeper_max_package_bytes", 2**20, 2**40),
    ],
)
def test_bounds_are_accepted_and_what_lies_beyond_is_refused(key: str, low: int, high: int) -> None:
    """Each number has bounds, and the fault names the one that was passed."""
    for value in (low, high):
        assert isinstance(accepted({**ON_DISK, key: value}), Config)
    assert f"is more than {high}" in faults_of({**ON_DISK, key: high + 1})[key]
    if key != "sagemaker_edge_core_capture_data_buffer_size":
        assert f"is less than {low}" in faults_of({**ON_DISK, key: low - 1})[key]


@posix_only
def test_none_with_cloud_keeps_captures_on_the_configured_disk_with_one_warning() -> None:
    """Where a disk path is set, captures stay there, and one warning says so."""
    members = {**ON_DISK, "sagemaker_edge_core_capture_data_destination": "Cloud"}
    config = accepted(members)
    assert (config.captures_to_cloud, config.capture_disk_path) == (False, Path("/data/captures"))
    [(key, text)] = warnings_of(members).items()
    assert key == "sagemaker_edge_core_capture_data_destination"
    assert "captures stay on the disk, in /data/captures" in text


@posix_only
def test_none_with_cloud_and_no_disk_path_keeps_captures_in_the_state_folder() -> None:
    """Without a disk path, captures stay in a folder of the state folder, and the warning names it."""
    members = {
        **DEVICE,
        "sagemaker_edge_provider_provider": "None",
        "sagemaker_edge_core_capture_data_destination": "Cloud",
        "sagemaker_edge_local_data_root_path": "/data/state",
    }
    assert accepted(members).capture_disk_path == Path("/data/state/captures")
    assert "/data/state/captures" in warnings_of(members)["sagemaker_edge_core_capture_data_destination"]


@pytest.mark.parametrize(
    "key",
    [
        "sagemaker_edge_core_region",
        "sagemaker_edge_provider_aws_ca_cert_file",
        "sagemaker_edge_provider_aws_cert_file",
        "sagemaker_edge_provider_aws_cert_pk_file",
        "sagemaker_edge_provider_aws_iot_cred_endpoint",
        "sagemaker_edge_provider_s3_bucket_name",
        *DEVICE,
    ],
)
@pytest.mark.parametrize("absence", ["missing", "empty", "blank", "null"])
def test_what_the_cloud_needs_is_a_fault_where_it_is_absent(key: str, absence: str) -> None:
    """A key that is left out, empty, blank or null is absent in the same way."""
    members: dict[str, Any] = dict(IN_CLOUD)
    del members[key]
    if absence != "missing":
        members[key] = {"empty": "", "blank": " \t", "null": None}[absence]
    faults = faults_of(members)
    assert list(faults) == [key]
    assert "is required" in faults[key]


def test_a_custom_provider_needs_its_library_and_a_region() -> None:
    """A Custom provider is a shared object, and speaks to a cloud of its own."""
    members = {**ON_DISK, "sagemaker_edge_provider_provider": "Custom"}
    assert set(faults_of(members)) == {"sagemaker_edge_provider_provider_path", "sagemaker_edge_core_region"}
    more = {"sagemaker_edge_provider_provider_path": "/opt/libours.so", "sagemaker_edge_core_region": "eu-west-1"}
    assert accepted({**members, **more}).provider_path == Path("/opt/libours.so")


def test_a_provider_of_null_is_one_fault() -> None:
    """Null could mean None or the default, so it is refused, without the faults that a guess would bring."""
    assert list(faults_of({**DEVICE, **ON_DISK, "sagemaker_edge_provider_provider": None})) == [
        "sagemaker_edge_provider_provider"
    ]


@pytest.mark.parametrize("word", ["aws", "AWS", " Aws "])
def test_words_may_be_in_any_case(word: str) -> None:
    """There is one way to understand each of these."""
    assert accepted({**IN_CLOUD, "sagemaker_edge_provider_provider": word}).provider is Provider.AWS


def test_the_older_name_of_the_device_is_accepted() -> None:
    """Files of the first agents name the device by its uuid."""
    members = dict(ON_DISK)
    members["sagemaker_edge_core_device_uuid"] = members.pop("sagemaker_edge_core_device_name")
    assert accepted(members).device_name == "turbine-7"
    assert warnings_of(members) == {}


def test_a_fault_under_the_older_name_says_that_name() -> None:
    """A person looks for the key that the file has."""
    members = dict(ON_DISK)
    del members["sagemaker_edge_core_device_name"]
    members["sagemaker_edge_core_device_uuid"] = "no spaces"
    fault = faults_of(members)["sagemaker_edge_core_device_name"]
    assert "written as sagemaker_edge_core_device_uuid" in fault


@pytest.mark.parametrize(
    ("older", "accepted_so"), [("turbine-7", True), ("", True), (None, True), ("turbine-8", False)]
)
def test_both_names_of_the_device_must_agree(older: object, accepted_so: bool) -> None:
    """Two names with two values leave open which device this is."""
    faults = faults_of({**ON_DISK, "sagemaker_edge_core_device_uuid": older})
    assert (faults == {}) is accepted_so
    assert accepted_so or "differs from sagemaker_edge_core_device_uuid" in faults["sagemaker_edge_core_device_name"]


@pytest.mark.parametrize("name", ["a", "A-1_b", "7" * 63, 42])
def test_device_names_within_the_pattern_are_accepted(name: object) -> None:
    """1 to 63 letters, digits, hyphens and underscores; a number is its digits."""
    assert accepted({**ON_DISK, "sagemaker_edge_core_device_name": name}).device_name == str(name)


@pytest.mark.parametrize("name", ["a" * 64, "a b", "a.b", "ä", "a/b", "a\nb", "\ud800", True, 1.5, ["a"]])
def test_device_names_outside_the_pattern_are_refused(name: object) -> None:
    """Nothing else is a device's name."""
    assert set(faults_of({**ON_DISK, "sagemaker_edge_core_device_name": name})) == {"sagemaker_edge_core_device_name"}


def test_a_relative_folder_of_roots_stays_relative_to_the_working_directory() -> None:
    """The path is handed on as it is; the operating system resolves it."""
    members = {**ON_DISK, "sagemaker_edge_core_root_certs_path": "certs"}
    assert accepted(members).root_certs_path == Path("certs")


@pytest.mark.parametrize(
    "given_host", ["abc.credentials.example", "https://abc.credentials.example", "ABC:8443/", "[::1]:443"]
)
def test_a_bare_host_is_completed_with_the_alias_of_the_fleet(given_host: str) -> None:
    """The old agent's tools made one role alias a fleet."""
    config = accepted({**IN_CLOUD, "sagemaker_edge_provider_aws_iot_cred_endpoint": given_host})
    host = given_host.removeprefix("https://").removesuffix("/")
    assert config.aws_credential_endpoint == f"https://{host}/role-aliases/SageMakerEdge-north-sea/credentials"


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://host.example",
        "https://host.example/other",
        "https://user:word@host.example",
        "https://",
        "https://[",
        "host.example/role-aliases//credentials",
        "host.example?x=1",
        7.5,
    ],
)
def test_other_credential_endpoints_are_refused(endpoint: object) -> None:
    """Credentials travel by TLS to a role alias, or not at all."""
    key = "sagemaker_edge_provider_aws_iot_cred_endpoint"
    fault = faults_of({**IN_CLOUD, key: endpoint})[key]
    assert "word" not in fault.replace("password", "")


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("s3://my-bucket", "write my-bucket"),
        ("s3://my-bucket/", "write my-bucket"),
        ("S3://my-bucket/a/b/", "write my-bucket, and a/b as sagemaker_edge_core_folder_prefix"),
        ("arn:aws:s3:::my-bucket", "write my-bucket"),
        ("https://my-bucket.example/", "is not the name of a bucket"),
        ("s3://", "is not the name of a bucket"),
        ("x", "is not the name of a bucket"),
    ],
)
def test_an_address_of_a_bucket_is_refused_with_its_name(value: str, hint: str) -> None:
    """People paste the address that the console shows."""
    key = "sagemaker_edge_provider_s3_bucket_name"
    assert hint in faults_of({**IN_CLOUD, key: value})[key]


@pytest.mark.parametrize(
    ("buffer", "batch", "warned"), [(2, 1, False), (30, 15, False), (30, 16, True), (2048, 2048, True), (1, 1, False)]
)
def test_a_batch_of_up_to_the_buffer_is_accepted(buffer: int, batch: int, warned: bool) -> None:
    """More than half the buffer is accepted, with a warning."""
    key = "sagemaker_edge_core_capture_data_batch_size"
    members = {**ON_DISK, "sagemaker_edge_core_capture_data_buffer_size": buffer, key: batch}
    assert accepted(members).capture_batch_size == batch
    assert (key in warnings_of(members)) is warned


def test_a_batch_larger_than_the_buffer_is_refused() -> None:
    """It could never fill."""
    key = "sagemaker_edge_core_capture_data_batch_size"
    assert "more than the buffer of 30" in faults_of({**ON_DISK, key: 31})[key]


@pytest.mark.parametrize(("buffer", "batch"), [(1, 1), (2, 1), (9, 4), (20, 10), (100, 10)])
def test_the_default_batch_follows_a_small_buffer(buffer: int, batch: int) -> None:
    """Whoever sets a small buffer alone gets half of it as the batch."""
    config = accepted({**ON_DISK, "sagemaker_edge_core_capture_data_buffer_size": buffer})
    assert config.capture_batch_size == batch


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({}, "a provider"),
        ({"sagemaker_edge_provider_provider": "Custom", "sagemaker_edge_provider_provider_path": "/x.so"}, "a bucket"),
    ],
)
def test_periodic_upload_that_cannot_be_is_a_warning(more: dict[str, str], word: str) -> None:
    """Captures are kept, so this stops nothing; but somebody expects them elsewhere."""
    key = "sagemaker_edge_core_capture_data_periodic_upload"
    warnings = warnings_of({**ON_DISK, "sagemaker_edge_core_region": "r", **more, key: "true"})
    assert word in warnings[key]


@pytest.mark.parametrize(
    ("key", "field"),
    [
        ("sagemaker_edge_deployment_lib_path", "deployments_enabled"),
        ("sagemaker_edge_db_module_path", "local_state_enabled"),
    ],
)
def test_the_path_of_an_old_plug_in_turns_its_capability_on(key: str, field: str) -> None:
    """The file itself need not exist; an empty path is no path."""
    assert getattr(accepted({**ON_DISK, key: "/nowhere.so"}), field) is True
    assert getattr(accepted({**ON_DISK, key: ""}), field) is False


@pytest.mark.parametrize(("value", "mode"), [("0600", 0o600), ("660", 0o660), ("0o777", 0o777), (" 0640 ", 0o640)])
def test_a_socket_mode_is_octal_digits_in_a_string(value: str, mode: int) -> None:
    """As chmod takes it."""
    assert accepted({**ON_DISK, "lightkeeper_socket_mode": value}).socket_mode == mode


@pytest.mark.parametrize("value", [600, 0o600, "0400", "0060", "888", "04600", "rw", "6000", True])
def test_other_socket_modes_are_refused(value: object) -> None:
    """A number leaves the base open, and the agent's own user must get in."""
    assert "lightkeeper_socket_mode" in faults_of({**ON_DISK, "lightkeeper_socket_mode": value})


def test_a_socket_for_everyone_is_a_warning() -> None:
    """Any user of the device could then load models."""
    assert "every user" in warnings_of({**ON_DISK, "lightkeeper_socket_mode": "0666"})["lightkeeper_socket_mode"]


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("edge.example", "https://edge.example"),
        ("HTTPS://edge.example:8443/base/", "https://edge.example:8443/base"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
    ],
)
def test_another_service_address_gets_its_scheme(value: str, address: str) -> None:
    """A bare host is reached by https."""
    assert accepted({**IN_CLOUD, "sagemaker_edge_core_endpoint_override": value}).endpoint_override == address


def test_a_service_address_without_tls_is_a_warning() -> None:
    """A hub on the same machine is reached so; across a network it should not be."""
    key = "sagemaker_edge_core_endpoint_override"
    assert "no TLS" in warnings_of({**IN_CLOUD, key: "http://hub.example"})[key]


@pytest.mark.parametrize("value", ["../up", "a/../../b", "a/./b", "a\\b", "a\x00b"])
def test_a_prefix_that_leaves_its_folder_is_refused(value: str) -> None:
    """The prefix becomes a sub-folder on the disk."""
    key = "sagemaker_edge_core_folder_prefix"
    assert key in faults_of({**ON_DISK, key: value})


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("sagemaker_edge_core_capture_data_bufer_size", "sagemaker_edge_core_capture_data_buffer_size"),
        ("capture_data_batch_size", "sagemaker_edge_core_capture_data_batch_size"),
        ("device_name", "sagemaker_edge_core_device_name"),
        ("SAGEMAKER_EDGE_LOG_VERBOSE", "sagemaker_edge_log_verbose"),
        ("sagemaker_edge_provider_bucket_name", "sagemaker_edge_provider_s3_bucket_name"),
        ("sagemaker_edge_core_device_uid", "sagemaker_edge_core_device_uuid"),
        ("lightkeeper_thread", "lightkeeper_threads"),
        ("sagemaker_edge_core_push_period_seconds", "sagemaker_edge_core_capture_data_push_period_seconds"),
    ],
)
def test_an_unknown_key_is_a_warning_with_the_nearest_known_one(key: str, nearest: str) -> None:
    """A typing error is found without reading the manual, and the agent starts."""
    warnings = warnings_of({**ON_DISK, key: "secret"})
    assert f"did you mean {nearest}?" in warnings[key]
    assert "secret" not in warnings[key]


@pytest.mark.parametrize("key", ["", "_comment", "\x1b[31mred", "a\nb", "\ud800", "k" * 5000])
def test_an_unknown_key_of_any_kind_is_shown_on_one_safe_line(key: str) -> None:
    """A key from outside may hold anything; what is printed may not."""
    [warning] = judged_dict({**ON_DISK, key: 1}).warnings
    assert warning.key.isprintable()
    assert len(warning.key) <= 81
    assert "is no key" in warning.problem


def test_many_unknown_keys_are_summed_up() -> None:
    """A file of something else altogether does not flood the log or take minutes."""
    report = judged_dict({**ON_DISK, **{f"sagemaker_edge_unknown_{number}": 1 for number in range(10_000)}})
    assert len(report.warnings) == 21
    assert "9979 more" in report.warnings[-1].problem


def test_a_key_that_is_there_twice_with_one_value_is_a_warning() -> None:
    """It says the same thing twice."""
    report = judged(*ON_DISK.items(), ("lightkeeper_threads", 2), ("lightkeeper_threads", 2))
    assert report.accepted().threads == 2
    assert [(warning.key, warning.problem) for warning in report.warnings] == [
        ("lightkeeper_threads", "is there twice, with the same value")
    ]


@pytest.mark.parametrize("second", [3, "2", True, None])
def test_a_key_that_is_there_twice_with_two_values_is_a_fault(second: object) -> None:
    """Nobody knows which one counts."""
    report = judged(*ON_DISK.items(), ("lightkeeper_threads", 2), ("lightkeeper_threads", second))
    assert [fault.key for fault in report.faults] == ["lightkeeper_threads"]


def test_all_faults_come_in_one_error_with_what_was_given_and_what_is_allowed() -> None:
    """One round of corrections is enough."""
    wrong: dict[str, Any] = {
        **IN_CLOUD,
        "sagemaker_edge_core_device_name": "seven of nine",
        "sagemaker_edge_provider_s3_bucket_name": "s3://bucket",
        "sagemaker_edge_core_capture_data_batch_size": "many",
        "sagemaker_edge_core_capture_data_base64_embed_limit": 3073,
        "sagemaker_edge_log_verbose": "loud",
        "lightkeeper_socket_mode": 600,
        "misspelt": 1,
    }
    with pytest.raises(ConfigInvalid) as caught:
        accepted(wrong)
    faults = {fault.key: fault for fault in caught.value.faults}
    assert set(faults) == {key for key in wrong if wrong[key] != IN_CLOUD.get(key)} - {"misspelt"}
    assert faults["sagemaker_edge_core_capture_data_base64_embed_limit"].given == "3073"
    assert faults["sagemaker_edge_core_device_name"].given == '"seven of nine"'
    assert faults["sagemaker_edge_core_device_name"].allowed == "1 to 63 letters, digits, `-` and `_`"
    assert [warning.key for warning in caught.value.warnings] == ["misspelt"]
    for key in faults:
        assert key in caught.value.diagnostics()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sagemaker_edge_provider_aws_cert_pk_file", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n"),
        ("sagemaker_edge_provider_aws_cert_pk_file", ["secret"]),
        ("sagemaker_edge_provider_aws_cert_file", "-----BEGIN CERTIFICATE-----\nc2VjcmV0\n"),
        ("sagemaker_edge_core_endpoint_override", "https://me:secret@edge.example"),
        ("sagemaker_edge_provider_aws_iot_cred_endpoint", "https://secret@edge.example"),
    ],
)
def test_what_may_be_a_secret_is_never_shown(key: str, value: object) -> None:
    """Faults end up in tickets and logs."""
    fault = faults_of({**IN_CLOUD, key: value})[key]
    assert "secret" not in fault.replace("may be a secret", "")
    assert "c2VjcmV0" not in fault


def test_a_long_value_is_cut_where_it_is_shown() -> None:
    """An error stays readable whatever the file holds."""
    fault = faults_of({**ON_DISK, "sagemaker_edge_core_device_name": "x" * 100_000})["sagemaker_edge_core_device_name"]
    assert len(fault) < 300


def test_load_logs_each_warning_and_returns_the_configuration(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The agent starts with warnings, and they are in its log."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**ON_DISK, "misspelt": 1}))
    with caplog.at_level(logging.WARNING):
        assert load(file, ENVIRONMENT).device_name == "turbine-7"
    [record] = caplog.records
    assert (record.message, vars(record)["key"]) == ("config_warning", "misspelt")


def test_load_refuses_a_file_with_faults(tmp_path: Path) -> None:
    """The agent does not start with half a configuration."""
    file = tmp_path / "config.json"
    file.write_text("{}")
    with pytest.raises(ConfigInvalid, match=r"config\.json has 9 faults"):
        load(file, ENVIRONMENT)


def test_a_configuration_cannot_be_changed() -> None:
    """It is one value for the life of the agent."""
    with pytest.raises(ValueError, match="frozen"):
        accepted(ON_DISK).threads = 7


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([*IN_CLOUD.values()]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from([*EVERY_KEY, *OLDER_NAMES]) | st.text()


@given(st.lists(st.tuples(KEYS, JSON), max_size=40))
def test_any_members_give_a_report(members: list[tuple[str, object]]) -> None:
    """Whatever an object holds, there is either a configuration or a fault, and all that is said can be printed."""
    report = judged(*members)
    assert (report.config is None) is bool(report.faults)
    for finding in (*report.faults, *report.warnings):
        assert finding.key.isprintable()
        assert str(finding).isprintable()


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_file_gives_a_report_or_a_configuration_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    """No content makes the check raise anything but a refusal."""
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_bytes(data)
    try:
        report: Report | None = check(file, ENVIRONMENT)
    except ConfigUnreadable:
        report = None
    assert report is None or report.faults


@pytest.mark.parametrize(
    ("environment", "as_root", "platform", "folder"),
    [
        ({"STATE_DIRECTORY": "/var/lib/lk:/var/lib/b", "XDG_STATE_HOME": "/x"}, False, "linux", "/var/lib/lk"),
        ({"XDG_STATE_HOME": "/home/me/state", "HOME": "/home/me"}, False, "linux", "/home/me/state/lightkeeper"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/home/me"}, False, "linux", "/home/me/.local/state/lightkeeper"),
        ({"HOME": "/root"}, True, "linux", "/var/lib/lightkeeper"),
        ({}, False, "linux", "/var/lib/lightkeeper"),
        ({"LOCALAPPDATA": "/appdata"}, False, "win32", "/appdata/lightkeeper"),
    ],
)
def test_the_state_folder_follows_the_platform(
    environment: dict[str, str], as_root: bool, platform: str, folder: str
) -> None:
    """A service, a user, root and Windows each have a place for state."""
    assert default_state_path(environment, as_root=as_root, platform=platform) == Path(folder)
