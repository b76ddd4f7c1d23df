"""The questions of `lightkeeper config init`: each has a flag, and is asked on a terminal where the flag is missing."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lightkeeper.errors import ConfigInvalid, Finding

Answers = dict[str, str]

_PROVIDER = "sagemaker_edge_provider_provider"
_DESTINATION = "sagemaker_edge_core_capture_data_destination"


def _always(answers: Answers) -> bool:
    del answers
    return True


def _with_cloud(answers: Answers) -> bool:
    return answers.get(_PROVIDER, "").lower() != "none"


def _with_aws(answers: Answers) -> bool:
    return answers.get(_PROVIDER, "").lower() == "aws"


def _with_custom(answers: Answers) -> bool:
    return answers.get(_PROVIDER, "").lower() == "custom"


def _to_cloud(answers: Answers) -> bool:
    return answers.get(_DESTINATION, "").lower() == "cloud"


def _to_disk(answers: Answers) -> bool:
    return not _to_cloud(answers)


def _nothing() -> str:
    return ""


def _host_name() -> str:
    """Return the host's name as far as a device may be called so."""
    return re.sub("[^A-Za-z0-9_-]", "-", socket.gethostname().split(".")[0])[:63]


def _capture_folder() -> str:
    from lightkeeper.config.check import default_state_path

    return str(default_state_path(os.environ) / "captures")


@dataclass(frozen=True, slots=True)
class Question:
    """One question, asked where `when` says so of the answers; `default` is empty where only a person can know."""

    flag: str
    key: str
    text: str
    default: Callable[[], str] = _nothing
    when: Callable[[Answers], bool] = _always


QUESTIONS = (
    Question("--device-name", "sagemaker_edge_core_device_name", "name of this device", _host_name),
    Question("--fleet", "sagemaker_edge_core_device_fleet_name", "fleet it belongs to"),
    Question(
        "--root-certs",
        "sagemaker_edge_core_root_certs_path",
        "folder of root certificates that models must be signed under",
        lambda: "/etc/lightkeeper/certs",
    ),
    Question("--provider", _PROVIDER, "cloud provider: Aws, Custom or None", lambda: "None"),
    Question("--provider-path", "sagemaker_edge_provider_provider_path", "shared object of it", when=_with_custom),
    Question("--region", "sagemaker_edge_core_region", "region of device, fleet and bucket", when=_with_cloud),
    Question(
        "--aws-ca-cert",
        "sagemaker_edge_provider_aws_ca_cert_file",
        "file with the certificate authority of the credentials endpoint",
        when=_with_aws,
    ),
    Question(
        "--aws-cert", "sagemaker_edge_provider_aws_cert_file", "file with the device's certificate", when=_with_aws
    ),
    Question(
        "--aws-key",
        "sagemaker_edge_provider_aws_cert_pk_file",
        "file with its private key, or its pkcs11: address",
        when=_with_aws,
    ),
    Question(
        "--aws-endpoint",
        "sagemaker_edge_provider_aws_iot_cred_endpoint",
        "credentials endpoint: its host, or the whole address",
        when=_with_aws,
    ),
    Question("--destination", _DESTINATION, "where captures go: Cloud or Disk", lambda: "Disk", _with_cloud),
    Question("--bucket", "sagemaker_edge_provider_s3_bucket_name", "bucket of captures", when=_to_cloud),
    Question(
        "--disk-path",
        "sagemaker_edge_core_capture_data_disk_path",
        "folder of captures on the disk",
        _capture_folder,
        _to_disk,
    ),
)


def pairs(texts: Sequence[str]) -> Answers:
    """Return the answers that `KEY=VALUE` texts give. Raises `ConfigInvalid` for one without a key."""
    faults = [Finding(text, "is not of the form KEY=VALUE") for text in texts if not text.partition("=")[1]]
    if faults:
        raise ConfigInvalid("--set cannot be read", faults)
    return {key: value for key, _, value in (text.partition("=") for text in texts)}


def complete(given: Mapping[str, str], *, ask: bool) -> Answers:
    """Return the given answers and those to the questions left open: a person's if they are asked, else the defaults.

    Raises `ConfigInvalid`, naming each flag, where nobody is asked and a question has no default.
    """
    answers = dict(given)
    missing = []
    for question in QUESTIONS:
        if question.key in answers or not question.when(answers):
            continue
        if ask:
            answers[question.key] = _ask(question, answers)
        elif default := question.default():
            answers[question.key] = default
        else:
            missing.append(Finding(question.key, f"is required: give {question.flag}, or run this on a terminal"))
    if missing:
        raise ConfigInvalid("some answers are missing", missing)
    in_order = [question.key for question in QUESTIONS if question.key in answers]
    return {key: answers[key] for key in [*in_order, *(key for key in answers if key not in in_order)]}


def _ask(question: Question, answers: Answers) -> str:
    """Ask until the answer is sound. The end of the input is taken as an interruption."""
    default = question.default()
    while True:
        prompt = f"{question.text} [{default}]: " if default else f"{question.text}: "
        print(prompt, end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise KeyboardInterrupt
        answer = line.strip() or default
        problem = _problem(question.key, {**answers, question.key: answer})
        if not problem:
            return answer
        print(f"  this {problem}", file=sys.stderr)


def _problem(key: str, answers: Answers) -> str:
    from lightkeeper.config.check import examine

    return next((str(fault) for fault in examine(tuple(answers.items())).faults if fault.key == key), "")
