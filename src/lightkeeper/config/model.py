"""`Config`: every key of the configuration file, with its meaning, its default and the rules that bind it to others.

The keys are the old agent's, name for name, so that a device's file works unchanged; those that start with
`lightkeeper_` are ours. The order of the fields is the order in which they are judged: a rule about two keys stands
with the later one, and is left out where the earlier one is at fault itself. `docs/configuration.md` is generated
from here. This is the home of pydantic, which collects the faults of all keys before it gives up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, ValidationInfo, field_validator

from lightkeeper.config import values
from lightkeeper.config.rules import CAPTURE_RULES, CaptureRule
from lightkeeper.config.values import (
    INT32_MAX,
    Destination,
    Durability,
    Kind,
    PathBase,
    Provider,
    Transport,
    WhenFull,
    number,
    optional,
    whole_number,
)
from lightkeeper.tokenkey import KeyAddress

MIB = 1024 * 1024
GIB = 1024 * MIB
EMBED_LIMIT_BYTES = 3072
DEFAULT_BATCH_SIZE = 10
SECONDS_A_MINUTE = 60
SECONDS_A_DAY = 86_400

Name = Annotated[str, PlainValidator(values.NAME)]
Text = Annotated[str, PlainValidator(values.TEXT)]
Folder = Annotated[Path, PlainValidator(values.FOLDER)]
OptionalFile = Annotated[Path | None, PlainValidator(optional(values.FILE))]
OptionalKey = Annotated[Path | KeyAddress | None, PlainValidator(optional(values.KEY))]
OptionalText = Annotated[str | None, PlainValidator(optional(values.TEXT))]
Flag = Annotated[bool, PlainValidator(values.FLAG)]
Positive = Annotated[int, PlainValidator(whole_number(1, INT32_MAX))]
Share = Annotated[float | None, PlainValidator(optional(number(0, 1)))]
Most = Annotated[float | None, PlainValidator(optional(number(0, 1e300)))]
NO_LIMIT = "no limit"
Value = TypeVar("Value")

SECTIONS = {
    "device_name": "The device and whom it trusts",
    "provider": "The cloud",
    "capture_destination": "Captured data",
    "deployment_poll_interval_minutes": "Deployments and the old agent's plug-ins",
    "restore_models": "New versions of models",
    "log_verbose": "The agent itself",
}
"""Where each section of `Config` begins: its first field and its title."""

WITH_AWS = "required with provider `Aws`"


@dataclass(slots=True)
class Notes:
    """What the rules accept but have a word to say about: keys and texts, in the order they came up."""

    warnings: list[tuple[str, str]] = field(default_factory=list)


def key(name: str, meaning: str, *, default: Any = ..., shown: str = "") -> Any:
    """Return the field of one key; `shown` says the default in words where the value alone does not."""
    return Field(default, alias=name, description=meaning, validate_default=True, json_schema_extra={"shown": shown})


class Config(BaseModel):
    """A whole configuration, checked. Sizes and times carry their unit in their name."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    # the device
    device_name: Name = key("sagemaker_edge_core_device_name", "the device's name, as registered with its fleet")
    device_fleet_name: Name = key("sagemaker_edge_core_device_fleet_name", "the fleet the device belongs to")
    thing_name: Annotated[str, PlainValidator(optional(values.THING_NAME))] = key(
        "sagemaker_edge_core_iot_thing_name",
        "the name of the IoT thing, sent along when credentials are fetched",
        default=None,
        shown="the device's name",
    )
    root_certs_path: Folder = key(
        "sagemaker_edge_core_root_certs_path",
        "the folder of root certificates (`<region>.pem` …) that the signatures of model packages must chain to; "
        "the files in it must be read-only for everyone",
    )
    state_path: Folder = key(
        "sagemaker_edge_local_data_root_path",
        "the folder of the agent's own state: unpacked packages, spool, deployments",
        shown="a folder of the platform's state folder",
    )

    # the cloud
    provider: Annotated[Provider, PlainValidator(values.word_of(Provider))] = key(
        "sagemaker_edge_provider_provider", "who carries data between the device and its cloud", default=Provider.AWS
    )
    provider_path: OptionalFile = key(
        "sagemaker_edge_provider_provider_path",
        "the shared object of a Custom provider; accepted and not needed with the others",
        default=None,
        shown="required with provider `Custom`",
    )
    region: Annotated[str, PlainValidator(optional(values.REGION))] = key(
        "sagemaker_edge_core_region",
        "the region of device, fleet and bucket",
        default=None,
        shown="required with provider `Aws` or `Custom`",
    )
    aws_ca_cert_file: OptionalFile = key(
        "sagemaker_edge_provider_aws_ca_cert_file",
        "the certificate authority of the credentials endpoint",
        default=None,
        shown=WITH_AWS,
    )
    aws_cert_file: OptionalFile = key(
        "sagemaker_edge_provider_aws_cert_file", "the device's client certificate", default=None, shown=WITH_AWS
    )
    aws_private_key: OptionalKey = key(
        "sagemaker_edge_provider_aws_cert_pk_file",
        "the client certificate's private key: a file, or where it lies in a PKCS#11 token, "
        "`pkcs11:token=…;object=…?pin-source=file:/…`",
        default=None,
        shown=WITH_AWS,
    )
    aws_credential_endpoint: Annotated[str | None, PlainValidator(optional(values.CREDENTIAL_ENDPOINT))] = key(
        "sagemaker_edge_provider_aws_iot_cred_endpoint",
        "where the device's certificate is exchanged for credentials; a host alone is completed with the role alias "
        "`SageMakerEdge-<fleet>`",
        default=None,
        shown=WITH_AWS,
    )
    endpoint_override: Annotated[str | None, PlainValidator(optional(values.SERVICE_ADDRESS))] = key(
        "sagemaker_edge_core_endpoint_override",
        "another address of the service that takes heartbeats and gives deployments",
        default=None,
        shown="the region's",
    )

    heartbeat_seconds: Annotated[int, PlainValidator(whole_number(1, 86400))] = key(
        "lightkeeper_heartbeat_seconds", "seconds between reports to the fleet", default=300
    )

    # captured data
    capture_destination: Annotated[Destination, PlainValidator(values.word_of(Destination))] = key(
        "sagemaker_edge_core_capture_data_destination", "where captures go", default=Destination.DISK
    )
    capture_disk_path: Annotated[Path | None, PlainValidator(optional(values.FOLDER))] = key(
        "sagemaker_edge_core_capture_data_disk_path",
        "the folder of captures on the disk",
        default=None,
        shown="required with destination `Disk`",
    )
    bucket: Annotated[str | None, PlainValidator(optional(values.BUCKET))] = key(
        "sagemaker_edge_provider_s3_bucket_name",
        "the bucket of captures",
        default=None,
        shown="required with destination `Cloud`",
    )
    folder_prefix: Annotated[str, PlainValidator(values.PREFIX)] = key(
        "sagemaker_edge_core_folder_prefix", "what keys in the bucket start with, or the sub-folder on disk", default=""
    )
    capture_buffer_size: Positive = key(
        "sagemaker_edge_core_capture_data_buffer_size", "the most captures that wait at once", default=30
    )
    capture_batch_size: Annotated[int, PlainValidator(optional(whole_number(1, INT32_MAX)))] = key(
        "sagemaker_edge_core_capture_data_batch_size",
        "the captures written as one batch; no more than the buffer holds, at most half of that is recommended",
        default=None,
        shown="10, or half the buffer where that is less",
    )
    push_period_seconds: Positive = key(
        "sagemaker_edge_core_capture_data_push_period_seconds",
        "a batch is written when it is full or after this many seconds, whichever is first",
        default=4,
    )
    base64_embed_limit_bytes: Annotated[int, PlainValidator(whole_number(0, EMBED_LIMIT_BYTES))] = key(
        "sagemaker_edge_core_capture_data_base64_embed_limit",
        "payloads of up to this many bytes go into the record as base64, larger ones become files beside it",
        default=EMBED_LIMIT_BYTES,
    )
    periodic_upload: Flag = key(
        "sagemaker_edge_core_capture_data_periodic_upload",
        "with destination `Disk`: upload from time to time what lies on the disk",
        default=False,
    )
    periodic_upload_period_seconds: Positive = key(
        "sagemaker_edge_core_capture_data_periodic_upload_period_seconds", "seconds between such uploads", default=8
    )

    capture_durability: Annotated[Durability, PlainValidator(values.DURABILITY)] = key(
        "lightkeeper_capture_durability",
        "when an accepted capture is on the disk: `sync` before the answer, `interval:<ms>` at the latest that long "
        "after it (a power cut loses no more), `memory` never (it is lost with the process)",
        default="sync",
    )
    spool_max_bytes: Annotated[int, PlainValidator(whole_number(MIB, 1024 * GIB))] = key(
        "lightkeeper_spool_max_bytes", "the most bytes of captures that wait", default=GIB
    )
    spool_free_floor_bytes: Annotated[int, PlainValidator(whole_number(0, 1024 * GIB))] = key(
        "lightkeeper_spool_free_floor_bytes", "disk space that captures leave free", default=128 * MIB
    )
    capture_when_full: Annotated[WhenFull, PlainValidator(values.word_of(WhenFull))] = key(
        "lightkeeper_capture_when_full",
        "what a full spool does: `reject` new captures, or `thin` the waiting ones to an even sample",
        default=WhenFull.REJECT,
    )
    capture_expire_days: Annotated[int, PlainValidator(whole_number(0, 36500))] = key(
        "lightkeeper_capture_expire_days",
        "days after which waiting captures are given up; 0 stands for never",
        default=0,
    )
    ledger_retention_days: Annotated[int, PlainValidator(whole_number(1, 36500))] = key(
        "lightkeeper_ledger_retention_days", "days that the ledger remembers a capture that is done with", default=30
    )
    s3_endpoint: Annotated[str | None, PlainValidator(optional(values.SERVICE_ADDRESS))] = key(
        "lightkeeper_s3_endpoint", "another address of the S3 service", default=None, shown="the region's"
    )
    upload_bytes_per_second: Annotated[int, PlainValidator(whole_number(0, 1024 * GIB))] = key(
        "lightkeeper_upload_bytes_per_second",
        "the fastest that captures are uploaded; 0 stands for no limit",
        default=0,
    )
    upload_bytes_per_day: Annotated[int, PlainValidator(whole_number(0, 1024 * GIB))] = key(
        "lightkeeper_upload_bytes_per_day", "the most that is uploaded in a day, UTC; 0 stands for no limit", default=0
    )
    capture_rules: Annotated[tuple[CaptureRule, ...], PlainValidator(CAPTURE_RULES)] = key(
        "lightkeeper_capture_rules",
        "which inferences the device captures by itself around Predict (docs/captures.md tells how)",
        default="",
        shown="none",
    )

    # deployments and the old agent's plug-ins
    deployment_poll_interval_minutes: Positive = key(
        "sagemaker_edge_model_deployment_poll_interval", "minutes between looks for new deployments", default=1440
    )
    deployment_library: OptionalText = key(
        "sagemaker_edge_deployment_lib_path",
        "the path of the old agent's plug-in: not needed, its presence turns deployments on",
        default=None,
        shown="deployments are off",
    )
    state_library: OptionalText = key(
        "sagemaker_edge_db_module_path",
        "the path of the old agent's plug-in: not needed, its presence turns local state on",
        default=None,
        shown="local state is off",
    )
    crash_counter_library: OptionalText = key(
        "sagemaker_edge_telemetry_libsystemd_path",
        "the path of a library that the old agent counted crashes with: accepted and not needed",
        default=None,
        shown="none",
    )
    dlr_backend_options: Text = key(
        "sagemaker_edge_dlr_backend_options", "options for the compiled-model runtime", default=""
    )

    # new versions of models
    restore_models: Flag = key(
        "lightkeeper_restore_models",
        "keep copies of the packages that are loaded, and load them again when the agent starts",
        default=True,
    )
    deployments: Annotated[bool | None, PlainValidator(optional(values.FLAG))] = key(
        "lightkeeper_deployments",
        "look for deployments of the fleet",
        default=None,
        shown="true where `sagemaker_edge_deployment_lib_path` is there",
    )
    deployment_poll_seconds: Annotated[int, PlainValidator(whole_number(0, SECONDS_A_DAY))] = key(
        "lightkeeper_deployment_poll_seconds",
        "seconds between looks for new deployments, for where a minute is long: a bench, or a rollout in many batches; "
        "0 stands for the minutes of `sagemaker_edge_model_deployment_poll_interval`",
        default=0,
    )
    swap_inputs: Annotated[int, PlainValidator(whole_number(0, 1024))] = key(
        "lightkeeper_swap_inputs",
        "how many of a model's last inputs are kept in memory (at most 32 MiB a model), for a new version to answer "
        "beside the old one; 0 keeps none",
        default=16,
    )
    swap_latency_ratio: Most = key(
        "lightkeeper_swap_latency_ratio",
        "the most that a new version's time may be of the old one's; a package may say otherwise, as with the "
        "limits below",
        default=3.0,
    )
    swap_absolute_difference: Most = key(
        "lightkeeper_swap_absolute_difference",
        "the most that an element of an output may differ",
        default=None,
        shown=NO_LIMIT,
    )
    swap_relative_difference: Most = key(
        "lightkeeper_swap_relative_difference",
        "the same, as a part of the largest magnitude in the old version's output",
        default=None,
        shown=NO_LIMIT,
    )
    swap_argmax_disagreement: Share = key(
        "lightkeeper_swap_argmax_disagreement",
        "the share of an output's rows whose largest element may be another one",
        default=None,
        shown=NO_LIMIT,
    )
    swap_failure_share: Share = key(
        "lightkeeper_swap_failure_share",
        "the share of calls that may fail while a new version is watched, beyond the old one's",
        default=0.05,
    )
    swap_watch_seconds: Annotated[int, PlainValidator(whole_number(0, 86400))] = key(
        "lightkeeper_swap_watch_seconds",
        "how long a new version is watched after it took over, and taken back where it passes a limit; 0 does without",
        default=60,
    )

    # the agent itself
    relative_paths: Annotated[PathBase, PlainValidator(values.word_of(PathBase))] = key(
        "lightkeeper_relative_paths",
        "what the relative paths of this file start from: the agent's working directory, or, with `file`, the folder "
        "this file lies in, so that the folder can be copied to any place",
        default=PathBase.WORKING_DIRECTORY,
    )
    log_verbose: Flag = key("sagemaker_edge_log_verbose", "log every request", default=False)
    threads: Annotated[int, PlainValidator(whole_number(0, 1024))] = key(
        "lightkeeper_threads", "threads that run models; 0 stands for as many as the process may use", default=0
    )
    max_message_bytes: Annotated[int, PlainValidator(whole_number(MIB, 2 * GIB - 1))] = key(
        "lightkeeper_max_message_bytes", "the largest request, in bytes", default=64 * MIB
    )
    compress_above_bytes: Annotated[int, PlainValidator(whole_number(0, 2 * GIB - 1))] = key(
        "lightkeeper_compress_above_bytes",
        "answers larger than this, in bytes, are compressed with gzip for clients that take it (with grpcio: for all); "
        "0 compresses none, which is quicker over a local socket",
        default=0,
    )
    transport: Annotated[Transport, PlainValidator(values.word_of(Transport))] = key(
        "lightkeeper_transport",
        "what serves the local API: `native` is the compiled server of the distribution `lightkeeper-wire`, `grpcio` "
        "needs no such thing, `auto` takes the native one where it is installed",
        default=Transport.AUTO,
    )
    grace_seconds: Annotated[int, PlainValidator(whole_number(0, 3600))] = key(
        "lightkeeper_grace_seconds", "how long a stopping agent waits for the calls in flight", default=20
    )
    socket_mode: Annotated[int, PlainValidator(values.FILE_MODE)] = key(
        "lightkeeper_socket_mode", "the permissions of the socket: who may call the agent", default="0600"
    )
    socket_group: OptionalText = key(
        "lightkeeper_socket_group", "the group of the socket", default=None, shown="the agent's own"
    )
    memory_reserve_bytes: Annotated[int, PlainValidator(whole_number(0, 1024 * GIB))] = key(
        "lightkeeper_memory_reserve_bytes",
        "memory to leave free: a load that would leave less is refused",
        default=64 * MIB,
    )
    max_package_bytes: Annotated[int, PlainValidator(whole_number(MIB, 1024 * GIB))] = key(
        "lightkeeper_max_package_bytes", "the largest model package, in bytes once unpacked", default=8 * GIB
    )

    @property
    def captures_to_cloud(self) -> bool:
        """Whether captures leave the device; without a provider they stay on the disk whatever the destination."""
        return self.capture_destination is Destination.CLOUD and self.provider is not Provider.NONE

    @property
    def deployments_enabled(self) -> bool:
        """Whether the agent looks for deployments."""
        return self.deployment_library is not None if self.deployments is None else self.deployments

    @property
    def deployment_interval_seconds(self) -> int:
        """How long it is between looks for new deployments."""
        return self.deployment_poll_seconds or SECONDS_A_MINUTE * self.deployment_poll_interval_minutes

    @property
    def local_state_enabled(self) -> bool:
        """Whether the agent remembers its models over a restart."""
        return self.state_library is not None

    def placed(self, file: Path) -> Config:
        """Return the configuration of a file that lies there, with its relative paths made absolute where it asks."""
        if self.relative_paths is PathBase.WORKING_DIRECTORY:
            return self
        given = {name: getattr(self, name) for name in Config.model_fields}
        folder = file.resolve().parent
        return self.model_copy(update={name: folder / v for name, v in given.items() if isinstance(v, Path)})

    # --- rules between keys -------------------------------------------------------------------------------------

    @field_validator("thing_name")
    @classmethod
    def _thing_is_named_like_the_device(cls, name: str | None, info: ValidationInfo) -> str:
        return name or info.data.get("device_name", "")

    @field_validator("provider_path")
    @classmethod
    def _custom_provider_has_a_library(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return _required(path, info.data.get("provider") is Provider.CUSTOM, "with provider Custom")

    @field_validator("region")
    @classmethod
    def _cloud_has_a_region(cls, region: str | None, info: ValidationInfo) -> str:
        provider = info.data.get("provider")
        return _required(region, provider in {Provider.AWS, Provider.CUSTOM}, f"with provider {provider}") or ""

    @field_validator("aws_ca_cert_file", "aws_cert_file")
    @classmethod
    def _aws_has_certificates(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        return _required(file, info.data.get("provider") is Provider.AWS, "with provider Aws")

    @field_validator("aws_private_key")
    @classmethod
    def _aws_has_a_key(cls, key: Path | KeyAddress | None, info: ValidationInfo) -> Path | KeyAddress | None:
        if isinstance(key, KeyAddress) and key.pin_value is not None:
            _note(info, "has the token's PIN in it: put the PIN into a file of mode 600 and write pin-source=file:/…")
        _required(key, info.data.get("provider") is Provider.AWS, "with provider Aws")
        return key

    @field_validator("aws_credential_endpoint")
    @classmethod
    def _aws_has_an_endpoint(cls, endpoint: str | None, info: ValidationInfo) -> str | None:
        endpoint = _required(endpoint, info.data.get("provider") is Provider.AWS, "with provider Aws")
        if endpoint and not endpoint.endswith("/credentials"):
            endpoint += f"/role-aliases/SageMakerEdge-{info.data.get('device_fleet_name')}/credentials"
        return endpoint

    @field_validator("endpoint_override")
    @classmethod
    def _address_is_encrypted(cls, address: str | None, info: ValidationInfo) -> str | None:
        if address and address.startswith("http://"):
            _note(info, "has no TLS: anyone on the way can read and answer")
        return address

    @field_validator("capture_disk_path")
    @classmethod
    def _captures_have_a_folder(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        destination, provider, state = (
            info.data.get(name) for name in ("capture_destination", "provider", "state_path")
        )
        if destination is Destination.CLOUD and provider is Provider.NONE and isinstance(state, Path):
            path = path or state / "captures"
            where = f"is Cloud, but provider None reaches no cloud: captures stay on the disk, in {path}"
            _note(info, where, about="capture_destination")
        return _required(path, destination is Destination.DISK, "with destination Disk")

    @field_validator("bucket")
    @classmethod
    def _cloud_has_a_bucket(cls, bucket: str | None, info: ValidationInfo) -> str | None:
        cloud = info.data.get("capture_destination") is Destination.CLOUD
        reachable = info.data.get("provider") in {Provider.AWS, Provider.CUSTOM}
        return _required(bucket, cloud and reachable, "with destination Cloud")

    @field_validator("capture_batch_size")
    @classmethod
    def _batch_fits_the_buffer(cls, batch: int | None, info: ValidationInfo) -> int:
        buffer: int | None = info.data.get("capture_buffer_size")
        if buffer is None:
            return batch or DEFAULT_BATCH_SIZE
        half = max(1, buffer // 2)
        batch = batch or min(DEFAULT_BATCH_SIZE, half)
        if batch > buffer:
            raise ValueError(f"is more than the buffer of {buffer} can ever hold")
        if batch > half:
            advice = f"is more than half the buffer of {buffer}: few captures find room while a batch is written"
            _note(info, advice)
        return batch

    @field_validator("periodic_upload")
    @classmethod
    def _upload_has_a_destination(cls, upload: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - a value, no switch
        if upload and info.data.get("capture_destination") is Destination.DISK:
            missing = (info.data.get("provider") is Provider.NONE and "a provider") or (
                info.data.get("bucket", "faulty") is None and "a bucket"
            )
            if missing:
                text = f"has no effect without {missing}: captures stay on the disk"
                _note(info, text)
        return upload

    @field_validator("socket_mode")
    @classmethod
    def _socket_is_not_for_everyone(cls, mode: int, info: ValidationInfo) -> int:
        if mode & 0o002:
            _note(info, "lets every user of this device load models and run them")
        return mode


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the file, for people. `default` is empty where the key is required."""

    section: str
    name: str
    field: str
    meaning: str
    allowed: str
    default: str


def every_key() -> list[Key]:
    """Return every key in the order of `Config`."""
    found = []
    section = ""
    for name, info in Config.model_fields.items():
        section = SECTIONS.get(name, section)
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        kind = next(item.func for item in info.metadata if isinstance(item, PlainValidator))
        allowed = kind.allowed if isinstance(kind, Kind) else ""
        default = str(extra["shown"]) or ("" if info.is_required() else _default_text(info.default))
        found.append(Key(section, info.alias or name, name, info.description or "", allowed, default))
    return found


def name_of(field_name: str) -> str:
    """Return the file's key of a field of `Config`."""
    return Config.model_fields[field_name].alias or field_name


def build(given: Mapping[str, object], notes: Notes) -> tuple[Config | None, list[tuple[str, str]]]:
    """Return the configuration of the given keys, or None and every fault: its key and what is wrong."""
    try:
        return Config.model_validate(dict(given), context=notes), []
    except ValidationError as error:
        # pydantic names a key that was left out by its field, and one that was given by its alias
        names = {key.field: key.name for key in every_key()}
        places = [(str(fault["loc"][0]), fault) for fault in error.errors()]
        return None, [(names.get(place, place), _problem(fault["type"], fault["msg"])) for place, fault in places]


def _problem(category: str, message: str) -> str:
    return "is required" if category == "missing" else message.removeprefix("Value error, ")


def _default_text(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return str(default) if default != "" else "empty"


def _required(value: Value | None, condition: bool, when: str) -> Value | None:  # noqa: FBT001 - reads as a sentence where it is called
    """Return the value; raises `ValueError` where the condition asks for one and there is none."""
    if condition and value is None:
        raise ValueError(f"is required {when}")
    return value


def _note(info: ValidationInfo, text: str, *, about: str = "") -> None:
    """Put down a warning about the field being judged, or about another one."""
    if isinstance(info.context, Notes):
        info.context.warnings.append((name_of(about or info.field_name or ""), text))
