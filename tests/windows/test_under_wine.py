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
    "tests/test_metrics.py",
    "tests/test_names.py",
    "tests/test_recent.py",
    "tests/test_registry.py",
)
SECONDS = 400.0

pytestmark = [
    pytest.mark.skipif("LIGHTKEEPER_WINDOWS" not in os.environ, reason="the long way: make test-windows"),
    pytest.mark.timeout(900),
]


def test_the_portable_tests_pass_and_the_agent_serves_loopback() -> None:
    """Load, predict, capture and refuse, each program a Windows one."""
    if shutil.which("wine") is None:
        pytest.fail("needs wine: apt-get install --no-install-recommends wine wine64")
    ran = Wine().run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "60", *PORTABLE, seconds=SECONDS)
    assert ran.returncode == 0, ran.stdout[-3000:]
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed is not None
    assert int(passed[1]) > len(PORTABLE)
