"""Files read as one run of bytes: every byte once, in order, and in turns of bounded size."""

from __future__ import annotations

import os
import random
import socket
from http import HTTPStatus
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.hosting.joined import (
    BATCH_BYTES,
    HELD_BYTES,
    LARGE_BYTES,
    JoinedFiles,
    Rows,
    StaleFilesError,
    fill,
    push_large,
    touched_rows,
)
from server.hosting.ranges import ByteRange, Reply
from server.hosting.sending import Stretch, turns

SIZES = (3, 0, 1, 5, 0, 0, 2, 4, 0)


def joined(sizes: tuple[int, ...], folder: Path = Path("/nowhere")) -> JoinedFiles:
    def names(rows: Rows) -> list[str]:
        return [f"{row}.dat" for row in np.arange(len(sizes))[rows].tolist()]

    return JoinedFiles(
        folder=os.fspath(folder),
        names=names,
        starts=np.cumsum([0, *sizes], dtype=np.int64),
        mtimes=None,
        inodes=None,
    )


def written(sizes: tuple[int, ...], folder: Path) -> tuple[JoinedFiles, bytes]:
    source = random.Random(1)  # noqa: S311 (test data)
    parts = [source.randbytes(size) for size in sizes]
    for row, data in enumerate(parts):
        (folder / f"{row}.dat").write_bytes(data)
    return joined(sizes, folder), b"".join(parts)


def test_every_range_of_small_files_is_read(tmp_path: Path) -> None:
    files, content = written(SIZES, tmp_path)
    for start in range(len(content)):
        for stop in range(start + 1, len(content) + 1):
            found = fill(files, [b"<", ByteRange(start, stop), b">"])
            assert found == b"<" + content[start:stop] + b">"


def test_one_of_the_files_alone(tmp_path: Path) -> None:
    files, content = written(SIZES, tmp_path)
    alone = files.only(3)
    assert alone.size_bytes == 5
    assert fill(alone, [ByteRange(1, 4)]) == content[5:8]


def test_only_files_that_bytes_come_from_are_touched() -> None:
    files = joined(SIZES)
    assert touched_rows(files, [ByteRange(0, 15)]).tolist() == [0, 2, 3, 6, 7]
    assert touched_rows(files, [ByteRange(3, 4), ByteRange(8, 10)]).tolist() == [2, 3, 6]
    assert touched_rows(files, []).tolist() == []


def test_all_stale_files_of_a_batch_are_named_once(tmp_path: Path) -> None:
    files, _ = written(SIZES, tmp_path)
    for row in (0, 1, 6):
        (tmp_path / f"{row}.dat").unlink()
    with pytest.raises(StaleFilesError) as caught:
        fill(files, [ByteRange(0, 15), ByteRange(0, 2)])
    assert (caught.value.names, caught.value.count) == (("0.dat", "6.dat"), 2)


large_and_small = st.lists(
    st.one_of(
        st.integers(0, 3),
        st.integers(1, LARGE_BYTES - 1),
        st.integers(LARGE_BYTES - 1, LARGE_BYTES + 1),
        st.integers(LARGE_BYTES, 20 * LARGE_BYTES),
    ),
    min_size=1,
    max_size=12,
).filter(any)


@given(large_and_small, st.data())
def test_turns_cover_every_byte_once_and_end_with_a_look_at_the_files(
    sizes: list[int], data: st.DataObject
) -> None:
    files = joined(tuple(sizes))
    start = data.draw(st.integers(0, files.size_bytes - 1))
    stop = data.draw(st.integers(start + 1, files.size_bytes))
    found = list(turns(files, answer(b"head", ByteRange(start, stop), b"tail")))
    sent = [found.wanted for found in found if isinstance(found, Stretch)]
    for turn in found:
        if not isinstance(turn, Stretch):
            assert turn.size_bytes <= BATCH_BYTES + len(b"headtail")
            sent += [item for item in turn.body if isinstance(item, ByteRange)]
    sent.sort(key=lambda item: item.start)
    assert (sent[0].start, sent[-1].stop) == (start, stop)
    assert all(one.stop == next_.start for one, next_ in pairwise(sent))
    assert not isinstance(found[-1], Stretch)


def answer(*body: bytes | ByteRange) -> Reply:
    return Reply(status=HTTPStatus.OK, headers={}, body=body)


@given(large_and_small)
def test_a_stretch_lies_in_one_file_and_leaves_its_end(sizes: list[int]) -> None:
    files = joined(tuple(sizes))
    for turn in turns(files, answer(ByteRange(0, files.size_bytes))):
        if isinstance(turn, Stretch):
            assert turn.wanted.start == files.starts[turn.row]
            assert turn.wanted.stop == files.starts[turn.row + 1] - HELD_BYTES


def test_sendfile_takes_no_more_than_the_socket(tmp_path: Path) -> None:
    files, content = written((2 * LARGE_BYTES,), tmp_path)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0)
        received, offset = b"", 5
        while offset < len(content):
            count = push_large(ours.fileno(), files, 0, offset, len(content) - offset)
            received += theirs.recv(count, socket.MSG_WAITALL)
            offset += count
        assert received == content[5:]
        assert push_large(ours.fileno(), files, 0, 0, 10) == 10
        (tmp_path / "0.dat").write_bytes(b"shorter")
        with pytest.raises(StaleFilesError):
            push_large(ours.fileno(), files, 0, 0, 10)
