"""From what was typed to what is asked: aliases, alternatives, orders and numbers of results."""

from __future__ import annotations

import pytest

from manifests.query.ast import All, Metatag, Tag, to_text
from manifests.query.errors import QueryError
from manifests.query.metatags import Order
from manifests.query.normal import Query, normalize
from manifests.query.parser import parse

ALIASES = {"kitten": "cat", "cat": "feline", "short": "/hr"}
ABBREVIATIONS = {"/hr": "hair_ribbon"}


def normal(text: str) -> Query:
    return normalize(
        parse(text),
        alias=lambda name: ALIASES.get(name, name),
        abbreviation=lambda name: ABBREVIATIONS.get(name, name),
    )


@pytest.mark.parametrize(
    ("text", "filtered"),
    [
        ("kitten", "cat"),
        ("-(kitten or dog)", "-(cat or dog)"),
        ("~kitten ~dog", "cat or dog"),
        ("kitten*", "kitten*"),
        ("unaliased:Kitten", "kitten"),
        ("-unaliased:kitten cat", "-kitten feline"),
        ("source:kitten", "source:kitten"),
        ("/hr", "hair_ribbon"),
        ("/hr/ /unknown", "/hr/ /unknown"),
        ("short", "hair_ribbon"),
    ],
)
def test_tags_go_by_their_own_names(text: str, filtered: str) -> None:
    assert to_text(normal(text).filter) == filtered


@pytest.mark.parametrize(
    ("text", "filtered"),
    [
        ("", ""),
        ("~x", "x"),
        ("x ~y z", "y x z"),
        ("~x y ~z", "(x or z) y"),
        ("(~x) ~y ~z", "(y or z) x"),
        ("~x ~y or ~z ~w", "x or y or z or w"),
        ("~x ~y and ~z ~w", "(x or y) (z or w)"),
        ("~(x y) ~z", "(x y) or z"),
        ("-(~x ~y)", "-(x or y)"),
        ("~(~x)", "x"),
        ("x (y (z w))", "x y z w"),
        ("x or (y or (z w))", "x or y or (z w)"),
        ("-(-x)", "-(-x)"),
    ],
)
def test_alternatives_become_or(text: str, filtered: str) -> None:
    assert to_text(normal(text).filter) == filtered


def test_what_asks_about_results_leaves_the_filter() -> None:
    query = normal("cat (order:Score_asc limit:5) random:7 LIMIT:5")
    assert query == Query(
        filter=Tag("feline"), order=Order("score", ascending=True), limit=5, random=7
    )


def test_a_blank_query_is_everything_the_newest_first() -> None:
    assert normal(" ") == normal("order:id_desc") == Query(filter=All())
    assert normal("").order == Order("id", ascending=False)


def test_a_pool_is_filter_and_order() -> None:
    query = normal("ordpool:'Test A' cat")
    assert query.order == Order("pool", pool="Test A")
    assert Metatag("pool", "Test A", quoted=True) in getattr(query.filter, "children", ())


def test_an_order_that_no_dataset_has_stays_for_the_evaluator() -> None:
    assert normal("ordfav:me").filter == Metatag("ordfav", "me")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("id:2,1,3 order:custom", (2, 1, 3)),
        ("id:1 cat order:custom", (1,)),
        ("id:>0 order:custom", ()),
        ("id:1,2 id:2,3 order:custom", ()),
        ("order:custom", ()),
        ("-id:1 order:custom", ()),
        ("id:1,2..3 order:custom", ()),
        ("id:3,1", ()),
    ],
)
def test_a_custom_order_is_that_of_one_plain_list(text: str, ids: tuple[int, ...]) -> None:
    assert normal(text).custom_ids == ids


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("order:score order:favcount", 12, "order once"),
        ("order:score ordpool:b", 12, "order once"),
        ("ordfav:a ordfavgroup:a", 9, "order once"),
        ("limit:5 x limit:10", 10, "limit once"),
        ("random:5 random:10", 9, "random once"),
        ("-order:score", 1, "order: for the whole query"),
        ("-(x limit:2)", 4, "limit: for the whole query"),
        ("-(-random:2)", 3, "random: for the whole query"),
        ("a or order:score", 5, "order: for the whole query"),
        ("~a ~ordpool:b", 4, "ordpool: for the whole query"),
        ("order:score order:score a or order:score", 0, "order: for the whole query"),
        ("x limit:many", 2, "a whole number after limit:"),
        ("random:-1", 0, "a whole number after random:"),
        ("limit:", 0, "a whole number after limit:"),
    ],
)
def test_results_are_asked_about_once_and_for_the_whole(
    text: str, position: int, expected: str
) -> None:
    with pytest.raises(QueryError) as caught:
        normal(text)
    assert (caught.value.position, caught.value.expected) == (position, expected)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["order:score ORDER:SCORE", "~limit:1 (limit:1)", "random:0"])
def test_the_same_again_does_no_harm(text: str) -> None:
    assert normal(text).filter == All()
