"""A process that reads batches: ``python -m server.hosting.reader FD``, started by a host.

FD is memory that it shares with the host.  Of its stdin, a socket, it takes one task at a time,
(offset in that memory, bytes, arguments of :func:`read_runs`), and answers with the names of stale
files, or with the error that reading ended in.  It ends when the host does.
"""

from __future__ import annotations

import mmap
import socket
import sys

from server.hosting.reading import read_runs
from server.searching.frames import LENGTH, pack, unpack


def main() -> None:
    """Read until there is nobody to read for."""
    host, memory = socket.socket(fileno=0), memoryview(mmap.mmap(int(sys.argv[1]), 0))
    source = host.makefile("rb")
    while head := source.read(LENGTH.size):
        start, size_bytes, folder, body = unpack(source.read(LENGTH.unpack(head)[0]))
        answer: list[str] | OSError
        try:
            answer = read_runs(folder, body, memory[start : start + size_bytes])
        except OSError as error:
            answer = error
        host.sendall(pack(answer))


if __name__ == "__main__":
    main()
