"""Work handed to hosts: retries, failover, help for slow ones, and an end in every case."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from manifests.errors import ExitCode, StoreError, SyncError, TransferError
from syncclient.batch import Batch, Outcome
from syncclient.events import Notice
from syncclient.hatch import Nest
from syncclient.sources.host import HttpOptions
from syncclient.sources.limits import TokenBucket
from syncclient.transfer import Patience, Transfer
from syncclient.worker import Worker, WorkerSetup, open_workers
from tests.support.batches import bucket_batch, feed, large_batch
from tests.support.client import contents
from tests.support.rawhost import (
    Answer,
    RawHost,
    Request,
    Script,
    cut,
    flip,
    for_paths,
    honest,
    raw_host,
    refuse,
    repository_content,
    slow,
    times,
)
from tests.support.releases import LAYOUT, Publisher, make_publisher, random_files

# All that a test may take, were something to wait for what never comes.
LIMIT_S = 30.0


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncclient.transfer._FIRST_WAIT_S", 0.02)
    monkeypatch.setattr("syncclient.transfer._SLOW_S", 0.2)
    monkeypatch.setattr("syncclient.transfer._LATE_CHECK_S", 0.1)


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """One release with 20 files in each of ten buckets."""
    made = make_publisher(tmp_path_factory.mktemp("release"))
    made.publish("y1", random_files(range(1, 201), size_bytes=5000))
    return made


@dataclass(kw_only=True)
class Result:
    """What a transfer came to."""

    hosts: list[RawHost]
    transfer: Transfer
    outcomes: list[tuple[Batch, Outcome]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    error: SyncError | None = None

    @property
    def placed(self) -> list[str]:
        return [batch.path(row) for batch, outcome in self.outcomes for row in outcome.done]

    @property
    def failed(self) -> set[str]:
        return {failure.path for failure in self.transfer.failures}


@asynccontextmanager
async def hosts_of(content: object, scripts: Sequence[Script]) -> AsyncIterator[list[RawHost]]:
    assert callable(content)
    async with AsyncExitStack() as stack:
        yield [stack.enter_context(raw_host(content, script)) for script in scripts]


async def transfer(  # noqa: PLR0913 (hosts differ in many ways)
    publisher: Publisher,
    batches: Sequence[Batch],
    *scripts: Script,
    dead: int = 0,
    packs: bool = True,
    retries: int = 5,
    processes: int = 0,
) -> Result:
    """Fetch batches from hosts that follow scripts, and ``dead`` ones before them."""
    content = repository_content(publisher.repo, packs=packs)
    with raw_host(content) as gone:
        nobody = (gone.url,) * dead
    async with hosts_of(content, scripts) as hosts:
        urls = (*nobody, *(host.url for host in hosts))
        setup = WorkerSetup(run="run", urls=urls, options=HttpOptions(timeout_s=5))
        async with (
            Nest() as nest,
            open_workers(setup, processes, TokenBucket(0), nest) as workers,
        ):
            return await run(urls, workers, batches, hosts, retries)


async def run(
    urls: tuple[str, ...],
    workers: list[Worker],
    batches: Sequence[Batch],
    hosts: list[RawHost],
    retries: int = 5,
) -> Result:
    outcomes: list[tuple[Batch, Outcome]] = []
    notices: list[Notice] = []
    made = Transfer(
        urls,
        workers,
        Patience(connections=2, retries=retries),
        lambda batch, outcome: outcomes.append((batch, outcome)),
        notices.append,
    )
    result = Result(hosts=hosts, transfer=made, outcomes=outcomes, notices=notices)
    async with asyncio.timeout(LIMIT_S):
        try:
            await made.run(feed(batches))
        except SyncError as error:
            result.error = error
    return result


def every(publisher: Publisher, root: Path) -> list[Batch]:
    return [bucket_batch(publisher.newest, bucket, root) for bucket in range(10)]


def crumbs(publisher: Publisher, root: Path) -> list[Batch]:
    """The same files, each a batch."""
    return [batch.subset([row]) for batch in every(publisher, root) for row in range(20)]


def assert_complete(publisher: Publisher, root: Path, result: Result) -> None:
    assert result.error is None
    assert result.transfer.failures == []
    assert contents(root) == publisher.newest.tree()
    assert sorted(result.placed) == sorted(publisher.newest.tree())


# --------------------------------------------------------------------------- failover


async def test_all_hosts_take_part(publisher: Publisher, tmp_path: Path) -> None:
    # A pace makes it certain that nobody is done before the other one has begun.
    paces = (slow(500_000), slow(500_000))
    result = await transfer(publisher, every(publisher, tmp_path), *paces)
    assert_complete(publisher, tmp_path, result)
    assert all(host.log for host in result.hosts)
    received = sum(outcome.received_bytes for _, outcome in result.outcomes)
    assert received == sum(len(data) for data in publisher.newest.tree().values())


async def test_a_dead_host_is_given_up_and_named(publisher: Publisher, tmp_path: Path) -> None:
    result = await transfer(
        publisher, every(publisher, tmp_path), slow(400_000), dead=1, retries=2
    )
    assert_complete(publisher, tmp_path, result)
    (notice,) = result.notices
    assert notice.warning
    assert "is given up" in notice.text


@pytest.mark.parametrize(
    "bad",
    [refuse(500), refuse(403), flip, refuse(404), refuse(410)],
    ids=["500", "403", "flip", "404", "410"],
)
async def test_a_bad_host_costs_no_file(publisher: Publisher, tmp_path: Path, bad: Script) -> None:
    result = await transfer(publisher, every(publisher, tmp_path), bad, honest)
    assert_complete(publisher, tmp_path, result)


async def test_a_host_of_wrong_bytes_is_given_up(publisher: Publisher, tmp_path: Path) -> None:
    batches = [batch.subset([row]) for batch in every(publisher, tmp_path) for row in range(20)]
    result = await transfer(publisher, batches, flip, slow(600_000), retries=3)
    assert_complete(publisher, tmp_path, result)
    assert [notice.text for notice in result.notices if "BLAKE3" in notice.text]
    # Three in a row on every slot, and what was under way meanwhile.
    assert len(result.hosts[0].log) < 60


async def test_without_any_host_left_the_run_fails(publisher: Publisher, tmp_path: Path) -> None:
    result = await transfer(publisher, every(publisher, tmp_path), dead=2, retries=2)
    assert isinstance(result.error, TransferError)
    assert result.error.exit_code == ExitCode.NETWORK
    assert "run the same command again" in result.error.hint


async def test_tries_are_counted_by_host_not_by_slot(publisher: Publisher, tmp_path: Path) -> None:
    """Four requests that fail at once are one failure."""
    result = await transfer(
        publisher, every(publisher, tmp_path), times(4, refuse(500)), retries=3
    )
    assert_complete(publisher, tmp_path, result)


async def test_a_host_that_fails_all_after_a_good_start_is_given_up(
    publisher: Publisher, tmp_path: Path
) -> None:
    left = iter(range(10**6))

    def mortal(request: Request, answer: Answer) -> Answer:
        return answer if next(left) < 4 else refuse(500)(request, answer)

    batches = [batch.subset([row]) for batch in every(publisher, tmp_path) for row in range(3)]
    result = await transfer(publisher, batches, mortal, retries=2)
    assert isinstance(result.error, TransferError)
    assert result.error.exit_code == ExitCode.NETWORK


async def test_a_redirect_that_is_not_allowed_ends_the_host_at_once(
    publisher: Publisher, tmp_path: Path
) -> None:
    def away(_: Request, __: Answer) -> Answer:
        return Answer(status=302, headers={"Location": "http://elsewhere.example/"})

    result = await transfer(publisher, every(publisher, tmp_path), away)
    assert result.error is not None
    assert result.error.exit_code == ExitCode.REFUSED
    assert "--allow-redirect elsewhere.example" in result.error.hint
    # All ten buckets are asked for at once, in either way.
    assert len(result.hosts[0].log) <= 20


# --------------------------------------------------------------------------- busy and slow hosts


async def test_a_busy_host_is_left_alone_as_long_as_it_asks(
    publisher: Publisher, tmp_path: Path
) -> None:
    # All buckets are asked for at once.
    busy = times(LAYOUT.buckets, refuse(503, Retry_After="1"))
    result = await transfer(publisher, every(publisher, tmp_path), busy, retries=2)
    assert_complete(publisher, tmp_path, result)
    at_s = [exchange.at_s for exchange in result.hosts[0].log]
    refused = [e.at_s for e in result.hosts[0].log if e.status == 503]
    assert min(at for at in at_s if at > max(refused)) - min(refused) >= 1


async def test_no_idle_slot_asks_a_busy_host_before_its_time(
    publisher: Publisher, tmp_path: Path
) -> None:
    busy = times(1, refuse(503, Retry_After="1"))
    result = await transfer(publisher, every(publisher, tmp_path)[:1], busy)
    assert result.error is None
    first, second = result.hosts[0].log
    assert second.at_s - first.at_s >= 1


async def test_work_is_not_kept_for_a_host_that_waits(
    publisher: Publisher, tmp_path: Path
) -> None:
    started_s = time.monotonic()
    busy = refuse(503, Retry_After="300")
    result = await transfer(publisher, every(publisher, tmp_path), busy, times(3, refuse(500)))
    assert_complete(publisher, tmp_path, result)
    assert time.monotonic() - started_s < 5


async def test_a_slow_host_is_helped(publisher: Publisher, tmp_path: Path) -> None:
    """A bucket of 100 kB would take the slow host a hundred seconds."""
    started_s = time.monotonic()
    result = await transfer(publisher, every(publisher, tmp_path), slow(1000), honest)
    assert_complete(publisher, tmp_path, result)
    assert result.hosts[0].log
    assert time.monotonic() - started_s < 10


async def test_help_that_fails_does_not_end_what_goes_well(
    publisher: Publisher, tmp_path: Path
) -> None:
    def later(_: Request, answer: Answer) -> Answer:
        return replace(answer, pace_bytes_s=150_000)

    batches = every(publisher, tmp_path)[:1]
    result = await transfer(publisher, batches, later, refuse(500), retries=100)
    assert result.error is None
    assert result.hosts[1].log
    assert sorted(result.placed) == sorted(contents(tmp_path))
    assert len(result.placed) == 20
    assert len(result.hosts[0].log) <= 2


async def test_a_large_file_is_written_by_one_alone(publisher: Publisher, tmp_path: Path) -> None:
    data = bytes(range(256)) * 20_000
    (publisher.repo / "large").write_bytes(data)
    result = await transfer(
        publisher,
        [large_batch(tmp_path, "large", data, chunks=False)],
        slow(5_000_000),
        slow(5_000_000),
    )
    assert result.error is None
    assert contents(tmp_path) == {"original/0001/1.mp4": data}
    assert sum(len(host.log) for host in result.hosts) == 1


# --------------------------------------------------------------------------- files


async def test_what_one_host_lacks_comes_from_another(
    publisher: Publisher, tmp_path: Path
) -> None:
    lacks = for_paths("files/", refuse(404))
    result = await transfer(
        publisher, every(publisher, tmp_path), lacks, slow(500_000), packs=False
    )
    assert_complete(publisher, tmp_path, result)


@pytest.mark.parametrize("bad", [refuse(404), flip], ids=["missing", "wrong"])
@pytest.mark.parametrize("dead", [0, 1])
async def test_what_no_host_has_is_named_and_nothing_else_fails(
    publisher: Publisher, tmp_path: Path, bad: Script, dead: int
) -> None:
    """Also while another host is waited for, nobody is asked again and again."""
    path = "original/0001/21."
    script = for_paths(f"files/y1/{path}", bad)
    result = await transfer(
        publisher, every(publisher, tmp_path), script, dead=dead, packs=False, retries=4
    )
    assert result.error is None
    assert result.failed == {f"{path}png"}
    assert result.transfer.failed == 1
    tree = publisher.newest.tree()
    del tree[f"{path}png"]
    assert contents(tmp_path) == tree
    assert len(result.hosts[0].asked(f"files/y1/{path}")) <= 4


async def test_a_wrong_pack_does_not_make_a_right_file_wrong(
    publisher: Publisher, tmp_path: Path
) -> None:
    result = await transfer(
        publisher, every(publisher, tmp_path), for_paths("packs/y1/original/0003", flip)
    )
    assert_complete(publisher, tmp_path, result)


async def test_an_answer_that_always_fails_holds_up_no_other_file(
    publisher: Publisher, tmp_path: Path
) -> None:
    script = for_paths("files/y1/original/0001/21.", refuse(500))
    result = await transfer(publisher, every(publisher, tmp_path), script, packs=False, retries=3)
    # As the failure of one file, or of the host where no other file was left to show better.
    assert "21.png" in (str(result.error) if result.error else str(result.failed))
    assert len(contents(tmp_path)) == 199


async def test_files_that_fail_are_all_counted_and_some_named(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncclient.transfer.NAMED_FAILURES", 5)
    result = await transfer(publisher, every(publisher, tmp_path), refuse(404))
    assert result.error is None
    assert (result.transfer.failed, len(result.failed)) == (200, 5)


# --------------------------------------------------------------------------- ends


class Counting:
    """A worker that notes how many batches it is given at a time."""

    def __init__(self, worker: Worker, given: list[int]) -> None:
        self._worker = worker
        self._given = given

    async def run(self, batches: Sequence[Batch], host: int | None) -> list[Outcome]:
        """As the worker does."""
        self._given.append(len(batches))
        return await self._worker.run(batches, host)


async def test_small_batches_go_together_and_no_slot_takes_those_of_others(
    publisher: Publisher, tmp_path: Path
) -> None:
    given: list[int] = []
    with raw_host(publisher.repo) as host:
        setup = WorkerSetup(run="run", urls=(host.url,), options=HttpOptions())
        async with Nest() as nest, open_workers(setup, 0, TokenBucket(0), nest) as workers:
            counting: list[Worker] = [Counting(worker, given) for worker in workers]
            result = await run((host.url,), counting, crumbs(publisher, tmp_path), [host])
    assert_complete(publisher, tmp_path, result)
    assert sum(given) == 200
    assert max(given) == 16
    assert len(given) < 50


@pytest.mark.parametrize("bad", [flip, refuse(503), refuse(404), cut(3000), times(20, cut(10))])
async def test_a_bad_host_costs_no_file_of_those_that_go_together(
    publisher: Publisher, tmp_path: Path, bad: Script
) -> None:
    result = await transfer(publisher, crumbs(publisher, tmp_path), bad, honest)
    assert_complete(publisher, tmp_path, result)


async def test_a_slow_host_is_helped_with_what_it_has_together(
    publisher: Publisher, tmp_path: Path
) -> None:
    batches = crumbs(publisher, tmp_path)
    result = await transfer(publisher, batches, times(4, slow(500)), slow(400_000))
    assert_complete(publisher, tmp_path, result)


async def test_a_disk_that_refuses_ends_the_run(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "original").symlink_to("/")
    result = await transfer(publisher, every(publisher, tmp_path), honest)
    assert isinstance(result.error, StoreError)


class Refused:
    """A worker whose disk refuses a batch; the host fails when the others are cancelled."""

    def __init__(self) -> None:
        self._first = True

    async def run(self, batches: Sequence[Batch], host: int | None) -> list[Outcome]:
        """The outcomes of any batches."""
        assert host is not None
        if self._first:
            self._first = False
            await asyncio.sleep(0.05)
            return [Outcome(error=StoreError(f"{batch.path(0)}: refused")) for batch in batches]
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return [Outcome(error=TransferError(f"{batch.path(0)}: gone")) for batch in batches]


async def test_an_outcome_does_not_hide_that_the_run_is_over(
    publisher: Publisher, tmp_path: Path
) -> None:
    ending = run(("http://127.0.0.1:9",), [Refused()], every(publisher, tmp_path), [])
    result = await asyncio.wait_for(ending, LIMIT_S)
    assert isinstance(result.error, StoreError)


async def test_nothing_to_do_is_done(publisher: Publisher) -> None:
    result = await transfer(publisher, [], honest, dead=1)
    assert result.error is None


async def test_without_hosts_what_is_missing_is_named(
    publisher: Publisher, tmp_path: Path
) -> None:
    setup = WorkerSetup(run="run", urls=(), options=HttpOptions())
    async with Nest() as nest, open_workers(setup, 0, TokenBucket(0), nest) as workers:
        result = await run((), workers, every(publisher, tmp_path)[:1], [])
    assert result.error is None
    assert result.transfer.failed == 20


async def test_a_cancel_ends_every_slot(publisher: Publisher, tmp_path: Path) -> None:
    task = asyncio.create_task(transfer(publisher, every(publisher, tmp_path), slow(1000)))
    await asyncio.wait({task}, timeout=0.3)
    task.cancel()
    await asyncio.wait({task}, timeout=LIMIT_S)
    assert task.cancelled()
    tree = publisher.newest.tree()
    assert all(tree[path] == data for path, data in contents(tmp_path).items())


@pytest.mark.parametrize("processes", [1, 2])
async def test_processes_do_the_same(publisher: Publisher, tmp_path: Path, processes: int) -> None:
    result = await transfer(
        publisher, every(publisher, tmp_path), flip, honest, processes=processes
    )
    assert_complete(publisher, tmp_path, result)
