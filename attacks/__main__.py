"""Write one hostile file to standard output: ``python -m attacks zstd_bomb > bomb.penjing``."""

import sys

from attacks import ATTACKS

sys.stdout.buffer.write(ATTACKS[sys.argv[1]].build())
