"""Entries as columns: five million of them are nine numpy arrays, never five million objects.

Rows are sorted by (bucket, id).  ``offsets`` say where a file starts in the pack of its layer,
variant and bucket; ``layers`` say which layer of a composed release put it there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from manifests import digest
from manifests.digest import DIGEST_BYTES
from manifests.errors import ManifestError

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

N = TypeVar("N", bound=np.generic)

CHUNK_BYTES = digest.CHUNK_BYTES
# Codes of extensions are single bytes.
MAX_EXTENSIONS = 255


def chunk_counts(sizes: U64) -> I64:
    """How many chunk digests a file of each size has: none up to CHUNK_BYTES, else one a chunk."""
    counts = -(-sizes.astype(np.int64) // CHUNK_BYTES)
    counts[sizes <= CHUNK_BYTES] = 0
    return counts


def ragged_index(starts: I64, counts: I64) -> I64:
    """Indices of the rows ``starts[i] : starts[i] + counts[i]``, one after another."""
    total = int(counts.sum())
    ends = np.cumsum(counts)
    within = np.repeat(starts - (ends - counts), counts)
    return np.asarray(np.arange(total, dtype=np.int64) + within, np.int64)


def distinct(values: npt.NDArray[N]) -> npt.NDArray[N]:
    """Each value once, ascending.  What numpy has loads ``numpy.ma``, 20 ms of a start."""
    ordered = np.sort(values, axis=None)
    first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


def among(values: npt.NDArray[N], ordered: npt.NDArray[N]) -> Bools:
    """Which of ``values`` are among others, which ascend.  Not ``isin`` for the same reason."""
    if not len(ordered):
        return np.zeros(len(values), np.bool_)
    places = np.searchsorted(ordered, values)
    places[places == len(ordered)] = 0
    same: Bools = ordered[places] == values
    return same


class Entries(Struct, frozen=True, kw_only=True, eq=False):
    """Entries of one variant: n rows, m chunk digests.

    ids (n,) u32 · sizes (n,) u64 bytes · exts (n,) u8 index into ``extensions`` · digests (n, 32)
    u8 · offsets (n,) u64 bytes into the pack · layers (n,) u16 · chunks (m, 32) u8, in row order.
    """

    extensions: tuple[str, ...]
    ids: U32
    sizes: U64
    exts: U8
    digests: U8
    offsets: U64
    layers: U16
    chunks: U8

    def __len__(self) -> int:
        """Rows."""
        return len(self.ids)

    @property
    def file_bytes(self) -> int:
        """Sum of the sizes."""
        return int(self.sizes.sum())

    def extension(self, row: int) -> str:
        """The extension of one row, without the dot."""
        return self.extensions[int(self.exts[row])]

    def names(self) -> list[str]:
        """The file name of each row, such as ``1999.png``."""
        table = self.extensions
        pairs = zip(self.ids.tolist(), self.exts.tolist(), strict=True)
        return [f"{post_id}.{table[ext]}" for post_id, ext in pairs]

    def chunk_starts(self) -> I64:
        """(n + 1,) where the chunk digests of each row begin in ``chunks``."""
        starts = np.zeros(len(self) + 1, np.int64)
        np.cumsum(chunk_counts(self.sizes), out=starts[1:])
        return starts

    def take(self, index: npt.NDArray[np.intp] | Bools | slice) -> Entries:
        """The rows that ``index`` names, in its order, with their chunk digests."""
        if not len(self.chunks):
            chunks = self.chunks
        else:
            counts, starts = chunk_counts(self.sizes)[index], self.chunk_starts()[:-1][index]
            chunks = self.chunks[ragged_index(starts, counts)]
        return Entries(
            extensions=self.extensions,
            ids=self.ids[index],
            sizes=self.sizes[index],
            exts=self.exts[index],
            digests=self.digests[index],
            offsets=self.offsets[index],
            layers=self.layers[index],
            chunks=chunks,
        )


def empty(extensions: tuple[str, ...] = ()) -> Entries:
    """No rows."""
    return Entries(
        extensions=extensions,
        ids=np.empty(0, np.uint32),
        sizes=np.empty(0, np.uint64),
        exts=np.empty(0, np.uint8),
        digests=np.empty((0, DIGEST_BYTES), np.uint8),
        offsets=np.empty(0, np.uint64),
        layers=np.empty(0, np.uint16),
        chunks=np.empty((0, DIGEST_BYTES), np.uint8),
    )


def joined_codes(
    parts: Sequence[tuple[tuple[str, ...], npt.NDArray[np.unsignedinteger[Any]]]],
) -> tuple[tuple[str, ...], U32]:
    """Columns of codes one after another, and one table of names in place of each one's own."""
    names = dict.fromkeys(name for table, _ in parts for name in table)
    numbers = {name: code for code, name in enumerate(names)}
    recoded = [np.array([numbers[name] for name in table], np.uint32)[own] for table, own in parts]
    return tuple(names), np.concatenate(recoded)


def _union(tables: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Every extension once, in order of first appearance."""
    union = tuple(dict.fromkeys(name for table in tables for name in table))
    if len(union) > MAX_EXTENSIONS:
        raise ManifestError("extensions", f"more than {MAX_EXTENSIONS} in one variant")
    return union


def _recode(part: Entries, table: tuple[str, ...]) -> U8:
    if part.extensions == table[: len(part.extensions)]:
        return part.exts
    codes = np.array([table.index(name) for name in part.extensions], np.uint8)
    return codes[part.exts]


def concat(parts: Sequence[Entries]) -> Entries:
    """The rows of all parts, one after another, with one table of extensions.

    ManifestError if the parts have more than MAX_EXTENSIONS extensions between them.
    """
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return empty()
    table = _union(part.extensions for part in parts)
    return Entries(
        extensions=table,
        ids=np.concatenate([p.ids for p in parts]),
        sizes=np.concatenate([p.sizes for p in parts]),
        exts=np.concatenate([_recode(p, table) for p in parts]),
        digests=np.concatenate([p.digests for p in parts]),
        offsets=np.concatenate([p.offsets for p in parts]),
        layers=np.concatenate([p.layers for p in parts]),
        chunks=np.concatenate([p.chunks for p in parts]),
    )
