"""A bandwidth limit that several connections share."""

from __future__ import annotations

import asyncio
import time


class TokenBucket:
    """At most ``rate_bytes_s`` over any longer time; half a second's worth may come at once."""

    def __init__(self, rate_bytes_s: float) -> None:
        self.rate_bytes_s = rate_bytes_s
        self._free_at_s = 0.0

    async def take(self, size_bytes: int) -> None:
        """Wait until ``size_bytes`` more may have been received; does nothing without a rate."""
        if self.rate_bytes_s <= 0:
            return
        now_s = time.monotonic()
        # The bucket is a point in time: when all that was granted will have been paid for.
        self._free_at_s = max(self._free_at_s, now_s - 0.5) + size_bytes / self.rate_bytes_s
        if self._free_at_s > now_s:
            await asyncio.sleep(self._free_at_s - now_s)
