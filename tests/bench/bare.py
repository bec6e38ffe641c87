"""The least that a program in Python must do for the same work: the bound of ours, in one run.

``python -m tests.bench.bare`` with ``fetch LIST PORT RELEASE TREE``, ``verify LIST TREE``,
``publish LIST [COPY] TREE``, or ``digest LIST TREE`` for a release without torrents: two processes
read, hash and write the files of a list (:func:`write_list`), and that is all.  They are told what
ours has to find out: which files there are, where their bytes begin, what they must be.  No
manifest, signature, state, second host, log or limit; whatever goes wrong ends them.  As with
ours, a file has its name only when its bytes were checked; but nothing is synced to the disk.
"""

from __future__ import annotations

import gc
import hashlib
import marshal
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:
    from tests.bench.data import Dataset

_PROCESSES = 2
# Requests on the way.
_AHEAD = 4
_BUFFER_BYTES = 8 * 2**20
# Of a large file, whose chunks have digests of their own; of smaller ones all is taken at once.
_PORTION_BYTES = 4 * 2**20
_WRITE_BYTES = 2**16
_READ_BYTES = 2**20
_PIECE_BYTES, _BLOCK_BYTES = 2**18, 2**14
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW

# Name, bytes, BLAKE3 and mtime of a file; and the files of a folder, which are one pack.
Item = tuple[str, int, bytes, int]
Pack = tuple[str, list[Item]]


class BareError(Exception):
    """Anything that is not as it was told."""


def write_list(path: Path, dataset: Dataset, release: str) -> None:
    """Tell all of the first release, or what the second one adds and changes."""
    buckets = dataset.shape.buckets
    moved = [*dataset.changed_ids, *dataset.added_ids]
    ids = sorted(moved if release == "y2" else dataset.ids, key=lambda one: (one % buckets, one))
    packs = [
        (folder, [_item(dataset.tree(release) / each) for each in paths])
        for folder, paths in groupby(map(dataset.path, ids), os.path.dirname)
    ]
    path.write_bytes(marshal.dumps(packs))


def _item(path: Path) -> Item:
    data, info = path.read_bytes(), path.stat()
    return path.name, info.st_size, blake3(data).digest(), info.st_mtime_ns


# ----------------------------------------------------------------- fetching


class _Packs:
    """The bodies of pipelined answers on one connection, in portions."""

    def __init__(self, port: int, paths: Iterable[str]) -> None:
        self._left = deque(paths)
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._stop = 0
        for _ in range(_AHEAD):
            self._ask()

    def _ask(self) -> None:
        if self._left:
            path = self._left.popleft()
            self._socket.sendall(b"GET /%s HTTP/1.1\r\nHost: bare\r\n\r\n" % path.encode())

    def begin(self) -> None:
        """Take the head of the next answer."""
        while (end := self._buffer.find(b"\r\n\r\n", self._start, self._stop)) < 0:
            self._receive()
        head = bytes(self._view[self._start : end])
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise BareError(f"not a pack: {head[:200]!r}")
        self._start = end + 4
        self._ask()

    def take(self, count: int) -> memoryview:
        """The next bytes, valid until the next call."""
        while self._stop - self._start < count:
            self._receive()
        self._start += count
        return self._view[self._start - count : self._start]

    def _receive(self) -> None:
        if self._stop in (self._start, _BUFFER_BYTES):
            left = self._stop - self._start
            self._view[:left] = self._view[self._start : self._stop]
            self._start, self._stop = 0, left
        count = self._socket.recv_into(self._view[self._stop :])
        if not count:
            raise BareError("the server closed the connection")
        self._stop += count


