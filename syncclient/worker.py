"""Where batches run: in this process, or in worker processes for bulk work.

One Python process creates about 20,000 small files a second and two twice that (measured; threads
add nothing), so large jobs are spread over processes.  A worker is ``python -m
syncclient.worker``; it reads pickled messages from its stdin and writes outcomes to its stdout,
ends when its stdin does, and so never outlives the client.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Protocol, Self

from msgspec import Struct

from manifests.errors import SyncError
from syncclient.batch import Batch, Outcome
from syncclient.fetch import Runner
from syncclient.hatch import Hatchling, Nest
from syncclient.output import leave
from syncclient.pipes import STREAM_BYTES, messages, packed, write_all
from syncclient.sources.host import HttpOptions
from syncclient.sources.http import HttpSource
from syncclient.sources.limits import TokenBucket

_STDIN, _STDOUT = 0, 1
# New objects after which garbage is looked for: little of it has cycles.
_GARBAGE = 50_000


class WorkerSetup(Struct, frozen=True, kw_only=True):
    """What every worker is told at its start; ``urls`` are the hosts, in order."""

    run: str
    urls: tuple[str, ...]
    options: HttpOptions


class Worker(Protocol):
    """Runs batches; several may be under way at once."""

    async def run(self, batches: Sequence[Batch], host: int | None) -> list[Outcome]:
        """Run some batches from the host of that number, or from local trees only."""
        ...


class LocalWorker:
    """Runs batches in this process, with sources opened on first use."""

    def __init__(self, setup: WorkerSetup, limiter: TokenBucket) -> None:
        self._setup = setup
        self._limiter = limiter
        self._runner = Runner(setup.run)
        self._stack = AsyncExitStack()
        self._sources: dict[int, HttpSource] = {}

    async def __aenter__(self) -> Self:
        """Open the runner."""
        await self._stack.enter_async_context(self._runner)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close sources, then the runner."""
        await self._stack.aclose()

    async def _source(self, host: int) -> HttpSource:
        if host not in self._sources:
            source = HttpSource(
                self._setup.urls[host], self._setup.options, self._limiter, self._runner.intake
            )
            self._sources[host] = source
            await self._stack.enter_async_context(source)
        return self._sources[host]

    async def run(self, batches: Sequence[Batch], host: int | None) -> list[Outcome]:
        """Run some batches here."""
        source = None if host is None else await self._source(host)
        return await self._runner.run(batches, source)


class ProcessWorker:
    """Runs batches in a process of its own."""

    def __init__(self, process: Hatchling) -> None:
        self._process = process
        self._waiting: dict[int, asyncio.Future[list[Outcome]]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._serial = 0

    @classmethod
    def start(cls, process: Hatchling, setup: WorkerSetup, rate_bytes_s: float) -> Self:
        """Hand a process its setup."""
        worker = cls(process)
        worker._send((setup, rate_bytes_s))
        worker._reader = asyncio.create_task(worker._read())
        return worker

    def _send(self, message: object) -> None:
        # The pipe may still take bytes that nobody will read; the reader has seen the end.
        ended = self._reader is not None and self._reader.done()
        if ended or self._process.writer.is_closing():
            raise _ended()
        self._process.writer.write(packed(message))

    async def run(self, batches: Sequence[Batch], host: int | None) -> list[Outcome]:
        """Run some batches there; a cancel here cancels them there too."""
        self._serial += 1
        serial = self._serial
        future: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self._waiting[serial] = future
        try:
            self._send(("run", serial, batches, host))
            return await future
        except asyncio.CancelledError:
            with suppress(SyncError):
                self._send(("cancel", serial))
            raise
        finally:
            self._waiting.pop(serial, None)

    async def _read(self) -> None:
        try:
            async for serial, outcomes in messages(self._process.reader):
                future = self._waiting.get(serial)
                if future is not None and not future.done():
                    future.set_result(outcomes)
        finally:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(_ended())

    async def close(self) -> None:
        """Let running batches be cancelled, and wait for the process to end."""
        self._process.writer.close()
        if self._reader is not None:
            await self._reader


def _ended() -> SyncError:
    return SyncError(
        "a worker process ended unexpectedly",
        hint="Run the same command again; what is there stays.",
    )


@asynccontextmanager
async def open_workers(
    setup: WorkerSetup, processes: int, limiter: TokenBucket, nest: Nest
) -> AsyncIterator[list[Worker]]:
    """Workers for one transfer: ``processes`` of them, or this process for 0."""
    async with AsyncExitStack() as stack:
        if processes == 0:
            yield [await stack.enter_async_context(LocalWorker(setup, limiter))]
            return
        workers: list[Worker] = []
        for process in await nest.take(processes):
            rate_bytes_s = limiter.rate_bytes_s / processes
            worker = ProcessWorker.start(process, setup, rate_bytes_s)
            stack.push_async_callback(worker.close)
            workers.append(worker)
        yield workers


# --------------------------------------------------------------------------- inside the process


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    stream = asyncio.StreamReader(limit=STREAM_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), sys.stdin.buffer)
    received = messages(stream)
    told = await anext(received, None)
    if told is None:
        # There was nothing to do for this one.
        return
    setup, rate_bytes_s = told
    tasks: dict[int, asyncio.Task[None]] = {}
    # An error nobody thought of ends the group, the process, and so the client's waiting for it.
    async with (
        LocalWorker(setup, TokenBucket(rate_bytes_s)) as worker,
        asyncio.TaskGroup() as group,
    ):

        async def run(serial: int, batches: Sequence[Batch], host: int | None) -> None:
            outcomes = await worker.run(batches, host)
            # Outcomes are small and the client reads at once, so this does not hold up the loop.
            write_all(_STDOUT, packed((serial, outcomes)))

        async for message in received:
            if message[0] == "run":
                task = group.create_task(run(*message[1:]))
                tasks[message[1]] = task
                task.add_done_callback(partial(_forget, tasks, message[1]))
            elif message[1] in tasks:
                tasks[message[1]].cancel()
        for task in list(tasks.values()):
            task.cancel()


def _forget(tasks: dict[int, asyncio.Task[None]], serial: int, _: asyncio.Task[None]) -> None:
    tasks.pop(serial, None)


def main() -> None:
    """Entry point of a worker process; each argument is the pair of pipes of a fork of it."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # What is here is needed to the end: nobody has to look through it, or copy its pages.
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    forks = _fork([tuple(map(int, word.split(","))) for word in sys.argv[1:]])
    asyncio.run(_serve())
    # The client waits for the end of this, and may not have ended the forks yet.
    os.close(_STDOUT)
    for pid in forks:
        os.waitpid(pid, 0)
    leave(0)


def _fork(pipes: list[tuple[int, ...]]) -> list[int]:
    """Make a process like this one for each pair of pipes, its stdin and stdout; their ids."""
    forks: list[int] = []
    for stdin, stdout in pipes:
        if not (pid := os.fork()):
            os.dup2(stdin, _STDIN)
            os.dup2(stdout, _STDOUT)
            forks.clear()
            break
        forks.append(pid)
    for fd in (fd for ends in pipes for fd in ends):
        os.close(fd)
    return forks


if __name__ == "__main__":
    main()
