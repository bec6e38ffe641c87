"""Reading in processes: threads of one process read small files one at a time, and in turns.

Of the 7 microseconds that a file of 10 KB takes, half are Python's; threads that wait for each
other there take twice to four times as long, all of them together.  So batches are read by a few
processes, each by itself, into memory that the server shares with them.

Rules:

* A process reads one batch at a time; it is started when all others are busy.
* A batch belongs to one answer until that is sent, and to nobody while a process still writes.
* A process that is gone is missed by one answer, and replaced for the next one.
"""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from manifests.errors import StoreError
from server.hosting.joined import BATCH_BYTES, JoinedFiles, StaleFilesError, runs_of
from server.hosting.ranges import ByteRange
from server.searching.frames import LENGTH, pack, unpack

# Batches whose memory is kept for the next answer: to get it anew costs as much as to fill it.
_SPARE: Final = 16
_ANSWER_BYTES: Final = 2**16
# Nothing is imported from the working directory, where anything may lie.
_COMMAND: Final = (sys.executable, "-P", "-m", "server.hosting.reader")


class Readers:
    """Up to ``most`` processes that read for up to ``answers`` at a time.

    Belongs to the loop that it is used in.  Only answers that are under way take memory.
    """

    def __init__(self, most: int, answers: int) -> None:
        # The one used last is the one that runs.
        self._idle: asyncio.LifoQueue[_Reader] = asyncio.LifoQueue()
        self._readers = [_Reader() for _ in range(most)]
        for reader in reversed(self._readers):
            self._idle.put_nowait(reader)
        self._memory: mmap.mmap | None = None
        self.memory_fd = -1
        self._size_bytes = answers * BATCH_BYTES
        self._free = list(range(self._size_bytes, 0, -BATCH_BYTES))
        self._spare: list[int] = []

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """A batch for one answer; nothing of it may be read or sent afterwards.

        OSError (ENOBUFS) if there are as many answers under way as may be.
        """
        if not (free := self._spare or self._free):
            raise OSError(errno.ENOBUFS, "too many answers at once")
        # First what may fail: a place that was taken and not given back would be lost for good.
        memory = self._memory or self._share()
        stop = free.pop()
        view = memoryview(memory)[stop - BATCH_BYTES : stop]
        try:
            yield Batch(self, stop - BATCH_BYTES, view)
        finally:
            view.release()
            if len(self._spare) < _SPARE:
                self._spare.append(stop)
            else:
                memory.madvise(mmap.MADV_REMOVE, stop - BATCH_BYTES, BATCH_BYTES)
                self._free.append(stop)

    def _share(self) -> mmap.mmap:
        fd = os.memfd_create("batches")
        try:
            os.truncate(fd, self._size_bytes)
            self._memory = mmap.mmap(fd, 0)
        except BaseException:
            os.close(fd)
            raise
        self.memory_fd = fd
        return self._memory

    async def read(
        self, start: int, size_bytes: int, files: JoinedFiles, body: Sequence[bytes | ByteRange]
    ) -> None:
        """Have some bytes of files read to ``start`` in the shared memory.

        Errors as :func:`joined.fill`; StoreError if the process ended.  If cancelled, it first
        waits until nobody writes there any more.
        """
        task = pack((start, size_bytes, files.folder, runs_of(files, body)))
        reading = asyncio.create_task(self._ask(task))
        try:
            answer = await asyncio.shield(reading)
        except asyncio.CancelledError:
            # However often it is cancelled: the next one to have the batch would get these bytes.
            while not reading.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([reading])
            raise
        if isinstance(answer, OSError):
            raise answer
        if answer:
            raise StaleFilesError(files.folder, answer)

    async def _ask(self, task: bytes) -> list[str] | OSError:
        reader = await self._idle.get()
        try:
            return await reader.ask(task, self.memory_fd)
        finally:
            self._idle.put_nowait(reader)

    async def close(self) -> None:
        """End all processes."""
        await asyncio.gather(*(reader.end() for reader in self._readers))
        if self._memory is not None:
            self._memory.close()
            os.close(self.memory_fd)


class Batch:
    """Shared memory for BATCH_BYTES of one answer, turn after turn."""

    def __init__(self, readers: Readers, start: int, view: memoryview) -> None:
        self._readers = readers
        self.start = start
        self._view = view

    async def fill(
        self, files: JoinedFiles, body: Sequence[bytes | ByteRange], size_bytes: int
    ) -> memoryview:
        """The ``size_bytes`` of a turn; they stay until the next one.  Errors as for reading."""
        await self._readers.read(self.start, size_bytes, files, body)
        return self._view[:size_bytes]


class _Reader:
    """One process, which comes when it is first needed."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._socket: socket.socket | None = None

    async def ask(self, task: bytes, memory_fd: int) -> list[str] | OSError:
        """What came of a task; StoreError if the process ended over it."""
        channel = self._socket or await self._start(memory_fd)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(channel, task)
            data = await self._receive(channel)
        except (OSError, EOFError) as error:
            await self.end()
            message = "a process that reads files was ended from outside"
            raise StoreError(message, hint="It is started again.") from error
        answer: list[str] | OSError = unpack(data)
        return answer

    async def _receive(self, channel: socket.socket) -> bytes:
        loop, data = asyncio.get_running_loop(), b""
        while len(data) < LENGTH.size or len(data) - LENGTH.size < LENGTH.unpack_from(data)[0]:
            part = await loop.sock_recv(channel, _ANSWER_BYTES)
            if not part:
                raise EOFError
            data += part
        return data[LENGTH.size :]

    async def _start(self, memory_fd: int) -> socket.socket:
        own, other = socket.socketpair()
        own.settimeout(0)
        with other:
            self._process = await asyncio.create_subprocess_exec(
                *_COMMAND,
                str(memory_fd),
                stdin=other.fileno(),
                pass_fds=(memory_fd,),
                # Ctrl-C is for the server, which ends its processes.
                start_new_session=True,
            )
        self._socket = own
        return own

    async def end(self) -> None:
        """End the process, if there is one, and wait until it is gone."""
        process, self._process = self._process, None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if process is not None:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
            await process.wait()
