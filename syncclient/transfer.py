"""Handing out work: batches to hosts and workers, with retries, failover and help for slow hosts.

Rules:

* Every host has a few slots; a free slot takes the next batches, so a fast host simply takes more.
  Small ones are carried out together: each by itself costs more than what it brings.
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
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

from msgspec import Struct, field
from msgspec.structs import replace

from manifests.errors import StoreError, TransferError, first_of_group
from syncclient.batch import BATCH_BYTES, BATCH_FILES, Batch, Outcome, Problem
from syncclient.events import Notice
from syncclient.sources.host import RedirectError
from syncclient.worker import Worker

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
# A batch is helped along when it has run this long, and thrice the median.
_SLOW_S = 3.0
_SLOW_FACTOR = 3.0
_LATE_CHECK_S = 1.0
NAMED_FAILURES = 1000
# Attempts under way for each connection: one is placed, one comes, the others are asked for.
# A far host needs many when buckets are small; of several hosts none should sit on work for long.
_ATTEMPTS_A_CONNECTION = 4
_ATTEMPTS_AMONG_HOSTS = 2
# Batches that are carried out together.
_TOGETHER = 16
# What waits for a slot.
_QUEUED_FILES = 100_000
_RESUME_HINT = "What was fetched stays; run the same command again to go on."
# Wrong bytes of a file from the last host that has it: once may be the line, twice is the host.
_TRIES_FOR_BYTES = 2


class Job(Struct, eq=False):
    """A batch on its way.

    ``tries`` failed in a row without bringing anything, the last one after ``brought`` batches
    had.  A host in ``avoid`` failed and may do better later; one in ``lacks`` answered, and has
    not these files or not these bytes.  ``running`` says since when (monotonic) which hosts are at
    it.
    """

    batch: Batch
    tries: int = 0
    brought: int = 0
    avoid: frozenset[int] = frozenset()
    lacks: frozenset[int] = frozenset()
    finished: bool = False
    running: dict[int, float] = field(default_factory=dict)
    attempts: set[Attempt] = field(default_factory=set)

    @property
    def alone(self) -> bool:
        """Whether it is carried out by itself: it is large or an asset, or somebody failed it."""
        failed = self.tries or self.avoid or self.lacks
        return bool(failed or self.batch.large or not self.batch.pack)


class Attempt(Struct, frozen=True, eq=False):
    """Jobs that one worker is at together."""

    jobs: Sequence[Job]
    running: asyncio.Future[list[Outcome]]

    @property
    def overtaken(self) -> bool:
        """Whether others have done all of it meanwhile."""
        return all(job.finished for job in self.jobs)


class Health(Struct):
    """One host's recent behaviour."""

    url: str
    failures: int = 0
    dead: bool = False
    waits_until_s: float = 0.0


class Failure(Struct, frozen=True, kw_only=True):
    """A file that no host delivered: its path, and what the last host said."""

    path: str
    text: str


OnOutcome = Callable[[Batch, Outcome], None]


