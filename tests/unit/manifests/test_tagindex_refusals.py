"""A tag index whose frames do not fit together is refused, and the error says where."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import zstandard

from manifests.codec import encode
from manifests.digest import Digest
from manifests.errors import ManifestError
from manifests.framed import (
    FramedHeader,
    FramedWriter,
    decode_framed,
    pack_bytes,
    pack_parts,
    pack_planes,
)
from manifests.framedref import FramedRef
from manifests.tagindex.build import KIND
from manifests.tagindex.index import FramesMissing, TagIndex
from manifests.tagindex.names import (
    FRAME_NAMES,
    MAX_IMPLICATIONS,
    Names,
    decode_name_list,
    encode_name_list,
    encode_names,
)
from manifests.tagindex.pools import Pools, decode_pools, encode_pools
from manifests.tagindex.postings import encode_postings
from manifests.tagindex.values import (
    FRAME_ROWS,
    encode_column,
    encode_md5s,
    encode_sources,
)
from manifests.zstd import inflate
from tests.support.framedobjects import framed
from tests.support.tagindexes import build

Sections = dict[str, list[tuple[int, bytes]]]
POSTS = [
    {"id": 3, "tag_string": "a b", "md5": "0" * 31 + "1", "source": "x", "file_ext": "png"},
    {"id": 9, "tag_string": "a", "md5": "f" * 32, "rating": "s"},
]


def u32(*values: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
    return np.array(values, np.uint32)


def counted(count: int, *columns: bytes) -> bytes:
    return pack_parts([count.to_bytes(4, "little"), *columns])


def good() -> tuple[Sections, dict[str, Any]]:
    """The frames of a good index with their keys, and its `about`."""
    implied = [{"antecedent_name": "b", "consequent_name": "a"}]
    ref, data = build(POSTS, implications=implied, pools=[{"id": 5, "post_ids": [3]}])
    header = decode_framed(data[slice(*ref.header_span)], ref, KIND, "index")
    sections = {
        name: [
            (int(key), data[slice(*header.span((name, number)))])
            for number, key in enumerate(section.keys)
        ]
        for name, section in header.sections.items()
    }
    about: dict[str, Any] = {key: header.about.uint(key) for key in ("posts", "tags", "instances")}
    about |= {key: header.about.texts(key, 255) for key in ("extensions", "tables")}
    return sections, about


def written(sections: Sections, about: Mapping[str, Any]) -> tuple[TagIndex, bytes, FramedHeader]:
    def write(writer: FramedWriter) -> Mapping[str, Any]:
        for name, frames in sections.items():
            for key, frame in frames:
                writer.add(name, key, frame)
        return about

    ref, data = framed(KIND, write)
    header = decode_framed(data[-ref.header_bytes :], ref, KIND, "index")
    return TagIndex(header), data, header


def read_all(sections: Sections, about: Mapping[str, Any]) -> None:
    """Everything that an index can be asked for, with all of its frames at hand."""
    index, data, header = written(sections, about)
    for name, frames in sections.items():
        index.load({(name, n): data[slice(*header.span((name, n)))] for n in range(len(frames))})
    names = [name for _, frame in index.scan_names() for name in frame.names]
    for tag, text in enumerate(names):
        assert index.find_tag(text.decode()) == tag
        index.follow_alias(text.decode())
        index.posting(tag)
    for name in ("id", "rating", "file_ext", "score", "created_at"):
        index.column(name)
    assert len(list(index.sources())) <= 1
    index.posts_by_md5()
    index.posts_of_md5(b"\xff" * 16)
    index.pools()
    index.implications()


def test_the_good_one_is_read() -> None:
    read_all(*good())


def names_of(*, count: int = 2, alias: int = 0) -> bytes:
    return encode_names(
        Names(
            names=[b"a", b"b", b"c"][:count],
            categories=np.zeros(count, np.uint8),
            counts=np.ones(count, np.uint32),
            aliases=u32(*[0] * (count - 1), alias),
        )
    )


def md5s_of(first: int, *ordinals: int) -> bytes:
    md5s = np.full((len(ordinals), 16), first, np.uint8)
    return encode_md5s(md5s, u32(*ordinals))


def pools_of(*ids: int) -> bytes:
    return encode_pools(
        Pools(
            ids=u32(*ids),
            flags=np.zeros(len(ids), np.uint8),
            names=[""] * len(ids),
            starts=np.zeros(len(ids) + 1, np.int64),
            posts=u32(),
        )
    )


BITS = pack_bytes(b"\3")
TWO_LISTS_OF_BITS = pack_parts([b"\1", pack_planes(u32(1, 1)), BITS])
TOO_MANY_BITS = pack_parts([b"\1", pack_planes(u32(2)), pack_bytes(b"\7")])
LONE_BITS = pack_parts([b"\1", pack_planes(u32(1)), BITS])
BITS_BEYOND = pack_parts([b"\1", pack_planes(u32(2)), pack_bytes(b"\5")])
NO_POSTS = pack_parts([b"\1", pack_planes(u32(0)), pack_bytes(b"\0")])
NO_BITS = pack_parts([b"\1", pack_planes(u32(0)), pack_bytes(b"")])
ANY_FORM = pack_parts([b"\2", pack_planes(u32(1, 1)), pack_planes(u32(0, 0))])
A_MILLION = pack_parts([b"\0", pack_planes(u32(1_000_000, 0)), b""])
IMPLIED = pack_planes(u32(1))

# What is put in place of a section's frames, and what is then said.
FORGED: list[tuple[str, list[tuple[int, bytes]], str]] = [
    # The frames that the header names are not those of two posts and two tags.
    ("id", [], r"index\.id: its frames are not those of 2 rows"),
    ("score", [(0, b""), (FRAME_ROWS, b"")], r"index\.score: its frames"),
    ("rating", [(1, b"")], r"index\.rating: its frames"),
    ("source", [], r"index\.source: its frames"),
    ("names", [], r"index\.names: its frames"),
    ("names", [(0, b""), (FRAME_NAMES, b"")], r"index\.names: its frames"),
    ("first_names", [], r"index\.first_names: its frames"),
    ("implications", [], r"index\.implications: its frames"),
    ("implications", [(0, b""), (0, b"")], r"index\.implications: its frames"),
    ("postings", [], r"index\.postings: not the lists of all tags"),
    ("postings", [(1, b"")], r"index\.postings: not the lists of all tags"),
    ("postings", [(0, b""), (2, b"")], r"index\.postings: not the lists of all tags"),
    ("postings", [(0, b""), (0, b"")], r"index\.postings: not the lists of all tags"),
    # Columns of other lengths, and values that stand for nothing.
    ("id", [(0, encode_column("id", u32(3)))], r"index\.id\[0\]: .*zstd"),
    ("id", [(0, encode_column("id", u32(3, 4, 5)))], r"index\.id\[0\]: .*zstd"),
    ("id", [(0, pack_parts([b""] * 3))], r"index\.id\[0\]: expected"),
    ("id", [(0, encode_column("id", u32(9, 3)))], r"index\.id: not ascending ids"),
    ("id", [(0, encode_column("id", u32(9, 9)))], r"index\.id: not ascending ids"),
    ("id", [(0, encode_column("id", u32(0, 9)))], r"index\.id: not ascending ids"),
    ("file_ext", [(0, encode_column("file_ext", u32(0, 2)))], r"index\.file_ext: a code of 2"),
    ("rating", [(0, encode_column("rating", u32(0, 5)))], r"index\.rating: a code of 5"),
    ("source", [(0, encode_sources(b"x\0"))], r"index\.source\[0\]: expected 2 texts, got 1"),
    ("source", [(0, pack_bytes(b"\0\0x"))], r"index\.source\[0\]: expected 2 texts"),
    # Names and what they lead to.
    ("names", [(0, names_of(count=1))], r"index\.names\[0\]\.names"),
    ("names", [(0, names_of(count=3))], r"index\.names\[0\]\.names"),
    ("names", [(0, names_of(alias=3))], r"index\.names\[0\]\.aliases: a tag of 2 or more"),
    ("first_names", [(0, encode_name_list([b"a", b"b"]))], r"index\.first_names\[0\]: "),
    # Posting lists.
    ("postings", [(0, TWO_LISTS_OF_BITS)], r"index\.postings\[0\]: 2 lists in a frame of bits"),
    ("postings", [(0, LONE_BITS), (1, LONE_BITS)], r"index\.postings\[0\]\.bits: expected 1"),
    ("postings", [(0, TOO_MANY_BITS), (1, b"")], r"index\.postings\[0\]\.bits: expected 2"),
    ("postings", [(0, BITS_BEYOND), (1, b"")], r"index\.postings\[0\]\.bits: expected 2"),
    ("postings", [(0, NO_BITS), (1, b"")], r"index\.postings\[0\]\.bits: expected 1 bytes, got 0"),
    ("postings", [(0, ANY_FORM)], r"index\.postings\[0\]: unknown form"),
    ("postings", [(0, A_MILLION)], r"index\.postings\[0\]: 1000000 ordinals are too many"),
    (
        "postings",
        [(0, encode_postings(u32(0, 1, 2), u32(3, 0), 3))],
        r"index\.postings\[0\]: an ordinal of 2 or more",
    ),
    # md5s.
    ("md5", [(0, md5s_of(0, 2))], r"index\.md5\[0\]: an ordinal of 2 or more"),
    ("md5", [(1, md5s_of(0, 1))], r"index\.md5\[0\]: does not begin with the md5 of its key"),
    ("md5", [(0, md5s_of(0, *range(4097)))], r"index\.md5\[0\]: expected at most 4096, got 4097"),
    ("md5", [(0, pack_parts([b"\1", b"", b""]))], r"index\.md5\[0\]: expected a count"),
    # Pools and implications.
    ("pools", [(0, pools_of(5, 5))], r"index\.pools: ids do not ascend"),
    ("pools", [(0, pools_of(5)), (5, pools_of(4))], r"index\.pools: ids do not ascend"),
    ("pools", [(0, pools_of(0))], r"index\.pools: ids do not ascend"),
    ("pools", [(0, pools_of(*range(1, 4098)))], r"index\.pools\[0\]: expected at most 4096"),
    (
        "implications",
        [(0, counted(1, pack_planes(u32(2)), IMPLIED))],
        r"index\.implications\[0\]: a tag of 2 or more",
    ),
    (
        "implications",
        [(0, counted(1, IMPLIED, pack_planes(u32(2))))],
        r"index\.implications\[0\]: a tag of 2 or more",
    ),
    (
        "implications",
        [(0, counted(MAX_IMPLICATIONS + 1, b"", b""))],
        rf"index\.implications\[0\]: expected at most {MAX_IMPLICATIONS}",
    ),
]


@pytest.mark.parametrize(("section", "frames", "said"), FORGED)
def test_frames_that_do_not_fit(section: str, frames: list[tuple[int, bytes]], said: str) -> None:
    sections, about = good()
    with pytest.raises(ManifestError, match=said):
        read_all(sections | {section: frames}, about)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"posts": 2**28 + 1}, r"index\.header\.about\.posts: expected 0 to"),
        ({"tags": 2**26 + 1}, r"index\.header\.about\.tags: expected 0 to"),
        ({"posts": 0}, r"index\.\w+: its frames are not those of 0 rows"),
        ({"posts": 1}, r"index\.postings\[0\]: an ordinal of 1 or more"),
        ({"tags": 0}, r"index\.names: its frames are not those of 0 rows"),
        ({"tags": 1}, r"index\.names\[0\]\.names"),
        ({"extensions": ["png"] * 257}, r"index\.header\.about\.extensions: more than 256"),
        ({"extensions": [""]}, r"index\.file_ext: a code of 1 or more"),
    ],
)
def test_numbers_that_do_not_fit(about: dict[str, Any], said: str) -> None:
    sections, good_about = good()
    with pytest.raises(ManifestError, match=said):
        read_all(sections, good_about | about)


def test_a_tag_of_no_post_may_be_bits() -> None:
    sections, about = good()
    read_all(sections | {"postings": [(0, NO_POSTS), (1, NO_POSTS)]}, about)


@pytest.mark.parametrize(
    ("limit", "what"),
    [
        ("MAX_TAGS", "tags"),
        ("MAX_IMPLICATIONS", "implications"),
        ("MAX_MEMBERS", "posts of 4,096 pools"),
    ],
)
def test_more_than_an_index_holds_is_not_written(
    limit: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    implied = [
        {"antecedent_name": "b", "consequent_name": "a"},
        {"antecedent_name": "a", "consequent_name": "c"},
    ]
    pools = [{"id": 5, "post_ids": [3, 9, 3]}]
    count = 2 if limit == "MAX_IMPLICATIONS" else 3
    monkeypatch.setattr(f"manifests.tagindex.build.{limit}", count)
    build(POSTS, implications=implied, pools=pools)
    monkeypatch.setattr(f"manifests.tagindex.build.{limit}", count - 1)
    with pytest.raises(ManifestError, match=f"^{what}: {count} of them"):
        build(POSTS, implications=implied, pools=pools)


def test_an_alias_of_the_last_tag_is_read() -> None:
    sections, about = good()
    read_all(sections | {"names": [(0, names_of(alias=2))]}, about)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (encode_name_list([b"a", b"b" * 1025]), "a name of more than 1024 bytes"),
        (encode_name_list([b"b", b"a"]), "names do not ascend"),
        (encode_name_list([b"a", b"a"]), "names do not ascend"),
        (
            pack_parts([pack_planes(np.ones(2, np.uint16)), pack_bytes(b"a")]),
            "expected 2 bytes of names, got 1",
        ),
    ],
)
def test_names_that_cannot_be(frame: bytes, said: str) -> None:
    with pytest.raises(ManifestError, match=f"^here: {said}"):
        decode_name_list(frame, 2, "here")


def test_a_name_may_be_as_long_as_the_limit() -> None:
    names = [b"a", b"b" * 1024]
    assert decode_name_list(encode_name_list(names), 2, "here") == names


def one_pool(*, names: bytes, members: int) -> bytes:
    """A frame of one pool, of members that are all 0."""
    columns = pack_planes(u32(5)), pack_planes(np.zeros(1, np.uint8)), pack_bytes(names)
    return counted(1, *columns, pack_planes(u32(members)), pack_parts([b""] * 4))


def test_a_pool_has_one_name() -> None:
    assert decode_pools(one_pool(names=b"\0", members=1), "here").names == [""]
    for bad, count in ((b"", 0), (b"\0\0", 2)):
        with pytest.raises(ManifestError, match=rf"^here\.names: expected 1, got {count}"):
            decode_pools(one_pool(names=bad, members=1), "here")


def test_pools_have_a_limit_of_members() -> None:
    assert len(decode_pools(one_pool(names=b"\0", members=2**24), "here").posts) == 2**24
    with pytest.raises(ManifestError, match=r"^here\.posts: 16777217 posts, more than 16777216"):
        decode_pools(one_pool(names=b"\0", members=2**24 + 1), "here")


def test_a_union_may_be_stopped_at_each_frame() -> None:
    sections, about = good()
    index, data, header = written(sections, about)
    index.load({("postings", 0): data[slice(*header.span(("postings", 0)))]})

    def stop() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        index.union_of(np.array([0]), stop)


def test_an_empty_index_has_no_lists() -> None:
    ref, data = build([])
    header = decode_framed(data[slice(*ref.header_span)], ref, KIND, "index")
    index = TagIndex(header)
    assert (index.posts, index.tags) == (0, 0)
    with suppress(FramesMissing):
        index.implications()
    index.load({key: data[slice(*index.span(key))] for key in index.wanted})
    assert index.implications() == []


# ----------------------------------------------------------------- the header itself


def decoded(change: Callable[[dict[str, Any]], object]) -> FramedHeader:
    """A header of one frame of one byte, changed and signed again."""
    section = {
        "frames": 1,
        "start": np.array([8], "<u8").tobytes(),
        "length": np.array([1], "<u4").tobytes(),
        "key": bytes(4),
        "digest": bytes(32),
    }
    document = {"format": 1, "kind": KIND, "about": {}, "sections": {"s": section}}
    change(section)
    packed = pack_bytes(encode(document))
    ref = FramedRef(
        digest=Digest.of(b""),
        size_bytes=9 + len(packed),
        header_digest=Digest.of(packed),
        header_bytes=len(packed),
    )
    return decode_framed(packed, ref, KIND, "index")


def test_a_frame_may_end_where_the_header_begins() -> None:
    assert decoded(lambda _: None).span(("s", 0)) == (8, 9)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"start": np.array([7], "<u8").tobytes()}, "a frame lies outside"),
        ({"start": np.array([9], "<u8").tobytes()}, "a frame lies outside"),
        ({"start": np.array([2**63 - 1], "<u8").tobytes()}, "a frame lies outside"),
        ({"start": np.array([2**64 - 1], "<u8").tobytes()}, "a frame lies outside"),
        ({"length": np.array([2], "<u4").tobytes()}, "a frame lies outside"),
        ({"frames": 2}, r"\.start: expected 16 bytes"),
        ({"frames": 2**32}, r"\.frames: expected 0 to"),
        ({"digest": bytes(31)}, r"\.digest: expected 32 bytes"),
    ],
)
def test_frames_that_cannot_be(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ManifestError, match=rf"^index\.header\.sections\.s.*{said}"):
        decoded(lambda section: section.update(change))


def test_keys_that_descend() -> None:
    two = {
        "frames": 2,
        "start": np.array([8, 8], "<u8").tobytes(),
        "length": np.array([1, 1], "<u4").tobytes(),
        "key": u32(5, 4).tobytes(),
        "digest": bytes(64),
    }
    with pytest.raises(ManifestError, match=r"sections\.s\.key: not ascending"):
        decoded(lambda section: section.update(two))


# ----------------------------------------------------------------- compressed bytes


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (pack_bytes(b"abcd"), "states 4 bytes, at most 3 are possible"),
        (pack_bytes(b"abc") + b"x", "not a zstd frame"),
        (pack_bytes(b"") + b"x", "not a zstd frame"),
        # States no bytes, has three.
        (bytes.fromhex("28b52ffd2000 190000") + b"abc", "not a zstd frame"),
        (pack_bytes(b"")[:-1], "not a zstd frame"),
        (b"", "not a zstd frame"),
        # A frame that is skipped.
        (bytes.fromhex("502a4d18 00000000"), "not a zstd frame"),
    ],
)
def test_bytes_that_are_not_one_frame(data: bytes, said: str) -> None:
    with pytest.raises(ManifestError, match=f"^here: {said}"):
        inflate(data, "here", 3)


@pytest.mark.parametrize("more", [0, 1])
def test_no_bytes_are_few_bytes(more: int) -> None:
    # A size of eight bytes, empty blocks of which the last says so, a checksum: 32 bytes at most.
    blocks = bytes(3) * (4 + more) + b"\1\0\0"
    frame = bytes.fromhex("28b52ffde4 0000000000000000") + blocks + bytes.fromhex("99e9d851")
    assert zstandard.ZstdDecompressor().decompress(frame) == b""
    if more:
        with pytest.raises(ManifestError, match="more than the 0 bytes that it states"):
            inflate(frame, "here", 3)
    else:
        assert inflate(frame, "here", 3) == b""


@pytest.mark.parametrize("text", [b"", b"abc"])
def test_one_frame_within_its_limit(text: bytes) -> None:
    assert inflate(pack_bytes(text), "here", 3) == text
