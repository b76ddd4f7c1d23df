"""What operating systems do differently, each thing by one name that means the same everywhere.

`posix.py` and `windows.py` have the same names with the same signatures; one of them is chosen here, at import. No
other module of the agent imports what only one of them has, but for the Unix socket's own (`transport/door.py` chooses
it). `docs/windows.md` tells which guarantees differ.
"""

# ruff: noqa: F403, F405  # the names are listed once, below; tests/test_portable.py sees to it that each system has them

from __future__ import annotations

import sys

if sys.platform == "win32":
    from lightkeeper.system.windows import *
else:
    from lightkeeper.system.posix import *

__all__ = [
    "AGENT_SERVES_DEFAULT",
    "DEFAULT_ADDRESS",
    "FILE_FLAGS",
    "HAS_MODES",
    "HAS_UNIX_SOCKETS",
    "NO_WAITING",
    "Folder",
    "FolderLock",
    "block_endings",
    "call_at_endings",
    "file_url",
    "group_exists",
    "groups_of",
    "lock_file",
    "lock_folder",
    "opened",
    "path_of_url",
    "quoted",
    "set_mode",
    "sync_content",
    "sync_file",
    "sync_folder",
    "user_id",
    "wait_for_folder",
    "write_private",
]
