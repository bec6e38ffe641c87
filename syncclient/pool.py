"""Blocking work off the event loop: threads for little of it, processes for much.

Listing a folder is Python and gains nothing from threads; hashing small files neither.  A process
costs 0.3 s to start, so it pays from some ten thousand files on (measured;
docs/explanation/performance.md).
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Self, TypeVar

from manifests.errors import StoreError
from syncclient.tree import Listing, hash_open, list_bucket, open_below, open_regular

_FILES_WORTH_PROCESSES = 30_000
# Results waiting to be taken, for each process: bounds memory, keeps all of them busy.
_AHEAD = 8

T = TypeVar("T")
R = TypeVar("R")


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
    """An executor chosen by the amount of work; use as a context manager.

    Once ``stop`` is set no task begins: who asks for one meets CancelledError.
    """

    def __init__(self, files: int, jobs: int, stop: Event) -> None:
        self.jobs = jobs or min(os.cpu_count() or 1, 8)
        self._stop = stop
        self._executor: Executor
        if files >= _FILES_WORTH_PROCESSES and self.jobs > 1:
            context = multiprocessing.get_context("spawn")
            # Ctrl-C is for the client, which ends its processes in order.
            ignore = (signal.SIGINT, signal.SIG_IGN)
            self._executor = ProcessPoolExecutor(
                self.jobs, mp_context=context, initializer=signal.signal, initargs=ignore
            )
        else:
            self._executor = ThreadPoolExecutor(self.jobs)

    def __enter__(self) -> Self:
        """Nothing is started before the first task."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give up what has not begun; wait for the rest."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def submit(self, function: Callable[..., R], *args: object) -> Future[R]:
        """Start one task."""
        if self._stop.is_set():
            raise CancelledError
        return self._executor.submit(function, *args)

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Results in order; only so many tasks ahead as keep every process busy."""
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(self.submit(function, item))
            if len(waiting) > _AHEAD * self.jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


FolderTask = tuple[str, tuple[str, ...]]
HashTask = tuple[str, tuple[str, ...], list[str]]


def list_task(task: FolderTask) -> Listing:
    """The listing of one bucket folder: (root, folder names)."""
    try:
        return list_bucket(*task)
    except OSError as error:
        raise unlistable(*task, error) from error


def unlistable(root: str, parts: tuple[str, ...], error: OSError) -> StoreError:
    """What to tell about a folder that the system does not list; nothing is deduced from it."""
    message = f"{Path(root, *parts)}: {error.strerror}"
    return StoreError(message, hint="A folder that cannot be listed is never read as empty.")


def hash_task(task: HashTask) -> list[bytes | None]:
    """Digests of some files of one folder; None for one that cannot be read or is changing.

    StoreError for a folder that cannot be opened, but for one that does not exist.
    """
    root, parts, names = task
    try:
        root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            folder = open_below(root_fd, parts)
        finally:
            os.close(root_fd)
    except FileNotFoundError:
        return [None] * len(names)
    except OSError as error:
        raise unlistable(root, parts, error) from error
    try:
        return [_digest(name, folder) for name in names]
    finally:
        os.close(folder)


def _digest(name: str, folder: int) -> bytes | None:
    with suppress(OSError, StoreError):
        fd = open_regular(name, dir_fd=folder)
        try:
            return hash_open(fd, with_chunks=False).digest
        finally:
            os.close(fd)
    return None
