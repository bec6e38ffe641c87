"""Handing out work: batches to hosts and workers, with retries, failover and help for slow hosts.

Rules:

* Every host has a few slots; a free slot takes the next batch, so a fast host simply takes more.
* A batch that failed goes back to the queue and prefers a host that has not failed it.  A failing
  host waits (exponential backoff with jitter, or what it asked for by Retry-After) and is given up
  after several failures in a row; the run fails only when no host is left.
* When the queue is empty, a free slot also starts the batch that another host has been busy with
  for the longest; the first to finish counts.  Placing a file twice is harmless.
* Files fail one by one: wrong bytes and missing files are tried at the other hosts, then reported.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from manifests.errors import StoreError, TransferError
from syncclient.events import Notice
from syncclient.fetch import Batch, Outcome, Problem
from syncclient.worker import Worker

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
# A batch is helped along when it has run this long, and thrice the median.
_SLOW_S = 3.0
_SLOW_FACTOR = 3.0


@dataclass(slots=True, eq=False)
class Job:
    """A batch on its way: how often it was tried, and which hosts failed or lack it."""

    batch: Batch
    tries: int = 0
    avoid: set[int] = field(default_factory=set)
    finished: bool = False
    running: dict[int, float] = field(default_factory=dict)


@dataclass(slots=True)
class Health:
    """One host's recent behaviour."""

    url: str
    failures: int = 0
    dead: bool = False
    last_error: str = ""
    waits_until_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A file that no host delivered."""

    batch: Batch
    row: int
    text: str
    missing: bool


OnOutcome = Callable[[Batch, Outcome], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Requests at once of each worker to each host; failures in a row until it is given up."""

    connections: int
    retries: int


