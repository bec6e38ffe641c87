"""The tables of the 2021 generation besides posts: tags, aliases, implications and pools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from server.sample.jsonl import Row, timestamp
from server.sample.vocabulary import ALIASES, Pool, TagNumbers, category_of, implications

TagsOf: TypeAlias = Mapping[int, frozenset[str]]
PoolMembers: TypeAlias = Mapping[Pool, Sequence[int]]

# Accounts that keep the tags, and when the site began: the same in every sample.
_KEEPER = "7"
_FOUNDED = 1_546_300_800


def tag_rows(tags_of: TagsOf, numbers: TagNumbers, date: int) -> list[Row]:
    """One row a tag; aliased names have one too, with no posts."""
    counts = Counter(tag for tags in tags_of.values() for tag in tags)
    names = {*counts, *(antecedent for antecedent, _, _ in ALIASES)}
    numbers.learn(names)
    return [
        {
            "id": str(numbers[name]),
            "name": name,
            "category": str(category_of(name)),
            "post_count": str(counts[name]),
            "created_at": timestamp(_FOUNDED),
            "updated_at": timestamp(date),
            "is_locked": False,
        }
        for name in sorted(names, key=numbers.__getitem__)
    ]


def alias_rows(date: int) -> list[Row]:
    """Other words for tags, of which only the active ones count."""
    return [
        _relation(index, (antecedent, consequent), status, date)
        for index, (antecedent, consequent, status) in enumerate(ALIASES, start=1)
    ]


def implication_rows(tags_of: TagsOf, date: int) -> list[Row]:
    """Tags that bring a wider one with them, as all posts of the release already have it."""
    return [
        _relation(index, pair, "active", date)
        for index, pair in enumerate(implications(tags_of), start=1)
    ]


def _relation(number: int, pair: tuple[str, str], status: str, date: int) -> Row:
    return {
        "id": str(number),
        "antecedent_name": pair[0],
        "consequent_name": pair[1],
        "creator_id": _KEEPER,
        "approver_id": _KEEPER if status == "active" else None,
        "status": status,
        "created_at": timestamp(_FOUNDED),
        "updated_at": timestamp(date),
        "reason": "",
    }


def pool_rows(pools: PoolMembers, date: int) -> list[Row]:
    """Pools with their posts in the order of the pool."""
    return [
        {
            "id": str(pool.id),
            "name": pool.name,
            "category": pool.category,
            "description": f"Posts tagged {' '.join(sorted(pool.tags))}.",
            "post_ids": [str(post_id) for post_id in members],
            "post_count": str(len(members)),
            "is_active": True,
            "is_deleted": False,
            "created_at": timestamp(_FOUNDED),
            "updated_at": timestamp(date),
        }
        for pool, members in pools.items()
    ]
