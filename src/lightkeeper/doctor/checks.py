"""Which checks a device gets, in their order: what is near first, so that a cause comes before what follows from it.

What the configuration says is handed to each as plain values.
"""

from __future__ import annotations

import contextlib
import platform
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from lightkeeper.agent import cloud as composition
from lightkeeper.agent import transports
from lightkeeper.capture.sink import Layout
from lightkeeper.config import Config, Provider
from lightkeeper.config.surroundings import opened_to_others
from lightkeeper.doctor import access, cloud, identity, machine, network, storage
from lightkeeper.doctor.check import NETWORK_SECONDS, UPLOAD_SECONDS, Check
from lightkeeper.doctor.diagnosis import Diagnosis, skipped
from lightkeeper.modelpackage.trustrecord import TrustRecord
from lightkeeper.providers import tokenexchange
from lightkeeper.providers.base import DeviceCertificate

AWS_FIELDS = ("provider", "aws_ca_cert_file", "aws_cert_file", "aws_private_key", "aws_credential_endpoint")


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined. Without a configuration only the machine is; `offline` leaves out whatever needs a network."""

    config_file: Path | None
    address: str
    offline: bool = False
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


def checks(patient: Patient, config: Config | None) -> list[Check]:
    """Return the checks after the configuration's; without one, those of the machine alone."""
    here = _of_the_machine()
    if config is None:
        return here
    local = _of_the_device(patient, config)
    if config.provider is not Provider.AWS:
        return [*here, *local, *_without_certificate(config, patient.now)]
    files = composition.certificate(config)
    if files is None:
        return [*here, *local]
    certificates = _of_the_certificates(patient, files)
    if patient.offline:
        return [*here, *local, *certificates, *_skipped(_NETWORK, "--offline was given")]
    return [*here, *local, *certificates, *_of_the_network(patient, config, files)]


_NETWORK = ("proxy", "dns", "clock", "role_alias", "registration", "upload")
_CERTIFICATES = ("certificate_authority", "certificate", "certificate_key")


def _of_the_machine() -> list[Check]:
    return [
        Check("processor", lambda: machine.processor(platform.machine())),
        Check("system_library", lambda: machine.system_library(machine.glibc())),
        Check("model_runtime", _model_runtime, after=("processor", "system_library"), seconds=None),
    ]


def _model_runtime() -> Diagnosis:
    def start() -> str:
        from lightkeeper.doctor import trial

        return trial.run()

    fix = "install Lightkeeper anew, for this processor and system; the checks before this one tell what they need"
    return machine.starts("what runs models", start, fix=fix)


def _of_the_device(patient: Patient, config: Config) -> list[Check]:
    state, floor_bytes = config.state_path, config.spool_free_floor_bytes
    in_memory = config.capture_durability.in_memory
    space = {"spool_max_bytes": config.spool_max_bytes, "floor_bytes": floor_bytes}
    checks = [
        Check("api_server", partial(_api_server, config), needs=("transport",), seconds=None),
        Check("state_folder", partial(storage.state_folder, state), needs=("state_path",)),
        Check(
            "power_cut",
            lambda: storage.power_cut(state, storage.mounts(), in_memory=in_memory),
            needs=("state_path", "capture_durability"),
        ),
        Check(
            "disk_space",
            lambda: storage.disk_space(state, **space),
            needs=("state_path", "spool_max_bytes", "spool_free_floor_bytes"),
        ),
        Check("capture_folder", partial(_capture_folder, config), needs=("capture_destination", "capture_disk_path")),
        Check(
            "root_certificates",
            lambda: access.root_certificates(config.root_certs_path, patient.now()),
            needs=("root_certs_path",),
        ),
        Check("file_modes", partial(_file_modes, patient.config_file, config), needs=("provider",)),
        Check("socket", partial(_socket, patient.address, config), needs=("socket_mode", "socket_group")),
    ]
    if config.provider is Provider.CUSTOM:
        checks.insert(
            0, Check("provider_library", partial(_provider_library, config), needs=("provider_path",), seconds=None)
        )
    return checks


def _of_the_certificates(patient: Patient, files: DeviceCertificate) -> list[Check]:
    return [
        Check(
            "certificate_authority",
            lambda: identity.authority(files.ca_file, patient.now()),
            needs=("aws_ca_cert_file",),
        ),
        Check(
            "certificate", lambda: identity.certificate(files.certificate_file, patient.now()), needs=("aws_cert_file",)
        ),
        Check(
            "certificate_key",
            lambda: identity.key(files.certificate_file, files.key),
            needs=("aws_cert_file", "aws_private_key"),
        ),
    ]


