"""Files read as one run of bytes, end to end: a pack that lies nowhere but in its files.

Everything here blocks on the disk and belongs into a thread.  A file counts only while it is what
was published: regular, and of the expected size, mtime and inode.  Each is looked at *after* its
bytes were read, since whoever writes to a file moves its mtime before its bytes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import repeat
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from manifests.columns import I64, U64
from manifests.errors import StoreError
from server.hosting.ranges import ByteRange
from syncclient.tree import OPEN_FOLDER, OPEN_READ

# Bytes that one request holds in memory at a time, and about as many in its socket.
BATCH_BYTES: Final = 2**20
# From here on a file is sent by sendfile(2); for small ones that costs twice the time of reading
# them into a batch (51,000 files of 10 KB a second where 92,000 were read).
LARGE_BYTES: Final = 2**20
# Files looked at in one turn of a thread, so that a check of a whole pack lets others in.
CHECK_FILES: Final = 1000
# The end of a large file goes through a batch, so the file is looked at before they are sent: an
# answer in which it changed under way is cut off, and never complete.
HELD_BYTES: Final = 64 * 2**10
# How many files an error names; the count has no bound.
MAX_NAMED: Final = 100
# What opening or reading says where the name stands for nothing, or for no regular file.
_ABSENT: Final = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ENXIO,
    errno.EISDIR,
    errno.ESPIPE,
}
Rows = slice | npt.NDArray[np.intp]


class StaleFilesError(StoreError):
    """Published files are gone or were changed; ``names`` has the first of ``count``."""

    def __init__(self, folder: str, names: Sequence[str]) -> None:
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")  # noqa: PLR2004
        super().__init__(
            f"{folder}: {len(names)} published file(s) are gone or were changed: {shown}",
            hint="Publish again without --in-place, or restore them.",
        )
        self.count = len(names)
        self.names = tuple(names[:MAX_NAMED])


class Wanted(NamedTuple):
    """A file and what its stat must be; None where nothing is known of it."""

    name: str
    size_bytes: int
    mtime_ns: int | None
    inode: int | None


def is_met(wanted: Wanted, info: os.stat_result) -> bool:
    """Whether this is still the file that was published."""
    _, size_bytes, mtime_ns, inode = wanted
    return (
        info.st_size == size_bytes
        and (mtime_ns is None or info.st_mtime_ns == mtime_ns)
        and (inode is None or info.st_ino == inode)
        and stat.S_ISREG(info.st_mode)
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JoinedFiles:
    """n files of one folder, one after another, and what each must be when it is read.

    ``names`` gives the names of some rows · starts (n + 1,) byte where each begins, and the end of
    all · mtimes (n,) ns and inodes (n,), or None where they are not known.  Empty files are never
    opened.
    """

    folder: str
    names: Callable[[Rows], list[str]]
    starts: I64
    mtimes: I64 | None
    inodes: U64 | None

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return int(self.starts[-1])

    def only(self, row: int) -> JoinedFiles:
        """One of the files, alone."""
        rows = slice(row, row + 1)
        return JoinedFiles(
            folder=self.folder,
            names=one_name(self.names(rows)[0]),
            starts=self.starts[row : row + 2] - self.starts[row],
            mtimes=None if self.mtimes is None else self.mtimes[rows],
            inodes=None if self.inodes is None else self.inodes[rows],
        )

    def wanted(self, rows: Rows) -> list[Wanted]:
        """What some of the files must be."""
        columns = (
            self.names(rows),
            (self.starts[1:][rows] - self.starts[:-1][rows]).tolist(),
            repeat(None) if self.mtimes is None else self.mtimes[rows].tolist(),
            repeat(None) if self.inodes is None else self.inodes[rows].tolist(),
        )
        # Zipped columns are three times as fast as a call of Wanted for each.
        return list(map(Wanted._make, zip(*columns, strict=False)))

    def rows_of(self, wanted: ByteRange) -> tuple[int, int]:
        """The rows ``first:last`` that a range begins and ends in."""
        first = int(np.searchsorted(self.starts, wanted.start, "right")) - 1
        return first, int(np.searchsorted(self.starts, wanted.stop, "left"))

    def next_run(self, start: int, stop: int) -> tuple[int, int | None]:
        """Where to end a turn of sending that begins at ``start``; its row if the file is large.

        A turn is a piece of one large file without the last HELD_BYTES, or at most BATCH_BYTES of
        small ones.
        """
        row = int(np.searchsorted(self.starts, start, "right")) - 1
        end = min(int(self.starts[row + 1]), stop)
        if end - start >= LARGE_BYTES:
            return end - HELD_BYTES, row
        end = min(start + BATCH_BYTES, stop)
        last = int(np.searchsorted(self.starts, end, "left"))
        large = np.flatnonzero(np.diff(self.starts[row + 1 : last + 1]) >= LARGE_BYTES)
        if len(large):
            end = min(end, int(self.starts[row + 1 + large[0]]))
        return end, None


def one_name(name: str) -> Callable[[Rows], list[str]]:
    """The names of a single file that is called ``name``."""
    return lambda rows: np.array([name])[rows].tolist()


def touched_rows(files: JoinedFiles, ranges: Iterable[ByteRange]) -> npt.NDArray[np.intp]:
    """The files that some ranges take bytes of, each once, ascending; never an empty one."""
    touched = np.zeros(len(files.starts) - 1, np.bool_)
    for item in ranges:
        first, last = files.rows_of(item)
        touched[first:last] = True
    return np.flatnonzero(touched & (np.diff(files.starts) > 0))


def stale_names(files: JoinedFiles, rows: Rows) -> list[str]:
    """The names among some files that are not what was published."""
    wanted = files.wanted(rows)
    with _opened(files.folder, OPEN_FOLDER) as folder_fd:
        return [item.name for item in wanted if not _is_there(folder_fd, item)]


def require(files: JoinedFiles, row: int) -> None:
    """StaleFilesError unless one file is what was published."""
    stale = stale_names(files, slice(row, row + 1))
    if stale:
        raise StaleFilesError(files.folder, stale)


@contextmanager
def _opened(path: str, flags: int) -> Iterator[int | None]:
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


def _is_there(folder_fd: int | None, wanted: Wanted) -> bool:
    if folder_fd is None:
        return False
    try:
        info = os.stat(wanted.name, dir_fd=folder_fd, follow_symlinks=False)
    except OSError as error:
        raise_unless_absent(error)
        return False
    return is_met(wanted, info)


def fill(
    files: JoinedFiles, body: Sequence[bytes | ByteRange], buffer: bytearray | None = None
) -> memoryview:
    """Literal bytes and ranges, one after another; StaleFilesError names every stale file.

    They are read into ``buffer`` if they fit there.
    """
    size_bytes = sum(len(item) if isinstance(item, bytes) else item.size_bytes for item in body)
    if buffer is None or size_bytes > len(buffer):
        buffer = bytearray(size_bytes)
    view, position = memoryview(buffer)[:size_bytes], 0
    stale: list[str] = []
    with _opened(files.folder, OPEN_FOLDER) as folder_fd:
        for item in body:
            if isinstance(item, bytes):
                view[position : position + len(item)] = item
                position += len(item)
            else:
                part = view[position : position + item.size_bytes]
                stale += _fill_range(folder_fd, files, item, part)
                position += item.size_bytes
    if stale:
        raise StaleFilesError(files.folder, list(dict.fromkeys(stale)))
    return view


def _fill_range(
    folder_fd: int | None, files: JoinedFiles, item: ByteRange, view: memoryview
) -> list[str]:
    """Read a range of the joined files; the names of those that are stale."""
    first, last = files.rows_of(item)
    offset, position, stale = item.start - int(files.starts[first]), 0, []
    size_bytes = item.size_bytes
    for wanted in files.wanted(slice(first, last)):
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


# --------------------------------------------------------------------------- into a socket


def push_bytes(socket_fd: int, data: memoryview) -> memoryview:
    """Write to a non-blocking socket what it takes now; the rest."""
    while data:
        try:
            data = data[os.write(socket_fd, data) :]
        except BlockingIOError:
            break
    return data


def fill_and_push(
    socket_fd: int,
    files: JoinedFiles,
    body: Sequence[bytes | ByteRange],
    buffer: bytearray | None = None,
) -> memoryview:
    """Read a batch and write what the socket takes at once; the rest.

    Errors and ``buffer``, in which the rest may be, as for :func:`fill`.
    """
    return push_bytes(socket_fd, fill(files, body, buffer))


def push_large(socket_fd: int, files: JoinedFiles, row: int, offset: int, count: int) -> int:
    """Send ``count`` bytes of one file, never reading them; how many the socket took now.

    StaleFilesError if the file is not what was published.  sendfile(2) waits for the disk even
    where the socket does not block.
    """
    wanted = files.wanted(slice(row, row + 1))[0]
    with _opened(f"{files.folder}/{wanted.name}", OPEN_READ) as fd:
        if fd is None or not is_met(wanted, os.fstat(fd)):
            raise StaleFilesError(files.folder, [wanted.name])
        sent = 0
        with suppress(BlockingIOError):
            while step := os.sendfile(socket_fd, fd, offset + sent, count - sent):
                sent += step
    return sent
