"""A process that sends files: ``python -m server.hosting.reader``, started by a host.

Of its stdin, a socket, it takes one :class:`reading.Turn` at a time, and with it the socket of a
client; it answers with the :class:`reading.Outcome`.  It ends when the host does.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final

from server.hosting.reading import (
    BATCH_BYTES,
    LENGTH,
    Outcome,
    Turn,
    decode_turn,
    encode_outcome,
    send_turn,
)

_PART_BYTES: Final = 2**16
_DESCRIPTOR: Final = struct.Struct("i")
_ROOM: Final = socket.CMSG_SPACE(_DESCRIPTOR.size)


def main() -> None:
    """Send until there is nobody to send for."""
    host, buffer = socket.socket(fileno=0), memoryview(bytearray(BATCH_BYTES))
    while task := _receive(host):
        turn, socket_fd = task
        if socket_fd is None:
            outcome = Outcome(0, error=OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
        else:
            outcome = send_turn(socket_fd, turn, buffer)
            os.close(socket_fd)
        host.sendall(encode_outcome(outcome))


def _receive(host: socket.socket) -> tuple[Turn, int | None] | None:
    """A turn and the client's socket; None if the host is gone.

    The system leaves a descriptor out for which this process has no room.
    """
    data, ancillary, _, _ = host.recvmsg(_PART_BYTES, _ROOM)
    while len(data) < LENGTH.size or len(data) < LENGTH.size + LENGTH.unpack_from(data)[0]:
        part = host.recv(_PART_BYTES)
        if not part:
            return None
        data += part
    socket_fd = _DESCRIPTOR.unpack(ancillary[0][2])[0] if ancillary else None
    return decode_turn(data[LENGTH.size :]), socket_fd


if __name__ == "__main__":
    main()
