"""The agent: a configuration becomes objects and threads, which run until somebody says stop.

`process.py` is the composition root; `captures.py` composes the capture line for it, and
`transports.py` picks the server. Apart from the command line, only the first two see the whole `Config`.
"""

from lightkeeper.agent.process import Agent

__all__ = ["Agent"]
