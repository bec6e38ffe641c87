"""Torrents of ours against those that libtorrent makes of the same files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from manifests.errors import ManifestError
from manifests.paths import Layout
from manifests.torrents.bencode import Value, decode, encode
from manifests.torrents.grouping import (
    MAX_FILES,
    MAX_TORRENT_BYTES,
    SizeSums,
    choose_piece_bytes,
    estimate_bytes,
    group_entries,
)
from manifests.torrents.metainfo import Outer, encode_info, info_value, magnet, make_torrent
from manifests.torrents.pieces import PieceColumns, PieceHasher
from manifests.torrents.reader import read_torrent
from tests.support.needs import library
from tests.support.torrents import (
    KIB,
    LAYOUT,
    NOISE,
    bucket_entries,
    contents_of_files,
    entries_of_files,
    hash_file,
    libtorrent_makes,
    path_of,
)

PIECES = st.sampled_from([16 * KIB, 32 * KIB, 64 * KIB, 256 * KIB])
EDGES = [
    near + step
    for near in (16 * KIB, 32 * KIB, 48 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB)
    for step in (-1, 0, 1)
]
SIZES = st.sampled_from([0, 1, 100, *EDGES]) | st.integers(0, 700 * KIB)
NAMES = st.sampled_from(["png", "jpg", "J", "webm", "1"])


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Bytes of a file; two files often have the same."""
    size = draw(SIZES)
    start = draw(st.sampled_from([0, 0, 0, 1, 77]))
    return NOISE[start : start + size]


FILES = st.dictionaries(
    st.integers(1, 30) | st.integers(1, 2**32 - 1),
    st.tuples(NAMES, contents()),
    min_size=1,
    max_size=9,
).filter(lambda files: any(data for _, data in files.values()))


@pytest.fixture(scope="module")
def lt() -> Any:  # noqa: ANN401 (a module that may be missing)
    return library("libtorrent")


@given(files=FILES, piece_bytes=PIECES, hybrid=st.booleans(), private=st.booleans())
@example(files={1: ("png", b"x")}, piece_bytes=16 * KIB, hybrid=True, private=False)
@example(files={1: ("png", b"x")}, piece_bytes=16 * KIB, hybrid=False, private=True)
@example(
    files={3: ("png", b""), 6: ("png", NOISE[: 96 * KIB]), 12: ("png", NOISE[: 96 * KIB])},
    piece_bytes=32 * KIB,
    hybrid=True,
    private=False,
)
@settings(max_examples=60)
def test_info_dictionaries_are_those_of_libtorrent(
    lt: Any,  # noqa: ANN401
    files: dict[int, tuple[str, bytes]],
    piece_bytes: int,
    hybrid: bool,  # noqa: FBT001 (drawn)
    private: bool,  # noqa: FBT001
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = libtorrent_makes(
            lt, Path(folder), files, piece_bytes, hybrid=hybrid, private=private
        )
    ours = contents_of_files(files, piece_bytes, hybrid=hybrid, private=private)
    assert encode(info_value(ours)) == encode_info(ours) == lt.bencode(made[b"info"])
    torrent = make_torrent(ours, Outer())
    document = decode(torrent.data, "t", max_bytes=10**7, max_values=10**6)
    assert isinstance(document, dict)
    assert document[b"piece layers"] == made[b"piece layers"]
    loaded = lt.load_torrent_buffer(torrent.data).info_hashes
    assert loaded.v2.to_bytes() == torrent.info_hashes.v2
    assert (loaded.v1.to_bytes() if loaded.has_v1() else None) == torrent.info_hashes.v1


@given(
    hybrid=st.booleans(),
    name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    trackers=st.lists(
        st.lists(st.sampled_from(["http://t.example/a?b=1&c", "udp://u:1"]), min_size=1)
    ),
)
def test_magnet_links_are_read_by_libtorrent(
    lt: Any,  # noqa: ANN401
    hybrid: bool,  # noqa: FBT001 (drawn)
    name: str,
    trackers: list[list[str]],
) -> None:
    tiers = tuple(map(tuple, trackers))
    ours = contents_of_files({1: ("png", b"x")}, 16 * KIB, hybrid=hybrid)
    hashes = make_torrent(ours, Outer()).info_hashes
    read = lt.parse_magnet_uri(magnet(hashes, name=name, trackers=tiers))
    assert read.info_hashes.v2.to_bytes() == hashes.v2
    assert read.info_hashes.has_v1() == hybrid
    assert not hybrid or read.info_hashes.v1.to_bytes() == hashes.v1
    assert set(read.trackers) == {url for tier in tiers for url in tier}
    assert read.name == name


OUTERS = st.builds(
    Outer,
    trackers=st.lists(
        st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=3).map(tuple), max_size=3
    ).map(tuple),
    web_seeds=st.lists(st.text(min_size=1, max_size=9), max_size=3).map(tuple),
    comment=st.text(max_size=9),
    created_s=st.none() | st.integers(0, 2**40),
)


