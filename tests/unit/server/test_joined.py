"""Files read as one run of bytes: every byte once, in order, and in turns of bounded size."""

from __future__ import annotations

import os
from http import HTTPStatus
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.hosting.joined import (
    TURN_BYTES,
    TURN_FILES,
    JoinedFiles,
    Rows,
    stale_names,
    touched_rows,
)
from server.hosting.ranges import ByteRange, Reply
from server.hosting.reading import Run
from server.hosting.sending import turns

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


def test_only_files_that_bytes_come_from_are_touched() -> None:
    files = joined(SIZES)
    assert touched_rows(files, [ByteRange(0, 15)]).tolist() == [0, 2, 3, 6, 7]
    assert touched_rows(files, [ByteRange(3, 4), ByteRange(8, 10)]).tolist() == [2, 3, 6]
    assert touched_rows(files, []).tolist() == []


def test_one_of_the_files_alone() -> None:
    alone = joined(SIZES).only(3)
    assert (alone.size_bytes, alone.names(slice(0, 1))) == (5, ["3.dat"])


def test_stale_files_are_named(tmp_path: Path) -> None:
    files = joined((1,) * 5, tmp_path)
    for row in (0, 2, 4):
        (tmp_path / f"{row}.dat").write_bytes(b"!" * (1 + row // 4))
    assert stale_names(files, slice(0, 5)) == ["1.dat", "3.dat", "4.dat"]


small_and_large = st.lists(
    st.one_of(st.integers(0, 3), st.integers(0, 100_000), st.integers(0, 3 * TURN_BYTES)),
    min_size=1,
    max_size=12,
).filter(any)


@given(small_and_large, st.integers(0, 3 * TURN_FILES), st.data())
def test_turns_cover_every_byte_once(
    sizes: list[int], more_files: int, data: st.DataObject
) -> None:
    files = joined((*sizes, *(1,) * more_files))
    start = data.draw(st.integers(0, files.size_bytes - 1))
    stop = data.draw(st.integers(start + 1, files.size_bytes))
    body = (b"part", ByteRange(start, stop), b"tail")
    reply = Reply(status=HTTPStatus.OK, headers={}, body=body)
    found = list(turns(files, reply, b"head"))
    assert found[0][:2] == [b"head", b"part"]
    assert found[-1][-1] == b"tail"
    place = start
    for turn in found:
        runs = [item for item in turn if isinstance(item, Run)]
        assert sum(run.size_bytes for run in runs) < 2 * TURN_BYTES
        assert sum(run.files for run in runs) < 2 * TURN_FILES
        for run in runs:
            first = int(run.names.partition(".")[0])
            assert files.starts[first] + run.offset == place
            expected = np.diff(files.starts)[first : first + run.files]
            assert np.diff(np.frombuffer(run.starts, np.int64)).tolist() == expected.tolist()
            place += run.size_bytes
    assert place == stop
