"""Answers under way: one whose client leaves, and one behind another's bytes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from server.hosting.joined import TURN_FILES, JoinedFiles, Rows, StaleFilesError, one_name
from server.hosting.metrics import Metrics
from server.hosting.ranges import ByteRange, Reply
from server.hosting.readers import Readers, Wire
from server.hosting.reading import Outcome, Turn
from server.hosting.sending import Sender
from tests.support.host import reading_processes

SIZE = 2**20


class _Transport(asyncio.Transport):
    """A connection of which nothing is asked but its socket, and what waits to be written."""

    def __init__(self, wire: socket.socket) -> None:
        super().__init__({"socket": wire})
        self.waiting = [0]

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.waiting.pop(0) if len(self.waiting) > 1 else self.waiting[0]


@pytest.fixture
def wire() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0)
        yield ours, theirs


@pytest.fixture
async def readers() -> AsyncIterator[Readers]:
    found = Readers(1)
    yield found
    await found.close()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def sender(readers: Readers, metrics: Metrics) -> Iterator[Sender]:
    with ThreadPoolExecutor(1) as executor:
        yield Sender(executor, readers, metrics, pytest.fail, stall_s=60)


@pytest.fixture
def files(tmp_path: Path) -> JoinedFiles:
    (tmp_path / "1.dat").write_bytes(b"." * SIZE)
    starts = np.array([0, SIZE], np.int64)
    names = one_name("1.dat")
    folder = os.fspath(tmp_path)
    return JoinedFiles(folder=folder, names=names, starts=starts, mtimes=None, inodes=None)


def sending(
    sender: Sender, transport: asyncio.Transport, files: JoinedFiles, size_bytes: int
) -> asyncio.Task[web.StreamResponse]:
    request = make_mocked_request("GET", "/", transport=transport)
    body = (ByteRange(0, size_bytes),)
    reply = Reply(status=HTTPStatus.OK, headers={}, body=body, body_bytes=size_bytes)
    return asyncio.create_task(sender.send(request, reply, files))


async def cancelled_in_its_turn(task: asyncio.Task[web.StreamResponse]) -> None:
    (pid,) = reading_processes(os.getpid())
    os.kill(pid, signal.SIGSTOP)
    done, _ = await asyncio.wait([task], timeout=0.05)
    assert not done
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=0.05)
    assert not done
    os.kill(pid, signal.SIGCONT)


async def test_an_answer_that_is_whole_is_none_that_was_cancelled(
    sender: Sender,
    metrics: Metrics,
    files: JoinedFiles,
    wire: tuple[socket.socket, socket.socket],
) -> None:
    transport = _Transport(wire[0])
    assert (await sending(sender, transport, files, 1)).keep_alive
    task = sending(sender, transport, files, 100)
    await cancelled_in_its_turn(task)
    assert (await task).status == HTTPStatus.OK
    assert metrics.sent_bytes == 1 + 100
    assert wire[1].recv(2**20).endswith(b"\r\n\r\n" + b"." * 100)


async def test_an_answer_that_is_not_whole_ends_with_its_turn(
    sender: Sender, files: JoinedFiles, wire: tuple[socket.socket, socket.socket]
) -> None:
    transport = _Transport(wire[0])
    await sending(sender, transport, files, 1)
    task = sending(sender, transport, files, SIZE)
    await cancelled_in_its_turn(task)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 30)


async def test_an_answer_that_was_cut_for_a_file_is_no_second_time(
    readers: Readers, metrics: Metrics, tmp_path: Path, wire: tuple[socket.socket, socket.socket]
) -> None:
    """Of files so small that an answer is short, and begun before all of them were looked at."""
    count = TURN_FILES + 1
    for row in range(count - 1):
        (tmp_path / f"{row}.dat").write_bytes(b".")

    def names(rows: Rows) -> list[str]:
        return [f"{row}.dat" for row in np.arange(count)[rows].tolist()]

    starts = np.arange(count + 1, dtype=np.int64)
    folder = os.fspath(tmp_path)
    files = JoinedFiles(folder=folder, names=names, starts=starts, mtimes=None, inodes=None)
    transport, warnings = _Transport(wire[0]), list[str]()
    with ThreadPoolExecutor(1) as executor:
        sender = Sender(executor, readers, metrics, warnings.append, stall_s=60)
        assert not (await sending(sender, transport, files, count)).keep_alive
        assert len(wire[1].recv(2**20)) > 0
        with pytest.raises(StaleFilesError):
            await sending(sender, transport, files, count)
    assert len(warnings) == 1


async def test_an_answer_waits_for_what_was_written_before(
    sender: Sender, files: JoinedFiles, wire: tuple[socket.socket, socket.socket]
) -> None:
    transport = _Transport(wire[0])
    transport.waiting = [5, 5, 5, 0]
    await sending(sender, transport, files, 1)
    assert transport.waiting == [0]
    transport.waiting = [5]
    task = sending(sender, transport, files, 1)
    # The socket takes bytes, but those of another answer come first.
    done, _ = await asyncio.wait([task], timeout=0.05)
    assert not done
    transport.waiting = [0]
    await task


async def test_a_socket_that_is_full_is_waited_for(
    sender: Sender,
    readers: Readers,
    files: JoinedFiles,
    wire: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    filling = wire[0].send(b"!" * 2**22)
    send, outcomes, tried = readers.send, list[Outcome](), asyncio.Event()

    async def noted(wire: Wire, turn: Turn) -> Outcome:
        outcomes.append(await send(wire, turn))
        tried.set()
        return outcomes[-1]

    monkeypatch.setattr(readers, "send", noted)
    task = sending(sender, _Transport(wire[0]), files, 1)
    await tried.wait()
    done, _ = await asyncio.wait([task], timeout=0.05)
    assert not done
    assert outcomes == [Outcome(0)]
    while filling:
        filling -= len(wire[1].recv(min(filling, 2**20)))
    await task
    assert len(outcomes) == 2
