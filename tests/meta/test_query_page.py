"""The reference of the query language leaves nothing out."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from manifests.query.ast import All, And, Metatag, Node, Not, Opt, Or, Tag, Wildcard
from manifests.query.normal import children_of
from manifests.query.parser import parse
from tests.support.documents import section, table_rows
from tests.support.examples import PAGE, answerable, ask, examples, order_names, unanswerable

_FOUND = [example.query for example in examples() if example.finds is not None]
_NAME = re.compile(r"(?:^|(?<=[\s(~-]))([a-z_]+[a-z_0-9]*):", re.IGNORECASE)
_ORDER = re.compile(r"\border:([a-z_0-9]+)")
# How a value about numbers can be written.
_FORMS = (
    *(r":<\d", r":<=\d", r":>\d", r":>=\d", r":\.\.\d", r":\d+\.\.(\s|$)"),
    *(r":\d+\.\.\d", r":\d+\.\.\.\d", r":\d+,\d", r":\d+,\d+\.\.\d+,>\d", ":any", ":none"),
)


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in children_of(node):
        yield from _nodes(child)


def test_every_metatag_has_an_example() -> None:
    shown = {name.lower() for query in _FOUND for name in _NAME.findall(query)}
    assert answerable() - shown == set()


def test_every_order_has_an_example() -> None:
    shown = {name for query in _FOUND for name in _ORDER.findall(query)}
    assert (order_names() | {"id_desc", "score_asc"}) - shown == set()


def test_every_operator_has_an_example() -> None:
    shown = {type(node) for query in _FOUND for node in _nodes(parse(query))}
    assert shown == {And, Metatag, Not, Opt, Or, Tag, Wildcard}
    assert [query for query in _FOUND if re.search(r" and ", query, re.IGNORECASE)]
    assert parse("") == All()


@pytest.mark.parametrize("form", _FORMS)
def test_every_form_of_a_value_has_an_example(form: str) -> None:
    assert [query for query in _FOUND if re.search(form, query)]


def test_every_metatag_without_an_answer_is_named_and_refused() -> None:
    rows = table_rows(section(PAGE, "What no release can answer"))
    named = {name for row in rows for name in re.findall(r"\w+", row.get("metatags", ""))}
    assert named == unanswerable()
    assert {name for name in named if ask(f"{name}:1").code != 2} == set()
