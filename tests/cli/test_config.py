"""`lightkeeper config` as a person or a script meets it."""

from __future__ import annotations

import datetime as dt
import json
import os
import pty
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from lightkeeper.cli import run
from lightkeeper.config import document
from lightkeeper.config.model import every_key

COMMAND = [sys.executable, "-m", "lightkeeper", "config"]


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    """Return a folder with one root certificate, read-only for everyone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path / "certs"
    folder.mkdir()
    (folder / "eu-west-1.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "eu-west-1.pem").chmod(0o444)
    return folder


@pytest.fixture
def sound(tmp_path: Path, certs: Path) -> Path:
    """Return a file that the agent starts with on this device."""
    file = tmp_path / "sound.json"
    members = {
        "sagemaker_edge_core_device_name": "d",
        "sagemaker_edge_core_device_fleet_name": "f",
        "sagemaker_edge_core_root_certs_path": str(certs),
        "sagemaker_edge_provider_provider": "None",
        "sagemaker_edge_core_capture_data_disk_path": str(tmp_path / "captures"),
        "sagemaker_edge_local_data_root_path": str(tmp_path / "state"),
    }
    document.write(file, members, replace=False)
    return file


def with_members(file: Path, **more: object) -> Path:
    """Add members to a file."""
    document.write(file, {**dict(document.read(file)), **more}, replace=True)
    return file


def test_check_accepts_a_sound_file(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says so and exits 0."""
    assert run(["config", "check", str(sound)]) == 0
    assert capsys.readouterr() == (f"{sound}: accepted\n", "")


