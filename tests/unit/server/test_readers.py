"""Turns that processes send: right bytes, errors that travel, and nothing kept of who is gone."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from server.hosting.joined import JoinedFiles, Rows
from server.hosting.ranges import ByteRange
from server.hosting.readers import Found, ReaderEndedError, Readers
from server.hosting.reading import MAX_TURNS, Outcome, Run, Turn
from tests.support.host import reading_processes

COUNT, SIZE = 40, 1000


@pytest.fixture
def files(tmp_path: Path) -> JoinedFiles:
    for row in range(COUNT):
        (tmp_path / f"{row}.dat").write_bytes(bytes([row]) * SIZE)

    def names(rows: Rows) -> list[str]:
        return [f"{row}.dat" for row in np.arange(COUNT)[rows].tolist()]

    starts = np.arange(COUNT + 1, dtype=np.int64) * SIZE
    folder = os.fspath(tmp_path)
    return JoinedFiles(folder=folder, names=names, starts=starts, mtimes=None, inodes=None)


@pytest.fixture
async def readers() -> AsyncIterator[Readers]:
    found = Readers(2)
    yield found
    await found.close()


@pytest.fixture
async def only() -> AsyncIterator[Readers]:
    """A single process."""
    found = Readers(1)
    yield found
    await found.close()


def body_of(files: JoinedFiles) -> list[bytes | Run]:
    return [b"<", *files.runs(ByteRange(500, 30_500)), b">"]


def expected() -> bytes:
    content = b"".join(bytes([row]) * SIZE for row in range(COUNT))
    return b"<" + content[500:30_500] + b">"


def client_pair() -> tuple[socket.socket, socket.socket]:
    """The socket of a client, which does not block, and the client's end."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    return ours, theirs


async def ask(
    readers: Readers, folder: str, body: list[bytes | Run], start: int = 0
) -> tuple[Outcome, bytes]:
    """What came of a turn, and what its client got."""
    ours, theirs = client_pair()
    with ours, theirs:
        outcome = await readers.send(ours, Turn(folder, body, start, is_first=True))
        ours.close()
        return outcome, b"".join(iter(lambda: theirs.recv(2**20), b""))


async def read(readers: Readers, files: JoinedFiles) -> bytes:
    _, data = await ask(readers, files.folder, body_of(files))
    return data


def processes() -> list[int]:
    """Our reading processes."""
    return reading_processes(os.getpid())


def open_files() -> list[int]:
    """How many files we and our reading processes have open."""
    pids = [os.getpid(), *processes()]
    return [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids]


def end_at_once(pid: int) -> None:
    """End a process while the event loop has no turn, so it has yet to hear of the end."""
    os.kill(pid, signal.SIGKILL)
    with suppress(OSError):
        while ") Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii"):
            pass


async def test_many_turns_at_once_go_each_to_its_client(
    readers: Readers, files: JoinedFiles
) -> None:
    found = await asyncio.gather(*(read(readers, files) for _ in range(25)))
    assert set(found) == {expected()}
    assert len(processes()) == 2


async def test_a_stale_file_is_named(readers: Readers, files: JoinedFiles) -> None:
    (Path(files.folder) / "7.dat").write_bytes(b"short")
    found = await ask(readers, files.folder, body_of(files))
    assert found == (Outcome(0, stale="7.dat"), b"")


async def test_an_error_of_the_disk_is_told(readers: Readers, files: JoinedFiles) -> None:
    outcome, data = await ask(readers, "x" * 5000, body_of(files))
    assert isinstance(outcome.error, OSError)
    assert (outcome.error.errno, outcome.sent_bytes, data) == (errno.ENAMETOOLONG, 0, b"")


async def test_a_client_that_is_gone_is_told(readers: Readers, files: JoinedFiles) -> None:
    ours, theirs = client_pair()
    theirs.close()
    with ours:
        turn = Turn(files.folder, body_of(files), 0, is_first=True)
        outcome = await readers.send(ours, turn)
    assert isinstance(outcome.error, ConnectionError)
    assert await read(readers, files) == expected()


