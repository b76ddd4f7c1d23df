"""The archive for Windows below wine: the library in programs in C, and the archive's own programs.

wine looks for what it lacks beside the program that runs, so the stand-ins lie there; of the archive only numpy's
modules are changed, which are led to one of them. Its folder has a name that is no ASCII.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lightkeeper.client import Client
from release.build import Release, build, version_of_commit
from release.platforms import PLATFORMS
from tests.windows.wine import Wine, add_stand_ins, lead_to_stand_ins, windows_path

HERE = Path(__file__).resolve().parent
EMBED = HERE.parent / "embed"
WINDOWS = PLATFORMS["windows-x64"]
X = np.array([[1, 2, 3, 4]], np.float32)
SECONDS = 200.0
CALLS = 1000

pytestmark = [
    pytest.mark.skipif("LIGHTKEEPER_WINDOWS" not in os.environ, reason="the long way: make test-windows"),
    pytest.mark.timeout(900),
]


@dataclass(frozen=True)
class Unpacked:
    """An archive as it lies on a device, programs in C beside it that are linked with its library, and wine."""

    root: Path
    programs: Path
    wine: Wine

    def run(self, program: str, *arguments: str | Path, search: Path | None = None) -> str:
        """Run a program in C and return what it prints."""
        words = [windows_path(word) if isinstance(word, Path) else word for word in arguments]
        ran = self.wine.run_program(self.programs / f"{program}.exe", *words, seconds=SECONDS, search=search)
        assert ran.returncode == 0, ran.stdout[-3000:]
        return ran.stdout.replace("\r\n", "\n")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory, authority: Path) -> Unpacked:
    """The archive of this commit; `life`, `crowd` and `loaded`, compiled against its header and import library."""
    if shutil.which("wine") is None:
        pytest.fail("needs wine: apt-get install --no-install-recommends wine wine64")
    folder = tmp_path_factory.mktemp("windows")
    release = Release(*version_of_commit(), authority=authority, region="test-1")
    packed = build(release, WINDOWS, folder / "dist", print)
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    root = (folder / packed.stem).rename(folder / "Gerät")
    programs = folder / "programs"
    programs.mkdir()
    for source in (EMBED / "life.c", EMBED / "crowd.c", HERE / "loaded.c"):
        zig = (sys.executable, "-m", "ziglang", "cc", "-target", WINDOWS.compiler_target, "-std=gnu11", "-O2")
        link = (f"-L{root / 'lib'}", "-llightkeeper", "-lpthread", "-o", programs / f"{source.stem}.exe")
        subprocess.run([*zig, "-Wall", "-Wextra", "-Werror", f"-I{root / 'include'}", source, *link], check=True)
    lead_to_stand_ins(root / "lib" / "python3.14" / "site-packages")
    for each in (programs, root / "bin"):
        add_stand_ins(each)
    return Unpacked(root, programs, Wine())


@pytest.fixture
def configuration(tmp_path: Path, authority: Path) -> Path:
    """A configuration with captures on the disk; the roots are read-only, as they must be there."""
    certificates = tmp_path / "certs"
    shutil.copytree(authority / "certs", certificates)
    for certificate in certificates.iterdir():
        certificate.chmod(0o444)
    keys = {
        "sagemaker_edge_core_device_name": "cam-1",
        "sagemaker_edge_core_device_fleet_name": "yard",
        "sagemaker_edge_core_root_certs_path": windows_path(certificates),
        "sagemaker_edge_provider_provider": "None",
        "sagemaker_edge_core_capture_data_disk_path": windows_path(tmp_path / "captures"),
        "sagemaker_edge_core_capture_data_batch_size": 1,
        "sagemaker_edge_local_data_root_path": windows_path(tmp_path / "state"),
    }
    path = tmp_path / "agent.json"
    path.write_text(json.dumps(keys))
    return path


def test_a_program_in_c_runs_an_agent(unpacked: Unpacked, configuration: Path, doubled_package: Path) -> None:
    """Every function of the header, with every kind of refusal, as on Linux."""
    said = unpacked.run("life", configuration, doubled_package, search=unpacked.root / "bin")
    told = [line for line in (EMBED / "life.txt").read_text().splitlines() if line not in said.splitlines()]
    assert told == [], said


def test_the_library_is_loaded_by_its_path_alone(unpacked: Unpacked, tmp_path: Path) -> None:
    """It finds its runtime without a search path; away from its archive it says what it lacks."""
    library = unpacked.root / "bin" / "lightkeeper.dll"
    said = unpacked.run("loaded", library, tmp_path / "none.json")
    assert "start: status 9 reason CONFIG_UNREADABLE" in said
    assert "start: status 9 reason RUNTIME_MISSING" in unpacked.run(
        "loaded", shutil.copy(library, tmp_path), tmp_path / "none.json"
    )


def test_the_library_refuses_a_process_with_another_python(unpacked: Unpacked) -> None:
    """Extension modules would find that one, by its name."""
    library = windows_path(unpacked.root / "bin" / "lightkeeper.dll")
    program = (
        "import ctypes\n"
        f"library = ctypes.CDLL({library!r})\n"
        "error, agent = ctypes.create_string_buffer(2048), ctypes.c_void_p()\n"
        "status = library.lk_start(b'none.json', ctypes.byref(agent), error)\n"
        "print(status, error.raw.replace(bytes(1), b' ').decode())\n"
    )
    said = unpacked.wine.run("-c", program, seconds=SECONDS).stdout
    assert said.startswith("9 "), said
    assert "RUNTIME_MISSING" in said
    assert "another python314.dll is in this process" in said


def test_the_archives_programs_serve_loopback(
    unpacked: Unpacked, configuration: Path, doubled_package: Path, tmp_path: Path
) -> None:
    """Load, predict, capture to the disk; threads of C get their own answers, and a call's time is told beside it."""
    programs, endpoint, log = unpacked.root / "bin", tmp_path / "agent.endpoint", tmp_path / "agent.log"
    words = ("-a", windows_path(endpoint), "-c", windows_path(configuration))
    agent = unpacked.wine.start(log, programs / "sagemaker_edge_agent_binary.exe", *words)
    try:
        _wait_until(lambda: endpoint.exists() and "agent_started" in log.read_text(), agent, log)
        with Client(f"loopback:{endpoint}", shared_memory_above_bytes=None) as client:
            client.load_model(windows_path(doubled_package), "m")
            took = []
            for _ in range(CALLS):
                start = time.perf_counter()
                outputs = client.predict("m", {"x": X})
                took.append(time.perf_counter() - start)
            assert np.array_equal(outputs["y"], 2 * X)
            client.capture_data("m", inputs={"x": X}, outputs=outputs)
            _wait_until(lambda: any((tmp_path / "captures").rglob("*.jsonl")), agent, log)
    finally:
        unpacked.wine.end()
        agent.wait(60)
    said = unpacked.wine.run_program(programs / "lightkeeper.exe", "--version", seconds=SECONDS).stdout
    assert said.startswith("lightkeeper ")

    crowd = unpacked.run("crowd", configuration, doubled_package, "8", "200", search=programs)
    assert len(re.findall(r"wrong 0 ", crowd)) == 8
    alone = unpacked.run("crowd", configuration, doubled_package, "1", str(CALLS), search=programs)
    inside, outside = float(re.findall(r"p50 ([\d.]+)", alone)[0]), sorted(took)[CALLS // 2] * 1e6
    sys.stdout.write(f"Predict inside {inside:.1f} us, by a Python client on Linux {outside:.1f} us\n")


def _wait_until(condition: Callable[[], bool], agent: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert agent.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
