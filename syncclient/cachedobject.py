"""An object in the client's cache: a sparse file of the object's full length.

What is read by ranges is kept where it belongs in the object.  Nothing remembers which bytes are
there: whoever reads some checks them against their BLAKE3, and what does not match (a hole, a torn
write, a bad disk) is simply not there.  So nothing is written that was not checked, and a damaged
cache costs a request, never a wrong answer.
"""

from __future__ import annotations

import asyncio
import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from manifests.digest import Digest
from manifests.errors import StoreError
from syncclient.hosts import Hosts
from syncclient.sources.host import Span

# One range of a request: large enough for few round trips, small enough to lose little.
_REQUEST_BYTES = 4 * 2**20
# What is looked at for a hole when a file is copied.
_PIECE_BYTES = 64 * 1024
# Two missing frames closer than this are fetched with what lies between.
_JOIN_BYTES = 2048

# What of some bytes of an object, by where they begin, is right; ManifestError if they are wrong.
Sift: TypeAlias = Callable[[int, memoryview], Iterable[tuple[int, memoryview]]]


def object_path(digest: Digest) -> str:
    """Where an object lies on a host."""
    return f"objects/{digest.hex[:2]}/{digest.hex}"


def cache_path(cache: Path, digest: Digest) -> Path:
    """Where an object lies in the cache."""
    return cache / digest.hex[:2] / digest.hex


def join_spans(spans: Iterable[Span]) -> list[Span]:
    """Ascending spans as few requests' worth of them: near ones become one."""
    joined: list[Span] = []
    for start, stop in spans:
        near = joined and start - joined[-1][1] <= _JOIN_BYTES
        if near and stop - joined[-1][0] <= _REQUEST_BYTES:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined


class CachedObject:
    """The file of one object; it is mapped when it is first read."""

    def __init__(self, path: Path, digest: Digest, size_bytes: int) -> None:
        self._path = path
        self._digest = digest
        self._size_bytes = size_bytes
        self._map: mmap.mmap | None = None

    def read(self, start: int, stop: int) -> bytes:
        """Bytes of the object that nobody has checked; fewer, or none, where the file is short."""
        if self._map is None:
            try:
                with self._path.open("rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError):
                return b""
        return self._map[start:stop]

    async def fill(self, hosts: Hosts, spans: Sequence[Span], sift: Sift) -> None:
        """Fetch ascending spans, and write what ``sift`` finds right in each.

        TransferError if no host has right bytes, StoreError if the disk refuses.
        """

        async def take(index: int, data: memoryview) -> None:
            await asyncio.to_thread(self._put, sift(spans[index][0], data))

        try:
            await asyncio.to_thread(self._make)
            await hosts.spans(object_path(self._digest), spans, take)
        except OSError as error:
            message = f"{self._path}: {error.strerror or error}"
            raise StoreError(message) from error
        finally:
            self.close()

    def _make(self) -> None:
        """Make the sparse file, or give one that was cut its length back."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists() and self._path.stat().st_nlink > 1:
            _part_from_others(self._path)
        with open(self._path, "ab", opener=_open_own) as file:
            file.truncate(self._size_bytes)

    def _put(self, pieces: Iterable[tuple[int, memoryview]]) -> None:
        with open(self._path, "r+b", opener=_open_own) as file:
            for start, piece in pieces:
                file.seek(start)
                file.write(piece)

    def close(self) -> None:
        """Let go of the mapped file; reading maps it again."""
        if self._map is not None:
            self._map.close()
            self._map = None


def _part_from_others(path: Path) -> None:
    """Make a file that has other names (another tree shares it) one of its own; holes stay."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    with path.open("rb") as old, temporary.open("xb") as new:
        while piece := old.read(_PIECE_BYTES):
            if any(piece):
                new.write(piece)
            else:
                new.seek(len(piece), os.SEEK_CUR)
    temporary.replace(path)


def _open_own(path: str, flags: int) -> int:
    """Open for writing, but not through a link."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
