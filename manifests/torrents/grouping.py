"""Which entries go into which torrent, and how large its pieces are.

One torrent for millions of files cannot be: clients refuse metainfo of that size.  One for every
bucket would mean a swarm, and announces, for a few files each.  So a torrent holds a *run of
consecutive buckets* of one layer and variant: buckets are added until the next one would bring
more than ``MAX_FILES`` files or ``MAX_TORRENT_BYTES`` of metainfo.  A bucket that is too large
alone is cut by id into parts of about the same number of files.  A run without a byte gets no
torrent: there is nothing to fetch, and clients refuse an empty one.

Piece size, for the files of one layer and variant that are not empty: a third of the mean size,
at most 256 KiB; a sixteenth of the mean if that is more (from 4 MiB on); rounded down to a
power of two; from 16 KiB to 16 MiB; doubled until the largest file has at most 32,768 pieces.
Every file of a hybrid begins a piece, so a third costs half a piece a file, an eighth of the bytes
or so, and only clients of v1 that do not know padding ever transfer it
(docs/adr/0013-torrents-written-by-us.md).

All of this depends on the entries and the piece size alone, so any mirror cuts alike.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from msgspec import Struct

from manifests.columns import I64, U64, Entries
from manifests.errors import ConfigError
from manifests.paths import Layout
from manifests.torrents.pieces import piece_counts
from manifests.torrents.terms import (
    BLOCK_BYTES,
    MAX_METAINFO_BYTES,
    MAX_PIECE_BYTES,
    MIN_PIECE_BYTES,
    V1_BYTES,
    V2_BYTES,
    check_piece_bytes,
    run_label,
)

# libtorrent spends 500 bytes of memory a file, and a client wants to rotate torrents in and out.
MAX_FILES = 5_000
MAX_TORRENT_BYTES = 2_000_000
_OUTER_BYTES = 16_384
MAX_FILE_PIECES = 2**15

_MEDIUM_PIECE_BYTES = 256 * 2**10
_LARGEST_CHOSEN_BYTES = 16 * 2**20
_FEW_PIECES = 3
_MANY_PIECES = 16

# Bytes of bencoding beside names, numbers and hashes: an entry of `files`, the pad after it, an
# entry of `file tree`, its root; a bucket's folder; a piece layer; everything else of a torrent.
_V1_FILE_BYTES = len("d6:lengthie4:pathlee")
_PAD_BYTES = len("d4:attr1:p6:lengthie4:pathl4:.pad:ee")
_V2_FILE_BYTES = len("d0:d6:lengthieee")
_ROOT_BYTES = len("11:pieces root32:") + V2_BYTES
_FOLDER_BYTES = len("de")
_LONGEST_FOLDER_BYTES = len("9:123456789de")
_LAYER_BYTES = len("32::") + V2_BYTES
_FIXED_BYTES = 512
_POWERS_OF_TEN = 10 ** np.arange(1, 19, dtype=np.int64)


class Group(Struct, frozen=True, kw_only=True):
    """The entries of one torrent: rows ``start`` to ``stop`` of a layer's entries by (bucket, id).

    ``part`` counts from 1 the parts of a bucket that was cut by id; 0 for whole buckets.
    """

    start: int
    stop: int
    first_bucket: int
    last_bucket: int
    part: int = 0

    def label(self, layout: Layout) -> str:
        """What tells it from the other torrents of its layer and variant."""
        return run_label(layout, self.first_bucket, self.last_bucket, self.part)


class Padding(Struct, frozen=True, kw_only=True):
    """Zeros that a hybrid puts between files.

    ``total_bytes`` up to the next piece: what a v1 client without BEP 47 fetches and stores.
    ``block_bytes`` up to the next 16 KiB: what even libtorrent transfers of it.
    """

    total_bytes: int
    block_bytes: int


def padding(sizes: U64, piece_bytes: int) -> Padding:
    """What files of these sizes cost in padding."""
    signed = sizes.astype(np.int64)
    return Padding(
        total_bytes=int((-signed % piece_bytes).sum()),
        block_bytes=int((-signed % BLOCK_BYTES).sum()),
    )


class SizeSums(Struct, frozen=True, kw_only=True):
    """What the piece size depends on: files that are not empty, their bytes, the largest."""

    files: int = 0
    total_bytes: int = 0
    largest_bytes: int = 0

    @classmethod
    def of(cls, sizes: U64) -> SizeSums:
        """Of files of these sizes."""
        filled = sizes[sizes > 0]
        return cls(
            files=len(filled),
            total_bytes=int(filled.sum()),
            largest_bytes=int(filled.max()) if len(filled) else 0,
        )

    def __add__(self, other: SizeSums) -> SizeSums:
        """Of both."""
        return SizeSums(
            files=self.files + other.files,
            total_bytes=self.total_bytes + other.total_bytes,
            largest_bytes=max(self.largest_bytes, other.largest_bytes),
        )


def choose_piece_bytes(sizes: SizeSums, override_bytes: int | None = None) -> int:
    """The piece size for files of these sizes, by the rule of the module.

    ``override_bytes`` is what the user asked for: ConfigError unless it is a power of two from
    16 KiB to 32 MiB.
    """
    if override_bytes is not None:
        return check_piece_bytes(override_bytes)
    if not sizes.files:
        return MIN_PIECE_BYTES
    small = min(sizes.total_bytes // (_FEW_PIECES * sizes.files), _MEDIUM_PIECE_BYTES)
    large = sizes.total_bytes // (_MANY_PIECES * sizes.files)
    target = min(max(small, large), _LARGEST_CHOSEN_BYTES)
    chosen = max(1 << max(target.bit_length() - 1, 0), MIN_PIECE_BYTES)
    while -(-sizes.largest_bytes // chosen) > MAX_FILE_PIECES and chosen < MAX_PIECE_BYTES:
        chosen *= 2
    return chosen


def group_entries(
    entries: Entries, layout: Layout, piece_bytes: int, *, hybrid: bool = True
) -> list[Group]:
    """The torrents of the entries of one layer and variant, which are sorted by (bucket, id).

    ConfigError if ``piece_bytes``, which somebody chose, gives a file alone more metainfo than
    clients accept.
    """
    costs = _entry_costs(entries, layout, piece_bytes, hybrid=hybrid)
    _require_loadable(entries, costs, piece_bytes)
    bytes_before = np.append(0, np.cumsum(costs))
    groups = [
        Group(
            start=start,
            stop=stop,
            first_bucket=layout.bucket_of(int(entries.ids[start])),
            last_bucket=layout.bucket_of(int(entries.ids[stop - 1])),
            part=part,
        )
        for start, stop, part in _runs(_bucket_bounds(entries, layout), bytes_before)
    ]
    return [group for group in groups if entries.sizes[group.start : group.stop].any()]


def estimate_bytes(entries: Entries, layout: Layout, piece_bytes: int, *, hybrid: bool) -> int:
    """An upper bound of the .torrent of these entries, 16 KiB for trackers and such included.

    It errs by those, by a few hundred bytes, and by the layers of files with the same contents.
    """
    return int(_entry_costs(entries, layout, piece_bytes, hybrid=hybrid).sum()) + _own_bytes()


def _own_bytes() -> int:
    return _FIXED_BYTES + _OUTER_BYTES


def _require_loadable(entries: Entries, costs: I64, piece_bytes: int) -> None:
    if not len(costs) or int(costs.max()) <= MAX_METAINFO_BYTES - _own_bytes():
        return
    row = int(costs.argmax())
    raise ConfigError(
        f"pieces of {piece_bytes} bytes: file {entries.names()[row]} of {entries.sizes[row]} bytes"
        f" needs a .torrent of {costs[row]} bytes, and clients accept {MAX_METAINFO_BYTES}",
        hint="Choose a larger --piece-size, or leave the choice to publish.",
    )


def _bucket_bounds(entries: Entries, layout: Layout) -> I64:
    """Where each bucket that has entries begins, and the end."""
    buckets = entries.ids % np.uint32(layout.buckets)
    edges = np.ones(len(entries) + 1, np.bool_)
    np.not_equal(buckets[1:], buckets[:-1], out=edges[1:-1])
    return np.flatnonzero(edges).astype(np.int64)


def _runs(bounds: I64, bytes_before: I64) -> Iterator[tuple[int, int, int]]:
    """``(start, stop, part)`` of each torrent."""
    at = 0
    while bounds[at] < bounds[-1]:
        end = at + _fitting(bounds[at:], bytes_before, MAX_FILES)
        if end > at:
            yield int(bounds[at]), int(bounds[end]), 0
        else:
            end = at + 1
            yield from _cut(np.arange(bounds[at], bounds[end] + 1), bytes_before)
        at = end


def _cut(stops: I64, bytes_before: I64) -> Iterator[tuple[int, int, int]]:
    """The parts of a bucket that is too large: as few as will do, then evened out."""
    fewest = len(list(_filled(stops, bytes_before, MAX_FILES)))
    even = -(-(len(stops) - 1) // fewest)
    for part, (start, stop) in enumerate(_filled(stops, bytes_before, even), 1):
        yield start, stop, part if fewest > 1 else 0


def _filled(stops: I64, bytes_before: I64, max_files: int) -> Iterator[tuple[int, int]]:
    """Parts as full as can be; one file is a part whatever it costs."""
    at = 0
    while at < len(stops) - 1:
        end = at + max(_fitting(stops[at:], bytes_before, max_files), 1)
        yield int(stops[at]), int(stops[end])
        at = end


def _fitting(stops: I64, bytes_before: I64, max_files: int) -> int:
    """How many of the steps between ``stops`` one torrent can take that begins at the first."""
    start = int(stops[0])
    # Every part of a bucket has its folder, which is counted with the first entry alone.
    room = MAX_TORRENT_BYTES - _own_bytes() - _LONGEST_FOLDER_BYTES
    limit = int(bytes_before[start]) + room
    by_bytes = int(np.searchsorted(bytes_before, limit, side="right")) - 1
    return int(np.searchsorted(stops, min(start + max_files, by_bytes), side="right")) - 1


def _entry_costs(entries: Entries, layout: Layout, piece_bytes: int, *, hybrid: bool) -> I64:
    """Bytes of metainfo that each entry brings; the first of a bucket brings its folder too."""
    sizes = entries.sizes.astype(np.int64)
    pieces = piece_counts(entries.sizes, piece_bytes)
    suffixes = np.array([len(extension) for extension in entries.extensions], np.int64)
    name = _text_bytes(_digits(entries.ids.astype(np.int64)) + 1 + suffixes[entries.exts])
    folder = _text_bytes(np.int64(layout.digits))
    costs = _V2_FILE_BYTES + _digits(sizes) + name + np.where(sizes > 0, _ROOT_BYTES, 0)
    layer = pieces * V2_BYTES
    costs += np.where(pieces > 1, _LAYER_BYTES + _digits(layer) + layer, 0)
    if hybrid:
        costs += _V1_FILE_BYTES + _digits(sizes) + folder + name + pieces * V1_BYTES
        pads = -sizes % piece_bytes
        digits = _digits(pads)
        costs += np.where(pads > 0, _PAD_BYTES + 2 * digits + _digits(digits), 0)
    costs[_bucket_bounds(entries, layout)[:-1]] += _FOLDER_BYTES + folder
    return costs


def _digits(numbers: I64) -> I64:
    """Decimal digits of each number."""
    return np.searchsorted(_POWERS_OF_TEN, numbers, side="right") + 1


def _text_bytes(lengths: I64 | np.int64) -> I64:
    """Bytes of strings of these lengths, bencoded."""
    return np.asarray(_digits(np.asarray(lengths)) + 1 + lengths, np.int64)
