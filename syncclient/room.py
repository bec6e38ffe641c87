"""Memory that the batches of a process share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """So many bytes; who wants more than are free waits, in the order of coming.

    Of those that wait only the next one is woken: all of them, each time, took a twentieth of a
    loop's time.  Belongs to one event loop.
    """

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = self._free_bytes = size_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def taken(self, size_bytes: int) -> AsyncIterator[None]:
        """Hold so many bytes; all there are, if it is more than that."""
        wanted = min(size_bytes, self._size_bytes)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, turn))
        self._admit()
        try:
            await turn
            yield
        finally:
            # Who was cancelled may have been let in all the same.
            if turn.done() and not turn.cancelled():
                self._free_bytes += wanted
            self._admit()

    def _admit(self) -> None:
        while self._waiting:
            wanted, turn = self._waiting[0]
            if not turn.cancelled():
                if wanted > self._free_bytes:
                    return
                self._free_bytes -= wanted
                turn.set_result(None)
            self._waiting.popleft()
