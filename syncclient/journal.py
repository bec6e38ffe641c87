"""Recording what was placed and removed, half a second's worth at a time.

A file that is in the tree but not recorded yet costs a reading of it after a crash, nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
from msgspec import Struct, field
from msgspec.structs import replace

from manifests.columns import U32, among, distinct
from manifests.digest import DIGEST_BYTES
from manifests.errors import StoreError
from manifests.paths import parse_entry_name, parse_entry_names
from syncclient.batch import Batch
from syncclient.plan import Rows, forget, merge_placed
from syncclient.pool import in_thread
from syncclient.records import EMPTY_RECORD, Record, fingerprint_of
from syncclient.settling import Work
from syncclient.state import AssetRecord, State

_FLUSH_S = 0.5

# Records of so many buckets are changed together: numpy takes as long for one.
_BUCKETS_AT_ONCE = 64


class _Notes(Struct):
    """What happened since the last flush, by variant and bucket, and by path of assets."""

    placed: dict[tuple[str, int], list[tuple[Batch, Sequence[int]]]] = field(default_factory=dict)
    removed: dict[tuple[str, int], set[tuple[int, str]]] = field(default_factory=dict)
    assets: dict[str, AssetRecord | None] = field(default_factory=dict)

    def then(self, later: _Notes) -> _Notes:
        """These, and what happened after them."""
        return _Notes(
            placed={
                key: [*self.placed.get(key, ()), *later.placed.get(key, ())]
                for key in self.placed.keys() | later.placed.keys()
            },
            removed={
                key: self.removed.get(key, set()) | later.removed.get(key, set())
                for key in self.removed.keys() | later.removed.keys()
            },
            assets=self.assets | later.assets,
        )


class _Due:
    """The ids still to be placed in a bucket, and what it is once nothing is left to do."""

    def __init__(self, work: Work) -> None:
        self._ids, self._after = work.fetch.ids, work.after

    def settled(self, record: Record, placed: U32) -> Record:
        """The record of a bucket in which ``placed`` were; told twice of a file is no harm.

        It says that the bucket is as it is wanted, if it is.
        """
        self._ids = self._ids[~among(self._ids, np.sort(placed))]
        after = self._after
        # Files that are still to be removed are recorded too.
        if after is None or len(self._ids) or len(record) != after.files:
            return record
        # The user's files are not recorded, so with them nobody knows what the folder looks like.
        looks = b"" if after.extra else fingerprint_of(record, time.time_ns())
        return replace(
            record,
            settled=after.settled,
            files=after.files,
            extra=after.extra,
            fingerprint=looks,
        )


class Journal:
    """Collects placed and removed files of one run; writes them to the state in a thread.

    A bucket of which all of its work is done is recorded as settled, so that the next run need
    not compare it.
    """

    def __init__(self, state: State, works: Iterable[Work] = ()) -> None:
        self._state = state
        self._due = {(work.variant, work.bucket): _Due(work) for work in works}
        self._notes = _Notes()
        self._writing = asyncio.Lock()

    def placed(self, batch: Batch, rows: Sequence[int]) -> None:
        """Note files of a batch that have their final names now."""
        variant, bucket = batch.key
        if isinstance(bucket, str):
            for row in rows:
                self._notes.assets[bucket] = AssetRecord(
                    size_bytes=batch.sizes[row],
                    mtime_ns=batch.mtime_ns,
                    digest=batch.digest(row),
                )
            return
        if rows:
            self._notes.placed.setdefault((variant, bucket), []).append((batch, rows))

    def removed(self, variant: str, bucket: int, names: Sequence[str]) -> None:
        """Note entries that were moved away."""
        noted = self._notes.removed.setdefault((variant, bucket), set())
        noted.update(named for name in names if (named := parse_entry_name(name)) is not None)

    def asset_removed(self, path: str) -> None:
        """Note an asset that was moved away."""
        self._notes.assets[path] = None

    async def keep_flushing(self) -> None:
        """Flush twice a second until cancelled; StoreError if the disk refuses."""
        while True:
            await asyncio.sleep(_FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Write everything noted so far, in one transaction; a cancel waits for its end.

        What the disk refuses (StoreError) stays noted.
        """
        async with self._writing:
            notes, self._notes = self._notes, _Notes()
            try:
                await in_thread(lambda: self._write(notes))
            except StoreError:
                self._notes = notes.then(self._notes)
                raise

    def _write(self, notes: _Notes) -> None:
        with self._state.transaction():
            for path, asset in notes.assets.items():
                self._state.store_asset(path, asset)
            buckets = sorted(notes.placed.keys() | notes.removed.keys())
            for variant, group in groupby(buckets, key=itemgetter(0)):
                numbers = [bucket for _, bucket in group]
                for first in range(0, len(numbers), _BUCKETS_AT_ONCE):
                    self._write_some(notes, variant, numbers[first : first + _BUCKETS_AT_ONCE])

    def _write_some(self, notes: _Notes, variant: str, buckets: list[int]) -> None:
        records = self._state.load_several(variant, buckets)
        for place, bucket in enumerate(buckets):
            if (variant, bucket) in notes.removed:
                records[place] = forget(records[place], notes.removed[variant, bucket])
        placed, places = _columns([notes.placed.get((variant, bucket), ()) for bucket in buckets])
        bounds = np.searchsorted(places, np.arange(len(buckets) + 1)).tolist()
        for place, merged in enumerate(merge_placed(records, placed, places)):
            key, record = (variant, buckets[place]), merged
            if (due := self._due.get(key)) is not None:
                record = due.settled(merged, placed.ids[bounds[place] : bounds[place + 1]])
            if len(record):
                self._state.store(*key, record)
            else:
                self._state.forget(*key)


def _columns(noted: Sequence[Sequence[tuple[Batch, Sequence[int]]]]) -> tuple[Record, Rows]:
    """Files that were placed in some buckets, and in which of them each was; ascending.

    A file that was placed twice counts once, as it was placed last.
    """
    pieces = [(place, *piece) for place, those in enumerate(noted) for piece in those]
    names = [batch.names[row] for _, batch, rows in pieces for row in rows]
    if not names:
        return EMPTY_RECORD, np.empty(0, np.intp)
    if (named := parse_entry_names(names)) is None:
        raise ValueError(f"{pieces[0][1].key} and others: not the names of entries")
    ids, extensions = named
    table = {extension: code for code, extension in enumerate(dict.fromkeys(extensions))}
    counts = [len(rows) for _, _, rows in pieces]
    starts = np.cumsum([0, *(len(batch.names) for _, batch, _ in pieces)])[:-1]
    rows = np.repeat(starts, counts) + [row for _, _, rows in pieces for row in rows]
    digests = np.frombuffer(b"".join([batch.digests for _, batch, _ in pieces]), np.uint8)
    placed = Record(
        extensions=tuple(table),
        ids=np.array(ids, np.uint32),
        exts=np.array([table[extension] for extension in extensions], np.uint16),
        sizes=np.array([batch.sizes[row] for _, batch, rows in pieces for row in rows], np.uint64),
        mtimes=np.repeat(np.array([batch.mtime_ns for _, batch, _ in pieces], np.int64), counts),
        digests=digests.reshape(-1, DIGEST_BYTES)[rows],
    )
    places = np.repeat([place for place, _, _ in pieces], counts)
    keys = placed.ids.astype(np.uint64) << np.uint64(16) | placed.exts
    if len(distinct(keys)) == len(keys):
        return placed, places
    _, from_end = np.unique(keys[::-1], return_index=True)
    last = np.sort(len(keys) - 1 - from_end)
    return placed.take(last), places[last]
