"""Sizes, rates, durations and percentages as people write and read them.  Pure text work."""

from __future__ import annotations

import re

from manifests.errors import ConfigError

_SIZE_UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}
_TIME_UNITS = {
    "": 1,
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86400,
    "w": 7 * 86400,
    "y": 365 * 86400,
}
_NUMBER_UNIT = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([a-z]*)\s*")


def _parse(text: str, units: dict[str, int], what: str, example: str) -> float:
    match = _NUMBER_UNIT.fullmatch(text.lower())
    if match is None or match[2] not in units:
        message = f"{text!r} is not a {what}"
        raise ConfigError(message, hint=f"Write a number and a unit, such as {example}.")
    return float(match[1]) * units[match[2]]


def parse_size(text: str) -> int:
    """Bytes from ``4MiB``, ``1.5G``, ``300k`` or a plain number of bytes; else ConfigError."""
    trimmed = text.strip()
    bare = trimmed[:-1] if trimmed[-1:] in "bB" else trimmed
    return int(_parse(bare, _SIZE_UNITS, "size", "4MiB or 1.5G"))


def parse_rate(text: str) -> int:
    """Bytes per second from ``2MB/s`` or ``2M``; 0 means no limit."""
    return parse_size(text.strip().removesuffix("/s"))


def parse_duration(text: str) -> float:
    """Seconds from ``90``, ``15m``, ``2h``, ``30d`` or ``5y`` (365 days)."""
    return _parse(text, _TIME_UNITS, "duration", "15m, 2h or 30d")


def parse_percent(text: str) -> float:
    """A fraction from 0 to 1 from ``5%`` or ``5``; ConfigError outside 0 to 100."""
    value = _parse(text.strip().removesuffix("%"), {"": 1}, "percentage", "5%")
    if value > 100:  # noqa: PLR2004 (a percentage)
        message = f"{text!r} is more than 100%"
        raise ConfigError(message)
    return value / 100


def format_size(size_bytes: float) -> str:
    """``1.2 GB``: decimal units, three significant digits at most."""
    for unit in ("B", "kB", "MB", "GB"):
        shown = f"{size_bytes:.0f}" if unit == "B" else f"{size_bytes:.3g}"
        # Asked of the rounded number: 999,999 bytes are 1 MB, not 1e+03 kB.
        if abs(float(shown)) < 1000:  # noqa: PLR2004 (decimal prefixes)
            return f"{shown} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.2f} TB"


def format_count(count: int) -> str:
    """``4,878,068``."""
    return f"{count:,}"


def counted(count: int, what: str) -> str:
    """``1 file`` or ``2,000 files``."""
    return f"{format_count(count)} {what}{'s' if count != 1 else ''}"


def format_duration(seconds: float) -> str:
    """``0.42 s``, ``12 s``, ``3 min 20 s``, ``2 h 05 min``, ``4 d 3 h``."""
    if seconds < 10:  # noqa: PLR2004 (below ten seconds, fractions matter)
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004
        return f"{whole} s"
    if whole < 3600:  # noqa: PLR2004
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:  # noqa: PLR2004
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
