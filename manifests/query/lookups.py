"""Metatags that look posts up by text: pools by their names, posts by their sources."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import numpy as np

from manifests.columns import U32, Bools
from manifests.query.ast import Metatag
from manifests.query.numbers import read_digits
from manifests.query.predicates import Predicate, Rows, listed
from manifests.query.wildcards import compile_wildcard, literals
from manifests.tagindex.index import TagIndex
from manifests.tagindex.pools import SERIES, Pools


def of_category(pools: Pools, category: str) -> Bools:
    """The pools of a category; all of them if it is not one of the two."""
    series = (pools.flags & SERIES) != 0
    chosen = {"series": series, "collection": ~series}.get(category)
    return np.ones(len(pools), np.bool_) if chosen is None else chosen


def members_of(pools: Pools, chosen: Bools) -> U32:
    """The posts of some pools, one pool after another."""
    counts = np.diff(pools.starts)
    return pools.posts[np.repeat(chosen, counts)]


def find_pools(pools: Pools, value: str) -> Bools:
    """The pools that a value names: an id, or a name in any case, where ``*`` stands for text."""
    number = read_digits(value.removeprefix("#"))
    if number is not None:
        return np.asarray(pools.ids == number)
    name = re.sub(r"\s+", "_", value.strip()).lower()
    _, pattern = compile_wildcard(name)
    return np.fromiter(
        (pattern.fullmatch(known.lower().encode()) is not None for known in pools.names),
        np.bool_,
        len(pools),
    )


def pool(word: Metatag) -> Predicate:
    """Posts of the pools of a name, an id or a category; of any, or of none."""
    value = word.value.lower()
    category = value if value in {"any", "none", "series", "collection"} else ""

    def ids(index: TagIndex) -> U32:
        pools = index.pools()
        chosen = of_category(pools, category) if category else find_pools(pools, value)
        posts = np.unique(members_of(pools, chosen))
        if category == "none":
            return np.setdiff1d(index.ids, posts, assume_unique=True)
        return posts

    return listed(ids)


def _sources(decide: Callable[[bytes], Iterable[int]]) -> Predicate:
    """Posts by their sources.

    ``decide`` takes texts in lower case, a zero byte before and after each, and gives the places
    of the zero bytes before those that are looked for.
    """

    def test(rows: Rows, failing: bool) -> Bools:  # noqa: FBT001 (as Predicate has it)
        found = np.full(rows.index.posts, failing)
        first = 0
        for texts in rows.index.sources():
            rows.check()
            # As people type them: the case of an address does not count.
            data = b"\0" + texts.decode("utf-8", "replace").lower().encode()
            zeros = np.flatnonzero(np.frombuffer(data, np.uint8) == 0)
            places = np.fromiter(decide(data), np.int64)
            found[first + np.searchsorted(zeros, places)] = not failing
            first += len(zeros) - 1
        return found[rows.ordinals]

    return Predicate(lambda index: index.require_sources(), test)


def any_source() -> Predicate:
    """Posts that state a source."""
    return _sources(_starts(re.compile(rb"\0(?=[^\0])")))


def _starts(pattern: re.Pattern[bytes]) -> Callable[[bytes], Iterable[int]]:
    return lambda data: (match.start() for match in pattern.finditer(data))


def source(word: Metatag) -> Predicate:
    """A beginning, in which ``*`` is any text; empty, or ``none``, for posts without a source."""
    value = word.value.lower()
    if not value or (value == "none" and not word.quoted):
        return _sources(_starts(re.compile(rb"\0(?=\0)")))
    first, *others = (re.escape(part.encode("utf-8", "replace")) for part in literals(value))
    # Each part at its first place, so that time is linear; see wildcards.
    rest = b"".join(rb"(?>[^\0]*?" + part + rb")" for part in others if part)
    return _sources(_starts(re.compile(rb"\0" + first + rest)))
