"""A process that sends files: ``python -m server.hosting.reader``, started by a host.

Of its stdin, a socket, it takes one :class:`reading.Turn` at a time, and with it the socket of a
client; it answers with the :class:`reading.Outcome`.  It ends when the host does.
"""

from __future__ import annotations

import errno
import os
import socket

from server.hosting.reading import BATCH_BYTES, Outcome, Turn, send_turn
from server.searching.frames import LENGTH, pack, unpack

_PART_BYTES = 2**16


def main() -> None:
    """Send until there is nobody to send for."""
    host, buffer = socket.socket(fileno=0), memoryview(bytearray(BATCH_BYTES))
    while task := _receive(host):
        turn, descriptors = task
        # The system leaves a descriptor out for which this process has no room.
        outcome = Outcome(0, error=OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
        for socket_fd in descriptors:
            outcome = send_turn(socket_fd, turn, buffer)
            os.close(socket_fd)
        host.sendall(pack(outcome))


def _receive(host: socket.socket) -> tuple[Turn, list[int]] | None:
    """A turn and the client's socket; None if the host is gone."""
    data, descriptors, _, _ = socket.recv_fds(host, _PART_BYTES, 1)
    while len(data) < LENGTH.size or len(data) < LENGTH.size + LENGTH.unpack_from(data)[0]:
        part = host.recv(_PART_BYTES)
        if not part:
            return None
        data += part
    return unpack(data[LENGTH.size :]), descriptors


if __name__ == "__main__":
    main()
