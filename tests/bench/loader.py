"""Many clients of a server in one process: each asks for a range, drops it, asks for the next.

``python -m tests.bench.loader PORT CLIENTS LIST`` takes turns through the lines of LIST (path,
first and last byte) until all have come, and prints how many bytes they were.  It costs so little
that on two cores it is the server that is measured.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)\r\n", re.IGNORECASE)
_BUFFER = bytearray(2**20)
_PATIENCE_S = 20.0


class LoadError(Exception):
    """A server answered with anything but the range."""


class Client:
    """One connection: a request, its answer, the next request."""

    def __init__(self, port: int, ranges: Iterator[tuple[str, int, int]]) -> None:
        self._ranges = ranges
        self._left = 0
        self._head = b""
        self.received = 0
        self.socket = socket.create_connection(("127.0.0.1", port))

    def ask(self) -> bool:
        """Send the next request; False if there is none."""
        wanted = next(self._ranges, None)
        if wanted is None:
            return False
        path, first, last = wanted
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nRange: bytes={first}-{last}\r\n\r\n"
        self._head, self._left = b"", 0
        self.socket.sendall(head.encode())
        return True

    def take(self) -> bool:
        """Read what is there; False when the client has ended."""
        count = self.socket.recv_into(_BUFFER)
        if not count:
            raise LoadError("the server closed a connection")
        if not self._left:
            count = self._begin(bytes(_BUFFER[:count]))
        self._left -= count
        self.received += count
        if self._left < 0:
            raise LoadError("more came than was asked for")
        return bool(self._left) or not self._ended_head() or self.ask()

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def _ended_head(self) -> bool:
        return b"\r\n\r\n" in self._head

    def _begin(self, data: bytes) -> int:
        """Take the head of an answer apart: bytes of the body that came with it."""
        self._head += data
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            return 0
        found = _LENGTH.search(head + b"\r\n")
        if not head.startswith(b"HTTP/1.1 206") or not found:
            raise LoadError(f"not a range: {head[:200]!r}")
        self._left = int(found[1])
        return len(body)


def _ranges(path: Path) -> Iterator[tuple[str, int, int]]:
    for line in path.read_text().splitlines():
        name, first, last = line.split()
        yield name, int(first), int(last)


def run(port: int, clients: int, listed: Path) -> int:
    """Bytes that came to so many clients, when all ranges of the list have come."""
    ranges, selector = _ranges(listed), selectors.DefaultSelector()
    crowd = [Client(port, ranges) for _ in range(clients)]
    for one in crowd:
        if one.ask():
            selector.register(one.socket, selectors.EVENT_READ, one)
    while selector.get_map():
        if not (ready := selector.select(_PATIENCE_S)):
            raise LoadError(f"{len(selector.get_map())} clients wait for answers that do not come")
        for key, _ in ready:
            if not key.data.take():
                selector.unregister(key.fileobj)
                key.data.close()
    return sum(one.received for one in crowd)


def main() -> None:
    """Entry point."""
    port, clients, listed = sys.argv[1:]
    received = run(int(port), int(clients), Path(listed))
    print(json.dumps({"received": received}))


if __name__ == "__main__":
    main()
