"""What is built once for all tests of archives: the archive of this machine, and what a device is given beside it."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from lightkeeper.cli import run
from release.build import Release, build, version_of_commit
from tests.support import models
from tests.support.archives import PICTURE, here, orientation


@pytest.fixture(scope="session")
def release(authority: Path) -> Release:
    """What is released: this commit, signed by the tests' authority."""
    return Release(*version_of_commit(), authority=authority, region="test-1")


@pytest.fixture(scope="session")
def built(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of this machine's platform."""
    return build(release, here(), tmp_path_factory.mktemp("dist"), print)


@pytest.fixture(scope="session")
def device(tmp_path_factory: pytest.TempPathFactory, authority: Path) -> Path:
    """What a device is given beside the archive: packages, certificates, and a picture."""
    folder = tmp_path_factory.mktemp("device")
    shutil.copytree(authority / "certs", folder / "certs")
    (folder / "doubled.onnx").write_bytes(models.doubled())
    for model, name in ((orientation(), "orientation"), (folder / "doubled.onnx", "doubled")):
        words = ["--name", name, "--version", "1.0", "--signer", str(authority), "--output", str(folder)]
        assert run(["package", str(model), *words]) == 0
    height, width = PICTURE
    pixels = np.random.default_rng(7).integers(0, 255, height * width * 3, np.uint8)
    size = (54 + pixels.size, 0, 0, 54, 40, width, height, 1, 24, 0, pixels.size, 0, 0, 0, 0)
    (folder / "line.bmp").write_bytes(struct.pack("<2sIHHIIiiHHIIiiII", b"BM", *size) + pixels.tobytes())
    return folder
