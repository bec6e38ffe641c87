"""Runs of files read one after another into a buffer, each looked at: in a thread or a process.

A file counts only while it is what was published: regular, and of the expected size, mtime and
inode.  Each is looked at *after* its bytes were read, since whoever writes to a file moves its
mtime before its bytes.  Processes that only read import this, so it imports next to nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import Final, NamedTuple

from syncclient.files import OPEN_FOLDER, OPEN_READ

# What opening or reading says where the name stands for nothing, or for no regular file.
_ABSENT: Final = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ENXIO,
    errno.EISDIR,
    errno.ESPIPE,
}


class Wanted(NamedTuple):
    """A file and what its stat must be; None where nothing is known of it."""

    name: str
    size_bytes: int
    mtime_ns: int | None
    inode: int | None


class Run(NamedTuple):
    """``size_bytes`` of n files of a folder, end to end, from ``offset`` in the first on.

    ``names`` have a NUL between them.  Native numbers: sizes (n,) i64 · mtimes (n,) i64 ns and
    inodes (n,) u64, or nothing where they are not known.
    """

    names: str
    sizes: bytes
    mtimes: bytes
    inodes: bytes
    offset: int
    size_bytes: int

    def wanted(self) -> Iterator[Wanted]:
        """The files."""
        mtimes = array("q", self.mtimes) if self.mtimes else repeat(None)
        inodes = array("Q", self.inodes) if self.inodes else repeat(None)
        rows = zip(self.names.split("\0"), array("q", self.sizes), mtimes, inodes, strict=False)
        # Zipped columns are three times as fast as a call of Wanted for each.
        return map(Wanted._make, rows)


def is_met(wanted: Wanted, info: os.stat_result) -> bool:
    """Whether this is still the file that was published."""
    _, size_bytes, mtime_ns, inode = wanted
    return (
        info.st_size == size_bytes
        and (mtime_ns is None or info.st_mtime_ns == mtime_ns)
        and (inode is None or info.st_ino == inode)
        and stat.S_ISREG(info.st_mode)
    )


@contextmanager
def opened(path: str, flags: int) -> Iterator[int | None]:
    """A descriptor of a folder or file; None if there is none."""
    fd = None
    try:
        fd = os.open(path, flags)
    except OSError as error:
        raise_unless_absent(error)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def raise_unless_absent(error: OSError) -> None:
    """Pass on what the disk or the system cannot do; that a file is missing is an answer."""
    if error.errno not in _ABSENT:
        raise error


def read_runs(folder: str, body: Sequence[bytes | Run], view: memoryview) -> list[str]:
    """Literal bytes and runs, one after another, into ``view``; names of files that are stale."""
    position, stale = 0, list[str]()
    with opened(folder, OPEN_FOLDER) as folder_fd:
        for item in body:
            if isinstance(item, bytes):
                view[position : position + len(item)] = item
                position += len(item)
            else:
                part = view[position : position + item.size_bytes]
                stale += _read_run(folder_fd, item, part)
                position += item.size_bytes
    return list(dict.fromkeys(stale))


def _read_run(folder_fd: int | None, run: Run, view: memoryview) -> list[str]:
    offset, position, stale = run.offset, 0, list[str]()
    size_bytes = run.size_bytes
    for wanted in run.wanted():
        upto = min(position + wanted.size_bytes - offset, size_bytes)
        if upto > position and not _read(folder_fd, wanted, offset, view[position:upto]):
            stale.append(wanted.name)
        offset, position = 0, upto
    return stale


def _read(folder_fd: int | None, wanted: Wanted, offset: int, view: memoryview) -> bool:
    """Fill ``view`` from a file; False unless the file then still was what was published."""
    if folder_fd is None:
        return False
    fd = -1
    try:
        fd = os.open(wanted.name, OPEN_READ, dir_fd=folder_fd)
        count = os.preadv(fd, (view,), offset)
        while 0 < count < len(view):
            view, offset = view[count:], offset + count
            count = os.preadv(fd, (view,), offset)
        return count == len(view) and is_met(wanted, os.fstat(fd))
    except OSError as error:
        raise_unless_absent(error)
        return False
    finally:
        if fd >= 0:
            os.close(fd)
