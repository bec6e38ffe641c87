"""Values of metatags, read the slow and plain way: one value of one post at a time.

Written from the description of the site's language alone, as a second opinion on
``manifests.query``.  True, False and None are SQL's truth values.  All arithmetic is exact.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

Truth = bool | None
Number = Fraction | int
Range = tuple[Number, Number]

_FLOAT = r"[+-]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?"
_DAY_S = 86400
_UNITS = {
    **dict.fromkeys(["", "s", "sec", "secs", "second", "seconds"], Fraction(1)),
    **dict.fromkeys(["m", "mi", "min", "minute", "minutes"], Fraction(60)),
    **dict.fromkeys(["h", "hr", "hour", "hours"], Fraction(3600)),
    **dict.fromkeys(["d", "day", "days"], Fraction(_DAY_S)),
    **dict.fromkeys(["w", "wk", "week", "weeks"], Fraction(7 * _DAY_S)),
    **dict.fromkeys(["mo", "month", "months"], Fraction(1461 * _DAY_S, 48)),
    **dict.fromkeys(["y", "yr", "year", "years"], Fraction(1461 * _DAY_S, 4)),
}


class InvalidError(Exception):
    """No value of the kind."""


def matched(pattern: str, text: str) -> re.Match[str]:
    found = re.fullmatch(pattern, text, re.ASCII | re.IGNORECASE)
    if found is None:
        raise InvalidError(text)
    return found


def any_of(truths: Sequence[Truth]) -> Truth:
    if True in truths:
        return True
    return None if None in truths else False


def all_of(truths: Sequence[Truth]) -> Truth:
    if False in truths:
        return False
    return None if None in truths else True


def opposite(truth: Truth) -> Truth:
    return None if truth is None else not truth


class Kind:
    """A kind of value: ``number`` reads one, ``lone`` is what a value by itself stands for."""

    def number(self, text: str) -> Number:
        raise NotImplementedError

    def lone(self, text: str, mine: Number | None) -> Truth:
        return mine == self.number(text)

    def holds(self, value: str, mine: Number | None) -> Truth:
        """Whether a post that has ``mine`` (None: null) meets ``value``."""
        try:
            if "," not in value and " " not in value:
                return self._part(value, mine)
            parts = re.split("[, ]+", value)
            while parts and parts[-1] == "":
                parts.pop()
            if any(sign in value for sign in ("<", ">", "..")):
                return any_of([self._part(part, mine) for part in parts])
            return mine in [self.number(part) for part in parts]
        except InvalidError:
            return False

    def _part(self, text: str, mine: Number | None) -> Truth:
        if found := re.fullmatch(r"(.+?)\.\.\.(.+)", text, re.DOTALL):
            low, high = sorted(map(self.number, found.groups()))
            return None if mine is None else low <= mine < high
        if found := re.fullmatch(r"(.+?)\.\.(.+)", text, re.DOTALL):
            low, high = sorted(map(self.number, found.groups()))
            return None if mine is None else low <= mine <= high
        comparisons: list[tuple[str, Callable[[Number, Number], bool]]] = [
            (r"<=(.+)|\.\.(.+)", lambda one, other: one <= other),
            (r"<(.+)", lambda one, other: one < other),
            (r">=(.+)|(.+)\.\.", lambda one, other: one >= other),
            (r">(.+)", lambda one, other: one > other),
        ]
        for pattern, compare in comparisons:
            if found := re.fullmatch(pattern, text, re.DOTALL):
                limit = self.number(next(filter(None, found.groups())))
                return None if mine is None else compare(mine, limit)
        if text in {"any", "none"}:
            return (mine is None) == (text == "none")
        return self.lone(text, mine)


class Integer(Kind):
    def number(self, text: str) -> Number:
        matched(r"[+-]?(0x[0-9a-f]+|[1-9]\d*(_\d+)*|0)", text)
        return int(text, 0)


class Float(Kind):
    def number(self, text: str) -> Number:
        return Fraction(matched(_FLOAT, text)[0])

    def lone(self, text: str, mine: Number | None) -> Truth:
        return near(self.number(text), mine)


def near(number: Number, mine: Number | None) -> Truth:
    """Within 5% of a number."""
    low, high = number * Fraction(95, 100), number * Fraction(105, 100)
    return None if mine is None else low <= mine <= high


def two_digits(number: Fraction) -> Fraction:
    """In hundredths, half up."""
    exact = Decimal(number.numerator) / Decimal(number.denominator)
    return Fraction(exact.quantize(Decimal("0.01"), ROUND_HALF_UP))


class Ratio(Kind):
    def number(self, text: str) -> Number:
        width, _, height = text.replace("/", ":", 1).partition(":")
        if ":" not in text and "/" not in text:
            height = "1"
        quotient, divisor = Float().number(width), Float().number(height)
        if divisor <= 0:
            raise InvalidError(text)
        return two_digits(Fraction(quotient) / Fraction(divisor))


class Filesize(Kind):
    def number(self, text: str) -> Number:
        amount, unit = matched(r"(\d+(?:\.\d*)?|\d*\.\d+)([km]?)b?", text).groups()
        return Fraction(amount) * {"": 1, "k": 1024, "m": 1024**2}[unit.lower()]

    def lone(self, text: str, mine: Number | None) -> Truth:
        number = self.number(text)
        return near(number, mine) if re.search("[km]b?$", text.lower()) else mine == number


class Interval(Kind):
    """Units in strictly descending order."""

    def number(self, text: str) -> Number:
        matched(r"(?:(?:\d+(?:\.\d+)?|\.\d+) *[a-z]* *)+", text)
        parts = re.findall(r"(\d+(?:\.\d+)?|\.\d+) *([a-z]*)", text.lower())
        if not {unit for _, unit in parts} <= _UNITS.keys():
            raise InvalidError(text)
        units = [_UNITS[unit] for _, unit in parts]
        if units != sorted(set(units), reverse=True):
            raise InvalidError(text)
        return sum(Fraction(amount) * _UNITS[unit] for amount, unit in parts)


class Duration(Interval):
    def number(self, text: str) -> Number:
        if ":" not in text:
            return super().number(text)
        found = matched(r"(?:(\d{1,2}):)?(\d{1,2}):([0-5]\d(?:\.\d+)?)", text)
        hours, minutes, seconds = found.groups()
        if hours and int(minutes) > 59:
            raise InvalidError(text)
        return int(hours or 0) * 3600 + int(minutes) * 60 + Fraction(seconds)

    def lone(self, text: str, mine: Number | None) -> Truth:
        return near(self.number(text), mine)


def day_of(day: date, zone: ZoneInfo) -> Range:
    """First moment of a day, and of the next."""
    try:
        following = day + timedelta(days=1)
    except OverflowError as error:
        raise InvalidError(str(day)) from error
    first, last = (datetime.combine(one, time(), zone).timestamp() for one in (day, following))
    return int(first), int(last)


class Date(Kind):
    def __init__(self, zone: ZoneInfo) -> None:
        self.zone = zone

    def day(self, text: str) -> date:
        if re.fullmatch(r"\d{8}", text, re.ASCII):
            text = f"{text[:4]}-{text[4:6]}-{text[6:]}"
        parts = text.replace("/", "-").replace(".", "-").split("-")
        separators = set(re.findall("[-/.]", text))
        if len(parts) != 3 or len(separators) != 1 or not all(map(str.isdecimal, parts)):
            raise InvalidError(text)
        if len(parts[2]) == 4:
            parts.reverse()
        try:
            return date(*map(int, parts))
        except ValueError as error:
            raise InvalidError(text) from error

    def number(self, text: str) -> Number:
        return day_of(self.day(text), self.zone)[0]

    def lone(self, text: str, mine: Number | None) -> Truth:
        first, last = day_of(self.day(text), self.zone)
        return None if mine is None else first <= mine < last


class Age(Interval):
    """How long ago a post was made."""

    def __init__(self, now: datetime, zone: ZoneInfo) -> None:
        self.now = now
        self.zone = zone

    def lone(self, text: str, mine: Number | None) -> Truth:
        now_s = int(self.now.timestamp())
        moment = datetime.fromtimestamp(float(now_s - self.number(text)), self.zone)
        first, last = day_of(moment.date(), self.zone)
        return None if mine is None else first <= now_s - mine < last
