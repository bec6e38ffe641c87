"""One number as the site reads it: integers, ratios, sizes in bytes, durations, digests."""

from __future__ import annotations

import math
import re
from typing import Final

MD5_DIGITS = 32

# Ruby's literals: signs, single underscores between digits, 0x, 0b, and a leading 0 for octal.
# Greater than anything that has a number.  Python reads no more than 4,300 digits.
BEYOND: Final = 10**19
_INTEGER = re.compile(r"[+-]?[0-9a-f_xbo]+", re.IGNORECASE)
_OLD_OCTAL = re.compile(r"([+-]?)0_?([0-7_]+)")
_FLOAT = re.compile(
    r"[+-]?(?:[0-9]+(?:_[0-9]+)*(?:\.[0-9]+(?:_[0-9]+)*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?",
    re.IGNORECASE,
)
_FILESIZE = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([km]?)b?", re.IGNORECASE)
_MD5 = re.compile(rf"[0-9a-f]{{{MD5_DIGITS}}}", re.IGNORECASE)
_TIMECODE = re.compile(
    r"(?:([0-9]{1,2}):([0-5][0-9])|([0-9]{1,2})):([0-5][0-9](?:\.[0-9]+)?)", re.ASCII
)
_INTERVAL_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+) *([a-z]*) *")

_SIZE_UNITS = {"": 1, "k": 1024, "m": 1024**2}
_DAY_S = 86400
_YEAR_S = int(365.25 * _DAY_S)
# Seconds of each unit with its abbreviations; any beginning of the long name that fits no other
# unit will do as well.
_UNITS = {
    "seconds": (1, ("s", "sec")),
    "minutes": (60, ("m", "mi", "min")),
    "hours": (3600, ("h", "hr")),
    "days": (_DAY_S, ("d",)),
    "weeks": (7 * _DAY_S, ("w", "wk")),
    "months": (_YEAR_S // 12, ("mo",)),
    "years": (_YEAR_S, ("y", "yr")),
}


def _unit_names() -> dict[str, int]:
    """Seconds by every spelling of a unit; none at all is seconds."""
    names = {"": 1}
    for name, (seconds, short) in _UNITS.items():
        beginnings = (name[:end] for end in range(1, len(name) + 1))
        alone = (
            text for text in beginnings if sum(other.startswith(text) for other in _UNITS) == 1
        )
        names |= dict.fromkeys((*alone, *short), seconds)
    return names


_UNIT_NAMES = _unit_names()


class BadValueError(ValueError):
    """Text that is no value of the kind asked for; never leaves this package."""


def read_integer(text: str) -> int:
    """``5``, ``+5``, ``1_000``, ``0x10``; octal if it begins with 0."""
    if _INTEGER.fullmatch(text) is None:
        raise BadValueError(text)
    octal = _OLD_OCTAL.fullmatch(text)
    try:
        return int(f"{octal[1]}0o{octal[2]}" if octal else text, 0)
    except ValueError as error:
        raise BadValueError(text) from error


def read_digits(text: str) -> int | None:
    """The number that digits alone stand for, BEYOND for all that are as great; else None."""
    if not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0") or "0"
    return int(digits) if len(digits) < len(str(BEYOND)) else BEYOND


def read_float(text: str) -> float:
    """``1.5``, ``.5``, ``15e-1``; digits stand after every point, and the result is finite."""
    if _FLOAT.fullmatch(text) is None:
        raise BadValueError(text)
    return _finite(float(text))


def read_md5(text: str) -> bytes:
    """The 16 bytes of 32 hex digits."""
    if _MD5.fullmatch(text) is None:
        raise BadValueError(text)
    return bytes.fromhex(text)


def read_ratio(text: str) -> int:
    """Width by height in hundredths, half up, of ``4:3``, ``4/3`` or ``1.33``."""
    width, colon, height = text.partition(":" if ":" in text else "/")
    quotient = read_float(width)
    if colon:
        divisor = read_float(height)
        if divisor <= 0:
            raise BadValueError(text)
        quotient = _finite(quotient / divisor)
    return math.floor(_finite(quotient * 100) + 0.5)


def read_filesize(text: str) -> float:
    """Bytes of ``1048576``, ``300kb`` or ``1.5m``; a k is 1,024."""
    match = _FILESIZE.fullmatch(text)
    if match is None:
        raise BadValueError(text)
    return _finite(float(match[1]) * _SIZE_UNITS[match[2].lower()])


def is_rounded_size(text: str) -> bool:
    """Whether a size has a suffix, with which people mean about so much."""
    return text[-1:] in set("kKmM") or text[-2:-1] in set("kKmM")


def read_interval(text: str) -> float:
    """Seconds of ``90``, ``1.5min`` or ``1d2h``: units from the greatest down, each once."""
    rest, total, last = text.lower(), 0.0, math.inf
    while match := _INTERVAL_PART.match(rest):
        unit = _UNIT_NAMES.get(match[2], math.inf)
        if unit >= last:
            break
        total, last, rest = total + float(match[1]) * unit, unit, rest[match.end() :]
    if rest or not text:
        raise BadValueError(text)
    return _finite(total)


def _read_timecode(text: str) -> float:
    match = _TIMECODE.fullmatch(text)
    if match is None:
        raise BadValueError(text)
    hours, minutes, lone_minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes or lone_minutes) * 60 + float(seconds)


def read_duration(text: str) -> float:
    """Seconds of ``1:30``, ``01:02:45``, ``0:15.123``, or of what :func:`read_interval` reads."""
    return _read_timecode(text) if ":" in text else read_interval(text)


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise BadValueError(str(number))
    return number
