"""Recording what was placed and removed, some seconds' worth at a time.

A file that is in the tree but not recorded yet costs a reading of it after a crash, nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from manifests.columns import Entries
from manifests.digest import DIGEST_BYTES
from manifests.paths import parse_entry_name
from syncclient.fetch import Batch
from syncclient.plan import forget, merge_placed
from syncclient.pool import in_thread
from syncclient.state import AssetRecord, State

_FLUSH_S = 2.0

# A file by id and extension, with size, digest and mtime.  One placed twice counts once.
Placed = dict[tuple[int, str], tuple[int, bytes, int]]


@dataclass(slots=True)
class _Notes:
    """What happened since the last flush, by variant and bucket, and by path of assets."""

    placed: dict[tuple[str, int], Placed] = field(default_factory=dict)
    removed: dict[tuple[str, int], set[tuple[int, str]]] = field(default_factory=dict)
    assets: dict[str, AssetRecord | None] = field(default_factory=dict)


class Journal:
    """Collects placed and removed files of one run; writes them to the state in a thread."""

    def __init__(self, state: State) -> None:
        self._state = state
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
                    digest=batch.digests[row],
                )
            return
        noted = self._notes.placed.setdefault((variant, bucket), {})
        for row in rows:
            named = parse_entry_name(batch.names[row])
            if named is not None:
                noted[named] = (batch.sizes[row], batch.digests[row], batch.mtime_ns)

    def removed(self, variant: str, bucket: int, names: Sequence[str]) -> None:
        """Note entries that were moved away."""
        noted = self._notes.removed.setdefault((variant, bucket), set())
        noted.update(named for name in names if (named := parse_entry_name(name)) is not None)

    def asset_removed(self, path: str) -> None:
        """Note an asset that was moved away."""
        self._notes.assets[path] = None

    async def keep_flushing(self) -> None:
        """Flush every two seconds until cancelled."""
        while True:
            await asyncio.sleep(_FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Write everything noted so far, in one transaction; a cancel waits for its end."""
        async with self._writing:
            notes, self._notes = self._notes, _Notes()
            await in_thread(lambda: self._write(notes))

    def _write(self, notes: _Notes) -> None:
        with self._state.transaction():
            for path, asset in notes.assets.items():
                self._state.store_asset(path, asset)
            for key in notes.placed.keys() | notes.removed.keys():
                record = self._state.load(*key)
                if key in notes.removed:
                    record = forget(record, notes.removed[key])
                if key in notes.placed:
                    placed = notes.placed[key]
                    mtimes = np.array([mtime for _, _, mtime in placed.values()], np.int64)
                    record = merge_placed(record, _columns(placed), mtimes)
                self._state.store(*key, record)


def _columns(placed: Placed) -> Entries:
    rows = list(placed.values())
    table = list(dict.fromkeys(extension for _, extension in placed))
    return Entries(
        extensions=tuple(table),
        ids=np.array([number for number, _ in placed], np.uint32),
        sizes=np.array([size for size, _, _ in rows], np.uint64),
        exts=np.array([table.index(extension) for _, extension in placed], np.uint8),
        digests=np.frombuffer(b"".join(digest for _, digest, _ in rows), np.uint8).reshape(
            -1, DIGEST_BYTES
        ),
        offsets=np.zeros(len(rows), np.uint64),
        layers=np.zeros(len(rows), np.uint16),
        chunks=np.empty((0, DIGEST_BYTES), np.uint8),
    )
