"""Runs of files sent one after another into a socket, each looked at before its bytes go out.

A file counts only while it is what was published: regular, and of the expected size, mtime and
inode.  It is looked at *after* some of its bytes were read and *before* these are sent, since
whoever writes to a file moves its mtime before its bytes.  Only the middle of a large one is sent
by sendfile(2), unread; its last bytes are held until it was looked at once more, so an answer in
which it changed is never complete.

Processes that only send import this, so it imports next to nothing.
"""

from __future__ import annotations

import errno
import marshal
import os
import stat
import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from operator import sub
from typing import Any, Final, NamedTuple

from syncclient.files import OPEN_FOLDER, OPEN_READ

# Read before any of it is sent, and small enough to stay in the cache of a processor.
BATCH_BYTES: Final = 256 * 2**10
# The first batch of a turn that goes on with an answer: what is not taken will be read again.
_LEAST_BYTES: Final = 32 * 2**10
# From here on a file is sent by sendfile(2), which takes 0.26 s of processor time for a gigabyte
# where reading and sending take 0.35; of files of 1 MiB it saves 8 %, of smaller ones nothing.
_LARGE_BYTES: Final = 512 * 2**10
# To open, look at and close a file takes 7 us; so much is sent in that time.
_OPENING_BYTES: Final = 16 * 2**10
# The end of a large file, which is read.
_HELD_BYTES: Final = 64 * 2**10
# What opening or reading says where the name stands for nothing, or for no regular file.
_ABSENT: Final = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ENXIO,
    errno.EISDIR,
    errno.ESPIPE,
}


# The name of a file and what its stat must be: bytes · mtime ns and inode, None if not known.
Wanted = tuple[str, int, int | None, int | None]


class Run(NamedTuple):
    """``size_bytes`` of n files of a folder, end to end, from ``offset`` in the first on.

    ``names`` have a NUL between them.  Native numbers: starts (n + 1,) i64, byte where each begins
    in whatever they are part of, and the end of all · mtimes (n,) i64 ns and inodes (n,) u64, or
    nothing where they are not known.
    """

    names: str
    starts: bytes
    mtimes: bytes
    inodes: bytes
    offset: int
    size_bytes: int

    @property
    def files(self) -> int:
        """How many files."""
        return len(self.starts) // 8 - 1

    def wanted(self) -> Iterator[Wanted]:
        """The files."""
        mtimes = array("q", self.mtimes) if self.mtimes else repeat(None)
        inodes = array("Q", self.inodes) if self.inodes else repeat(None)
        starts = array("q", self.starts)
        sizes = map(sub, starts[1:], starts)
        return zip(self.names.split("\0"), sizes, mtimes, inodes, strict=False)


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


class Turn(NamedTuple):
    """Bytes of an answer, from ``start`` of ``body`` on: literal ones, and runs of ``folder``.

    ``is_first`` says that nothing of the answer was sent, and nothing is to be before BATCH_BYTES
    of it are there, or all.
    """

    folder: str
    body: Sequence[bytes | Run]
    start: int
    is_first: bool

    @property
    def effort_bytes(self) -> int:
        """What it has to send, and for each file as much as could be sent meanwhile."""
        size_bytes = -self.start
        for item in self.body:
            if isinstance(item, bytes):
                size_bytes += len(item)
            else:
                size_bytes += item.size_bytes + item.files * _OPENING_BYTES
        return size_bytes


class Outcome(NamedTuple):
    """How many bytes of a turn a socket took, and why no more if it is not full.

    ``stale`` names a file that is not what was published.  An error of the socket is a
    ConnectionError; any other one is the disk's.
    """

    sent_bytes: int
    stale: str = ""
    error: OSError | None = None


# Messages between a host and its processes: a length, then plain values.
LENGTH: Final = struct.Struct("<I")
# Turns that a process is handed at once.
MAX_TURNS: Final = 16


def encode_turns(turns: Iterable[Turn]) -> bytes:
    """Some turns with their length.

    marshal takes a third of pickle's time, and is safe: both ends are this program.
    """
    return _framed(
        [
            (
                turn.folder,
                [item if isinstance(item, bytes) else tuple(item) for item in turn.body],
                turn.start,
                turn.is_first,
            )
            for turn in turns
        ]
    )


def decode_turns(data: bytes) -> list[Turn]:
    """What follows the length."""
    return [
        Turn(
            folder,
            [item if isinstance(item, bytes) else Run._make(item) for item in body],
            start,
            is_first,
        )
        for folder, body, start, is_first in marshal.loads(data)  # noqa: S302 (from this program)
    ]


def encode_outcomes(outcomes: Iterable[Outcome]) -> bytes:
    """What came of some turns, with its length."""
    return _framed(
        [
            (sent_bytes, stale, error and (error.errno, error.strerror, error.filename))
            for sent_bytes, stale, error in outcomes
        ]
    )


