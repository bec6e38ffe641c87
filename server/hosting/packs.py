"""Virtual packs: where each file of a bucket begins, without a byte of them laid out on disk.

A manifest names its entries in pack order, so its frames of one bucket are all that a pack needs.
They are read and decoded when a bucket is first asked for, and kept until others need the room.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import Struct

from manifests.columns import I64, U8, U32, U64, Entries
from manifests.digest import Digest
from manifests.errors import StoreError
from manifests.manifest import Header, decode_header, decode_removed, decode_rows
from manifests.model import LayerRef, ManifestRef
from server.hosting.catalog import ServedLayer
from server.hosting.documents import read_document
from server.hosting.joined import JoinedFiles, Rows
from server.record import ServedRecord

# What decoded buckets may take in memory: about 1.3 million entries.  One bucket is always kept.
DEFAULT_CACHE_BYTES: Final = 64 * 2**20
_NS: Final = 10**9
_PackKey = tuple[str, str, int]


class Pack(Struct, frozen=True, kw_only=True, eq=False):
    """One bucket of one layer and variant: n entries by ascending id, and their files joined.

    ``on_disk`` is the pack as a file, where the publisher laid it out; it has the same bytes.
    ``removed`` are the ids of the bucket whose entries the layer takes away.
    """

    ids: U32
    removed: U32
    exts: U8
    digests: U8
    extensions: tuple[str, ...]
    files: JoinedFiles
    on_disk: JoinedFiles | None
    etag: str

    @property
    def held_bytes(self) -> int:
        """Memory of the columns."""
        known = (self.files.mtimes, self.files.inodes)
        own = (self.ids, self.removed, self.exts, self.digests)
        columns = (*own, self.files.starts, *known)
        return sum(column.nbytes for column in columns if column is not None)

    def row_of(self, post_id: int, extension: str) -> int | None:
        """The row of an entry; None if this bucket has no such file."""
        row = int(np.searchsorted(self.ids, post_id))
        if row == len(self.ids) or self.ids[row] != post_id:
            return None
        return row if self.extensions[self.exts[row]] == extension else None

    def name_of(self, post_id: int) -> str | None:
        """The name of a post's file; None if this bucket has none."""
        row = int(np.searchsorted(self.ids, post_id))
        if row == len(self.ids) or self.ids[row] != post_id:
            return None
        return f"{post_id}.{self.extensions[self.exts[row]]}"

    def digest_of(self, row: int) -> Digest:
        """The BLAKE3 of one file, as the manifest states it."""
        return Digest(self.digests[row].tobytes())