def fetch(packs: Sequence[Pack], port: int, release: str, tree: Path) -> None:
    """Fetch packs into folders that get their names when they are whole.

    Of a folder that is there each file is looked at, whose size and mtime nobody compares.
    """
    answers = _Packs(port, (f"packs/{release}/{folder}" for folder, _ in packs))
    for folder, items in packs:
        answers.begin()
        target = tree / folder
        if target.exists():
            with _opened(target) as folder_fd:
                for name in os.listdir(folder_fd):  # noqa: PTH208 (names alone)
                    os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
                for item in items:
                    staged = f".{item[0]}"
                    _place(answers, item, folder_fd, staged)
                    os.rename(staged, item[0], src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
        else:
            place = target.with_name(f".{target.name}")
            place.mkdir(parents=True)
            with _opened(place) as folder_fd:
                for item in items:
                    _place(answers, item, folder_fd, item[0])
            place.rename(target)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield folder_fd
    finally:
        os.close(folder_fd)


def _place(answers: _Packs, item: Item, place_fd: int, name: str) -> None:
    _, size_bytes, digest, mtime_ns = item
    if size_bytes <= _PORTION_BYTES:
        data = answers.take(size_bytes)
        _check(blake3(data).digest() == digest, name)
        fd = os.open(name, _MAKE, 0o644, dir_fd=place_fd)
        _write(fd, data)
    else:
        fd, hasher = os.open(name, _MAKE, 0o644, dir_fd=place_fd), blake3()
        for start in range(0, size_bytes, _PORTION_BYTES):
            data = answers.take(min(_PORTION_BYTES, size_bytes - start))
            hasher.update(data)
            _write(fd, data)
        _check(hasher.digest() == digest, name)
    os.utime(fd, ns=(mtime_ns, mtime_ns))
    os.close(fd)


def _write(fd: int, data: memoryview) -> None:
    if len(data) <= _WRITE_BYTES:
        os.write(fd, data)
        return
    for start in range(0, len(data), _WRITE_BYTES):
        os.write(fd, data[start : start + _WRITE_BYTES])


def _check(right: bool, name: str) -> None:  # noqa: FBT001 (its only argument)
    if not right:
        raise BareError(f"{name} has other bytes")


# ----------------------------------------------------------------- verifying, publishing


def verify(packs: Sequence[Pack], tree: Path) -> None:
    """Read and compare."""
    buffer = memoryview(bytearray(_READ_BYTES))
    for folder, items in packs:
        with _opened(tree / folder) as folder_fd:
            for name, size_bytes, digest, _ in items:
                fd = os.open(name, _READ, dir_fd=folder_fd)
                if size_bytes < _READ_BYTES:
                    count = os.readv(fd, (buffer,))
                    found = blake3(buffer[:count]).digest()
                else:
                    hasher = blake3()
                    while count := os.readv(fd, (buffer,)):
                        hasher.update(buffer[:count])
                    found = hasher.digest()
                os.close(fd)
                _check(found == digest, name)


def publish(packs: Sequence[Pack], tree: Path, copy: Path | None, *, torrents: bool) -> None:
    """Read, hash as a release needs it, with or without torrents, and write a copy or none."""
    for folder, items in packs:
        if copy is not None:
            (copy / folder).mkdir(parents=True)
        with _opened(tree / folder) as folder_fd, _opened((copy or tree) / folder) as copy_fd:
            for name, size_bytes, digest, mtime_ns in items:
                fd = os.open(name, _READ, dir_fd=folder_fd)
                made = None if copy is None else os.open(name, _MAKE, 0o644, dir_fd=copy_fd)
                hasher = blake3()
                for _ in range(0, size_bytes, _PORTION_BYTES):
                    data = memoryview(os.read(fd, _PORTION_BYTES))
                    hasher.update(data)
                    if size_bytes > _PORTION_BYTES:
                        blake3(data).digest()
                    if torrents:
                        _hash_for_torrents(data)
                    if made is not None:
                        _write(made, data)
                if made is not None:
                    os.utime(made, ns=(mtime_ns, mtime_ns))
                    os.close(made)
                os.close(fd)
                _check(hasher.digest() == digest, name)


def _hash_for_torrents(data: memoryview) -> None:
    """SHA-1 of each piece, the last one padded to whole blocks; SHA-256 of each block."""
    for start in range(0, len(data), _PIECE_BYTES):
        piece = data[start : start + _PIECE_BYTES]
        hasher = hashlib.sha1(piece, usedforsecurity=False)
        hasher.update(bytes(-len(piece) % _BLOCK_BYTES))
        hasher.digest()
        for at in range(0, len(piece), _BLOCK_BYTES):
            hashlib.sha256(piece[at : at + _BLOCK_BYTES]).digest()


# ----------------------------------------------------------------- two processes


def _in_two(packs: Sequence[Pack], work: Callable[[Sequence[Pack]], None]) -> None:
    """Every other pack by a process of its own; BareError if it failed."""
    gc.disable()
    child = os.fork()
    if not child:
        code = 1
        try:
            work(packs[1::_PROCESSES])
            code = 0
        finally:
            os._exit(code)
    work(packs[::_PROCESSES])
    if os.waitpid(child, 0)[1]:
        raise BareError("the other process failed")


def main() -> None:
    """Entry point."""
    verb, listed, *words = sys.argv[1:]
    packs: list[Pack] = marshal.loads(Path(listed).read_bytes())  # noqa: S302 (our own list)
    *places, tree = words
    if verb == "fetch":
        port, release = places
        _in_two(packs, lambda some: fetch(some, int(port), release, Path(tree)))
    elif verb == "verify":
        _in_two(packs, lambda some: verify(some, Path(tree)))
    else:
        copy = Path(*places) if places else None
        with_torrents = verb == "publish"
        _in_two(packs, lambda some: publish(some, Path(tree), copy, torrents=with_torrents))


if __name__ == "__main__":
    main()
