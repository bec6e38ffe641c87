"""What stands after the colon of a metatag about numbers: ``5``, ``>5``, ``1..9``, ``1,3``.

Text goes in, a :class:`Condition` on numbers comes out; ``masks`` applies it to columns.  A value
that cannot be read is :data:`NOTHING`, which no post meets, so that its negation meets all: a
search for ``score:x`` finds nothing, as on the site, and is no error.

Read in this order: a list or union, two dots, a comparison, ``any`` or ``none``, one value.  Every
number of a list is exact, and a date there is the day's first moment.  A lone one may be wider:
``mpixels``, ``duration`` and sizes in k or m are 5% about it, dates and ages that whole day.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, tzinfo
from functools import partial
from typing import TypeAlias

from msgspec import Struct

from manifests.query.dates import day_of, read_date
from manifests.query.metatags import Kind
from manifests.query.numbers import (
    BadValueError,
    is_rounded_size,
    read_duration,
    read_filesize,
    read_float,
    read_integer,
    read_interval,
    read_md5,
    read_ratio,
)

_SEPARATOR = re.compile(r"[, ]+")
_TOLERANCE = 0.05
# Of the bounds of what is about a number: 5% more than 0.57 is 0.5985, as decimals have it.
_DIGITS = 9


class Span(Struct, frozen=True):
    """Numbers from ``low`` to ``high``; None is no bound."""

    low: float | None = None
    high: float | None = None
    includes_low: bool = True
    includes_high: bool = True


class Condition(Struct, frozen=True):
    """A union: equal to a point (bytes for md5), within a span, ``any`` value at all, or null.

    Integers are as they are; sizes in bytes, durations in seconds, ratios in hundredths, dates
    and ages in Unix seconds, UTC, of the moment that the post was made.
    """

    points: tuple[float | bytes, ...] = ()
    spans: tuple[Span, ...] = ()
    any: bool = False
    null: bool = False

    @property
    def on_null(self) -> bool | None:
        """Whether null meets it; None is SQL's *unknown*, whose negation is unknown as well.

        Comparisons do not know; equality takes null as one value more.
        """
        return self.null if self.null or not self.spans else None


NOTHING = Condition()

_Number: TypeAlias = Callable[[str], float | bytes]
_Lone: TypeAlias = Callable[[str], Condition]


def read_words(value: str) -> tuple[str, ...]:
    """The words of a list in lower case, for metatags that name things (``filetype:png,jpg``)."""
    return tuple(_split(value.lower()))


def read_condition(kind: Kind, value: str, *, now: datetime, tz: tzinfo) -> Condition:
    """The condition that a value states, of a kind up to ``Kind.DURATION``; else :data:`NOTHING`.

    ``now`` (aware) is what ages count from; days begin at midnight in ``tz``.
    """
    now_s = int(now.timestamp())
    match kind:
        case Kind.INTEGER:
            number, lone = _exactly(read_integer)
        case Kind.MD5:
            number, lone = _exactly(read_md5)
        case Kind.RATIO:
            number, lone = _exactly(read_ratio)
        case Kind.FLOAT:
            number, lone = _about(read_float)
        case Kind.DURATION:
            number, lone = _about(read_duration)
        case Kind.FILESIZE:
            number, lone = read_filesize, _size
        case Kind.DATE:
            number, lone = partial(_first_moment, tz=tz), partial(_whole_date, tz=tz)
        case Kind.AGE:
            number, lone = read_interval, partial(_whole_day, now_s=now_s, tz=tz)
        case _:
            return NOTHING
    try:
        condition = _read(value, number, lone)
    except BadValueError:
        return NOTHING
    return _born(condition, now_s) if kind is Kind.AGE else condition


def _read(value: str, number: _Number, lone: _Lone) -> Condition:
    if "," not in value and " " not in value:
        return _read_one(value, number, lone)
    parts = _split(value)
    if not any(sign in value for sign in ("<", ">", "..")):
        return Condition(points=tuple(map(number, parts)))
    conditions = [_read_one(part, number, lone) for part in parts]
    return Condition(
        points=tuple(point for one in conditions for point in one.points),
        spans=tuple(span for one in conditions for span in one.spans),
        any=any(one.any for one in conditions),
        null=any(one.null for one in conditions),
    )


def _split(value: str) -> list[str]:
    """Parts between commas and spaces; one at the end begins no part, one in front does."""
    return _SEPARATOR.split(value.rstrip(", "))


def _read_one(value: str, number: _Number, lone: _Lone) -> Condition:
    if span := _read_span(value, lambda text: _bound(number, text)):
        return Condition(spans=(span,))
    if value in {"any", "none"}:
        return Condition(any=value == "any", null=value == "none")
    return lone(value)


def _read_span(value: str, bound: Callable[[str], float]) -> Span | None:
    for dots in ("...", ".."):
        first, found, second = value.partition(dots)
        if found and first and second:
            low, high = sorted((bound(first), bound(second)))
            return Span(low, high, includes_high=dots == "..")
    # The longer signs first.
    for sign in ("<=", ">=", "..", "<", ">"):
        if value.startswith(sign):
            limit, is_low = bound(value.removeprefix(sign)), sign[0] == ">"
            break
    else:
        if not value.endswith(".."):
            return None
        sign, limit, is_low = "..", bound(value.removesuffix("..")), True
    inclusive = sign not in {"<", ">"}
    if is_low:
        return Span(low=limit, includes_low=inclusive)
    return Span(high=limit, includes_high=inclusive)


def _bound(number: _Number, text: str) -> float:
    found = number(text)
    if isinstance(found, bytes):
        # Digests have no order that anybody asks for.
        raise BadValueError(text)
    return found


def _exactly(number: _Number) -> tuple[_Number, _Lone]:
    return number, lambda text: Condition(points=(number(text),))


def _about(number: Callable[[str], float]) -> tuple[_Number, _Lone]:
    return number, lambda text: _near(number(text))


def _near(number: float) -> Condition:
    low, high = (round(number * part, _DIGITS) for part in (1 - _TOLERANCE, 1 + _TOLERANCE))
    return Condition(spans=(Span(low, high),))


def _size(text: str) -> Condition:
    size = read_filesize(text)
    return _near(size) if is_rounded_size(text) else Condition(points=(size,))


def _first_moment(text: str, tz: tzinfo) -> float:
    return read_date(text, tz)[0]


def _whole_date(text: str, tz: tzinfo) -> Condition:
    start, end = read_date(text, tz)
    return Condition(spans=(Span(start, end, includes_high=False),))


def _whole_day(text: str, now_s: int, tz: tzinfo) -> Condition:
    """The ages of posts that were made on the day that has this age."""
    start, end = day_of(now_s - read_interval(text), tz)
    return Condition(spans=(Span(now_s - end, now_s - start, includes_low=False),))


def _born(ages: Condition, now_s: int) -> Condition:
    """When posts of these ages were made: what is older lies lower."""
    return Condition(
        points=tuple(now_s - age for age in ages.points if not isinstance(age, bytes)),
        spans=tuple(_born_within(span, now_s) for span in ages.spans),
        any=ages.any,
        null=ages.null,
    )


def _born_within(ages: Span, now_s: int) -> Span:
    return Span(
        low=None if ages.high is None else now_s - ages.high,
        high=None if ages.low is None else now_s - ages.low,
        includes_low=ages.includes_high,
        includes_high=ages.includes_low,
    )
