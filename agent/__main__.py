"""The entry point: answers ``--version`` at once, leaves the rest to `agent.cli`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.argv[1:] == ["--version"]:
        from agent import __version__

        print(f"token-agent {__version__}")  # noqa: T201 - the answer itself
        return
    from agent import cli

    sys.exit(cli.run(sys.argv[1:]))


if __name__ == "__main__":
    main()