async def test_a_client_that_takes_nothing_holds_up_nobody(files: JoinedFiles) -> None:
    only = Readers(1)
    ours, theirs = client_pair()
    body = [b"." * 2**20, *body_of(files)]
    with ours, theirs:
        outcome = await only.send(ours, Turn(files.folder, body, 0, is_first=True))
        assert 0 < outcome.sent_bytes < 2**20
        assert outcome == Outcome(outcome.sent_bytes)
        assert await read(only, files) == expected()
    await only.close()


async def test_a_task_that_is_handed_over_in_parts(readers: Readers, files: JoinedFiles) -> None:
    literal = os.urandom(2**22)
    outcome, data = await ask(readers, files.folder, [literal], start=2**22 - 1000)
    assert (outcome, data) == (Outcome(1000), literal[-1000:])


async def test_a_process_that_is_gone_is_replaced(readers: Readers, files: JoinedFiles) -> None:
    assert await read(readers, files) == expected()
    for pid in processes():
        os.kill(pid, signal.SIGKILL)
    with suppress(ReaderEndedError):
        await read(readers, files)
    assert await read(readers, files) == expected()


@pytest.mark.parametrize("literal", [b"", os.urandom(2**22)], ids=["whole", "handing over"])
async def test_a_process_that_ends_over_a_turn_is_missed_by_that_alone(
    readers: Readers, files: JoinedFiles, literal: bytes
) -> None:
    assert await read(readers, files) == expected()
    (pid,) = processes()
    os.kill(pid, signal.SIGSTOP)
    asking = asyncio.create_task(ask(readers, files.folder, [literal, *body_of(files)]))
    done, _ = await asyncio.wait([asking], timeout=0.05)
    assert not done
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ReaderEndedError):
        await asking
    assert await read(readers, files) == expected()


@pytest.mark.parametrize("is_open", [True, False], ids=["client there", "client gone"])
async def test_a_process_found_gone_twice_is_missed_once(
    only: Readers, files: JoinedFiles, *, is_open: bool
) -> None:
    """Its end is read in the very moment in which a turn finds it gone, or has no client."""
    loop = asyncio.get_running_loop()
    assert await read(only, files) == expected()
    (pid,) = processes()
    ours, theirs = client_pair()
    if not is_open:
        ours.close()
    found: list[asyncio.Future[Found]] = [loop.create_future() for _ in range(2)]
    with ours, theirs:
        next_ours, next_theirs = client_pair()
        with next_ours, next_theirs:
            turn = Turn(files.folder, body_of(files), 0, is_first=True)

            def ask_both() -> None:
                only.ask(ours, turn, found[0].set_result)
                only.ask(next_ours, turn, found[1].set_result)

            end_at_once(pid)
            loop.call_soon(ask_both)
            first, second = await asyncio.gather(*found)
            missed = first if is_open or not isinstance(first, Outcome) else first.error
            assert isinstance(missed, ReaderEndedError if is_open else ConnectionResetError)
            assert second == Outcome(len(expected()))
            assert next_theirs.recv(2**20) == expected()
    assert await asyncio.gather(*(read(only, files) for _ in range(4))) == [expected()] * 4


# --------------------------------------------------------------------------- several at once


@contextmanager
def held(pid: int) -> Iterator[None]:
    """Stop a process that has done what it was asked to, until the end of the context."""
    while ") S " not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii"):
        pass
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def test_turns_that_wait_are_handed_over_together_and_each_is_told(
    only: Readers, files: JoinedFiles
) -> None:
    assert await read(only, files) == expected()
    (pid,) = processes()
    (Path(files.folder) / "35.dat").write_bytes(b"short")
    stale: list[bytes | Run] = [*files.runs(ByteRange(34_000, 37_000))]
    bodies: list[list[bytes | Run]] = [body_of(files), stale, [b"x" * 2**22], body_of(files)]
    with held(pid):
        first = asyncio.create_task(read(only, files))
        waiting = [asyncio.create_task(ask(only, files.folder, body)) for body in bodies * 3]
        await asyncio.wait([first], timeout=0.05)
    assert await first == expected()
    found = await asyncio.gather(*waiting)
    whole = (Outcome(len(expected())), expected())
    for before, gone, cut, after in zip(*[iter(found)] * 4, strict=True):
        assert before == after == whole
        assert gone == (Outcome(0, stale="35.dat"), b"")
        # A socket that is full holds up nobody.
        assert 0 < cut[0].sent_bytes < 2**22


