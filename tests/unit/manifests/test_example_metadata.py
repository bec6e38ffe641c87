"""The frozen release ``tagged``: today's reader finds in it what was said when it was made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from manifests.digest import Digest
from manifests.framed import FramedHeader, decode_framed
from manifests.framedref import FramedRef
from manifests.metadata import rowfile
from manifests.metadata.rowfile import decode_rows, row_frames
from manifests.model import Descriptor
from manifests.tagindex import build
from manifests.tagindex.bitmaps import to_numbers
from manifests.tagindex.index import FramesMissing, TagIndex
from tests.support import tagged_objects, tagged_words

FOLDER = Path(__file__).parents[3] / "manifests" / "examples" / "tagged"
DESCRIPTOR = Descriptor.decode((FOLDER / "descriptor.msgpack").read_bytes())
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_bytes())
SAID: dict[str, Any] = EXPECTED["tag_index"]
CODED = ("rating", "flags", "score", "created_at", "updated_at", "file_size", "duration_ms")
T = TypeVar("T")


def opened(ref: FramedRef, kind: str) -> tuple[FramedHeader, bytes]:
    data = (FOLDER / "objects" / ref.digest.hex[:2] / ref.digest.hex).read_bytes()
    assert Digest.of(data) == ref.digest
    return decode_framed(data[slice(*ref.header_span)], ref, kind, "example"), data


class Held:
    """An index that gets the frames that it asks for."""

    def __init__(self, header: FramedHeader, data: bytes) -> None:
        self.index, self._data = TagIndex(header), data

    def ask(self, question: Callable[[TagIndex], T]) -> T:
        while True:
            try:
                return question(self.index)
            except FramesMissing:
                spans = {frame: self.index.span(frame) for frame in self.index.wanted}
                self.index.load({frame: self._data[slice(*at)] for frame, at in spans.items()})


@pytest.fixture(scope="module")
def held() -> Held:
    assert DESCRIPTOR.tag_index is not None
    return Held(*opened(DESCRIPTOR.tag_index, build.KIND))


def test_the_posts(held: Held) -> None:
    posts = SAID["posts"]
    assert held.ask(lambda index: index.ids).tolist() == [post["id"] for post in posts]
    for name in CODED:
        column = held.ask(lambda index, name=name: index.column(name))  # type: ignore[misc]
        assert column.tolist() == [post[name] for post in posts]
    sources = b"".join(held.ask(lambda index: list(index.sources())))
    assert sources.decode().split("\0")[:-1] == [post["source"] for post in posts]


def test_the_md5s(held: Held) -> None:
    stated = [(post["md5"], n) for n, post in enumerate(SAID["posts"]) if post["md5"]]
    by_md5 = held.ask(lambda index: index.posts_by_md5())
    assert by_md5.tolist() == [ordinal for _, ordinal in sorted(stated)]
    for md5, _ in stated:
        key = bytes.fromhex(md5)
        same = held.ask(lambda index, key=key: index.posts_of_md5(key))  # type: ignore[misc]
        assert same.tolist() == [ordinal for other, ordinal in stated if other == md5]


def test_the_tags(held: Held) -> None:
    ids = held.ask(lambda index: index.ids)
    assert held.index.tags == len(SAID["tags"])
    for tag, said in enumerate(SAID["tags"]):
        name, posts = said["name"], said["posts"]
        described = held.ask(lambda index, tag=tag: index.describe_tag(tag))  # type: ignore[misc]
        assert described == (name, said["category"], len(posts))
        target = held.ask(lambda index, name=name: index.follow_alias(name))  # type: ignore[misc]
        assert target == (said["alias_of"] or name)
        listed = held.ask(lambda index, tag=tag: index.posting(tag))  # type: ignore[misc]
        assert ids[to_numbers(listed)].tolist() == posts


def test_implications_and_pools(held: Held) -> None:
    names = [tag["name"] for tag in SAID["tags"]]
    pairs = held.ask(lambda index: index.implications())
    assert [[names[one], names[other]] for one, other in pairs] == SAID["implications"]
    pools = held.ask(lambda index: index.pools())
    assert [
        {
            "id": int(pools.ids[n]),
            "flags": int(pools.flags[n]),
            "name": pools.names[n],
            "posts": pools.members(n).tolist(),
        }
        for n in range(len(pools))
    ] == SAID["pools"]
    assert held.index.tables == set(SAID["tables"])


def test_the_tables() -> None:
    assert [table.name for table in DESCRIPTOR.tables] == list(EXPECTED["tables"])
    for table in DESCRIPTOR.tables:
        header, data = opened(table.ref, rowfile.KIND)
        said = EXPECTED["tables"][table.name]["rows"]
        text, keys = b"", list[int]()
        for frame in row_frames(header, None):
            rows = decode_rows(header, frame, data[slice(*header.span(frame))])
            text, keys = text + rows.text, keys + rows.keys.tolist()
        assert keys == [row["key"] for row in said]
        assert text.decode() == "".join(row["line"] + "\n" for row in said)
        assert (table.rows, table.raw_bytes) == (len(keys), len(text))


def test_the_maker_would_make_the_same_values() -> None:
    """So the words that are kept are those that were used; the bytes hang on the zstd."""
    assert tagged_words.describe_index() | {"header": SAID["header"]} == SAID
    rows = {name: table["rows"] for name, table in EXPECTED["tables"].items()}
    assert rows == tagged_words.describe_rows()
    data, ref = tagged_objects.tag_index()
    made = tagged_objects.describe_header(data, ref)
    assert made["about"] == SAID["header"]["about"]
    assert {
        name: [frame["key"] for frame in frames] for name, frames in made["sections"].items()
    } == {
        name: [frame["key"] for frame in frames]
        for name, frames in SAID["header"]["sections"].items()
    }
