"""The tables beside the posts: tags, aliases, implications and pools, a block of lines at a time.

Each reader takes a block as :func:`manifests.metadata.rows.parse_block` does, and gives a value
and the faults of its lines.  A row whose key (its name, its two names, its id) cannot be read is
left out; anything else that cannot be read is null.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from msgspec import Struct

from manifests.columns import U8, U32, Bools
from manifests.metadata.columns import UNKNOWN_CATEGORY
from manifests.metadata.faults import BadRow, RowFault, shown
from manifests.metadata.fields import booleans, number, numbers, texts
from manifests.metadata.lines import LineRows, read_lines
from manifests.metadata.posttags import CATEGORY_CODES
from manifests.paths import MAX_ID

_U32 = 2**32 - 1
_ACTIVE = "active"
_POOL_KINDS = {"series": True, "collection": False}


class TagTable(Struct, frozen=True, kw_only=True, eq=False):
    """t tags: names, categories (t,) u8, and on how many posts of the site (t,) u32 each was."""

    names: tuple[str, ...]
    categories: U8
    post_counts: U32


class Relations(Struct, frozen=True, kw_only=True):
    """Active aliases, or implications: pairs of what is said and what is meant as well."""

    antecedents: tuple[str, ...]
    consequents: tuple[str, ...]

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Each antecedent with its consequent."""
        return zip(self.antecedents, self.consequents, strict=True)


class PoolTable(Struct, frozen=True, kw_only=True, eq=False):
    """p pools: ids (p,) u32, names, ``is_series`` and ``is_deleted`` (p,) bool.

    Pool i has the next ``member_counts[i]`` (p,) u32 of ``members`` (m,) u32: ids of posts in the
    order of the pool.
    """

    ids: U32
    names: tuple[str, ...]
    is_series: Bools
    is_deleted: Bools
    member_counts: U32
    members: U32


def parse_tags(block: bytes, file: str, first_line: int) -> tuple[TagTable, list[BadRow]]:
    """Rows of the table `tags`."""
    rows = read_lines(block, file, first_line)
    _need_names(rows, "name")
    categories = rows.one_by_one("category", rows.values("category"), _category, UNKNOWN_CATEGORY)
    table = TagTable(
        names=tuple(rows.values("name")),
        categories=np.array(categories, np.uint8),
        post_counts=np.maximum(numbers(rows, "post_count", -_U32, _U32), 0).astype(np.uint32),
    )
    return table, rows.in_order()


def parse_relations(block: bytes, file: str, first_line: int) -> tuple[Relations, list[BadRow]]:
    """Rows of `tag_aliases` or `tag_implications` that are active, or do not say."""
    rows = read_lines(block, file, first_line)
    rows.keep([status in {None, _ACTIVE} for status in _statuses(rows)])
    _need_names(rows, "antecedent_name", "consequent_name")
    pairs = Relations(
        antecedents=tuple(rows.values("antecedent_name")),
        consequents=tuple(rows.values("consequent_name")),
    )
    return pairs, rows.in_order()


def parse_pools(block: bytes, file: str, first_line: int) -> tuple[PoolTable, list[BadRow]]:
    """Rows of the table `pools`."""
    rows = read_lines(block, file, first_line)
    _need_ids(rows)
    nobody = list[int]()
    members = rows.one_by_one("post_ids", rows.values("post_ids"), _members, nobody)
    kinds = rows.one_by_one("category", rows.values("category"), _is_series, False)  # noqa: FBT003
    table = PoolTable(
        ids=numbers(rows, "id", 1, MAX_ID).astype(np.uint32),
        names=tuple(texts(rows, "name")),
        is_series=np.array(kinds, np.bool_),
        is_deleted=booleans(rows, "is_deleted"),
        member_counts=np.array(list(map(len, members)), np.uint32),
        members=np.array([post for pool in members for post in pool], np.uint32),
    )
    return table, rows.in_order()


def _statuses(rows: LineRows) -> list[str | None]:
    values = rows.values("status")
    return [value if value is None or isinstance(value, str) else "" for value in values]


def _need_names(rows: LineRows, *fields: str) -> None:
    """Drop the rows that lack one of these names."""
    gone = {}
    for field in reversed(fields):
        for place, value in enumerate(rows.values(field)):
            if not isinstance(value, str) or not value:
                problem = f"{field}: expected the name of a tag, got {shown(value)}"
                gone[place] = RowFault.FIELD, problem
    rows.drop(gone)


def _need_ids(rows: LineRows) -> None:
    gone = {}
    for place, value in enumerate(rows.values("id")):
        try:
            number(value, 1, MAX_ID)
        except ValueError as error:
            gone[place] = RowFault.FIELD, f"id: {error}"
    rows.drop(gone)


def _category(value: object) -> int:
    code = CATEGORY_CODES.get(value) if type(value) in {int, str} else None
    if code is None:
        raise ValueError(f"expected a category, got {shown(value)}")
    return code


def _is_series(value: object) -> bool:
    if not isinstance(value, str) or value not in _POOL_KINDS:
        raise ValueError(f"expected series or collection, got {shown(value)}")
    return _POOL_KINDS[value]


def _members(value: Any) -> list[int]:  # noqa: ANN401 (whatever JSON holds)
    """Ids of posts, from a list of numbers or strings, or from one string with spaces."""
    if isinstance(value, str):
        value = value.split()
    if not isinstance(value, list):
        raise ValueError(f"expected ids of posts, got {shown(value)}")  # noqa: TRY004 (one error)
    return [number(post, 1, MAX_ID) for post in value]
