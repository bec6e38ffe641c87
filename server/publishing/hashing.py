"""Reading a file of the tree exactly once: for its digests, for the audit, and for its copy.

What is put into a layer is what was hashed, even if somebody writes to the file meanwhile: a
small file is written from the bytes in memory, a large one as it is read, a reflinked one is
hashed through its reflink.  Only a hard link stays the tree's own file; its stat is recorded and
checked by ``serve``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple, ParamSpec, TypeVar

import blake3

from manifests.columns import CHUNK_BYTES
from manifests.digest import digest_bytes
from manifests.errors import StoreError
from manifests.torrents.pieces import FileHashes, PieceHasher, hash_pieces
from server.audit.content import Content, inspect_bytes, inspect_open
from server.publishing.links import Method, Placed, Stage, disk_error
from server.publishing.piecehashes import PiecePlan
from syncclient.tree import OPEN_READ, FileStat, reflink, write_all

# One change while a file is read is bad luck, two are a writer at work.
_TRIES: Final = 2

P = ParamSpec("P")
Result = TypeVar("Result")


class Taken(NamedTuple):
    """One reading of a file; ``placed`` is None if nothing had to be put into the layer.

    ``pieces`` are the hashes for torrents, if there are to be any.
    """

    digest: bytes
    chunks: bytes
    content: Content
    stat: FileStat
    placed: Placed | None
    pieces: FileHashes | None


class _Reading(NamedTuple):
    """Digests and content of a file, and all its bytes if it is small."""

    digest: bytes
    chunks: bytes
    content: Content
    data: bytes | None
    pieces: FileHashes | None


class _ChangedError(Exception):
    """The file is not what it was a moment ago."""


class Taker:
    """Reads files of one open folder, and puts those that the layer needs into its stage."""

    def __init__(
        self, folder_fd: int, place: str, stage: Stage | None, plan: PiecePlan | None = None
    ) -> None:
        """``place`` is the folder in error messages; without a stage nothing is put anywhere.

        Without a ``plan`` nothing is hashed for torrents.
        """
        self._plan = plan
        self._folder_fd = folder_fd
        self._place = place
        self._stage = stage
        reflinks = stage is not None and stage.reflinks
        # A file of up to this size is read whole before anything is made of it.
        self._memory_bytes = -1 if reflinks else CHUNK_BYTES

    def take(self, name: str, base_digest: bytes | None, listed: FileStat | None = None) -> Taken:
        """Read one file, and put it into the stage unless its digest is ``base_digest``.

        ``listed`` is what a listing said of it.  StoreError if it changed, or was not there,
        twice.
        """
        if listed is not None and listed.size_bytes <= self._memory_bytes:
            # As _try does it, without a call that each of millions of files would pay for.
            try:
                return self._take_listed(name, base_digest, listed)
            except (_ChangedError, FileNotFoundError):
                self._take_back(name)
            except OSError as error:
                raise disk_error(f"{self._place}/{name}", error) from error
        taken = self._try(_TRIES, name, self._take, name, base_digest)
        if taken is None:
            raise StoreError(
                f"{self._place}/{name} changed while it was read, twice",
                hint="Run the same command again when nothing writes to the tree.",
            )
        return taken

    def place(self, name: str, stage: Stage, expected: FileStat) -> Placed | None:
        """Put a file into ``stage`` unread: while its stat is ``expected``, its digest is known.

        None if the stat differs: then it must be taken.
        """
        return self._try(1, name, self._place_known, name, stage, expected)

    def _try(
        self, tries: int, name: str, action: Callable[P, Result], *args: P.args, **kwargs: P.kwargs
    ) -> Result | None:
        for _ in range(tries):
            try:
                return action(*args, **kwargs)
            except (_ChangedError, FileNotFoundError):
                self._take_back(name)
            except OSError as error:
                raise disk_error(f"{self._place}/{name}", error) from error
        return None

    def _take_back(self, name: str) -> None:
        """Leave nothing in the stage of a file that changed."""
        if self._stage is not None and self._stage.is_used:
            with suppress(FileNotFoundError):
                self._stage.drop(name)

    def _open(self, name: str) -> tuple[int, FileStat]:
        fd = os.open(name, OPEN_READ, dir_fd=self._folder_fd)
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            os.close(fd)
            raise _ChangedError
        return fd, FileStat(info.st_size, info.st_mtime_ns, info.st_ino)

    def _take_listed(self, name: str, base_digest: bytes | None, listed: FileStat) -> Taken:
        """Take a small file with one look at it, after it was read: it still is as ``listed``."""
        fd = os.open(name, OPEN_READ, dir_fd=self._folder_fd)
        try:
            data = os.read(fd, listed.size_bytes + 1)
            info = os.fstat(fd)
        finally:
            os.close(fd)
        now = (info.st_size, info.st_mtime_ns, info.st_ino)
        if now != listed or len(data) != now[0] or not stat.S_ISREG(info.st_mode):
            raise _ChangedError
        plan, stage, placed = self._plan, self._stage, None
        digest = digest_bytes(data)
        pieces = None if plan is None else hash_pieces(data, plan.piece_bytes, hybrid=plan.hybrid)
        if stage is not None and digest != base_digest:
            placed = self._put(name, stage, -1, listed, data)
        return Taken(digest, b"", inspect_bytes(data), listed, placed, pieces)

    def _take(self, name: str, base_digest: bytes | None) -> Taken:
        fd, before = self._open(name)
        stage, placed = self._stage, None
        try:
            if stage is not None and stage.opens_first(before.size_bytes):
                reading, placed = self._take_through(
                    name, stage, fd, before.size_bytes, base_digest
                )
            else:
                reading = _read(fd, before.size_bytes, self._plan)
                if stage is not None and reading.digest != base_digest:
                    placed = self._put(name, stage, fd, before, reading.data)
            _require_same(fd, before)
        finally:
            os.close(fd)
        return Taken(
            reading.digest, reading.chunks, reading.content, before, placed, reading.pieces
        )

    def _take_through(
        self, name: str, stage: Stage, fd: int, size_bytes: int, base_digest: bytes | None
    ) -> tuple[_Reading, Placed | None]:
        """Make the file of the layer first or on the way, and take it away if it is not needed."""
        out = stage.create(name)
        placed = None
        try:
            if stage.reflinks and reflink(fd, out):
                reading, method = _read(out, size_bytes, self._plan), Method.REFLINK
            else:
                reading, method = _read(fd, size_bytes, self._plan, out), Method.COPY
            if reading.digest != base_digest:
                placed = stage.finish(out, method)
        finally:
            os.close(out)
        if placed is None:
            stage.drop(name)
        return reading, placed

    def _put(
        self, name: str, stage: Stage, fd: int, before: FileStat, data: bytes | None
    ) -> Placed:
        """Put a file into the stage that is in memory, or, if it is large, open."""
        if stage.links_hard:
            linked = stage.link_hard(name, self._folder_fd)
            if linked is not None:
                if (linked.mtime_ns, linked.inode) != before[1:]:
                    raise _ChangedError
                return linked
        if data is None:
            return stage.fill(name, fd, before.size_bytes)
        return stage.write(name, data)

    def _place_known(self, name: str, stage: Stage, expected: FileStat) -> Placed:
        fd, before = self._open(name)
        try:
            if before != expected:
                raise _ChangedError
            placed = self._put(name, stage, fd, before, None)
            # Whoever writes to a file moves its mtime before its bytes, so what was copied is what
            # was hashed if the mtime still is that of the look.
            _require_same(fd, before)
        finally:
            os.close(fd)
        return placed


def _require_same(fd: int, before: FileStat) -> None:
    info = os.fstat(fd)
    if (info.st_size, info.st_mtime_ns) != before[:2]:
        raise _ChangedError


def _read(fd: int, size_bytes: int, plan: PiecePlan | None, out: int = -1) -> _Reading:
    """Read an open file from its start, writing what is read to ``out`` if that is open."""
    if size_bytes > CHUNK_BYTES:
        return _read_large(fd, size_bytes, None if plan is None else plan.hasher(), out)
    data = os.read(fd, size_bytes + 1)
    while len(data) < size_bytes and (more := os.read(fd, size_bytes + 1 - len(data))):
        data += more
    if len(data) != size_bytes:
        raise _ChangedError
    if out >= 0:
        write_all(out, data)
    pieces = None if plan is None else plan.hash(data)
    return _Reading(digest_bytes(data), b"", inspect_bytes(data), data, pieces)


def _read_large(fd: int, size_bytes: int, hasher: PieceHasher | None, out: int) -> _Reading:
    whole, chunks, left = blake3.blake3(), [], size_bytes
    buffer = memoryview(bytearray(CHUNK_BYTES))
    while left > 0:
        chunk = buffer[: min(left, CHUNK_BYTES)]
        _fill(fd, chunk)
        whole.update(chunk)
        chunks.append(digest_bytes(chunk))
        if hasher is not None:
            hasher.update(chunk)
        if out >= 0:
            write_all(out, chunk)
        left -= len(chunk)
    content, pieces = inspect_open(fd, size_bytes), None if hasher is None else hasher.finish()
    return _Reading(whole.digest(), b"".join(chunks), content, None, pieces)


def _fill(fd: int, chunk: memoryview) -> None:
    filled = 0
    while filled < len(chunk):
        count = os.readv(fd, [chunk[filled:]])
        if count == 0:
            raise _ChangedError
        filled += count
