"""The service manager that started the agent: it is told when the agent can be called, and when it begins to end.

The words are those of systemd's notification protocol; without `NOTIFY_SOCKET` in the environment nobody is told.
"""

from __future__ import annotations

import logging
import os
import socket
import sys

READY = "READY=1"
STOPPING = "STOPPING=1"

log = logging.getLogger(__name__)


def tell(word: str) -> None:
    """Send a word, if there is a service manager that listens; one that cannot be reached is logged."""
    address = os.environ.get("NOTIFY_SOCKET")
    if sys.platform == "win32" or not address:
        return
    if address.startswith("@"):  # a name that is no file
        address = f"\0{address[1:]}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(word.encode("ascii"), address)
    except OSError as error:
        log.warning("service_manager_unreachable", extra={"word": word, "detail": str(error)})
