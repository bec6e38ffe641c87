"""Building a tag index from batches of posts.

Batches are taken in the order of their files; where two rows tell of one post, the later one
counts.  Posts are kept as columns and tags as codes, four bytes an instance; only at the end are
names sorted, codes turned into numbers, and the instances of one range of tags after another
sorted into posting lists.  Five million posts with 160 million tags need 2.5 GB (measured:
docs/explanation/performance.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, Final

import numpy as np
from msgspec import Struct, field

from manifests.columns import I64, U8, U32, U64, Bools
from manifests.errors import ManifestError
from manifests.framed import FramedWriter, pack_parts, pack_planes
from manifests.metadata.columns import (
    COLUMNS,
    UNKNOWN_CATEGORY,
    Column,
    PostBatch,
    Texts,
)
from manifests.metadata.parsing import Content
from manifests.metadata.tables import PoolTable, Relations, TagTable
from manifests.query.parser import lower
from manifests.tagindex.names import (
    FRAME_NAMES,
    MAX_IMPLICATIONS,
    MAX_TAGS,
    Names,
    cut_text,
    encode_name_list,
    encode_names,
)
from manifests.tagindex.pools import (
    FRAME_POOLS,
    MAX_MEMBERS,
    Pools,
    encode_pools,
    join_tables,
    no_pools,
)
from manifests.tagindex.postings import encode_postings, frame_bounds
from manifests.tagindex.values import (
    FRAME_MD5S,
    FRAME_ROWS,
    MAX_EXTENSIONS,
    encode_column,
    encode_md5s,
    encode_sources,
)

KIND: Final = "tags"
# Tag instances that are sorted at once: 8 bytes each, and as much again while they are.
_SORTED_AT_ONCE: Final = 2**24
# Batches whose tags are counted at once: some two million instances.
_COUNTED_AT_ONCE: Final = 64
_MAX_SOURCE_BYTES: Final = 4095
_NO_EXTENSION: Final = ""


class _Held(Struct):
    """What is kept of one batch."""

    ids: U32
    columns: Mapping[str, Column]
    sources: Texts
    tag_counts: U32
    codes: U32


class _PoolPairs(Struct):
    """The pools that rows of posts name."""

    posts: list[U32] = field(default_factory=list)
    pools: list[U32] = field(default_factory=list)
    series: list[Bools] = field(default_factory=list)


class _Tables(Struct):
    """What lies beside the posts; None where no such table was given."""

    categories: dict[bytes, int] = field(default_factory=dict)
    aliases: dict[bytes, bytes] | None = None
    implications: set[tuple[bytes, bytes]] | None = None
    pools: list[PoolTable] | None = None


class IndexBuilder:
    """Takes posts and tables as they come, then writes the index."""

    def __init__(self) -> None:
        self._batches: list[_Held] = []
        # A name that is asked for gets the next number.
        self._codes: defaultdict[str, int] = defaultdict(count().__next__)
        self._categories = bytearray()
        self._extensions: dict[str, int] = {_NO_EXTENSION: 0}
        self._pairs = _PoolPairs()
        self._tables = _Tables()

    def add(self, kind: str, content: Content) -> None:
        """Take what was read from a block of metadata of some kind."""
        match content:
            case PostBatch():
                self.add_posts(content)
            case TagTable():
                self.add_tags(content)
            case PoolTable():
                self.add_pools(content)
            case Relations() if kind == "tag_aliases":
                self.add_aliases(content)
            case Relations():
                self.add_implications(content)

    def add_tags(self, table: TagTable) -> None:
        """Take categories of tags; they go before what posts say."""
        pairs = zip(map(_key, table.names), table.categories.tolist(), strict=True)
        self._tables.categories.update(pairs)

    def add_aliases(self, table: Relations) -> None:
        """Take names that stand for others."""
        held = self._tables.aliases = self._tables.aliases or {}
        held.update((_key(old), _key(new)) for old, new in table.pairs())

    def add_implications(self, table: Relations) -> None:
        """Take tags that bring others with them."""
        held = self._tables.implications = self._tables.implications or set()
        held.update((_key(one), _key(other)) for one, other in table.pairs())

    def add_pools(self, table: PoolTable) -> None:
        """Take pools; they go before what posts say."""
        held = self._tables.pools = self._tables.pools or []
        held.append(table)

    def add_posts(self, batch: PostBatch) -> None:
        """Take the next batch of posts."""
        columns = {name: batch.columns[name] for name in COLUMNS}
        columns["file_ext"] = self._extension_codes(batch)[columns["file_ext"]]
        held = _Held(
            batch.ids,
            columns,
            batch.sources,
            batch.tag_counts,
            self._tag_codes(batch)[batch.tag_codes],
        )
        self._batches.append(held)
        self._pairs.posts.append(batch.ids[batch.pool_posts])
        self._pairs.pools.append(batch.pool_ids)
        self._pairs.series.append(batch.pool_series)

    def _tag_codes(self, batch: PostBatch) -> U32:
        """The number that each tag of a batch has here; new ones are taken in."""
        numbers = map(self._codes.__getitem__, batch.tag_names)
        codes = np.fromiter(numbers, np.uint32, len(batch.tag_names))
        new = codes >= len(self._categories)
        self._categories += batch.tag_categories[new].tobytes()
        known = np.frombuffer(self._categories, np.uint8)
        untold = known[codes] == UNKNOWN_CATEGORY
        known[codes[untold]] = batch.tag_categories[untold]
        return codes

    def _extension_codes(self, batch: PostBatch) -> U8:
        """The code that each extension of a batch has here, 0 beyond the limit."""
        table = self._extensions
        for name in batch.extensions:
            if len(table) < MAX_EXTENSIONS:
                table.setdefault(name, len(table))
        return np.array([table.get(name, 0) for name in batch.extensions] or [0], np.uint8)

    # ----------------------------------------------------------------- writing

    def finish(self, writer: FramedWriter) -> Mapping[str, Any]:
        """Write every section; what ``writer.finish`` is to be told about the index.

        The builder is used up: its batches are let go of as they are written.
        """
        tables = self._tables
        pools = self._row_pools() if tables.pools is None else join_tables(tables.pools)
        dictionary, numbers = self._dictionary()
        ids, rows = self._order()
        posts = len(ids)
        counts = self._write_postings(writer, rows, posts, numbers, len(dictionary))
        dictionary.counts[:] = counts
        _write_dictionary(writer, dictionary)
        _write_implications(writer, tables.implications or set(), dictionary)
        _write_column(writer, "id", ids)
        for name in COLUMNS:
            column = self._gather(name, rows)
            (_write_md5s if name == "md5" else _write_column)(writer, name, column)
        self._write_sources(writer, rows)
        _write_pools(writer, pools)
        given = ("aliases", "implications", "pools", "categories")
        return {
            "posts": posts,
            "tags": len(dictionary),
            "instances": int(counts.sum()),
            "extensions": list(self._extensions),
            "tables": [name for name in given if getattr(tables, name)],
        }

    def _dictionary(self) -> tuple[Names, U32]:
        """All names in order, without counts yet, and the number of the tag of each code."""
        known = {_key(name): code for name, code in self._codes.items()}
        aliases = self._tables.aliases or {}
        implied = [name for pair in self._tables.implications or () for name in pair]
        names = sorted({*known, *aliases, *aliases.values(), *implied})
        _require_at_most("tags", len(names), MAX_TAGS)
        _require_at_most("implications", len(self._tables.implications or ()), MAX_IMPLICATIONS)
        number = {name: place for place, name in enumerate(names)}
        categories = np.full(len(names), UNKNOWN_CATEGORY, np.uint8)
        for name, code in known.items():
            categories[number[name]] = self._categories[code]
        for name, category in self._tables.categories.items():
            if (place := number.get(name)) is not None:
                categories[place] = category
        targets = np.zeros(len(names), np.uint32)
        for old, new in aliases.items():
            targets[number[old]] = number[new] + 1
        numbers = np.fromiter((number[_key(name)] for name in self._codes), np.uint32)
        counts = np.zeros(len(names), np.uint32)
        return Names(names=names, categories=categories, counts=counts, aliases=targets), numbers

    def _order(self) -> tuple[U32, I64]:
        """The ids in order, and of each the row, over all batches, that tells of it last."""
        all_ids = np.concatenate([np.empty(0, np.uint32), *(held.ids for held in self._batches)])
        order = np.argsort(all_ids, kind="stable")
        ids = all_ids[order]
        last = np.ones(len(ids), np.bool_)
        np.not_equal(ids[1:], ids[:-1], out=last[:-1])
        return ids[last], order[last]

    def _gather(self, name: str, rows: I64) -> Column:
        """One column in the order of the ids; the batches let go of it."""
        parts = [held.columns[name] for held in self._batches]
        for held in self._batches:
            held.columns = {key: kept for key, kept in held.columns.items() if key != name}
        if not parts:
            spec = COLUMNS[name]
            return np.empty((0, spec.width) if spec.width > 1 else 0, spec.dtype)
        return np.concatenate(parts)[rows]

    # ----------------------------------------------------------------- postings

    def _write_postings(
        self, writer: FramedWriter, rows: I64, posts: int, numbers: U32, tags: int
    ) -> U32:
        """Every posting list; how many posts each tag has."""
        ordinals = self._renumber(rows, numbers)
        counts = self._count(tags)
        for first, last in _ranges(counts):
            keys = self._instances(ordinals, first, last, int(counts[first:last].sum()))
            keys.sort()
            lists = keys.astype(np.uint32)
            begins = np.append(0, np.cumsum(counts[first:last]))
            for start, stop in frame_bounds(counts[first:last]):
                data = encode_postings(
                    lists[begins[start] : begins[stop]],
                    counts[first + start : first + stop].astype(np.uint32),
                    posts,
                )
                writer.add("postings", first + start, data)
        for held in self._batches:
            held.codes = np.empty(0, np.uint32)
        return counts.astype(np.uint32)

    def _renumber(self, rows: I64, numbers: U32) -> list[U32]:
        """Make tags of the codes, but for posts that do not count; the ordinals by batch."""
        total = sum(len(held.ids) for held in self._batches)
        ordinal_of_row = np.full(total, -1, np.int64)
        ordinal_of_row[rows] = np.arange(len(rows))
        ordinals, row = list[U32](), 0
        # Names that differ in case are one tag, and a post may have both.
        spelt_twice = len(np.unique(numbers)) < len(numbers)
        for held in self._batches:
            mine = ordinal_of_row[row : row + len(held.ids)]
            row += len(held.ids)
            counted: Bools = mine >= 0
            held.codes = numbers[held.codes[np.repeat(counted, held.tag_counts)]]
            held.tag_counts = held.tag_counts * counted
            if spelt_twice:
                held.codes, held.tag_counts = _each_once(held.codes, held.tag_counts)
            ordinals.append(mine.astype(np.uint32))
        return ordinals

    def _count(self, tags: int) -> I64:
        """How many posts each tag has."""
        counts = np.zeros(tags, np.int64)
        for start in range(0, len(self._batches), _COUNTED_AT_ONCE):
            some = self._batches[start : start + _COUNTED_AT_ONCE]
            counts += np.bincount(np.concatenate([held.codes for held in some]), minlength=tags)
        return counts

    def _instances(self, ordinals: list[U32], first: int, last: int, size: int) -> U64:
        """The ``size`` instances of the tags from ``first`` to ``last``, as tag << 32 | ordinal.

        The batches are gone through once for each range of tags, since two columns of all
        instances at once would be most of what a build needs.
        """
        keys, used = np.empty(size, np.uint64), 0
        for held, mine in zip(self._batches, ordinals, strict=True):
            inside = (held.codes >= first) & (held.codes < last)
            tags = held.codes[inside].astype(np.uint64)
            stop = used + len(tags)
            keys[used:stop] = tags << np.uint64(32) | np.repeat(mine, held.tag_counts)[inside]
            used = stop
        return keys

    # ----------------------------------------------------------------- texts and pools

    def _write_sources(self, writer: FramedWriter, rows: I64) -> None:
        """Every source, cut if it is too long; the batches let go of theirs."""
        texts = [held.sources for held in self._batches]
        # A byte more, so that there is one to read for the end of a text.
        data = np.frombuffer(b"".join([*(text.data for text in texts), b"\0"]), np.uint8)
        lengths = np.concatenate(
            [np.empty(0, np.int64), *(np.diff(text.starts) for text in texts)]
        )
        starts = np.cumsum(lengths) - lengths
        for held in self._batches:
            held.sources = Texts.of([])
        lengths = np.minimum(lengths, _MAX_SOURCE_BYTES)
        for first in range(0, len(rows), FRAME_ROWS):
            part = rows[first : first + FRAME_ROWS]
            writer.add("source", first, encode_sources(_gather(data, starts[part], lengths[part])))

    def _row_pools(self) -> Pools:
        """The pools that rows name: without names, their posts by id."""
        if not self._pairs.posts:
            return no_pools()
        posts = np.concatenate(self._pairs.posts)
        keys = np.concatenate(self._pairs.pools).astype(np.uint64) << np.uint64(32) | posts
        keys, first = np.unique(keys, return_index=True)
        series = np.concatenate(self._pairs.series)[first]
        ids, starts = np.unique(keys >> np.uint64(32), return_index=True)
        return Pools(
            ids=ids.astype(np.uint32),
            flags=series[starts].astype(np.uint8),
            names=[""] * len(ids),
            starts=np.append(starts, len(keys)).astype(np.int64),
            posts=keys.astype(np.uint32),
        )


def _each_once(tags: U32, counts: U32) -> tuple[U32, U32]:
    """The tags of posts without those that a post has already, and how many each has."""
    rows = np.repeat(np.arange(len(counts), dtype=np.uint64), counts)
    keys = np.unique(rows << np.uint64(32) | tags)
    kept = np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=len(counts))
    return keys.astype(np.uint32), kept.astype(np.uint32)


def _key(name: str) -> bytes:
    """How a name stands in the dictionary: in lower case, as queries have it."""
    return cut_text(lower(name))


def _require_at_most(what: str, count: int, limit: int) -> None:
    if count > limit:
        raise ManifestError(what, f"{count} of them, a tag index holds at most {limit}")


def _gather(data: U8, starts: I64, lengths: I64) -> bytes:
    """Some texts of ``data``, each followed by a zero byte; they have spaces for their own."""
    stops = np.cumsum(lengths + 1)
    places = np.arange(stops[-1]) + np.repeat(starts - stops + lengths + 1, lengths + 1)
    places[stops - 1] = len(data) - 1
    found = data[places]
    found[found == 0] = ord(" ")
    found[stops - 1] = 0
    return bytes(found.tobytes())


def _ranges(counts: I64) -> Iterator[tuple[int, int]]:
    """Runs of tags whose instances can be sorted at once, or one tag alone."""
    sums = np.append(0, np.cumsum(counts))
    first = 0
    while first < len(counts):
        last = int(np.searchsorted(sums, sums[first] + _SORTED_AT_ONCE, side="right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last


# ----------------------------------------------------------------- sections


def _write_dictionary(writer: FramedWriter, names: Names) -> None:
    starts = range(0, len(names), FRAME_NAMES)
    for first in starts:
        part = slice(first, first + FRAME_NAMES)
        frame = Names(
            names=names.names[part],
            categories=names.categories[part],
            counts=names.counts[part],
            aliases=names.aliases[part],
        )
        writer.add("names", first, encode_names(frame))
    writer.add("first_names", 0, encode_name_list([names.names[first] for first in starts]))


def _write_implications(
    writer: FramedWriter, implications: set[tuple[bytes, bytes]], names: Names
) -> None:
    number = {name: place for place, name in enumerate(names.names)}
    pairs = sorted((number[one], number[other]) for one, other in implications)
    table = np.array(pairs, np.uint32).reshape(-1, 2)
    count = np.array([len(table)], "<u4").tobytes()
    frame = pack_parts([count, pack_planes(table[:, 0]), pack_planes(table[:, 1])])
    writer.add("implications", 0, frame)


def _write_column(writer: FramedWriter, name: str, column: Column) -> None:
    for first in range(0, len(column), FRAME_ROWS):
        writer.add(name, first, encode_column(name, column[first : first + FRAME_ROWS]))


def _write_md5s(writer: FramedWriter, _: str, column: U8) -> None:
    """The md5s that are stated, in their own order."""
    ordinals = np.flatnonzero(column.any(axis=1)).astype(np.uint32)
    stated = np.ascontiguousarray(column[ordinals])
    words = stated.view(">u8").reshape(-1, 2)
    order = np.lexsort((words[:, 1], words[:, 0]))
    ordered, ordinals = stated[order], ordinals[order]
    for first in range(0, len(order), FRAME_MD5S):
        part = slice(first, first + FRAME_MD5S)
        key = int.from_bytes(ordered[first, :4].tobytes())
        writer.add("md5", key, encode_md5s(ordered[part], ordinals[part]))


def _write_pools(writer: FramedWriter, pools: Pools) -> None:
    for first in range(0, len(pools), FRAME_POOLS):
        part = pools.part(first, min(first + FRAME_POOLS, len(pools)))
        _require_at_most("posts of 4,096 pools", len(part.posts), MAX_MEMBERS)
        writer.add("pools", int(part.ids[0]), encode_pools(part))
