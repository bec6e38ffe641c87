"""Files read as one run of bytes, end to end: a pack that lies nowhere but in its files.

Everything here blocks on the disk and belongs into a thread.  A file counts only while it is what
was published: regular, and of the expected size, mtime and inode.  Each is looked at *after* its
bytes were read, since whoever writes to a file moves its mtime before its bytes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from manifests.columns import I64, U64
from manifests.errors import StoreError
from server.ranges import ByteRange
from syncclient.tree import OPEN_FOLDER, OPEN_READ, FileStat, open_regular, stat_of

# Bytes that one request holds in memory at a time, and about as many in its socket.
BATCH_BYTES: Final = 2**20
# From here on a file is sent by sendfile(2); below, reading it into a batch is cheaper.
LARGE_BYTES: Final = 2**20
# A document up to here is read when it is opened, and so is one version even if it is replaced.
SMALL_BYTES: Final = 256 * 2**10
# Files looked at in one turn of a thread, so that a check of a whole pack lets others in.
CHECK_FILES: Final = 1000
# The end of a large file goes through a batch, which is looked at before it is sent: so an answer in
# which a file changed under way is cut off, and never complete.
HELD_BYTES: Final = 64 * 2**10
# How many files an error names; the count has no bound.
MAX_NAMED: Final = 100
# What opening or reading says when the name stands for nothing, or for no regular file.
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
    """Files that were published are gone or were changed since; ``names`` has the first of them."""

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
        """Where to stop a turn of sending that begins at ``start``, and in which large file it lies.

        A turn is a piece of one large file (then its row is given), without its last HELD_BYTES, or
        at most BATCH_BYTES of small ones.
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
    try:
        folder_fd = os.open(files.folder, OPEN_FOLDER)
    except OSError as error:
        _raise_unless_absent(error)
        return [item.name for item in wanted]
    try:
        return [item.name for item in wanted if not _is_there(item, folder_fd)]
    finally:
        os.close(folder_fd)


def _is_there(wanted: Wanted, folder_fd: int) -> bool:
    try:
        info = os.stat(wanted.name, dir_fd=folder_fd, follow_symlinks=False)
    except OSError as error:
        _raise_unless_absent(error)
        return False
    return is_met(wanted, info)


def _raise_unless_absent(error: OSError) -> None:
    """Pass on what the disk or the system cannot do; that a file is missing is an answer."""
    if error.errno not in _ABSENT:
        raise error


def fill(files: JoinedFiles, body: Sequence[bytes | ByteRange]) -> memoryview:
    """Literal bytes and ranges, one after another; StaleFilesError names every file that failed."""
    size_bytes = sum(len(item) if isinstance(item, bytes) else item.size_bytes for item in body)
    view, position = memoryview(bytearray(size_bytes)), 0
    with _Reader(files.folder) as reader:
        for item in body:
            if isinstance(item, bytes):
                view[position : position + len(item)] = item
                position += len(item)
            else:
                _fill_range(reader, files, item, view[position : position + item.size_bytes])
                position += item.size_bytes
    return view


def _fill_range(
    reader: _Reader, files: JoinedFiles, item: ByteRange, view: memoryview
) -> None:
    first, last = files.rows_of(item)
    position, offset = 0, item.start - int(files.starts[first])
    for wanted in files.wanted(slice(first, last)):
        taken = min(wanted.size_bytes - offset, len(view) - position)
        if taken:
            reader.read(wanted, offset, view[position : position + taken])
        position, offset = position + taken, 0


class _Reader:
    """Reads pieces of files; when it leaves a file it looks at whether it was what was published.

    A file that is read piece by piece, as an object is by many ranges, is opened once.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._folder_fd = -1
        self._fd = -1
        self._wanted: Wanted | None = None
        self._is_whole = True
        self._stale: list[str] = []

    def __enter__(self) -> Self:
        try:
            self._folder_fd = os.open(self._folder, OPEN_FOLDER)
        except OSError as error:
            _raise_unless_absent(error)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._leave()
        if self._folder_fd >= 0:
            os.close(self._folder_fd)
        if self._stale and kind is None:
            raise StaleFilesError(self._folder, self._stale)

    def read(self, wanted: Wanted, offset: int, view: memoryview) -> None:
        """Fill ``view`` from a place in a file, or note that the file is stale."""
        if wanted != self._wanted:
            self._leave()
            self._open(wanted)
        try:
            while view and (count := os.preadv(self._fd, (view,), offset)):
                view, offset = view[count:], offset + count
        except OSError as error:
            if self._fd >= 0:
                _raise_unless_absent(error)
        self._is_whole = self._is_whole and not view

    def _open(self, wanted: Wanted) -> None:
        self._wanted = wanted
        try:
            if self._folder_fd >= 0:
                self._fd = os.open(wanted.name, OPEN_READ, dir_fd=self._folder_fd)
        except OSError as error:
            _raise_unless_absent(error)

    def _leave(self) -> None:
        if self._wanted is None:
            return
        if not self._is_whole or not is_met(self._wanted, os.fstat(self._fd)):
            self._stale.append(self._wanted.name)
        if self._fd >= 0:
            os.close(self._fd)
        self._wanted, self._fd, self._is_whole = None, -1, True


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
    socket_fd: int, files: JoinedFiles, body: Sequence[bytes | ByteRange]
) -> memoryview:
    """Read a batch and write what the socket takes at once; the rest.  Errors as :func:`fill`."""
    return push_bytes(socket_fd, fill(files, body))


def open_large(files: JoinedFiles, row: int) -> int:
    """A descriptor of one file that is what was published; StaleFilesError otherwise."""
    wanted = files.wanted(slice(row, row + 1))[0]
    try:
        fd = os.open(os.path.join(files.folder, wanted.name), OPEN_READ)  # noqa: PTH118 (hot path)
    except OSError as error:
        _raise_unless_absent(error)
        raise StaleFilesError(files.folder, [wanted.name]) from error
    if not is_met(wanted, os.fstat(fd)):
        os.close(fd)
        raise StaleFilesError(files.folder, [wanted.name])
    return fd


def push_file(socket_fd: int, file_fd: int, offset: int, count: int) -> int:
    """Send up to ``count`` bytes of a file to a non-blocking socket; how many it took now.

    sendfile(2) waits for the disk even where the socket does not block.
    """
    sent = 0
    while sent < count:
        try:
            step = os.sendfile(socket_fd, file_fd, offset + sent, count - sent)
        except BlockingIOError:
            break
        if step == 0:
            raise StoreError("a file became shorter while it was sent")
        sent += step
    return sent


# --------------------------------------------------------------------------- whole files


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file of the repository that nobody writes to: its stat, and its bytes if they are few."""

    stat: FileStat
    data: bytes | None

    def joined(self, path: Path) -> JoinedFiles:
        """The file as a run of its own, which must stay what it was."""
        return JoinedFiles(
            folder=os.fspath(path.parent),
            names=one_name(path.name),
            starts=np.array([0, self.stat.size_bytes], np.int64),
            mtimes=np.array([self.stat.mtime_ns], np.int64),
            inodes=np.array([self.stat.inode], np.uint64),
        )


def read_document(path: Path, *, max_bytes: int = SMALL_BYTES) -> Document | None:
    """A regular file, with its bytes if there are at most ``max_bytes``; None if there is none."""
    try:
        fd = open_regular(path)
    except OSError as error:
        _raise_unless_absent(error)
        return None
    with open(fd, "rb", buffering=0) as file:
        found = stat_of(fd)
        data = file.read(found.size_bytes) if found.size_bytes <= max_bytes else None
    return Document(stat=found, data=data)
