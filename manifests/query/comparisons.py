"""Metatags that compare numbers: scores, sizes, dates, counts of tags, of children, of pools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from manifests.columns import U32, Bools
from manifests.metadata.columns import COLUMNS, Column, Flag
from manifests.query.lookups import members_of, of_category
from manifests.query.masks import ratio_hundredths
from manifests.query.metatags import METATAGS, ORDERS, Spec
from manifests.query.predicates import POOLS, Measure, Numbers, Predicate, Rows, compared, listed
from manifests.query.traits import flagless
from manifests.query.values import Condition
from manifests.tagindex.index import TagIndex

_MS: Final = 1000
_MEGAPIXEL: Final = 1e6


def _one_column(spec: Spec) -> Measure:
    def numbers(rows: Rows) -> tuple[Numbers, Bools | None]:
        values = rows.column(spec.columns[0])
        return values, values == 0 if COLUMNS[spec.columns[0]].nullable else None

    return numbers


def _ids(rows: Rows) -> tuple[Numbers, Bools | None]:
    return rows.ids, None


def _pixels(rows: Rows) -> tuple[Numbers, Bools | None]:
    pixels = rows.column("image_width").astype(np.float64) * rows.column("image_height")
    return pixels / _MEGAPIXEL, pixels == 0


def _ratio(rows: Rows) -> tuple[Numbers, Bools | None]:
    width, height = rows.column("image_width"), rows.column("image_height")
    return ratio_hundredths(width, height), (width == 0) | (height == 0)


def _proportions(rows: Rows) -> tuple[Numbers, Bools | None]:
    """Width by height as it is, which orders posts whose ratios are the same when rounded."""
    width, height = rows.column("image_width"), rows.column("image_height")
    return width / np.maximum(height, 1), (width == 0) | (height == 0)


def _down_votes(rows: Rows) -> tuple[Numbers, Bools | None]:
    return np.abs(rows.column("down_score").astype(np.int64)), None


def _all_tags(rows: Rows) -> tuple[Numbers, Bools | None]:
    counts = [rows.column(name).astype(np.int64) for name in METATAGS["tagcount"].columns]
    return np.sum(counts, axis=0), None


def _seconds(rows: Rows) -> tuple[Numbers, Bools | None]:
    duration_ms = rows.column("duration_ms")
    return duration_ms / _MS, duration_ms == 0


def _children(flags_wanted: Callable[[Column], Bools]) -> Measure:
    """How many children with certain flags each post has."""

    def numbers(rows: Rows) -> tuple[Numbers, Bools | None]:
        index = rows.index
        parents = index.column("parent_id")[flags_wanted(index.column("flags"))]
        counts = np.bincount(index.ordinals_of(parents[parents > 0]), minlength=index.posts)
        return counts[rows.ordinals], None

    return numbers


def _pool_counts(category: str) -> Measure:
    """How many pools of a category each post is in."""

    def numbers(rows: Rows) -> tuple[Numbers, Bools | None]:
        index = rows.index
        posts = members_of(index.pools(), of_category(index.pools(), category))
        counts = np.bincount(index.ordinals_of(posts), minlength=index.posts)
        return counts[rows.ordinals], None

    return numbers


_NUMBERS: Final[Mapping[str, Measure]] = {
    "id": _ids,
    "mpixels": _pixels,
    "ratio": _ratio,
    "landscape": _proportions,
    "downvotes": _down_votes,
    "tagcount": _all_tags,
    "duration": _seconds,
    "child_count": _children(flagless),
    "deleted_child_count": _children(lambda flags: (flags & Flag.DELETED) != 0),
    "active_child_count": _children(lambda flags: (flags & Flag.DELETED) == 0),
    "pool_count": _pool_counts("any"),
    "series_pool_count": _pool_counts("series"),
    "collection_pool_count": _pool_counts("collection"),
}
_FAMILY: Final = ("id", "parent_id", "flags")
_POOLED: Final = ("id", POOLS)
# Where more is read than the table of metatags says.
_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "id": ("id",),
    "child_count": _FAMILY,
    "deleted_child_count": _FAMILY,
    "active_child_count": _FAMILY,
    "pool_count": _POOLED,
    "series_pool_count": _POOLED,
    "collection_pool_count": _POOLED,
}


def md5(condition: Condition) -> Predicate:
    """Posts by their md5; any, or none that is stated."""

    def ordinals(index: TagIndex) -> U32:
        if condition.any or condition.null:
            return np.sort(index.posts_by_md5())
        found = [index.posts_of_md5(md5) for md5 in condition.points if isinstance(md5, bytes)]
        return np.concatenate([np.empty(0, np.uint32), *found])

    def ids(index: TagIndex) -> U32:
        stated = ordinals(index)
        if condition.null:
            return np.delete(index.ids, stated)
        return index.ids[stated]

    return listed(ids)


def comparison(name: str, condition: Condition) -> Predicate:
    """A condition on what ``name`` counts or measures."""
    numbers, columns = measured(name)
    return compared(columns, condition, numbers)


def measured(name: str) -> tuple[Measure, tuple[str, ...]]:
    """How the numbers of a metatag, or of an order of that name, are had, and what they need."""
    # `comment` is an order by a date, and a metatag about texts that no release has.
    spec = ORDERS[name] if name in ORDERS else METATAGS[name]
    return _NUMBERS.get(name) or _one_column(spec), _COLUMNS.get(name, spec.columns)
