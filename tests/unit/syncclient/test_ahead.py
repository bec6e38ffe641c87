"""Signed documents are asked for before their turn, and none is believed for having come early."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from manifests.errors import TransferError
from syncclient.ahead import Ahead
from syncclient.signed import following

_TUF = "tuf/metadata"
_TIMESTAMP = f"{_TUF}/timestamp.json"


class Host:
    """Answers when it is told to, and counts."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.answers = asyncio.Event()
        self.busy = asyncio.Condition()

    async def ask(self, host: int, path: str, max_bytes: int, tries: int | None) -> bytes:
        assert (host, tries) == (0, 1)
        assert max_bytes > 0
        self.asked[path] += 1
        answer = f"{path} {self.asked[path]}".encode()
        async with self.busy:
            self.busy.notify_all()
        await self.answers.wait()
        if path.endswith("2.root.json"):
            raise TransferError(path)
        return answer

    async def wait_for(self, *paths: str) -> None:
        async with asyncio.timeout(60), self.busy:
            await self.busy.wait_for(lambda: set(paths) <= set(self.asked))


async def document(ahead: Ahead, path: str) -> str:
    return (await ahead.document(0, path, 1000, 1)).decode()


async def test_what_is_sure_to_follow_is_asked_for_before_the_first_answer() -> None:
    host = Host()
    async with Ahead(host.ask, following) as ahead:
        first = asyncio.create_task(document(ahead, f"{_TUF}/1.root.json"))
        await host.wait_for(f"{_TUF}/1.root.json", f"{_TUF}/2.root.json", _TIMESTAMP)
        host.answers.set()
        assert await first == f"{_TUF}/1.root.json 1"
        with pytest.raises(TransferError):
            await document(ahead, f"{_TUF}/2.root.json")
        assert await document(ahead, _TIMESTAMP) == f"{_TIMESTAMP} 1"
    assert host.asked.total() == 3


async def test_a_timestamp_that_came_before_a_newer_root_was_known_is_dropped() -> None:
    host = Host()
    host.answers.set()
    async with Ahead(host.ask, following) as ahead:
        await document(ahead, f"{_TUF}/1.root.json")
        await document(ahead, f"{_TUF}/3.root.json")
        assert await document(ahead, _TIMESTAMP) == f"{_TIMESTAMP} 2"


async def test_what_nobody_takes_is_dropped_whatever_comes_of_it() -> None:
    host = Host()
    async with Ahead(host.ask, following) as ahead:
        first = asyncio.create_task(document(ahead, f"{_TUF}/1.root.json"))
        await host.wait_for(_TIMESTAMP)
        first.cancel()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_other_documents_bring_nothing_with_them() -> None:
    host = Host()
    host.answers.set()
    async with Ahead(host.ask, following) as ahead:
        await document(ahead, f"{_TUF}/7.snapshot.json")
        await document(ahead, _TIMESTAMP)
    assert host.asked.total() == 2
