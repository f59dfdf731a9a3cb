"""The command line: ``penjing COMMAND --help`` tells what each command takes."""

from __future__ import annotations

import signal
import sys

INTERRUPTED = 2
"""Exit code after Ctrl-C, where there is no result to keep."""
STOPPED = "stopped by Ctrl-C before it was done; no partial file is left"


def main() -> None:
    """Run the command given on the command line, and exit with its code."""
    try:
        from penjing.cli.running import run

        code = run(sys.argv[1:])
        # What is left is tidying up: a second Ctrl-C has nothing more to stop.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        from penjing.cli.screen import Screen

        Screen("--json" in sys.argv).error("penjing", STOPPED, "", INTERRUPTED)
        code = INTERRUPTED
    sys.exit(code)
