"""Whether this process is one of several that train together, as torchrun starts them.

Each of them does the whole job on the same data, and the same way; only while training do they
share the batches.  The main one alone talks and writes files.
"""

from __future__ import annotations

import os

SET_BY_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


def processes() -> int:
    """Count the processes that train together; 1 where nothing else was set up."""
    if not all(os.environ.get(name, "").isdigit() for name in SET_BY_TORCHRUN):
        return 1
    return max(1, int(os.environ["WORLD_SIZE"]))


def is_main() -> bool:
    """Tell whether this is the process that talks and writes."""
    return processes() == 1 or int(os.environ["RANK"]) == 0
