"""Run the command line as ``python -m penjing``."""

from penjing.cli import main

main()
