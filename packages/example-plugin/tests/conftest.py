"""Run the tests from a checkout as well: the package need not be installed."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "src"))
