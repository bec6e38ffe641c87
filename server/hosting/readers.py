"""Processes that read files and send them: one turn of an answer at a time, each by itself.

Of the 7 microseconds that a file of 10 KB takes, half are Python's; threads that wait for each
other there take twice to four times as long, all of them together.  And bytes that one process
reads and another one sends cross from one processor to the other.  So a process is handed the
socket of a client for a turn, reads, and sends from where it has read.

Rules:

* A process has one turn at a time, which ends when the socket is full: it waits for files, never
  for a client.  It is started when all others are busy.
* It keeps nothing between two turns, so any may have the next one.
* A process that is gone is missed by one answer, and replaced for the next one.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import suppress
from typing import Final

from manifests.errors import StoreError
from server.hosting.reading import Outcome, Turn
from server.searching.frames import LENGTH, pack, unpack

_ANSWER_BYTES: Final = 2**16
# Nothing is imported from the working directory, where anything may lie.
_COMMAND: Final = (sys.executable, "-P", "-m", "server.hosting.reader")


class ReaderEndedError(StoreError):
    """A process ended over a turn; how much of it the client got is not known."""

    def __init__(self) -> None:
        message = "a process that reads files was ended from outside"
        super().__init__(message, hint="It is started again.")


class Readers:
    """Up to ``most`` processes that send for any number of answers.

    Belongs to the loop that it is used in.
    """

    def __init__(self, most: int) -> None:
        # The one used last is the one that runs.
        self._idle: asyncio.LifoQueue[_Reader] = asyncio.LifoQueue()
        self._readers = [_Reader(self._idle) for _ in range(most)]
        for reader in reversed(self._readers):
            self._idle.put_nowait(reader)

    async def send(self, socket_fd: int, turn: Turn) -> Outcome:
        """Have what a socket takes now of a turn read and sent; ReaderEndedError if that failed.

        A turn that began is not cancelled, since a client may have gone away because it has all
        that it asked for: see ``cancelling`` of the task afterwards.
        """
        reader = await self._idle.get()
        try:
            channel = await reader.channel()
        except BaseException:
            self._idle.put_nowait(reader)
            raise
        answer = reader.ask(channel, pack(turn), socket_fd)
        while not answer.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([answer])
        return answer.result()

    async def close(self) -> None:
        """End all processes."""
        await asyncio.gather(*(reader.end() for reader in self._readers))


class _Reader:
    """One process, which comes when it is first needed, and goes to ``idle`` after each turn."""

    def __init__(self, idle: asyncio.LifoQueue[_Reader]) -> None:
        self._idle = idle
        self._process: asyncio.subprocess.Process | None = None
        self._socket: socket.socket | None = None
        self._answer: asyncio.Future[Outcome] | None = None
        self._unsent = memoryview(b"")
        self._data = b""

    async def channel(self) -> socket.socket:
        """The way to the process, which is started unless it runs."""
        if self._socket is not None:
            return self._socket
        await self.end()
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

    def ask(self, channel: socket.socket, task: bytes, socket_fd: int) -> asyncio.Future[Outcome]:
        """What will have come of a task; ReaderEndedError if the process ends over it."""
        loop = asyncio.get_running_loop()
        answer = self._answer = loop.create_future()
        try:
            self._unsent = memoryview(task)[socket.send_fds(channel, [task], [socket_fd]) :]
        except OSError:
            self._lose()
        else:
            if self._unsent:
                loop.add_writer(channel, self._push, channel)
        return answer

    def _push(self, channel: socket.socket) -> None:
        """Hand over more of a task that did not fit at once."""
        try:
            self._unsent = self._unsent[channel.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self._lose()
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
        self._data += part
        if not part:
            self._lose()
        elif len(self._data) >= LENGTH.size + LENGTH.unpack_from(self._data)[0]:
            outcome, self._data = unpack(self._data[LENGTH.size :]), b""
            self._give(outcome)

    def _lose(self) -> None:
        """The process is gone, or to go."""
        channel, self._socket = self._socket, None
        if channel is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(channel)
            loop.remove_writer(channel)
            channel.close()
        if self._answer is not None:
            self._give(ReaderEndedError())

    def _give(self, found: Outcome | ReaderEndedError) -> None:
        answer, self._answer = self._answer, None
        self._idle.put_nowait(self)
        if answer is None:
            return
        if isinstance(found, Outcome):
            answer.set_result(found)
        else:
            answer.set_exception(found)

    async def end(self) -> None:
        """End the process, if there is one, and wait until it is gone."""
        self._lose()
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
            await process.wait()
