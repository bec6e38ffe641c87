"""A bandwidth limit that several connections share."""

from __future__ import annotations

import time


class TokenBucket:
    """At most ``rate_bytes_s`` over any longer time; half a second's worth may come at once."""

    def __init__(self, rate_bytes_s: float) -> None:
        self.rate_bytes_s = rate_bytes_s
        self._free_at_s = 0.0

    def book(self, size_bytes: int) -> float:
        """Count what was received; the seconds to wait before more may be, 0 without a rate."""
        if self.rate_bytes_s <= 0:
            return 0.0
        now_s = time.monotonic()
        # The bucket is a point in time: when all that was granted will have been paid for.
        self._free_at_s = max(self._free_at_s, now_s - 0.5) + size_bytes / self.rate_bytes_s
        return max(0.0, self._free_at_s - now_s)