def decode_outcomes(data: bytes) -> list[Outcome]:
    """What follows the length."""
    return [
        Outcome(sent_bytes, stale, told and OSError(*told))
        for sent_bytes, stale, told in marshal.loads(data)  # noqa: S302 (from this program)
    ]


def _framed(values: list[Any]) -> bytes:
    data = marshal.dumps(values)
    return LENGTH.pack(len(data)) + data


class _StaleError(Exception):
    """A file is not what was published."""


class _FullError(Exception):
    """A socket takes no more now."""


def send_turn(socket_fd: int, turn: Turn, buffer: memoryview) -> Outcome:
    """Send what a socket that does not block takes of a turn now; ``buffer`` has BATCH_BYTES."""
    batch = _Batch(socket_fd, buffer, BATCH_BYTES if turn.is_first else _LEAST_BYTES)
    try:
        with opened(turn.folder, OPEN_FOLDER) as folder_fd:
            skip = turn.start
            for item in turn.body:
                size_bytes = len(item) if isinstance(item, bytes) else item.size_bytes
                if skip < size_bytes:
                    if isinstance(item, bytes):
                        batch.put(item[skip:])
                    else:
                        batch.put_run(folder_fd, item, skip)
                skip = max(skip - size_bytes, 0)
            batch.push()
    except _FullError:
        pass
    except _StaleError as stale:
        return Outcome(batch.sent_bytes, stale=str(stale))
    except OSError as error:
        return Outcome(batch.sent_bytes, error=error)
    return Outcome(batch.sent_bytes)


class _Batch:
    """Bytes that were read, and go out together once there are enough of them.

    What a full socket does not take is dropped, and read again when there is room, so a client
    that takes its time holds no memory here.  After the first batch of a turn no more is read at
    once than the socket took before, so little is read for nothing.
    """

    def __init__(self, socket_fd: int, buffer: memoryview, enough_bytes: int) -> None:
        self._socket_fd = socket_fd
        self._buffer = buffer
        self._enough = enough_bytes
        self._filled = 0
        self.sent_bytes = 0

    def put(self, data: bytes) -> None:
        """Literal bytes."""
        while data:
            count = min(len(data), self._enough - self._filled)
            self._buffer[self._filled : self._filled + count] = data[:count]
            data = data[count:]
            self._add(count)

    def put_run(self, folder_fd: int | None, run: Run, start: int) -> None:
        """A run, from its byte ``start`` on."""
        skip, left = run.offset + start, run.size_bytes - start
        for wanted in run.wanted():
            name, size_bytes, _, _ = wanted
            if skip >= size_bytes:
                skip -= size_bytes
                continue
            count = min(size_bytes - skip, left)
            try:
                if folder_fd is None:
                    raise _StaleError(name)
                fd = os.open(name, OPEN_READ, dir_fd=folder_fd)
                try:
                    self._put_file(fd, wanted, skip, count)
                finally:
                    os.close(fd)
            except OSError as error:
                raise_unless_absent(error)
                raise _StaleError(name) from error
            left -= count
            if not left:
                break
            skip = 0

    def _put_file(self, fd: int, wanted: Wanted, offset: int, left: int) -> None:
        while left:
            start = self._filled
            if left >= _LARGE_BYTES and not start:
                count = self._pass(fd, wanted, offset, left - _HELD_BYTES)
            else:
                view = self._buffer[start : min(start + left, self._enough)]
                count = os.preadv(fd, (view,), offset)
                if not is_met(wanted, os.fstat(fd)) or not count:
                    raise _StaleError(wanted[0])
                self._filled = start + count
                if self._filled == self._enough:
                    self.push()
            offset += count
            left -= count

    def _pass(self, fd: int, wanted: Wanted, offset: int, count: int) -> int:
        """Send some of a large file unread; how much of it was taken."""
        if not is_met(wanted, os.fstat(fd)):
            raise _StaleError(wanted[0])
        try:
            count = os.sendfile(self._socket_fd, fd, offset, count)
        except BlockingIOError:
            raise _FullError from None
        if not count:
            raise _StaleError(wanted[0])
        self.sent_bytes += count
        return count

    def _add(self, count: int) -> None:
        self._filled += count
        if self._filled == self._enough:
            self.push()

    def push(self) -> None:
        """Send what is there; _FullError if not all of it was taken, OSError as Outcome has it."""
        if not self._filled:
            return
        count = 0
        try:
            count = os.write(self._socket_fd, self._buffer[: self._filled])
        except BlockingIOError:
            pass
        except OSError as error:
            raise ConnectionResetError(errno.ECONNRESET, str(error)) from error
        self.sent_bytes += count
        if count < self._filled:
            raise _FullError
        self._filled = 0
        self._enough = min(max(self.sent_bytes, _LEAST_BYTES), BATCH_BYTES)
