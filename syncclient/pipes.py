"""Messages between processes of this program: pickles with their length in front, over a pipe.

Pickle is safe here: both ends are this program.  Processes that only read files import this, so it
loads no asyncio of its own.
"""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

LENGTH = struct.Struct("<I")
STREAM_BYTES = 2**20


def packed(message: object) -> bytes:
    """A message as it goes over a pipe."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(data)) + data


async def messages(stream: asyncio.StreamReader) -> AsyncIterator[Any]:
    """Unpickled messages until the stream ends."""
    while True:
        try:
            length = LENGTH.unpack(await stream.readexactly(LENGTH.size))[0]
            data = await stream.readexactly(length)
        except EOFError:
            # asyncio.IncompleteReadError is one.
            return
        yield pickle.loads(data)  # noqa: S301 (a pipe between two processes of this program)


def write_all(descriptor: int, data: bytes) -> None:
    """Write to a pipe whose reader reads at once; nothing happens if he has gone."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BrokenPipeError:
            return
