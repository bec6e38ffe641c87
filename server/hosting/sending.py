"""How an answer reaches its client: read elsewhere, sent at the client's pace.

Rules:

* The event loop neither reads a file nor waits for a disk, not even in sendfile(2).
* A request holds one batch in memory, and what its socket takes, whatever its size.
* Every file is looked at when its bytes have been read and before they are sent.  One that is not
  what was published raises StaleFilesError if it is in the first batch, before anything was sent;
  if it comes later, the connection is cut: an answer is never complete with wrong bytes in it.
* Where an answer was cut, the folder is in doubt: of later answers every file is looked at before
  the first byte, so that who asks again hears which files are gone.
* A client that takes nothing for a while is cut off.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Concatenate, Final, ParamSpec, TypeVar

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from manifests.errors import StoreError, SyncError
from server.hosting import joined
from server.hosting.joined import BATCH_BYTES, CHECK_FILES, JoinedFiles, StaleFilesError
from server.hosting.metrics import Metrics
from server.hosting.ranges import ByteRange, Reply
from server.hosting.readers import Batch, Readers

STALL_S: Final = 60.0
# Bodies up to here go through aiohttp, which copies what the socket does not take at once.
_SMALL_BYTES: Final = 128 * 2**10
# Sent by one turn of a thread, so that one fast client does not keep it.
_PUSH_BYTES: Final = 8 * 2**20
# Folders in doubt that are remembered; those that are forgotten cost a cut answer more.
_MAX_DOUBTS: Final = 10_000
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A turn of an answer that is read into memory."""

    body: tuple[bytes | ByteRange, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """A turn of an answer that lies within one large file."""

    row: int
    wanted: ByteRange


def turns(files: JoinedFiles, reply: Reply) -> Iterator[Bundle | Stretch]:
    """Cut the body of an answer into stretches of large files, and bundles of BATCH_BYTES at most.

    A bundle ends early where the next run of small files would not fit.
    """
    body: list[bytes | ByteRange] = []
    size_bytes = 0
    for piece in _pieces(files, reply):
        if isinstance(piece, Stretch):
            if body:
                yield Bundle(tuple(body), size_bytes)
            yield piece
            body, size_bytes = [], 0
            continue
        length = len(piece) if isinstance(piece, bytes) else piece.size_bytes
        if body and size_bytes + length > BATCH_BYTES:
            yield Bundle(tuple(body), size_bytes)
            body, size_bytes = [], 0
        body.append(piece)
        size_bytes += length
    if body:
        yield Bundle(tuple(body), size_bytes)


def _pieces(files: JoinedFiles, reply: Reply) -> Iterator[bytes | ByteRange | Stretch]:
    for item in reply.body:
        if isinstance(item, bytes):
            yield item
            continue
        start = item.start
        while start < item.stop:
            stop, row = files.next_run(start, item.stop)
            wanted = ByteRange(start, stop)
            yield wanted if row is None else Stretch(row, wanted)
            start = stop


class Sender:
    """Answers requests from files.

    Threads of ``executor`` read what is small, and send what lies in large files; ``readers`` read
    the rest.  A client that takes nothing for ``stall_s`` is cut off.
    """

    def __init__(
        self,
        executor: Executor,
        readers: Readers,
        metrics: Metrics,
        warn: Callable[[str], None],
        stall_s: float,
    ) -> None:
        self._executor = executor
        self._readers = readers
        self._metrics = metrics
        self._warn = warn
        self._stall_s = stall_s
        self._doubted: dict[str, None] = {}

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do blocking work in a thread; if cancelled, first wait until the thread is done."""
        return await self._end(self._begin(work, *args, **kwargs))

    def _begin(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._executor, functools.partial(work, *args, **kwargs))

    async def _end(self, future: asyncio.Future[T]) -> T:
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    async def answer(self, request: web.Request, reply: Reply, data: bytes) -> web.StreamResponse:
        """Answer from bytes in memory."""
        if request.method == "HEAD" or not reply.body:
            return _head(reply)
        body = b"".join(
            item if isinstance(item, bytes) else data[item.start : item.stop]
            for item in reply.body
        )
        return await self._send_small(request, reply, body)

    async def send(
        self, request: web.Request, reply: Reply, files: JoinedFiles
    ) -> web.StreamResponse:
        """Answer from files.

        StaleFilesError, or OSError of a broken disk, if nothing was sent yet; what goes wrong
        later cuts the connection.
        """
        is_long = reply.body_bytes > BATCH_BYTES
        if request.method == "HEAD" or (is_long and files.folder in self._doubted):
            await self._check(files, reply)
        if request.method == "HEAD" or not reply.body:
            return _head(reply)
        if reply.body_bytes > _SMALL_BYTES:
            return await self._send_large(request, reply, files)
        data = await self.run(joined.fill, files, reply.body)
        return await self._send_small(request, reply, data)

    async def _send_large(
        self, request: web.Request, reply: Reply, files: JoinedFiles
    ) -> web.StreamResponse:
        """Read the first bundle, then send the head, and turn by turn the body."""
        left = turns(files, reply)
        first, data = next(left), memoryview(b"")
        with self._readers.batch() as batch:
            try:
                if isinstance(first, Bundle):
                    data = await batch.fill(files, first.body, first.size_bytes)
                else:
                    # Of a large file only the last bytes go through a batch.
                    left = itertools.chain((first,), left)
                    await self.run(joined.require, files, first.row)
                return await self._sending(
                    request, reply, self._send_turns, files, data, left, batch
                )
            except StaleFilesError:
                # There may be more of them, and all are to be named.
                await self._check(files, reply)
                raise

    def _doubt(self, folder: str) -> None:
        """Remember that a folder has files that are not what was published."""
        self._doubted[folder] = None
        if len(self._doubted) > _MAX_DOUBTS:
            del self._doubted[next(iter(self._doubted))]

    async def _check(self, files: JoinedFiles, reply: Reply) -> None:
        """Look at every file that an answer touches, some at a time."""
        ranges = [item for item in reply.body if isinstance(item, ByteRange)]
        rows = joined.touched_rows(files, ranges)
        stale: list[str] = []
        for first in range(0, len(rows), CHECK_FILES):
            chosen = rows[first : first + CHECK_FILES]
            stale += await self.run(joined.stale_names, files, chosen)
        if stale:
            raise StaleFilesError(files.folder, stale)

    async def _send_small(
        self, request: web.Request, reply: Reply, body: bytes | memoryview
    ) -> web.StreamResponse:
        """Hand a body to aiohttp, which copies it with the headers and sends both at once."""
        response = web.Response(status=reply.status, headers=reply.headers, body=body)
        try:
            await response.prepare(request)
            async with asyncio.timeout(self._stall_s):
                await response.write_eof()
            self._metrics.sent_bytes += len(body)
        except OSError as error:
            self._cut(request, response, error)
        return response

    async def _sending(
        self,
        request: web.Request,
        reply: Reply,
        send: Callable[Concatenate[int, P], Awaitable[None]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> web.StreamResponse:
        """Send the head, then let ``send`` write the body to the connection's socket."""
        response = _head(reply)
        try:
            writer = await response.prepare(request)
            async with asyncio.timeout(self._stall_s):
                socket_fd = await _borrow_socket(request, writer)
            try:
                await send(socket_fd, *args, **kwargs)
            finally:
                os.close(socket_fd)
        except (SyncError, OSError) as error:
            self._cut(request, response, error)
        return response

    async def _send_turns(
        self,
        socket_fd: int,
        files: JoinedFiles,
        data: memoryview,
        left: Iterable[Bundle | Stretch],
        batch: Batch,
    ) -> None:
        """Send ``data``, then the turns that are left, with ``batch`` for each bundle."""
        await self._send_rest(socket_fd, data)
        try:
            for turn in left:
                if isinstance(turn, Stretch):
                    await self._send_stretch(socket_fd, files, turn)
                else:
                    data = await batch.fill(files, turn.body, turn.size_bytes)
                    await self._send_rest(socket_fd, data)
        except StaleFilesError:
            self._doubt(files.folder)
            raise

    async def _send_rest(self, socket_fd: int, rest: memoryview) -> None:
        """Send what is in memory as fast as the client takes it."""
        while rest:
            before = len(rest)
            rest = joined.push_bytes(socket_fd, rest)
            self._metrics.sent_bytes += before - len(rest)
            if rest:
                await self._writable(socket_fd)

    async def _send_stretch(self, socket_fd: int, files: JoinedFiles, turn: Stretch) -> None:
        """Send a part of a large file with sendfile(2), without a copy of ours."""
        offset = turn.wanted.start - int(files.starts[turn.row])
        stop = offset + turn.wanted.size_bytes
        while offset < stop:
            count = min(stop - offset, _PUSH_BYTES)
            pushing = self._begin(joined.push_large, socket_fd, files, turn.row, offset, count)
            pushing.add_done_callback(self._count_stretch)
            sent = await self._end(pushing)
            offset += sent
            if sent < count:
                await self._writable(socket_fd)

    def _count_stretch(self, pushing: asyncio.Future[int]) -> None:
        if pushing.exception() is None:
            self._metrics.sent_bytes += pushing.result()

    async def _writable(self, socket_fd: int) -> None:
        """Wait until a socket takes bytes or is broken; TimeoutError if it stays full."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(socket_fd, ready.set)
        try:
            async with asyncio.timeout(self._stall_s):
                await ready.wait()
        finally:
            loop.remove_writer(socket_fd)

    def _cut(self, request: web.Request, response: web.StreamResponse, error: Exception) -> None:
        """End an answer that cannot be completed, so that the client sees that it is not whole."""
        if not isinstance(error, ConnectionError):
            cause = "the client took nothing" if isinstance(error, TimeoutError) else str(error)
            self._metrics.cut_answers += 1
            self._warn(f"{request.path}: connection cut: {cause}")
        response.force_close()
        if request.transport is not None:
            request.transport.abort()


def _head(reply: Reply) -> web.StreamResponse:
    """The head of an answer: all of it for HEAD, 304, 412 and 416."""
    return web.StreamResponse(status=reply.status, headers=reply.headers)


async def _borrow_socket(request: web.Request, writer: AbstractStreamWriter | None) -> int:
    """A descriptor of our own of a connection's socket, once all that aiohttp wrote is in it.

    It stays valid if the connection is closed meanwhile, so what a thread still writes to it can
    never reach another connection.  The caller closes it.
    """
    transport = request.transport
    if transport is None or writer is None or transport.is_closing():
        raise ConnectionResetError
    if transport.get_extra_info("sslcontext") is not None:
        raise StoreError("files cannot be sent encrypted", hint="Let a proxy in front speak TLS.")
    transport.set_write_buffer_limits(high=0)
    await writer.drain()
    transport.set_write_buffer_limits()
    return os.dup(transport.get_extra_info("socket").fileno())
