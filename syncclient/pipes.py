"""Messages between processes of this program: pickles with their length in front, over a pipe.

Pickle is safe here: both ends are this program.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import struct
from collections.abc import AsyncIterator
from typing import Any

_LENGTH = struct.Struct("<I")
STREAM_BYTES = 2**20


def packed(message: object) -> bytes:
    """A message as it goes over a pipe."""
    data = pickle.dumps(message)
    return _LENGTH.pack(len(data)) + data


async def messages(stream: asyncio.StreamReader) -> AsyncIterator[Any]:
    """Unpickled messages until the stream ends."""
    while True:
        try:
            length = _LENGTH.unpack(await stream.readexactly(_LENGTH.size))[0]
            data = await stream.readexactly(length)
        except asyncio.IncompleteReadError:
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
