"""Files of a layer, made from those of the tree, and which of them a killed publish left behind.

A worker makes the files of one bucket in a *stage*, a folder of its run under ``files/.tmp``; the
publisher moves a finished stage to ``files/LAYER/VARIANT/BUCKET`` in one rename.  So a bucket of a
layer is whole or absent, and a worker that outlives a killed run can write into nothing that
counts.

How a file is made, best first (docs/adr/0003): a *reflink* shares the tree's extents until either
side is written to; a *hard link* is the tree's own inode, so an overwrite in place reaches it,
and it is made only on request; a *copy* is always right.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from manifests.columns import CHUNK_BYTES, I64, U8, U32, U64, Entries, empty
from manifests.errors import StoreError
from manifests.layers import match, same_file
from server.publishing.memory import pack_columns, unpack_columns
from syncclient.tree import FileStat, Listing, copy_bytes, list_folder, reflink, write_all

# Read-only for everybody, less what the umask takes away.
_MODE: Final = 0o444
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_COLUMNS: Final = ("ids", "exts", "digests", "sizes", "mtimes", "inodes", "methods")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


ROOM_HINT: Final = (
    "Free some space; or publish with --link hard (no second copy, but files of the tree must "
    "then never be overwritten in place), or with --in-place (old releases lose what is "
    "overwritten)."
)


def disk_error(place: str, error: OSError) -> StoreError:
    """What to tell about an error of the system at a file or folder."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return StoreError(f"{place}: {error.strerror or error}", hint=ROOM_HINT if full else "")


class Method(IntEnum):
    """How a file of a layer came from the tree; the number is stored in columns."""

    REFLINK = 0
    HARD = 1
    COPY = 2


class Placed(NamedTuple):
    """One file in a stage: how it was made, and the mtime (ns) and inode it has."""

    method: Method
    mtime_ns: int
    inode: int


class Target(Struct, frozen=True, kw_only=True):
    """Where the files of a layer go: ``files/LAYER``, the stages of this run, and how.

    ``methods`` are those to try, best first; COPY is always the last.
    """

    layer: str
    stages: str
    date_ns: int
    methods: tuple[Method, ...]

    def folder(self, variant: str, bucket: str) -> str:
        """The final folder of a bucket."""
        return os.path.join(self.layer, variant, bucket)  # noqa: PTH118 (as fast as can be)

    def stage(self, variant: str, bucket: str) -> str:
        """The folder in which a worker makes a bucket."""
        return os.path.join(self.stages, variant, bucket)  # noqa: PTH118


class Stage:
    """The stage of one bucket; its folder appears with the first file that is put into it."""

    def __init__(self, target: Target, variant: str, bucket: str) -> None:
        self.path = Path(target.stage(variant, bucket))
        self._old = target.folder(variant, bucket)
        self._times = (target.date_ns, target.date_ns)
        self._fd = -1
        self.reflinks = Method.REFLINK in target.methods
        self.links_hard = Method.HARD in target.methods

    @property
    def is_used(self) -> bool:
        """Whether anything was put into it."""
        return self._fd >= 0

    def close(self) -> None:
        """Let go of the folder."""
        if self._fd >= 0:
            os.close(self._fd)

    @property
    def folder_fd(self) -> int:
        """The folder, made now if it is not there yet."""
        if self._fd < 0:
            # A worker before us may have been killed by the system half-way through this bucket.
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir(parents=True)
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._fd

    def opens_first(self, size_bytes: int) -> bool:
        """Whether a file must be open here before it is read: for a reflink, or a large copy."""
        return self.reflinks or (size_bytes > CHUNK_BYTES and not self.links_hard)

    def create(self, name: str) -> int:
        """A new, empty file, open for reading and writing."""
        return os.open(name, _CREATE, _MODE, dir_fd=self.folder_fd)

    def drop(self, name: str) -> None:
        """Take a file away again."""
        os.unlink(name, dir_fd=self.folder_fd)

    def finish(self, fd: int, method: Method) -> Placed:
        """Give a file whose bytes are all written the date of its layer."""
        os.utime(fd, ns=self._times)
        return Placed(method, self._times[0], os.fstat(fd).st_ino)

    def link_hard(self, name: str, source_folder_fd: int) -> Placed | None:
        """Link a file of the tree; None where that cannot be (another disk, too many links)."""
        target = self.folder_fd
        try:
            os.link(
                name, name, src_dir_fd=source_folder_fd, dst_dir_fd=target, follow_symlinks=False
            )
        except FileNotFoundError:
            raise
        except OSError:
            return None
        info = os.stat(name, dir_fd=target, follow_symlinks=False)
        return Placed(Method.HARD, info.st_mtime_ns, info.st_ino)

    def fill(self, name: str, fd: int, size_bytes: int) -> Placed:
        """Make a file from an open one of the tree without reading it here: reflink, else copy."""
        out = self.create(name)
        try:
            shared = self.reflinks and reflink(fd, out)
            if not shared:
                copy_bytes(fd, out, size_bytes)
            return self.finish(out, Method.REFLINK if shared else Method.COPY)
        finally:
            os.close(out)

    def write(self, name: str, data: bytes) -> Placed:
        """Make a file of bytes in memory."""
        out = os.open(name, _CREATE, _MODE, dir_fd=self.folder_fd)
        try:
            write_all(out, data)
            os.utime(out, ns=self._times)
            return Placed(Method.COPY, self._times[0], os.fstat(out).st_ino)
        finally:
            os.close(out)

    def reuse(self, name: str, placed: Placed) -> Placed:
        """Take over a file that an earlier run put into the final folder of this bucket."""
        path = os.path.join(self._old, name)  # noqa: PTH118
        os.link(path, name, dst_dir_fd=self.folder_fd, follow_symlinks=False)
        if placed.method is Method.HARD:
            return placed
        os.utime(name, ns=self._times, dir_fd=self.folder_fd)
        return placed._replace(mtime_ns=self._times[0])


