"""What goes over the wire, whichever way it is asked for."""

from __future__ import annotations

from dataclasses import dataclass

# Bytes ``start <= n < stop`` of a resource.
Span = tuple[int, int]


@dataclass(slots=True)
class Traffic:
    """What went over the wire, headers not counted."""

    received_bytes: int = 0
    requests: int = 0

    def take(self) -> Traffic:
        """What came since the last call, counted once however many batches shared the source."""
        taken = Traffic(self.received_bytes, self.requests)
        self.received_bytes = self.requests = 0
        return taken
