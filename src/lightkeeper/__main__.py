"""The commands `lightkeeper` and `sagemaker_edge_agent_binary`."""

from __future__ import annotations

import sys

from lightkeeper.cli import run


def main() -> None:
    """Run `lightkeeper` with the arguments of the process."""
    sys.exit(run(sys.argv[1:]))


def edge_agent_main() -> None:
    """Run `lightkeeper agent` under the name that scripts for the old agent call."""
    sys.exit(run(["agent", *sys.argv[1:]], program="sagemaker_edge_agent_binary"))


if __name__ == "__main__":
    main()
