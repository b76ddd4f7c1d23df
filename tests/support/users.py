"""Being another user for a while, where the tests are root's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

OTHER_UID = 65534


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Be a user to whom modes apply; connections made meanwhile are that user's, by the kernel's word."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    os.seteuid(OTHER_UID)
    try:
        yield
    finally:
        os.seteuid(0)
