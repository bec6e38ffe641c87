"""The workers of a server: a few processes, started when first needed, and the queue before them.

Rules:

* A worker has one question at a time, so what becomes of one query is no other query's affair.
* Who asks and goes away ends his search; the worker is free again when it has noticed.
* A worker that does not stop when it should is killed, and another one takes its place.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from typing import Any, Final

from manifests.errors import SyncError
from server.searching.frames import GIVE_UP, LENGTH, pack, unpack
from server.searching.question import (
    Found,
    Question,
    Reason,
    Reply,
    SearchLimits,
    SearchRefusedError,
)

# Starting Python and importing numpy takes half a second; a machine under load may take longer.
_START_S: Final = 30.0
_COMMAND: Final = (
    sys.executable,
    # Nothing is imported from the working directory, where anything may lie.
    "-P",
    "-m",
    "server.searching.worker",
)
# Each thread of the library for linear algebra, which nothing here uses, would map 64 MiB.
_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1"}
_LOST: Final = (EOFError, ConnectionError)


class SearchPool:
    """Answers questions in worker processes; belongs to the loop that it is used in."""

    def __init__(self, limits: SearchLimits) -> None:
        self._limits = limits
        # The one used last has most at hand.
        self._idle: asyncio.LifoQueue[WorkerProcess] = asyncio.LifoQueue()
        self._workers = [WorkerProcess(limits) for _ in range(limits.workers)]
        for worker in reversed(self._workers):
            self._idle.put_nowait(worker)
        self._answering: set[asyncio.Task[Found]] = set()
        self._waiting = 0

    async def ask(self, question: Question) -> Found:
        """The answer; if cancelled, the search ends as soon as its worker notices.

        QueryError, SearchRefusedError, or what is wrong with the repository.
        """
        worker = await self._take()
        answering = asyncio.create_task(self._answer(worker, question))
        self._answering.add(answering)
        answering.add_done_callback(self._answering.discard)
        try:
            return await asyncio.shield(answering)
        except asyncio.CancelledError:
            if not answering.done():
                worker.give_up()
            raise

    async def close(self) -> None:
        """End all workers, whatever they are at."""
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)
        await asyncio.gather(*(worker.end() for worker in self._workers))

    async def _take(self) -> WorkerProcess:
        """A worker that is free and runs."""
        if self._idle.empty() and self._waiting >= self._limits.waiting:
            raise _busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._limits.wait_s):
                worker = await self._idle.get()
        except TimeoutError:
            raise _busy() from None
        finally:
            self._waiting -= 1
        try:
            await worker.start()
        except BaseException:
            self._idle.put_nowait(worker)
            raise
        return worker

    async def _answer(self, worker: WorkerProcess, question: Question) -> Found:
        try:
            return await worker.ask(question)
        finally:
            self._idle.put_nowait(worker)


def _busy() -> SearchRefusedError:
    return SearchRefusedError(
        Reason.BUSY, "too many searches at once", hint="Ask again in a moment."
    )


class WorkerProcess:
    """One worker; its process comes and goes."""

    def __init__(self, limits: SearchLimits) -> None:
        self._limits = limits
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Have a process that is ready, unless there is one; SearchRefusedError if it fails."""
        if self._process is not None and self._process.returncode is None:
            return
        self._process = await asyncio.create_subprocess_exec(
            *_COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD},
            # Ctrl-C is for the server, which ends its workers.
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_START_S):
                await self._tell(self._limits)
        except (*_LOST, TimeoutError) as error:
            await self.end()
            raise _ended() from error
        except BaseException:
            await self.end()
            raise

    async def ask(self, question: Question) -> Found:
        """The answer of the process; errors as :meth:`SearchPool.ask`."""
        try:
            async with asyncio.timeout(self._limits.time_s + self._limits.grace_s):
                reply: Reply = await self._tell(question)
        except TimeoutError as error:
            await self.end()
            message = "the query took too long, and was ended by force"
            raise SearchRefusedError(Reason.TIME, message) from error
        except _LOST as error:
            await self.end()
            raise _ended() from error
        except asyncio.CancelledError:
            await self.end()
            raise
        if reply.leaving:
            await self.end()
        if isinstance(reply.outcome, SyncError):
            raise reply.outcome
        return reply.outcome

    def give_up(self) -> None:
        """Tell the process that nobody waits for its answer."""
        self._write(GIVE_UP)

    async def end(self) -> None:
        """Kill the process, if there is one, and wait until it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        # Also closes the pipes.
        await process.communicate()

    async def _tell(self, message: object) -> Any:  # noqa: ANN401 (what it answers)
        self._write(pack(message))
        if self._process is None or self._process.stdout is None:
            raise EOFError
        stream = self._process.stdout
        (length,) = LENGTH.unpack(await stream.readexactly(LENGTH.size))
        return unpack(await stream.readexactly(length))

    def _write(self, data: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(data)


def _ended() -> SearchRefusedError:
    return SearchRefusedError(Reason.ENDED, "the search process ended", hint="Ask again.")
