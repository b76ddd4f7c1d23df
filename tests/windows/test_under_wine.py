"""The portable part in a Windows Python under wine (`make test-windows`); `docs/windows.md` says what that shows."""

from __future__ import annotations

import os
import re
import shutil

import pytest

from tests.windows.wine import Wine

PORTABLE = (
    "tests/test_loopback.py",
    "tests/transport/test_endpoint.py",
    "tests/transport/test_codec.py",
    "tests/transport/test_status.py",
    "tests/test_binding.py",
    "tests/test_loader.py",
    "tests/test_metrics.py",
    "tests/test_names.py",
    "tests/test_recent.py",
    "tests/test_registry.py",
    "tests/capture/test_disk.py",
    "tests/capture/test_record.py",
    "tests/capture/test_retry.py",
    "tests/capture/test_sampling.py",
    "tests/capture/test_spool.py",
    "tests/capture/test_sums.py",
    "tests/capture/test_undelivered.py",
    "tests/captures/test_reader.py",
    "tests/cli/test_address.py",
    "tests/config",
    "tests/modelpackage/test_archive.py",
    "tests/modelpackage/test_build.py",
    "tests/modelpackage/test_golden.py",
    "tests/modelpackage/test_manifest.py",
    "tests/modelpackage/test_package.py",
    "tests/modelpackage/test_roots.py",
    "tests/modelpackage/test_shelf.py",
    "tests/modelpackage/test_source.py",
    "tests/modelpackage/test_trust.py",
    "tests/modelpackage/test_trustrecord.py",
    "tests/runtimes",
)
OF_WINE = {
    "tests/runtimes/test_onnx.py::test_a_run_that_needs_more_memory_than_there_is_says_so": "40 TB are not refused",
    "tests/runtimes/test_onnx.py::test_nothing_is_written_to_stdout_or_stderr_by_models_that_fail": "there is no DXGI",
}
"""Tests that fail by what wine is, and why."""

SECONDS = 600.0

pytestmark = [
    pytest.mark.skipif("LIGHTKEEPER_WINDOWS" not in os.environ, reason="the long way: make test-windows"),
    pytest.mark.timeout(900),
]


def test_the_portable_tests_pass_and_the_agent_serves_loopback() -> None:
    """Load, predict, capture and refuse, each program a Windows one."""
    if shutil.which("wine") is None:
        pytest.fail("needs wine: apt-get install --no-install-recommends wine wine64")
    left_out = [word for test in OF_WINE for word in ("--deselect", test)]
    options = ("-q", "-p", "no:cacheprovider", "--timeout", "60")
    ran = Wine().run("-m", "pytest", *options, *left_out, *PORTABLE, seconds=SECONDS)
    assert ran.returncode == 0, ran.stdout[-3000:]
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed is not None
    assert int(passed[1]) > 10 * len(PORTABLE)
