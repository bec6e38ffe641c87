"""Starting processes; worker processes before there is work for them, and when they are worth it.

A process takes a quarter of a second until it can begin, most of it imports.  So who knows that
there will be work starts them before it looks at its tree, and only the first one imports: the
others are its forks, made before it has threads or anything open.  Nothing heavy is imported here.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from typing import Self

from msgspec import Struct

from syncclient.pipes import STREAM_BYTES

# Worker processes pay from this many files or bytes on; below, the client does all itself.
_FILES_WORTH_WORKERS = 500
_BYTES_WORTH_WORKERS = 64 * 2**20


def workers_worth(files: int, size_bytes: int, jobs: int) -> int:
    """Worker processes: as many as the user says, else by the amount of work; 0 for none."""
    if jobs:
        return 0 if jobs == 1 else jobs
    return 2 if files >= _FILES_WORTH_WORKERS or size_bytes >= _BYTES_WORTH_WORKERS else 0


async def spawn(module: str) -> Process:
    """A process of this program that waits for messages on stdin, and ends when that does."""
    return await _start(module, stdin=PIPE, stdout=PIPE)


async def _start(
    module: str, *arguments: str, stdin: int, stdout: int, others: tuple[int, ...] = ()
) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        # Nothing is imported from the working directory, where a release may have put it.
        "-P",
        "-m",
        module,
        *arguments,
        stdin=stdin,
        stdout=stdout,
        pass_fds=others,
        limit=STREAM_BYTES,
        # Ctrl-C is for the client, which ends its processes in order.
        start_new_session=True,
    )


class Hatchling(Struct, frozen=True):
    """The near ends of the pipes of a worker process; it ends when ``writer`` is closed."""

    reader: asyncio.StreamReader
    writer: asyncio.WriteTransport


class Nest:
    """Worker processes that were started early; use as an async context manager."""

    def __init__(self) -> None:
        self._waiting: list[Hatchling] = []
        self._processes: list[Process] = []
        self._pipes: list[asyncio.ReadTransport] = []
        self._writers: list[asyncio.WriteTransport] = []
        self._taken = False

    async def __aenter__(self) -> Self:
        """Nothing is started before it is asked for."""
        return self

    async def fill(self, count: int) -> None:
        """Start so many; they wait for their setup."""
        if count < 1:
            return
        pipes = [(*os.pipe(), *os.pipe()) for _ in range(count)]
        try:
            (stdin, _, _, stdout), *others = pipes
            pairs = [f"{read},{write}" for read, _, _, write in others]
            passed = tuple(fd for read, _, _, write in others for fd in (read, write))
            process = await _start(
                "syncclient.worker", *pairs, stdin=stdin, stdout=stdout, others=passed
            )
            self._processes.append(process)
        except BaseException:
            for _, near_write, near_read, _ in pipes:
                os.close(near_write)
                os.close(near_read)
            raise
        finally:
            for far_read, _, _, far_write in pipes:
                os.close(far_read)
                os.close(far_write)
        self._waiting += [await self._near_ends(read, write) for _, write, read, _ in pipes]

    async def _near_ends(self, read: int, write: int) -> Hatchling:
        loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(limit=STREAM_BYTES)
        pipe, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", 0)
        )
        self._pipes.append(pipe)
        writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(write, "wb", 0))
        self._writers.append(writer)
        return Hatchling(reader, writer)

    async def take(self, count: int) -> list[Hatchling]:
        """So many of those that are there, or new ones."""
        await self.fill(count - len(self._waiting))
        self._taken = self._taken or count > 0
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    async def __aexit__(self, *_: object) -> None:
        """Let all end that did not yet, and wait for it."""
        for writer in self._writers:
            writer.close()
        for process in self._processes:
            if not self._taken and process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
            await process.wait()
        for pipe in self._pipes:
            pipe.close()
