"""Turns by address: of dear work an address has a little at once, and may wait for a little more.

So whoever asks for much waits for himself, and the others do not wait for him.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct

from server.hosting.addresses import network_of


class LaneFullError(Exception):
    """An address has as much under way as it may, or has waited too long for its turn."""


class _Lane(Struct):
    turns: asyncio.Semaphore
    inside: int = 0


class Lanes:
    """A lane for each address that is here; it goes with the last one in it.

    ``at_once`` of an address work at a time, and ``waiting`` more wait, ``wait_s`` at most.
    """

    def __init__(self, *, at_once: int, waiting: int = 0, wait_s: float = 0.0) -> None:
        self._at_once = at_once
        self._most = at_once + waiting
        self._wait_s = wait_s
        self._lanes: dict[bytes, _Lane] = {}

    def __len__(self) -> int:
        """Addresses that are here."""
        return len(self._lanes)

    @asynccontextmanager
    async def enter(self, address: bytes | None) -> AsyncIterator[None]:
        """Wait for a turn, and hold it; LaneFullError if there is none to be had."""
        key = network_of(address or b"")
        lane = self._lanes.setdefault(key, _Lane(asyncio.Semaphore(self._at_once)))
        if lane.inside >= self._most:
            raise LaneFullError
        lane.inside += 1
        try:
            await self._turn(lane)
            try:
                yield
            finally:
                lane.turns.release()
        finally:
            lane.inside -= 1
            if not lane.inside:
                del self._lanes[key]

    async def _turn(self, lane: _Lane) -> None:
        if not lane.turns.locked():
            await lane.turns.acquire()
            return
        try:
            async with asyncio.timeout(self._wait_s):
                await lane.turns.acquire()
        except TimeoutError:
            raise LaneFullError from None
