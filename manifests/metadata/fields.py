"""Fields of rows, decoded a block at a time: numbers, dates, flags, digests, extensions.

Three serialisations are in the world, often side by side in one folder:

* 2017 to 2020: numbers are strings, and null is written as ``"0"`` or as a date in 1970;
* 2021 (table export): numbers are strings, and keys whose value is null are left out;
* the site's own API and its later dumps: numbers are numbers, nulls are there.

Each function has a way for a whole column of one of these, and falls back to one value at a time
for anything else, which also finds which value is bad.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from itertools import count
from types import NoneType
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.columns import I64, U8, Bools
from manifests.errors import ManifestError
from manifests.metadata.columns import RATINGS, Flag
from manifests.metadata.faults import shown
from manifests.metadata.lines import LineRows
from manifests.paths import check_extension

MAX_NUMBER = 2**63 - 1
# Longer strings of digits are no number that any field could hold (and slow to convert).
_MAX_DIGITS = 19
_NUMBER = re.compile(r"-?[0-9]{1,19}")
_MAX_EXTENSIONS = 256
_MAX_DURATION_MS = 2**32 - 1
_MD5_BYTES = 16
_HEX = re.compile(r"[0-9a-fA-F]{1,32}")
# `2008-06-08 03:37:17.89786 UTC`, ISO 8601 with Z or an offset, `+00`, or a day alone.
_DATE = re.compile(
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2}(?:[ T][0-9]{2}:[0-9]{2}:[0-9]{2})?)"
    r"(?:\.[0-9]{1,9})? ?(UTC|Z|[+-][0-9]{2}(?::?[0-9]{2})?|)$",
    re.MULTILINE,
)
_RATING_CODES: Mapping[Any, int] = {
    **{letter: code for code, letter in enumerate(RATINGS)},
    "general": 1,
    "sensitive": 2,
    "safe": 2,
    "questionable": 3,
    "explicit": 4,
}
_FLAGS: Mapping[str, Flag] = {
    "is_pending": Flag.PENDING,
    "is_flagged": Flag.FLAGGED,
    "is_deleted": Flag.DELETED,
    "is_banned": Flag.BANNED,
    "has_children": Flag.HAS_CHILDREN,
}


# --------------------------------------------------------------------------- numbers


def numbers(rows: LineRows, name: str, low: int, high: int, null: int = 0) -> I64:
    """Integers from ``low`` to ``high``, written as numbers or as strings."""
    values = rows.values(name)
    fast = fast_numbers(values, null)
    if fast is not None and (not len(fast) or (low <= fast.min() and fast.max() <= high)):
        return fast

    def one(value: Any) -> int:  # noqa: ANN401 (whatever JSON holds)
        return number(value, low, high)

    return np.array(rows.one_by_one(name, values, one, null), np.int64)


def fast_numbers(values: list[Any], null: int) -> I64 | None:
    """All of them, if they are of one serialisation; the range is not looked at."""
    kinds = set(map(type, values)) - {NoneType}
    try:
        if not kinds:
            return np.full(len(values), null, np.int64)
        if kinds == {str}:
            default = str(null)
            values = [default if value is None else value for value in values]
            # int() would take "1_0", " 1" and digits of other scripts.
            if not _plain_digits("".join(values)):
                return None
            return np.fromiter(map(int, values), np.int64, len(values))
        if kinds == {int}:
            values = [null if value is None else value for value in values]
            return np.fromiter(values, np.int64, len(values))
    except (ValueError, OverflowError):
        return None
    return None


def _plain_digits(text: str) -> bool:
    return text.isascii() and text.replace("-", "").isdigit()


def number(value: object, low: int, high: int) -> int:
    """One integer; ValueError if it is none, or out of range."""
    if isinstance(value, str) and _NUMBER.fullmatch(value) is not None:
        value = int(value)
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"expected a number from {low} to {high}, got {shown(value)}")
    return value


def durations(rows: LineRows) -> I64:
    """Milliseconds of `duration`, which is in seconds."""
    values = rows.values("duration")
    if set(map(type, values)) <= {NoneType}:
        return np.zeros(len(values), np.int64)
    return np.array(rows.one_by_one("duration", values, _milliseconds, 0), np.int64)


def _milliseconds(value: object) -> int:
    if type(value) is str and len(value) <= _MAX_DIGITS:
        value = float(value)
    if type(value) not in {int, float} or not 0 <= value * 1000 <= _MAX_DURATION_MS:  # type: ignore[operator]
        raise ValueError(f"expected seconds, got {shown(value)}")
    return round(value * 1000)  # type: ignore[operator]


# --------------------------------------------------------------------------- dates


def dates(rows: LineRows, name: str) -> I64:
    """Unix seconds, UTC; fractions are cut off."""
    values = rows.values(name)
    kinds = set(map(type, values))
    if kinds <= {NoneType}:
        return np.zeros(len(values), np.int64)
    if kinds <= {str, NoneType}:
        texts = ["1970-01-01" if value is None else value for value in values]
        fast = _fast_dates(texts)
        if fast is not None:
            return fast
    return np.array(rows.one_by_one(name, values, _date, 0), np.int64)


def _fast_dates(texts: list[str]) -> I64 | None:
    """All of them, or None if one is no date."""
    joined = "\n".join(texts)
    found = _DATE.findall(joined)
    if len(found) != len(texts) or joined.count("\n") != len(texts) - 1:
        return None
    stamps, zones = zip(*found, strict=True)
    try:
        seconds = np.array(stamps, "datetime64[s]").astype(np.int64)
        offsets = {zone: _offset_s(zone) for zone in set(zones)}
    except ValueError:
        return None
    if any(offsets.values()):
        seconds -= np.fromiter(map(offsets.__getitem__, zones), np.int64, len(zones))
    return seconds


def _offset_s(zone: str) -> int:
    """How far clocks of a zone are ahead, in seconds; ValueError for more than a day."""
    if zone[:1] not in {"+", "-"}:
        return 0
    hours, minutes = int(zone[1:3]), int(zone[3:].removeprefix(":") or 0)
    if hours > 23 or minutes > 59:  # noqa: PLR2004 (of a day, of an hour)
        raise ValueError("no such offset")
    return (hours * 60 + minutes) * (-60 if zone[0] == "-" else 60)


def _date(value: object) -> int:
    found = _fast_dates([value]) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"expected a date, got {shown(value)}")
    return int(found[0])


# --------------------------------------------------------------------------- words and flags


def flags(rows: LineRows) -> I64:
    """The bits of Flag that the booleans of a row, and its `bit_flags`, stand for."""
    bits = (numbers(rows, "bit_flags", 0, MAX_NUMBER) & 1) * int(Flag.EMBEDDED)
    for name, flag in _FLAGS.items():
        bits |= booleans(rows, name) * np.int64(flag)
    return bits


def booleans(rows: LineRows, name: str) -> Bools:
    """True and false, or their names; null is false."""
    values = rows.values(name)
    if not set(map(type, values)) <= {bool, NoneType}:
        values = rows.one_by_one(name, values, _flag, False)  # noqa: FBT003 (what null is)
    return np.fromiter(map(bool, values), np.bool_, len(values))


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise ValueError(f"expected true or false, got {shown(value)}")


def ratings(rows: LineRows) -> U8:
    """Codes of RATINGS, from letters or words."""
    values = rows.values("rating")
    try:
        codes = [0 if value is None else _RATING_CODES[value] for value in values]
    except (KeyError, TypeError):
        codes = rows.one_by_one("rating", values, _rating, 0)
    return np.array(codes, np.uint8)


def _rating(value: object) -> int:
    code = _RATING_CODES.get(value) if isinstance(value, str) else None
    if code is None:
        raise ValueError(f"expected g, s, q or e, got {shown(value)}")
    return code


def texts(rows: LineRows, name: str) -> list[str]:
    """Strings; null is empty."""
    values = rows.values(name)
    if set(map(type, values)) <= {str, NoneType}:
        return [value or "" for value in values]
    return rows.one_by_one(name, values, _text, "")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {shown(value)}")  # noqa: TRY004 (one error for all)
    return value


def extensions(rows: LineRows) -> tuple[U8, tuple[str, ...]]:
    """Codes of `file_ext`, and what they stand for; 255 of them and "" at most."""
    codes: defaultdict[str, int] = defaultdict(count().__next__)
    assigned = np.fromiter(map(codes.__getitem__, texts(rows, "file_ext")), np.int64, len(rows))
    if len(codes) <= _MAX_EXTENSIONS and not any(map(_extension_problem, codes)):
        return assigned.astype(np.uint8), tuple(codes)
    return _checked_extensions(rows, list(codes), assigned)


def _checked_extensions(
    rows: LineRows, names: list[str], assigned: I64
) -> tuple[U8, tuple[str, ...]]:
    """The same, where some of the ``names`` cannot be extensions."""
    codes = {"": 0}
    recoded = np.zeros(len(names), np.uint8)
    problems = {}
    for place, name in enumerate(names):
        problem = _extension_problem(name)
        if not problem and len(codes) == _MAX_EXTENSIONS and name not in codes:
            problem = "too many different extensions"
        if problem:
            problems[place] = problem
        else:
            recoded[place] = codes.setdefault(name, len(codes))
    for row in np.flatnonzero(np.isin(assigned, list(problems))):
        rows.blame(int(row), "file_ext", problems[int(assigned[row])])
    return recoded[assigned], tuple(codes)


def _extension_problem(name: str) -> str:
    try:
        check_extension(name or "none")
    except ManifestError as error:
        return error.problem
    return ""


def digests(rows: LineRows) -> npt.NDArray[np.uint8]:
    """The 16 bytes of each `md5`; all zero where it is null."""
    values = rows.values("md5")
    if set(map(type, values)) <= {str, NoneType}:
        raw = _hex("".join([value or "0" * 2 * _MD5_BYTES for value in values]))
        # Nothing was skipped, and so every one has its 16 bytes.
        if len(raw) == _MD5_BYTES * len(values) and set(map(len, filter(None, values))) <= {32}:
            return np.frombuffer(raw, np.uint8).reshape(-1, _MD5_BYTES)
    raw = b"".join([_digest(rows, place, value) for place, value in enumerate(values)])
    return np.frombuffer(raw, np.uint8).reshape(-1, _MD5_BYTES)


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _digest(rows: LineRows, place: int, value: object) -> bytes:
    """One digest; what is too short is kept, since `order:md5` still knows where it belongs."""
    if value is None or value == "":
        return bytes(_MD5_BYTES)
    text = value if isinstance(value, str) and _HEX.fullmatch(value) is not None else ""
    if len(text) < 2 * _MD5_BYTES:
        rows.blame(place, "md5", f"expected 32 hexadecimal digits, got {shown(value)}")
    return bytes.fromhex(text.ljust(2 * _MD5_BYTES, "0"))
