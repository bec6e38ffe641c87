"""Blocking work off the event loop: threads for little of it, processes for much.

Listing a folder is Python and gains nothing from threads; hashing small files neither.  A process
costs 0.03 s to start, so it pays from some ten thousand files on (measured;
docs/explanation/performance.md).
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from threading import Event
from typing import Protocol, Self, TypeVar

from syncclient.crew import Crew

_FILES_WORTH_PROCESSES = 15_000
# Results waiting to be taken, for each process: bounds memory, keeps all of them busy.
_AHEAD = 8

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Promise(Protocol[R_co]):
    """A task under way."""

    def result(self) -> R_co:
        """Wait for what it comes to, and raise what it raises."""
        ...


async def in_thread(work: Callable[[], R], stop: Event | None = None) -> R:
    """Run blocking work in a thread; a cancel sets ``stop`` and waits for the end of the work.

    Nobody may take from a thread what it works on: the state, open files, the lock of the tree.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if stop is not None:
            stop.set()
        await asyncio.gather(running, return_exceptions=True)
        raise


class Pool:
    """Threads or processes, chosen by the amount of work; use as a context manager.

    Once ``stop`` is set no task begins: who asks for one meets CancelledError.  Nothing is started
    before the first task.  Belongs to one thread.
    """

    def __init__(self, files: int, jobs: int, stop: Event) -> None:
        self.jobs = jobs or min(os.cpu_count() or 1, 8)
        self._stop = stop
        self._crew: Crew | None = None
        self._threads: ThreadPoolExecutor | None = None
        if files >= _FILES_WORTH_PROCESSES and self.jobs > 1:
            self._crew = Crew(self.jobs, stop)
        else:
            self._threads = ThreadPoolExecutor(self.jobs)

    def __enter__(self) -> Self:
        """Nothing is started before the first task."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give up what has not begun; wait for the rest."""
        if self._crew is not None:
            self._crew.close()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def submit(self, function: Callable[[T], R], argument: T) -> Promise[R]:
        """Start one task."""
        if self._stop.is_set():
            raise CancelledError
        if self._crew is not None:
            return self._crew.submit(function, argument)
        if self._threads is None:
            raise CancelledError
        return self._threads.submit(function, argument)

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Results in order; only so many tasks ahead as keep every process busy."""
        waiting: deque[Promise[R]] = deque()
        for item in items:
            waiting.append(self.submit(function, item))
            if len(waiting) > _AHEAD * self.jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
