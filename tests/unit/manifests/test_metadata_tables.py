"""Tags, aliases, implications and pools, as tables of either serialisation."""

from __future__ import annotations

import orjson
import pytest

from manifests.metadata.columns import UNKNOWN_CATEGORY
from manifests.metadata.faults import BadRow, RowFault
from manifests.metadata.tables import Relations, parse_pools, parse_relations, parse_tags


def block(*rows: object) -> bytes:
    return b"\n".join(map(orjson.dumps, rows))


def places(faults: list[BadRow]) -> list[tuple[int, RowFault, str]]:
    return [(fault.line, fault.fault, fault.problem.split(":")[0]) for fault in faults]


def test_tags() -> None:
    rows = block(
        {"id": "1", "name": "solo", "category": "0", "post_count": "12"},
        {"id": 2, "name": "macross", "category": 3, "post_count": 0},
        {"name": "bare"},
        {"name": "negative", "category": 5, "post_count": -2},
    )
    table, faults = parse_tags(rows, "tags.json", 1)
    assert faults == []
    assert table.names == ("solo", "macross", "bare", "negative")
    assert table.categories.tolist() == [0, 3, UNKNOWN_CATEGORY, 5]
    assert table.post_counts.tolist() == [12, 0, 0, 0]


def test_tags_that_cannot_be_read() -> None:
    rows = block({"name": "a", "category": "2"}, {"category": 0}, {"name": "b", "post_count": "x"})
    table, faults = parse_tags(rows + b"\n?", "tags.json", 5)
    assert table.names == ("a", "b")
    assert table.categories.tolist() == [UNKNOWN_CATEGORY, UNKNOWN_CATEGORY]
    assert places(faults) == [
        (5, RowFault.FIELD, "category"),
        (6, RowFault.FIELD, "name"),
        (7, RowFault.FIELD, "post_count"),
        (8, RowFault.JSON, "no JSON"),
    ]


@pytest.mark.parametrize("status", ["deleted", "retired", "pending", "", 5, "Active"])
def test_only_relations_that_are_active_count(status: object) -> None:
    gone = {"antecedent_name": "x", "consequent_name": "y", "status": status}
    pairs, faults = parse_relations(
        block(
            {"antecedent_name": "a", "consequent_name": "b", "status": "active"},
            gone,
            {"antecedent_name": "c", "consequent_name": "d"},
            {"antecedent_name": "e", "consequent_name": "f", "status": None},
        ),
        "tag_aliases.json",
        1,
    )
    assert pairs == Relations(antecedents=("a", "c", "e"), consequents=("b", "d", "f"))
    assert faults == []


def test_relations_that_lack_a_name() -> None:
    rows = block({"antecedent_name": "a"}, {"consequent_name": "b"}, {"antecedent_name": ["a"]})
    pairs, faults = parse_relations(rows, "x", 1)
    assert pairs == Relations(antecedents=(), consequents=())
    assert places(faults) == [
        (1, RowFault.FIELD, "consequent_name"),
        (2, RowFault.FIELD, "antecedent_name"),
        (3, RowFault.FIELD, "antecedent_name"),
    ]


def test_pools_keep_the_order_of_their_posts() -> None:
    rows = block(
        {"id": "7", "name": "one", "category": "series", "post_ids": ["9", "2", "5"]},
        {"id": 8, "name": "two", "category": "collection", "post_ids": [3], "is_deleted": True},
        {"id": 9, "name": "three", "post_ids": "4 1"},
        {"id": 10},
    )
    table, faults = parse_pools(rows, "pools.json", 1)
    assert faults == []
    assert table.ids.tolist() == [7, 8, 9, 10]
    assert table.names == ("one", "two", "three", "")
    assert table.is_series.tolist() == [True, False, False, False]
    assert table.is_deleted.tolist() == [False, True, False, False]
    assert table.member_counts.tolist() == [3, 1, 2, 0]
    assert table.members.tolist() == [9, 2, 5, 3, 4, 1]


def test_pools_that_cannot_be_read() -> None:
    rows = block(
        {"name": "no id"},
        {"id": 1, "post_ids": ["x"], "category": "gallery"},
        {"id": 2, "post_ids": {"5": 1}, "is_deleted": 1},
        {"id": 3, "name": 5, "post_ids": [6]},
        {"id": 4, "category": ["series"]},
    )
    table, faults = parse_pools(rows, "pools.json", 1)
    assert table.ids.tolist() == [1, 2, 3, 4]
    assert table.member_counts.tolist() == [0, 0, 1, 0]
    assert sorted(places(faults)) == [
        (1, RowFault.FIELD, "id"),
        (2, RowFault.FIELD, "category"),
        (2, RowFault.FIELD, "post_ids"),
        (3, RowFault.FIELD, "is_deleted"),
        (3, RowFault.FIELD, "post_ids"),
        (4, RowFault.FIELD, "name"),
        (5, RowFault.FIELD, "category"),
    ]
