"""`lightkeeper doctor` as a person or a script meets it, on devices without a cloud."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lightkeeper.cli import run
from tests.providers.test_custom import compiled
from tests.support.agents import AgentProcess

COMMAND = [sys.executable, "-m", "lightkeeper", "doctor"]
CLOUD = {
    "certificate",
    "certificate_authority",
    "certificate_key",
    "proxy",
    "dns",
    "role_alias",
    "registration",
    "upload",
}


@pytest.fixture
def device(tmp_path: Path, authority: Path) -> Path:
    """A sound configuration with provider None."""
    file = tmp_path / "device.json"
    words = [
        "--device-name",
        "cam-1",
        "--fleet",
        "yard",
        "--root-certs",
        str(authority / "certs"),
        "--provider",
        "None",
    ]
    words += ["--disk-path", str(tmp_path / "captures")]
    words += ["--set", f"sagemaker_edge_local_data_root_path={tmp_path / 'state'}"]
    assert run(["config", "init", str(file), *words]) == 0
    file.chmod(0o600)
    return file


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the command in this process; return its exit code and the checks by name."""
    capsys.readouterr()
    code = run(["doctor", "--json", *arguments])
    out, err = capsys.readouterr()
    assert err == ""
    return code, {check["name"]: check for check in json.loads(out)["checks"]}


def change(file: Path, **keys: object) -> None:
    """Change keys of a configuration."""
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def test_a_sound_device_without_a_cloud_passes(device: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What needs a cloud says that there is none; nothing is made."""
    before = sorted(device.parent.iterdir())
    code, checks = doctor(capsys, "-c", str(device), "-a", str(device.parent / "agent.sock"))
    assert code == 0, [check for check in checks.values() if check["state"] == "failed"]
    assert {name for name, check in checks.items() if check["state"] == "skipped"} == CLOUD
    assert {checks[name]["found"] for name in CLOUD} == {"provider None has no cloud"}
    assert sorted(device.parent.iterdir()) == before


def test_a_failed_check_exits_1_with_its_fix(device: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe it is one line a check."""
    change(device, sagemaker_edge_core_root_certs_path="/nonexistent")
    capsys.readouterr()
    assert run(["doctor", "-c", str(device), "-a", str(device.parent / "agent.sock")]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    (line,) = (line for line in out.splitlines() if line.startswith("root_certificates\t"))
    name, state, found, fix = line.split("\t")
    assert (name, state, found.endswith("[ROOTS_MISSING]")) == ("root_certificates", "failed", True)
    assert fix
    assert ", 1 failed, " in out.splitlines()[-1]


def test_without_a_configuration_the_machine_is_examined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], device: Path
) -> None:
    """A service's environment names one, and so does the file that `config init` writes."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.delenv("AGENT_CONFIG_FILE_PATH", raising=False)
    code, checks = doctor(capsys)
    assert code == 0
    assert list(checks) == ["configuration", "processor", "system_library", "model_runtime"]
    monkeypatch.setenv("AGENT_CONFIG_FILE_PATH", str(device))
    assert "socket" in doctor(capsys)[1]
    monkeypatch.setenv("AGENT_CONFIG_FILE_PATH", "none.json")
    code, checks = doctor(capsys)
    assert (code, checks["configuration"]["reason"]) == (1, "CONFIG_UNREADABLE")


def test_warnings_of_the_configuration_and_of_modes_do_not_fail(
    device: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The agent starts with them."""
    change(device, lightkeeper_thread=2)
    device.chmod(0o666)
    code, checks = doctor(capsys, "-c", str(device), "-a", str(device.parent / "agent.sock"))
    assert code == 0
    assert "did you mean lightkeeper_threads" in checks["configuration"]["found"]
    assert (checks["file_modes"]["state"], checks["file_modes"]["fix"].startswith("chmod go-w")) == ("warning", True)


def test_a_running_agent_is_seen_and_goes_on(
    tmp_path: Path, authority: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its lock, its socket and its spool are looked at only."""
    agent = AgentProcess(tmp_path, authority / "certs").wait_until_started()
    try:
        code, checks = doctor(capsys, "-c", str(agent.config), "-a", str(agent.socket))
        assert code == 0, [check for check in checks.values() if check["state"] == "failed"]
        assert checks["state_folder"]["facts"]["agent"] == f"process {agent.process.pid}"
        assert checks["socket"]["facts"]["models"] == "0"
        levels = {line["level"] for line in map(json.loads, agent.log_file.read_text().splitlines())}
        assert levels == {"INFO"}
    finally:
        assert agent.stop() == 0


def test_on_a_terminal_there_is_a_coloured_table(device: Path) -> None:
    """Each state has its colour, and each fix its arrow."""
    change(device, sagemaker_edge_core_root_certs_path="/nonexistent")
    parent, child = pty.openpty()
    command = [*COMMAND, "-c", str(device), "-a", str(device.parent / "agent.sock")]
    done = subprocess.Popen(
        command, stdout=child, stderr=subprocess.DEVNULL, env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "120"}
    )
    os.close(child)
    said = b""
    try:
        while chunk := os.read(parent, 65536):
            said += chunk
    except OSError:  # the terminal's other end is closed
        pass
    os.close(parent)
    assert done.wait(60) == 1
    text = said.decode()
    assert "\x1b[1;31mroot_certificates" in text
    assert "\x1b[32mprocessor" in text
    assert "→" in text


@pytest.mark.skipif(not os.environ.get("CI") and not shutil.which("gcc"), reason="gcc is missing: apt-get install gcc")
def test_a_custom_providers_library_is_loaded_apart(
    device: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sound one loads, with nothing started in it; what is none, or ends the process that loads it, fails."""
    sound = compiled(tmp_path, "writing.c", "-shared", "-fPIC")
    change(
        device,
        sagemaker_edge_provider_provider="Custom",
        sagemaker_edge_provider_provider_path=str(sound),
        sagemaker_edge_core_region="eu-west-1",
    )
    where = ["-c", str(device), "-a", str(device.parent / "agent.sock")]
    code, checks = doctor(capsys, *where)
    assert (code, checks["provider_library"]["state"]) == (0, "ok"), checks["provider_library"]
    assert "only the agent may start" in checks["upload"]["found"]
    (tmp_path / "crashing.c").write_text(
        "#include <stdlib.h>\n__attribute__((constructor)) static void crash(void) { abort(); }\n"
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", sound, tmp_path / "crashing.c"], check=True)
    code, checks = doctor(capsys, *where)
    assert (code, "SIGABRT" in checks["provider_library"]["found"]) == (1, True)
    sound.write_text("nothing")
    code, checks = doctor(capsys, *where)
    assert (code, "is not a shared object" in checks["provider_library"]["found"]) == (1, True)
