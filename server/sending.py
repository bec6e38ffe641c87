"""How an answer reaches its client: read in threads, sent at the client's pace.

Rules:

* The event loop neither reads a file nor waits for a disk, not even in sendfile(2).
* A request holds one batch in memory, and what its socket takes, whatever its size.
* Before the first byte of an answer every file it touches is looked at, and one that is not what was
  published raises StaleFilesError.  If one changes later, the connection is cut: an answer is never
  complete with wrong bytes in it.
* A client that takes nothing for STALL_S is cut off.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeVar

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from manifests.errors import StoreError, SyncError
from server import joined
from server.joined import BATCH_BYTES, CHECK_FILES, JoinedFiles, StaleFilesError
from server.metrics import Metrics
from server.ranges import ByteRange, Reply

STALL_S: Final = 60.0
# Sent by one turn of a thread, so that one fast client does not keep it.
_PUSH_BYTES: Final = 8 * 2**20
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batch:
    """A turn of an answer that is read into memory."""

    body: tuple[bytes | ByteRange, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """A turn of an answer that lies within one large file."""

    row: int
    wanted: ByteRange


def turns(files: JoinedFiles, reply: Reply) -> Iterator[Batch | Stretch]:
    """Cut the body of an answer into stretches of large files, and batches of BATCH_BYTES at most.

    Only part headers can make a batch a little longer.
    """
    body: list[bytes | ByteRange] = []
    size_bytes = 0
    for piece in _pieces(files, reply):
        length = len(piece) if isinstance(piece, bytes) else piece.wanted.size_bytes if isinstance(piece, Stretch) else piece.size_bytes
        if body and (isinstance(piece, Stretch) or size_bytes + length > BATCH_BYTES):
            yield Batch(tuple(body), size_bytes)
            body, size_bytes = [], 0
        if isinstance(piece, Stretch):
            yield piece
        else:
            body.append(piece)
            size_bytes += length
    if body:
        yield Batch(tuple(body), size_bytes)


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
    """Answers requests from files; ``executor`` bounds how many threads read at a time."""

    def __init__(self, executor: Executor, metrics: Metrics, warn: Callable[[str], None]) -> None:
        self._executor = executor
        self._metrics = metrics
        self._warn = warn

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do blocking work in a thread; if cancelled, wait until the thread has let go of ``args``."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor, functools.partial(work, *args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    def answer(self, request: web.Request, reply: Reply, data: bytes) -> web.StreamResponse:
        """Answer from bytes in memory."""
        if request.method == "HEAD" or not reply.body:
            return _head(reply)
        body = b"".join(
            item if isinstance(item, bytes) else data[item.start : item.stop]
            for item in reply.body
        )
        self._metrics.sent_bytes += len(body)
        return web.Response(status=reply.status, headers=reply.headers, body=body)

    async def send(
        self, request: web.Request, reply: Reply, files: JoinedFiles
    ) -> web.StreamResponse:
        """Answer from files.  StaleFilesError, and OSError of a broken disk, if nothing was sent yet."""
        if request.method == "HEAD" or reply.body_bytes > BATCH_BYTES:
            await self._check(files, reply)
        if request.method == "HEAD" or not reply.body:
            return _head(reply)
        if reply.body_bytes <= BATCH_BYTES:
            body = await self.run(joined.fill, files, reply.body)
            self._metrics.sent_bytes += len(body)
            return web.Response(status=reply.status, headers=reply.headers, body=body)
        response = _head(reply)
        try:
            async with _lent_socket(request, await response.prepare(request)) as socket_fd:
                for turn in turns(files, reply):
                    if isinstance(turn, Batch):
                        await self._send_batch(socket_fd, files, turn)
                    else:
                        await self._send_stretch(socket_fd, files, turn)
        except (SyncError, OSError) as error:
            self._cut(request, response, error)
        return response

    async def _check(self, files: JoinedFiles, reply: Reply) -> None:
        """Look at every file that an answer touches, some at a time."""
        ranges = [item for item in reply.body if isinstance(item, ByteRange)]
        rows = await self.run(joined.touched_rows, files, ranges)
        stale: list[str] = []
        for first in range(0, len(rows), CHECK_FILES):
            chosen = rows[first : first + CHECK_FILES]
            stale += await self.run(joined.stale_names, files, chosen)
        if stale:
            raise StaleFilesError(files.folder, stale)

    async def _send_batch(self, socket_fd: int, files: JoinedFiles, turn: Batch) -> None:
        rest = await self.run(joined.fill_and_push, socket_fd, files, turn.body)
        while rest:
            await _writable(socket_fd)
            rest = joined.push_bytes(socket_fd, rest)
        self._metrics.sent_bytes += turn.size_bytes

    async def _send_stretch(self, socket_fd: int, files: JoinedFiles, turn: Stretch) -> None:
        """Send a part of a large file from the page cache to the socket, without a copy of ours."""
        offset = turn.wanted.start - int(files.starts[turn.row])
        left = turn.wanted.size_bytes
        file_fd = await self.run(joined.open_large, files, turn.row)
        try:
            while left:
                asked = min(left, _PUSH_BYTES)
                sent = await self.run(joined.push_file, socket_fd, file_fd, offset, asked)
                offset, left = offset + sent, left - sent
                self._metrics.sent_bytes += sent
                if sent < asked:
                    await _writable(socket_fd)
        finally:
            os.close(file_fd)

    def _cut(
        self, request: web.Request, response: web.StreamResponse, error: SyncError | OSError
    ) -> None:
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


@asynccontextmanager
async def _lent_socket(
    request: web.Request, writer: AbstractStreamWriter | None
) -> AsyncIterator[int]:
    """A descriptor of our own of a connection's socket, once all that aiohttp wrote is in it.

    It stays valid if the connection is closed meanwhile: what a thread still writes to it can never
    reach another connection.
    """
    transport = request.transport
    if transport is None or writer is None or transport.is_closing():
        raise ConnectionResetError
    if transport.get_extra_info("sslcontext") is not None:
        raise StoreError("files cannot be sent encrypted", hint="Let a proxy in front speak TLS.")
    transport.set_write_buffer_limits(high=0)
    async with asyncio.timeout(STALL_S):
        await writer.drain()
    transport.set_write_buffer_limits()
    socket_fd = os.dup(transport.get_extra_info("socket").fileno())
    try:
        yield socket_fd
    finally:
        os.close(socket_fd)


async def _writable(socket_fd: int) -> None:
    """Wait until a socket takes bytes or is broken; TimeoutError after STALL_S."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(socket_fd, ready.set)
    try:
        async with asyncio.timeout(STALL_S):
            await ready.wait()
    finally:
        loop.remove_writer(socket_fd)
