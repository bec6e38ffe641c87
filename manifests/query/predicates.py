"""Conditions on posts: what a metatag with its value is, once it is read.

A predicate says of given posts which ones it holds for, or which ones fail it; a post may do
neither (see :mod:`manifests.query.evaluate`).  A value that cannot be read holds for nothing, as
on the site, and everything fails it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, tzinfo
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from manifests.columns import U32, Bools
from manifests.metadata.columns import Column
from manifests.query.masks import mask
from manifests.query.values import Condition
from manifests.tagindex.index import FramesMissing, TagIndex

Numbers = npt.NDArray[Any]
# In place of a column: the table of pools.
POOLS: Final = "pools"


class Moment(Struct, frozen=True, kw_only=True):
    """What a query's times are measured by: ``now``, aware, for ages; days begin in ``tz``."""

    now: datetime
    tz: tzinfo


class Rows(Struct, frozen=True, kw_only=True, eq=False):
    """The posts that are asked about: their ``ordinals`` (n,), ascending.

    ``check`` is called now and then by what takes long.
    """

    index: TagIndex
    ordinals: U32
    check: Callable[[], None] = lambda: None

    def column(self, name: str) -> Column:
        """Their values of a column."""
        whole = self.index.column(name)
        return whole if len(self.ordinals) == len(whole) else whole[self.ordinals]

    @property
    def ids(self) -> U32:
        """Their ids."""
        return self.column("id")


# The numbers of some posts, and which of them are null.
Measure: TypeAlias = Callable[[Rows], tuple[Numbers, Bools | None]]


class Predicate(Struct, frozen=True):
    """One metatag with its value.

    ``require(index)`` notes in the index what it will read and is not loaded; it may end by
    FramesMissing.  ``test(rows, failing)`` says which posts it holds for, or which ones fail it.
    """

    require: Callable[[TagIndex], None]
    test: Callable[[Rows, bool], Bools]


def plain(columns: tuple[str, ...], decide: Callable[[Rows], Bools]) -> Predicate:
    """What every post either meets or fails."""
    return Predicate(
        lambda index: require_columns(index, columns),
        lambda rows, failing: decide(rows) != failing,
    )


def compared(columns: tuple[str, ...], condition: Condition, numbers: Measure) -> Predicate:
    """A condition on numbers, some of which may be null."""
    return Predicate(
        lambda index: require_columns(index, columns),
        lambda rows, failing: mask(condition, *numbers(rows), negated=failing),
    )


def listed(find: Callable[[TagIndex], U32]) -> Predicate:
    """Posts that are looked up rather than compared: ``find`` gives their ids."""

    def require(index: TagIndex) -> None:
        find(index)

    return Predicate(require, lambda rows, failing: np.isin(rows.ids, find(rows.index)) != failing)


def nothing() -> Predicate:
    """What every post fails."""
    return plain((), lambda rows: np.zeros(len(rows.ordinals), np.bool_))


def require_columns(index: TagIndex, names: Iterable[str]) -> None:
    """Note in the index which of these columns, or POOLS, it does not have."""
    for name in names:
        with suppress(FramesMissing):
            index.pools() if name == POOLS else index.column(name)
