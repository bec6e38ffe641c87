"""Workers: the same work in this process or another one, and a clear end when one dies."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from manifests.errors import StoreError, SyncError, TransferError
from syncclient.batch import Batch, Outcome
from syncclient.hatch import Nest, workers_worth
from syncclient.sources.host import HttpOptions
from syncclient.sources.limits import TokenBucket
from syncclient.worker import Worker, WorkerSetup, open_workers
from tests.bench.measure import family
from tests.support.batches import bucket_batch
from tests.support.client import contents
from tests.support.rawhost import Answer, RawHost, Request, Script, honest, raw_host, refuse
from tests.support.releases import Publisher, make_publisher, random_files


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """One release."""
    made = make_publisher(tmp_path_factory.mktemp("release"))
    made.publish("y1", random_files(range(1, 101)))
    return made


@asynccontextmanager
async def workers_of(
    publisher: Publisher, processes: int, script: Script = honest, bwlimit: int = 0
) -> AsyncIterator[tuple[list[Worker], RawHost]]:
    with raw_host(publisher.repo, script) as host:
        options = HttpOptions(timeout_s=5, bwlimit=bwlimit)
        setup = WorkerSetup(run="run", urls=(host.url,), options=options)
        async with (
            Nest() as nest,
            open_workers(setup, processes, TokenBucket(bwlimit), nest) as workers,
        ):
            yield workers, host


def worker_pids(count: int) -> list[int]:
    """The worker processes of this one, once there are so many: the first, and its forks."""
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        found = [pid for pid in family(os.getpid())[1:] if b"syncclient.worker" in command(pid)]
        if len(found) == count:
            return found
        time.sleep(0.01)
    raise AssertionError(found)


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("processes", [0, 1, 3])
async def test_batches_are_done_wherever_they_run(
    publisher: Publisher, tmp_path: Path, processes: int
) -> None:
    async with workers_of(publisher, processes) as (workers, _):
        assert len(workers) == max(processes, 1)
        batches = [bucket_batch(publisher.newest, bucket, tmp_path) for bucket in range(10)]
        running = [
            workers[number % len(workers)].run([batch], 0) for number, batch in enumerate(batches)
        ]
        outcomes = [outcome for some in await asyncio.gather(*running) for outcome in some]
    assert contents(tmp_path) == publisher.newest.tree()
    sizes = sum(len(data) for data in publisher.newest.tree().values())
    assert sum(outcome.received_bytes for outcome in outcomes) == sizes
    assert sum(outcome.requests for outcome in outcomes) == 10


@pytest.mark.parametrize("processes", [0, 1])
async def test_problems_come_back_whole(
    publisher: Publisher, tmp_path: Path, processes: int
) -> None:
    busy = refuse(503, Retry_After="7")
    async with workers_of(publisher, processes, busy) as (workers, _):
        [outcome] = await workers[0].run([bucket_batch(publisher.newest, 1, tmp_path)], 0)
        assert isinstance(outcome.error, TransferError)
        assert (outcome.error.status, outcome.error.retry_after_s) == (503, 7)
        (tmp_path / "original").symlink_to("/")
        nothing = bucket_batch(publisher.newest, 1, tmp_path, locals_=(str(publisher.repo),))
        [outcome] = await workers[0].run([nothing], None)
        assert len(outcome.problems) == 10


@pytest.mark.parametrize("which", [0, 1])
async def test_a_process_that_dies_is_an_error_not_a_wait(
    publisher: Publisher, tmp_path: Path, which: int
) -> None:
    asked = threading.Event()

    def tell(_: Request, answer: Answer) -> Answer:
        asked.set()
        return replace(answer, pace_bytes_s=100)

    async with workers_of(publisher, 2, tell) as (workers, _):
        batch = bucket_batch(publisher.newest, 1, tmp_path)
        running = asyncio.create_task(workers[which].run([batch], 0))
        await asyncio.to_thread(asked.wait)
        os.kill(worker_pids(2)[which], signal.SIGKILL)
        with pytest.raises(SyncError, match="worker process ended unexpectedly"):
            await asyncio.wait_for(running, 10)
        with pytest.raises(SyncError, match="worker process ended unexpectedly"):
            await asyncio.wait_for(workers[which].run([batch], 0), 10)


async def test_a_batch_that_breaks_a_process_is_an_error_not_a_wait(
    publisher: Publisher, tmp_path: Path
) -> None:
    batch = structs.replace(bucket_batch(publisher.newest, 1, tmp_path), sizes="no sizes")
    async with workers_of(publisher, 1) as (workers, _):
        with pytest.raises(SyncError, match="worker process ended unexpectedly"):
            await asyncio.wait_for(workers[0].run([batch], 0), 10)


async def test_a_cancel_reaches_the_process(publisher: Publisher, tmp_path: Path) -> None:
    asked = threading.Event()

    def stall(request: Request, answer: Answer) -> Answer:
        if request.path == "packs/y1/original/0001":
            asked.set()
            return replace(answer, pace_bytes_s=100)
        return answer

    async with workers_of(publisher, 1, stall) as (workers, _):
        batch = bucket_batch(publisher.newest, 1, tmp_path)
        running = asyncio.create_task(workers[0].run([batch], 0))
        await asyncio.to_thread(asked.wait)
        running.cancel()
        await asyncio.wait({running})
        # It goes on with other work, and ends at once when it is told to.
        [outcome] = await workers[0].run([bucket_batch(publisher.newest, 2, tmp_path)], 0)
        assert len(outcome.done) == 10
    assert running.cancelled()


async def test_ctrl_c_is_not_for_processes(publisher: Publisher) -> None:
    async with workers_of(publisher, 3):
        assert os.getpgid(0) not in map(os.getpgid, worker_pids(3))


async def test_processes_end_with_their_client(publisher: Publisher) -> None:
    async with workers_of(publisher, 3):
        worker_pids(3)
    assert worker_pids(0) == []


def test_a_process_imports_nothing_from_where_it_stands(tmp_path: Path) -> None:
    """A release may put ``pickle.py`` into the tree in which somebody runs the client."""
    for name in ("pickle", "asyncio", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a release took over')")
    code = (
        "import asyncio; from syncclient.hatch import *\n"
        "from syncclient.worker import *; from syncclient.sources.host import *\n"
        "async def main():\n"
        "    async with Nest() as nest:\n"
        "        for process in await nest.take(2):\n"
        "            setup = WorkerSetup(run='r', urls=(), options=HttpOptions())\n"
        "            await ProcessWorker.start(process, setup, 0.0).close()\n"
        "        ended = list(nest._processes)\n"
        "    return ended[0].returncode\n"
        "raise SystemExit(asyncio.run(main()))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


async def test_processes_that_were_taken_and_forgotten_end_too() -> None:
    async with Nest() as nest:
        await nest.take(3)
        os.kill(worker_pids(3)[1], signal.SIGKILL)
    assert worker_pids(0) == []


def test_a_worker_starts_without_numpy() -> None:
    """A tenth of a second, which every run would pay that has work for workers."""
    code = "import sys, syncclient.worker; raise SystemExit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


@pytest.mark.parametrize(
    "error",
    [
        TransferError("a", hint="b", status=503, retry_after_s=1.5),
        StoreError("a", hint="b"),
    ],
)
def test_errors_travel_whole(error: TransferError | StoreError) -> None:
    sent = pickle.loads(pickle.dumps(Outcome(error=error)))  # noqa: S301 (made here)
    assert isinstance(sent.error, type(error))
    assert vars(sent.error) == vars(error)
    assert str(sent.error) == str(error)


def test_batches_travel_whole(publisher: Publisher, tmp_path: Path) -> None:
    batch: Batch = bucket_batch(publisher.newest, 1, tmp_path)
    assert pickle.loads(pickle.dumps(batch)) == batch  # noqa: S301 (made here)


def test_a_worker_without_a_client_ends(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "syncclient.worker"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.communicate(timeout=30)
        assert process.returncode != -signal.SIGKILL


async def test_a_process_that_nobody_needs_ends_with_the_run() -> None:
    async with Nest() as nest:
        await nest.fill(2)
    assert worker_pids(0) == []
    async with Nest() as nest:
        await nest.fill(2)
        (taken,) = await nest.take(1)
        worker_pids(2)
        taken.writer.close()
    assert worker_pids(0) == []


async def test_a_process_that_is_short_is_started() -> None:
    async with Nest() as nest:
        await nest.fill(1)
        taken = await nest.take(3)
        assert len(taken) == 3
        worker_pids(3)
        for hatchling in taken:
            hatchling.writer.close()
    assert worker_pids(0) == []


@pytest.mark.parametrize(
    ("files", "size_bytes", "jobs", "expected"),
    [(499, 0, 0, 0), (500, 0, 0, 2), (1, 2**26, 0, 2), (9, 9, 4, 4), (10**6, 0, 1, 0)],
)
def test_processes_are_worth_it_for_much(
    files: int, size_bytes: int, jobs: int, expected: int
) -> None:
    assert workers_worth(files, size_bytes, jobs) == expected
