"""Reading and linking files of a tree: scanning, hashing, making one file from another.

Shared by client and server (of the client, the server imports this, ``files``, ``metadata`` and
``output`` alone).  Nothing here follows a symbolic link or waits on a FIFO, and every function can
run in a worker process: arguments and results are plain values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field
from msgspec.structs import replace

from manifests.columns import I64, U32, U64, Bools, joined_codes
from syncclient.files import (
    OPEN_FOLDER,
    OPEN_READ,
    FileHash,
    FileStat,
    FolderColumns,
    FolderLook,
    copy_bytes,
    hash_open,
    look_at_folder,
    look_below,
    open_below,
    open_regular,
    printable,
    reflink,
    stat_of,
    write_all,
)

__all__ = [
    "OPEN_FOLDER",
    "OPEN_READ",
    "FileHash",
    "FileStat",
    "Listing",
    "copy_bytes",
    "hash_open",
    "list_bucket",
    "list_folder",
    "open_below",
    "open_regular",
    "printable",
    "reflink",
    "stat_of",
    "write_all",
]

# --------------------------------------------------------------------------- scanning


class Listing(Struct, frozen=True, kw_only=True, eq=False):
    """Bucket folders: columns of the files an entry could be, each sorted by (id, extension).

    ids (n,) u32 · exts (n,) u32 index into ``extensions`` · sizes (n,) u64 · mtimes (n,) i64 ns ·
    inodes (n,) u64.  ``others`` are all further names, with why: ``folder``, ``symlink``,
    ``special`` or ``name``.  ``folder_mtime_ns`` was read before the names; -1 if there is no such
    folder.
    """

    extensions: tuple[str, ...] = ()
    ids: U32 = field(default_factory=lambda: np.empty(0, np.uint32))
    exts: U32 = field(default_factory=lambda: np.empty(0, np.uint32))
    sizes: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    mtimes: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    inodes: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    others: tuple[tuple[str, str], ...] = ()
    folder_mtime_ns: int = -1

    def __len__(self) -> int:
        """Files an entry could be."""
        return len(self.ids)

    @classmethod
    def of(cls, look: FolderLook) -> Listing:
        """The columns of a look that brought them."""
        found = look.columns or FolderColumns()
        return cls(
            extensions=found.extensions,
            ids=np.frombuffer(found.ids, np.uint32),
            exts=np.frombuffer(found.exts, np.uint16).astype(np.uint32),
            sizes=np.frombuffer(found.sizes, np.uint64),
            mtimes=np.frombuffer(found.mtimes, np.int64),
            inodes=np.frombuffer(found.inodes, np.uint64),
            others=found.others,
            folder_mtime_ns=max(look.mtime_ns, -1),
        )

    @classmethod
    def joined(cls, parts: Sequence[Listing]) -> Listing:
        """The files of several folders, one after another, with one table of extensions."""
        extensions, exts = joined_codes([(part.extensions, part.exts) for part in parts])
        return cls(
            extensions=extensions,
            ids=np.concatenate([part.ids for part in parts]),
            exts=exts,
            sizes=np.concatenate([part.sizes for part in parts]),
            mtimes=np.concatenate([part.mtimes for part in parts]),
            inodes=np.concatenate([part.inodes for part in parts]),
        )

    def take(self, rows: npt.NDArray[np.intp] | Bools) -> Listing:
        """Some of the files."""
        return replace(
            self,
            ids=self.ids[rows],
            exts=self.exts[rows],
            sizes=self.sizes[rows],
            mtimes=self.mtimes[rows],
            inodes=self.inodes[rows],
        )

    def name(self, row: int) -> str:
        """The file name of one row."""
        return f"{self.ids[row]}.{self.extensions[self.exts[row]]}"

    def stat(self, row: int) -> FileStat:
        """Size, mtime and inode of one row."""
        return FileStat(int(self.sizes[row]), int(self.mtimes[row]), int(self.inodes[row]))

    def files(self) -> Iterator[tuple[str, FileStat]]:
        """Name and stat of each file."""
        return ((self.name(row), self.stat(row)) for row in range(len(self)))


def list_folder(fd: int) -> Listing:
    """Names and stats of the open folder ``fd``; nothing is opened, no link is followed."""
    return Listing.of(look_at_folder(fd))


def list_bucket(root: str, parts: tuple[str, ...]) -> Listing:
    """The listing of one bucket folder below ``root``; an empty one if it does not exist."""
    return Listing.of(look_below(root, parts))
