"""Tag indexes in memory, from rows of JSON as any export writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import orjson

from manifests.framed import decode_framed
from manifests.framedref import FramedRef
from manifests.metadata.rows import parse_block
from manifests.metadata.tables import parse_pools, parse_relations, parse_tags
from manifests.query.parser import parse
from manifests.query.predicates import Moment
from manifests.query.search import Search
from manifests.tagindex.build import KIND, IndexBuilder
from manifests.tagindex.index import FramesMissing, TagIndex
from tests.support.framedobjects import framed

Row = Mapping[str, Any]


def lines(rows: Iterable[Row]) -> bytes:
    """Rows as JSON lines."""
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def build(
    posts: Iterable[Row],
    *,
    aliases: Iterable[Row] = (),
    implications: Iterable[Row] = (),
    pools: Iterable[Row] = (),
    tags: Iterable[Row] = (),
) -> tuple[FramedRef, bytes]:
    """The object of an index, and its name."""
    builder = IndexBuilder()
    builder.add_posts(parse_block(lines(posts), "posts", 1)[0])
    builder.add_aliases(parse_relations(lines(aliases), "tag_aliases", 1)[0])
    builder.add_implications(parse_relations(lines(implications), "tag_implications", 1)[0])
    builder.add_tags(parse_tags(lines(tags), "tags", 1)[0])
    if pools := list(pools):
        builder.add_pools(parse_pools(lines(pools), "pools", 1)[0])
    return framed(KIND, builder.finish)


class HeldIndex:
    """An index whose frames are handed over when they are asked for; counts what is."""

    def __init__(self, ref: FramedRef, data: bytes) -> None:
        start, stop = ref.header_span
        self.index = TagIndex(decode_framed(data[start:stop], ref, KIND, "index"))
        self._data = data
        self.rounds = 0
        self.loaded_bytes = 0

    def load_all(self) -> None:
        """Load what was asked for and is missing."""
        self.index.load(
            {key: self._data[slice(*self.index.span(key))] for key in self.index.wanted}
        )

    def named(self, name: str) -> int | None:
        """The number of a tag."""
        with suppress(FramesMissing):
            return self.index.find_tag(name)
        self.load_all()
        return self.named(name)

    def search(self, text: str, moment: Moment, *, seed: bytes = b"") -> list[int]:
        """The ids that match, in order."""
        search = Search(parse(text), self.index, moment, seed=seed)
        while frames := search.missing():
            self.rounds += 1
            found = {key: self._data[slice(*self.index.span(key))] for key in frames}
            self.loaded_bytes += sum(map(len, found.values()))
            self.index.load(found)
        return [int(post) for post in search.run()]