@given(files=FILES, piece_bytes=PIECES, hybrid=st.booleans(), private=st.booleans(), outer=OUTERS)
def test_what_is_written_is_read(
    files: dict[int, tuple[str, bytes]],
    piece_bytes: int,
    hybrid: bool,  # noqa: FBT001 (drawn)
    private: bool,  # noqa: FBT001
    outer: Outer,
) -> None:
    written = contents_of_files(files, piece_bytes, hybrid=hybrid, private=private)
    torrent = make_torrent(written, outer)
    read = read_torrent(torrent.data)
    assert read.outer == outer
    assert read.info_hashes == torrent.info_hashes
    assert (read.contents.variant, read.contents.private) == ("original", private)
    paths = sorted(path_of(post_id, ext) for post_id, (ext, _) in files.items())
    assert [f"original/{path}" for path in read.contents.paths] == paths
    assert make_torrent(read.contents, outer) == torrent


def spare_bytes(files: dict[int, tuple[str, bytes]], piece_bytes: int, *, hybrid: bool) -> int:
    """By how much the estimate is larger than the torrent."""
    estimate = estimate_bytes(entries_of_files(files), LAYOUT, piece_bytes, hybrid=hybrid)
    contents = contents_of_files(files, piece_bytes, hybrid=hybrid)
    return estimate - len(make_torrent(contents, Outer()).data)


@given(
    sizes=st.dictionaries(st.integers(1, 2**32 - 1), SIZES, min_size=2, max_size=12),
    piece_bytes=PIECES,
    hybrid=st.booleans(),
)
def test_the_estimate_is_exact_but_for_what_all_torrents_have(
    sizes: dict[int, int],
    piece_bytes: int,
    hybrid: bool,  # noqa: FBT001 (drawn)
) -> None:
    """Of different contents: the sizes of a layer and of `pieces` differ in digits alone."""
    files = {
        post_id: ("png", NOISE[row : row + size])
        for row, (post_id, size) in enumerate(sizes.items())
    }
    two = {1: ("png", b"x"), 2: ("png", b"y")}
    usual = spare_bytes(two, piece_bytes, hybrid=hybrid)
    assert usual > 16 * KIB
    assert usual - 3 <= spare_bytes(files, piece_bytes, hybrid=hybrid) <= usual


@given(
    size=SIZES,
    piece_bytes=PIECES,
    hybrid=st.booleans(),
    cuts=st.lists(st.integers(0, 700 * KIB), max_size=6),
)
def test_portions_do_not_matter(
    size: int,
    piece_bytes: int,
    hybrid: bool,  # noqa: FBT001 (drawn)
    cuts: list[int],
) -> None:
    data = NOISE[:size]
    hasher = PieceHasher(piece_bytes, hybrid=hybrid)
    edges = [0, *sorted(cuts), len(data)]
    for start, stop in pairwise(edges):
        hasher.update(memoryview(data)[start:stop])
    assert hasher.finish() == hash_file(data, piece_bytes, hybrid=hybrid)


@given(files=FILES, piece_bytes=PIECES, hybrid=st.booleans(), data=st.data())
def test_columns_of_some_files_are_those_of_these_files(
    files: dict[int, tuple[str, bytes]],
    piece_bytes: int,
    hybrid: bool,  # noqa: FBT001 (drawn)
    data: st.DataObject,
) -> None:
    hashed = [hash_file(body, piece_bytes, hybrid=hybrid) for _, body in files.values()]
    rows = data.draw(st.permutations(range(len(hashed))))[: data.draw(st.integers(1, 9))]
    taken = PieceColumns.joined(hashed, piece_bytes, hybrid=hybrid).take(np.array(rows))
    alone = PieceColumns.joined([hashed[row] for row in rows], piece_bytes, hybrid=hybrid)
    for column in ("sizes", "roots", "pieces", "tails", "layers"):
        assert getattr(taken, column).tobytes() == getattr(alone, column).tobytes()


VALUES: st.SearchStrategy[Value] = st.recursive(
    st.integers(-(10**18), 10**18) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=5), inner),
    max_leaves=12,
)


