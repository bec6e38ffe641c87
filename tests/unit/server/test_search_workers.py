"""One search process: what it answers, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from manifests.errors import ManifestError, StoreError
from manifests.framedref import FramedRef
from manifests.query.errors import QueryError
from server.searching.indexes import Desk
from server.searching.pool import SearchPool, WorkerProcess
from server.searching.question import Question, Reason, SearchLimits, SearchRefusedError
from tests.support.tagindexes import build

POSTS = 200


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> tuple[FramedRef, Path]:
    rows = [{"id": n, "tag_string": f"all tag_{n % 10}"} for n in range(1, POSTS + 1)]
    ref, data = build(rows)
    path = tmp_path_factory.mktemp("index") / "object"
    path.write_bytes(data)
    return ref, path


def question(index: tuple[FramedRef, Path], query: str, after: int | None = None) -> Question:
    ref, path = index
    return Question(
        path=str(path), index=ref, created=0, query=query, limit=POSTS // 2, after=after
    )


@asynccontextmanager
async def worker(limits: SearchLimits | None = None) -> AsyncIterator[WorkerProcess]:
    found = WorkerProcess(limits or SearchLimits())
    await found.start()
    try:
        yield found
    finally:
        await found.end()


def send(found: WorkerProcess, number: signal.Signals) -> None:
    assert found._process is not None
    found._process.send_signal(number)


# --------------------------------------------------------------------------- answers


async def test_a_worker_answers_question_after_question(index: tuple[FramedRef, Path]) -> None:
    async with worker() as found:
        for rest in range(10):
            answer = await found.ask(question(index, f"tag_{rest} order:id"))
            assert answer.ids.tolist() == [n for n in range(1, POSTS + 1) if n % 10 == rest]
            assert answer.is_last


async def test_pages_are_cut_from_one_answer(index: tuple[FramedRef, Path]) -> None:
    async with worker() as found:
        first = await found.ask(question(index, "all"))
        second = await found.ask(question(index, "all", after=int(first.ids[-1])))
    assert (first.is_last, second.is_last) == (False, True)
    assert [*first.ids.tolist(), *second.ids.tolist()] == list(range(POSTS, 0, -1))
    assert first.count == second.count == POSTS


async def test_errors_come_back_whole(index: tuple[FramedRef, Path]) -> None:
    async with worker() as found:
        with pytest.raises(QueryError) as refused:
            await found.ask(question(index, "all (tag_1"))
        assert (refused.value.position, refused.value.hint != "") == (10, True)
        with pytest.raises(SearchRefusedError) as unknown:
            await found.ask(question(index, "tag_1", after=2))
        assert (unknown.value.reason, unknown.value.parameter) == (Reason.PARAMETER, "after")
        assert unknown.value.hint
        assert (await found.ask(question(index, "tag_1"))).count == POSTS // 10


def test_an_index_that_is_missing_or_damaged_is_named(
    index: tuple[FramedRef, Path], tmp_path: Path
) -> None:
    ref, path = index
    other = tmp_path / "other"
    with Desk() as desk:
        with pytest.raises(StoreError, match="other: this tag index cannot be read"):
            desk.answer(question((ref, other), "all"), lambda: None)
        data = bytearray(path.read_bytes())
        data[20] ^= 1
        other.write_bytes(data)
        with pytest.raises(ManifestError, match="not the bytes that the header names"):
            desk.answer(question((ref, other), "all order:score source:a md5:any"), lambda: None)


# --------------------------------------------------------------------------- ends


async def test_what_nobody_waits_for_is_given_up(index: tuple[FramedRef, Path]) -> None:
    async with worker() as found:
        send(found, signal.SIGSTOP)
        asked = asyncio.create_task(found.ask(question(index, "all")))
        await asyncio.sleep(0)
        found.give_up()
        send(found, signal.SIGCONT)
        with pytest.raises(SearchRefusedError) as refused:
            await asked
        assert refused.value.reason is Reason.GIVEN_UP
        assert (await found.ask(question(index, "all"))).count == POSTS


async def test_giving_up_too_late_does_no_harm(index: tuple[FramedRef, Path]) -> None:
    async with worker() as found:
        await found.ask(question(index, "all"))
        found.give_up()
        assert (await found.ask(question(index, "tag_1"))).count == POSTS // 10


async def test_a_worker_that_was_killed_is_said_to_have_ended(
    index: tuple[FramedRef, Path],
) -> None:
    async with worker() as found:
        send(found, signal.SIGSTOP)
        asked = asyncio.create_task(found.ask(question(index, "all")))
        await asyncio.sleep(0)
        send(found, signal.SIGKILL)
        with pytest.raises(SearchRefusedError) as refused:
            await asked
        assert refused.value.reason is Reason.ENDED
        await found.start()
        assert (await found.ask(question(index, "all"))).count == POSTS


async def test_memory_beyond_the_limit_is_not_to_be_had(index: tuple[FramedRef, Path]) -> None:
    """With a limit below what the process has already, it gets nothing more."""
    async with worker(SearchLimits(memory_bytes=1)) as found:
        with pytest.raises(SearchRefusedError) as refused:
            await found.ask(question(index, "order:random"))
        assert refused.value.reason is Reason.MEMORY
        assert found._process is None


async def test_searches_yield_the_processor_to_the_server() -> None:
    async with worker() as found:
        assert found._process is not None
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, found._process.pid) == min(own + 10, 19)


async def test_a_pool_ends_what_it_is_at(index: tuple[FramedRef, Path]) -> None:
    pool = SearchPool(SearchLimits(workers=1))
    await pool.ask(question(index, "all"))
    send(pool._workers[0], signal.SIGSTOP)
    asked = asyncio.create_task(pool.ask(question(index, "tag_1")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await pool.close()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert pool._workers[0]._process is None
