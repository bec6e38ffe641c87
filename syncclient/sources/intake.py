"""Receiving and writing in turns: what a process receives, it does not receive while it writes.

Two threads of one interpreter that both have something to do take the interpreter from each other
at every system call, which cost a tenth of the processor time of a run of small files.  So while
the disk thread checks and writes files, the connections of its process rest; what comes meanwhile
lies in the kernel.  Memory for what comes is used again: getting it anew from the kernel, and
zeroing it twice, cost as much as receiving.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from typing import Any, Final, Protocol, TypeVar

from manifests.digest import CHUNK_BYTES

# A disk that takes longer than this is no fault of a host's.
_LONG_S: Final = 0.5
# What is kept of it; what is small costs little to get anew, and little is larger than a chunk.
_SPARE_BYTES: Final = 32 * 2**20
_SMALL_BYTES: Final = 64 * 2**10
_LARGE_BYTES: Final = CHUNK_BYTES

T = TypeVar("T")


class _Block(bytearray):
    """Memory that is used again; ``lent`` bytes of it are in use."""

    lent = 0


class Resting(Protocol):
    """A connection that can be told not to receive for a while."""

    def pause(self) -> None:
        """Receive nothing more; each call wants one of :meth:`resume`."""

    def resume(self) -> None:
        """Receive again."""

    def grant(self, seconds: float) -> None:
        """Take note that for so long nothing is received, through no fault of the host's."""


class Intake:
    """The connections of one process; belongs to its event loop."""

    def __init__(self) -> None:
        self._connections: set[Resting] = set()
        self._writing = 0
        self._timer: asyncio.TimerHandle | None = None
        # Ascending by length.
        self._spare: list[_Block] = []
        self._spare_bytes = 0

    def room(self, size_bytes: int) -> memoryview:
        """Memory for so many bytes, with anything in it."""
        if not _SMALL_BYTES < size_bytes <= _LARGE_BYTES:
            return memoryview(bytearray(size_bytes))
        place = bisect_left(self._spare, size_bytes, key=len)
        if place < len(self._spare):
            block = self._spare.pop(place)
            self._spare_bytes -= len(block)
        else:
            block = _Block(size_bytes)
        block.lent = size_bytes
        return memoryview(block)[:size_bytes]

    def give_back(self, part: memoryview) -> None:
        """Let memory be used again, when each part of it is given back, once.

        Nobody may look at that part any more.
        """
        block = part.obj
        if not isinstance(block, _Block):
            return
        block.lent -= len(part)
        if not block.lent:
            insort(self._spare, block, key=len)
            self._spare_bytes += len(block)
            # The smallest suits fewest.
            while self._spare_bytes > _SPARE_BYTES:
                self._spare_bytes -= len(self._spare.pop(0))

    def join(self, connection: Resting) -> None:
        """One more connection."""
        self._connections.add(connection)
        if self._writing:
            connection.pause()

    def leave(self, connection: Resting) -> None:
        """One less; it may have left before."""
        self._connections.discard(connection)

    def rest(self, until: asyncio.Future[T]) -> None:
        """Receive nothing until this work is done."""
        self._writing += 1
        if self._writing == 1:
            for connection in self._connections:
                connection.pause()
            self._timer = asyncio.get_running_loop().call_later(_LONG_S, self._grant)
        until.add_done_callback(self._go_on)

    def _go_on(self, _: asyncio.Future[Any]) -> None:
        self._writing -= 1
        if not self._writing:
            if self._timer is not None:
                self._timer.cancel()
            for connection in self._connections:
                connection.resume()

    def _grant(self) -> None:
        for connection in self._connections:
            connection.grant(2 * _LONG_S)
        self._timer = asyncio.get_running_loop().call_later(_LONG_S, self._grant)
