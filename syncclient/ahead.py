"""Asking a host for signed documents before python-tuf asks for them.

python-tuf asks for one document after another, and each is a round trip; but which one comes next
is mostly known while the last is still on its way.  So it is asked for at the same time.  What is
believed does not change: a document that came early is checked when its turn comes, and one whose
turn never comes is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Self

from syncclient.signed import Document

# The bytes of a document: number of the host, path, most bytes, tries.
Ask = Callable[[int, str, int, int | None], Awaitable[bytes]]
# What is sure to be asked for after the document at a path.
Following = Callable[[str], Iterable[Document]]


class Ahead:
    """Documents under way, by host and path.  Enter it; what is open on leaving is dropped."""

    def __init__(self, ask: Ask, following: Following) -> None:
        self._ask = ask
        self._following = following
        self._under_way: dict[tuple[int, str], asyncio.Task[bytes]] = {}

    async def __aenter__(self) -> Self:
        """Nothing is asked yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Drop what nobody took."""
        for task in self._under_way.values():
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    async def document(self, host: int, path: str, max_bytes: int, tries: int | None) -> bytes:
        """A document, and a head start for those that follow it.

        It may be one byte longer than ``max_bytes``, for the caller to refuse.
        """
        if (host, path) not in self._under_way:
            await self.begin(host, Document(path=path, max_bytes=max_bytes), tries)
        return await self._under_way.pop((host, path))

    async def begin(self, host: int, first: Document, tries: int | None) -> None:
        """Ask for a document that will be wanted soon, and for those that follow it."""
        for document in (first, *self._following(first.path)):
            await self._drop(host, document.path)
            self._under_way[host, document.path] = self._start(
                host, document.path, document.max_bytes, tries
            )

    def _start(
        self, host: int, path: str, max_bytes: int, tries: int | None
    ) -> asyncio.Task[bytes]:
        async def ask() -> bytes:
            return await self._ask(host, path, max_bytes, tries)

        return asyncio.create_task(ask())

    async def _drop(self, host: int, path: str) -> None:
        """An answer older than what is asked now proves too little."""
        if (old := self._under_way.pop((host, path), None)) is not None:
            old.cancel()
            await asyncio.gather(old, return_exceptions=True)