class Patience(Struct, frozen=True, kw_only=True):
    """Connections of each worker to each host; failures in a row until it is given up."""

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
        self._queued_files = 0
        self._slots = 1
        self._flying: set[Job] = set()
        # Batches that brought something.
        self._brought = 0
        self._durations: deque[float] = deque(maxlen=50)
        self._change = asyncio.Condition()
        self._fed = False
        # All are counted, the first ones named: a host may lack millions of files.
        self.failed = 0
        self.failures: list[Failure] = []

    async def run(self, batches: AsyncIterator[Batch]) -> None:
        """Carry out every batch.

        Raises TransferError when no host is left, StoreError when the disk refuses; files that
        just failed are in ``failures``.
        """
        depth = _ATTEMPTS_A_CONNECTION if len(self._health) == 1 else _ATTEMPTS_AMONG_HOSTS
        slots = [
            (worker, host)
            for _ in range(depth * self._patience.connections)
            for worker in self._workers
            for host in range(len(self._health))
        ]
        self._slots = len(slots)
        with first_of_group():
            async with asyncio.TaskGroup() as group:
                group.create_task(self._feed(batches))
                for worker, host in slots:
                    group.create_task(self._serve(worker, host))

    # ----------------------------------------------------------------- the queue

    async def _feed(self, batches: AsyncIterator[Batch]) -> None:
        """Keep enough for each slot in the queue, never the whole plan in memory."""
        most = _TOGETHER * self._slots
        async for batch in batches:
            async with self._change:
                await self._change.wait_for(
                    lambda: len(self._queue) < most and self._queued_files < _QUEUED_FILES
                )
                self._queue.append(Job(batch))
                self._queued_files += len(batch.names)
                self._change.notify_all()
        async with self._change:
            self._fed = True
            self._change.notify_all()

    def _next_for(self, host: int) -> Job | None:
        """A job for this host: a queued one, or one to help with."""
        for place, job in enumerate(self._queue):
            if self._suits(host, job):
                del self._queue[place]
                self._queued_files -= len(job.batch.names)
                return job
        if self._fed and not self._queue:
            return self._slowest_of_others(host)
        return None

    def _together_for(self, host: int) -> list[Job]:
        """Jobs for this host that one attempt carries out; none if there is nothing to do."""
        # No slot takes what is enough for others.
        most = min(_TOGETHER, len(self._queue) // self._slots)
        first = self._next_for(host)
        if first is None:
            return []
        jobs, files, size_bytes = [first], len(first.batch.names), first.batch.size_bytes
        while len(jobs) < most and not first.alone and not self._queue[0].alone:
            batch = self._queue[0].batch
            files, size_bytes = files + len(batch.names), size_bytes + batch.size_bytes
            if files > BATCH_FILES or size_bytes > BATCH_BYTES:
                break
            self._queued_files -= len(batch.names)
            jobs.append(self._queue.popleft())
        return jobs

    def _suits(self, host: int, job: Job) -> bool:
        """Whether no other host is a better choice for a job, now or once it is reached."""
        living, now_s = self._living(), time.monotonic()
        if host in job.lacks:
            return living <= job.lacks
        ready = {n for n in living if self._health[n].waits_until_s <= now_s}
        return host not in job.avoid or ready <= job.avoid | job.lacks

    def _living(self) -> set[int]:
        """Numbers of the hosts that are not given up."""
        return {number for number, health in enumerate(self._health) if not health.dead}

    def _slowest_of_others(self, host: int) -> Job | None:
        """The batch that other hosts have been at for the longest, if that is too long."""
        ordered = sorted(self._durations)
        median_s = ordered[len(ordered) // 2] if ordered else 0.0
        limit_s = max(_SLOW_S, _SLOW_FACTOR * median_s)
        now_s = time.monotonic()
        late = [
            (min(job.running.values()), job)
            for job in self._flying
            # Only one attempt at a time may write to the staged part of a large file.
            if len(job.running) == 1 and host not in job.running and not job.batch.large
            if host not in job.avoid | job.lacks and now_s - min(job.running.values()) > limit_s
        ]
        return min(late, key=lambda pair: pair[0])[1] if late else None

    def _done(self) -> bool:
        return self._fed and not self._queue and not self._flying

    # ----------------------------------------------------------------- a slot

    async def _serve(self, worker: Worker, host: int) -> None:
        while jobs := await self._take(host):
            await self._attempt(worker, host, jobs)

    async def _take(self, host: int) -> list[Job]:
        """Wait for jobs, and until the host may be asked; none when it need not be any more."""
        health = self._health[host]
        async with self._change:
            while not self._done() and not health.dead:
                pause_s = health.waits_until_s - time.monotonic()
                if pause_s <= 0 and (jobs := self._together_for(host)):
                    for job in jobs:
                        job.running[host] = time.monotonic()
                        self._flying.add(job)
                    self._change.notify_all()
                    return jobs
                # Nobody but the clock tells that a pause is over, or that another host is late.
                look_s = _LATE_CHECK_S if self._fed else None
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s if pause_s > 0 else look_s):
                        await self._change.wait()
        return []

    async def _attempt(self, worker: Worker, host: int, jobs: list[Job]) -> None:
        started_s, slot = time.monotonic(), asyncio.current_task()
        batches = [job.batch for job in jobs]
        running = asyncio.ensure_future(worker.run(batches, None if self._offline else host))
        attempt = Attempt(jobs, running)
        for job in jobs:
            job.attempts.add(attempt)
        outcomes: Sequence[Outcome | None] = [None] * len(jobs)
        try:
            outcomes = await running
            self._durations.append(time.monotonic() - started_s)
        except asyncio.CancelledError:
            # Another host was first, unless it is this slot that is to end.
            if not attempt.overtaken or (slot is not None and slot.cancelling()):
                raise
        finally:
            for job in jobs:
                job.attempts.discard(attempt)
        await self._settle(host, jobs, outcomes)
        if slot is not None and slot.cancelling():
            # What ran had an outcome all the same, such as a host that failed in that moment.
            raise asyncio.CancelledError

    async def _settle(
        self, host: int, jobs: Sequence[Job], outcomes: Sequence[Outcome | None]
    ) -> None:
        """Take the results of one attempt, None for what another host overtook."""
        errors: list[TransferError | StoreError] = []
        async with self._change:
            for job in jobs:
                del job.running[host]
            for job, outcome in zip(jobs, outcomes, strict=True):
                try:
                    if outcome is not None:
                        self._take_outcome(host, job, outcome)
                except (TransferError, StoreError) as error:
                    # It ends the run, when all that was placed is noted.
                    errors.append(error)
                if not job.running:
                    self._flying.discard(job)
            self._change.notify_all()
        if errors:
            raise errors[0]

    def _take_outcome(self, host: int, job: Job, outcome: Outcome) -> None:
        """The first attempt that ends well counts; of the others only what they received."""
        outcome.problems = [self._located(host, job, problem) for problem in outcome.problems]
        late = job.finished or (bool(job.running) and outcome.error is not None)
        self._on_outcome(job.batch, outcome.traffic_only() if late else outcome)
        if isinstance(outcome.error, StoreError):
            raise outcome.error
        if outcome.error is not None:
            self._blame(host, outcome.error)
        elif outcome.done:
            self._health[host].failures = 0
            self._brought += 1
        elif wrong := [problem for problem in outcome.problems if not problem.missing]:
            self._blame_for_bytes(host, wrong[0])
        if late:
            job.avoid |= {host}
        else:
            job.finished = True
            for attempt in job.attempts:
                if attempt.overtaken:
                    attempt.running.cancel()
            self._follow_up(host, job, outcome)

    def _located(self, host: int, job: Job, problem: Problem) -> Problem:
        """The same problem; a path of the host's becomes its address."""
        if not problem.text.startswith(job.batch.url(problem.row)):
            return problem
        return replace(problem, text=f"{self._health[host].url.rstrip('/')}/{problem.text}")

    def _blame_for_bytes(self, host: int, problem: Problem) -> None:
        """Nothing but wrong bytes: the last host is asked on, for files that it may have right."""
        if len(self._living()) > 1:
            self._blame(host, TransferError(problem.text))

    def _blame(self, host: int, error: TransferError) -> None:
        """Let a failing host wait, and give it up after too many failures in a row."""
        health = self._health[host]
        now_s = time.monotonic()
        # What fails while the host is waited for was under way before: it is the same failure.
        if now_s >= health.waits_until_s:
            health.failures += 1
            wait_s = min(_FIRST_WAIT_S * 2 ** (health.failures - 1), _LONGEST_WAIT_S)
            wait_s *= random.uniform(0.75, 1.25)  # noqa: S311 (jitter, not a secret)
            health.waits_until_s = now_s + wait_s
        asked_s = error.retry_after_s or 0.0
        health.waits_until_s = max(health.waits_until_s, now_s + asked_s)
        # What else is under way there may still show that the host is well.
        busy = any(host in job.running for job in self._flying)
        failed = health.failures >= self._patience.retries and not busy
        if health.dead or not (failed or isinstance(error, RedirectError)):
            return
        health.dead = True
        if not self._living():
            error.hint = error.hint or _RESUME_HINT
            raise error
        self._on_notice(Notice(text=f"{health.url} is given up: {error}", warning=True))

    def _follow_up(self, host: int, job: Job, outcome: Outcome) -> None:
        """Queue again what is left: rows not tried, and rows that this host lacks or got wrong."""
        settled = {*outcome.done, *(problem.row for problem in outcome.problems)}
        untried = [row for row in range(len(job.batch.names)) if row not in settled]
        if outcome.error is not None and untried:
            self._retry(host, job, untried, outcome)
        lacks = job.lacks | {host}
        others = bool(self._living() - lacks)
        missing = [problem for problem in outcome.problems if problem.missing]
        if missing and others:
            self._requeue(job.batch.subset(_rows(missing)), job.tries, job.avoid, lacks)
        else:
            self._give_up(job, missing)
        wrong = [problem for problem in outcome.problems if not problem.missing]
        if wrong and (others or job.tries + 1 < _TRIES_FOR_BYTES):
            # The pack may be wrong where the file itself is right.
            batch = job.batch.subset(_rows(wrong), loose=True)
            self._requeue(batch, job.tries + 1, job.avoid, lacks if others else frozenset())
        else:
            self._give_up(job, wrong)

    def _retry(self, host: int, job: Job, rows: list[int], outcome: Outcome) -> None:
        """After an error: elsewhere, or here again; an attempt that brought something is none."""
        # Where nothing else came since it last failed, it is the host that fails: see _blame.
        counts = job.tries == 0 or self._brought > job.brought
        tries, avoid = 0 if outcome.done else job.tries + counts, job.avoid | {host}
        if tries < self._patience.retries or self._living() - avoid - job.lacks:
            self._requeue(job.batch.subset(rows), tries, avoid, job.lacks)
        else:
            self._give_up(job, [Problem(row=row, text=str(outcome.error)) for row in rows])

    def _requeue(
        self, batch: Batch, tries: int, avoid: frozenset[int], lacks: frozenset[int]
    ) -> None:
        """First in the queue where another host can help at once, last where none can."""
        job = Job(batch, tries=tries, brought=self._brought, avoid=avoid, lacks=lacks)
        self._queued_files += len(batch.names)
        if self._living() - avoid - lacks:
            self._queue.appendleft(job)
        else:
            self._queue.append(job)

    def _give_up(self, job: Job, problems: list[Problem]) -> None:
        self.failed += len(problems)
        room = NAMED_FAILURES - len(self.failures)
        self.failures += [
            Failure(path=job.batch.path(problem.row), text=problem.text)
            for problem in problems[:room]
        ]


def _rows(problems: list[Problem]) -> list[int]:
    """The rows of some problems, in the order of their pack."""
    return sorted(problem.row for problem in problems)
