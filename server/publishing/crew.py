"""Workers for a publish: this process, a pool of processes, or any other Executor.

Tasks are handed out a window at a time, since a task carries what is remembered of its bucket and
millions of files must not wait in memory; results come as they are ready.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from manifests.errors import ConfigError, StoreError

# Tasks in flight for each worker: one at work, one waiting so that no worker ever does.
_DEPTH: Final = 3
_VALUES_BETWEEN_COLLECTIONS: Final = 100_000
# A fork has imported everything: 0.01 s instead of 0.35 s of processor time for each process.
# Elsewhere libraries of the system do not live through one.
_START: Final = "fork" if sys.platform == "linux" else "spawn"

Task = TypeVar("Task")
Result = TypeVar("Result")


class Crew:
    """A context in which tasks are done; a pool of processes starts with the first of them."""

    def __init__(
        self, jobs: int, *, eager: bool = False, cluster: tuple[Executor, int] | None = None
    ) -> None:
        """Use a pool of ``jobs`` processes, or a ``cluster``: an executor and its workers.

        An ``eager`` crew leaves to its pool also the little work that one process had done sooner.
        """
        self._jobs = jobs
        self._cluster = cluster
        self._pool: ProcessPoolExecutor | None = None
        self._client: Any = None
        self.is_eager = eager or cluster is not None

    @classmethod
    def at(cls, url: str) -> Crew:
        """The workers of a Dask cluster; ConfigError if Dask is missing or does not answer."""
        try:
            # An option that few install.
            distributed = importlib.import_module("distributed")
        except ImportError as error:
            raise ConfigError(
                f"--executor {url} needs Dask, which is not installed here",
                hint="Install it with `pip install distributed`, or leave --executor out.",
            ) from error
        try:
            client = distributed.Client(url, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConfigError(f"--executor {url}: no Dask scheduler answers: {error}") from error
        crew = cls(1, cluster=(client.get_executor(pure=False), sum(client.ncores().values())))
        crew._client = client
        return crew

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    def start(self) -> None:
        """Have the processes of the pool begin to start, for work that will come soon."""
        if self._cluster is None and self._jobs > 1 and self._pool is None:
            pool = self._own_pool()
            for _ in range(self._jobs):
                pool.submit(_stand_by)

    def run(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        *,
        here: bool = False,
        batch: int = 1,
    ) -> Iterator[Result]:
        """Results as they are ready, in any order; ``here`` does the tasks in this process.

        A ``batch`` of small tasks goes to a worker as one message.
        The error of a task is raised in its turn; tasks that have not begun are then given up.
        """
        if self._is_alone(here=here):
            yield from map(function, tasks)
            return
        if batch == 1:
            yield from self._run(function, tasks)
            return
        batches = _batches(iter(tasks), batch)
        yield from chain.from_iterable(self._run(partial(_do_all, function), batches))

    def _run(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        pool, workers = self._cluster_or_pool()
        waiting = iter(tasks)
        running: set[Future[Result]] = set()
        try:
            with _loss_of_a_worker():
                while True:
                    room = workers * _DEPTH - len(running)
                    running |= {pool.submit(function, task) for task in islice(waiting, room)}
                    if not running:
                        return
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
        finally:
            for future in running:
                future.cancel()

    def run_in_order(
        self, function: Callable[[Task], Result], tasks: Iterable[Task], *, here: bool = False
    ) -> Iterator[tuple[Task, Result]]:
        """Each task with its result, in the order of the tasks; else as :meth:`run`."""
        if self._is_alone(here=here):
            for task in tasks:
                yield task, function(task)
            return
        pool, workers = self._cluster_or_pool()
        waiting = iter(tasks)
        running: deque[tuple[Task, Future[Result]]] = deque()
        try:
            with _loss_of_a_worker():
                while True:
                    room = workers * _DEPTH - len(running)
                    new = islice(waiting, room)
                    running.extend((task, pool.submit(function, task)) for task in new)
                    if not running:
                        return
                    task, future = running.popleft()
                    yield task, future.result()
        finally:
            for _, future in running:
                future.cancel()

    def _is_alone(self, *, here: bool) -> bool:
        """Whether this process does the work."""
        return (here and not self.is_eager) or (self._jobs == 1 and self._cluster is None)

    def _cluster_or_pool(self) -> tuple[Executor, int]:
        """Where tasks are done, and how many at a time."""
        return self._cluster or (self._own_pool(), self._jobs)

    def _own_pool(self) -> Executor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._jobs,
                mp_context=multiprocessing.get_context(_START),
                initializer=_begin_worker,
            )
        return self._pool


def _batches(tasks: Iterator[Task], size: int) -> Iterator[list[Task]]:
    while batch := list(islice(tasks, size)):
        yield batch


def _do_all(function: Callable[[Task], Result], batch: list[Task]) -> list[Result]:
    return [function(task) for task in batch]


@contextmanager
def _loss_of_a_worker() -> Iterator[None]:
    """What the pool says of it, in our words."""
    try:
        yield
    except BrokenProcessPool as error:
        raise StoreError(
            "a worker process was ended from outside, perhaps for lack of memory",
            hint="Run the same command again, with fewer --jobs if memory is short.",
        ) from error


def available_cpus() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _begin_worker() -> None:
    """Leave Ctrl-C to the publisher, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Of thousands of small values of a bucket none is part of a cycle: to look for cycles after
    # every 700 of them took 2 % of the time.
    gc.freeze()
    gc.set_threshold(_VALUES_BETWEEN_COLLECTIONS)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _stand_by() -> None:
    """Nothing; by then a worker has imported what publishing needs."""
    importlib.import_module("server.publishing.buckets")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
