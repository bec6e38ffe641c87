"""What publish saw in one bucket of the tree, in columns; kept so that nothing is hashed twice.

A row holds for a file while its size, mtime and inode are the same *and* its mtime was clearly
older than the look: a file written in the same tick of the clock as it was read may have changed
afterwards without its mtime telling (git's racy rule).  Clocks tick in milliseconds on Linux
file systems, in up to two seconds on FAT and HFS+, where every mtime is a whole second.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping, Sequence
from stat import S_ISREG
from typing import Final, NamedTuple

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from manifests.columns import I64, MAX_EXTENSIONS, U8, U32, U64, Bools, Entries
from manifests.digest import DIGEST_BYTES
from manifests.errors import ManifestError
from manifests.layers import Rows
from server.publishing.memory import pack_columns, unpack_columns
from syncclient.tree import Listing

# Raise it when rows written before must not be believed any more, such as when
# server.audit.content learns to see more in a file.
_VERSION: Final = 1
_TICK_NS: Final = 20 * 10**6
_COARSE_TICK_NS: Final = 2 * 10**9
_SECOND_NS: Final = 10**9
_COLUMNS: Final = (
    "ids",
    "exts",
    "sizes",
    "mtimes",
    "inodes",
    "digests",
    "chunks",
    "kinds",
    "problems",
    "widths",
    "heights",
)


def is_racy(mtimes: I64, at_ns: int) -> Bools:
    """Which files could have been written again, unnoticed, after they were looked at."""
    ticks = np.where(mtimes % _SECOND_NS == 0, _COARSE_TICK_NS, _TICK_NS)
    return np.asarray(mtimes >= at_ns - ticks)


def find_recorded(
    folder_fd: int, names: Sequence[str], sizes: U64, mtimes: I64, inodes: U64
) -> frozenset[int] | None:
    """The devices that these files of an open folder lie on.

    None unless each is a regular file with its size, mtime and inode.
    """
    try:
        found = [os.lstat(name, dir_fd=folder_fd) for name in names]
    except FileNotFoundError:
        return None
    are_as_recorded = (
        all(map(S_ISREG, {info.st_mode for info in found}))
        and array("Q", [info.st_size for info in found]).tobytes() == sizes.tobytes()
        and array("q", [info.st_mtime_ns for info in found]).tobytes() == mtimes.tobytes()
        and array("Q", [info.st_ino for info in found]).tobytes() == inodes.tobytes()
    )
    return frozenset(info.st_dev for info in found) if are_as_recorded else None


class Look(Struct, frozen=True, kw_only=True, eq=False):
    """n files of a bucket by ascending id, looked at from ``at_ns`` (Unix time) on.

    ids (n,) · exts (n,) into ``extensions`` · sizes (n,) bytes · mtimes (n,) ns · inodes (n,) ·
    digests (n, 32) · chunks (m, 32) as in Entries · kinds, problems, widths, heights (n,) as in
    :class:`server.audit.content.Content`.
    """

    at_ns: int
    extensions: tuple[str, ...]
    ids: U32
    exts: U8
    sizes: U64
    mtimes: I64
    inodes: U64
    digests: U8
    chunks: U8
    kinds: U8
    problems: U8
    widths: U32
    heights: U32

    def __len__(self) -> int:
        """Files."""
        return len(self.ids)

    @classmethod
    def of(cls, listing: Listing, at_ns: int) -> Look:
        """A look at files that were listed and of which nothing was read yet; ids are unique.

        ManifestError if they have more extensions than one variant can.
        """
        count = len(listing)
        if len(listing.extensions) > MAX_EXTENSIONS:
            raise ManifestError("extensions", f"more than {MAX_EXTENSIONS} in one variant")
        return cls(
            at_ns=at_ns,
            extensions=listing.extensions,
            ids=listing.ids,
            exts=listing.exts.astype(np.uint8),
            sizes=listing.sizes.copy(),
            mtimes=listing.mtimes.copy(),
            inodes=listing.inodes.copy(),
            digests=np.zeros((count, DIGEST_BYTES), np.uint8),
            chunks=np.zeros((0, DIGEST_BYTES), np.uint8),
            kinds=np.zeros(count, np.uint8),
            problems=np.zeros(count, np.uint8),
            widths=np.zeros(count, np.uint32),
            heights=np.zeros(count, np.uint32),
        )

    def names(self) -> list[str]:
        """The file name of each row."""
        table = self.extensions
        pairs = zip(self.ids.tolist(), self.exts.tolist(), strict=True)
        return [f"{post_id}.{table[ext]}" for post_id, ext in pairs]

    def entries(self) -> Entries:
        """The rows as entries of a layer; offsets and layers are zero."""
        return Entries(
            extensions=self.extensions,
            ids=self.ids,
            sizes=self.sizes,
            exts=self.exts,
            digests=self.digests,
            offsets=np.zeros(len(self), np.uint64),
            layers=np.zeros(len(self), np.uint16),
            chunks=self.chunks,
        )

    def holding(self, listing: Listing) -> tuple[Rows, Rows]:
        """Rows of this look that still hold, and the rows of ``listing`` that they hold for."""
        _, old, new = np.intersect1d(
            self.ids, listing.ids, assume_unique=True, return_indices=True
        )
        table = {name: code for code, name in enumerate(listing.extensions)}
        codes = np.array([table.get(name, -1) for name in self.extensions] or [-1], np.int64)
        same = (
            (codes[self.exts[old]] == listing.exts[new])
            & (self.sizes[old] == listing.sizes[new])
            & (self.mtimes[old] == listing.mtimes[new])
            & (self.inodes[old] == listing.inodes[new])
            & ~is_racy(self.mtimes, self.at_ns)[old]
        )
        return old[same], new[same]

    def find_all(self, folder_fd: int) -> Found | None:
        """These files as they lie in an open folder.

        None unless it has just them, and none can have changed unnoticed.
        """
        if is_racy(self.mtimes, self.at_ns).any():
            return None
        # So many names, of which each one that is looked for is there: these and no others.
        if len(os.listdir(folder_fd)) != len(self):
            return None
        names = self.names()
        devices = find_recorded(folder_fd, names, self.sizes, self.mtimes, self.inodes)
        return None if devices is None else Found(self, names, devices)

    def take_over(self, older: Look, old: Rows, new: Rows) -> dict[int, bytes]:
        """Write into our rows ``new`` what ``older`` knows of its rows ``old``.

        Columns are changed in place; the chunk digests come back by row of ours.
        """
        self.digests[new] = older.digests[old]
        self.kinds[new] = older.kinds[old]
        self.problems[new] = older.problems[old]
        self.widths[new] = older.widths[old]
        self.heights[new] = older.heights[old]
        if not len(older.chunks):
            return {}
        starts = older.entries().chunk_starts()
        return {
            row: older.chunks[starts[source] : starts[source + 1]].tobytes()
            for source, row in zip(old.tolist(), new.tolist(), strict=True)
        }

    def with_chunks(self, by_row: Mapping[int, bytes]) -> Look:
        """The look with the chunk digests of its rows; those that have none may be missing."""
        joined = b"".join([by_row[row] for row in sorted(by_row)])
        return replace(self, chunks=np.frombuffer(joined, np.uint8).reshape(-1, DIGEST_BYTES))

    def encode(self) -> bytes:
        """Bytes for the record of the publisher."""
        head = {"version": _VERSION, "at_ns": self.at_ns, "extensions": self.extensions}
        return pack_columns(head, {name: getattr(self, name) for name in _COLUMNS})

    @classmethod
    def decode(cls, data: bytes | None) -> Look | None:
        """Read them back; None if there is nothing, or nothing that may be believed."""
        if data is None:
            return None
        head, columns = unpack_columns(data)
        if head["version"] != _VERSION:
            return None
        return cls(at_ns=head["at_ns"], extensions=tuple(head["extensions"]), **columns)


class Found(NamedTuple):
    """Files of a look, all found just now as they were: their names, and on which devices."""

    look: Look
    names: Sequence[str]
    devices: frozenset[int]
