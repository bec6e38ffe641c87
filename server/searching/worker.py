"""The process that searches: ``python -m server.searching.worker``.

It reads questions from its stdin and writes what comes of them to its stdout, one at a time.  It
ends when its stdin does, so it never outlives the server; between the steps of a query it looks
whether to give it up.  It yields the processor to whatever else runs, and cannot take more memory
than it was told at its start.
"""

from __future__ import annotations

import os
import resource
import select
import sys
import time
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from manifests.errors import SyncError
from manifests.units import format_duration, format_size
from server.searching.frames import LENGTH, pack, unpack
from server.searching.indexes import Desk
from server.searching.question import Question, Reason, Reply, SearchLimits, SearchRefusedError

_STDIN: Final = 0
_STDOUT: Final = 1
# Files are served first; a search has the processor when nobody else wants it.
_NICENESS: Final = 10


def main() -> int:
    """Answer until there is nobody to answer."""
    try:
        limits: SearchLimits = _receive()
        os.nice(_NICENESS)
        _limit_memory(limits.memory_bytes)
        _send("ready")
        with Desk() as desk:
            while True:
                question: Question | None = _receive()
                # What says to give up may come when the answer is already out.
                if question is not None and _answer(desk, question, limits):
                    return 0
    except EOFError:
        return 0


def _answer(desk: Desk, question: Question, limits: SearchLimits) -> bool:
    """Answer a question; whether this process is to end."""
    reply = _reply(desk, question, limits)
    if _resident_bytes() > limits.kept_bytes:
        reply = replace(reply, leaving=True)
    _send(reply)
    return reply.leaving


def _reply(desk: Desk, question: Question, limits: SearchLimits) -> Reply:
    watch = _Watch(limits.time_s)
    try:
        found = desk.answer(question, watch.check)
        return Reply(outcome=replace(found, seconds=watch.elapsed_s))
    except SyncError as error:
        return Reply(outcome=error)
    except MemoryError:
        bound = format_size(limits.memory_bytes)
        message = f"the query needs more memory than the {bound} that one may have here"
        return Reply(outcome=_too_dear(Reason.MEMORY, message), leaving=True)


class _Watch:
    """When a query began, and whether it is to go on."""

    def __init__(self, time_s: float) -> None:
        self._time_s = time_s
        self._started_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started_s

    def check(self) -> None:
        """Raise if the time is over or nobody waits for the answer any more."""
        if self.elapsed_s > self._time_s:
            bound = format_duration(self._time_s)
            message = f"the query takes longer than the {bound} that one may take here"
            raise _too_dear(Reason.TIME, message)
        if select.select([_STDIN], [], [], 0)[0]:
            _receive()
            raise SearchRefusedError(Reason.GIVEN_UP, "nobody waits for the answer")


def _too_dear(reason: Reason, message: str) -> SearchRefusedError:
    hint = "Make it narrower, or search on your own machine with `bucketsync search`."
    return SearchRefusedError(reason, message, hint=hint)


def _limit_memory(size_bytes: int) -> None:
    """Let allocations beyond fail, unless the system's own limit is lower."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = size_bytes if hard == resource.RLIM_INFINITY else min(size_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _resident_bytes() -> int:
    """Memory of this process now; where the system does not say, the most it ever had."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(pages) * resource.getpagesize()


def _receive() -> Any:  # noqa: ANN401 (whatever the server sent)
    """The next message; EOFError once the server is gone."""
    (length,) = LENGTH.unpack(_read(LENGTH.size))
    return unpack(_read(length))


def _read(size_bytes: int) -> bytes:
    data = b""
    while len(data) < size_bytes:
        part = os.read(_STDIN, size_bytes - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def _send(message: object) -> None:
    view = memoryview(pack(message))
    while view:
        view = view[os.write(_STDOUT, view) :]


if __name__ == "__main__":
    sys.exit(main())
