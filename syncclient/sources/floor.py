"""The least that a host must bring: what ends a slow-retrieval attack, and no slow line.

A host that sends a byte now and then never stalls, and would hold a run for ever.  So of every
window of time some bytes are asked.  All answers of a host count together, since many requests may
share one slow line; time in which we hold a host back ourselves does not count.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# Deadlines are moved once in this part of a window: moving them for each block that comes took an
# eighth of a fast transfer's processor time.
_PART = 1 / 64


class SpeedFloor:
    """Ends the answers of one host with TimeoutError; belongs to one event loop.

    Each time they have brought ``rate_bytes_s`` times ``window_s`` together, every answer has
    another window.  The first one of an answer is twice as long: it begins with a connection.
    """

    def __init__(self, rate_bytes_s: float, window_s: float) -> None:
        self.rate_bytes_s = rate_bytes_s
        self.window_s = window_s
        self._window_bytes = rate_bytes_s * window_s
        self._brought_bytes = 0
        self._renewed_s = 0.0
        self._deadlines: set[asyncio.Timeout] = set()

    @property
    def complaint(self) -> str:
        """What is said of a host that did not keep to it."""
        rate, window_s = self.rate_bytes_s, self.window_s
        return f"gave no answer, or less than {rate:,.0f} bytes a second for {window_s:g} s"

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold what is done inside, one answer, to the floor."""
        async with asyncio.timeout(2 * self.window_s) as deadline:
            self._deadlines.add(deadline)
            try:
                yield
            finally:
                self._deadlines.discard(deadline)

    def brought(self, size_bytes: int) -> None:
        """Count bytes that came."""
        self._brought_bytes += size_bytes
        if self._brought_bytes >= self._window_bytes:
            now_s = asyncio.get_running_loop().time()
            if now_s >= self._renewed_s + self.window_s * _PART:
                self._brought_bytes, self._renewed_s = 0, now_s
                self._renew(self.window_s)

    def pause(self, seconds: float) -> None:
        """Take note that we shall not read for some time."""
        self._renew(seconds + self.window_s)

    def _renew(self, seconds: float) -> None:
        until_s = asyncio.get_running_loop().time() + seconds
        for deadline in self._deadlines:
            if not deadline.expired():
                deadline.reschedule(max(until_s, deadline.when() or 0.0))
