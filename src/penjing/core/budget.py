"""What a user asks for: limits on size and on the loss of quality."""

from __future__ import annotations

import re
from dataclasses import InitVar, asdict, dataclass
from numbers import Real
from typing import TYPE_CHECKING

from penjing.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

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


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits that the result must keep.

    Without any limit, a drop of 0.5 % is allowed.

    >>> Budget(max_drop="0.5%", max_size="2kB")
    Budget(max_drop=0.005, max_size_bytes=2000, confidence=0.95)
    """

    max_drop: float | None = None
    """Loss of the metric that is allowed: in points (0.005 is 0.5 points) for metrics in
    [0, 1]; relative to the original's value for the others."""
    max_size_bytes: int | None = None
    """Bytes of the written file."""
    confidence: float | None = 0.95
    """Confidence of the certificate; None judges point estimates."""
    max_size: InitVar[int | str | None] = None
    """Another way to give the bytes of the written file, such as ``"2kB"``."""

    def __post_init__(self, max_size: int | str | None) -> None:
        """Read limits given as text (``"0.5%"``, ``"100kB"``); refuse what nobody can mean.

        Raises:
            ConfigError: a limit is out of range.
        """
        if max_size is not None:
            if self.max_size_bytes is not None:
                raise ConfigError(
                    "max_size", "is given beside max_size_bytes", "give only one of them"
                )
            object.__setattr__(self, "max_size_bytes", max_size)
        given = asdict(self)
        for name, parse in READ_AS.items():
            if isinstance(given[name], str):
                object.__setattr__(self, name, parse(given[name], WHERE[name]))
        if self.max_drop is None and self.max_size_bytes is None:
            object.__setattr__(self, "max_drop", DEFAULT_MAX_DROP)
        for name, (fits, wanted, hint) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and fits(value)):
                raise ConfigError(WHERE[name], f"must be {wanted}, got {given[name]!r}", hint)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


NUMBER = r"([0-9]*\.?[0-9]+)"


def parse_share(text: str, where: str) -> float:
    """Read ``0.5%`` or ``0.005`` as 0.005."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*(%?)\s*", text)
    if match is None:
        raise ConfigError(where, f"is not a share: {text!r}", "write 0.5% or 0.005")
    return float(match[1]) / (100 if match[2] else 1)


def parse_size(text: str, where: str) -> int:
    """Read ``100kB``, ``1.5MB``, ``64KiB`` or a plain number of bytes."""
    match = re.fullmatch(rf"\s*{NUMBER}\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in UNITS:
        raise ConfigError(where, f"is not a size: {text!r}", "write 100kB, 1.5MB or 64KiB")
    return int(float(match[1]) * UNITS[match[2].lower()])


def parse_duration(text: str, where: str) -> float:
    """Read ``90s``, ``10m``, ``1.5h``, ``1m30s``, ``1 min 30 s`` or a number of seconds.

    >>> parse_duration("1m30s", "--time-limit"), parse_duration("1.5m", "--time-limit")
    (90.0, 90.0)
    """
    parts = (rf"(?:{NUMBER}\s*{unit}\s*)?" for unit in ("h", "m(?:in)?", "s"))
    match = re.fullmatch(rf"\s*(?:{''.join(parts)}|{NUMBER}\s*)", text)
    if match is None or not any(match.groups()):
        raise ConfigError(where, f"is not a duration: {text!r}", "write 90s, 1m30s, 10m or 1h")
    hours, minutes, seconds, plain = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds + plain


def parse_confidence(text: str, where: str) -> float | None:
    """Read ``95%``, ``0.95``, or ``none`` for point estimates."""
    return None if text.strip().lower() == "none" else parse_share(text, where)


WHERE = {"max_drop": "max_drop", "max_size_bytes": "max_size", "confidence": "confidence"}
"""How errors call a limit."""
READ_AS: dict[str, Callable[[str, str], float | None]] = {
    "max_drop": parse_share,
    "max_size_bytes": parse_size,
    "confidence": parse_confidence,
}
RANGES: dict[str, tuple[Callable[[float], bool], str, str]] = {
    "max_drop": (
        lambda value: 0 <= value < 1,
        "in [0, 1)",
        "0.005 or '0.5%' allows a drop of half a point",
    ),
    "max_size_bytes": (
        lambda value: value >= 1,
        "at least one byte",
        "write 100kB, 1.5MB or 64KiB",
    ),
    "confidence": (
        lambda value: 0.5 <= value < 1,  # noqa: PLR2004  # less would prove nothing
        "at least 50% and below 100%",
        "use 95%, or 'none' to judge point estimates",
    ),
}
"""What a limit may be: the check, in words, and what to write."""
