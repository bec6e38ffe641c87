"""A process that sends files: ``python -m server.hosting.reader``, started by a host.

Of its stdin, a socket, it takes some :class:`reading.Turn` at a time, and with each the socket of
a client; it answers with an :class:`reading.Outcome` for each.  It ends when the host does.
"""

from __future__ import annotations

import errno
import os
import socket
from array import array
from itertools import zip_longest
from typing import Final

from server.hosting.reading import (
    BATCH_BYTES,
    LENGTH,
    MAX_TURNS,
    Outcome,
    Turn,
    decode_turns,
    encode_outcomes,
    send_turn,
)

_PART_BYTES: Final = 2**16
_ROOM: Final = socket.CMSG_SPACE(MAX_TURNS * array("i").itemsize)


def main() -> None:
    """Send until there is nobody to send for."""
    host, buffer = socket.socket(fileno=0), memoryview(bytearray(BATCH_BYTES))
    while tasks := _receive(host):
        host.sendall(encode_outcomes([_sent(*task, buffer) for task in tasks]))


def _sent(turn: Turn, socket_fd: int | None, buffer: memoryview) -> Outcome:
    """What came of a turn, after which the socket is closed here."""
    if socket_fd is None:
        return Outcome(0, error=OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    try:
        return send_turn(socket_fd, turn, buffer)
    finally:
        os.close(socket_fd)


def _receive(host: socket.socket) -> list[tuple[Turn, int | None]]:
    """Turns, each with the client's socket; nothing if the host is gone.

    The system leaves descriptors out for which this process has no room.
    """
    data, ancillary, _, _ = host.recvmsg(_PART_BYTES, _ROOM)
    while len(data) < LENGTH.size or len(data) < LENGTH.size + LENGTH.unpack_from(data)[0]:
        part = host.recv(_PART_BYTES)
        if not part:
            return []
        data += part
    turns = decode_turns(data[LENGTH.size :])
    sockets = array("i", ancillary[0][2]) if ancillary else ()
    return list(zip_longest(turns, sockets))


if __name__ == "__main__":
    main()
