"""Reading a tag index frame by frame, without knowing where the frames come from.

Whoever asks for something whose frames are not loaded gets :class:`FramesMissing`, and the frames
are noted in :attr:`TagIndex.wanted`.  So the same code answers a query from a host far away, which
is asked for all wanted frames at once, from a file, and from memory::

    while frames := needed(query, index):
        index.load(await fetch(frames))
    answer(query, index)
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from manifests.columns import I64, U32
from manifests.errors import ManifestError
from manifests.framed import FramedHeader, FrameKey, unpack_count, unpack_parts, unpack_planes
from manifests.metadata.columns import COLUMNS, RATINGS, Column
from manifests.paths import MAX_ID
from manifests.tagindex.bitmaps import size_bytes, to_bitmap
from manifests.tagindex.names import (
    FRAME_NAMES,
    MAX_IMPLICATIONS,
    MAX_TAGS,
    Names,
    decode_name_list,
    decode_names,
)
from manifests.tagindex.pools import Pools, decode_pools, join_pools
from manifests.tagindex.postings import decode_postings
from manifests.tagindex.values import (
    FRAME_ROWS,
    MAX_EXTENSIONS,
    MAX_POSTS,
    MD5_BYTES,
    column_dtype,
    decode_column,
    decode_md5s,
    decode_sources,
)

# Decoded posting lists that are kept: bytes of their bitmaps, nearly.
_KEPT_LIST_BYTES = 256 * 2**20


class FramesMissing(Exception):  # noqa: N818 (no error: the frames have been noted as wanted)
    """What was asked for needs frames that are not loaded."""


class TagIndex:
    """One release's tag index; loaded frames stay, so a second query needs fewer."""

    def __init__(self, header: FramedHeader) -> None:
        about, self._header = header.about, header
        self.posts = about.uint("posts", MAX_POSTS)
        self.tags = about.uint("tags", MAX_TAGS)
        self.instances = about.uint("instances")
        self.extensions = tuple(about.texts("extensions", MAX_EXTENSIONS, 16))
        self.tables = frozenset(about.texts("tables", 16, 64))
        self.wanted: set[FrameKey] = set()
        self._raw: dict[FrameKey, bytes] = {}
        self._names: dict[int, Names] = {}
        self._first_names: list[bytes] | None = None
        self._columns: dict[str, Column] = {}
        self._pools: Pools | None = None
        self._lists: OrderedDict[int, BitMap] = OrderedDict()
        self._list_bytes = 0
        self._check_sections()

    def _check_sections(self) -> None:
        """The frames of rows and names are as many, and begin where, the numbers ask for."""
        rows = {"id", "source", *(name for name in COLUMNS if name != "md5")}
        for name, total, step in [
            *((name, self.posts, FRAME_ROWS) for name in sorted(rows)),
            ("names", self.tags, FRAME_NAMES),
            ("first_names", 1, 1),
            ("implications", 1, 1),
        ]:
            expected = np.arange(0, total, step)
            if not np.array_equal(self._header.section(name).keys, expected):
                place = f"{self._header.where}.{name}"
                raise ManifestError(place, f"its frames are not those of {total} rows")
        keys = self._header.section("postings").keys
        whole = keys[0] == 0 and keys[-1] < self.tags if len(keys) else self.tags == 0
        if not whole or np.any(keys[1:] == keys[:-1]):
            raise ManifestError(f"{self._header.where}.postings", "not the lists of all tags")

    # ----------------------------------------------------------------- frames

    def load(self, frames: Mapping[FrameKey, bytes]) -> None:
        """Take frames; ManifestError for bytes that are not those the header names."""
        for key, data in frames.items():
            self._raw[key] = self._header.check(key, data)
        self.wanted -= frames.keys()

    def span(self, frame: FrameKey) -> tuple[int, int]:
        """Start and stop of a frame in the object."""
        return self._header.span(frame)

    def _frames(self, section: str, numbers: Iterable[int]) -> list[bytes]:
        """Loaded frames; all that are missing are noted before FramesMissing is raised."""
        keys = [(section, number) for number in numbers]
        missing = [key for key in keys if key not in self._raw]
        if missing:
            self.wanted.update(missing)
            raise FramesMissing
        return [self._raw[key] for key in keys]

    def _place(self, section: str, number: int) -> str:
        return self._header.place((section, number))

    # ----------------------------------------------------------------- names

    def find_tag(self, name: str) -> int | None:
        """The number of a tag by its exact name."""
        key = name.encode("utf-8", "replace")
        frame = bisect_right(self._firsts(), key) - 1
        if frame < 0:
            return None
        place = self._name_frames([frame])[0].find(key)
        return None if place is None else frame * FRAME_NAMES + place

    def follow_alias(self, name: str) -> str:
        """The name that a name stands for; one step, as aliases do not lead to aliases."""
        tag = self.find_tag(name)
        if tag is None:
            return name
        frame, place = divmod(tag, FRAME_NAMES)
        target = int(self._name_frames([frame])[0].aliases[place])
        return self.describe_tag(target - 1)[0] if target else name

    def expand_abbreviation(self, name: str) -> str:
        """The tag with most posts among those that ``/hr`` is short for; else the name itself."""
        initials, best, most = name[1:].encode("utf-8", "replace"), name, 0
        if not initials:
            return name
        for first, names in self.scan_names(name[1]):
            for place, count in enumerate(names.counts.tolist()):
                if count > most and _initials(names.names[place]) == initials:
                    best, most = self.describe_tag(first + place)[0], count
        return best

    def describe_tag(self, tag: int) -> tuple[str, int, int]:
        """Name, category and posts of a tag."""
        frame, place = divmod(tag, FRAME_NAMES)
        names = self._name_frames([frame])[0]
        text = names.names[place].decode("utf-8", "replace")
        return text, int(names.categories[place]), int(names.counts[place])

    def scan_names(self, prefix: str = "") -> Iterator[tuple[int, Names]]:
        """The frames that can hold names with a prefix, each with the number of its first tag."""
        key = prefix.encode("utf-8", "replace")
        firsts = self._firsts()
        first = max(bisect_right(firsts, key) - 1, 0)
        last = len(firsts)
        if key:
            after = key[:-1] + bytes([key[-1] + 1])
            last = bisect_right(firsts, after)
        numbers = range(first, last)
        for number, names in zip(numbers, self._name_frames(numbers), strict=True):
            yield number * FRAME_NAMES, names

    def _firsts(self) -> list[bytes]:
        if self._first_names is None:
            if not self.tags:
                return []
            (data,) = self._frames("first_names", [0])
            count = len(self._header.section("names"))
            self._first_names = decode_name_list(data, count, self._place("first_names", 0))
        return self._first_names

    def _name_frames(self, numbers: Iterable[int]) -> list[Names]:
        numbers = list(numbers)
        new = [number for number in numbers if number not in self._names]
        for number, data in zip(new, self._frames("names", new), strict=True):
            count = min(FRAME_NAMES, self.tags - number * FRAME_NAMES)
            place = self._place("names", number)
            names = decode_names(data, count, place)
            if np.any(names.aliases > self.tags):
                raise ManifestError(f"{place}.aliases", f"a tag of {self.tags} or more")
            self._names[number] = names
            del self._raw["names", number]
        return [self._names[number] for number in numbers]

    # ----------------------------------------------------------------- posting lists

    def require_postings(self, tags: I64) -> None:
        """FramesMissing unless the lists of all these tags are loaded."""
        section = self._header.section("postings")
        needed = tags if len(tags) != 1 or int(tags[0]) not in self._lists else tags[:0]
        frames = np.unique(np.searchsorted(section.keys, needed, side="right") - 1)
        self._frames("postings", frames.tolist())

    def posting(self, tag: int) -> BitMap:
        """The ordinals of the posts that have a tag; not to be changed."""
        found = self._lists.get(tag)
        if found is None:
            frame = self._header.section("postings").find(tag)
            first, ordinals, starts = self._decoded(frame)
            found = to_bitmap(ordinals[starts[tag - first] : starts[tag - first + 1]])
            self._keep(tag, found)
        else:
            self._lists.move_to_end(tag)
        return found

    def union_of(self, tags: I64, check: Callable[[], None] = lambda: None) -> BitMap:
        """The ordinals of the posts that have any of some tags, which ascend.

        Decodes each frame once, and calls ``check`` before; the lists are not kept.
        """
        frames = np.searchsorted(self._header.section("postings").keys, tags, side="right") - 1
        numbers, begins = np.unique(frames, return_index=True)
        self._frames("postings", numbers.tolist())
        having = np.zeros(self.posts, np.bool_)
        bounds = pairwise([*begins.tolist(), len(tags)])
        for frame, (begin, end) in zip(numbers.tolist(), bounds, strict=True):
            check()
            first, ordinals, starts = self._decoded(frame)
            wanted = np.zeros(len(starts) - 1, np.bool_)
            wanted[tags[begin:end] - first] = True
            if not wanted.all():
                ordinals = ordinals[np.repeat(wanted, np.diff(starts))]
            having[ordinals] = True
        return to_bitmap(np.flatnonzero(having).astype(np.uint32))

    def _decoded(self, frame: int) -> tuple[int, U32, npt.NDArray[np.int64]]:
        (data,) = self._frames("postings", [frame])
        keys = self._header.section("postings").keys
        first = int(keys[frame])
        last = int(keys[frame + 1]) if frame + 1 < len(keys) else self.tags
        place = self._place("postings", frame)
        ordinals, starts = decode_postings(data, last - first, self.posts, place)
        return first, ordinals, starts

    def _keep(self, tag: int, found: BitMap) -> None:
        self._lists[tag] = found
        self._list_bytes += size_bytes(found)
        while self._list_bytes > _KEPT_LIST_BYTES and len(self._lists) > 1:
            _, dropped = self._lists.popitem(last=False)
            self._list_bytes -= size_bytes(dropped)

    # ----------------------------------------------------------------- columns

    def column(self, name: str) -> Column:
        """A whole column by the order of the ids: ``id``, or a name of COLUMNS but ``md5``."""
        found = self._columns.get(name)
        if found is None:
            count = len(self._header.section(name))
            parts = self._frames(name, range(count))
            found = np.empty(self.posts, column_dtype(name))
            for number, data in enumerate(parts):
                first = number * FRAME_ROWS
                rows = min(FRAME_ROWS, self.posts - first)
                place = self._place(name, number)
                found[first : first + rows] = decode_column(name, data, rows, place)
                del self._raw[name, number]
            self._check_column(name, found)
            self._columns[name] = found
        return found

    def _check_column(self, name: str, column: Column) -> None:
        if name == "id" and not _ascending_ids(column):
            raise ManifestError(f"{self._header.where}.id", f"not ascending ids, 1 to {MAX_ID}")
        codes = {"file_ext": len(self.extensions), "rating": len(RATINGS)}.get(name)
        if codes is not None and np.any(column >= codes):
            raise ManifestError(f"{self._header.where}.{name}", f"a code of {codes} or more")

    @property
    def ids(self) -> U32:
        """The id of every post, ascending."""
        return self.column("id")

    def ordinals_of(self, ids: npt.NDArray[Any]) -> U32:
        """The ordinals of those of some ids that are posts, in their order."""
        own = self.ids
        places = np.searchsorted(own, ids)
        known = places < len(own)
        known[known] = own[places[known]] == ids[known]
        return places[known].astype(np.uint32)

    def require_sources(self) -> None:
        """FramesMissing unless the sources of all posts are loaded."""
        self._frames("source", range(len(self._header.section("source"))))

    def sources(self) -> Iterator[bytes]:
        """The sources frame by frame: texts, each followed by a zero byte."""
        numbers = range(len(self._header.section("source")))
        for number, data in zip(numbers, self._frames("source", numbers), strict=True):
            rows = min(FRAME_ROWS, self.posts - number * FRAME_ROWS)
            yield decode_sources(data, rows, self._place("source", number))

    def posts_of_md5(self, md5: bytes) -> U32:
        """The ordinals of the posts with an md5."""
        section = self._header.section("md5")
        key = int.from_bytes(md5[:4])
        first = max(int(np.searchsorted(section.keys, key)) - 1, 0)
        last = int(np.searchsorted(section.keys, key, side="right"))
        frames = range(first, last)
        self._frames("md5", frames)
        wanted = np.frombuffer(md5, f"V{MD5_BYTES}")[0]
        found = [ordinals[md5s == wanted] for md5s, ordinals in map(self._md5_frame, frames)]
        return np.sort(np.concatenate([np.empty(0, np.uint32), *found]))

    def posts_by_md5(self) -> U32:
        """The ordinals of all posts that state an md5, by ascending md5."""
        frames = range(len(self._header.section("md5")))
        self._frames("md5", frames)
        parts = [self._md5_frame(number)[1] for number in frames]
        return np.concatenate([np.empty(0, np.uint32), *parts])

    def _md5_frame(self, number: int) -> tuple[npt.NDArray[np.void], U32]:
        (data,) = self._frames("md5", [number])
        place = self._place("md5", number)
        md5s, ordinals = decode_md5s(data, place)
        if int(self._header.section("md5").keys[number]) != int.from_bytes(bytes(md5s[:1])[:4]):
            raise ManifestError(place, "does not begin with the md5 of its key")
        if np.any(ordinals >= self.posts):
            raise ManifestError(place, f"an ordinal of {self.posts} or more")
        return md5s, ordinals

    # ----------------------------------------------------------------- tables

    def pools(self) -> Pools:
        """All pools."""
        if self._pools is None:
            numbers = range(len(self._header.section("pools")))
            frames = self._frames("pools", numbers)
            pools = join_pools(
                [
                    decode_pools(data, self._place("pools", number))
                    for number, data in enumerate(frames)
                ]
            )
            if not _ascending_ids(pools.ids):
                raise ManifestError(f"{self._header.where}.pools", "ids do not ascend from 1")
            self._pools = pools
        return self._pools

    def implications(self) -> list[tuple[int, int]]:
        """Pairs of tags: who has the first has the second."""
        (data,) = self._frames("implications", [0])
        place = self._place("implications", 0)
        head, antecedents, consequents = unpack_parts(data, 3, place)
        count = unpack_count(head, MAX_IMPLICATIONS, place)
        first = unpack_planes(antecedents, count, np.uint32, place)
        second = unpack_planes(consequents, count, np.uint32, place)
        if np.any(first >= self.tags) or np.any(second >= self.tags):
            raise ManifestError(place, f"a tag of {self.tags} or more")
        return list(zip(first.tolist(), second.tolist(), strict=True))


def _ascending_ids(ids: Column) -> bool:
    return not len(ids) or bool(ids[0] >= 1 and np.all(ids[1:] > ids[:-1]))


def _initials(name: bytes) -> bytes:
    """The first letters of the words of a tag: ``hr`` of ``hair_ribbon``."""
    return bytes(word[0] for word in name.split(b"_") if word)
