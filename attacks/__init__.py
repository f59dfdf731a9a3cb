"""Hostile ``.penjing`` files with valid hashes; README.md says what they try."""

from attacks import containers, slots, tensors
from attacks.building import ATTACKS as ATTACKS

__all__ = ["ATTACKS", "containers", "slots", "tensors"]
