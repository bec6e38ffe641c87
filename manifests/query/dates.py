"""Days of the user's calendar as Unix seconds."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta, tzinfo

from manifests.query.numbers import BadValueError

# A date, or a whole month or year; one separator throughout.
_YEAR_FIRST = re.compile(r"([0-9]{4})(?:([-/.])([0-9]{1,2})(?:\2([0-9]{1,2}))?)?")
_DAY_FIRST = re.compile(r"([0-9]{1,2})([-/.])([0-9]{1,2})\2([0-9]{4})")
_DIGITS = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})")

Interval = tuple[float, float]


def read_date(text: str, tz: tzinfo) -> Interval:
    """First moment of a day, month or year in ``tz``, and of the one after it.

    ``2017-05-15``, ``15-5-2017``, ``20170515``, ``2017-05``, ``2017``; also with / or a point.
    """
    if match := _DIGITS.fullmatch(text):
        year, month, day = match.groups()
    elif match := _DAY_FIRST.fullmatch(text):
        day, _, month, year = match.groups()
    elif match := _YEAR_FIRST.fullmatch(text):
        year, _, month, day = match.groups()
    else:
        raise BadValueError(text)
    try:
        first = date(int(year), int(month or 1), int(day or 1))
        return _midnight(first, tz), _midnight(_after(first, month, day), tz)
    except (ValueError, OverflowError) as error:
        raise BadValueError(text) from error


def day_of(moment_s: float, tz: tzinfo) -> Interval:
    """First moment of the day in ``tz`` that a moment falls on, and of the next day."""
    try:
        first = datetime.fromtimestamp(moment_s, tz).date()
        return _midnight(first, tz), _midnight(first + timedelta(days=1), tz)
    except (ValueError, OverflowError, OSError) as error:
        raise BadValueError(str(moment_s)) from error


def _after(first: date, month: str | None, day: str | None) -> date:
    if day is not None:
        return first + timedelta(days=1)
    # The first of the next month or year, by way of a day that lies in it.
    within = first.replace(day=1) + timedelta(days=31 if month is not None else 366)
    return within.replace(day=1) if month is not None else within.replace(month=1, day=1)


def _midnight(day: date, tz: tzinfo) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=tz).timestamp()
