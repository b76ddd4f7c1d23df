"""The commands `lightkeeper`, `sagemaker_edge_agent_binary` and `sagemaker_edge_agent_client_example`."""

from __future__ import annotations

import sys

from lightkeeper.cli import EXIT_USAGE, guarded, run


def main() -> None:
    """Run `lightkeeper` with the arguments of the process."""
    sys.exit(run(sys.argv[1:]))


def edge_agent_main() -> None:
    """Run `lightkeeper agent` under the name that scripts for the old agent call."""
    sys.exit(run(["agent", *sys.argv[1:]], program="sagemaker_edge_agent_binary"))


def example_client_main() -> None:
    """Run the old agent's example client."""
    from lightkeeper.cli import example_client

    if not example_client.understood(sys.argv[1:]):
        sys.exit(EXIT_USAGE)
    sys.exit(guarded(lambda: example_client.run(sys.argv[1:]), program="sagemaker_edge_agent_client_example"))


if __name__ == "__main__":
    main()
