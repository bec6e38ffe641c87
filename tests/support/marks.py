"""Parameters of which ``make test`` tries a few, and ``make faults`` all."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet


def long_but(every_day: Collection[object], values: Iterable[object]) -> list[ParameterSet]:
    """Parameters for :func:`pytest.mark.parametrize`: all are long but those of every day.

    A tuple stands for several arguments, and is told by the first one of them.
    """
    found = []
    for value in values:
        several: tuple[Any, ...] = value if isinstance(value, tuple) else (value,)
        marks = () if several[0] in every_day or value in every_day else (pytest.mark.long,)
        found.append(pytest.param(*several, marks=marks))
    return found
