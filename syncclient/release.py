"""A release as the client reads it: descriptor, cached manifests, entries bucket by bucket.

Manifests are kept as sparse files (:mod:`syncclient.cachedobject`): each frame is checked against
its BLAKE3 whenever it is read, and one that does not match is simply not there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field

from manifests import manifest
from manifests.columns import U32, Entries, among, concat, distinct, empty, ragged_index
from manifests.digest import Digest
from manifests.errors import ManifestError, StoreError, first_of_group
from manifests.layers import LayerPart, Rows, compose
from manifests.manifest import Header, Removed
from manifests.model import Descriptor, ManifestRef
from manifests.notices import Notices
from syncclient.cachedobject import CachedObject, cache_path, join_spans
from syncclient.hosts import Hosts
from syncclient.selection import Selection
from syncclient.sources.host import Span

# What is fetched along with a header: all of a manifest that is needed whole, in one range, or of
# one of which a part is needed, if it takes no longer than a round trip of 5 ms at 100 Mbit/s.
_WHOLE_BYTES = 4 * 2**20
_SMALL_BYTES = 2**16
# Each layer and variant has its own manifest; one after another they would be round trips.
_MANIFESTS_AT_ONCE = 8
# Numpy takes some microseconds a call however few the rows are.
_BUCKETS_AT_ONCE, _ENTRIES_AT_ONCE = 64, 8192


class CachedManifest:
    """One manifest in the cache: its header in memory, its frames in a mapped sparse file."""

    def __init__(self, path: Path, ref: ManifestRef, name: str) -> None:
        self._object = CachedObject(path, ref.digest, ref.size_bytes)
        self._ref = ref
        self.name = name
        self._header: Header | None = None
        self._removed: Removed | None = None
        self._removed_buckets: U32 | None = None
        # The frames of the selected ids; there is one selection for each cached manifest.
        self._needed: Rows | None = None

    @property
    def header(self) -> Header:
        """The header; :meth:`ensure` must have been awaited."""
        if self._header is None:
            message = f"the manifest {self.name} is not in the cache"
            raise StoreError(message, hint="Run the command while a host can be reached.")
        return self._header

    def _read(self, start: int, length: int) -> bytes:
        return self._object.read(start, start + length)

    def _load_header(self) -> bool:
        return self._load_header_of(self._read(0, self._ref.header_bytes))

    def _load_header_of(self, data: bytes | memoryview) -> bool:
        if self._header is None:
            with suppress(ManifestError):
                # A wrong digest is a hole to fill; anything else that is wrong is the publisher's.
                if Digest.of(data) == self._ref.header_digest:
                    self._header = manifest.decode_header(bytes(data), self._ref, self.name)
        return self._header is not None

    def rows_held(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Which frames are in the cache and intact."""
        header, starts = self.header, self.header.row_start
        intact = [
            manifest.frame_is_intact(
                header, row, self._read(int(starts[row]), int(header.row_length[row]))
            )
            for row in rows.tolist()
        ]
        return np.array(intact, np.bool_)

    def removed(self) -> Removed:
        """The ids that this layer takes away."""
        if self._removed is None:
            header = self.header
            data = self._read(header.removed_start, header.removed_length)
            self._removed = manifest.decode_removed(header, data, self.name)
        return self._removed

    def removed_in(self, buckets: Sequence[int]) -> U32:
        """Those of them in some buckets, ascending; they are sorted by bucket."""
        if self._removed_buckets is None:
            self._removed_buckets = self.removed().ids % np.uint32(self.header.buckets)
        return self.removed().ids[_places_of(self._removed_buckets, buckets)]

    def rows_in(self, buckets: Sequence[int], wish: Selection, only: U32 | None = None) -> Rows:
        """The frames of some buckets, ascending, that can hold what is selected (of ``only``)."""
        rows = _places_of(self.header.row_bucket, buckets)
        if only is not None:
            return np.intersect1d(rows, self.header.rows_of_ids(only), assume_unique=True)
        if wish.ids is None:
            return rows
        if self._needed is None:
            self._needed = self.header.rows_of_ids(wish.ids)
        return np.intersect1d(rows, self._needed, assume_unique=True)

    def entries(self, rows: Rows, layer: int) -> Entries:
        """The entries of some frames, all of which must be held."""
        header = self.header
        starts = header.row_start[rows].tolist()
        lengths = header.row_length[rows].tolist()
        frames = [self._read(*span) for span in zip(starts, lengths, strict=True)]
        return manifest.decode_rows(header, rows.tolist(), frames, layer, self.name)

    # ----------------------------------------------------------------- filling the cache

    async def ensure(self, hosts: Hosts, wish: Selection) -> None:
        """Fetch what is missing of the header, the removed ids and the frames that ``wish`` needs.

        ManifestError if the publisher's bytes are wrong, TransferError if no host has them.
        """
        if not await asyncio.to_thread(self._load_header):
            await self._fetch_start(hosts, wish)
        if spans := await asyncio.to_thread(self._missing_spans, wish):
            await self._object.fill(hosts, spans, self._sift)

    def _removed_held(self) -> bool:
        try:
            self.removed()
        except ManifestError:
            return False
        return True

    def _missing_spans(self, wish: Selection) -> list[Span]:
        """What to ask for, ascending: runs of frames, then perhaps the list of removed ids."""
        header, starts = self.header, self.header.row_start
        rows = wanted_rows(header, wish)
        missing = rows[~self.rows_held(rows)] if len(rows) else rows
        spans = join_spans(
            zip(starts[missing].tolist(), starts[missing + 1].tolist(), strict=True)
        )
        if header.removed_length and not self._removed_held():
            spans.append((header.removed_start, header.size_bytes))
        return spans

    async def _fetch_start(self, hosts: Hosts, wish: Selection) -> None:
        """Fetch the header, and with it all the rest where that costs less than a round trip."""
        header_bytes, size_bytes = self._ref.header_bytes, self._ref.size_bytes
        whole = wish.ids is None and wish.buckets is None
        together = size_bytes <= (_WHOLE_BYTES if whole else _SMALL_BYTES)
        await self._object.fill(hosts, [(0, size_bytes if together else header_bytes)], self._sift)
        if not self._load_header():
            data = self._read(0, header_bytes)
            self._header = manifest.decode_header(data, self._ref, self.name)

    def _sift(self, start: int, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Refuse a host's bytes before they are written: header, or whole frames, or the tail."""
        view, header_bytes = memoryview(data), self._ref.header_bytes
        if start:
            self._check(start, view)
        elif not self._begins_well(view[:header_bytes]):
            view = view[:header_bytes]
        elif len(view) > header_bytes:
            self._check(header_bytes, view[header_bytes:])
        yield start, view

    def _begins_well(self, data: memoryview) -> bool:
        """Whether the header can be read; one that is as named and cannot is the publisher's."""
        if Digest.of(data) != self._ref.header_digest:
            raise ManifestError(f"{self.name}.header", "not the bytes that the descriptor names")
        return self._load_header_of(data)

    def _check(self, start: int, view: memoryview) -> None:
        header = self.header
        row = int(np.searchsorted(header.row_start, start))
        position = 0
        while position < len(view) and row < len(header):
            length = int(header.row_length[row])
            if not manifest.frame_is_intact(header, row, view[position : position + length]):
                raise ManifestError(
                    f"{self.name}.rows[{row}]", "not the bytes that the header names"
                )
            position, row = position + length, row + 1
        if position < len(view) and Digest.of(view[position:]) != header.removed_digest:
            raise ManifestError(f"{self.name}.removed", "not the bytes that the header names")

    def close(self) -> None:
        """Let go of the mapped file."""
        self._object.close()


def _places_of(column: U32, buckets: Sequence[int]) -> Rows:
    """Where ascending ``buckets`` stand in an ascending column of them."""
    # Numbers of another type would have the whole column copied.
    wanted = np.asarray(buckets, column.dtype)
    starts = np.searchsorted(column, wanted, "left")
    return ragged_index(starts, np.searchsorted(column, wanted, "right") - starts)


def wanted_rows(header: Header, wish: Selection) -> Rows:
    """The frames that can hold what is selected."""
    rows = np.arange(len(header)) if wish.ids is None else header.rows_of_ids(wish.ids)
    if wish.buckets is not None:
        bucket = header.row_bucket[rows]
        rows = rows[(bucket >= wish.buckets[0]) & (bucket <= wish.buckets[1])]
    return rows


class BucketView(Struct, frozen=True, kw_only=True, eq=False):
    """One bucket of a release, or several: what is wanted, what its layers ever held there.

    ``absent`` marks wanted entries that the publisher says are unavailable.  ``history`` has every
    entry of every layer at these ids, also superseded ones; a file with such a digest is ours.
    ``before`` are the ids that were wanted of the first layers alone, if that was asked.
    """

    wanted: Entries
    absent: npt.NDArray[np.bool_]
    history: Entries
    before: U32 = field(default_factory=lambda: np.empty(0, np.uint32))


class ReleaseView:
    """The entries of one release for one selection; :meth:`open` it first."""

    def __init__(
        self, descriptor: Descriptor, notices: Notices, wish: Selection, cache: Path
    ) -> None:
        self.descriptor = descriptor
        self.wish = wish
        self.variants = wish.variants_of(descriptor.variants)
        self.buckets = wish.bucket_numbers(descriptor.layout.buckets)
        self._selected = frozenset(self.buckets)
        self._absent_ids = {
            (number, variant): notices.absent_ids(layer.name, variant)
            for number, layer in enumerate(descriptor.layers)
            for variant in self.variants
        }
        self._held: dict[str, list[tuple[int, CachedManifest]]] = {}
        for variant in self.variants:
            self._held[variant] = [
                (
                    number,
                    CachedManifest(cache_path(cache, ref.digest), ref, f"{layer.name}/{variant}"),
                )
                for number, layer in enumerate(descriptor.layers)
                if (ref := layer.manifests.get(variant)) is not None
            ]

    async def open(self, hosts: Hosts) -> None:
        """Bring every manifest that is needed into the cache."""
        at_once = asyncio.Semaphore(_MANIFESTS_AT_ONCE)

        async def ensure(one: CachedManifest) -> None:
            async with at_once:
                await one.ensure(hosts, self.wish)
            if one.header.buckets != self.descriptor.layout.buckets:
                raise ManifestError(one.name, "has another number of buckets than its release")

        with first_of_group():
            async with asyncio.TaskGroup() as group:
                for cached in self._held.values():
                    for _, one in cached:
                        group.create_task(ensure(one))

    def close(self) -> None:
        """Let go of mapped files."""
        for cached in self._held.values():
            for _, one in cached:
                one.close()

    def buckets_at_once(self, variant: str) -> int:
        """How many buckets :meth:`several` should be asked for: many if they are small."""
        total = self.descriptor.totals.get(variant)
        wanted = 0 if total is None else total.files
        if self.wish.ids is not None:
            wanted = min(wanted, len(self.wish.ids))
        most = _ENTRIES_AT_ONCE * len(self.buckets) // max(1, wanted)
        return max(1, min(_BUCKETS_AT_ONCE, most))

    def bucket(self, variant: str, bucket: int) -> BucketView:
        """Compose one bucket, cut to the selection."""
        return self.several(variant, [bucket])

    def several(
        self, variant: str, buckets: Sequence[int], only: U32 | None = None, layers: int = 0
    ) -> BucketView:
        """The same for several buckets, ascending; ``only`` at some ids, ascending.

        Nothing is wanted outside the selection, or of a variant that the release does not have.
        ``layers`` are those of ``before``.
        """
        buckets = [bucket for bucket in buckets if bucket in self._selected]
        parts: list[LayerPart] = []
        everything: list[Entries] = []
        older = 0
        for number, cached in self._held.get(variant, ()):
            entries = cached.entries(cached.rows_in(buckets, self.wish, only), number)
            if only is not None:
                entries = entries.take(among(entries.ids, only))
            everything.append(entries)
            parts.append(LayerPart(entries=entries, removed_ids=cached.removed_in(buckets)))
            older += number < layers
        wanted = self._composed(parts)
        return BucketView(
            wanted=wanted,
            absent=self._absent(variant, wanted),
            history=concat(everything),
            before=self._composed(parts[:older]).ids,
        )

    def _composed(self, parts: Sequence[LayerPart]) -> Entries:
        return self._cut(compose(parts, self.descriptor.layout.buckets)) if parts else empty()

    def extensions(self, variant: str) -> tuple[str, ...]:
        """Every extension that a file of a variant has, or had in any layer."""
        held = (cached.header.extensions for _, cached in self._held.get(variant, ()))
        return tuple(dict.fromkeys(chain.from_iterable(held)))

    def spoken_of(
        self, variant: str, buckets: Sequence[int], layers: int
    ) -> Iterator[tuple[int, U32]]:
        """The ids, ascending, of which layers after the first ``layers`` speak.

        For each of some buckets, ascending, of which any does within the selection.
        """
        buckets = [bucket for bucket in buckets if bucket in self._selected]
        parts = [np.empty(0, np.uint32)]
        for number, cached in self._held.get(variant, ()):
            if number >= layers:
                parts.append(cached.entries(cached.rows_in(buckets, self.wish), number).ids)
                parts.append(cached.removed_in(buckets))
        ids = distinct(np.concatenate(parts))
        wants = self.wish.wants_ids(ids)
        ids = ids if wants is None else ids[wants]
        of_ids = ids % np.uint32(self.descriptor.layout.buckets)
        order = np.argsort(of_ids, kind="stable")
        for bucket in buckets:
            start, end = np.searchsorted(of_ids, [bucket, bucket + 1], sorter=order).tolist()
            if start < end:
                yield bucket, ids[order[start:end]]

    def of_layer(self, variant: str, layer: int, bucket: int) -> Entries:
        """What is selected of one bucket of one layer, superseded entries too."""
        for number, cached in self._held[variant]:
            if number == layer and bucket in self._selected:
                return self._cut(cached.entries(cached.rows_in([bucket], self.wish), number))
        return empty()

    def _cut(self, entries: Entries) -> Entries:
        wants = self.wish.wants_ids(entries.ids)
        return entries if wants is None else entries.take(wants)

    def _absent(self, variant: str, wanted: Entries) -> npt.NDArray[np.bool_]:
        absent = np.zeros(len(wanted), np.bool_)
        for number in range(len(self.descriptor.layers)):
            ids = self._absent_ids.get((number, variant))
            if ids is not None and len(ids):
                absent |= (wanted.layers == number) & among(wanted.ids, ids)
        return absent