async def test_a_client_that_is_gone_before_its_turn_is_missed_alone(
    only: Readers, files: JoinedFiles
) -> None:
    assert await read(only, files) == expected()
    (pid,) = processes()
    ours, theirs = client_pair()
    with held(pid), theirs:
        turn = Turn(files.folder, body_of(files), 0, is_first=True)
        reading = [asyncio.create_task(read(only, files)) for _ in range(3)]
        await asyncio.wait(reading, timeout=0.05)
        leaving = asyncio.create_task(only.send(ours, turn))
        reading += [asyncio.create_task(read(only, files)) for _ in range(3)]
        await asyncio.wait(reading, timeout=0.05)
        ours.close()
    assert isinstance((await leaving).error, ConnectionError)
    assert set(await asyncio.gather(*reading)) == {expected()}


@pytest.mark.parametrize(
    ("literal", "stop", "together"),
    [(b".", SIZE, MAX_TURNS), (b".", 30 * SIZE, 4), (b"." * 2**20, SIZE, 1)],
    ids=["small", "many files", "large"],
)
async def test_as_many_turns_are_missed_as_were_handed_over_together(
    only: Readers, files: JoinedFiles, literal: bytes, stop: int, together: int
) -> None:
    """What still waits when a process ends is done by the next one."""
    assert await read(only, files) == expected()
    (pid,) = processes()
    body: list[bytes | Run] = [literal, *files.runs(ByteRange(0, stop))]
    with ExitStack() as stack:
        found: list[asyncio.Future[Found]] = []
        clients = []
        for turn in [body_of(files), *[body] * (MAX_TURNS + 5)]:
            ours, theirs = map(stack.enter_context, client_pair())
            found.append(asyncio.get_running_loop().create_future())
            only.ask(ours, Turn(files.folder, turn, 0, is_first=True), found[-1].set_result)
            clients.append(theirs)
        # The first one went alone; nothing is handed over while we wait here.
        assert clients[0].recv(1)
        with held(pid):
            await found[0]
            os.kill(pid, signal.SIGKILL)
            outcomes = await asyncio.gather(*found[1:])
    assert [isinstance(outcome, Outcome) for outcome in outcomes] == [
        *[False] * together,
        *[True] * (MAX_TURNS + 5 - together),
    ]


async def test_the_end_of_all_processes_ends_what_they_were_at(files: JoinedFiles) -> None:
    only = Readers(1)
    assert await read(only, files) == expected()
    (pid,) = processes()
    os.kill(pid, signal.SIGSTOP)
    reading = asyncio.create_task(read(only, files))
    await asyncio.wait([reading], timeout=0.05)
    await only.close()
    with pytest.raises(ReaderEndedError):
        await reading
    assert processes() == []


async def test_a_turn_that_began_goes_on_though_it_is_cancelled(
    readers: Readers, files: JoinedFiles
) -> None:
    assert await read(readers, files) == expected()
    (pid,) = processes()
    os.kill(pid, signal.SIGSTOP)
    reading = asyncio.create_task(read(readers, files))
    for _ in range(2):
        done, _ = await asyncio.wait([reading], timeout=0.05)
        assert not done
        reading.cancel()
    os.kill(pid, signal.SIGCONT)
    assert await reading == expected()
    assert reading.cancelling() == 2
    assert await read(readers, files) == expected()


async def test_no_file_stays_open(readers: Readers, files: JoinedFiles) -> None:
    await asyncio.gather(*(read(readers, files) for _ in range(4)))
    before = open_files()
    for row in range(3):
        await asyncio.gather(*(read(readers, files) for _ in range(4)))
        await test_a_client_that_is_gone_is_told(readers, files)
        (Path(files.folder) / f"{row + 5}.dat").unlink()
        await ask(readers, files.folder, body_of(files))
        (Path(files.folder) / f"{row + 5}.dat").write_bytes(bytes([row + 5]) * SIZE)
    assert open_files() == before


async def test_a_process_without_room_for_a_socket_says_so(
    readers: Readers, files: JoinedFiles
) -> None:
    assert await read(readers, files) == expected()
    (pid,) = processes()
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
    outcome, data = await ask(readers, files.folder, body_of(files))
    assert isinstance(outcome.error, OSError)
    assert (outcome.error.errno, data) == (errno.EMFILE, b"")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert await read(readers, files) == expected()
