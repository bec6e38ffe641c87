"""Manifests: round trips, frames read singly, and what is never written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from manifests import manifest
from manifests.columns import CHUNK_BYTES, Entries, concat
from manifests.digest import Digest
from manifests.errors import ManifestError
from manifests.manifest import FRAME_CHUNKS, FRAME_ENTRIES, Header, Removed
from manifests.model import MAX_FILE_BYTES, ManifestRef
from manifests.paths import MAX_ID
from tests.support.forgery import (
    BUCKETS,
    by_bucket,
    make_entries,
    make_removed,
)

GIB = 2**30
MIB = 2**20


def frames_of(data: bytes, header: Header) -> list[bytes]:
    starts = header.row_start.tolist()
    return [data[starts[row] : starts[row + 1]] for row in range(len(header))]


def read(data: bytes, ref: ManifestRef, layer: int = 0) -> tuple[Header, Entries, Removed]:
    """All of a manifest, as a client that has the whole object."""
    header = manifest.decode_header(data[: ref.header_bytes], ref)
    entries = manifest.decode_rows(header, range(len(header)), frames_of(data, header), layer)
    tail = data[header.removed_start : header.size_bytes]
    return header, entries, manifest.decode_removed(header, tail)


def lines(entries: Entries) -> list[tuple[str, int, bytes]]:
    digests = [row.tobytes() for row in entries.digests]
    return list(zip(entries.names(), entries.sizes.tolist(), digests, strict=True))


# ------------------------------------------------------------------------------------ round trips

FILES: dict[int, tuple[int, str]] = {
    1: (0, "png"),
    2: (CHUNK_BYTES, "jpg"),
    11: (CHUNK_BYTES + 1, "mp4"),
    12: (5 * GIB + 7, "mp4"),
    7: (100, "JPG"),
    10: (MAX_FILE_BYTES, "zip"),
    MAX_ID: (3, "png"),
}


def test_round_trip() -> None:
    entries = make_entries(FILES)
    removed = make_removed({5: "withdrawn", 25: "duplicate", 3: "withdrawn"})
    data, ref = manifest.encode(entries, removed, BUCKETS)
    header, back, gone = read(data, ref, layer=7)
    assert lines(back) == lines(entries)
    assert back.chunks.tobytes() == entries.chunks.tobytes()
    assert back.layers.tolist() == [7] * len(FILES)
    assert gone.ids.tolist() == [3, 5, 25]
    assert [gone.reasons[code] for code in gone.codes] == ["withdrawn", "withdrawn", "duplicate"]
    assert (header.buckets, header.size_bytes) == (BUCKETS, len(data))
    assert ref == ManifestRef(
        digest=Digest.of(data),
        size_bytes=len(data),
        header_digest=Digest.of(data[: ref.header_bytes]),
        header_bytes=ref.header_bytes,
        entries=len(FILES),
        file_bytes=sum(size for size, _ in FILES.values()),
        removed=3,
    )


def test_the_same_entries_give_the_same_bytes() -> None:
    one, two = (
        manifest.encode(make_entries(files), None, BUCKETS)[0]
        for files in (FILES, dict(reversed(FILES.items())))
    )
    assert one == two


def test_an_empty_manifest() -> None:
    data, ref = manifest.encode(make_entries({}), None, BUCKETS)
    header, entries, removed = read(data, ref)
    assert len(header) == len(entries) == len(removed.ids) == 0
    assert (ref.entries, ref.file_bytes, ref.removed) == (0, 0, 0)
    assert header.rows_of_bucket(3) == range(0)
    assert header.rows_of_ids(by_bucket([1, 5])).tolist() == []


def test_a_manifest_that_only_removes() -> None:
    data, ref = manifest.encode(make_entries({}), make_removed({4: "x", 2**32 - 1: "y"}), BUCKETS)
    _, entries, removed = read(data, ref)
    assert len(entries) == 0
    assert removed.ids.tolist() == [4, 2**32 - 1]


@pytest.mark.parametrize("buckets", [1, 3, 1000, 100_000])
def test_any_number_of_buckets(buckets: int) -> None:
    entries = make_entries(FILES, buckets)
    data, ref = manifest.encode(entries, None, buckets)
    assert lines(read(data, ref)[1]) == lines(entries)


# ---------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize(
    ("count", "frames"),
    [
        (FRAME_ENTRIES - 1, [FRAME_ENTRIES - 1]),
        (FRAME_ENTRIES, [FRAME_ENTRIES]),
        (FRAME_ENTRIES + 1, [FRAME_ENTRIES, 1]),
        (2 * FRAME_ENTRIES + 1, [FRAME_ENTRIES, FRAME_ENTRIES, 1]),
    ],
)
@pytest.mark.parametrize("large", [0, CHUNK_BYTES + 1])
def test_frames_end_at_their_limit_and_with_their_bucket(
    count: int, frames: list[int], large: int
) -> None:
    files = {BUCKETS * slot + 1: (slot, "jpg") for slot in range(count)}
    files |= {BUCKETS * slot + 2: (slot + large, "jpg") for slot in range(3)}
    data, ref = manifest.encode(make_entries(files), None, BUCKETS)
    header = manifest.decode_header(data[: ref.header_bytes], ref)
    assert header.row_count.tolist() == [*frames, 3]
    assert header.row_bucket.tolist() == [1] * len(frames) + [2]
    assert header.row_first.tolist() == [FRAME_ENTRIES * n for n in range(len(frames))] + [0]


@pytest.mark.parametrize(
    ("chunks", "frames"),
    [
        ([FRAME_CHUNKS - 2, 2, 2], [2, 1]),
        ([FRAME_CHUNKS - 1, 2, 2], [1, 2]),
        ([FRAME_CHUNKS + 1, 2], [1, 1]),
        ([2, FRAME_CHUNKS + 1, 2], [1, 1, 1]),
        ([FRAME_CHUNKS, 0, 0, 2], [3, 1]),
    ],
)
def test_frames_end_early_where_files_have_many_chunks(
    chunks: list[int], frames: list[int]
) -> None:
    files = {
        BUCKETS * (slot + 1): (count * CHUNK_BYTES, "mp4") for slot, count in enumerate(chunks)
    }
    entries = make_entries(files)
    data, ref = manifest.encode(entries, None, BUCKETS)
    header, back, _ = read(data, ref)
    assert header.row_count.tolist() == frames
    assert back.chunks.tobytes() == entries.chunks.tobytes()


def grid(count: int = 300) -> tuple[Entries, bytes, ManifestRef, Header]:
    """Buckets 1 and 2 with 300 entries each; slots 0, 2, 4 …"""
    files = {BUCKETS * 2 * slot + b: (slot + b, "jpg") for slot in range(count) for b in (1, 2)}
    entries = make_entries(files)
    data, ref = manifest.encode(entries, None, BUCKETS)
    return entries, data, ref, manifest.decode_header(data[: ref.header_bytes], ref)


def test_frames_are_read_singly_and_in_any_subset() -> None:
    entries, data, _, header = grid()
    frames = frames_of(data, header)
    assert header.rows_of_bucket(1) == range(3)
    assert header.rows_of_bucket(2) == range(3, 6)
    assert header.rows_of_bucket(0) == range(0)
    assert header.rows_of_bucket(3) == range(6, 6)
    bounds = np.cumsum([0, *header.row_count.tolist()]).tolist()
    for rows in ([0], [5], [1, 2], [0, 3, 5]):
        part = manifest.decode_rows(header, rows, [frames[row] for row in rows], 0)
        expected = concat([entries.take(slice(bounds[row], bounds[row + 1])) for row in rows])
        assert lines(part) == lines(expected)
    assert len(manifest.decode_rows(header, [], [], 0)) == 0


def test_offsets_are_those_in_the_pack_whichever_frames_are_read() -> None:
    entries, data, _, header = grid()
    frames = frames_of(data, header)
    expected = []
    for bucket in (1, 2):
        sizes = entries.sizes[entries.ids % BUCKETS == bucket]
        expected += (np.cumsum(sizes) - sizes).tolist()
    bounds = np.cumsum([0, *header.row_count.tolist()]).tolist()
    for rows in (range(6), [1], [2, 4], [5]):
        part = manifest.decode_rows(header, rows, [frames[row] for row in rows], 0)
        wanted = [offset for row in rows for offset in expected[bounds[row] : bounds[row + 1]]]
        assert part.offsets.tolist() == wanted


@pytest.mark.parametrize(
    ("ids", "rows"),
    [
        ([1], [0]),
        ([BUCKETS * 2 * 127 + 1], [0]),
        ([BUCKETS * 2 * 128 + 1], [1]),
        ([BUCKETS * (2 * 128 - 1) + 1], [0]),
        ([2], [3]),
        ([MAX_ID - 3], [5]),
        ([MAX_ID - 4], [2]),
        ([BUCKETS], []),
        ([3], []),
        ([9], []),
        ([1, 21, 41, BUCKETS * 2 * 128 + 2, 2], [0, 3, 4]),
        ([], []),
    ],
)
def test_ids_are_found_in_the_frames_that_may_hold_them(ids: list[int], rows: list[int]) -> None:
    assert grid()[3].rows_of_ids(np.array(ids, np.uint32)).tolist() == rows


def test_every_id_is_in_the_frames_that_are_named_for_it() -> None:
    entries, data, _, header = grid(140)
    frames = frames_of(data, header)
    for post_id in entries.ids[::13].tolist():
        rows = header.rows_of_ids(np.array([post_id], np.uint32)).tolist()
        part = manifest.decode_rows(header, rows, [frames[row] for row in rows], 0)
        assert len(rows) == 1
        assert post_id in part.ids.tolist()


def test_a_frame_is_known_by_its_digest() -> None:
    _, data, _, header = grid()
    frames = frames_of(data, header)
    assert manifest.frame_is_intact(header, 2, memoryview(frames[2]))
    assert not manifest.frame_is_intact(header, 2, frames[3])
    assert not manifest.frame_is_intact(header, 2, frames[2] + b"\0")
    assert not manifest.frame_is_intact(header, 2, b"")
    assert not manifest.frame_is_intact(header, 2, bytes(len(frames[2])))


# ---------------------------------------------------------------------------- what is not written


@pytest.mark.parametrize(
    ("change", "where", "problem"),
    [
        ({"ids": np.array([2, 1], np.uint32)}, "entries.ids", "sorted by bucket and id"),
        ({"ids": np.array([1, 1], np.uint32)}, "entries.ids", "unique"),
        ({"ids": np.array([0, 1], np.uint32)}, "entries.ids", "positive"),
        ({"extensions": ("jpg", "jpg")}, "entries.extensions", "an extension stands twice"),
        ({"extensions": ("jpg", "a.b")}, "entries.extensions[1]", "is not a file extension"),
        ({"extensions": tuple(map(str, range(256)))}, "entries.extensions", "more than 255"),
        ({"extensions": ()}, "entries.exts", "a code that stands for no extension"),
        ({"sizes": np.array([1, 2**40], np.uint64)}, "entries.sizes", "larger than 1099511627775"),
        (
            {"sizes": np.array([1, CHUNK_BYTES + 1], np.uint64)},
            "entries.chunks",
            "not one digest for each chunk",
        ),
    ],
)
def test_entries_that_no_decoder_would_take(
    change: Mapping[str, Any], where: str, problem: str
) -> None:
    entries = replace(make_entries({1: (1, "jpg"), 2: (2, "jpg")}), **change)
    with pytest.raises(ManifestError) as caught:
        manifest.encode(entries, None, BUCKETS)
    assert caught.value.where == where
    assert problem in caught.value.problem


@pytest.mark.parametrize(
    ("change", "where", "problem"),
    [
        ({"ids": np.array([4, 3], np.uint32)}, "removed.ids", "sorted by bucket and id"),
        ({"ids": np.array([0, 3], np.uint32)}, "removed.ids", "positive"),
        ({"ids": np.array([2, 4], np.uint32)}, "removed.ids", "both put and removed"),
        ({"reasons": ("x",)}, "removed.codes", "a code that stands for no reason"),
        ({"reasons": ("x",) * 256}, "removed.reasons", "more than 255 reasons"),
        ({"reasons": ("x", "y" * 1025)}, "removed.reasons[1]", "longer than 1024 characters"),
    ],
)
def test_removals_that_no_decoder_would_take(
    change: Mapping[str, Any], where: str, problem: str
) -> None:
    removed = replace(make_removed({3: "x", 4: "y"}), **change)
    with pytest.raises(ManifestError) as caught:
        manifest.encode(make_entries({1: (1, "jpg"), 2: (2, "jpg")}), removed, BUCKETS)
    assert caught.value.where == where
    assert problem in caught.value.problem


def test_too_many_removals_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MAX_REMOVED", 1)
    manifest.encode(make_entries({}), make_removed({3: "x"}), BUCKETS)
    with pytest.raises(ManifestError, match=r"^removed\.ids: more than 1 ids"):
        manifest.encode(make_entries({}), make_removed({3: "x", 4: "y"}), BUCKETS)


def test_all_tables_at_their_limits_are_written_and_read() -> None:
    removed = replace(make_removed({3: "x"}), reasons=("\U0001f5bc" * 1024,) * 255)
    entries = replace(
        make_entries({1: (1, "jpg")}), extensions=tuple(f"{number:016}" for number in range(255))
    )
    data, ref = manifest.encode(entries, removed, BUCKETS)
    header = read(data, ref)[0]
    assert (len(header.reasons), len(header.extensions)) == (255, 255)
