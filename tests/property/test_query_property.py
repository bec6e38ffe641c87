"""Whatever is typed is a query or an error with a place; what is printed means what was parsed."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from manifests.query.ast import (
    All,
    And,
    Metatag,
    Node,
    Not,
    Opt,
    Or,
    Tag,
    Wildcard,
    to_list,
    to_text,
)
from manifests.query.errors import QueryError
from manifests.query.masks import mask
from manifests.query.metatags import Kind
from manifests.query.normal import children_of, normalize, simplify
from manifests.query.parser import parse
from manifests.query.values import NOTHING, read_condition
from tests.support.queries import same_meaning

NOW = datetime(2025, 1, 15, 17, tzinfo=UTC)
PIECES = [
    "a",
    "b*",
    "(",
    ")",
    "-",
    "~",
    " ",
    "or",
    "and ",
    ":",
    "source:",
    "order:",
    '"',
    "'",
    "\\",
]
TYPED = st.lists(st.sampled_from(PIECES), max_size=15).map("".join) | st.text(max_size=40)

# Names and values that can be written anywhere, also within the parentheses of a list.
LEAVES = st.one_of(
    st.sampled_from(["a", "b", "x_(y)", "re:zero", "c'", "or_"]).map(Tag),
    st.sampled_from(["a*", "*_(y)"]).map(Wildcard),
    st.builds(
        Metatag,
        st.just("source"),
        st.text("a \"')(\u3000*", max_size=5),
        st.just(True),  # noqa: FBT003
    ),
    st.builds(Metatag, st.just("source"), st.text("a\\ ,\u3000*", min_size=1, max_size=5)),
)


def lists(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    optional = children | children.map(Opt)
    several = st.lists(optional, min_size=2, max_size=3).map(tuple)
    return several.map(And) | st.lists(children, min_size=2, max_size=3).map(tuple).map(Or)


TREES: st.SearchStrategy[Node] = st.recursive(
    LEAVES, lambda children: lists(children) | children.map(Not), max_leaves=5
)


def outcome(text: str) -> Node | QueryError:
    try:
        return parse(text)
    except QueryError as error:
        return error


@given(TYPED)
def test_any_text_is_a_query_or_an_error_with_a_place(text: str) -> None:
    found = outcome(text)
    assert 0 <= found.position <= len(text)
    if isinstance(found, QueryError):
        assert found.expected
        assert found.got
        assert found.hint
    else:
        assert to_list(found)


@given(TYPED)
def test_any_query_is_normal_or_asks_for_what_cannot_be(text: str) -> None:
    try:
        query = normalize(parse(text))
    except QueryError:
        return
    kinds = {type(node) for node in walk(query.filter)}
    assert Opt not in kinds
    assert query.filter == All() or All not in kinds


def walk(tree: Node) -> list[Node]:
    return [tree, *(node for child in children_of(tree) for node in walk(child))]


@given(TREES)
def test_what_is_printed_means_the_same_when_it_is_parsed(tree: Node) -> None:
    assert same_meaning(unquoted(parse(to_text(tree))), unquoted(tree))


def unquoted(tree: Node) -> Node:
    """The same without the difference that quotes make to one value, ``source:none``."""
    match tree:
        case Metatag(name, value):
            return Metatag(name, value)
        case And(children):
            return And(tuple(map(unquoted, children)))
        case Or(children):
            return Or(tuple(map(unquoted, children)))
        case Not(child):
            return Not(unquoted(child))
        case Opt(child):
            return Opt(unquoted(child))
        case _:
            return tree


@given(TREES)
def test_a_normal_tree_is_normal(tree: Node) -> None:
    once = simplify(tree)
    assert simplify(once) == once
    assert same_meaning(once, tree)


@given(TREES, TREES)
def test_parentheses_keep_a_query_together(one: Node, other: Node) -> None:
    text = f"({to_text(one, grouped=True)}) or ({to_text(other, grouped=True)})"
    assert same_meaning(unquoted(parse(text)), unquoted(Or((one, other))))


NUMBER_KINDS = st.sampled_from([kind for kind in Kind if kind.value <= Kind.DURATION.value])
VALUES = (
    st.text("0123456789.,<>= -+_:/kmbxdhys", max_size=12)
    | st.text(max_size=8)
    | st.integers(-5, 20).map(str)
    | st.tuples(st.integers(-5, 20), st.integers(-5, 20)).map(lambda pair: f"{pair[0]}..{pair[1]}")
)
COLUMN = np.arange(-6, 22, dtype=np.int64)
NULL = COLUMN % 5 == 0


@given(NUMBER_KINDS, VALUES)
def test_any_value_is_a_condition(kind: Kind, value: str) -> None:
    condition = read_condition(kind, value, now=NOW, tz=UTC)
    met = mask(condition, COLUMN, NULL)
    others = mask(condition, COLUMN, NULL, negated=True)
    assert not (met & others).any()
    # Every row is on one side, but for nulls that a comparison cannot tell.
    assert (met | others | NULL).all()
    assert (met | others)[NULL].all() == (condition.on_null is not None)


@given(st.integers(-5, 20), st.integers(-5, 20))
def test_ranges_have_the_rows_between(one: int, other: int) -> None:
    def rows(value: str) -> list[int]:
        condition = read_condition(Kind.INTEGER, value, now=NOW, tz=UTC)
        assert condition != NOTHING
        return [int(number) for number in COLUMN[mask(condition, COLUMN)]]

    low, high = sorted((one, other))
    assert rows(f"{one}..{other}") == list(range(low, high + 1))
    assert rows(f"{one}...{other}") == list(range(low, high))
    assert rows(f"<{one}") == list(range(-6, one))
    assert rows(f"<{one},>={one}") == COLUMN.tolist()
