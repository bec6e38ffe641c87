"""Conditions applied to columns: numpy's part of reading values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.columns import Bools
from manifests.query.values import Condition, Span

Numbers = npt.NDArray[Any]


def mask(
    condition: Condition, values: Numbers, null: Bools | None = None, *, negated: bool = False
) -> Bools:
    """Which rows meet a condition, or, ``negated``, which meet its negation.

    values (n,), integers or floats in the condition's unit · ``null`` (n,), the rows that have
    none.  Neither holds of a null row where the condition does not know (``Condition.on_null``).
    """
    met = _is_one_of(values, [point for point in condition.points if not isinstance(point, bytes)])
    for span in condition.spans:
        met |= _within(values, span)
    return _decide(condition, met, null, negated=negated)


def ratio_hundredths(width: Numbers, height: Numbers) -> npt.NDArray[np.int64]:
    """Width by height as ``Kind.RATIO`` compares it: in hundredths, half up; 0 without a size."""
    wide, high = width.astype(np.int64), height.astype(np.int64)
    rounded = (200 * wide + high) // np.maximum(2 * high, 1)
    return np.where(high > 0, rounded, 0)


def _decide(condition: Condition, met: Bools, null: Bools | None, *, negated: bool) -> Bools:
    if condition.any:
        met = np.ones(len(met), np.bool_)
    result = ~met if negated else met
    if null is not None:
        known = condition.on_null
        result[null] = known is not None and known is not negated
    return result


def _is_one_of(values: Numbers, points: Sequence[float]) -> Bools:
    if values.dtype.kind == "f":
        return np.isin(values, np.array(points, values.dtype))
    limits = np.iinfo(values.dtype)
    # Others would turn the column into floats, and its large numbers into their neighbours.
    fitting = [
        int(point) for point in points if int(point) == point and limits.min <= point <= limits.max
    ]
    return np.isin(values, np.array(fitting, values.dtype))


def _within(values: Numbers, span: Span) -> Bools:
    met = np.ones(len(values), np.bool_)
    if span.low is not None:
        met &= values >= span.low if span.includes_low else values > span.low
    if span.high is not None:
        met &= values <= span.high if span.includes_high else values < span.high
    return met
