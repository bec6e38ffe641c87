"""The bytes of one media file as its walker reads them, and what a walker can say.

The walkers are in :mod:`server.audit.pictures` and :mod:`server.audit.containers`.  No pixel is
decoded: a walker follows the lengths that a format states (segments, chunks, blocks, boxes) and
says whether they lead to the end it promises.  That finds every cut-off file, and costs
microseconds.  The bytes are hostile: a walker answers for any of them, moves forward at every
step, and stops after a bounded number of reads.
"""

from __future__ import annotations

import os
from enum import IntEnum
from typing import NamedTuple

# One read of a large file: enough for the headers of most, and for many blocks of the rest.
_WINDOW_BYTES = 64 * 2**10
# Reads of one large file; 128 MiB of headers is no picture, and then nothing is said about it.
_MAX_READS = 2048
# How far from its end the last marker of a JPEG is looked for, in a file not held in memory.
_SEARCH_BYTES = 64 * 2**20
# The marker is nearly always at the very end: look at little first, then at ever more.
_FIRST_SEARCH_BYTES = 4 * 2**10


class Problem(IntEnum):
    """What is wrong inside a file; the number is stored in columns, :attr:`text` is for people."""

    NONE = 0
    UNREADABLE = 1
    CUT_HEADER = 2
    NO_END = 3
    PAST_END = 4
    BROKEN = 5
    CHECKSUM = 6
    NO_PICTURE = 7
    NO_INDEX = 8
    NO_DIRECTORY = 9

    @property
    def text(self) -> str:
        """One clause for people; empty for NONE."""
        return _TEXTS[self]


_TEXTS = {
    Problem.NONE: "",
    Problem.UNREADABLE: "the file cannot be read",
    Problem.CUT_HEADER: "it ends within its header",
    Problem.NO_END: "its end is missing",
    Problem.PAST_END: "a part of it reaches past the end of the file",
    Problem.BROKEN: "its structure is broken",
    Problem.CHECKSUM: "the checksum of its header is wrong",
    Problem.NO_PICTURE: "it holds no picture data",
    Problem.NO_INDEX: "its index (moov) is missing",
    Problem.NO_DIRECTORY: "its list of files is missing or in the wrong place",
}


class Frame(NamedTuple):
    """What a walker found: pixels (0 if not stated) and what is wrong."""

    width: int = 0
    height: int = 0
    problem: Problem = Problem.NONE


class TooManyReadsError(Exception):
    """A file has more parts than are worth following."""


class Media:
    """The bytes of one file: all in memory, or a window that moves over an open file."""

    __slots__ = ("_fd", "_reads", "_start", "_window", "size_bytes")

    def __init__(self, data: bytes, *, fd: int = -1, size_bytes: int = -1) -> None:
        """``data`` is the whole file, or its beginning if ``fd`` and ``size_bytes`` are given."""
        self._window = data
        self._start = 0
        self._fd = fd
        self._reads = 0
        self.size_bytes = len(data) if fd < 0 else size_bytes

    @classmethod
    def open(cls, fd: int, size_bytes: int) -> Media:
        """A window over an open file; OSError as reading raises it."""
        return cls(os.pread(fd, _WINDOW_BYTES, 0), fd=fd, size_bytes=size_bytes)

    def at(self, offset: int, length: int) -> bytes:
        """The bytes at ``offset``, fewer than ``length`` where the file ends."""
        begin = offset - self._start
        held = self._window
        if self._fd >= 0 and not 0 <= begin <= begin + length <= len(held):
            self._reads += 1
            if self._reads > _MAX_READS:
                raise TooManyReadsError
            self._window = held = os.pread(self._fd, max(length, _WINDOW_BYTES), offset)
            self._start, begin = offset, 0
        return held[begin : begin + length]

    def rfind(self, needle: bytes, start: int) -> int:
        """Offset of the last ``needle`` not before ``start``, or -1; looks back a bounded way."""
        if self._fd < 0:
            return self._window.rfind(needle, start)
        start = max(start, self.size_bytes - _SEARCH_BYTES)
        end, step = self.size_bytes, _FIRST_SEARCH_BYTES
        while end > start:
            begin = max(start, end - step)
            found = os.pread(self._fd, end - begin + len(needle) - 1, begin).rfind(needle)
            if found >= 0:
                return begin + found
            end, step = begin, step * 8
        return -1
