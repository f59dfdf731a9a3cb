"""The command line: ``penjing COMMAND --help`` tells what each command takes."""

from __future__ import annotations

import os
import signal
import sys

from penjing.core.processes import is_main

INTERRUPTED = 2
"""Exit code after Ctrl-C, where there is no result to keep."""
STOPPED = "stopped by Ctrl-C before it was done; no partial file is left"


def main() -> None:
    """Run the command given on the command line, and exit with its code."""
    # None is what Python has for a stream that the shell has closed.
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if not is_main():  # one of several that train together: the main one talks
        sys.stdout = sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
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
    if code == INTERRUPTED:
        # An interpreter that saw Ctrl-C inside exec(), as while classes are made, would end
        # itself with that signal, although it was dealt with.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
