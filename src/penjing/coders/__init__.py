"""Entropy coders: arrays to bytes and back, exactly.  One file each."""