def _of_the_network(patient: Patient, config: Config, files: DeviceCertificate) -> list[Check]:
    services = [address for address in (config.endpoint_override, config.s3_endpoint) if address]
    hosts = tuple(urlsplit(address).hostname or "" for address in (files.endpoint, *services))
    if config.s3_endpoint is None and config.bucket is not None:
        hosts += (f"s3.{config.region}.amazonaws.com{'.cn' if config.region.startswith('cn-') else ''}",)
    hosts = tuple(dict.fromkeys(hosts))
    exchange = tokenexchange.exchange(files, config.thing_name, now=patient.now)
    uses = ("provider", "aws_credential_endpoint")
    on_the_way = ("proxy", "dns")
    return [
        Check("proxy", partial(network.proxy, hosts), needs=uses, seconds=NETWORK_SECONDS),
        Check("dns", partial(network.dns, hosts), needs=uses, after=("proxy",), seconds=NETWORK_SECONDS),
        Check(
            "clock",
            lambda: network.clock(_who_tells_the_time(files, services), floor=_floor(config), now=patient.now),
            needs=(*uses, "state_path"),
            seconds=NETWORK_SECONDS,
        ),
        Check(
            "role_alias",
            lambda: cloud.role_alias(exchange, files.endpoint),
            needs=(*AWS_FIELDS, "thing_name"),
            after=(*on_the_way, "certificate", "certificate_key", "certificate_authority", "clock"),
            seconds=NETWORK_SECONDS,
        ),
        Check(
            "registration",
            partial(_registration, config),
            needs=(*AWS_FIELDS, "device_name", "device_fleet_name", "region", "endpoint_override"),
            after=(*on_the_way, "clock", "role_alias"),
            seconds=UPLOAD_SECONDS,
        ),
        Check(
            "upload",
            partial(_upload, config),
            needs=(*AWS_FIELDS, "bucket", "capture_destination", "folder_prefix", "region", "s3_endpoint"),
            after=(*on_the_way, "clock", "role_alias"),
            seconds=UPLOAD_SECONDS,
        ),
    ]


def _without_certificate(config: Config, now: Callable[[], datetime]) -> list[Check]:
    """Name the checks that do not apply, and make the one that does with any provider."""
    who = config.provider.value
    if config.provider is Provider.CUSTOM:
        why = f"provider {who} has its own way to its cloud, which only the agent may start"
    else:
        why = f"provider {who} has no cloud"
    clock = Check("clock", lambda: network.clock([], floor=_floor(config), now=now), needs=("state_path",))
    others = _skipped((*_CERTIFICATES, *_NETWORK), why, needs=("provider",))
    return [clock if check.name == clock.name else check for check in others]


def _skipped(names: tuple[str, ...], why: str, needs: tuple[str, ...] = ()) -> list[Check]:
    return [Check(name, partial(skipped, why), needs) for name in names]


def _api_server(config: Config) -> Diagnosis:
    chosen = transports.chosen(config.transport)
    fix = "install lightkeeper-wire for this system, or set lightkeeper_transport to grpcio"
    return machine.starts(f"the server of the local API ({chosen.value})", partial(transports.load, chosen), fix=fix)


def _capture_folder(config: Config) -> Diagnosis:
    if config.captures_to_cloud or config.capture_disk_path is None:
        return skipped("captures go to the cloud")
    return storage.capture_folder(config.capture_disk_path, floor_bytes=config.spool_free_floor_bytes)


def _file_modes(file: Path | None, config: Config) -> Diagnosis:
    return access.file_modes([] if file is None else list(opened_to_others(config, file)))


def _socket(address: str, config: Config) -> Diagnosis:
    from lightkeeper.client import Client

    def models() -> int:
        with Client(address, timeout_seconds=access.ANSWER_SECONDS) as client:
            return len(client.list_models())

    return access.socket(address, mode=config.socket_mode, group=config.socket_group, models=models)


def _provider_library(config: Config) -> Diagnosis:
    path = config.provider_path or Path()
    fix = "see docs/custom-provider.md for what it must be"
    return machine.starts(f"the provider's library {path}", lambda: cloud.library(path), fix=fix)


def _who_tells_the_time(files: DeviceCertificate, services: list[str]) -> list[tuple[str, ssl.SSLContext]]:
    known = network.unverified()
    with contextlib.suppress(OSError):  # the services are asked all the same
        if isinstance(files.key, Path):
            known.load_cert_chain(files.certificate_file, files.key, password="")
    return [*((service, network.unverified()) for service in services), (files.endpoint, known)]


def _floor(config: Config) -> datetime:
    return TrustRecord(config.state_path / "trust.json").floor


def _registration(config: Config) -> Diagnosis:
    with contextlib.closing(composition.provider(config)) as provider:
        return cloud.registration(provider.registration, config.endpoint_override or f"of {config.region}")


def _upload(config: Config) -> Diagnosis:
    bucket = config.bucket
    if bucket is None or not (config.captures_to_cloud or config.periodic_upload):
        return skipped("captures stay on the disk")
    prefix = Layout(composition.identity(config), config.folder_prefix).device_prefix
    with contextlib.closing(composition.provider(config)) as provider:
        return cloud.upload(partial(provider.store, bucket), bucket, prefix)
