"""One HTTP host: documents, byte ranges of objects and packs, whole loose files.

A host is asked in the fast way first (:mod:`syncclient.sources.bulk`), and in the ordinary way
(:mod:`syncclient.sources.ordinary`) for what it did not just give.  That one needs aiohttp, which
takes a fifth of a second to load; a run against a host that answers plainly never does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Self

from manifests.errors import TransferError
from syncclient.portion import Portion
from syncclient.sources.bulk import Bulk
from syncclient.sources.floor import SpeedFloor
from syncclient.sources.host import HttpOptions, Span, Traffic, address, retry_after_s
from syncclient.sources.intake import Intake
from syncclient.sources.limits import TokenBucket
from syncclient.sources.pipeline import BulkError, Piece, RefusedError

if TYPE_CHECKING:
    from syncclient.sources.ordinary import OrdinarySource

# A host that gives no plain answer so often, and no range or file in between, is asked in the
# ordinary way alone.
_STRIKES: Final = 3
# Answers that may be others if the question is put in another way: too many ranges, too long.
_FORMAL: Final = {400, 416, 431}
_MISSING: Final = {404, 410}


class HttpSource:
    """One host; enter it before it is asked.  Belongs to one event loop."""

    def __init__(
        self,
        url: str,
        options: HttpOptions,
        limiter: TokenBucket | None = None,
        intake: Intake | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        self.url = url
        self.options = options
        self.limiter = limiter or TokenBucket(0)
        self.intake = intake or Intake()
        self.traffic = traffic or Traffic()
        # Whether the host has packs; None until one was asked for.
        self.packs: bool | None = None
        self._stack = AsyncExitStack()
        # The speed that this host is held to, however it is asked.
        self._floor = SpeedFloor(options.min_rate, options.timeout_s)
        self._bulk: Bulk | None = None
        self._ordinary: OrdinarySource | None = None
        self._strikes = 0

    async def __aenter__(self) -> Self:
        """Make ready; nothing is sent yet."""
        # A limited bandwidth is shared out bit by bit, which needs no speed.
        if Bulk.suits(self.url) and self.limiter.rate_bytes_s <= 0:
            self._bulk = Bulk(self.url, self.options, self._floor, self.intake)
            self._stack.callback(self._bulk.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        await self._stack.aclose()

    async def ordinary(self) -> OrdinarySource:
        """The same host, asked in the ordinary way."""
        if self._ordinary is None:
            from syncclient.sources.ordinary import OrdinarySource  # noqa: PLC0415 (aiohttp)

            made = OrdinarySource(self.url, self.options, self.limiter, self._floor, self.traffic)
            self._ordinary = await self._stack.enter_async_context(made)
        return self._ordinary

    # ----------------------------------------------------------------- what callers ask for

    async def document(self, path: str, max_bytes: int) -> bytes:
        """A whole small resource of at most ``max_bytes``."""
        if self._bulk is not None:
            async with self._plainly(path):
                return await self._bulk.document(path, max_bytes, self.traffic)
        return await (await self.ordinary()).document(path, max_bytes)

    async def post(self, path: str, body: bytes, max_bytes: int) -> bytes:
        """What a host answers to a document; TransferError unless it takes it."""
        if self._bulk is not None:
            async with self._plainly(path):
                return await self._bulk.document(path, max_bytes, self.traffic, body)
        return await (await self.ordinary()).post(path, body, max_bytes)

    async def whole(self, path: str, size_bytes: int) -> bytes:
        """A whole resource whose size is known."""
        return await (await self.ordinary()).whole(path, size_bytes)

    async def ranges(
        self, path: str, wanted: Sequence[Span], *, or_whole: bool = False
    ) -> AsyncGenerator[list[Piece], None]:
        """The bytes of each half-open span, with its index; each once, in any order.

        They come some at a time: those of one answer, or what came before it took long.  From a
        host without ranges everything is read with ``or_whole``, else that is an error with status
        200.
        """
        left = dict.fromkeys(range(len(wanted)))
        if self._bulk is not None:
            async with (
                self._plainly(path),
                aclosing(self._bulk.ranges(path, wanted, self.traffic)) as bunches,
            ):
                async for bunch in bunches:
                    self._strikes = 0
                    for index, _ in bunch:
                        del left[index]
                    yield bunch
        if left:
            order = list(left)
            spans = [wanted[index] for index in order]
            source = await self.ordinary()
            async with aclosing(source.ranges(path, spans, or_whole=or_whole)) as pieces:
                async for bunch in _bunches(pieces):
                    yield [(order[place], data) for place, data in bunch]

    async def together(
        self, wanted: Sequence[tuple[str, Sequence[Span]]]
    ) -> AsyncGenerator[list[Piece], None]:
        """The bytes of spans of several resources, numbered right through: what is just given.

        What does not come has to be asked for by :meth:`ranges`, which tells why.
        """
        if self._bulk is not None:
            async with (
                self._plainly(""),
                aclosing(self._bulk.together(wanted, self.traffic)) as bunches,
            ):
                async for bunch in bunches:
                    self._strikes = 0
                    yield bunch

    async def stretch(self, path: str, spans: Sequence[Span]) -> AsyncGenerator[list[Piece], None]:
        """Adjoining spans in one request, each delivered as soon as it is complete.

        A host without ranges sends everything from the start; what is before is read and dropped.
        """
        done = 0
        if self._bulk is not None:
            async with (
                self._plainly(path),
                aclosing(self._bulk.ranges(path, spans, self.traffic)) as bunches,
            ):
                async for bunch in bunches:
                    self._strikes = 0
                    done += len(bunch)
                    yield bunch
        if done < len(spans):
            source = await self.ordinary()
            async with aclosing(source.stretch(path, spans[done:])) as pieces:
                async for index, data in pieces:
                    yield [(done + index, memoryview(data))]

    async def files(
        self, paths: Sequence[str], sizes: Sequence[int]
    ) -> AsyncGenerator[list[Piece], None]:
        """Whole resources of known sizes, those that the host just gives.

        What does not come has to be asked for by :meth:`whole`, which tells why.
        """
        if self._bulk is not None:
            async with (
                self._plainly(""),
                aclosing(self._bulk.wholes(paths, sizes, self.traffic)) as bunches,
            ):
                async for bunch in bunches:
                    self._strikes = 0
                    yield bunch

    @staticmethod
    def _is_final(error: RefusedError, path: str) -> bool:
        """Whether asking again cannot help, or must not: of many files (no path) one may lack."""
        if error.status in _MISSING:
            return bool(path)
        return error.status >= HTTPStatus.BAD_REQUEST and error.status not in _FORMAL

    @asynccontextmanager
    async def _plainly(self, path: str) -> AsyncIterator[None]:
        """Leave the body quietly when the host gave no plain answer.

        TransferError if it was too slow, or has not got what was asked for.
        """
        try:
            async with self._floor.held():
                yield
        except TimeoutError as error:
            message = f"{address(self.url, path)} {self._floor.complaint}"
            raise TransferError(message) from error
        except BulkError as error:
            if isinstance(error, RefusedError) and self._is_final(error, path):
                raise TransferError(
                    f"{address(self.url, error.path)} {error}",
                    status=error.status,
                    retry_after_s=retry_after_s(error.retry_after),
                ) from error
            self._strikes += 1
            if self._strikes >= _STRIKES and self._bulk is not None:
                self._bulk.close()
                self._bulk = None


async def _bunches(
    pieces: AsyncIterator[tuple[int, bytearray]],
) -> AsyncGenerator[list[Piece], None]:
    """Pieces as many at a time as came quickly; also what came before an error."""
    portion, clock = Portion[Piece](), asyncio.get_running_loop().time
    failed: TransferError | None = None
    try:
        async for place, data in pieces:
            portion.add((place, memoryview(data)), 0, len(data), clock())
            if portion.is_enough(clock()):
                yield portion.take()
    except TransferError as error:
        failed = error
    if rest := portion.take():
        yield rest
    if failed is not None:
        raise failed
