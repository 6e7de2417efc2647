"""The entry point: answers ``--version`` at once, leaves the rest to `agent.cli`."""

from __future__ import annotations

import os
import sys

SHORTAGE = b"token-agent: there is not enough memory to start: raise LimitAS=, LimitDATA= (ulimit -v, -d)\n"


def main() -> None:
    """Run the command line and exit with its code; without memory for that much, say so in a line."""
    try:
        _main()
    except MemoryError:
        os.write(2, SHORTAGE)
        sys.exit(75)


def _main() -> None:
    from agent import streams

    streams.prepare()
    if sys.argv[1:] == ["--version"]:
        from agent import __version__

        try:
            print(f"token-agent {__version__}", flush=True)  # noqa: T201 - the answer itself
        except (OSError, streams.ResultError):
            pass  # as with every other command
        else:
            return
    from agent import cli

    sys.exit(cli.run(sys.argv[1:]))


if __name__ == "__main__":
    main()
