"""The configuration: one JSON file with the old agent's keys and a few of Lightkeeper's own.

`document.py` reads the file, `values.py` reads one value, `model.py` holds every key and the rules between them, and
`check.py` puts together what is wrong. Only `agent.py` and the command line see a whole `Config`; everything else
takes the values it needs.
"""

from lightkeeper.config.check import Report, check, load
from lightkeeper.config.model import Config
from lightkeeper.config.values import Destination, Provider

__all__ = ["Config", "Destination", "Provider", "Report", "check", "load"]
