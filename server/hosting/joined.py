"""Files read as one run of bytes, end to end: a pack that lies nowhere but in its files.

To look at files blocks on the disk and belongs into a thread; processes read and send them
(:mod:`server.hosting.readers`).  What a file must be: :mod:`server.hosting.reading`.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from manifests.columns import I64, U64
from manifests.errors import StoreError
from server.hosting.ranges import ByteRange
from server.hosting.reading import Run, Wanted, is_met, opened, raise_unless_absent
from syncclient.tree import OPEN_FOLDER

# What a process reads and sends for an answer before others have their turn.
TURN_BYTES: Final = 8 * 2**20
# Files that are opened, or looked at, in one turn.
TURN_FILES: Final = 1000
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


class JoinedFiles(Struct, frozen=True, kw_only=True, eq=False):
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
        return list(
            zip(
                self.names(rows),
                (self.starts[1:][rows] - self.starts[:-1][rows]).tolist(),
                repeat(None) if self.mtimes is None else self.mtimes[rows].tolist(),
                repeat(None) if self.inodes is None else self.inodes[rows].tolist(),
                strict=False,
            )
        )

    def runs(self, item: ByteRange) -> Iterator[Run]:
        """A range as runs of TURN_FILES files at most, and TURN_BYTES."""
        # Not numpy's numbers and searches, which take thrice as long for so few.
        starts, start = self.starts.data, item.start
        while start < item.stop:
            stop = min(start + TURN_BYTES, item.stop)
            first = bisect_right(starts, start) - 1
            last = min(bisect_left(starts, stop, first), first + TURN_FILES)
            stop = min(starts[last], stop)
            rows = slice(first, last)
            yield Run(
                names="\0".join(self.names(rows)),
                starts=starts[first : last + 1].tobytes(),
                mtimes=b"" if self.mtimes is None else self.mtimes.data[rows].tobytes(),
                inodes=b"" if self.inodes is None else self.inodes.data[rows].tobytes(),
                offset=start - starts[first],
                size_bytes=stop - start,
            )
            start = stop

    def rows_of(self, wanted: ByteRange) -> tuple[int, int]:
        """The rows ``first:last`` that a range begins and ends in."""
        starts = self.starts.data
        return bisect_right(starts, wanted.start) - 1, bisect_left(starts, wanted.stop)


def one_name(name: str) -> Callable[[Rows], list[str]]:
    """The names of a single file that is called ``name``."""
    # A plain list, for numpy takes ten times as long over so little.
    return lambda rows: [name][rows] if isinstance(rows, slice) else [name] * len(rows)


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
        return [item[0] for item in wanted if not _is_there(folder_fd, item)]


def _is_there(folder_fd: int | None, wanted: Wanted) -> bool:
    if folder_fd is None:
        return False
    try:
        info = os.stat(wanted[0], dir_fd=folder_fd, follow_symlinks=False)
    except OSError as error:
        raise_unless_absent(error)
        return False
    return is_met(wanted, info)
