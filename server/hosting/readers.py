"""Processes that read files and send them: one turn of an answer at a time, each by itself.

Of the 7 microseconds that a file of 10 KB takes, half are Python's; threads that wait for each
other there take twice to four times as long, all of them together.  And bytes that one process
reads and another one sends cross from one processor to the other.  So a process is handed the
socket of a client for a turn, reads, and sends from where it has read.

Rules:

* A turn ends when the socket is full: a process waits for files, never for a client.  It is
  started when all others are busy.
* Where more turns wait than there are processes, each takes its share of those that are small,
  for to hand over one by itself costs as much as to send 100 KB: about a millisecond's at once.
* It keeps nothing between two turns, so any may have the next one.
* A process that is gone is missed by what it was at, and replaced for the next one.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import repeat
from typing import Final, NamedTuple, Protocol

from manifests.errors import StoreError
from server.hosting.reading import LENGTH, MAX_TURNS, Outcome, Turn, decode_outcomes, encode_turns

_ANSWER_BYTES: Final = 2**12
_SOCKET: Final = socket.SOL_SOCKET
_RIGHTS: Final = socket.SCM_RIGHTS
# Of several turns that a process is handed at once.
_MAX_EFFORT_BYTES: Final = 2 * 2**20
# Nothing is imported from the working directory, where anything may lie.
_COMMAND: Final = (sys.executable, "-P", "-m", "server.hosting.reader")


class ReaderEndedError(StoreError):
    """A process ended over a turn; how much of it the client got is not known."""

    def __init__(self) -> None:
        message = "a process that reads files was ended from outside"
        super().__init__(message, hint="It is started again.")


class Wire(Protocol):
    """The socket of a client."""

    def fileno(self) -> int:
        """Its descriptor; negative once it was closed."""


# What came of a turn: an outcome, ReaderEndedError, or OSError if no process could be started.
Found = Outcome | ReaderEndedError | OSError


class _Job(NamedTuple):
    """A turn, and who hears what came of it."""

    wire: Wire
    turn: Turn
    done: Callable[[Found], None]


class Readers:
    """Up to ``most`` processes that send for any number of answers.

    Belongs to the loop that it is used in.
    """

    def __init__(self, most: int) -> None:
        self._readers = [_Reader(self._free) for _ in range(most)]
        # The one used last is the one that runs.
        self._idle = self._readers[::-1]
        self._waiting: deque[_Job] = deque()

    def ask(self, wire: Wire, turn: Turn, done: Callable[[Found], None]) -> None:
        """Have what a socket takes now of a turn read and sent, once a process is free.

        ``done`` hears what came of it, after this returned.  A socket that is closed before its
        turn comes is a ConnectionError in the outcome.
        """
        job = _Job(wire, turn, done)
        if self._idle:
            self._idle.pop().take([job])
        else:
            self._waiting.append(job)

    async def send(self, wire: Wire, turn: Turn) -> Outcome:
        """As :meth:`ask`; what is no outcome is raised.

        A turn that began is not cancelled, since a client may have gone away because it has all
        that it asked for: see ``cancelling`` of the task afterwards.
        """
        found: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self.ask(wire, turn, found.set_result)
        while not found.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([found])
        outcome = found.result()
        if not isinstance(outcome, Outcome):
            raise outcome
        return outcome

    def _free(self, reader: _Reader) -> None:
        if self._waiting:
            reader.take(self._share())
        else:
            self._idle.append(reader)

    def _share(self) -> list[_Job]:
        """What one process does next of what waits."""
        share = min(-(-len(self._waiting) // len(self._readers)), MAX_TURNS)
        jobs = [self._waiting.popleft()]
        effort_bytes = jobs[0].turn.effort_bytes
        while len(jobs) < share:
            effort_bytes += self._waiting[0].turn.effort_bytes
            if effort_bytes > _MAX_EFFORT_BYTES:
                break
            jobs.append(self._waiting.popleft())
        return jobs

    async def close(self) -> None:
        """End all processes, and what they were at."""
        while self._waiting:
            self._waiting.popleft().done(ReaderEndedError())
        await asyncio.gather(*(reader.end() for reader in self._readers))


class _Reader:
    """One process, which comes when it is needed; ``free`` hears when it wants other jobs."""

    def __init__(self, free: Callable[[_Reader], None]) -> None:
        self._free = free
        self._process: asyncio.subprocess.Process | None = None
        self._socket: socket.socket | None = None
        self._starting: asyncio.Task[None] | None = None
        self._jobs: list[_Job] | None = None
        self._unsent = memoryview(b"")
        self._data = b""

    def take(self, jobs: list[_Job]) -> None:
        """Begin with some jobs, MAX_TURNS at most."""
        self._jobs = jobs
        if self._socket is None:
            self._starting = asyncio.create_task(self._start(jobs))
        else:
            self._hand_over(self._socket, jobs)

    async def _start(self, jobs: list[_Job]) -> None:
        """Start the process, then hand the jobs over."""
        try:
            channel = await self._channel()
        except OSError as error:
            self._done(jobs, repeat(error))
        except RuntimeError as error:
            # No room for the thread that waits for its end.
            self._done(jobs, repeat(OSError(errno.EAGAIN, str(error))))
        else:
            self._hand_over(channel, jobs)

    async def _channel(self) -> socket.socket:
        """The way to a new process."""
        await self._reap()
        own, other = socket.socketpair()
        own.settimeout(0)
        try:
            with other:
                self._process = await asyncio.create_subprocess_exec(
                    *_COMMAND,
                    stdin=other.fileno(),
                    # Ctrl-C is for the server, which ends its processes.
                    start_new_session=True,
                )
        except BaseException:
            own.close()
            raise
        asyncio.get_running_loop().add_reader(own, self._receive, own)
        self._socket, self._data = own, b""
        return own

    def _hand_over(self, channel: socket.socket, jobs: list[_Job]) -> None:
        loop = asyncio.get_running_loop()
        sockets = array("i", (job.wire.fileno() for job in jobs))
        if min(sockets) < 0:
            self._hand_over_rest(channel, jobs)
            return
        task = encode_turns(job.turn for job in jobs)
        try:
            sent = channel.sendmsg([task], [(_SOCKET, _RIGHTS, sockets)])
        except OSError:
            loop.call_soon(self._lose, channel)
            return
        if sent < len(task):
            self._unsent = memoryview(task)[sent:]
            loop.add_writer(channel, self._push, channel)

    def _hand_over_rest(self, channel: socket.socket, jobs: list[_Job]) -> None:
        """Hand over the jobs whose clients are still there."""
        loop = asyncio.get_running_loop()
        self._jobs = rest = list[_Job]()
        for job in jobs:
            if job.wire.fileno() < 0:
                loop.call_soon(job.done, Outcome(0, error=ConnectionResetError()))
            else:
                rest.append(job)
        if rest:
            self._hand_over(channel, rest)
        else:
            loop.call_soon(self._done, rest, ())

    def _push(self, channel: socket.socket) -> None:
        """Hand over more of a task that did not fit at once."""
        try:
            self._unsent = self._unsent[channel.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self._lose(channel)
            return
        if not self._unsent:
            asyncio.get_running_loop().remove_writer(channel)

    def _receive(self, channel: socket.socket) -> None:
        """Take some of an answer."""
        try:
            part = channel.recv(_ANSWER_BYTES)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        data = self._data + part
        if not part:
            self._lose(channel)
        elif len(data) >= LENGTH.size + LENGTH.unpack_from(data)[0]:
            self._data = b""
            self._done(self._jobs, decode_outcomes(data[LENGTH.size :]))
        else:
            self._data = data

    def _lose(self, channel: socket.socket | None) -> None:
        """The process behind a channel is gone, or to go; that may have been known before."""
        if channel is None or channel is not self._socket:
            return
        self._socket = None
        loop = asyncio.get_running_loop()
        loop.remove_reader(channel)
        loop.remove_writer(channel)
        channel.close()
        self._done(self._jobs, [ReaderEndedError() for _ in self._jobs or ()])

    def _done(self, jobs: list[_Job] | None, founds: Iterable[Found]) -> None:
        """Tell what came of jobs, once: of a process that ends two sides may hear in a moment."""
        if jobs is None or jobs is not self._jobs:
            return
        self._jobs = None
        self._free(self)
        loop = asyncio.get_running_loop()
        # Each by itself: what goes wrong with one is not to be missed by the others.
        for job, found in zip(jobs, founds, strict=False):
            loop.call_soon(job.done, found)

    async def end(self) -> None:
        """End the process, if there is one, and wait until it is gone."""
        if self._starting is not None:
            await self._starting
        self._lose(self._socket)
        await self._reap()

    async def _reap(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
            await process.wait()
