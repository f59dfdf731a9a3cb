"""The command line: ``penjing COMMAND --help`` tells what each command takes."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command given on the command line, and exit with its code."""
    from penjing.cli.running import run

    sys.exit(run(sys.argv[1:]))
