"""Files read as one run of bytes, end to end: a pack that lies nowhere but in its files.

Everything here that reads blocks on the disk and belongs into a thread; batches are read by
processes (:mod:`server.hosting.readers`).  What a file must be: :mod:`server.hosting.reading`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat
from typing import Final

import numpy as np
import numpy.typing as npt

from manifests.columns import I64, U64
from manifests.errors import StoreError
from server.hosting.ranges import ByteRange
from server.hosting.reading import Run, Wanted, is_met, opened, raise_unless_absent, read_runs
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

    def _sizes(self, first: int, last: int) -> I64:
        """Sizes of the rows ``first:last``."""
        sizes: I64 = self.starts[first + 1 : last + 1] - self.starts[first:last]
        return sizes

    def run(self, item: ByteRange) -> Run:
        """A range as a run of files, in plain values."""
        first, last = self.rows_of(item)
        rows = slice(first, last)
        return Run(
            names="\0".join(self.names(rows)),
            sizes=self._sizes(first, last).tobytes(),
            mtimes=b"" if self.mtimes is None else self.mtimes[rows].tobytes(),
            inodes=b"" if self.inodes is None else self.inodes[rows].tobytes(),
            offset=item.start - int(self.starts[first]),
            size_bytes=item.size_bytes,
        )

    def rows_of(self, wanted: ByteRange) -> tuple[int, int]:
        """The rows ``first:last`` that a range begins and ends in."""
        # Methods: the functions of numpy of that name take 2 us longer, and each range needs some.
        first = int(self.starts.searchsorted(wanted.start, "right")) - 1
        return first, int(self.starts.searchsorted(wanted.stop, "left"))

    def next_run(self, start: int, stop: int) -> tuple[int, int | None]:
        """Where to end a turn of sending that begins at ``start``; its row if the file is large.

        A turn is a piece of one large file without the last HELD_BYTES, or at most BATCH_BYTES of
        small ones.
        """
        row = int(self.starts.searchsorted(start, "right")) - 1
        end = min(int(self.starts[row + 1]), stop)
        if end - start >= LARGE_BYTES:
            return end - HELD_BYTES, row
        end = min(start + BATCH_BYTES, stop)
        last = int(self.starts.searchsorted(end, "left"))
        large = (self._sizes(row + 1, last) >= LARGE_BYTES).nonzero()[0]
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
    with opened(files.folder, OPEN_FOLDER) as folder_fd:
        return [item.name for item in wanted if not _is_there(folder_fd, item)]


def require(files: JoinedFiles, row: int) -> None:
    """StaleFilesError unless one file is what was published."""
    stale = stale_names(files, slice(row, row + 1))
    if stale:
        raise StaleFilesError(files.folder, stale)


def _is_there(folder_fd: int | None, wanted: Wanted) -> bool:
    if folder_fd is None:
        return False
    try:
        info = os.stat(wanted.name, dir_fd=folder_fd, follow_symlinks=False)
    except OSError as error:
        raise_unless_absent(error)
        return False
    return is_met(wanted, info)


def runs_of(files: JoinedFiles, body: Sequence[bytes | ByteRange]) -> list[bytes | Run]:
    """The body of an answer with each range as a run of files, in plain values."""
    return [item if isinstance(item, bytes) else files.run(item) for item in body]


def fill(files: JoinedFiles, body: Sequence[bytes | ByteRange]) -> memoryview:
    """Literal bytes and ranges, one after another; StaleFilesError names every stale file."""
    size_bytes = sum(len(item) if isinstance(item, bytes) else item.size_bytes for item in body)
    view = memoryview(bytearray(size_bytes))
    stale = read_runs(files.folder, runs_of(files, body), view)
    if stale:
        raise StaleFilesError(files.folder, stale)
    return view


# --------------------------------------------------------------------------- into a socket


def push_bytes(socket_fd: int, data: memoryview) -> memoryview:
    """Write to a non-blocking socket what it takes now; the rest."""
    while data:
        try:
            data = data[os.write(socket_fd, data) :]
        except BlockingIOError:
            break
    return data


def push_large(socket_fd: int, files: JoinedFiles, row: int, offset: int, count: int) -> int:
    """Send ``count`` bytes of one file, never reading them; how many the socket took now.

    StaleFilesError if the file is not what was published.  sendfile(2) waits for the disk even
    where the socket does not block.
    """
    wanted = files.wanted(slice(row, row + 1))[0]
    with opened(f"{files.folder}/{wanted.name}", OPEN_READ) as fd:
        if fd is None or not is_met(wanted, os.fstat(fd)):
            raise StaleFilesError(files.folder, [wanted.name])
        sent = 0
        with suppress(BlockingIOError):
            while step := os.sendfile(socket_fd, fd, offset + sent, count - sent):
                sent += step
    return sent
