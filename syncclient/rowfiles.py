"""Files of metadata in a tree: ``metadata/RELEASE/TABLE.json``, made of the publisher's own lines.

No host has these files: each is made of the frames of a table (:mod:`manifests.metadata.rowfile`)
that the selection needs.  So what it must hold is named by a *token* (table and selected ids), and
what it was found to hold is recorded with that token; a record that is lost costs a reading of the
cached frames, or at worst fetching them again.  The files of other releases are left alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import closing
from pathlib import Path
from threading import Event

import blake3
import numpy as np
from msgspec import Struct, field

from manifests.columns import U32, distinct
from manifests.digest import Digest
from manifests.errors import StoreError
from manifests.framed import FrameKey
from manifests.metadata.rowfile import (
    FRAME_TEXT_BYTES,
    KIND,
    POSTS,
    decode_rows,
    row_frames,
)
from manifests.model import Descriptor, TableRef
from manifests.paths import METADATA_FOLDER, SafePath, asset_path
from syncclient.assets import look_at
from syncclient.cachedobject import cache_path
from syncclient.framed import CachedFramed
from syncclient.hosts import Hosts
from syncclient.places import Places
from syncclient.release import ReleaseView
from syncclient.rowsurvey import RowSurvey
from syncclient.state import AssetRecord, State
from syncclient.store import Aside, Store
from syncclient.tree import FileStat

# Frames that are fetched, and held in memory, together.
_FETCH_BYTES = 8 * 2**20


class RowFile(Struct, frozen=True, kw_only=True, eq=False):
    """One file that is wanted: the rows of ``keys``, or all rows, of a table."""

    table: TableRef
    path: SafePath
    keys: U32 | None
    token: str

    @property
    def share(self) -> float:
        """About which share of the rows is wanted."""
        return 1.0 if self.keys is None else min(1.0, len(self.keys) / max(1, self.table.rows))

    @property
    def text_bytes(self) -> int:
        """About how long the file will be."""
        return int(self.table.raw_bytes * self.share)

    @property
    def fetch_bytes(self) -> int:
        """About what it takes to fetch, if nothing of it is cached: whole frames, of any key."""
        ref, frames = self.table.ref, self.table.raw_bytes // FRAME_TEXT_BYTES + 1
        share = 1.0 if self.keys is None else min(1.0, len(self.keys) / frames)
        return ref.header_bytes + int((ref.size_bytes - ref.header_bytes) * share)


def selected_post_ids(view: ReleaseView) -> U32 | None:
    """The posts whose rows come with a selection, ascending; None for all posts.

    Posts that are named need not have a file; of buckets come those that have one.  Blocking.
    """
    wish = view.wish
    if wish.whole:
        return None
    if wish.ids is None:
        held = [
            view.bucket(variant, bucket).wanted.ids
            for variant in view.variants
            for bucket in view.buckets
        ]
        return distinct(np.concatenate([np.empty(0, np.uint32), *held]))
    first, last = wish.buckets or (0, view.descriptor.layout.buckets - 1)
    bucket = wish.ids % np.uint32(view.descriptor.layout.buckets)
    return wish.ids[(bucket >= first) & (bucket <= last)]


def wanted_rows(descriptor: Descriptor, ids: U32 | None) -> list[RowFile]:
    """The files for some posts, or all: rows of these posts, and every other table whole."""
    return [
        row_file(descriptor.release, table, ids if table.name == POSTS else None)
        for table in descriptor.tables
    ]


def row_file(release: str, table: TableRef, keys: U32 | None) -> RowFile:
    """The file of a table, with the rows of some ascending keys or all."""
    named = b"" if keys is None else b"ids" + keys.astype("<u4").tobytes()
    return RowFile(
        table=table,
        path=asset_path(f"{METADATA_FOLDER}/{release}/{table.name}.json"),
        keys=keys,
        token=Digest.of(table.ref.digest.raw + named).hex[:32],
    )


class RowFiles(Struct, frozen=True, kw_only=True):
    """Surveys, fetches and makes the files of one tree.

    ``run`` is that of the store; ``mtime_ns`` is given to the files.  ``stop``, once set, ends
    what is being done with CancelledError.
    """

    cache: Path
    places: Places
    state: State
    run: str
    mtime_ns: int
    stop: Event = field(default_factory=Event)

    # ----------------------------------------------------------------- looking

    def survey(self, wanted: Iterable[RowFile]) -> RowSurvey:
        """Compare files with the tree; one that is right without a record gets one.  Blocking."""
        survey, records = RowSurvey(), self.state.load_made()
        for file in wanted:
            record, _ = records.get(file.path.text, (None, ""))
            found = look_at(file.path, self.places, record)
            if found is None:
                survey.added.append(file)
                continue
            right = self.right(file)
            if right is not None and found.digest == right.digest:
                survey.kept.append(file)
                if not found.recorded:
                    known = AssetRecord(
                        size_bytes=found.stat.size_bytes,
                        mtime_ns=found.mtime_ns,
                        digest=found.digest,
                    )
                    self.state.store_made(file.path.text, known, file.token)
            elif found.recorded or (record is not None and found.digest == record.digest):
                survey.changed.append((file, found.stat))
            else:
                survey.foreign.append(file)
        return survey

    def right(self, file: RowFile) -> AssetRecord | None:
        """Digest and size that a file must have; None where nobody here can know.  Blocking."""
        record, token = self.state.load_made().get(file.path.text, (None, ""))
        if record is not None:
            return record if token == file.token else None
        hasher, size = blake3.blake3(), 0
        try:
            for text in self._texts(file):
                hasher.update(text)
                size += len(text)
        except StoreError:
            return None
        return AssetRecord(size_bytes=size, mtime_ns=self.mtime_ns, digest=hasher.digest())

    # ----------------------------------------------------------------- making

    async def fetch(self, hosts: Hosts, file: RowFile) -> None:
        """Bring the frames that a file needs into the cache, few at a time in memory.

        ManifestError if the publisher's bytes are wrong, TransferError if no host has them.
        """
        with closing(self._cached(file)) as cached:
            header = await cached.open(hosts)
            group, size = list[FrameKey](), 0
            for frame in row_frames(header, file.keys):
                start, stop = header.span(frame)
                group.append(frame)
                size += stop - start
                if size >= _FETCH_BYTES:
                    await cached.fetch(hosts, group)
                    group, size = [], 0
            await cached.fetch(hosts, group)

    def make(
        self, file: RowFile, replaces: FileStat | None, tell: Callable[[int], object]
    ) -> tuple[int, Aside | None]:
        """Write a file whose frames are cached, and record it; its size, what moved aside.

        ``tell`` is given the bytes of each piece.  StoreError if the disk refuses.  Blocking.
        """
        (root, folder), name = self.places.asset(file.path), file.path.parts[-1]
        part, hasher, size = f"rows-{file.token}", blake3.blake3(), 0
        with Store(root, self.run) as place:
            fd = place.open_part(part)
            try:
                os.ftruncate(fd, 0)
                for text in self._texts(file):
                    place.write_part(fd, text, size)
                    hasher.update(text)
                    size += len(text)
                    tell(len(text))
            finally:
                os.close(fd)
            digest = hasher.digest()
            aside = place.place_staged(part, folder, name, digest, self.mtime_ns, replaces)
        record = AssetRecord(size_bytes=size, mtime_ns=self.mtime_ns, digest=digest)
        self.state.store_made(file.path.text, record, file.token)
        return size, aside

    def _cached(self, file: RowFile) -> CachedFramed:
        ref = file.table.ref
        path = cache_path(self.cache, ref.digest)
        return CachedFramed(path, ref, KIND, f"metadata.{file.table.name}")

    def _texts(self, file: RowFile) -> Iterator[bytes]:
        """The content of a file from the cache; StoreError where that lacks something."""
        with closing(self._cached(file)) as cached:
            for frame in row_frames(cached.header, file.keys):
                if self.stop.is_set():
                    raise CancelledError
                rows = decode_rows(cached.header, frame, cached.require(frame))
                yield rows.text if file.keys is None else rows.pick(file.keys)