class PackReader:
    """Reads packs from the objects of a repository; blocks on the disk, so it is for threads."""

    def __init__(self, repo: Path) -> None:
        self._repo = repo
        self._record = ServedRecord(repo)
        # A mirror has no record, and its files have what mtimes its copying gave them.
        self._is_origin = (repo / ".publish").is_dir()
        self._headers: dict[Digest, Header] = {}
        self._removed: dict[Digest, U32] = {}

    def read(self, layer: ServedLayer, variant: str, bucket: int) -> Pack:
        """One bucket; ManifestError or StoreError if its manifest is damaged or missing."""
        ref = layer.ref.manifests[variant]
        entries = self._entries(ref, bucket)
        starts = np.zeros(len(entries) + 1, np.int64)
        np.cumsum(entries.sizes, out=starts[1:])
        mtimes, inodes = self._stats(layer.ref, variant, bucket, entries.ids)
        name = layer.layout.bucket_name(bucket)
        source = self._record.source(layer.ref.name)
        root = source.folder if source else self._repo / "files" / layer.ref.name
        return Pack(
            ids=entries.ids,
            removed=self._removed_of(ref, bucket),
            exts=entries.exts,
            digests=entries.digests,
            extensions=entries.extensions,
            files=JoinedFiles(
                folder=os.fspath(root / variant / name),
                names=_namer(entries.ids, entries.exts, entries.extensions),
                starts=starts,
                mtimes=mtimes,
                inodes=inodes,
            ),
            on_disk=self._on_disk(layer.ref.name, variant, name, int(starts[-1])),
            etag=f"{ref.digest.hex[:32]}-{name}",
        )

    def _on_disk(
        self, layer: str, variant: str, bucket_name: str, size_bytes: int
    ) -> JoinedFiles | None:
        path = self._repo / "packs" / layer / variant / bucket_name
        document = read_document(path, max_bytes=0)
        if document is None or document.stat.size_bytes != size_bytes:
            return None
        return document.joined()

    def _entries(self, ref: ManifestRef, bucket: int) -> Entries:
        path = self._object_path(ref)
        try:
            with path.open("rb") as file:
                if ref.digest not in self._headers:
                    self._headers[ref.digest] = decode_header(file.read(ref.header_bytes), ref)
                header = self._headers[ref.digest]
                rows = header.rows_of_bucket(bucket)
                bounds = header.row_start[rows.start : rows.stop + 1].tolist()
                file.seek(bounds[0])
                data = memoryview(file.read(bounds[-1] - bounds[0]))
        except FileNotFoundError as error:
            raise StoreError(
                f"{path}: this manifest is missing", hint="Restore objects/ from a mirror."
            ) from error
        frames = [data[a - bounds[0] : b - bounds[0]] for a, b in itertools.pairwise(bounds)]
        return decode_rows(header, rows, frames, 0, f"manifest {ref.digest.hex[:12]}")

    def _object_path(self, ref: ManifestRef) -> Path:
        return self._repo / "objects" / ref.digest.hex[:2] / ref.digest.hex

    def _removed_of(self, ref: ManifestRef, bucket: int) -> U32:
        """The removed ids of a bucket, once :meth:`_entries` has read the header."""
        header = self._headers[ref.digest]
        if ref.digest not in self._removed:
            with self._object_path(ref).open("rb") as file:
                file.seek(header.removed_start)
                data = file.read(header.removed_length)
            where = f"manifest {ref.digest.hex[:12]}"
            self._removed[ref.digest] = decode_removed(header, data, where).ids
        removed = self._removed[ref.digest]
        return np.asarray(removed[removed % header.buckets == bucket], np.uint32)

    def _stats(
        self, layer: LayerRef, variant: str, bucket: int, ids: U32
    ) -> tuple[I64 | None, U64 | None]:
        """Mtimes and inodes that the files must have, as far as anything is known of them."""
        if not self._is_origin:
            return None, None
        rows = self._record.expected(layer.name, variant, bucket)
        if rows is None:
            return np.full(len(ids), layer.date * _NS, np.int64), None
        # No file has inode 0, so an entry without a row in the record is never sent.
        mtimes, inodes = np.zeros(len(ids), np.int64), np.zeros(len(ids), np.uint64)
        _, ours, theirs = np.intersect1d(ids, rows["id"], assume_unique=True, return_indices=True)
        mtimes[ours], inodes[ours] = rows["mtime_ns"][theirs], rows["inode"][theirs]
        return mtimes, inodes


def _namer(ids: U32, exts: U8, table: tuple[str, ...]) -> Callable[[Rows], list[str]]:
    def names(rows: Rows) -> list[str]:
        pairs = zip(ids[rows].tolist(), exts[rows].tolist(), strict=True)
        return [f"{post_id}.{table[ext]}" for post_id, ext in pairs]

    return names


class PackShelf:
    """Packs at hand; the least recently used ones go when they take more than ``cache_bytes``."""

    def __init__(self, reader: PackReader, executor: Executor, cache_bytes: int) -> None:
        self._reader = reader
        self._executor = executor
        self._cache_bytes = cache_bytes
        self._packs: OrderedDict[_PackKey, Pack] = OrderedDict()
        self._coming: dict[_PackKey, asyncio.Future[Pack]] = {}
        self.held_bytes = 0
        self.hits = 0
        self.misses = 0

    def held(self, layer: ServedLayer, variant: str, bucket: int) -> Pack | None:
        """One bucket, if it is at hand; whoever uses it adds to ``hits``."""
        key = (layer.ref.name, variant, bucket)
        if (held := self._packs.get(key)) is not None:
            self._packs.move_to_end(key)
        return held

    async def pack(self, layer: ServedLayer, variant: str, bucket: int) -> Pack:
        """One bucket of a variant that the layer has; errors as :meth:`PackReader.read`.

        However many ask for it at once, it is read once.
        """
        if (held := self.held(layer, variant, bucket)) is not None:
            self.hits += 1
            return held
        self.misses += 1
        key = (layer.ref.name, variant, bucket)
        if (coming := self._coming.get(key)) is None:
            loop = asyncio.get_running_loop()
            coming = loop.run_in_executor(
                self._executor, self._reader.read, layer, variant, bucket
            )
            self._coming[key] = coming
            coming.add_done_callback(lambda done: self._keep(key, done))
        return await asyncio.shield(coming)

    def _keep(self, key: _PackKey, done: asyncio.Future[Pack]) -> None:
        del self._coming[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._packs[key] = done.result()
        self.held_bytes += done.result().held_bytes
        while self.held_bytes > self._cache_bytes and len(self._packs) > 1:
            _, oldest = self._packs.popitem(last=False)
            self.held_bytes -= oldest.held_bytes
