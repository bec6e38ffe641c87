"""Turns of an answer: every byte once, whatever the socket takes; of a file that changed none."""

from __future__ import annotations

import errno
import os
import random
import socket
from array import array
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

import pytest

from server.hosting.reading import BATCH_BYTES, Outcome, Run, Turn, send_turn

SIZES = (3, 0, 1, 5, 0, 0, 2, 4, 0)
LARGE = 3 * 2**20
BUFFER = memoryview(bytearray(BATCH_BYTES))
_MOST_BYTES = 2**24


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The socket of a client, which does not block, and the client's end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0)
        yield ours, theirs


def written(folder: Path, sizes: tuple[int, ...]) -> tuple[Run, bytes]:
    source = random.Random(1)  # noqa: S311 (test data)
    parts = [source.randbytes(size) for size in sizes]
    for row, data in enumerate(parts):
        (folder / f"{row}.dat").write_bytes(data)
    stats = [(folder / f"{row}.dat").stat() for row in range(len(sizes))]
    run = Run(
        names="\0".join(f"{row}.dat" for row in range(len(sizes))),
        starts=array("q", accumulate(sizes, initial=0)).tobytes(),
        mtimes=array("q", [found.st_mtime_ns for found in stats]).tobytes(),
        inodes=array("Q", [found.st_ino for found in stats]).tobytes(),
        offset=0,
        size_bytes=sum(sizes),
    )
    return run, b"".join(parts)


def taken(client: socket.socket) -> bytes:
    """What has come."""
    return client.recv(_MOST_BYTES, socket.MSG_DONTWAIT)


def test_every_part_of_small_files_is_sent(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    run, content = written(tmp_path, SIZES)
    whole = b"<" + content + b">"
    for start in range(len(whole)):
        turn = Turn(os.fspath(tmp_path), (b"<", run, b">"), start, is_first=True)
        outcome = send_turn(ours.fileno(), turn, BUFFER)
        assert outcome == Outcome(len(whole) - start)
        assert taken(theirs) == whole[start:]


def test_a_run_begins_and_ends_within_files(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    run, content = written(tmp_path, SIZES)
    for offset in range(3):
        for stop in range(offset + 1, len(content) + 1):
            part = run._replace(offset=offset, size_bytes=stop - offset)
            turn = Turn(os.fspath(tmp_path), (part,), 0, is_first=False)
            assert send_turn(ours.fileno(), turn, BUFFER) == Outcome(stop - offset)
            assert taken(theirs) == content[offset:stop]


SHAPES = {
    "small files": (10_000,) * 300,
    "large files": (LARGE, LARGE),
    "a large file among small ones": (7, LARGE, 100_000),
}


@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES)
def test_a_turn_goes_on_where_the_socket_was_full(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket], sizes: tuple[int, ...]
) -> None:
    ours, theirs = pair
    run, content = written(tmp_path, sizes)
    received, turns = b"", 0
    while len(received) < 4 + len(content):
        turn = Turn(os.fspath(tmp_path), (b"head", run), len(received), is_first=not received)
        outcome = send_turn(ours.fileno(), turn, BUFFER)
        assert (outcome.stale, outcome.error) == ("", None)
        part = taken(theirs)
        assert len(part) == outcome.sent_bytes
        received, turns = received + part, turns + 1
    assert received == b"head" + content
    assert turns > 1


def overwrite(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def truncate(path: Path) -> None:
    """What a stat of before would not tell."""
    found = path.stat()
    os.truncate(path, found.st_size - 1)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.mark.parametrize("change", [overwrite, truncate, Path.unlink])
@pytest.mark.parametrize("sizes", [(10_000,) * 20, (100, LARGE)])
def test_nothing_is_sent_of_an_answer_with_a_stale_file_in_its_first_batch(
    tmp_path: Path,
    pair: tuple[socket.socket, socket.socket],
    sizes: tuple[int, ...],
    change: Callable[[Path], None],
) -> None:
    run, _ = written(tmp_path, sizes)
    change(tmp_path / "1.dat")
    turn = Turn(os.fspath(tmp_path), (b"head", run), 0, is_first=True)
    assert send_turn(pair[0].fileno(), turn, BUFFER) == Outcome(0, stale="1.dat")


@pytest.mark.parametrize("change", [overwrite, truncate, Path.unlink])
def test_a_large_file_that_changed_is_sent_no_further(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket], change: Callable[[Path], None]
) -> None:
    run, _ = written(tmp_path, (LARGE,))
    change(tmp_path / "0.dat")
    for start in (1, LARGE // 2, LARGE - 1):
        turn = Turn(os.fspath(tmp_path), (run,), start, is_first=False)
        assert send_turn(pair[0].fileno(), turn, BUFFER) == Outcome(0, stale="0.dat")


def test_the_end_of_a_large_file_is_held_until_it_was_looked_at(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = written(tmp_path, (LARGE,))

    def take_all_and_change(_out: int, _in: int, _offset: int, count: int) -> int:
        overwrite(tmp_path / "0.dat")
        return count

    monkeypatch.setattr(os, "sendfile", take_all_and_change)
    turn = Turn(os.fspath(tmp_path), (run,), 0, is_first=False)
    outcome = send_turn(pair[0].fileno(), turn, BUFFER)
    assert 0 < outcome.sent_bytes < LARGE
    assert outcome.stale == "0.dat"


def test_a_client_that_is_gone_is_no_error_of_the_disk(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    theirs.close()
    for sizes in ((10,), (LARGE,)):
        run, _ = written(tmp_path, sizes)
        outcome = send_turn(
            ours.fileno(), Turn(os.fspath(tmp_path), (run,), 0, is_first=False), BUFFER
        )
        assert outcome.sent_bytes == 0
        assert isinstance(outcome.error, ConnectionError)


def test_whatever_a_socket_says_is_no_error_of_the_disk(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = written(tmp_path, (10,))

    def is_unreachable(_fd: int, _data: memoryview) -> int:
        raise OSError(errno.EHOSTUNREACH, "No route to host")

    monkeypatch.setattr(os, "write", is_unreachable)
    turn = Turn(os.fspath(tmp_path), (run,), 0, is_first=True)
    assert isinstance(send_turn(pair[0].fileno(), turn, BUFFER).error, ConnectionError)
