"""The cases that were recorded from the site's own tests: parsing, printing, values.

Trees are compared by meaning, since no normal form is made here.  Decided otherwise, as
docs/adr/0009-query-language.md says: a syntax error is an error instead of a query that matches
nothing, and a chain of ``or`` is one node, not nested pairs.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from manifests.query.ast import to_text
from manifests.query.errors import QueryError
from manifests.query.metatags import Kind
from manifests.query.normal import normalize
from manifests.query.numbers import BadValueError, read_duration, read_interval
from manifests.query.parser import parse
from manifests.query.values import NOTHING, Condition, Span, read_condition
from tests.support.conformance import CASES, needs_cases
from tests.support.queries import read_expression, same_meaning, terms_of

# Printed by the site as nested pairs.
CHAINS = {"a and b and c", "a and b and c and d", "a or b or c", "a or b or c or d"}
KINDS = {"duration": Kind.DURATION, "age": Kind.AGE, "interval": Kind.AGE}
READERS = {
    "duration": read_duration,
    "timecode": read_duration,
    "duration_string": read_interval,
}
NOW = datetime(2025, 1, 15, 17, tzinfo=UTC)

pytestmark = needs_cases


def cases(form: str) -> list[dict[str, Any]]:
    lines = map(json.loads, CASES.read_bytes().splitlines())
    return [case for case in lines if case.get("form") == form]


def test_trees_mean_what_the_site_means() -> None:
    found = cases("cnf_sexp")
    assert len(found) == 302
    for case in found:
        if case["expect"] == "none":
            with pytest.raises(QueryError):
                parse(case["query"])
            continue
        tree = parse(case["query"])
        expected = read_expression(case["expect"], terms_of(tree))
        assert same_meaning(tree, expected), case


def test_trees_are_printed_as_the_site_prints_them() -> None:
    found = cases("infix")
    assert len(found) == 26
    for case in found:
        if case["expect"] == "none":
            with pytest.raises(QueryError):
                parse(case["query"])
        elif case["query"] in CHAINS:
            assert same_meaning(parse(to_text(parse(case["query"]))), parse(case["expect"])), case
        else:
            assert to_text(parse(case["query"])) == case["expect"], case


def test_normal_queries_are_printed_as_the_site_prints_them() -> None:
    found = cases("normalized_infix")
    assert len(found) == 3
    for case in found:
        context = case["context"]
        aliases = dict(context.get("tag_aliases", [])) if context.get("apply_aliases") else {}
        query = normalize(parse(case["query"]), alias=partial(_known_as, aliases))
        assert to_text(query.filter) == case["expect"], case


def _known_as(aliases: dict[str, str], name: str) -> str:
    return aliases.get(name, name)


def as_condition(expect: Any) -> Condition:  # noqa: ANN401 (JSON)
    match expect:
        case "error":
            return NOTHING
        case ["between", {"lo": low, "hi": high, "exclusive": exclusive}]:
            return Condition(spans=(Span(low, high, includes_high=not exclusive),))
        case ["gt" | "gteq" as sign, limit]:
            return Condition(spans=(Span(low=limit, includes_low=sign == "gteq"),))
        case ["lt" | "lteq" as sign, limit]:
            return Condition(spans=(Span(high=limit, includes_high=sign == "lteq"),))
    raise AssertionError(expect)


def rounded(condition: Condition) -> Condition:
    spans = [
        Span(
            None if span.low is None else round(span.low, 9),
            None if span.high is None else round(span.high, 9),
            span.includes_low,
            span.includes_high,
        )
        for span in condition.spans
    ]
    return Condition(points=condition.points, spans=tuple(spans))


def test_ranges() -> None:
    found = cases("range")
    assert len(found) == 17
    for case in found:
        condition = read_condition(KINDS[case["type"]], case["query"], now=NOW, tz=UTC)
        assert rounded(condition) == rounded(as_condition(case["expect"])), case


def test_durations() -> None:
    found = cases("duration")
    assert len(found) == 57
    for case in found:
        read = READERS[case["type"]]
        if case["expect"] == "error":
            with pytest.raises(BadValueError):
                read(case["query"])
        else:
            assert read(case["query"]) == pytest.approx(case["expect"]), case
