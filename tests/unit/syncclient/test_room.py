"""Memory that batches share: never more than there is, in order, and always given back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from syncclient.room import Room


@dataclass
class Guests:
    """Who is in a room of ten bytes, by name."""

    room: Room = field(default_factory=lambda: Room(10))
    inside: list[str] = field(default_factory=list)
    leave: dict[str, asyncio.Event] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def come(self, name: str, size_bytes: int) -> list[str]:
        """One more wants in; who is in then."""
        self.leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._stay(name, size_bytes))
        return await self.look()

    async def _stay(self, name: str, size_bytes: int) -> None:
        async with self.room.taken(size_bytes):
            self.inside.append(name)
            try:
                await self.leave[name].wait()
            finally:
                self.inside.remove(name)

    async def go(self, name: str) -> list[str]:
        """One leaves; who is in then."""
        self.leave[name].set()
        await self.tasks[name]
        return await self.look()

    async def cancel(self, *names: str) -> list[str]:
        """Some are cancelled, wherever they are; who is in then."""
        for name in names:
            self.tasks[name].cancel()
        await asyncio.wait([self.tasks[name] for name in names])
        return await self.look()

    async def look(self) -> list[str]:
        """Who is in when all that can happen has happened."""
        for _ in range(5):
            await asyncio.sleep(0)
        return sorted(self.inside)


async def filled(*sizes: int) -> Guests:
    """Guests a, b, c who wanted in in this order."""
    guests = Guests()
    for name, size_bytes in zip("abcdef", sizes, strict=False):
        await guests.come(name, size_bytes)
    return guests


@pytest.mark.parametrize(
    ("sizes", "inside"),
    [
        ([10], ["a"]),
        ([0, 10, 0], ["a", "b", "c"]),
        ([4, 6, 1], ["a", "b"]),
        # Nobody overtakes who came before.
        ([6, 5, 1], ["a"]),
        # More than there is gets all there is.
        ([11, 1], ["a"]),
        ([1, 11], ["a"]),
    ],
)
async def test_who_is_in(sizes: Sequence[int], inside: list[str]) -> None:
    guests = await filled(*sizes)
    assert sorted(guests.inside) == inside
    for name in "abc"[: len(sizes)]:
        await guests.go(name)
    assert await guests.come("all", 10) == ["all"]
    assert await guests.go("all") == []


async def test_the_next_ones_are_let_in_when_there_is_room() -> None:
    guests = await filled(10, 3, 3, 5)
    assert await guests.go("a") == ["b", "c"]
    assert await guests.go("c") == ["b", "d"]
    await guests.cancel("b", "d")


async def test_who_gives_up_waiting_takes_nothing() -> None:
    guests = await filled(6, 5, 4)
    assert await guests.cancel("b") == ["a", "c"]
    assert await guests.come("d", 1) == ["a", "c"]
    assert await guests.cancel("a") == ["c", "d"]
    assert await guests.cancel("c", "d") == []
    assert await guests.come("all", 10) == ["all"]
    await guests.cancel("all")


async def test_who_is_cancelled_just_when_let_in_gives_it_back() -> None:
    guests = Guests()
    async with guests.room.taken(10):
        await guests.come("b", 10)
    # It has been let in, and does not know it yet.
    assert await guests.cancel("b") == []
    assert await guests.come("all", 10) == ["all"]
    await guests.cancel("all")