def test_check_exits_0_with_warnings(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The agent would start; the nearest key is named."""
    assert run(["config", "check", str(with_members(sound, lightkeeper_thread=2))]) == 0
    out, err = capsys.readouterr()
    assert out == f"{sound}: accepted, warnings: 1\n"
    assert err == "warning: lightkeeper_thread: is no key of Lightkeeper; did you mean lightkeeper_threads?\n"


def test_check_exits_1_with_every_fault(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each fault has a line, and the next step is at the end."""
    file = with_members(sound, lightkeeper_threads="many", lightkeeper_grace_seconds=-1, misspelt=1)
    assert run(["config", "check", str(file)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "warning: misspelt: is no key of Lightkeeper",
        f"lightkeeper: {file} has 2 faults [CONFIG_INVALID]",
        '  lightkeeper_threads: is not a whole number (given: "many"); allowed: a whole number, 0 to 1024',
        "  lightkeeper_grace_seconds: is less than 0 (given: -1); allowed: a whole number, 0 to 3600",
        "  next step: correct every line listed, then run `lightkeeper config check FILE`",
    ]


def test_check_finds_what_the_device_lacks(sound: Path, certs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A writable root certificate would have every package refused."""
    (certs / "eu-west-1.pem").chmod(0o644)
    assert run(["config", "check", str(sound)]) == 1
    err = capsys.readouterr().err
    assert "sagemaker_edge_core_root_certs_path" in err
    assert "chmod a-w" in err


def test_check_of_the_values_only_leaves_the_device_out(sound: Path, certs: Path) -> None:
    """A file is checked before it is copied to its device."""
    (certs / "eu-west-1.pem").unlink()
    assert run(["config", "check", str(sound)]) == 1
    assert run(["config", "check", str(sound), "--values-only"]) == 0


def test_check_prints_one_json_document(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For a sound file as for one with faults."""
    assert run(["config", "check", str(sound), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"file": str(sound), "faults": [], "warnings": []}
    assert err == ""
    assert run(["config", "check", str(with_members(sound, lightkeeper_threads=-1, odd=1)), "--json"]) == 1
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert err == ""
    assert error["reason"] == "CONFIG_INVALID"
    assert error["faults"] == [
        {
            "key": "lightkeeper_threads",
            "problem": "is less than 0",
            "given": "-1",
            "allowed": "a whole number, 0 to 1024",
        }
    ]
    assert [warning["key"] for warning in error["warnings"]] == ["odd"]


def test_check_of_what_is_not_json_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Line and column lead to the place."""
    file = tmp_path / "broken.json"
    file.write_text('{\n  "a": 1,\n}')
    assert run(["config", "check", str(file)]) == 1
    err = capsys.readouterr().err
    assert "CONFIG_UNREADABLE" in err
    assert "line: " in err


def test_keys_lists_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe one key a line, with `--json` one document."""
    assert run(["config", "keys"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [key.name for key in every_key()]
    assert run(["config", "keys", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [key["name"] for key in listed] == [key.name for key in every_key()]
    assert all(key["meaning"] and key["allowed"] for key in listed)


def test_init_writes_a_private_file_from_flags(tmp_path: Path, certs: Path) -> None:
    """What no flag says and has a default is filled in, and the file is sound."""
    file = tmp_path / "new.json"
    flags = [
        "--device-name",
        "d",
        "--fleet",
        "f",
        "--root-certs",
        str(certs),
        "--disk-path",
        str(tmp_path / "captures"),
    ]
    others = ["--set", "lightkeeper_threads=2", "--set", f"sagemaker_edge_local_data_root_path={tmp_path / 'state'}"]
    done = subprocess.run(
        [*COMMAND, "init", str(file), *flags, *others], stdin=subprocess.DEVNULL, capture_output=True, check=True
    )
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text()) == {
        "sagemaker_edge_core_device_name": "d",
        "sagemaker_edge_core_device_fleet_name": "f",
        "sagemaker_edge_core_root_certs_path": str(certs),
        "sagemaker_edge_provider_provider": "None",
        "sagemaker_edge_core_capture_data_disk_path": str(tmp_path / "captures"),
        "lightkeeper_threads": "2",
        "sagemaker_edge_local_data_root_path": str(tmp_path / "state"),
    }
    assert f"lightkeeper agent -a /tmp/agent.sock -c {file}" in done.stdout.decode()
    assert run(["config", "check", str(file)]) == 0


def init(file: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run init where nobody can be asked."""
    return subprocess.run(
        [*COMMAND, "init", str(file), *flags], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def test_init_writes_a_tokens_pin_and_does_not_show_it(tmp_path: Path) -> None:
    """The file has what was given; what is printed, for people or programs, has the address without its PIN."""
    address = "pkcs11:object=device?pin-value=4711"
    flags = (
        "--device-name",
        "d",
        "--fleet",
        "f",
        "--root-certs",
        "/certs",
        "--provider",
        "None",
        "--destination",
        "Disk",
    )
    flags += ("--disk-path", "/captures", "--set", f"sagemaker_edge_provider_aws_cert_pk_file={address}")
    for number, more in enumerate(([], ["--json"])):
        file = tmp_path / f"{number}.json"
        done = init(file, *flags, *more)
        assert done.returncode == 0, done.stderr
        assert address in file.read_text()
        assert "4711" not in done.stdout + done.stderr
        assert not more or "pkcs11:object=device" in done.stdout


def test_init_names_each_missing_flag_where_nobody_can_be_asked(tmp_path: Path) -> None:
    """Questions without a default need an answer, all of them at once."""
    done = init(tmp_path / "new.json", "--provider", "Aws", "--destination", "Cloud")
    assert done.returncode == 1
    for flag in ("--fleet", "--region", "--aws-ca-cert", "--aws-cert", "--aws-key", "--aws-endpoint", "--bucket"):
        assert f"give {flag}," in done.stderr
    assert not (tmp_path / "new.json").exists()


def test_init_refuses_wrong_answers_all_at_once(tmp_path: Path) -> None:
    """Nothing is written that the agent would not start with."""
    done = init(tmp_path / "new.json", "--fleet", "no spaces", "--set", "lightkeeper_threads=many")
    assert done.returncode == 1
    assert "sagemaker_edge_core_device_fleet_name" in done.stderr
    assert "lightkeeper_threads" in done.stderr
    assert not (tmp_path / "new.json").exists()


@pytest.mark.parametrize("pair", ["lightkeeper_thread=2", "=2", "lightkeeper_threads"])
def test_init_refuses_a_key_that_nothing_reads(tmp_path: Path, pair: str) -> None:
    """A new file has no reason for one."""
    done = init(tmp_path / "new.json", "--fleet", "f", "--set", pair)
    assert done.returncode == 1
    assert "CONFIG_INVALID" in done.stderr
    assert not (tmp_path / "new.json").exists()


def test_init_never_replaces_a_file_unless_forced(tmp_path: Path) -> None:
    """The old file is kept, and --force replaces it."""
    file = tmp_path / "new.json"
    file.write_text("old")
    done = init(file, "--fleet", "f")
    assert (done.returncode, file.read_text()) == (1, "old")
    assert "CONFIG_FILE_EXISTS" in done.stderr
    assert init(file, "--fleet", "f", "--force").returncode == 0
    assert dict(document.read(file))["sagemaker_edge_core_device_fleet_name"] == "f"


def test_init_prints_one_json_document(tmp_path: Path) -> None:
    """With the file, its keys, what the device lacks and what to run next."""
    printed = json.loads(init(tmp_path / "new.json", "--fleet", "f", "--root-certs", "/nowhere", "--json").stdout)
    assert printed["file"] == str(tmp_path / "new.json")
    assert printed["keys"] == dict(document.read(tmp_path / "new.json"))
    assert [finding["key"] for finding in printed["lacking"]] == ["sagemaker_edge_core_root_certs_path"]
    assert len(printed["next"]) == 2


class Person:
    """Somebody at a terminal who runs init."""

    def __init__(self, *arguments: str) -> None:
        self._terminal, theirs = pty.openpty()
        self._process = subprocess.Popen([*COMMAND, "init", *arguments], stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self.seen = ""

    def answers(self, prompt: str, answer: str) -> None:
        """Wait for a prompt, then type."""
        self.waits_for(prompt)
        os.write(self._terminal, answer.encode())

    def waits_for(self, text: str) -> None:
        """Read until a text is there, from what has not been looked at yet."""
        unread = ""
        until = time.monotonic() + 20
        while text not in unread and time.monotonic() < until:
            try:
                read = os.read(self._terminal, 4096).decode()
            except OSError:  # Linux's way to say that the program has ended
                break
            unread += read
            self.seen += read
        assert text in unread, self.seen

    def leaves(self) -> int:
        """Return the program's exit code."""
        code = self._process.wait(20)
        os.close(self._terminal)
        return code


def test_init_asks_on_a_terminal_and_judges_each_answer_at_once(tmp_path: Path, certs: Path) -> None:
    """A wrong answer is asked again, an empty one takes the default, and flags are not asked for."""
    file = tmp_path / "new.json"
    person = Person(str(file), "--root-certs", str(certs))
    person.answers("name of this device", "two words\n")
    person.answers("this has a character or a length that is not allowed", "camera-1\n")
    person.answers("fleet it belongs to: ", "\n")
    person.answers("this is required", "gate\n")
    person.answers("cloud provider: Aws, Custom or None [None]: ", "\n")
    person.answers("folder of captures", f"{tmp_path / 'captures'}\n")
    person.waits_for("next:")
    assert person.leaves() == 0
    assert "root certificates that models" not in person.seen
    assert dict(document.read(file)) == {
        "sagemaker_edge_core_device_name": "camera-1",
        "sagemaker_edge_core_device_fleet_name": "gate",
        "sagemaker_edge_core_root_certs_path": str(certs),
        "sagemaker_edge_provider_provider": "None",
        "sagemaker_edge_core_capture_data_disk_path": str(tmp_path / "captures"),
    }


def test_init_asks_for_the_cloud_where_there_is_one(tmp_path: Path) -> None:
    """Each answer decides what is asked next."""
    file = tmp_path / "new.json"
    person = Person(str(file), "--device-name", "d", "--fleet", "f", "--root-certs", "/c")
    person.answers("cloud provider", "aws\n")
    person.answers("region", "eu-west-1\n")
    person.answers("certificate authority of the credentials endpoint", "/ca.pem\n")
    person.answers("device's certificate", "/device.pem\n")
    person.answers("private key", "/device.key\n")
    person.answers("credentials endpoint: its host", "host.example\n")
    person.answers("Cloud or Disk [Disk]", "cloud\n")
    person.answers("bucket of captures", "s3://ours\n")
    person.answers("write ours", "ours\n")
    person.waits_for("next:")
    assert person.leaves() == 0
    assert dict(document.read(file))["sagemaker_edge_provider_s3_bucket_name"] == "ours"


def test_init_writes_nothing_when_the_person_leaves(tmp_path: Path) -> None:
    """Control-D at a question is an interruption."""
    person = Person(str(tmp_path / "new.json"))
    person.answers("name of this device", "\x04")
    assert person.leaves() == 130
    assert not (tmp_path / "new.json").exists()
