"""Starting processes; worker processes before there is work for them, and when they are worth it.

A process takes a quarter of a second until it can begin, most of it imports.  A clone knows from
the descriptor that it will need some, and looks at its tree for as long.  Nothing heavy is
imported here.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress

from syncclient.pipes import STREAM_BYTES

# Worker processes pay from this many files or bytes on; below, the client does all itself.
_FILES_WORTH_WORKERS = 500
_BYTES_WORTH_WORKERS = 64 * 2**20


def workers_worth(files: int, size_bytes: int, jobs: int) -> int:
    """Worker processes: as many as the user says, else by the amount of work; 0 for none."""
    if jobs:
        return 0 if jobs == 1 else jobs
    return 2 if files >= _FILES_WORTH_WORKERS or size_bytes >= _BYTES_WORTH_WORKERS else 0


async def spawn(module: str) -> Process:
    """A process of this program that waits for messages on stdin, and ends when that does."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        # Nothing is imported from the working directory, where a release may have put it.
        "-P",
        "-m",
        module,
        stdin=PIPE,
        stdout=PIPE,
        limit=STREAM_BYTES,
        # Ctrl-C is for the client, which ends its processes in order.
        start_new_session=True,
    )


async def spawn_worker() -> Process:
    """One that waits for its setup."""
    return await spawn("syncclient.worker")


class Nest:
    """Processes that were started early; those that nobody took are ended with the run."""

    def __init__(self) -> None:
        self._waiting: list[Process] = []

    async def fill(self, count: int) -> None:
        """Start so many."""
        for _ in range(count):
            self._waiting.append(await spawn_worker())

    async def take(self) -> Process:
        """One that is there, or a new one."""
        return self._waiting.pop() if self._waiting else await spawn_worker()

    async def close(self) -> None:
        """End those that are left."""
        for process in self._waiting:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self._waiting.clear()
