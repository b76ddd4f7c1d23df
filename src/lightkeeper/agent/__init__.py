"""The agent: a configuration becomes objects and threads, which run until somebody says stop.

`process.py` is the composition root; `captureline.py` composes capture for it behind `captures.py`, and `transports.py`
picks the server. Apart from the command line, nothing outside this package sees the whole `Config`.
"""

from lightkeeper.agent.process import Agent

__all__ = ["Agent"]
