"""Asking the hosts, in turn, for what must come: metadata, descriptors, manifests.

A host that fails is tried again after a wait, or as it asked, while the others are asked; content
is checked by the caller's ``check``, and a host that sends wrong bytes has failed like one that is
down.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Self, TypeVar

from manifests.errors import ManifestError, TransferError
from syncclient.sources.host import HttpOptions, RedirectError, Span, Traffic
from syncclient.sources.http import HttpSource
from syncclient.sources.limits import TokenBucket

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 15.0

T = TypeVar("T")


class Hosts:
    """The hosts of one run, the first one preferred.  Enter it to open them."""

    def __init__(self, urls: Sequence[str], options: HttpOptions, tries: int) -> None:
        self.urls = tuple(urls)
        self.limiter = TokenBucket(options.bwlimit)
        self._tries = max(1, tries)
        self._sources = [HttpSource(url, options, self.limiter) for url in urls]
        # Numbers of hosts whose last answer was none, or a wrong one.
        self._failing: set[int] = set()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Open each host's connection pool; nothing is sent."""
        for source in self._sources:
            await self._stack.enter_async_context(source)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        await self._stack.aclose()

    def in_order(self) -> list[int]:
        """The numbers of the hosts; one that failed is asked after those that did not."""
        return sorted(range(len(self.urls)), key=self._failing.__contains__)

    def take_traffic(self) -> Traffic:
        """What was received since the last call."""
        taken = [source.traffic.take() for source in self._sources]
        return Traffic(sum(t.received_bytes for t in taken), sum(t.requests for t in taken))

    async def document(
        self,
        path: str,
        max_bytes: int,
        check: Callable[[bytes], T],
        *,
        tries: int | None = None,
        only: int | None = None,
    ) -> T:
        """What ``check`` makes of a document, from any host or from ``only`` that one.

        ``check`` raises ManifestError for wrong bytes.  A host that says "missing" is not asked
        again; if all say so, that error is raised at once.
        """

        async def ask(source: HttpSource) -> T:
            return check(await source.document(path, max_bytes))

        hosts = self.in_order() if only is None else [only]
        return await self._in_turn(ask, hosts, tries or self._tries)

    async def post(self, host: int, path: str, body: bytes, max_bytes: int) -> bytes:
        """What one host answers to a document, asked once; TransferError if it refuses."""
        return await self._sources[host].post(path, body, max_bytes)

    async def spans(
        self, path: str, wanted: Sequence[Span], take: Callable[[int, memoryview], Awaitable[None]]
    ) -> None:
        """Hand the bytes of each span to ``take``, which raises ManifestError for wrong ones.

        Spans are ascending; each is taken once, whatever hosts it takes to get them all.
        """
        left = set(range(len(wanted)))

        async def ask(source: HttpSource) -> None:
            order = sorted(left)
            spans = [wanted[n] for n in order]
            async with aclosing(source.ranges(path, spans, or_whole=True)) as ranges:
                async for bunch in ranges:
                    for index, data in bunch:
                        await take(order[index], data)
                        left.discard(order[index])

        await self._in_turn(ask, self.in_order(), self._tries)

    async def _in_turn(
        self, ask: Callable[[HttpSource], Awaitable[T]], hosts: list[int], tries: int
    ) -> T:
        hopeless: set[int] = set()
        wait_s, last = _FIRST_WAIT_S, TransferError("no host is known")
        for turn in range(tries):
            if turn:
                await asyncio.sleep(wait_s)
            wait_s = min(_FIRST_WAIT_S * 2**turn, _LONGEST_WAIT_S)
            wait_s *= random.uniform(0.75, 1.25)  # noqa: S311 (jitter, not a secret)
            for host in hosts:
                if host in hopeless:
                    continue
                try:
                    answer = await ask(self._sources[host])
                except ManifestError as error:
                    last = TransferError(f"{self.urls[host]} sent wrong bytes: {error}")
                except TransferError as error:
                    last = error
                    wait_s = max(wait_s, error.retry_after_s or 0.0)
                    if error.missing or isinstance(error, RedirectError):
                        hopeless.add(host)
                else:
                    self._failing.discard(host)
                    return answer
                self._failing.add(host)
            if len(hopeless) == len(hosts):
                break
        raise last
