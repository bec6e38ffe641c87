"""Turns by address: how many at once, who waits, and who is sent away."""

from __future__ import annotations

import asyncio

import pytest

from server.hosting.lanes import LaneFullError, Lanes

ONE, OTHER = b"\x7f\0\0\1", b"\x7f\0\0\2"
SIX = bytes.fromhex("20010db8000000010000000000000001")
TOO_LONG_S = 60.0


class Work:
    """What is done in a lane, until it is let go."""

    def __init__(self, lanes: Lanes, address: bytes) -> None:
        self.began = asyncio.Event()
        self.let_go = asyncio.Event()
        self.task = asyncio.create_task(self._do(lanes, address))

    async def _do(self, lanes: Lanes, address: bytes) -> None:
        async with lanes.enter(address):
            self.began.set()
            await self.let_go.wait()

    async def end(self) -> None:
        self.let_go.set()
        await self.task


async def test_an_address_has_so_many_turns_and_so_many_wait() -> None:
    lanes = Lanes(at_once=1, waiting=1, wait_s=TOO_LONG_S)
    first = Work(lanes, ONE)
    await first.began.wait()
    second = Work(lanes, ONE)
    await asyncio.sleep(0)
    with pytest.raises(LaneFullError):
        async with lanes.enter(ONE):
            pass
    other = Work(lanes, OTHER)
    await other.began.wait()
    assert not second.began.is_set()
    await first.end()
    await second.began.wait()
    await asyncio.gather(second.end(), other.end())
    assert len(lanes) == 0


async def test_nobody_waits_for_ever() -> None:
    lanes = Lanes(at_once=1, waiting=1, wait_s=0.01)
    first = Work(lanes, ONE)
    await first.began.wait()
    with pytest.raises(LaneFullError):
        async with lanes.enter(ONE):
            pass
    await first.end()
    assert len(lanes) == 0


async def test_who_goes_away_leaves_his_turn_to_the_next() -> None:
    lanes = Lanes(at_once=1, waiting=2, wait_s=TOO_LONG_S)
    works = [Work(lanes, ONE) for _ in range(3)]
    await works[0].began.wait()
    for gone in works[:2]:
        gone.task.cancel()
    await works[2].began.wait()
    await works[2].end()
    assert len(lanes) == 0


async def test_work_that_fails_gives_its_turn_back() -> None:
    lanes = Lanes(at_once=1)
    for _ in range(2):
        with pytest.raises(KeyError):
            async with lanes.enter(ONE):
                raise KeyError
    assert len(lanes) == 0


async def test_a_network_of_ipv6_is_one_address() -> None:
    lanes = Lanes(at_once=1)
    first = Work(lanes, SIX)
    await first.began.wait()
    with pytest.raises(LaneFullError):
        async with lanes.enter(SIX[:-1] + b"\2"):
            pass
    beside = SIX[:7] + b"\2" + SIX[8:]
    async with lanes.enter(beside):
        assert len(lanes) == 2
    await first.end()
