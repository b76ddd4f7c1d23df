"""Lightkeeper: an inference agent for edge devices.

The package's public parts are `lightkeeper.client` (for applications) and the command `lightkeeper`.
"""

__version__ = "1.0.0"