class Links(Struct, frozen=True, kw_only=True, eq=False):
    """n files of one bucket of a layer by ascending id: what they hold and how they look.

    ``boot`` names the run of the machine in which they were written: what was not synced to disk
    when it crashed proves nothing afterwards.
    """

    boot: str
    extensions: tuple[str, ...]
    ids: U32
    exts: U8
    digests: U8
    sizes: U64
    mtimes: I64
    inodes: U64
    methods: U8

    def __len__(self) -> int:
        """Files."""
        return len(self.ids)

    def encode(self) -> bytes:
        """Bytes for the record of the publisher."""
        head = {"boot": self.boot, "extensions": self.extensions}
        return pack_columns(head, {name: getattr(self, name) for name in _COLUMNS})

    @classmethod
    def decode(cls, data: bytes | None) -> Links | None:
        """Read them back; None if there is nothing, or nothing from this run of the machine."""
        if data is None:
            return None
        head, columns = unpack_columns(data)
        if not head["boot"] or head["boot"] != boot_id():
            return None
        return cls(boot=head["boot"], extensions=tuple(head["extensions"]), **columns)

    def found(self, target: Target, listing: Listing, wanted: Entries) -> dict[int, Placed]:
        """Rows of ``wanted`` that lie in the final folder, ``listing``, and hold its bytes.

        What was made by a method that ``target`` does not allow does not count.
        """
        mine, rows = match(self.ids, wanted.ids)
        same = same_file(self._entries(), mine, wanted, rows)
        stats = zip(listing.sizes, listing.mtimes, listing.inodes, strict=True)
        seen = {listing.name(row): FileStat(*map(int, stat)) for row, stat in enumerate(stats)}
        found = {}
        for own, row in zip(mine[same].tolist(), rows[same].tolist(), strict=True):
            method, mtime_ns, inode = (
                int(column[own]) for column in (self.methods, self.mtimes, self.inodes)
            )
            name = f"{self.ids[own]}.{self.extensions[self.exts[own]]}"
            stat = FileStat(int(self.sizes[own]), mtime_ns, inode)
            if method in target.methods and seen.get(name) == stat:
                found[row] = Placed(Method(method), mtime_ns, inode)
        return found

    def _entries(self) -> Entries:
        return replace(
            empty(self.extensions),
            ids=self.ids,
            exts=self.exts,
            sizes=self.sizes,
            digests=self.digests,
        )


def list_placed(target: Target, variant: str, bucket: str) -> Listing:
    """What lies in the final folder of a bucket; empty if there is none."""
    try:
        fd = os.open(target.folder(variant, bucket), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Listing()
    try:
        return list_folder(fd)
    finally:
        os.close(fd)


def boot_id() -> str:
    """Names the present run of the machine; empty where the system does not tell."""
    with suppress(OSError):
        return _BOOT_ID.read_text().strip()
    return ""