class Transfer:
    """One transfer over some hosts; :meth:`run` once."""

    def __init__(
        self,
        hosts: tuple[str, ...],
        workers: list[Worker],
        patience: Patience,
        on_outcome: OnOutcome,
        on_notice: Callable[[Notice], None],
    ) -> None:
        # Without hosts one slot still takes what other trees on this machine hold.
        self._offline = not hosts
        self._health = [Health(url) for url in hosts or ("no host",)]
        self._workers = workers
        self._patience = patience
        self._on_outcome = on_outcome
        self._on_notice = on_notice
        self._queue: deque[Job] = deque()
        self._flying: set[Job] = set()
        self._durations: deque[float] = deque(maxlen=50)
        self._change = asyncio.Condition()
        self._fed = False
        self.failures: list[Failure] = []

    async def run(self, batches: AsyncIterator[Batch]) -> None:
        """Carry out every batch.

        Raises TransferError when no host is left, StoreError when the disk refuses; files that
        just failed are in ``failures``.
        """
        slots = [
            (worker, host)
            for _ in range(self._patience.connections)
            for worker in self._workers
            for host in range(len(self._health))
        ]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._feed(batches, len(slots)))
                for worker, host in slots:
                    group.create_task(self._serve(worker, host))
        except* (TransferError, StoreError) as errors:
            raise errors.exceptions[0] from None

    # ----------------------------------------------------------------- the queue

    async def _feed(self, batches: AsyncIterator[Batch], slots: int) -> None:
        """Keep the queue a little longer than the slots, never the whole plan in memory."""
        async for batch in batches:
            async with self._change:
                await self._change.wait_for(lambda: len(self._queue) < 2 * slots)
                self._queue.append(Job(batch))
                self._change.notify_all()
        async with self._change:
            self._fed = True
            self._change.notify_all()

    def _next_for(self, host: int) -> Job | None:
        """A job for this host: a queued one, or one to help with."""
        alone = all(h.dead for n, h in enumerate(self._health) if n != host)
        for place, job in enumerate(self._queue):
            if host not in job.avoid or alone or len(job.avoid) >= len(self._living()):
                del self._queue[place]
                return job
        if self._fed and not self._queue:
            return self._slowest_of_others(host)
        return None

    def _living(self) -> list[Health]:
        return [health for health in self._health if not health.dead]

    def _slowest_of_others(self, host: int) -> Job | None:
        """The batch that other hosts have been at for the longest, if that is too long."""
        ordered = sorted(self._durations)
        median_s = ordered[len(ordered) // 2] if ordered else 0.0
        limit_s = max(_SLOW_S, _SLOW_FACTOR * median_s)
        now_s = time.monotonic()
        late = [
            (min(job.running.values()), job)
            for job in self._flying
            if len(job.running) == 1 and host not in job.running and not job.batch.chunks
            if host not in job.avoid and now_s - min(job.running.values()) > limit_s
        ]
        return min(late, key=lambda pair: pair[0])[1] if late else None

    def _done(self) -> bool:
        return self._fed and not self._queue and not self._flying

    # ----------------------------------------------------------------- a slot

    async def _serve(self, worker: Worker, host: int) -> None:
        health = self._health[host]
        while not health.dead:
            await self._wait_turn(health)
            job = await self._take(host)
            if job is None:
                return
            await self._attempt(worker, host, job)

    async def _wait_turn(self, health: Health) -> None:
        while (left_s := health.waits_until_s - time.monotonic()) > 0 and not self._done():
            async with self._change:
                try:
                    async with asyncio.timeout(left_s):
                        await self._change.wait_for(self._done)
                except TimeoutError:
                    return

    async def _take(self, host: int) -> Job | None:
        """Wait for a job; None when all work is done or this host is given up."""
        health = self._health[host]
        async with self._change:
            while not self._done() and not health.dead:
                job = self._next_for(host)
                if job is not None:
                    job.running[host] = time.monotonic()
                    self._flying.add(job)
                    self._change.notify_all()
                    return job
                try:
                    async with asyncio.timeout(1.0 if self._fed else None):
                        await self._change.wait()
                except TimeoutError:
                    continue
        return None

    async def _attempt(self, worker: Worker, host: int, job: Job) -> None:
        started_s = time.monotonic()
        running = asyncio.ensure_future(worker.run(job.batch, None if self._offline else host))
        finished_elsewhere = asyncio.ensure_future(self._finished(job))
        try:
            await asyncio.wait({running, finished_elsewhere}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                return
            outcome = running.result()
        finally:
            for task in (running, finished_elsewhere):
                task.cancel()
            await asyncio.gather(running, finished_elsewhere, return_exceptions=True)
            job.running.pop(host, None)
        self._durations.append(time.monotonic() - started_s)
        await self._settle(host, job, outcome)

    async def _finished(self, job: Job) -> None:
        async with self._change:
            await self._change.wait_for(lambda: job.finished)

    async def _settle(self, host: int, job: Job, outcome: Outcome) -> None:
        """Take the result of one attempt; the first complete one counts."""
        async with self._change:
            if not job.finished:
                self._on_outcome(job.batch, outcome)
                if isinstance(outcome.error, StoreError):
                    raise outcome.error
                if outcome.error is not None:
                    self._blame(host, outcome.error)
                elif outcome.done or not outcome.problems:
                    self._health[host].failures = 0
                self._follow_up(host, job, outcome)
                job.finished = True
            if not job.running:
                self._flying.discard(job)
            self._change.notify_all()

    def _blame(self, host: int, error: TransferError) -> None:
        """Let a failing host wait, and give it up after too many failures in a row."""
        health = self._health[host]
        now_s = time.monotonic()
        health.last_error = str(error)
        if now_s < health.waits_until_s and error.retry_after_s is None:
            return
        health.failures += 1
        wait_s = min(_FIRST_WAIT_S * 2 ** (health.failures - 1), _LONGEST_WAIT_S)
        wait_s *= random.uniform(0.75, 1.25)  # noqa: S311 (jitter, not a secret)
        if error.retry_after_s is not None:
            wait_s = error.retry_after_s
        health.waits_until_s = now_s + wait_s
        if health.failures < self._patience.retries:
            return
        health.dead = True
        if not self._living():
            raise TransferError(
                str(error),
                hint="What was fetched stays; run the same command again to go on.",
                status=error.status,
            )
        self._on_notice(Notice(text=f"{health.url} is given up: {error}", warning=True))

    def _follow_up(self, host: int, job: Job, outcome: Outcome) -> None:
        """Queue again what is left: rows not tried, and rows that this host got wrong."""
        done = set(outcome.done)
        troubled = {problem.row: problem for problem in outcome.problems}
        untried = [
            row for row in range(len(job.batch.names)) if row not in done and row not in troubled
        ]
        if untried:
            self._requeue(job, untried, {host}, None)
        for problem in troubled.values():
            self._requeue(job, [problem.row], {host}, problem)

    def _requeue(
        self, job: Job, rows: list[int], avoid: set[int], problem: Problem | None
    ) -> None:
        tries = job.tries + (1 if problem is not None else 0)
        avoid = job.avoid | avoid
        others = [n for n, h in enumerate(self._health) if not h.dead and n not in avoid]
        missing = problem is not None and problem.missing
        if problem is not None and not others and (missing or tries >= 2):  # noqa: PLR2004
            self.failures.append(
                Failure(batch=job.batch, row=problem.row, text=problem.text, missing=missing)
            )
            return
        again = Job(job.batch.subset(rows), tries=tries, avoid=avoid)
        if others or problem is None:
            self._queue.appendleft(again)
        else:
            self._queue.append(again)
