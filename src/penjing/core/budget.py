"""What a user asks for: limits on size and on the loss of quality."""

from __future__ import annotations

import re
from dataclasses import dataclass

from penjing.core.errors import ConfigError

DEFAULT_MAX_DROP = 0.005
UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits that the result must keep.

    Without any limit, a drop of 0.5 % is allowed.
    """

    max_drop: float | None = None
    """Loss of the metric that is allowed: in points (0.005 is 0.5 points) for metrics in
    [0, 1]; relative to the original's value for the others."""
    max_size_bytes: int | None = None
    """Bytes of the written file."""
    confidence: float | None = 0.95
    """Confidence of the certificate; None judges point estimates."""

    def __post_init__(self) -> None:
        """Read limits given as text (``"0.5%"``, ``"100kB"``); refuse what nobody can mean.

        Raises:
            ConfigError: a limit is out of range.
        """
        for name, parse in (
            ("max_drop", parse_share),
            ("max_size_bytes", parse_size),
            ("confidence", parse_confidence),
        ):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, parse(getattr(self, name), name))
        if self.max_drop is None and self.max_size_bytes is None:
            object.__setattr__(self, "max_drop", DEFAULT_MAX_DROP)
        if self.max_drop is not None and not 0 <= self.max_drop < 1:
            raise ConfigError(
                "max_drop",
                f"must be in [0, 1), got {self.max_drop!r}",
                "0.005 or '0.5%' allows a drop of half a point",
            )
        if self.max_size_bytes is not None and self.max_size_bytes < 1:
            raise ConfigError("max_size", f"must be positive, got {self.max_size_bytes}")
        if self.confidence is not None and not 0.5 <= self.confidence < 1:  # noqa: PLR2004
            raise ConfigError(
                "confidence",
                f"must be at least 50% and below 100%, got {self.confidence!r}",
                "use 95%, or 'none' to judge point estimates",
            )


def parse_share(text: str, where: str) -> float:
    """Read ``0.5%`` or ``0.005`` as 0.005."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*(%?)\s*", text)
    if match is None:
        raise ConfigError(where, f"is not a share: {text!r}", "write 0.5% or 0.005")
    return float(match[1]) / (100 if match[2] else 1)


def parse_size(text: str, where: str) -> int:
    """Read ``100kB``, ``1.5MB``, ``64KiB`` or a plain number of bytes."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in UNITS:
        raise ConfigError(where, f"is not a size: {text!r}", "write 100kB, 1.5MB or 64KiB")
    return int(float(match[1]) * UNITS[match[2].lower()])


def parse_duration(text: str, where: str) -> float:
    """Read ``90s``, ``10m``, ``1.5h`` or a plain number of seconds."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([smh]?)\s*", text)
    if match is None:
        raise ConfigError(where, f"is not a duration: {text!r}", "write 90s, 10m or 1h")
    return float(match[1]) * SECONDS[match[2]]


def parse_confidence(text: str, where: str) -> float | None:
    """Read ``95%``, ``0.95``, or ``none`` for point estimates."""
    return None if text.strip().lower() == "none" else parse_share(text, where)
