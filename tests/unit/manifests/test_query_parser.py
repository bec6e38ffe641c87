"""Queries as text: what each means, where one stops being a query, and how it is printed."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from manifests.errors import ExitCode
from manifests.query.ast import Nothing, Tag, to_list, to_text
from manifests.query.errors import QueryError
from manifests.query.normal import children_of, normalize
from manifests.query.parser import MAX_DEPTH, MAX_LENGTH, parse


def tags(*names: str) -> list[Any]:
    return [["tag", name] for name in names]


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("\u3000", ["all"]),
        ("cat", ["tag", "cat"]),
        ("((cat))", ["tag", "cat"]),
        ("x -y", ["and", ["tag", "x"], ["not", ["tag", "y"]]]),
        ("a or -rating:s", ["or", ["tag", "a"], ["not", ["metatag", "rating", "s"]]]),
        ("~x", ["and", ["opt", ["tag", "x"]]]),
        ("(~x) y", ["and", ["and", ["opt", ["tag", "x"]]], ["tag", "y"]]),
        ("x y or z", ["or", ["and", *tags("x", "y")], ["tag", "z"]]),
        ("x or y z", ["or", ["tag", "x"], ["and", *tags("y", "z")]]),
        ("x or y and z", ["or", ["tag", "x"], ["and", *tags("y", "z")]]),
        ("x and y or z", ["or", ["and", *tags("x", "y")], ["tag", "z"]]),
        ("w and x y", ["and", ["tag", "w"], ["and", *tags("x", "y")]]),
        ("x OR y oR z", ["or", *tags("x", "y", "z")]),
        ("-  x", ["not", ["tag", "x"]]),
        ("- (x or y)", ["not", ["or", *tags("x", "y")]]),
        ("-x-y", ["not", ["tag", "x-y"]]),
        ("(x )y", ["and", *tags("x", "y")]),
        ("(x )or y", ["or", *tags("x", "y")]),
        ("orb android or_", ["and", *tags("orb", "android", "or_")]),
        ("or)", ["tag", "or)"]),
    ],
)
def test_binding(text: str, tree: list[Any]) -> None:
    assert to_list(parse(text)) == tree


@pytest.mark.parametrize(
    ("text", "names"),
    [
        # A sigma at the end as well, which Python would turn into a final one.
        ("\u0391\u03a3 \xc9CLAIR", ["\u03b1\u03c3", "\xe9clair"]),
        ("re:zero http://x.y foo:", ["re:zero", "http://x.y", "foo:"]),
        ('"foo bar"', ['"foo', 'bar"']),
        ("a,b", ["a,b"]),
        (r"\(^o^)/ \||/", [r"\(^o^)/", r"\||/"]),
        ("(>:))", [">:)"]),
        ("(;))", [";)"]),
        ("(x :))", ["x", ":)"]),
        ("(((x_(y)))) z", ["x_(y)", "z"]),
        ("(x)(y)", ["x)(y"]),
        ("(x)((y)", ["x)((y"]),
        ("(x_((y)", ["x_((y"]),
        ("x)) y", ["x))", "y"]),
        ("a\x1cb", ["a\x1cb"]),
        ("a\u200bb", ["a\u200bb"]),
    ],
)
def test_tags(text: str, names: list[str]) -> None:
    tree = parse(text)
    leaves = children_of(tree) or (tree,)
    assert [leaf.name for leaf in leaves if isinstance(leaf, Tag)] == names


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("(*_(x))", ["wildcard", "*_(x)"]),
        ("X*Y", ["wildcard", "x*y"]),
        ("re:*", ["wildcard", "re:*"]),
        ("SOURCE:Foo*", ["metatag", "source", "Foo*"]),
        ("(source:x_(y))", ["metatag", "source", "x_(y)"]),
        ("((source:x_(y)))", ["metatag", "source", "x_(y)"]),
        ("(source:)", ["metatag", "source", ""]),
        ("source:a\\ b\\\tc", ["metatag", "source", "a b\tc"]),
        (r"source:a\b", ["metatag", "source", r"a\b"]),
        ("source:'a \"b\" c'", ["metatag", "source", 'a "b" c']),
        ("pixiv:any", ["metatag", "pixiv", "any"]),
        ("Notes:>0", ["metatag", "note_count", ">0"]),
        ("order:Notes_ASC", ["metatag", "order", "note_count_asc"]),
        ("order:Score", ["metatag", "order", "Score"]),
        ("source:notes", ["metatag", "source", "notes"]),
        ('source:"x"y', ["and", ["metatag", "source", "x"], ["tag", "y"]]),
        ('source:"x"or y', ["or", ["metatag", "source", "x"], ["tag", "y"]]),
    ],
)
def test_wildcards_and_metatags(text: str, tree: list[Any]) -> None:
    assert to_list(parse(text)) == tree


@pytest.mark.parametrize(
    ("text", "position", "expected", "got", "hint"),
    [
        ("cat (dog", 8, '")"', "the end of the query", "begins at position 4"),
        ("(x)y", 4, '")"', "the end of the query", "begins at position 0"),
        ("cat )", 4, "a term or the end", "')'", "No group is open"),
        ("()", 1, "a term", "')'", "before the parenthesis"),
        ("x -", 3, "a term", "the end of the query", ""),
        ("x --y", 3, "a term", "'-y'", "use parentheses"),
        ("x or or y", 5, "a term", "'or'", "both sides"),
        ("x or", 4, "a term", "the end of the query", ""),
        ("x and", 5, "a term", "the end of the query", ""),
        ("and x", 0, "a term", "'and'", "both sides"),
        ("(x or) y", 3, '")"', "'or)'", "both sides"),
        ('x source:"y z', 13, '"', "the end of the query", "opens at position 9"),
        (r'source:"a\b"', 9, 'a " after the backslash', r"""'\\b"'""", "leave out the quotes"),
    ],
)
def test_errors_name_their_place(
    text: str, position: int, expected: str, got: str, hint: str
) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text)
    error = caught.value
    assert (error.position, error.expected, error.got) == (position, expected, got)
    assert f"position {position}" in error.message
    assert error.hint
    assert hint in error.hint
    assert error.exit_code == ExitCode.USAGE


def test_an_error_travels_between_processes() -> None:
    with pytest.raises(QueryError) as caught:
        parse("(cat")
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 (our own bytes)
    assert (again.message, again.position, again.hint) == (
        caught.value.message,
        4,
        caught.value.hint,
    )


def test_nodes_know_their_place() -> None:
    tree = parse(" cat -(dog or order:x)")
    assert [child.position for child in children_of(tree)] == [1, 5]
    (either,) = children_of(children_of(tree)[1])
    assert [either.position, *(child.position for child in children_of(either))] == [7, 7, 14]


def test_groups_nest_as_deep_as_the_limit() -> None:
    assert parse("(" * MAX_DEPTH + "x" + ")" * MAX_DEPTH) == Tag("x")
    with pytest.raises(QueryError, match="groups within each other") as caught:
        parse("(" * (MAX_DEPTH + 1) + "x" + ")" * (MAX_DEPTH + 1))
    assert caught.value.position == MAX_DEPTH


def test_a_tree_as_deep_as_can_be_is_walked() -> None:
    text = "z"
    for _ in range(MAX_DEPTH):
        text = f"~({text}) x and y or w"
    tree = parse(text)
    assert str(to_list(tree)).count("opt") == MAX_DEPTH
    assert to_text(normalize(tree).filter).count("or w") == MAX_DEPTH


@pytest.mark.parametrize(
    ("piece", "nodes"),
    [("x ", 2), ('source:"x"', 2), ("x or ", 2), ("-x ", 2), ("x:", 1), ("x)", 1), ("*", 1)],
)
def test_long_queries_are_read(piece: str, nodes: int) -> None:
    # Were a word read again for each term in it, this would take hours.
    count = MAX_LENGTH // 8 // len(piece)
    tree = parse(piece * count + "x")
    assert len(children_of(tree)) == (count + 1 if nodes > 1 else 0)


def test_a_query_has_a_greatest_length() -> None:
    assert parse("x" * MAX_LENGTH) == Tag("x" * MAX_LENGTH)
    with pytest.raises(QueryError, match="at most"):
        parse("x" * (MAX_LENGTH + 1))


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("  a   OR (b)", "a or b"),
        ("(~a) ~b ~c", "(~a) ~b ~c"),
        ("source:'it''", 'source:"it" \''),
        ("source:a\\ b", 'source:"a b"'),
        (r"source:a\b\ c d", r"source:a\b\ c d"),
        ("(source:a\\) b", "(source:a\\) b"),
        ("source:b) or x y", "source:b) or (x y)"),
        ("source:b) x or y", '(source:"b)" x) or y'),
    ],
)
def test_printing(text: str, printed: str) -> None:
    assert to_text(parse(text)) == printed
    assert to_list(parse(printed)) == to_list(parse(text))


def test_nothing_is_printed_and_listed() -> None:
    assert (to_text(Nothing()), to_list(Nothing())) == ("none", ["none"])
