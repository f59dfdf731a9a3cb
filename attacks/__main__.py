"""Write one hostile file to standard output: ``python -m attacks zstd_bomb > bomb.penjing``."""

import sys

from attacks import ATTACKS
from attacks.programs import PROGRAMS, UNUSED

sys.stdout.buffer.write((ATTACKS | PROGRAMS | UNUSED)[sys.argv[1]].build())
