"""`lightkeeper ca`, `package` and `verify`, run as their users run them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.packages import archive


@dataclass(frozen=True)
class Shell:
    """A folder with a model, where commands are run."""

    folder: Path

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder and hold its exit code against the expected one."""
        command: Sequence[str] = (sys.executable, "-m", "lightkeeper", *arguments)
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr + done.stdout
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run a command with `--json` and return its one document."""
        return json.loads(self.run(*arguments, "--json", code=code).stdout)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A folder with an authority, a model with external data, and a golden input."""
    folder = tmp_path_factory.mktemp("shell")
    weights = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(3, 2), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, folder / "tiny.onnx", save_as_external_data=True, location="tiny.bin", size_threshold=0)
    np.savez(folder / "x.npz", x=np.ones((2, 3), np.float32))
    made = Shell(folder)
    made.run("ca", "init", "ca", "--region", "lab")
    return made


PACKAGE = ("package", "tiny.onnx", "--name", "tiny", "--signer", "ca", "--output", "out")
VERIFY = ("--root-certs", "ca/certs")


def test_package_is_built_and_verified(shell: Shell) -> None:
    """The three commands go together, and `verify` tells what a package is."""
    built = shell.run(*PACKAGE, "--version", "1.0", "--golden-input", "x.npz", "--target-arch", "arm64")
    assert built.stdout == "out/tiny-1.0.tar.gz\n"
    said = shell.json("verify", "out/tiny-1.0.tar.gz", *VERIFY)
    assert (said["name"], said["version"], said["format"]) == ("tiny", "1.0", "onnx")
    assert said["target"] == {"os": "any", "architecture": "aarch64", "accelerator": "any"}
    assert said["signer"]["subject"] == "CN=Model signer lab"
    assert said["golden"] is True
    assert sorted(said["files"]) == [
        "golden/input-0.npy",
        "golden/output-0.npy",
        "manifest.json",
        "model.sig",
        "tiny.bin",
        "tiny.onnx",
    ]
    text = shell.run("verify", "out/tiny-1.0.tar.gz", *VERIFY)
    assert "tiny 1.0: signature and files are good" in text.stdout
    assert said["digest"] in text.stdout
    assert text.stderr == ""


def test_golden_output_is_what_the_model_gives(shell: Shell) -> None:
    """A golden output that is not given is made by running the model; one that is given is kept."""
    shell.run(*PACKAGE, "--version", "made", "--golden-input", "x.npz")
    np.savez(shell.folder / "y.npz", y=np.zeros((2, 2), np.float32))
    shell.run(*PACKAGE, "--version", "given", "--golden-input", "x.npz", "--golden-output", "y.npz")
    for version, expected in (("made", [[6, 9], [6, 9]]), ("given", [[0, 0], [0, 0]])):
        subprocess.run(["tar", "xzf", f"out/tiny-{version}.tar.gz", "golden"], cwd=shell.folder, check=True)
        np.testing.assert_array_equal(np.load(shell.folder / "golden" / "output-0.npy"), expected)


def test_manifest_has_what_the_model_says(shell: Shell) -> None:
    """Inputs and outputs are read from the model, dynamic dimensions included."""
    shell.run(*PACKAGE, "--version", "2.0")
    subprocess.run(["tar", "xzf", "out/tiny-2.0.tar.gz", "manifest.json"], cwd=shell.folder, check=True)
    said = json.loads((shell.folder / "manifest.json").read_bytes())
    assert said["inputs"] == [{"name": "x", "data_type": "FLOAT32", "shape": [-1, 3]}]
    assert said["outputs"] == [{"name": "y", "data_type": "FLOAT32", "shape": [-1, 2]}]


def test_tampered_package_is_refused_with_its_reason(shell: Shell) -> None:
    """`verify` exits with 1 and says which file is at fault, in text and in JSON."""
    shell.run(*PACKAGE, "--version", "3.0")
    folder = shell.folder / "unpacked"
    folder.mkdir()
    subprocess.run(["tar", "xzf", "../out/tiny-3.0.tar.gz"], cwd=folder, check=True)
    shell.run("verify", "unpacked", *VERIFY)
    data = bytearray((folder / "tiny.bin").read_bytes())
    data[0] ^= 1
    (folder / "tiny.bin").write_bytes(data)
    text = shell.run("verify", "unpacked", *VERIFY, code=1)
    assert "lightkeeper: tiny.bin is not the file that was signed [FILE_CHANGED]" in text.stderr
    assert text.stdout == ""
    assert shell.json("verify", "unpacked", *VERIFY, code=1)["error"]["facts"]["file"] == "tiny.bin"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("ca", "init", "ca", "--region", "lab"), "OUTPUT_EXISTS"),
        (("ca", "init", "new", "--region", "../x"), "NAME_INVALID"),
        ((*PACKAGE[:3], "a/b", *PACKAGE[4:], "--version", "1"), "NAME_INVALID"),
        ((*PACKAGE, "--version", "../1"), "VERSION_INVALID"),
        ((*PACKAGE, "--version", "9", "--target-os", "no word"), "MANIFEST_INVALID"),
        ((*PACKAGE, "--version", "9", "--minimum-agent-version", "x"), "MANIFEST_INVALID"),
        ((*PACKAGE, "--version", "9", "--golden-output", "x.npz"), "SOURCE_UNUSABLE"),
        ((*PACKAGE, "--version", "9", "--golden-input", "tiny.onnx"), "SOURCE_UNUSABLE"),
        (("package", "x.npz", *PACKAGE[2:], "--version", "9"), "SOURCE_UNUSABLE"),
        ((*PACKAGE[:4], "--signer", "out", *PACKAGE[6:], "--version", "9"), "SIGNER_UNUSABLE"),
        (("verify", "nothing", *VERIFY), "PACKAGE_NOT_FOUND"),
        (("verify", "tiny.onnx", *VERIFY), "PACKAGE_UNREADABLE"),
        (("verify", "s3://bucket/key", *VERIFY), "URL_INVALID"),
        (("verify", "plain.tar.gz", *VERIFY), "SIGNATURE_MISSING"),
    ],
)
def test_refusal_has_its_reason(shell: Shell, arguments: tuple[str, ...], reason: str) -> None:
    """Whatever cannot be done ends with exit code 1 and a reason code, and leaves no package."""
    archive(shell.folder / "plain.tar.gz", {"manifest.json": b"{}"})
    refused = shell.json(*arguments, code=1)["error"]
    assert refused["reason"] == reason
    assert refused["next_step"]
    assert not list(shell.folder.glob("out/*-9*"))


def test_help_imports_nothing_heavy(shell: Shell) -> None:
    """`--help` costs no cryptography, numpy or runtime."""
    program = (
        "import sys; from lightkeeper.cli import build_parser; build_parser();"
        "print([name for name in ('cryptography', 'numpy', 'onnxruntime', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
