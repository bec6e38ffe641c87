"""How an answer reaches its client: read and sent elsewhere, at the client's pace.

Rules:

* The event loop neither reads a file nor waits for a disk; processes do, and send what they read
  (:mod:`server.hosting.readers`).  They do not wait for a client either: the loop does.
* A request holds the names of a turn in memory, and what its socket takes, whatever its size.
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
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeVar

from aiohttp import web

from manifests.errors import StoreError, SyncError
from server.hosting import joined
from server.hosting.heads import SentResponse, head_of
from server.hosting.joined import TURN_BYTES, TURN_FILES, JoinedFiles, StaleFilesError
from server.hosting.metrics import Metrics
from server.hosting.ranges import ByteRange, Reply
from server.hosting.readers import ReaderEndedError, Readers
from server.hosting.reading import BATCH_BYTES, Run, Turn

STALL_S: Final = 60.0
# After these nobody knows what a client got, or it hears nothing any more.
_LOST: Final = (ConnectionError, TimeoutError, ReaderEndedError)
# Folders in doubt that are remembered; those that are forgotten cost a cut answer more.
_MAX_DOUBTS: Final = 10_000
P = ParamSpec("P")
T = TypeVar("T")


def turns(files: JoinedFiles, reply: Reply, head: bytes) -> Iterator[list[bytes | Run]]:
    """Cut an answer into turns, none of which has twice TURN_BYTES or TURN_FILES."""
    body: list[bytes | Run] = [head]
    size_bytes = count = 0
    for item in reply.body:
        if isinstance(item, bytes):
            body.append(item)
            continue
        for run in files.runs(item):
            body.append(run)
            size_bytes += run.size_bytes
            count += run.files
            if size_bytes >= TURN_BYTES or count >= TURN_FILES:
                yield body
                body, size_bytes, count = [], 0, 0
    if body:
        yield body


class Sender:
    """Answers requests from files, which ``readers`` send; ``executor`` does what else blocks.

    A client that takes nothing for ``stall_s`` is cut off.
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
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor, functools.partial(work, *args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    async def answer(self, request: web.Request, reply: Reply, data: bytes) -> web.StreamResponse:
        """Answer from bytes in memory."""
        if request.method == "HEAD" or not reply.body:
            return _bare(reply)
        body = b"".join(
            item if isinstance(item, bytes) else data[item.start : item.stop]
            for item in reply.body
        )
        response = web.Response(status=reply.status, headers=reply.headers, body=body)
        try:
            await response.prepare(request)
            async with asyncio.timeout(self._stall_s):
                await response.write_eof()
            self._metrics.sent_bytes += len(body)
        except OSError as error:
            response.force_close()
            self._cut(request, error)
        return response

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
            return _bare(reply)
        head = head_of(request, reply)
        taken = _Taken(len(head))
        try:
            with _borrowed_socket(request) as socket_fd:
                await self._flush(request, socket_fd)
                for body in turns(files, reply, head):
                    await self._send_turn(socket_fd, files.folder, body, taken)
        except (SyncError, OSError) as error:
            if taken.nothing and not isinstance(error, _LOST):
                if isinstance(error, StaleFilesError):
                    # There may be more of them, and all are to be named.
                    await self._check(files, reply)
                raise
            if isinstance(error, StaleFilesError):
                self._doubt(files.folder)
            self._cut(request, error)
            return SentResponse(request, reply, is_whole=False)
        return SentResponse(request, reply, is_whole=True)

    async def _send_turn(
        self, socket_fd: int, folder: str, body: Sequence[bytes | Run], taken: _Taken
    ) -> None:
        """Have all of a turn sent, as fast as the client takes it."""
        left = sum(len(item) if isinstance(item, bytes) else item.size_bytes for item in body)
        task, start, is_full = asyncio.current_task(), 0, False
        while left:
            if task and task.cancelling():
                raise asyncio.CancelledError
            if is_full:
                await self._writable(socket_fd)
            turn = Turn(folder, body, start, is_first=taken.nothing)
            outcome = await self._readers.send(socket_fd, turn)
            self._metrics.sent_bytes += taken.add(outcome.sent_bytes)
            if outcome.stale:
                raise StaleFilesError(folder, [outcome.stale])
            if outcome.error is not None:
                raise outcome.error
            start += outcome.sent_bytes
            left -= outcome.sent_bytes
            is_full = True

    async def _flush(self, request: web.Request, socket_fd: int) -> None:
        """Wait until a connection's socket has all that aiohttp wrote for the answers before."""
        while request.transport is not None and request.transport.get_write_buffer_size():
            await self._writable(socket_fd)

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
        for first in range(0, len(rows), TURN_FILES):
            chosen = rows[first : first + TURN_FILES]
            stale += await self.run(joined.stale_names, files, chosen)
        if stale:
            raise StaleFilesError(files.folder, stale)

    def _cut(self, request: web.Request, error: Exception) -> None:
        """End an answer that cannot be completed, so that the client sees that it is not whole."""
        if not isinstance(error, ConnectionError):
            cause = "the client took nothing" if isinstance(error, TimeoutError) else str(error)
            self._metrics.cut_answers += 1
            self._warn(f"{request.path}: connection cut: {cause}")
        if request.transport is not None:
            request.transport.abort()


@dataclass(slots=True)
class _Taken:
    """What a client's socket took of an answer."""

    head_bytes: int
    sent_bytes: int = 0

    @property
    def nothing(self) -> bool:
        """Whether there may still be another answer."""
        return not self.sent_bytes

    def add(self, sent_bytes: int) -> int:
        """So many bytes more; how many of them were no head."""
        before = max(self.sent_bytes - self.head_bytes, 0)
        self.sent_bytes += sent_bytes
        return max(self.sent_bytes - self.head_bytes, 0) - before


def _bare(reply: Reply) -> web.StreamResponse:
    """An answer without a body: all of it for HEAD, 304, 412 and 416."""
    return web.StreamResponse(status=reply.status, headers=reply.headers)


@contextmanager
def _borrowed_socket(request: web.Request) -> Iterator[int]:
    """A descriptor of our own of a connection's socket.

    It stays valid if the connection is closed meanwhile, so what is still written to it can never
    reach another connection.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError
    if transport.get_extra_info("sslcontext") is not None:
        raise StoreError("files cannot be sent encrypted", hint="Let a proxy in front speak TLS.")
    socket_fd = os.dup(transport.get_extra_info("socket").fileno())
    try:
        yield socket_fd
    finally:
        os.close(socket_fd)
