"""The examples of the query language's reference page, and the posts that they are about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from manifests.query.metatags import METATAGS, ORDERS, parse_order
from tests.support.client import Run, bucketsync
from tests.support.documents import ROOT, table_rows

PAGE = ROOT / "docs/reference/query-language.md"
POSTS = ROOT / "docs/examples/posts"
# The moment that the page names.
NOW = "2021-01-01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A query with its flags, and what the page says: the ids in order, or where it fails."""

    query: str
    flags: tuple[str, ...]
    finds: list[int] | None
    position: int | None


def posts() -> list[dict[str, Any]]:
    """The rows of the posts."""
    lines = (POSTS / "posts.json").read_bytes().splitlines()
    return [orjson.loads(line) for line in lines]


def examples() -> Iterator[Example]:
    """Every example of the page."""
    for row in table_rows(PAGE.read_text(encoding="utf-8")):
        if "query" in row:
            yield Example(
                query=row["query"],
                flags=tuple(row.get("flags", "").split()),
                finds=_ids(row["finds"]) if "finds" in row else None,
                position=int(row["position"]) if "position" in row else None,
            )


def _ids(text: str) -> list[int]:
    if text == "nothing":
        return []
    if text == "all":
        return sorted((int(post["id"]) for post in posts()), reverse=True)
    return [int(word) for word in text.split()]


def ask(query: str, *flags: str) -> Run:
    """A search among the posts."""
    where = ("--metadata", str(POSTS), "--now", NOW)
    return bucketsync("search", *where, *flags, "--", query)


def answerable() -> set[str]:
    """The names of all metatags that a release can answer."""
    return {name for name, spec in METATAGS.items() if not spec.lacks}


def unanswerable() -> set[str]:
    """The names of all others."""
    return METATAGS.keys() - answerable()


def order_names() -> set[str]:
    """The names of all orders that a release can give, without their directions."""
    named = {name: parse_order(name) for name in (*ORDERS, "landscape", "portrait")}
    newest = parse_order("none")
    return {
        name for name, order in named.items() if order != newest and not ORDERS[order.name].lacks
    }
