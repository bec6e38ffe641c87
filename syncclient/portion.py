"""How much is handed to the disk at a time.

Handing over costs 0.2 ms, and the connections of the process rest meanwhile; but what lies in
memory is lost with the process.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

_BYTES: Final = 8 * 2**20
_FILES: Final = 128
# A slow line brings less than those in that time, and waits for nothing but the next bytes.
_WAIT_S: Final = 0.1

T = TypeVar("T")


class Portion(Generic[T]):
    """What came and is to be placed together; times are those of one clock, in seconds."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._items: list[T] = []
        self._files = self._size_bytes = 0
        self._since_s = 0.0

    def add(self, item: T, files: int, size_bytes: int, now_s: float) -> None:
        """One more: files, or a batch of them."""
        if not self._items:
            self._since_s = now_s
        self._items.append(item)
        self._files += files
        self._size_bytes += size_bytes

    def is_enough(self, now_s: float) -> bool:
        """Whether it is worth handing over, or the first of it has waited long enough."""
        return bool(self._items) and (
            self._size_bytes >= _BYTES or self._files >= _FILES or now_s - self._since_s >= _WAIT_S
        )

    def take(self) -> list[T]:
        """All of it; it begins anew."""
        items = self._items
        self._begin()
        return items
