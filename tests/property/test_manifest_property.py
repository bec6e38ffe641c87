"""Manifests: what is written is read back, whole or by the frames of some ids."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from manifests import manifest
from manifests.columns import CHUNK_BYTES, Entries
from manifests.manifest import Header
from manifests.model import ManifestRef
from manifests.paths import MAX_ID
from tests.support.forgery import by_bucket, make_entries, make_removed

Files = dict[int, tuple[int, str]]

BUCKETS = st.sampled_from([1, 2, 10, 1000, 99_999, 100_000])
IDS = st.integers(1, 3000) | st.integers(MAX_ID - 300, MAX_ID) | st.integers(1, MAX_ID)
SIZES = (
    st.integers(0, 10_000)
    | st.integers(CHUNK_BYTES - 2, CHUNK_BYTES + 2)
    | st.integers(3 * CHUNK_BYTES - 1, 3 * CHUNK_BYTES + 1)
    | st.sampled_from([2**32 - 1, 2**32, 2**32 + 1])
)
EXTENSIONS = st.sampled_from(["jpg", "png", "JPG", "7z", "x" * 16])
FILES = st.dictionaries(IDS, st.tuples(SIZES, EXTENSIONS), max_size=40)
REASONS = st.sampled_from(["withdrawn", "", "é" * 1024])


def with_a_run(files: Files, length: int, buckets: int) -> Files:
    """Beside ``files`` a run of ids in one bucket, so that it has several frames."""
    run = {slot * buckets + 1: (slot, "gif") for slot in range(min(length, MAX_ID // buckets))}
    return {**run, **files}


def decode(data: bytes, header: Header, rows: list[int], layer: int = 0) -> Entries:
    starts = header.row_start.tolist()
    frames = [data[starts[row] : starts[row + 1]] for row in rows]
    return manifest.decode_rows(header, rows, frames, layer)


def open_header(data: bytes, ref: ManifestRef) -> Header:
    return manifest.decode_header(data[: ref.header_bytes], ref)


def lines(entries: Entries) -> list[tuple[str, int, bytes, bytes]]:
    chunks = [entries.chunks[a:b].tobytes() for a, b in pairwise(entries.chunk_starts())]
    digests = [row.tobytes() for row in entries.digests]
    return list(zip(entries.names(), entries.sizes.tolist(), digests, chunks, strict=True))


@given(files=FILES, run=st.integers(0, 300), buckets=BUCKETS, layer=st.integers(0, 999))
def test_entries_come_back(files: Files, run: int, buckets: int, layer: int) -> None:
    entries = make_entries(with_a_run(files, run, buckets), buckets)
    data, ref = manifest.encode(entries, None, buckets)
    header = open_header(data, ref)
    back = decode(data, header, list(range(len(header))), layer)
    assert lines(back) == lines(entries)
    assert (back.layers == layer).all()
    assert (ref.entries, ref.file_bytes) == (len(entries), entries.file_bytes)


@given(gone=st.dictionaries(IDS, REASONS, max_size=40), buckets=BUCKETS)
def test_removed_ids_come_back(gone: dict[int, str], buckets: int) -> None:
    data, ref = manifest.encode(make_entries({}), make_removed(gone, buckets), buckets)
    header = open_header(data, ref)
    removed = manifest.decode_removed(header, data[header.removed_start :])
    ids, codes = removed.ids.tolist(), removed.codes.tolist()
    assert ids == by_bucket(gone, buckets).tolist()
    assert dict(zip(ids, [removed.reasons[code] for code in codes], strict=True)) == gone


@given(files=FILES, run=st.integers(0, 300), buckets=BUCKETS, wanted=st.sets(IDS), data=st.data())
def test_some_ids_come_from_their_frames_alone(
    files: Files, run: int, buckets: int, wanted: set[int], data: st.DataObject
) -> None:
    held = with_a_run(files, run, buckets)
    if held:
        wanted |= data.draw(st.sets(st.sampled_from(sorted(held))))
    whole, ref = manifest.encode(make_entries(held, buckets), None, buckets)
    header = open_header(whole, ref)
    rows = header.rows_of_ids(np.array(sorted(wanted), np.uint32)).tolist()
    assert rows == sorted(set(rows))
    assert len(rows) <= len(wanted)
    part = decode(whole, header, rows)
    everything = dict(zip((line[0] for line in lines(part)), lines(part), strict=True))
    expected = make_entries({key: held[key] for key in wanted & held.keys()}, buckets)
    assert [everything[line[0]] for line in lines(expected)] == lines(expected)


@given(files=FILES, run=st.integers(0, 300), buckets=BUCKETS, data=st.data())
def test_offsets_place_each_file_in_the_pack_of_its_bucket(
    files: Files, run: int, buckets: int, data: st.DataObject
) -> None:
    entries = make_entries(with_a_run(files, run, buckets), buckets)
    whole, ref = manifest.encode(entries, None, buckets)
    header = open_header(whole, ref)
    rows = data.draw(st.sets(st.sampled_from(range(len(header))))) if len(header) else set()
    part = decode(whole, header, sorted(rows))
    expected: dict[int, int] = {}
    ends: dict[int, int] = {}
    for post_id, size in zip(entries.ids.tolist(), entries.sizes.tolist(), strict=True):
        expected[post_id] = ends.get(post_id % buckets, 0)
        ends[post_id % buckets] = expected[post_id] + size
    assert part.offsets.tolist() == [expected[post_id] for post_id in part.ids.tolist()]
