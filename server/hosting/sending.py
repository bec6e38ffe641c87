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
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Final, ParamSpec, Protocol, TypeVar

from aiohttp import web

from manifests.errors import StoreError, SyncError
from server.hosting import joined
from server.hosting.heads import SentResponse, head_of
from server.hosting.joined import TURN_BYTES, TURN_FILES, JoinedFiles, StaleFilesError
from server.hosting.metrics import Metrics
from server.hosting.ranges import ByteRange, Reply
from server.hosting.readers import ReaderEndedError, Readers
from server.hosting.reading import Outcome, Run, Turn

STALL_S: Final = 60.0
# After these nobody knows what a client got, or it hears nothing any more.
LOST: Final = (ConnectionError, TimeoutError, ReaderEndedError)
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


class Asked(Protocol):
    """What of a request counts for how it is answered; aiohttp's are such."""

    @property
    def method(self) -> str: ...  # noqa: D102
    @property
    def path(self) -> str: ...  # noqa: D102
    @property
    def transport(self) -> asyncio.Transport | None: ...  # noqa: D102


class Answer:
    """An answer from files that is under way: what was sent, and what comes next."""

    def __init__(self, files: JoinedFiles, reply: Reply, head: bytes) -> None:
        self.files = files
        self.reply = reply
        self._head_bytes = len(head)
        self._turns = turns(files, reply, head)
        self._body: Sequence[bytes | Run] = ()
        self._start = self._left = 0
        self._sent_bytes = 0
        # Whether its socket took less than it was offered.
        self.is_full = False

    @property
    def is_unsent(self) -> bool:
        """Whether there may still be another answer."""
        return not self._sent_bytes

    def turn(self) -> Turn | None:
        """What to send next; None if all was sent."""
        if not self._left:
            body = next(self._turns, None)
            if body is None:
                return None
            self._body, self._start = body, 0
            self._left = sum(
                len(item) if isinstance(item, bytes) else item.size_bytes for item in body
            )
        return Turn(self.files.folder, self._body, self._start, is_first=self.is_unsent)

    def took(self, outcome: Outcome) -> int:
        """Note what came of a turn; how many of its bytes were no head."""
        before = max(self._sent_bytes - self._head_bytes, 0)
        self._sent_bytes += outcome.sent_bytes
        self._start += outcome.sent_bytes
        self._left -= outcome.sent_bytes
        self.is_full = bool(self._left)
        return max(self._sent_bytes - self._head_bytes, 0) - before


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
        if request.method == "HEAD" or self.doubts(files):
            await self._check(files, reply)
        if request.method == "HEAD" or not reply.body:
            return _bare(reply)
        answer = Answer(files, reply, head_of(reply, request.version, request.keep_alive))
        is_whole = await self.go_on(request, answer)
        return SentResponse(request, reply, is_whole=is_whole)

    async def go_on(self, request: Asked, answer: Answer) -> bool:
        """Send what is left of an answer; whether its client has it whole now, or was cut off.

        Errors as :meth:`send`.
        """
        try:
            with _borrowed_socket(request) as wire:
                await self._flush(request, wire)
                await self._send_turns(wire, answer)
        except (SyncError, OSError) as error:
            if answer.is_unsent and not isinstance(error, LOST):
                if isinstance(error, StaleFilesError):
                    # There may be more of them, and all are to be named.
                    await self._check(answer.files, answer.reply)
                raise
            self.cut(request, answer, error)
            return False
        return True

    async def _send_turns(self, wire: socket.socket, answer: Answer) -> None:
        """Have all that is left of an answer sent, as fast as the client takes it."""
        task = asyncio.current_task()
        while (turn := answer.turn()) is not None:
            if task and task.cancelling():
                raise asyncio.CancelledError
            if answer.is_full:
                await self._writable(wire.fileno())
            self.note(answer, await self._readers.send(wire, turn))

    def note(self, answer: Answer, outcome: Outcome) -> None:
        """Count what was sent of an answer; the error that ends it."""
        self._metrics.sent_bytes += answer.took(outcome)
        if outcome.stale:
            raise StaleFilesError(answer.files.folder, [outcome.stale])
        if outcome.error is not None:
            raise outcome.error

    async def _flush(self, request: Asked, wire: socket.socket) -> None:
        """Wait until a connection's socket has all that aiohttp wrote for the answers before."""
        while request.transport is not None and request.transport.get_write_buffer_size():
            await self._writable(wire.fileno())

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

    def doubts(self, files: JoinedFiles) -> bool:
        """Whether files are to be looked at before the first byte of an answer."""
        return files.folder in self._doubted

    def cut(self, request: Asked, answer: Answer, error: BaseException) -> None:
        """End an answer of which something may have been sent, and remember why."""
        if isinstance(error, StaleFilesError):
            self._doubt(answer.files.folder)
        self._cut(request, error)

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

    def _cut(self, request: Asked, error: BaseException) -> None:
        """End an answer that cannot be completed, so that the client sees that it is not whole."""
        if not isinstance(error, ConnectionError):
            cause = "the client took nothing" if isinstance(error, TimeoutError) else str(error)
            self._metrics.cut_answers += 1
            self._warn(f"{request.path}: connection cut: {cause}")
        if request.transport is not None:
            request.transport.abort()


def _bare(reply: Reply) -> web.StreamResponse:
    """An answer without a body: all of it for HEAD, 304, 412 and 416."""
    return web.StreamResponse(status=reply.status, headers=reply.headers)


@contextmanager
def _borrowed_socket(request: Asked) -> Iterator[socket.socket]:
    """A connection's socket, opened once more.

    It stays valid if the connection is closed meanwhile, so what is still written to it can never
    reach another connection.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError
    if transport.get_extra_info("sslcontext") is not None:
        raise StoreError("files cannot be sent encrypted", hint="Let a proxy in front speak TLS.")
    with transport.get_extra_info("socket").dup() as wire:
        yield wire
