"""What a process receives, and the memory for it: it rests while files are written."""

from __future__ import annotations

import asyncio

import pytest

from syncclient.sources.intake import Intake

MIB = 2**20


class Line:
    """A connection that counts what it was told."""

    def __init__(self) -> None:
        self.pauses = 0

    def pause(self) -> None:
        self.pauses += 1

    def resume(self) -> None:
        self.pauses -= 1

    def grant(self, seconds: float) -> None:
        raise AssertionError(seconds)


async def test_connections_rest_until_all_that_is_written_is_written() -> None:
    intake, old, new = Intake(), Line(), Line()
    loop = asyncio.get_running_loop()
    first, second = loop.create_future(), loop.create_future()
    intake.join(old)
    intake.rest(first)
    intake.rest(second)
    intake.join(new)
    assert (old.pauses, new.pauses) == (1, 1)
    first.set_result(None)
    await asyncio.sleep(0)
    assert (old.pauses, new.pauses) == (1, 1)
    second.set_exception(OSError("the disk is full"))
    await asyncio.sleep(0)
    assert (old.pauses, new.pauses) == (0, 0)
    second.exception()


async def test_a_connection_that_has_left_is_told_nothing() -> None:
    intake, line = Intake(), Line()
    intake.join(line)
    intake.leave(line)
    intake.leave(line)
    written = asyncio.get_running_loop().create_future()
    intake.rest(written)
    assert line.pauses == 0
    written.set_result(None)
    await asyncio.sleep(0)
    assert line.pauses == 0


def test_memory_is_used_again_once_it_is_given_back() -> None:
    intake = Intake()
    first, second = intake.room(3 * MIB), intake.room(MIB)
    assert first.obj is not second.obj
    intake.give_back(first)
    third = intake.room(2 * MIB)
    assert third.obj is first.obj
    assert len(third) == 2 * MIB
    intake.give_back(third)
    assert intake.room(4 * MIB).obj is not first.obj


def test_memory_is_used_again_when_all_parts_of_it_are_given_back() -> None:
    intake = Intake()
    room = intake.room(3 * MIB)
    first, second = room[:MIB], room[MIB:]
    intake.give_back(second)
    assert intake.room(MIB).obj is not room.obj
    intake.give_back(first)
    assert intake.room(MIB).obj is room.obj


@pytest.mark.parametrize("size", [0, 1000, 4 * MIB + 1])
def test_memory_of_another_size_is_not_kept(size: int) -> None:
    intake = Intake()
    room = intake.room(size)
    assert len(room) == size
    intake.give_back(room)
    intake.give_back(memoryview(b"read only"))
    assert intake.room(MIB).obj is not room.obj


def test_little_memory_is_kept_the_largest_of_it() -> None:
    intake = Intake()
    small = [intake.room(MIB) for _ in range(40)]
    large = [intake.room(2 * MIB) for _ in range(3)]
    for room in (*small, *large):
        intake.give_back(room)
    again = {id(intake.room(MIB).obj) for _ in range(40)}
    assert len(again & {id(room.obj) for room in small}) == 32 - 2 * 3
    assert len(again & {id(room.obj) for room in large}) == 3
