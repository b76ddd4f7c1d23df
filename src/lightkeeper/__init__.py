"""Lightkeeper: an inference agent for edge devices.

The package's public parts are `lightkeeper.client` (for applications) and the command `lightkeeper`.
"""

from datetime import UTC, datetime

__version__ = "1.0.0"

RELEASED = datetime(2026, 11, 22, tzinfo=UTC)
"""When this agent was released: the true time is not before it. A release moves it on."""
