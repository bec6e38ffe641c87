"""Fetching one large file by chunks, from where an earlier run or a damaged file leaves off."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING

import blake3

from manifests.digest import CHUNK_BYTES, digest_bytes
from manifests.errors import StoreError
from syncclient.batch import Batch, Outcome, Problem
from syncclient.files import hash_open
from syncclient.sources.bulk import Piece
from syncclient.sources.host import Span
from syncclient.sources.http import HttpSource
from syncclient.store import Store

if TYPE_CHECKING:
    from syncclient.fetch import Runner

# Chunks of a large file that one request asks for: 128 MiB, the whole of most.  Between two
# requests a connection is idle; others that want it wait until one is answered.
_CHUNKS_A_REQUEST = 32


class LargeFile:
    """A file fetched by chunks into a staged part, which survives a crash, then hashed again.

    One that comes from its start is hashed as it comes, once.  If that is not the digest of the
    release, or some of it was here, chunk digests tell which chunks to fetch, and each is checked
    when it arrives: so only wrong or missing ones are fetched, also of the file that stands there
    now, if it is damaged.  Without them (assets) only the whole file can be checked.
    """

    def __init__(self, runner: Runner, batch: Batch, source: HttpSource, outcome: Outcome) -> None:
        self._runner = runner
        self._batch = batch
        self._source = source
        self._outcome = outcome
        self._size = batch.sizes[0]
        self._name = batch.names[0]
        key = "/".join((*batch.folder, self._name)).encode() + batch.digest(0)
        self._part = f"{digest_bytes(key).hex()[:32]}.part"
        # Of all that came, from the start on; None once some of it did not come in that way.
        self._hasher: blake3.blake3 | None = None
        self._hashed_bytes = 0

    async def fetch(self) -> None:
        """Bring the part to its end, check it whole, give it its name."""
        fd = await self._runner.on_disk(self._open)
        try:
            await self._fetch_missing(fd)
            if self._batch.chunks and self._hasher and not self._is_right():
                # Something of it is wrong; by the chunk it is found out what.
                self._hasher = None
                await self._fetch_missing(fd)
            await self._runner.on_disk(lambda: self._finish(fd))
        except _BadChunkError as error:
            self._outcome.problems.append(Problem(row=0, text=str(error)))
        finally:
            await self._runner.on_disk(lambda: os.close(fd))

    def _open(self) -> int:
        fd = self._store.open_part(self._part)
        if os.fstat(fd).st_size == 0 and self._batch.chunks:
            with suppress(OSError, StoreError):
                self._store.copy_into(fd, self._batch.folder, self._name)
        if os.fstat(fd).st_size > self._size:
            os.ftruncate(fd, self._size)
        if os.fstat(fd).st_size == 0:
            self._hasher = blake3.blake3()
        return fd

    @property
    def _store(self) -> Store:
        return self._runner.store(self._batch.root)

    def _count(self) -> int:
        return -(-self._size // CHUNK_BYTES)

    def _span(self, chunk: int) -> Span:
        return chunk * CHUNK_BYTES, min((chunk + 1) * CHUNK_BYTES, self._size)

    def _missing(self, fd: int) -> list[Span]:
        """Runs of chunks (first, last) still to be fetched, after reading what is staged."""
        held = os.fstat(fd).st_size
        if not self._batch.chunks:
            # Whole chunks only: the end of what a crash left may be torn.
            wanted = list(range(held // CHUNK_BYTES, self._count()))
        else:
            wanted = [chunk for chunk in range(self._count()) if not self._intact(fd, chunk, held)]
        runs: list[Span] = []
        for chunk in wanted:
            if runs and runs[-1][1] == chunk and chunk - runs[-1][0] < _CHUNKS_A_REQUEST:
                runs[-1] = (runs[-1][0], chunk + 1)
            else:
                runs.append((chunk, chunk + 1))
        return runs

    def _intact(self, fd: int, chunk: int, held: int) -> bool:
        start, stop = self._span(chunk)
        return stop <= held and digest_bytes(os.pread(fd, stop - start, start)) == self._expected(
            chunk
        )

    def _expected(self, chunk: int) -> bytes:
        return self._batch.chunks[32 * chunk : 32 * chunk + 32]

    def _is_right(self) -> bool:
        """Whether all that came makes up the file of the release."""
        complete = self._hashed_bytes == self._size
        return (
            self._hasher is not None
            and complete
            and self._hasher.digest() == self._batch.digest(0)
        )

    async def _fetch_missing(self, fd: int) -> None:
        for first, last in await self._runner.on_disk(lambda: self._missing(fd)):
            await self._fetch_chunks(fd, first, last)

    async def _fetch_chunks(self, fd: int, first: int, last: int) -> None:
        spans = [self._span(chunk) for chunk in range(first, last)]
        async with aclosing(self._source.stretch(self._batch.url(0), spans)) as bunches:
            async for bunch in bunches:
                await self._runner.on_disk(partial(self._write, fd, first, bunch))
                for _, data in bunch:
                    self._runner.intake.give_back(data)

    def _write(self, fd: int, first: int, pieces: Sequence[Piece]) -> None:
        for index, data in pieces:
            chunk = first + index
            start = self._span(chunk)[0]
            if self._hasher is not None and start == self._hashed_bytes:
                self._hasher.update(data)
                self._hashed_bytes += len(data)
            elif self._batch.chunks and digest_bytes(data) != self._expected(chunk):
                where = f"{self._batch.url(0)}: chunk {chunk}"
                raise _BadChunkError(f"{where} does not have the BLAKE3 of the manifest")
            self._store.write_part(fd, data, start)

    def _finish(self, fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        os.ftruncate(fd, self._size)
        right = self._is_right() or (
            hash_open(fd, with_chunks=False).digest == self._batch.digest(0)
        )
        if not right:
            self._store.drop_part(self._part)
            text = (
                f"{self._batch.url(0)}: the bytes that came do not have the BLAKE3 of the release"
            )
            raise _BadChunkError(text)
        aside = self._store.place_staged(
            self._part,
            self._batch.folder,
            self._name,
            self._batch.digest(0),
            self._batch.mtime_ns,
            self._batch.replaces[0],
        )
        self._outcome.asides += [aside] if aside else []
        self._outcome.done.append(0)


class _BadChunkError(Exception):
    """Wrong bytes of a large file; becomes a problem of its row."""
