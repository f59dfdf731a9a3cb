"""Looking into a file: what it consists of, and whether all of it is sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from penjing.artifact import container
from penjing.artifact.artifact import DEFAULT_LIMITS, Artifact
from penjing.core.errors import FormatError
from penjing.core.files import read_file

if TYPE_CHECKING:
    from pathlib import Path

    from penjing.artifact.container import Section
    from penjing.artifact.limits import Limits


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at and found sound."""

    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked, in order, and the first fault if there is one."""

    path: str
    checks: tuple[Check, ...]
    fault: FormatError | None = None

    @property
    def ok(self) -> bool:
        """Whether everything is sound."""
        return self.fault is None


def sections(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> list[Section]:
    """List the parts of a file in order, with offset, size and hash; sizes add up to it.

    Raises:
        ModelError: There is no such file, or it cannot be read.
        FormatError: This is no ``.penjing`` file, or it is damaged.
    """
    data = read_file(path, limits.file)
    container.unpack(data, limits)
    return container.sections(data)


def verify(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> Verification:
    """Check everything there is to check about a file; faults are reported, not raised.

    Raises:
        ModelError: There is no such file, or it cannot be read.
    """
    checks: list[Check] = []
    try:
        data = read_file(path, limits.file)
        chunks = container.unpack(data, limits)
        checks.append(
            Check("hashes", f"{len(chunks)} chunks, {len(data)} bytes, none left over")
        )
        artifact = Artifact.from_bytes(data, limits)
        checks.append(Check("header", "canonical JSON"))
        slots = len(artifact.template.slots)
        checks.append(Check("tables", f"{len(artifact.tensors)} tensors for {slots} slots"))
        elements = sum(array.size for array in artifact.arrays().values())
        checks.append(Check("tensors", f"all decode, {elements} numbers"))
        filled = len(artifact.onnx_bytes())
        assert filled == artifact.template.size_bytes, "slots are as large as they say"
        checks.append(Check("graph", f"fills to {filled} bytes as declared"))
    except FormatError as fault:
        return Verification(str(path), tuple(checks), fault)
    return Verification(str(path), tuple(checks))
