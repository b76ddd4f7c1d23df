"""A built archive on a system that has nothing: no Python, no compiler, in the end nothing but a C library.

`make test-release` builds the archives and runs these; they take minutes. The system is a folder with Debian's oldest
release that can be had, entered by chroot; the ARM archive runs under qemu's emulation of one process.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from release import debian, symbols
from release.build import Release, build
from release.platforms import GLIBC_FLOOR, PLATFORMS
from tests.support.archives import DEMO_CAPTURES, demo, expected, here, picture, write_configuration

HERE = Path(__file__).resolve().parent
EMBED = HERE.parent / "embed"
MOST_PACKED_BYTES = 60_000_000
MOST_RESIDENT_BYTES = 100_000_000
GLIBC = ("ld-linux", "libc.so", "libm.so", "libdl.so", "libpthread.so", "librt.so", "libutil.so")

pytestmark = [
    pytest.mark.skipif("LIGHTKEEPER_RELEASE" not in os.environ, reason="minutes long: make test-release"),
    pytest.mark.timeout(1800),
]


@dataclass
class System:
    """A root folder with an archive, and how its programs are run."""

    root: Path
    before: tuple[str, ...]
    archive: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def command(self, *words: str) -> list[str]:
        """Return the command that runs these words inside."""
        return [*self.before, *words]

    def run(self, *words: str, code: int = 0) -> str:
        """Run a command inside and return what it says."""
        done = subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"LIGHTKEEPER_ADDRESS": "/device/agent.sock"},
            timeout=600,
            check=False,
        )
        assert done.returncode == code, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start an agent inside."""
        with (self.root / "agent.log").open("ab") as log:
            process = subprocess.Popen(self.command(*words), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.started.append(process)
        return process

    def stop(self) -> None:
        """End what was started."""
        for process in self.started:
            below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            for each in below or [process]:  # `unshare` does not hand a signal on
                each.terminate()
            process.wait(120)
        self.started.clear()


def _chroot(root: Path) -> tuple[str, ...]:
    """Return what enters a root with a /proc of its own and the machine's /dev, in namespaces that end with it."""
    script = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"'
    return ("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, str(root))


@pytest.fixture
def system(built: Path, device: Path, tmp_path: Path) -> Iterator[System]:
    """A Debian without Python, with the archive unpacked and the device's files in it."""
    base = debian.root_of(here())
    if base is None:
        pytest.fail("needs root and debootstrap: apt-get install debootstrap")
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", str(base), str(root)], check=True)
    shutil.copytree(device, root / "device")
    subprocess.run(["tar", "-xzf", str(built), "-C", str(root / "tmp")], check=True)
    made = System(root, _chroot(root), Path("/tmp", built.stem))  # noqa: S108  # inside the root
    yield made
    made.stop()


def _wait_for(path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def test_an_archive_is_installed_used_upgraded_and_removed(system: System, device: Path) -> None:
    """On a Debian without Python, from the unpacked folder to nothing left of it, with the models' true answers."""
    system.run("sh", "-c", "! command -v python3")
    install = str(system.archive / "install.sh")
    assert "installed" in system.run(install, "--prefix", "/opt/lightkeeper", "--config", "/device/agent.json", "--yes")
    unit = (system.root / "etc/systemd/system/lightkeeper.service").read_text()
    assert "ExecStart=/opt/lightkeeper/bin/sagemaker_edge_agent_binary" in unit
    assert "lightkeeper:" in (system.root / "etc/passwd").read_text()

    write_configuration(system.root / "device", "/device")
    agent = "/opt/lightkeeper/bin/sagemaker_edge_agent_binary"
    process = system.start(agent, "-a", "/device/agent.sock", "-c", "/device/agent.json")
    _wait_for(system.root / "device" / "agent.sock", process, system.root / "agent.log")
    demo(system.run, device, "/opt/lightkeeper/bin/sagemaker_edge_agent_client_example", "orientation")
    deadline = time.monotonic() + 60
    while len(list((system.root / "device/captures").rglob("*.jsonl"))) < DEMO_CAPTURES:
        assert time.monotonic() < deadline, (system.root / "agent.log").read_text()
        time.sleep(0.1)
    assert '"transport": "native"' in (system.root / "agent.log").read_text()
    shown = system.run("/opt/lightkeeper/bin/lightkeeper", "captures", "show", "/device/captures")
    assert "orientation" in shown
    system.stop()

    newer = system.root / "tmp" / "1.29991231.fffffff"
    subprocess.run(["cp", "-a", str(system.root / system.archive.relative_to("/")), str(newer)], check=True)
    (newer / "VERSION").write_text("1.29991231.fffffff\n")
    system.run(f"/{newer.relative_to(system.root)}/install.sh", "--prefix", "/opt/lightkeeper", "--yes")
    assert len(list((system.root / "opt/lightkeeper/releases").iterdir())) == 2
    assert "AGENT_CONFIG_FILE_PATH=/device/agent.json" in (system.root / "opt/lightkeeper/agent.env").read_text()
    system.run(agent, "--help")
    assert "back to" in system.run(install, "--prefix", "/opt/lightkeeper", "--rollback")
    system.run("/opt/lightkeeper/current/uninstall.sh", "--purge")
    assert not (system.root / "opt/lightkeeper").exists()
    assert not (system.root / "etc/systemd/system/lightkeeper.service").exists()


def test_an_archive_runs_where_there_is_only_a_c_library(system: System, device: Path, tmp_path: Path) -> None:
    """No shell, no C++ library, no locale, no temporary folder: the archive's own C++ library is taken."""
    bare = tmp_path / "bare"
    for folder in ("proc", "dev", "device"):
        (bare / folder).mkdir(parents=True)
    base = debian.root_of(here())
    assert base is not None
    for place in (f"lib/{here().library_folder}", "lib64", "lib"):
        for name in GLIBC:
            for library in (base / place).glob(f"{name}*"):
                (bare / place).mkdir(parents=True, exist_ok=True)
                shutil.copy(_inside(base, library), bare / place / library.name)
    shutil.copytree(device, bare / "device", dirs_exist_ok=True)
    shutil.copytree(system.root / system.archive.relative_to("/"), bare / "lightkeeper", symlinks=True)
    bare_system = System(bare, _chroot(bare), Path("/lightkeeper"))
    assert "lightkeeper" in bare_system.run("/lightkeeper/bin/lightkeeper", "--version")
    configuration = write_configuration(bare / "device", "/device")
    process = bare_system.start(
        "/lightkeeper/bin/sagemaker_edge_agent_binary", "-a", "/device/agent.sock", "-c", configuration
    )
    try:
        _wait_for(bare / "device" / "agent.sock", process, bare / "agent.log")
        words = ("-a", "/device/agent.sock", "--name", "m", "--json")
        said = bare_system.run("/lightkeeper/bin/lightkeeper", "models", "load", "/device/doubled-1.0.tar.gz", *words)
        assert json.loads(said)["name"] == "m"
    finally:
        bare_system.stop()


def _inside(root: Path, path: Path) -> Path:
    """Return what a path below a root is, where an absolute link means the root's own."""
    while path.is_symlink():
        target = path.readlink()
        path = root / target.relative_to("/") if target.is_absolute() else path.parent / target
    return path


def test_the_archive_keeps_its_promises(built: Path, system: System) -> None:
    """Its size, its glibc as measured again from its symbols, its documents, its memory with a small model."""
    root = system.root / system.archive.relative_to("/")
    assert built.stat().st_size <= MOST_PACKED_BYTES
    needs = symbols.of(root)
    assert needs.glibc <= GLIBC_FLOOR
    assert f"glibc {'.'.join(map(str, needs.glibc))}" in (root / "RELEASE_NOTES.md").read_text()
    expected = ("bin", "lib/liblightkeeper.so", "include/lightkeeper.h", "docs/api/agent.proto", "docs/examples")
    expected += ("install.sh", "uninstall.sh", "agent.env", "lightkeeper.service", "LICENSE", "THIRD_PARTY_NOTICES.txt")
    assert all((root / name).exists() for name in (*expected, "sbom.cdx.json", "RELEASE_NOTES.md", "INSTALL.md"))
    bill = (root / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    components = json.loads(bill)["components"]
    assert {"cpython", "openssl", "onnxruntime", "numpy", "h2", "libstdc++6"} <= {part["name"] for part in components}
    assert all(part["licenses"] for part in components)

    write_configuration(system.root / "device", "/device")
    agent = str(system.archive / "bin" / "sagemaker_edge_agent_binary")
    process = system.start(agent, "-a", "/device/agent.sock", "-c", "/device/agent.json")
    _wait_for(system.root / "device" / "agent.sock", process, system.root / "agent.log")
    lightkeeper = str(system.archive / "bin" / "lightkeeper")
    system.run(lightkeeper, "models", "load", "/device/doubled-1.0.tar.gz", "--name", "m", "-a", "/device/agent.sock")
    pid = _child_of(process.pid, "sagemaker_edge")
    status = Path(f"/proc/{pid}/status").read_text()
    resident = int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024
    sys.stdout.write(f"resident with a small model: {resident / 1e6:.1f} MB\n")
    assert resident <= MOST_RESIDENT_BYTES


def _child_of(pid: int, name: str) -> int:
    return next(child.pid for child in psutil.Process(pid).children(recursive=True) if child.name().startswith(name))


def test_the_same_commit_gives_the_same_archive(built: Path, release: Release, tmp_path: Path) -> None:
    """Built again, byte for byte."""
    again = build(release, here(), tmp_path, print)
    assert again.read_bytes() == built.read_bytes()


@dataclass(frozen=True)
class Compiled:
    """Programs in C, linked with the archive's library on this machine."""

    folder: Path
    library: Path

    def run(self, name: str, *words: str, before: tuple[str, ...] = ()) -> str:
        """Run one, without an environment, and return its output."""
        done = subprocess.run(
            [*before, str(self.folder / name), *words], capture_output=True, text=True, env={}, timeout=900, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def compiled(system: System, tmp_path: Path) -> Compiled:
    """`life` and `crowd`, compiled by gcc against the header, with the archive on this machine."""
    root = system.root / system.archive.relative_to("/")
    for name in ("life", "crowd"):
        flags = ("-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", f"-I{root / 'include'}")
        link = (f"-L{root / 'lib'}", "-llightkeeper", "-lpthread", f"-Wl,-rpath,{root / 'lib'}")
        command = ["gcc", *flags, str(EMBED / f"{name}.c"), "-o", str(tmp_path / name), *link]
        subprocess.run(command, check=True)
    return Compiled(tmp_path, root / "lib")


def _plain_configuration(folder: Path, device: Path) -> Path:
    folder.mkdir()
    for name in ("certs",):
        shutil.copytree(device / name, folder / name)
    write_configuration(folder, str(folder))
    return folder / "agent.json"


def test_a_program_in_c_runs_an_agent(compiled: Compiled, device: Path, tmp_path: Path) -> None:
    """Every function of the header, with every kind of refusal."""
    configuration = _plain_configuration(tmp_path / "plain", device)
    said = compiled.run("life", str(configuration), str(device / "doubled-1.0.tar.gz"))
    assert said.split("\n", 1)[1] == (EMBED / "life.txt").read_text()


def test_valgrind_finds_no_fault_in_the_library(compiled: Compiled, device: Path, tmp_path: Path) -> None:
    """Neither a wrong access nor memory that it has lost; what Python does by itself does not count."""
    if shutil.which("valgrind") is None:
        pytest.fail("needs valgrind: apt-get install valgrind")
    configuration = _plain_configuration(tmp_path / "plain", device)
    log = tmp_path / "valgrind.log"
    before = ("valgrind", "--error-limit=no", "--leak-check=full", f"--log-file={log}")
    compiled.run("life", str(configuration), str(device / "doubled-1.0.tar.gz"), before=before)
    blocks = re.split(r"\n==\d+== \n", log.read_text())
    ours = [block for block in blocks if re.search(r"(?:at|by) 0x\w+: (?:lk_\w+|main) ", block)]
    top = [block for block in ours if re.search(r"at 0x\w+: \w+ \((?:in \S*liblightkeeper|life\.c)", block)]
    lost = [block for block in ours if "definitely lost" in block and re.search(r"by 0x\w+: lk_", block.split("\n")[2])]
    assert top == []
    assert lost == []


def test_threads_of_c_share_an_agent_and_are_quicker_than_its_socket(
    compiled: Compiled, system: System, device: Path, tmp_path: Path
) -> None:
    """Eight threads get their own answers; the time of a call is told beside that of the same agent's socket."""
    configuration = _plain_configuration(tmp_path / "plain", device)
    package = str(device / "doubled-1.0.tar.gz")
    crowd = compiled.run("crowd", str(configuration), package, "8", "500")
    assert len(re.findall(r"wrong 0 ", crowd)) == 8
    alone = compiled.run("crowd", str(configuration), package, "1", "3000")
    inside = float(re.findall(r"p50 ([\d.]+)", alone)[0])

    from lightkeeper.client import Client
    from tests.support.agents import AgentProcess

    program = (str(system.root / system.archive.relative_to("/") / "bin/sagemaker_edge_agent_binary"),)
    (tmp_path / "socket").mkdir()
    agent = AgentProcess(tmp_path / "socket", device / "certs", program=program).wait_until_started()
    with Client(agent.address, shared_memory_above_bytes=None) as client:
        client.load_model(package, "m")
        took = []
        for _ in range(3000):
            start = time.perf_counter()
            client.predict("m", {"x": np.ones((1, 4), np.float32)})
            took.append(time.perf_counter() - start)
    assert agent.stop() == 0
    outside = sorted(took)[len(took) // 2] * 1e6
    ratio = inside / outside
    sys.stdout.write(f"Predict inside {inside:.1f} us, by a Python client {outside:.1f} us: {ratio:.2f}x\n")


def test_the_archive_runs_on_the_oldest_processor_it_names(system: System, device: Path, tmp_path: Path) -> None:
    """Under emulation, with the model's true answer: nothing asks for a newer one's instructions."""
    qemu = shutil.which(f"qemu-{here().machine}-static")
    if qemu is None:
        pytest.fail("needs qemu: apt-get install qemu-user-static")
    from lightkeeper.client import Client
    from tests.support.agents import AgentProcess

    agent = system.root / system.archive.relative_to("/") / "bin" / "sagemaker_edge_agent_binary"
    program = (qemu, "-cpu", here().oldest, str(agent))
    (tmp_path / "socket").mkdir()
    emulated = AgentProcess(tmp_path / "socket", device / "certs", program=program).wait_until_started()
    with Client(emulated.address) as client:
        client.load_model(str(device / "orientation-1.0.tar.gz"), "orientation")
        (output,) = client.predict("orientation", {"x": picture(device)}).values()
    assert emulated.stop() == 0
    assert np.allclose(output.ravel(), expected(device), rtol=1e-3, atol=1e-5)


def test_the_arm_archive_runs_under_emulation(release: Release, device: Path, tmp_path: Path) -> None:
    """Load, predict, capture, with the archive built on this machine, by qemu's emulation of the oldest processor."""
    arm, qemu = PLATFORMS["linux-armv8"], shutil.which("qemu-aarch64-static")
    base = debian.root_of(arm)
    if base is None or qemu is None:
        pytest.fail("needs root, debootstrap and qemu: apt-get install debootstrap qemu-user-static")
    packed = build(release, arm, tmp_path / "dist", print)
    assert packed.stat().st_size <= MOST_PACKED_BYTES
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", str(base), str(root)], check=True)
    shutil.copy(qemu, root)
    shutil.copytree(device, root / "device")
    subprocess.run(["tar", "-xzf", str(packed), "-C", str(root)], check=True)
    archive = root / packed.stem
    assert symbols.of(archive).glibc <= GLIBC_FLOOR
    system = System(root, (*_chroot(root), f"/{Path(qemu).name}", "-cpu", arm.oldest), Path("/", packed.stem))
    programs = system.archive / "bin"
    write_configuration(root / "device", "/device")
    agent = str(programs / "sagemaker_edge_agent_binary")
    process = system.start(agent, "-a", "/device/agent.sock", "-c", "/device/agent.json")
    try:
        _wait_for(root / "device" / "agent.sock", process, root / "agent.log")
        demo(system.run, device, str(programs / "sagemaker_edge_agent_client_example"), "orientation")
        deadline = time.monotonic() + 60
        while len(list((root / "device/captures").rglob("*.jsonl"))) < DEMO_CAPTURES:
            assert time.monotonic() < deadline, (root / "agent.log").read_text()
            time.sleep(0.1)
    finally:
        system.stop()
    assert '"transport": "native"' in (root / "agent.log").read_text()
    assert '"event": "agent_stopped"' in (root / "agent.log").read_text()
