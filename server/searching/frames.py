"""Messages between the server and a worker: a length (u32), then a pickle.

Pickle is safe here: both ends are this program.  An empty message tells a worker to give up the
query that it is at.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any, Final

LENGTH: Final = struct.Struct("<I")
GIVE_UP: Final = LENGTH.pack(0)


def pack(message: object) -> bytes:
    """A message with its length."""
    data = pickle.dumps(message)
    return LENGTH.pack(len(data)) + data


def unpack(data: bytes) -> Any:  # noqa: ANN401 (whatever was packed)
    """A message back; None for an empty one."""
    return pickle.loads(data) if data else None  # noqa: S301 (from this program)
