"""The file format ``.penjing``; FORMAT.md in this folder is its specification."""

from penjing.artifact.artifact import Artifact
from penjing.artifact.header import squeeze
from penjing.artifact.inspection import Verification, sections, verify
from penjing.artifact.limits import Limits

__all__ = ["Artifact", "Limits", "Verification", "sections", "squeeze", "verify"]
