"""Processes that look at folders and read files: tasks in, results in order, over plain pipes.

A process is ready after 0.03 s, since it imports what its tasks need and no more.  Nothing runs
beside the one thread that hands out tasks and asks for results.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import select
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from threading import Event
from typing import IO, Any, Generic, TypeVar, cast

from manifests.errors import SyncError
from syncclient.pipes import LENGTH, packed

_READ_BYTES = 2**18
# How long a result is waited for before it is looked whether the run was stopped.
_PATIENCE_MS = 100
# Room in each pipe, where the system grants it.  While a thousand entries are composed here,
# processes go on with what they were given: with 64 KiB they waited a seventh of a `verify`.
_PIPE_BYTES = 2**20

R = TypeVar("R")


class Ticket(Generic[R]):
    """A task that was handed out; its result is asked for once."""

    def __init__(self, hand: _Hand, size_bytes: int) -> None:
        self._hand = hand
        self.size_bytes = size_bytes
        self.answer: tuple[bool, Any] | None = None

    def result(self) -> R:
        """What the task came to; raises what it raised, CancelledError once the run is stopped."""
        while self.answer is None:
            self._hand.receive()
        worked, value = self.answer
        if not worked:
            raise value
        return cast("R", value)


class _Hand:
    """The near end of one process."""

    def __init__(self, stop: Event) -> None:
        self._stop = stop
        self._process = subprocess.Popen(
            # Nothing is imported from the working directory, where a release may have put it.
            [sys.executable, "-P", "-m", "syncclient.hand"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            # Ctrl-C is for the client, which ends its processes in order.
            start_new_session=True,
        )
        self.waiting: deque[Ticket[Any]] = deque()
        self._unanswered_bytes = 0
        self._buffer = bytearray()
        self._poll = select.poll()
        # With no more than half of the pipe unanswered, writing never waits for a process that
        # waits for us.
        self._most_bytes = 0
        if self._process.stdin is not None and self._process.stdout is not None:
            self._most_bytes = _widen(self._process.stdin) // 2
            _widen(self._process.stdout)
            self._poll.register(self._process.stdout, select.POLLIN)

    def give(self, function: Callable[..., R], argument: object) -> Ticket[R]:
        """Hand out one task."""
        data = packed((function, argument))
        while self.waiting and self._unanswered_bytes + len(data) > self._most_bytes:
            self.receive()
        ticket: Ticket[R] = Ticket(self, len(data))
        view = memoryview(data)
        try:
            while view and self._process.stdin is not None:
                view = view[self._process.stdin.write(view) :]
        except BrokenPipeError as error:
            raise _ended() from error
        self.waiting.append(ticket)
        self._unanswered_bytes += len(data)
        return ticket

    def receive(self) -> None:
        """Wait for the next answer, which belongs to the oldest ticket."""
        length = LENGTH.unpack(self._read(LENGTH.size))[0]
        answer = pickle.loads(self._read(length))  # noqa: S301 (a pipe between our processes)
        ticket = self.waiting.popleft()
        self._unanswered_bytes -= ticket.size_bytes
        ticket.answer = answer

    def _read(self, count: int) -> bytes:
        stream = self._process.stdout
        while len(self._buffer) < count and stream is not None:
            while not self._poll.poll(_PATIENCE_MS):
                if self._stop.is_set():
                    raise CancelledError
            if not (data := os.read(stream.fileno(), _READ_BYTES)):
                raise _ended()
            self._buffer += data
        found = bytes(memoryview(self._buffer)[:count])
        del self._buffer[:count]
        return found

    def close(self) -> None:
        """End the process; what it does is only reading, so nothing is lost."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()


def _widen(pipe: IO[bytes]) -> int:
    """Give a pipe more room if the system allows; the bytes that it holds."""
    with suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)


def _ended() -> SyncError:
    return SyncError(
        "a process that reads files ended unexpectedly",
        hint="Run the same command again; what is there stays.",
    )


class Crew:
    """Processes for one run, started when there is something to do for them."""

    def __init__(self, hands: int, stop: Event) -> None:
        self._most = hands
        self._stop = stop
        self._hands: list[_Hand] = []

    def submit(self, function: Callable[..., R], argument: object) -> Ticket[R]:
        """Start one task, in the process that has the fewest."""
        if len(self._hands) < self._most:
            hand = _Hand(self._stop)
            self._hands.append(hand)
        else:
            hand = min(self._hands, key=lambda each: len(each.waiting))
        return hand.give(function, argument)

    def close(self) -> None:
        """End all processes."""
        for hand in self._hands:
            hand.close()
        self._hands.clear()
