"""Every package that was ever released stays readable."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from lightkeeper.modelpackage.package import PackageStore
from lightkeeper.modelpackage.target import Host
from lightkeeper.modelpackage.trustrecord import TrustRecord
from lightkeeper.runtimes.base import RuntimeOptions
from lightkeeper.runtimes.discovery import Runtimes

FIXTURES = Path(__file__).parents[1] / "fixtures" / "packages"


@pytest.mark.parametrize(
    "archive", sorted(FIXTURES.glob("format-*/*.tar.gz")), ids=lambda path: f"{path.parent.name} {path.name}"
)
def test_released_package_is_verified_opened_and_run(tmp_path: Path, archive: Path) -> None:
    """A package from the shelf is trusted, opens, and gives its golden output (clauses 1 to 5)."""
    shutil.copy(archive.parent / "root.pem", tmp_path / "root.pem")
    (tmp_path / "root.pem").chmod(0o444)  # version control keeps no such mode
    store = PackageStore(
        root_certs=tmp_path,
        staging=tmp_path / "staging",
        record=TrustRecord(None, released=datetime(2026, 11, 1, tzinfo=UTC)),
        host=Host("linux", "aarch64", frozenset({"cpu"}), "1.0.0"),
        now=lambda: datetime(2030, 1, 1, tzinfo=UTC),
    )
    with store.open(str(archive)) as package:
        assert (package.manifest.name, package.manifest.version) == ("probe", "1.0")
        assert package.digest == "a927c342c6435762659b121e93ac028397a4d3c6702f39463dae31a900ca6846"
        golden = package.golden()
        session = Runtimes(RuntimeOptions(threads=1)).for_format(package.manifest.format).open(package.model)
        try:
            assert golden is not None
            (output,) = session.run(golden.inputs)
            np.testing.assert_array_equal(output, golden.outputs["y"])
        finally:
            session.close()


def test_there_are_released_packages() -> None:
    """The shelf is not empty."""
    assert len(list(FIXTURES.glob("format-1/*.tar.gz"))) == 2
