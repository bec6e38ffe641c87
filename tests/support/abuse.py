"""Clients that mean no good, over raw sockets, and what they must not have changed."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import blake3

from tests.support.host import TIMEOUT_S, Host


def shorter(**limits: float) -> str:
    """A prelude of a host whose connections have other limits, so that a test need not wait."""
    return (
        "import functools\n"
        "from server.commands import serve\n"
        f"serve.ConnectionLimits = functools.partial(serve.ConnectionLimits, **{limits!r})"
    )


def connect(port: int, source: str = "127.0.0.1", *, window_bytes: int = 0) -> socket.socket:
    """A connection from an address of loopback, of which Linux has a whole network."""
    connection = socket.socket()
    if window_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window_bytes)
    connection.settimeout(TIMEOUT_S)
    connection.bind((source, 0))
    connection.connect(("127.0.0.1", port))
    return connection


def all_of(connection: socket.socket) -> bytes:
    """Everything that comes until the server ends the connection, in whatever way."""
    found = bytearray()
    try:
        while part := connection.recv(2**16):
            found += part
    except ConnectionError:
        pass
    return bytes(found)


def send(connection: socket.socket, data: bytes) -> bool:
    """Send bytes; whether the server still took them."""
    try:
        connection.sendall(data)
    except ConnectionError:
        return False
    return True


def statuses(answers: bytes) -> list[int]:
    """The statuses of answers without bodies, or of the first of them."""
    lines = answers.split(b"\r\n")
    return [int(line.split(b" ")[1]) for line in lines if line.startswith(b"HTTP/")]


def exchange(host: Host, data: bytes, source: str = "127.0.0.1") -> bytes:
    """Send bytes, of which the last ask for the end, and take what comes until then."""
    with connect(host.port, source) as connection:
        send(connection, data)
        return all_of(connection)


@contextmanager
def many_files(count: int) -> Iterator[None]:
    """Let this process have so many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), max(hard, count)))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def state_of(folder: Path) -> dict[str, tuple[int, int, int, str]]:
    """All that a folder holds: kind and mode, mtime, inode, and digest or target."""
    found = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        content = ""
        if path.is_symlink():
            content = os.readlink(path)  # noqa: PTH115 (the text, which may lead nowhere)
        elif path.is_file():
            content = blake3.blake3(path.read_bytes()).hexdigest()
        found[str(path)] = (info.st_mode, info.st_mtime_ns, info.st_ino, content)
    return found


def is_served(host: Host, path: str, content: bytes, source: str = "127.0.0.99") -> bool:
    """Whether somebody else gets what he asks for, now."""
    with connect(host.port, source) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        return all_of(connection).partition(b"\r\n\r\n")[2] == content
