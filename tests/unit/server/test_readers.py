"""Batches that processes read: right bytes, errors that travel, and no batch with two writers."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from manifests.errors import StoreError
from server.hosting.joined import BATCH_BYTES, JoinedFiles, Rows, StaleFilesError
from server.hosting.ranges import ByteRange
from server.hosting.readers import Readers

COUNT, SIZE = 40, 1000
BODY = (b"<", ByteRange(500, 30_500), b">")
LENGTH = 30_002


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
    found = Readers(2, answers=30)
    yield found
    await found.close()


def expected() -> bytes:
    content = b"".join(bytes([row]) * SIZE for row in range(COUNT))
    return b"<" + content[500:30_500] + b">"


async def read(readers: Readers, files: JoinedFiles) -> bytes:
    with readers.batch() as batch:
        return bytes(await batch.fill(files, BODY, LENGTH))


def processes() -> list[int]:
    """Our reading processes."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [
        int(pid)
        for pid in children
        if b"hosting.reader" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def kept_bytes(readers: Readers) -> int:
    return Path(f"/proc/self/fd/{readers.memory_fd}").stat().st_blocks * 512


async def test_many_batches_at_once_are_read_each_by_itself(
    readers: Readers, files: JoinedFiles
) -> None:
    found = await asyncio.gather(*(read(readers, files) for _ in range(25)))
    assert set(found) == {expected()}
    assert len(processes()) == 2


async def test_stale_files_are_named(readers: Readers, files: JoinedFiles) -> None:
    (Path(files.folder) / "3.dat").unlink()
    (Path(files.folder) / "7.dat").write_bytes(b"short")
    with pytest.raises(StaleFilesError) as caught:
        await read(readers, files)
    assert caught.value.names == ("3.dat", "7.dat")


async def test_an_error_of_the_disk_is_told(readers: Readers, files: JoinedFiles) -> None:
    for name in ("4.dat", "5.dat"):
        (Path(files.folder) / name).unlink()
    (Path(files.folder) / "4.dat").symlink_to("4.dat")
    with pytest.raises(StaleFilesError):
        await read(readers, files)
    folder = JoinedFiles(
        folder="x" * 5000, names=files.names, starts=files.starts, mtimes=None, inodes=None
    )
    with pytest.raises(OSError, match="File name too long"):
        await read(readers, folder)
    (Path(files.folder) / "4.dat").unlink()


async def test_a_process_that_is_gone_is_replaced(readers: Readers, files: JoinedFiles) -> None:
    assert await read(readers, files) == expected()
    for pid in processes():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(StoreError, match="was ended from outside"):
        await read(readers, files)
    assert await read(readers, files) == expected()


async def test_a_batch_is_nobodys_while_it_is_written_for_who_went_away(
    readers: Readers, files: JoinedFiles
) -> None:
    assert await read(readers, files) == expected()
    (pid,) = processes()
    os.kill(pid, signal.SIGSTOP)
    reading = asyncio.create_task(read(readers, files))
    for _ in range(5):
        await asyncio.sleep(0)
    for _ in range(2):
        reading.cancel()
        done, _ = await asyncio.wait([reading], timeout=0.05)
        assert not done
    os.kill(pid, signal.SIGCONT)
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await read(readers, files) == expected()


async def test_answers_are_bounded_and_their_memory_is_given_back(
    readers: Readers, files: JoinedFiles
) -> None:
    with ExitStack() as stack:
        batches = [stack.enter_context(readers.batch()) for _ in range(30)]
        assert len({batch.start for batch in batches}) == 30
        for batch in batches:
            await batch.fill(files, BODY, LENGTH)
        with pytest.raises(OSError, match="too many answers"), readers.batch():
            pass
    assert 0 < kept_bytes(readers) <= 16 * BATCH_BYTES
    with readers.batch():
        pass


async def test_a_place_whose_memory_could_not_be_had_is_there_the_next_time(
    files: JoinedFiles,
) -> None:
    only = Readers(1, answers=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # So that no further descriptor is to be had.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"), only.batch():
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert await read(only, files) == expected()
    await only.close()
