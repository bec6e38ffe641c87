"""The table of metatags, and the orders that results come in."""

from __future__ import annotations

import pytest

from manifests.metadata.columns import COLUMNS
from manifests.query.metatags import METATAGS, ORDERS, Kind, Order, parse_order

NEWEST_FIRST = Order("id", ascending=False)


def test_columns_are_those_of_a_dataset() -> None:
    named = {column for spec in (*METATAGS.values(), *ORDERS.values()) for column in spec.columns}
    assert named <= set(COLUMNS)


def test_what_a_release_lacks_is_named() -> None:
    assert METATAGS["fav"].lacks == "favourites"
    assert METATAGS["notes"] is METATAGS["note_count"]
    assert METATAGS["notes"].lacks
    assert not METATAGS["pixiv"].lacks


def test_downvotes_are_read_of_the_column_that_has_them() -> None:
    assert METATAGS["downvotes"].columns == ("down_score",)
    assert METATAGS["upvotes"].columns == ("up_score",)
    assert METATAGS["mpixels"].kind is Kind.FLOAT


@pytest.mark.parametrize(
    ("plural", "name"),
    [
        ("deleted_children", "deleted_child_count"),
        ("series_pools", "series_pool_count"),
        ("disapprovals", "disapproval_count"),
    ],
)
def test_plurals(plural: str, name: str) -> None:
    assert METATAGS[plural] is METATAGS[name]


@pytest.mark.parametrize(
    ("value", "order"),
    [
        ("score", Order("score")),
        ("SCORE_ASC", Order("score", ascending=True)),
        ("score_desc", Order("score")),
        ("id", Order("id", ascending=True)),
        ("id_asc", Order("id", ascending=True)),
        ("id_desc", NEWEST_FIRST),
        ("portrait", Order("landscape", ascending=True)),
        ("landscape", Order("landscape")),
        ("notes_asc", Order("note_count", ascending=True)),
        ("comment_bumped_asc", Order("comment_bumped", ascending=True)),
        ("chartags", Order("chartags")),
        ("created_at_asc", Order("created_at", ascending=True)),
        ("rank", Order("rank")),
        ("none", NEWEST_FIRST),
        ("", NEWEST_FIRST),
        ("garbage", NEWEST_FIRST),
        ("rank_asc", NEWEST_FIRST),
        ("custom_asc", NEWEST_FIRST),
        ("ratio", NEWEST_FIRST),
        ("pool", NEWEST_FIRST),
        ("score_asc_desc", NEWEST_FIRST),
    ],
)
def test_orders(value: str, order: Order) -> None:
    assert parse_order(value) == order
    assert order.name in ORDERS