@given(value=VALUES)
def test_bencoding_comes_back(value: Value) -> None:
    assert decode(encode(value), "t", max_bytes=10**6, max_values=10**4) == value


T = TypeVar("T")


def value_or_error(call: Callable[[], T]) -> T | ManifestError:
    try:
        return call()
    except ManifestError as error:
        return error


@given(data=st.binary(max_size=60) | st.text("dlei0123456789:-a", max_size=40).map(str.encode))
def test_any_bytes_are_a_canonical_value_or_an_error(data: bytes) -> None:
    limits = {"max_bytes": 100, "max_values": 20, "max_depth": 4}
    found = value_or_error(lambda: decode(data, "t", **limits))
    if isinstance(found, ManifestError):
        assert found.where == "t"
    else:
        assert encode(found) == data


_SMALL = make_torrent(
    contents_of_files({1: ("png", NOISE[: 40 * KIB]), 2: ("jpg", b"x")}, 16 * KIB), Outer()
).data


@given(
    edits=st.lists(st.tuples(st.integers(0, len(_SMALL)), st.binary(max_size=4)), max_size=4),
    tail=st.binary(max_size=3),
)
def test_any_bytes_are_a_torrent_or_an_error(edits: list[tuple[int, bytes]], tail: bytes) -> None:
    damaged = bytearray(_SMALL)
    for at, bytes_ in edits:
        damaged[at : at + len(bytes_)] = bytes_
    found = value_or_error(lambda: read_torrent(bytes(damaged) + tail))
    if isinstance(found, ManifestError):
        assert found.where.startswith("torrent")
    else:
        assert make_torrent(found.contents, found.outer).data == bytes(damaged) + tail


@given(value=VALUES)
def test_any_value_is_a_torrent_or_an_error(value: Value) -> None:
    document = decode(_SMALL, "t", max_bytes=10**6, max_values=10**4)
    assert isinstance(document, dict)
    info = document[b"info"]
    assert isinstance(info, dict)
    for key in info.keys() - {b"name"}:
        if value == info[key]:
            continue
        changed = encode({**document, b"info": {**info, key: value}})
        with pytest.raises(ManifestError) as caught:
            read_torrent(changed)
        assert caught.value.where.startswith("torrent.info")
    for key in (b"announce", b"announce-list", b"comment", b"creation date", b"url-list"):
        data = encode({**document, key: value})
        found = value_or_error(partial(read_torrent, data))
        assert not isinstance(found, ManifestError) or found.where.startswith("torrent")


BUCKETS = st.lists(
    st.sampled_from([0, 1, 40, 2499, 2500, 2501, 4999, 5000, 5001, 9000]), max_size=6
)
FILE_BYTES = st.sampled_from([0, 1, 8 * KIB, 900 * KIB, 100 * KIB * KIB, 2**33])


@given(
    counts=BUCKETS,
    usual=FILE_BYTES,
    others=st.dictionaries(st.integers(0, 40_000), FILE_BYTES, max_size=4),
    hybrid=st.booleans(),
)
@example(counts=[4999], usual=8 * KIB, others={1496: 2**33}, hybrid=True)
@settings(max_examples=40)
def test_groups_hold_every_file_once_and_keep_the_limits(
    counts: list[int],
    usual: int,
    others: dict[int, int],
    hybrid: bool,  # noqa: FBT001 (drawn)
) -> None:
    layout = Layout(buckets=max(len(counts), 1), digits=4)
    entries = bucket_entries(counts, layout, usual, others)
    piece_bytes = choose_piece_bytes(SizeSums.of(entries.sizes))
    groups = group_entries(entries, layout, piece_bytes, hybrid=hybrid)
    held = np.zeros(len(entries), np.int64)
    for group in groups:
        held[group.start : group.stop] += 1
        assert 1 <= group.stop - group.start <= MAX_FILES
        part = entries.take(np.arange(group.start, group.stop))
        cost = estimate_bytes(part, layout, piece_bytes, hybrid=hybrid)
        assert cost <= MAX_TORRENT_BYTES or len(part) == 1
        assert part.sizes.any()
        found = set((part.ids % np.uint32(layout.buckets)).tolist())
        assert {group.first_bucket, group.last_bucket} <= found
        assert found <= set(range(group.first_bucket, group.last_bucket + 1))
        assert not group.part or len(found) == 1
    assert held.max(initial=0) <= 1
    assert not entries.sizes[held == 0].any()
    assert len({group.label(layout) for group in groups}) == len(groups)
