"""Several small batches that are carried out as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from manifests.errors import StoreError, TransferError
from syncclient.batch import Batch, Outcome
from syncclient.fetch import Runner
from syncclient.sources.host import HttpOptions
from syncclient.sources.http import HttpSource
from tests.support.batches import bucket_batch
from tests.support.client import contents
from tests.support.rawhost import (
    RawHost,
    Script,
    cut,
    flip,
    for_paths,
    honest,
    once,
    raw_host,
    refuse,
    repository_content,
    slow,
)
from tests.support.releases import Publisher, make_publisher, random_files

T = TypeVar("T")


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """One release of ten buckets; bucket 3 has nothing but empty files, bucket 4 one of them."""
    made = make_publisher(tmp_path_factory.mktemp("release"))
    files = random_files(range(1, 101), size_bytes=6000)
    files |= {("original", number): ("txt", b"") for number in range(3, 101, 10)}
    files |= {("original", 104): ("txt", b"")}
    made.publish("y1", files)
    return made


@asynccontextmanager
async def knowing(
    publisher: Publisher, tree: Path, script: Script = honest, *, packs: bool = True
) -> AsyncIterator[tuple[Runner, HttpSource, RawHost]]:
    """A runner that knows its host from bucket 0."""
    content = repository_content(publisher.repo, packs=packs)
    with raw_host(content, script) as host:
        async with (
            Runner("run") as runner,
            HttpSource(host.url, HttpOptions(timeout_s=2), intake=runner.intake) as source,
        ):
            [first] = await runner.run([bucket_batch(publisher.newest, 0, tree)], source)
            assert len(first.done) == 10
            assert source.packs is packs
            host.log.clear()
            yield runner, source, host


def others(publisher: Publisher, tree: Path) -> list[Batch]:
    return [bucket_batch(publisher.newest, bucket, tree) for bucket in range(1, 10)]


def undone(batches: Sequence[Batch], outcomes: Sequence[Outcome]) -> list[int]:
    """Buckets that are not complete."""
    pairs = zip(batches, outcomes, strict=True)
    return [int(batch.key[1]) for batch, outcome in pairs if len(outcome.done) < len(batch.names)]


@pytest.mark.parametrize("packs", [True, False])
async def test_all_come_at_once(publisher: Publisher, tmp_path: Path, *, packs: bool) -> None:
    batches = others(publisher, tmp_path)
    async with knowing(publisher, tmp_path, packs=packs) as (runner, source, host):
        outcomes = await runner.run(batches, source)
    assert undone(batches, outcomes) == []
    assert contents(tmp_path) == publisher.newest.tree()
    # A pack of empty files has no bytes to ask for.
    assert len(host.log) == (8 if packs else 91)
    assert sum(outcome.requests for outcome in outcomes) == len(host.log)
    sizes = sum(batch.size_bytes for batch in batches)
    assert sum(outcome.received_bytes for outcome in outcomes) == sizes
    assert not any(outcome.problems or outcome.error for outcome in outcomes)


class CountingRunner(Runner):
    """Counts what it hands to the disk."""

    handed = 0

    async def on_disk(self, function: Callable[[], T]) -> T:
        """Count."""
        self.handed += 1
        return await super().on_disk(function)


async def test_one_batch_shows_what_a_host_is_and_the_others_come_together(
    publisher: Publisher, tmp_path: Path
) -> None:
    batches = others(publisher, tmp_path)
    with raw_host(repository_content(publisher.repo)) as host:
        async with (
            CountingRunner("run") as runner,
            HttpSource(host.url, HttpOptions(timeout_s=2), intake=runner.intake) as source,
        ):
            outcomes = await runner.run(batches, source)
            assert undone(batches, outcomes) == []
            # The first one, and all the others at once.
            assert runner.handed == 2
    assert sum(outcome.requests for outcome in outcomes) == 8


async def test_a_pack_that_is_refused_holds_up_no_other(
    publisher: Publisher, tmp_path: Path
) -> None:
    batches, script = others(publisher, tmp_path), for_paths("packs/y1/original/0005", refuse(410))
    async with knowing(publisher, tmp_path, script) as (runner, source, host):
        outcomes = await runner.run(batches, source)
    assert undone(batches, outcomes) == []
    assert contents(tmp_path) == publisher.newest.tree()
    loose = [each.request.path for each in host.log if each.request.path.startswith("files/")]
    assert len(loose) == 10
    assert all(path.startswith("files/y1/original/0005/") for path in loose)


@pytest.mark.parametrize("packs", [True, False])
async def test_wrong_bytes_are_told_of_the_batch_that_has_them(
    publisher: Publisher, tmp_path: Path, *, packs: bool
) -> None:
    kind = "packs" if packs else "files"
    batches, script = others(publisher, tmp_path), for_paths(f"{kind}/y1/original/0005", flip)
    async with knowing(publisher, tmp_path, script, packs=packs) as (runner, source, _):
        outcomes = await runner.run(batches, source)
    assert undone(batches, outcomes) == [5]
    outcome = outcomes[4]
    assert len(outcome.done) + len(outcome.problems) == 10
    assert not any(problem.missing for problem in outcome.problems)
    assert contents(tmp_path).items() <= publisher.newest.tree().items()


async def test_a_host_that_fails_costs_those_that_have_not_come(
    publisher: Publisher, tmp_path: Path
) -> None:
    batches = others(publisher, tmp_path)
    script = for_paths("packs/y1/original/0007", once(cut(9000), refuse(500)))
    async with knowing(publisher, tmp_path, script) as (runner, source, _):
        outcomes = await runner.run(batches, source)
    assert undone(batches, outcomes) == [7]
    assert isinstance(outcomes[6].error, TransferError)
    assert [outcome.error for outcome in outcomes if outcome is not outcomes[6]] == [None] * 8


async def test_a_host_that_is_too_slow_is_told_of_each_that_it_held_up(
    publisher: Publisher, tmp_path: Path
) -> None:
    batches, script = others(publisher, tmp_path), for_paths("packs/y1/original/0007", slow(10))
    async with knowing(publisher, tmp_path, script) as (runner, source, _):
        outcomes = await runner.run(batches, source)
    assert 7 in undone(batches, outcomes)
    for batch, outcome in zip(batches, outcomes, strict=True):
        complete = len(outcome.done) == len(batch.names)
        assert complete == (outcome.error is None)


async def test_a_disk_that_refuses_ends_all_of_them(publisher: Publisher, tmp_path: Path) -> None:
    batches = others(publisher, tmp_path)
    async with knowing(publisher, tmp_path) as (runner, source, _):
        (tmp_path / "original" / "0005").symlink_to("/")
        outcomes = await runner.run(batches, source)
    assert any(isinstance(outcome.error, StoreError) for outcome in outcomes)
    assert isinstance(outcomes[4].error, StoreError)
    found = contents(tmp_path)
    assert found.pop("original/0005") == b"link to /"
    assert found.items() <= publisher.newest.tree().items()


@pytest.mark.parametrize("packs", [True, False])
async def test_what_a_disk_refuses_is_not_placed_once_more(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, packs: bool
) -> None:
    monkeypatch.setattr("syncclient.portion._FILES", 30)
    batches = others(publisher, tmp_path)
    async with knowing(publisher, tmp_path, packs=packs) as (runner, source, _):
        (tmp_path / "original" / "0005").symlink_to("/")
        outcomes = await runner.run(batches, source)
    assert isinstance(outcomes[4].error, StoreError)
    for outcome in outcomes:
        assert len(outcome.done) == len(set(outcome.done))


async def test_other_trees_are_asked_first(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "tree").mkdir()
    async with knowing(publisher, tmp_path / "other") as (runner, source, _):
        await runner.run(others(publisher, tmp_path / "other")[:3], source)
    batches = [
        bucket_batch(
            publisher.newest,
            bucket,
            tmp_path / "tree",
            locals_=(str(tmp_path / "other" / "original" / f"{bucket:04d}"),),
        )
        for bucket in range(1, 10)
    ]
    async with knowing(publisher, tmp_path / "tree") as (runner, source, host):
        outcomes = await runner.run(batches, source)
    assert undone(batches, outcomes) == []
    assert [len(outcome.linked) for outcome in outcomes] == [10, 10, 10, *[0] * 6]
    assert len(host.log) == 6


async def test_a_cancel_leaves_nothing_half_done(publisher: Publisher, tmp_path: Path) -> None:
    batches, script = others(publisher, tmp_path), for_paths("packs/y1/original/0007", slow(10))
    async with knowing(publisher, tmp_path, script) as (runner, source, _):
        running = asyncio.create_task(runner.run(batches, source))
        await asyncio.wait({running}, timeout=0.5)
        running.cancel()
        await asyncio.wait({running})
    assert running.cancelled()
    assert contents(tmp_path).items() <= publisher.newest.tree().items()
