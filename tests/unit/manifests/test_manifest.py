"""Manifests: round trips, frames, and forgeries whose digests match but whose content lies."""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zstandard

from manifests import codec, manifest
from manifests.columns import CHUNK_BYTES, Entries, concat
from manifests.digest import Digest
from manifests.errors import ExitCode, ManifestError
from manifests.manifest import FRAME_CHUNKS, FRAME_ENTRIES, Header, Removed
from manifests.model import MAX_FILE_BYTES, MAX_REMOVED, ManifestRef
from manifests.paths import MAX_ID
from tests.support.forgery import (
    BUCKETS,
    Forgery,
    Frame,
    by_bucket,
    compress,
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


# --------------------------------------------------------------------------------- forged headers


HEADER = codec.encode(Forgery().document())


def lies_about_its_size(raw: bytes, stated: int) -> bytes:
    """One raw block in a frame that states another size (RFC 8878, 3.1.1)."""
    block = struct.pack("<I", (len(raw) << 3) | 1)[:3] + raw
    return struct.pack("<IBI", 0xFD2FB528, 0b1010_0000, stated) + block


def refused_header(forgery: Forgery) -> ManifestError:
    forged = forgery.make()
    with pytest.raises(ManifestError) as caught:
        manifest.decode_header(forged.header, forged.ref, "m")
    assert caught.value.exit_code is ExitCode.REFUSED
    return caught.value


def test_an_honest_forgery_is_read() -> None:
    forged = Forgery(frames=[Frame(steps=[0, 2], sizes=[5, 6]), Frame(bucket=3, first=0)]).make()
    header = manifest.decode_header(forged.header, forged.ref)
    entries = manifest.decode_rows(header, [0, 1], forged.frames, 0)
    assert entries.names() == ["10.jpg", "30.jpg", "3.jpg"]
    assert entries.sizes.tolist() == [5, 6, 100]
    assert entries.digests.tobytes() == b"d" * 96


U64_TWICE = struct.pack("<2Q", 2**64 - 1, 101)
TWO = (Frame(first=1), Frame(first=5))


@pytest.mark.parametrize(
    ("forgery", "where", "problem"),
    [
        (Forgery(fields={"format": 2}), "m.format", "expected 1"),
        (Forgery(fields={"buckets": 0}), "m.buckets", "expected at least 1"),
        (Forgery(fields={"buckets": 100_001}), "m.buckets", "expected 0 to 100000"),
        (Forgery(fields={"extensions": ["a/b"]}), "m.extensions[0]", "not a file extension"),
        (Forgery(fields={"extensions": ["a", "a"]}), "m.extensions", "stands twice"),
        (
            Forgery(fields={"extensions": list(map(str, range(256)))}),
            "m.extensions",
            "more than 255",
        ),
        (Forgery(fields={"reasons": ["x"] * 256}), "m.reasons", "more than 255 items"),
        (Forgery(fields={"reasons": ["x" * 1025]}), "m.reasons[0]", "at most 1024 characters"),
        (Forgery(fields={"rows": 2}), "m.bucket", "expected 8 bytes, got 4"),
        (Forgery(fields={"rows": 0}), "m.bucket", "expected 0 bytes, got 4"),
        (Forgery(fields={"rows": 2**32}), "m.rows", "expected 0 to 4294967295"),
        (Forgery(fields={"first": b""}), "m.first", "expected 4 bytes"),
        (Forgery(fields={"count": b""}), "m.count", "expected 2 bytes"),
        (Forgery(fields={"bytes": b""}), "m.bytes", "expected 8 bytes"),
        (Forgery(fields={"length": b""}), "m.length", "expected 4 bytes"),
        (Forgery(fields={"digest": b""}), "m.digest", "expected 32 bytes"),
        (Forgery(fields={"removed_digest": b""}), "m.removed_digest", "expected 32 bytes"),
        (Forgery(fields={"removed": 2**26 + 1}), "m.removed", "expected 0 to 67108864"),
        (Forgery(fields={"removed_length": 2**32}), "m.removed_length", "expected 0 to 42949"),
        (Forgery(frames=[Frame(bucket=10)]), "m.rows[0].bucket", "no such bucket"),
        (Forgery(frames=[Frame(), Frame(bucket=10)]), "m.rows[1].bucket", "no such bucket"),
        (Forgery(frames=[Frame(first=MAX_ID // 10 + 1)]), "m.rows[0].first", "than any id"),
        (Forgery(frames=[Frame(first=5), Frame(first=5)]), "m.rows[1].first", "not after"),
        (Forgery(frames=[Frame(first=5), Frame(first=4)]), "m.rows[1].first", "not after"),
        (Forgery(frames=[Frame(bucket=2), Frame(bucket=1)]), "m.rows[1].first", "not after"),
        (Forgery(frames=[*TWO, Frame(first=0)]), "m.rows[2].first", "not after"),
        (Forgery(frames=[Frame(count=0)]), "m.rows[0].count", "expected 1 to 128"),
        (Forgery(frames=[Frame(), Frame(first=5, count=129)]), "m.rows[1].count", "1 to 128"),
        (Forgery(frames=[Frame(file_bytes=2**40)]), "m.rows[0].bytes", "more than that many"),
        (
            Forgery(
                frames=[Frame(count=2, file_bytes=(FRAME_CHUNKS + 2) * CHUNK_BYTES + 1)],
            ),
            "m.rows[0].bytes",
            "more than that many",
        ),
        (
            Forgery(frames=[Frame(data=bytes(42 + 32 + 1024 + 1))]),
            "m.rows[0].length",
            "longer than such a frame can be",
        ),
        (
            Forgery(removed=1, tail=bytes(5 + 1024 + 1)),
            "m.removed_length",
            "longer than such a list can be",
        ),
        (Forgery(ref={"entries": 2}), "m.count", "adds up to 1, the descriptor says 2"),
        (Forgery(ref={"file_bytes": 99}), "m.bytes", "adds up to 100, the descriptor says 99"),
        (Forgery(ref={"removed": 1}), "m.removed", "adds up to 0, the descriptor says 1"),
        (Forgery(tail=b"x", fields={"removed_length": 0}), "m.length", "adds up to"),
        (Forgery(frames=TWO, fields={"bytes": U64_TWICE}), "m.rows[0].bytes", "more than"),
    ],
)
def test_a_forged_header_is_refused_with_its_place(
    forgery: Forgery, where: str, problem: str
) -> None:
    error = refused_header(forgery)
    assert error.where == where
    assert problem in error.problem


@pytest.mark.parametrize(
    "frames",
    [
        [Frame(file_bytes=MAX_FILE_BYTES)],
        [Frame(count=2, file_bytes=(FRAME_CHUNKS + 2) * CHUNK_BYTES)],
        [Frame(count=FRAME_ENTRIES)],
        [Frame(bucket=9, first=MAX_ID // 10)],
        [Frame(data=bytes(42 + 32 + 1024))],
        [Frame(bucket=1, first=9), Frame(bucket=2, first=0)],
    ],
)
def test_headers_at_their_limits_are_read(frames: list[Frame]) -> None:
    forged = Forgery(frames=frames).make()
    header = manifest.decode_header(forged.header, forged.ref)
    assert len(header) == len(frames)


def test_sums_of_many_rows_do_not_wrap_around() -> None:
    frames = [Frame(first=200 * row, count=128, file_bytes=10**10) for row in range(600)]
    forged = Forgery(frames=frames).make()
    assert (forged.ref.entries, forged.ref.file_bytes) == (76_800, 6 * 10**12)
    assert len(manifest.decode_header(forged.header, forged.ref)) == 600


def test_a_reference_must_agree_with_itself() -> None:
    """The digest is that of the header, but its length is another."""
    length = len(Forgery().make().header)
    for stated in (length - 1, length + 1):
        forged = Forgery(ref={"header_bytes": stated}).make()
        with pytest.raises(ManifestError, match=r"^m\.header: not the bytes that the descriptor"):
            manifest.decode_header(forged.header, forged.ref, "m")


@pytest.mark.parametrize(
    ("entries", "stated", "limit"),
    [
        (2**32 - 1, 2**29 + 1, 2**29),
        (1, 2 * MIB + 55, 2 * MIB + 54),
        (1, len(HEADER), len(HEADER) - 1),
    ],
)
def test_the_limits_of_a_header(entries: int, stated: int, limit: int) -> None:
    """512 MiB, what the entries may need, and what the prefix says."""
    raw_bytes = limit if stated == len(HEADER) else stated
    forgery = Forgery(ref={"entries": entries})
    forged = forgery.seal(lies_about_its_size(HEADER, stated), raw_bytes)
    with pytest.raises(ManifestError) as caught:
        manifest.decode_header(forged.header, forged.ref, "m")
    assert caught.value.problem == f"states {stated} bytes, at most {limit} are possible"


def test_a_header_must_be_the_one_that_the_descriptor_names() -> None:
    forged = Forgery().make()
    for data in (b"", forged.header[:-1], forged.header + b"\0", b"\0" + forged.header[1:]):
        with pytest.raises(ManifestError, match=r"^m\.header: not the bytes that the descriptor"):
            manifest.decode_header(data, forged.ref, "m")


@pytest.mark.parametrize(
    ("data", "where", "problem"),
    [
        (b"", "m.header", "too short"),
        (b"bsyncmf1" + bytes(7), "m.header", "too short"),
        (b"bsyncmf2" + bytes(8), "m.magic", "expected b'bsyncmf1', got b'bsyncmf2'"),
        (b"bsyncmf1" + bytes(8) + b"x", "m.header", "states 0 bytes, not those that follow"),
        (struct.pack("<8sII", b"bsyncmf1", 5, 1) + b"hello", "m.header", "not a zstd frame"),
        (struct.pack("<8sII", b"bsyncmf1", 0, 1), "m.header", "not a zstd frame"),
    ],
)
def test_a_prefix_that_makes_no_sense(data: bytes, where: str, problem: str) -> None:
    forged = Forgery().describe(data)
    with pytest.raises(ManifestError) as caught:
        manifest.decode_header(forged.header, forged.ref, "m")
    assert caught.value.where == where
    assert problem in caught.value.problem


def unsized(raw: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False).compress(raw)


def with_a_dictionary(raw: bytes) -> bytes:
    held = zstandard.ZstdCompressionDict(raw * 3, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdCompressor(dict_data=held).compress(raw)


def skippable(raw: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A50, len(raw)) + raw


HOSTILE_FRAMES: dict[str, Callable[[bytes], bytes]] = {
    "no frame": lambda raw: raw,
    "nothing": lambda _: b"",
    "no size stated": unsized,
    "a byte after it": lambda raw: compress(raw) + b"\0",
    "cut short": lambda raw: compress(raw)[:-1],
    "two frames": lambda raw: compress(raw) + compress(raw),
    "a frame of nothing, then one": lambda raw: compress(b"") + compress(raw),
    "a skippable frame": skippable,
    "a skippable frame, then one": lambda raw: skippable(b"x") + compress(raw),
    "states too much": lambda raw: lies_about_its_size(raw, len(raw) + 1),
    "states too little": lambda raw: lies_about_its_size(raw, len(raw) - 1),
    "states an exbibyte": lambda raw: lies_about_its_size(raw, 2**32 - 1),
    "more inside": lambda raw: compress(raw + b"\0"),
    "less inside": lambda raw: compress(raw[:-1]),
    "nothing inside": lambda _: compress(b""),
}


@pytest.mark.parametrize("what", HOSTILE_FRAMES)
def test_a_header_is_one_frame_of_the_stated_size(what: str) -> None:
    forged = Forgery().seal(HOSTILE_FRAMES[what](HEADER), len(HEADER))
    with pytest.raises(ManifestError) as caught:
        manifest.decode_header(forged.header, forged.ref, "m")
    assert caught.value.where == "m.header"


def test_a_frame_that_states_its_true_size_by_hand_is_read() -> None:
    forged = Forgery().seal(lies_about_its_size(HEADER, len(HEADER)), len(HEADER))
    assert len(manifest.decode_header(forged.header, forged.ref)) == 1


def test_a_header_must_be_canonical() -> None:
    raw = b"\x81\xa6format\xcc\x01"
    forged = Forgery().seal(compress(raw), len(raw))
    with pytest.raises(ManifestError, match=r"^m: not a canonical msgpack map"):
        manifest.decode_header(forged.header, forged.ref, "m")


# ---------------------------------------------------------------------------------- forged frames


def refused_rows(*frames: Frame, rows: list[int] | None = None) -> ManifestError:
    forged = Forgery(frames=frames).make()
    header = manifest.decode_header(forged.header, forged.ref, "m")
    wanted = list(range(len(frames))) if rows is None else rows
    with pytest.raises(ManifestError) as caught:
        manifest.decode_rows(header, wanted, [forged.frames[row] for row in wanted], 0, "m")
    return caught.value


LARGE = CHUNK_BYTES + 1
GOOD = Frame(bucket=0, first=1)


@pytest.mark.parametrize(
    ("frame", "what", "problem"),
    [
        (Frame(bucket=1, steps=[1]), ".ids", "not strictly ascending"),
        (Frame(bucket=1, steps=[0, 0], sizes=[1, 1]), ".ids", "not strictly ascending"),
        (Frame(bucket=1, steps=[1, 0], sizes=[1, 1]), ".ids", "not strictly ascending"),
        (Frame(bucket=1, steps=[0, 1, 0, 1], sizes=[1] * 4), ".ids", "not strictly ascending"),
        (
            Frame(bucket=1, first=1, steps=[0, MAX_ID // 10], sizes=[1, 1]),
            ".ids",
            "an id outside 1 to 4294967295",
        ),
        (
            Frame(bucket=1, steps=[0, 2**32 - 1, 3], sizes=[1, 1, 1]),
            ".ids",
            "an id outside 1 to 4294967295",
        ),
        (
            Frame(bucket=6, first=MAX_ID // 10),
            ".ids",
            "an id outside 1 to 4294967295",
        ),
        (
            Frame(bucket=1, steps=[0, *[2**32 - 1] * 127], sizes=[1] * 128),
            ".ids",
            "an id outside 1 to 4294967295",
        ),
        (Frame(bucket=1, exts=[1]), ".extensions", "stands for no extension"),
        (Frame(bucket=1, steps=[0, 1], sizes=[1, 1], exts=[0, 255]), ".extensions", "stands for"),
        (Frame(bucket=1, file_bytes=99), ".sizes", "do not add up"),
        (Frame(bucket=1, sizes=[2**40 - 1], file_bytes=2**32 - 1), ".sizes", "do not add up"),
        (Frame(bucket=1, sizes=[2**32], file_bytes=1), ".sizes", "do not add up"),
        (Frame(bucket=1, sizes=[LARGE]), ".chunks", "not one digest for each chunk"),
        (Frame(bucket=1, sizes=[LARGE], chunks=bytes(32)), ".chunks", "not one digest"),
        (Frame(bucket=1, sizes=[LARGE], chunks=bytes(63)), ".chunks", "not one digest"),
        (Frame(bucket=1, sizes=[CHUNK_BYTES], chunks=bytes(32)), ".chunks", "not one digest"),
        (Frame(bucket=1, extra=b"x"), ".chunks", "not one digest for each chunk"),
        (Frame(bucket=1, sizes=[LARGE], chunks=bytes(64), extra=b"x"), "", "at most"),
        (Frame(bucket=1, extra=bytes(33)), "", "states 75 bytes, at most 74 are possible"),
        (Frame(bucket=1, raw=bytes(41)), "", "41 bytes are too few for 1 entries"),
        (Frame(bucket=1, raw=b""), "", "0 bytes are too few for 1 entries"),
        (
            Frame(bucket=1, steps=[0, 1], sizes=[1, 99], count=1, file_bytes=100),
            "",
            "states 84 bytes",
        ),
        (Frame(bucket=1, count=2), "", "42 bytes are too few for 2 entries"),
    ],
)
def test_a_forged_frame_is_refused_with_its_place(frame: Frame, what: str, problem: str) -> None:
    for error in (refused_rows(GOOD, frame), refused_rows(GOOD, frame, rows=[1])):
        assert error.where == f"m.rows[1]{what}"
        assert problem in error.problem
        assert error.exit_code is ExitCode.REFUSED


def test_id_zero_is_refused() -> None:
    error = refused_rows(Frame(bucket=0, first=0))
    assert str(error) == "m.rows[0].ids: an id outside 1 to 4294967295"


def test_the_largest_id_is_read() -> None:
    forged = Forgery(frames=[Frame(bucket=5, first=MAX_ID // 10)]).make()
    header = manifest.decode_header(forged.header, forged.ref)
    assert manifest.decode_rows(header, [0], forged.frames, 0).ids.tolist() == [MAX_ID]


@pytest.mark.parametrize("rows", [[0, 1, 2], [0, 1], [0]])
@pytest.mark.parametrize("last", [5, 6])
def test_a_frame_may_not_reach_into_the_next(rows: list[int], last: int) -> None:
    reaching = Frame(first=1, steps=[0, last - 1], sizes=[1, 1])
    error = refused_rows(reaching, Frame(first=5), Frame(bucket=1, first=0), rows=rows)
    assert str(error) == "m.rows[0].ids: reaches into the next row"


def test_a_frame_may_end_right_before_the_next_and_reach_past_that_of_another_bucket() -> None:
    frames = [
        Frame(first=1, steps=[0, 3], sizes=[1, 1]),
        Frame(first=5, steps=[0, 90], sizes=[1, 1]),
        Frame(bucket=1, first=0, steps=[0, 90], sizes=[1, 1]),
    ]
    forged = Forgery(frames=frames).make()
    header = manifest.decode_header(forged.header, forged.ref)
    entries = manifest.decode_rows(header, range(3), forged.frames, 0)
    assert entries.ids.tolist() == [10, 40, 50, 950, 1, 901]


@pytest.mark.parametrize("what", HOSTILE_FRAMES)
def test_a_frame_is_one_frame_of_the_stated_size(what: str) -> None:
    frame = Frame(bucket=1, data=HOSTILE_FRAMES[what](Frame(bucket=1).inside()))
    error = refused_rows(GOOD, frame)
    assert error.where in {"m.rows[1]", "m.rows[1].chunks"}
    assert what != "no size stated" or error.problem.startswith("states -1 bytes")


def test_a_row_must_agree_with_itself() -> None:
    """The digest is that of the frame, but its length is another."""
    frames = [Frame(bucket=1), Frame(bucket=2)]
    lengths = [len(frame.stored()) for frame in frames]
    spoiled = struct.pack("<2I", lengths[0] + 1, lengths[1] - 1)
    forged = Forgery(frames=frames, fields={"length": spoiled}).make()
    header = manifest.decode_header(forged.header, forged.ref)
    for row in (0, 1):
        assert not manifest.frame_is_intact(header, row, forged.frames[row])
        with pytest.raises(ManifestError, match="not the bytes that the header names"):
            manifest.decode_rows(header, [row], [forged.frames[row]], 0)


def test_frames_must_be_those_that_the_header_names() -> None:
    _, data, _, header = grid()
    frames = frames_of(data, header)
    for bad in (frames[1][:-1], frames[1] + b"\0", frames[0], b""):
        with pytest.raises(ManifestError, match=r"^m\.rows\[1\]: not the bytes that the header"):
            manifest.decode_rows(header, [0, 1], [frames[0], bad], 0, "m")


# ----------------------------------------------------------------------------------- removed ids


def refused_removed(raw: bytes, count: int, **changes: object) -> ManifestError:
    forged = Forgery(removed=count, tail=raw, **changes).make()  # type: ignore[arg-type]
    header = manifest.decode_header(forged.header, forged.ref, "m")
    with pytest.raises(ManifestError) as caught:
        manifest.decode_removed(header, forged.tail, "m")
    return caught.value


def packed(*ids: int, codes: bytes | None = None) -> bytes:
    return struct.pack(f"<{len(ids)}I", *ids) + (bytes(len(ids)) if codes is None else codes)


@pytest.mark.parametrize(
    ("raw", "count", "what", "problem"),
    [
        (packed(0, 1), 2, ".ids", "positive, unique and sorted"),
        (packed(2, 1), 2, ".ids", "positive, unique and sorted"),
        (packed(1, 1), 2, ".ids", "positive, unique and sorted"),
        (packed(9, 10), 2, ".ids", "positive, unique and sorted"),
        (packed(1, 2, codes=b"\0\1"), 2, ".codes", "a code that stands for no reason"),
        (packed(1, 2), 1, "", "states 10 bytes, at most 5 are possible"),
        (packed(1, 2), 3, "", "10 bytes are not 3 removed entries"),
        (b"", 1, "", "0 bytes are not 1 removed entries"),
    ],
)
def test_a_forged_list_of_removals_is_refused(
    raw: bytes, count: int, what: str, problem: str
) -> None:
    error = refused_removed(compress(raw), count)
    assert error.where == f"m.removed{what}"
    assert problem in error.problem


@pytest.mark.parametrize("what", HOSTILE_FRAMES)
def test_a_list_of_removals_is_one_frame_of_its_size(what: str) -> None:
    assert refused_removed(HOSTILE_FRAMES[what](packed(1, 2)), 2).where == "m.removed"


def test_a_list_of_no_removals_is_no_bytes() -> None:
    for tail in (b"garbage", compress(b""), skippable(b"")):
        assert str(refused_removed(tail, 0)).startswith("m.removed: ")
    assert refused_removed(b"", 1).where == "m.removed"
    assert refused_removed(bytes(5 + 1024), 1).where == "m.removed"


def test_removals_must_be_those_that_the_header_names() -> None:
    forged = Forgery(removed=2, tail=compress(packed(1, 2))).make()
    header = manifest.decode_header(forged.header, forged.ref)
    assert manifest.decode_removed(header, forged.tail).ids.tolist() == [1, 2]
    for bad in (b"", forged.tail[:-1], forged.tail + b"\0", bytes(len(forged.tail))):
        with pytest.raises(ManifestError, match=r"^manifest\.removed: not the bytes"):
            manifest.decode_removed(header, bad)


# ----------------------------------------------------------------------------------------- memory


def peak_bytes(attempt: object) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(ManifestError):
            attempt()  # type: ignore[operator]
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_bomb_in_a_header_does_not_go_off() -> None:
    forged = Forgery().seal(compress(bytes(200 * MIB)), 200 * MIB)
    assert peak_bytes(lambda: manifest.decode_header(forged.header, forged.ref)) < MIB


def test_a_bomb_in_a_header_costs_what_its_entries_could() -> None:
    """A million entries may have a header of 54 MB, and no more."""
    raw = os.urandom(10) + bytes(200 * MIB)
    forged = Forgery(ref={"entries": 1_000_000}).seal(compress(raw), len(raw))
    assert peak_bytes(lambda: manifest.decode_header(forged.header, forged.ref)) < MIB


@pytest.mark.parametrize("what", ["states its size", "lies"])
def test_a_bomb_in_a_frame_does_not_go_off(what: str) -> None:
    bomb = compress(bytes(20 * MIB))
    data = bomb if what == "states its size" else lies_about_its_size(bytes(42), 2**32 - 1)
    forged = Forgery(frames=[Frame(data=data[:1098])]).make()
    header = manifest.decode_header(forged.header, forged.ref)
    attempt = lambda: manifest.decode_rows(header, [0], forged.frames, 0)  # noqa: E731
    assert peak_bytes(attempt) < MIB


def test_the_largest_frame_costs_little() -> None:
    """One file of a TiB has 8 MiB of chunk digests; nothing in a frame can claim more."""
    frame = Frame(file_bytes=MAX_FILE_BYTES, data=compress(bytes(42 + 32 * 2**18)))
    forged = Forgery(frames=[frame]).make()
    header = manifest.decode_header(forged.header, forged.ref)
    attempt = lambda: manifest.decode_rows(header, [0], forged.frames, 0)  # noqa: E731
    assert peak_bytes(attempt) < 40 * MIB


def test_a_bomb_in_the_removals_does_not_go_off() -> None:
    forged = Forgery(removed=100_000, tail=compress(bytes(20 * MIB))).make()
    header = manifest.decode_header(forged.header, forged.ref)
    assert peak_bytes(lambda: manifest.decode_removed(header, forged.tail)) < MIB
    assert MAX_REMOVED * 5 < 400 * MIB
