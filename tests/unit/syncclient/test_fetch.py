"""One piece of work against a host: ranges, loose files, other trees, large files by the chunk."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec import structs

from manifests.columns import CHUNK_BYTES
from manifests.digest import digest_bytes
from manifests.errors import StoreError, TransferError
from syncclient.batch import Batch, Outcome
from syncclient.fetch import Runner
from syncclient.sources.host import HttpOptions
from syncclient.sources.http import HttpSource
from syncclient.sources.limits import TokenBucket
from syncclient.tree import FileStat
from tests.support.batches import MTIME_NS, bucket_batch, large_batch
from tests.support.client import contents, trashed
from tests.support.rawhost import (
    Answer,
    Ranges,
    RawHost,
    Request,
    Script,
    cut,
    flip,
    for_paths,
    honest,
    once,
    raw_host,
    refuse,
    times,
)
from tests.support.releases import Publisher, make_publisher, random_files

T = TypeVar("T")

BUCKET = 1
LARGE = random.Random(7).randbytes(3 * CHUNK_BYTES + 1234)  # noqa: S311 (test data)


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """One release; bucket 1 has eleven files, two of them empty."""
    made = make_publisher(tmp_path_factory.mktemp("release"))
    files = random_files(range(1, 101), size_bytes=6000)
    files |= {("original", number): ("txt", b"") for number in (41, 101)}
    made.publish("y1", files)
    return made


def mtimes(tree: Path) -> set[int]:
    return {path.stat().st_mtime_ns for path in tree.glob("original/*/*")}


def expected(publisher: Publisher) -> dict[str, bytes]:
    tree = publisher.newest.tree()
    return {path: data for path, data in tree.items() if path.startswith("original/0001/")}


async def alone(runner: Runner, batch: Batch, source: HttpSource | None) -> Outcome:
    [outcome] = await runner.run([batch], source)
    return outcome


@asynccontextmanager
async def working(
    host: RawHost, *, timeout_s: float = 5
) -> AsyncIterator[Callable[[Batch], asyncio.Task[Outcome]]]:
    options = HttpOptions(timeout_s=timeout_s)
    async with (
        Runner("run") as runner,
        HttpSource(host.url, options, intake=runner.intake) as source,
    ):
        yield lambda batch: asyncio.create_task(alone(runner, batch, source))


async def run(
    publisher: Publisher,
    batch: Batch,
    script: Script = honest,
    *,
    ranges: Ranges = Ranges.MANY,
    packs: bool = True,
) -> tuple[Outcome, RawHost]:
    with raw_host(publisher.repo, script, ranges=ranges, packs=packs) as host:
        async with working(host) as work:
            return await work(batch), host


# --------------------------------------------------------------------------- small files


async def test_a_bucket_comes_out_of_its_pack(publisher: Publisher, tmp_path: Path) -> None:
    batch = bucket_batch(publisher.newest, BUCKET, tmp_path)
    outcome, host = await run(publisher, batch)
    assert contents(tmp_path) == expected(publisher)
    assert sorted(outcome.done) == list(range(11))
    assert (outcome.problems, outcome.error, outcome.requests) == ([], None, 1)
    assert outcome.received_bytes == sum(batch.sizes) == host.sent_bytes
    assert mtimes(tmp_path) == {MTIME_NS}


async def test_a_slow_disk_is_not_laid_to_a_host(publisher: Publisher, tmp_path: Path) -> None:
    batch = bucket_batch(publisher.newest, BUCKET, tmp_path)
    options = HttpOptions(timeout_s=0.4)
    with raw_host(publisher.repo, honest) as host:
        async with (
            Runner("run") as runner,
            HttpSource(host.url, options, intake=runner.intake) as source,
        ):
            writing = asyncio.create_task(runner.on_disk(lambda: time.sleep(2)))
            outcome = await alone(runner, batch, source)
            await writing
    assert (outcome.error, outcome.problems, outcome.requests) == (None, [], 1)
    assert sorted(outcome.done) == list(range(len(batch.names)))


class CountingRunner(Runner):
    """Counts what it hands to the disk, and tells when it is there."""

    handed = 0

    def __init__(self, run: str) -> None:
        super().__init__(run)
        self.placed = asyncio.Event()

    async def on_disk(self, function: Callable[[], T]) -> T:
        """Count, and tell."""
        self.handed += 1
        done = await super().on_disk(function)
        self.placed.set()
        return done


@pytest.mark.parametrize("known", [False, True])
async def test_a_file_does_not_wait_for_the_rest_of_its_range(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, *, known: bool
) -> None:
    """What stalls in the middle of bucket 1 holds up neither its first files nor bucket 2."""
    publisher = make_publisher(tmp_path_factory.mktemp("release"))
    ids = [*range(1, 100, 10), 2]
    publisher.publish("y1", random_files(ids, size_bytes=200_000))
    batches = [bucket_batch(publisher.newest, bucket, tmp_path) for bucket in (2, 1)]
    whole = batches[1].size_bytes

    def stalling(_: Request, answer: Answer) -> Answer:
        return replace(answer, stall_after=whole * 2 // 3)

    with raw_host(publisher.repo, for_paths("packs/y1/original/0001", stalling)) as host:
        async with (
            CountingRunner("run") as runner,
            HttpSource(host.url, HttpOptions(timeout_s=2), intake=runner.intake) as source,
        ):
            source.packs = True if known else None
            running = asyncio.create_task(runner.run(batches, source))
            while not running.done() and not (tmp_path / "original" / "0001").exists():
                runner.placed.clear()
                placed = asyncio.create_task(runner.placed.wait())
                await asyncio.wait({placed, running}, return_when=asyncio.FIRST_COMPLETED)
                placed.cancel()
            assert not running.done()
            found = contents(tmp_path)
            running.cancel()
            await asyncio.wait({running})
    assert found.items() < publisher.newest.tree().items()
    assert {path.split("/")[1] for path in found} == {"0001", "0002"}
    assert host.asked("packs/y1/original/0001")[0].request.spans == [(0, whole)]


@pytest.mark.parametrize("rate_bytes_s", [0, 10**9])
async def test_a_batch_that_comes_quickly_is_placed_in_one_go(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    rate_bytes_s: int,
) -> None:
    """Whatever its pieces, and in both ways to ask: its new folder appears with all in it."""
    monkeypatch.setattr("syncclient.portion._WAIT_S", 60)
    monkeypatch.setattr("syncclient.sources.pipeline._SHOWN_AFTER_S", 60)
    publisher = make_publisher(tmp_path_factory.mktemp("release"))
    publisher.publish("y1", random_files(range(1, 100, 10), size_bytes=200_000))
    with raw_host(publisher.repo) as host:
        async with (
            CountingRunner("run") as runner,
            HttpSource(
                host.url, HttpOptions(), TokenBucket(rate_bytes_s), runner.intake
            ) as source,
        ):
            outcome = await alone(runner, bucket_batch(publisher.newest, 1, tmp_path), source)
            assert runner.handed == 1
    assert len(outcome.done) == 10
    assert len(host.log) == 1


async def test_only_the_wanted_ranges_are_fetched(publisher: Publisher, tmp_path: Path) -> None:
    batch = bucket_batch(publisher.newest, BUCKET, tmp_path).subset([0, 1, 7, 10])
    outcome, host = await run(publisher, batch)
    assert sorted(outcome.done) == [0, 1, 2, 3]
    assert len(contents(tmp_path)) == 4
    spans = host.log[0].request.spans
    assert spans is not None
    assert len(spans) == 2
    assert sum(stop - start for start, stop in spans) == sum(batch.sizes)


@pytest.mark.parametrize("ranges", list(Ranges))
@pytest.mark.parametrize("packs", [True, False])
async def test_every_kind_of_host_delivers_the_same(
    publisher: Publisher, tmp_path: Path, ranges: Ranges, *, packs: bool
) -> None:
    batch = bucket_batch(publisher.newest, BUCKET, tmp_path)
    outcome, _ = await run(publisher, batch, ranges=ranges, packs=packs)
    assert contents(tmp_path) == expected(publisher)
    assert sorted(outcome.done) == list(range(11))


async def test_a_host_without_packs_is_asked_for_them_once(
    publisher: Publisher, tmp_path: Path
) -> None:
    for ranges, packs in ((Ranges.MANY, False), (Ranges.NONE, True)):
        with raw_host(publisher.repo, ranges=ranges, packs=packs) as host:
            async with working(host) as work:
                for bucket in range(3):
                    batch = bucket_batch(publisher.newest, bucket, tmp_path / str(packs))
                    # Not its first byte, so that an answer with everything will not do.
                    await work(batch.subset(range(1, len(batch.names))))
            # Several ranges, then fewer and fewer of them, are one question to a host.
            assert {exchange.path for exchange in host.asked("packs/")} == {
                "packs/y1/original/0000"
            }


async def test_a_pack_with_a_gap_gives_way_to_loose_files(
    publisher: Publisher, tmp_path: Path
) -> None:
    with raw_host(publisher.repo, for_paths("packs/y1/original/0001", refuse(410))) as host:
        async with working(host) as work:
            outcome = await work(bucket_batch(publisher.newest, 1, tmp_path))
            assert sorted(outcome.done) == list(range(11))
            await work(bucket_batch(publisher.newest, 2, tmp_path))
        assert host.asked("packs/y1/original/0002")


async def test_a_file_the_host_lacks_is_named_and_stops_no_other(
    publisher: Publisher, tmp_path: Path
) -> None:
    batch = bucket_batch(publisher.newest, BUCKET, tmp_path)
    lacking = for_paths("files/y1/original/0001/21.", refuse(404))
    outcome, _ = await run(publisher, batch, lacking, packs=False)
    (problem,) = outcome.problems
    assert batch.names[problem.row] == "21.png"
    assert problem.missing
    assert "/21.png answers 404" in problem.text
    assert len(outcome.done) == 10


@pytest.mark.parametrize("packs", [True, False])
async def test_wrong_bytes_are_never_named(
    publisher: Publisher, tmp_path: Path, *, packs: bool
) -> None:
    batch = bucket_batch(publisher.newest, BUCKET, tmp_path).subset([0, 3, 7])
    outcome, _ = await run(publisher, batch, flip, packs=packs)
    assert outcome.problems
    assert all(not problem.missing for problem in outcome.problems)
    assert len(outcome.problems) + len(outcome.done) == 3
    done = {f"original/0001/{batch.names[row]}" for row in outcome.done}
    assert contents(tmp_path) == {path: expected(publisher)[path] for path in done}


async def test_a_cut_keeps_what_was_whole(publisher: Publisher, tmp_path: Path) -> None:
    batch = bucket_batch(publisher.newest, BUCKET, tmp_path).subset([0, 2, 4, 6, 8])
    outcome, _ = await run(publisher, batch, once(cut(15_000), refuse(500)))
    assert isinstance(outcome.error, TransferError)
    assert 0 < len(outcome.done) < 5
    for path, data in contents(tmp_path).items():
        assert data == expected(publisher)[path]


async def test_what_the_plan_saw_is_replaced_and_the_rest_moved_aside(
    publisher: Publisher, tmp_path: Path
) -> None:
    batch = bucket_batch(publisher.newest, BUCKET, tmp_path)
    folder = tmp_path / "original" / "0001"
    folder.mkdir(parents=True)
    for name in batch.names[:2]:
        (folder / name).write_bytes(b"something older")
    info = (folder / batch.names[0]).stat()
    seen = FileStat(info.st_size, info.st_mtime_ns, info.st_ino)
    outcome, _ = await run(publisher, structs.replace(batch, replaces=[seen, *batch.replaces[1:]]))
    assert contents(tmp_path) == expected(publisher)
    (aside,) = outcome.asides
    assert aside.path == f"original/0001/{batch.names[1]}"
    assert trashed(tmp_path) == {f"aside/{aside.path}": b"something older"}


async def test_a_disk_that_refuses_ends_the_batch(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "original").symlink_to("/")
    outcome, _ = await run(publisher, bucket_batch(publisher.newest, BUCKET, tmp_path))
    assert isinstance(outcome.error, StoreError)
    assert "symbolic link" in str(outcome.error)


# --------------------------------------------------------------------------- other trees


@pytest.fixture
def other(publisher: Publisher, tmp_path: Path) -> Path:
    """A folder of another tree: half of the files, one of them wrong, one a link."""
    folder = tmp_path / "other"
    folder.mkdir()
    batch = bucket_batch(publisher.newest, BUCKET, tmp_path)
    for name in batch.names[:6]:
        (folder / name).write_bytes(expected(publisher)[f"original/0001/{name}"])
    (folder / batch.names[0]).write_bytes(b"?" * batch.sizes[0])
    (folder / batch.names[7]).symlink_to(folder / batch.names[1])
    return folder


@pytest.mark.parametrize("hard_link", [True, False])
async def test_other_trees_are_asked_first(
    publisher: Publisher, tmp_path: Path, other: Path, *, hard_link: bool
) -> None:
    tree = tmp_path / "tree"
    places = (str(tmp_path / "nowhere"), str(other))
    batch = bucket_batch(publisher.newest, BUCKET, tree, locals_=places, hard_link=hard_link)
    outcome, host = await run(publisher, batch)
    assert contents(tree) == expected(publisher)
    assert sorted(outcome.linked) == [1, 2, 3, 4, 5]
    assert outcome.local_bytes == sum(batch.sizes[1:6])
    asked = [span for exchange in host.log for span in exchange.request.spans or []]
    assert sum(stop - start for start, stop in asked) == sum(batch.sizes) - outcome.local_bytes
    assert sum(outcome.links.values()) == 5
    assert set(outcome.links) <= {"reflink", "hard" if hard_link else "copy"}


async def test_without_a_host_other_trees_give_what_they_have(
    publisher: Publisher, tmp_path: Path, other: Path
) -> None:
    batch = bucket_batch(publisher.newest, BUCKET, tmp_path / "tree", locals_=(str(other),))
    async with Runner("run") as runner:
        outcome = await alone(runner, batch, None)
    assert sorted(outcome.done) == [1, 2, 3, 4, 5]
    assert all(problem.missing for problem in outcome.problems)
    assert len(outcome.problems) == 6


# --------------------------------------------------------------------------- large files


def large_content(path: str) -> bytes | None:
    return LARGE if path == "large" else None


async def run_large(
    batch: Batch, script: Script = honest, *, ranges: Ranges = Ranges.MANY
) -> tuple[Outcome, RawHost]:
    with raw_host(large_content, script, ranges=ranges) as host:
        async with working(host) as work:
            return await work(batch), host


def cut_for_good(after_bytes: int) -> Script:
    """A host that breaks off, and is not to be had any more."""
    return once(cut(after_bytes), refuse(500))


def target(tree: Path) -> Path:
    return tree / "original" / "0001" / "1.mp4"


def parts(tree: Path) -> list[Path]:
    return list((tree / ".bucketsync" / "staging").iterdir())


@pytest.mark.parametrize("chunks", [True, False])
@pytest.mark.parametrize("ranges", [Ranges.MANY, Ranges.NONE])
async def test_a_large_file_comes_whole(tmp_path: Path, ranges: Ranges, *, chunks: bool) -> None:
    batch = large_batch(tmp_path, "large", LARGE, chunks=chunks)
    outcome, host = await run_large(batch, ranges=ranges)
    assert outcome.done == [0]
    assert target(tmp_path).read_bytes() == LARGE
    assert target(tmp_path).stat().st_mtime_ns == MTIME_NS
    assert parts(tmp_path) == []
    # A host without ranges is asked a second time.
    assert host.sent_bytes < 2 * len(LARGE)


async def test_a_very_large_file_comes_by_several_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncclient.largefile._CHUNKS_A_REQUEST", 2)
    outcome, host = await run_large(large_batch(tmp_path, "large", LARGE))
    assert outcome.done == [0]
    assert target(tmp_path).read_bytes() == LARGE
    assert [exchange.sent_bytes for exchange in host.log] == [
        2 * CHUNK_BYTES,
        len(LARGE) - 2 * CHUNK_BYTES,
    ]


@pytest.mark.parametrize("chunks", [True, False])
async def test_a_large_file_goes_on_where_it_was_cut(tmp_path: Path, *, chunks: bool) -> None:
    batch = large_batch(tmp_path, "large", LARGE, chunks=chunks)
    outcome, host = await run_large(batch, cut_for_good(2 * CHUNK_BYTES + 100))
    assert isinstance(outcome.error, TransferError)
    assert not target(tmp_path).exists()
    assert len(parts(tmp_path)) == 1
    outcome, host = await run_large(batch)
    assert outcome.done == [0]
    assert target(tmp_path).read_bytes() == LARGE
    assert host.sent_bytes == len(LARGE) - 2 * CHUNK_BYTES


async def test_what_a_crash_left_is_hashed_again(tmp_path: Path) -> None:
    batch = large_batch(tmp_path, "large", LARGE)
    await run_large(batch, cut_for_good(3 * CHUNK_BYTES))
    (part,) = parts(tmp_path)
    with part.open("r+b") as file:
        file.seek(CHUNK_BYTES + 5)
        file.write(b"torn")
    outcome, host = await run_large(batch)
    assert outcome.done == [0]
    assert target(tmp_path).read_bytes() == LARGE
    assert host.sent_bytes == CHUNK_BYTES + len(LARGE) % CHUNK_BYTES


async def test_a_damaged_large_file_is_repaired_by_the_chunk(tmp_path: Path) -> None:
    damaged = bytearray(LARGE)
    damaged[2 * CHUNK_BYTES + 17] ^= 1
    target(tmp_path).parent.mkdir(parents=True)
    target(tmp_path).write_bytes(damaged)
    info = target(tmp_path).stat()
    batch = structs.replace(
        large_batch(tmp_path, "large", LARGE),
        replaces=[FileStat(info.st_size, info.st_mtime_ns, info.st_ino)],
    )
    outcome, host = await run_large(batch)
    assert (outcome.done, outcome.asides) == ([0], [])
    assert target(tmp_path).read_bytes() == LARGE
    assert host.sent_bytes == CHUNK_BYTES


async def test_a_wrong_chunk_is_never_named_and_costs_no_other(tmp_path: Path) -> None:
    def third_chunk(request: Request, answer: Answer) -> Answer:
        ((start, _),) = request.spans or ((0, 0),)
        body = bytearray(answer.body)
        body[2 * CHUNK_BYTES + 5 - start] ^= 1
        return replace(answer, body=bytes(body))

    batch = large_batch(tmp_path, "large", LARGE)
    outcome, host = await run_large(batch, third_chunk)
    (problem,) = outcome.problems
    assert "chunk 2 does not have the BLAKE3" in problem.text
    assert not target(tmp_path).exists()
    assert host.sent_bytes == len(LARGE) + CHUNK_BYTES
    outcome, host = await run_large(batch)
    assert outcome.done == [0]
    assert host.sent_bytes == CHUNK_BYTES


async def test_a_chunk_that_was_wrong_once_is_fetched_once_more(tmp_path: Path) -> None:
    batch = large_batch(tmp_path, "large", LARGE)
    outcome, host = await run_large(batch, times(1, flip))
    assert (outcome.done, outcome.problems) == ([0], [])
    assert target(tmp_path).read_bytes() == LARGE
    assert host.sent_bytes == len(LARGE) + CHUNK_BYTES


async def test_chunks_are_nothing_without_the_whole(tmp_path: Path) -> None:
    """A manifest whose chunk digests are right, and its digest is that of something else."""
    batch = structs.replace(large_batch(tmp_path, "large", LARGE), digests=digest_bytes(b"else"))
    outcome, _ = await run_large(batch)
    (problem,) = outcome.problems
    assert "do not have the BLAKE3 of the release" in problem.text
    assert not target(tmp_path).exists()
    assert parts(tmp_path) == []


async def test_a_wrong_asset_is_begun_anew(tmp_path: Path) -> None:
    batch = large_batch(tmp_path, "large", LARGE, chunks=False)
    outcome, _ = await run_large(batch, times(1, flip))
    (problem,) = outcome.problems
    assert "do not have the BLAKE3 of the release" in problem.text
    assert not target(tmp_path).exists()
    assert parts(tmp_path) == []
    outcome, _ = await run_large(batch)
    assert target(tmp_path).read_bytes() == LARGE


async def test_a_part_that_is_too_long_is_cut(tmp_path: Path) -> None:
    batch = large_batch(tmp_path, "large", LARGE)
    await run_large(batch, cut_for_good(CHUNK_BYTES))
    (part,) = parts(tmp_path)
    with part.open("ab") as file:
        file.write(bytes(5 * CHUNK_BYTES))
    outcome, _ = await run_large(batch)
    assert outcome.done == [0]
    assert target(tmp_path).read_bytes() == LARGE


@pytest.mark.parametrize("chunks", [True, False])
async def test_an_error_of_the_disk_is_told_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, chunks: bool
) -> None:
    def broken(_: int, **__: bool) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    batch = large_batch(tmp_path, "large", LARGE, chunks=chunks)
    await run_large(batch, cut_for_good(CHUNK_BYTES))
    monkeypatch.setattr("syncclient.largefile.hash_open", broken)
    outcome, _ = await run_large(batch)
    assert isinstance(outcome.error, StoreError)
    assert "Input/output error" in str(outcome.error)
    assert not target(tmp_path).exists()


async def test_a_cancelled_batch_leaves_nothing_half_done(tmp_path: Path) -> None:
    asked = threading.Event()

    def tell(_: Request, answer: Answer) -> Answer:
        asked.set()
        return replace(answer, pace_bytes_s=10**6)

    batch = large_batch(tmp_path, "large", LARGE)
    with raw_host(large_content, tell) as host:
        async with working(host) as work:
            task = work(batch)
            await asyncio.to_thread(asked.wait)
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
    assert not target(tmp_path).exists()
    await run_large(batch)
    assert target(tmp_path).read_bytes() == LARGE


async def test_an_error_after_a_cancel_is_nobodys_any_more() -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait()
        raise StoreError("full")

    async with Runner("run") as runner:
        task = asyncio.create_task(runner.on_disk(work))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        go_on.set()
    del task
    gc.collect()
    assert complaints == []
