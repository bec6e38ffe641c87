"""A framed object as the client reads it: header once, then the frames that are asked for."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from manifests.digest import Digest
from manifests.errors import ManifestError, StoreError
from manifests.framed import FramedHeader, FrameKey, decode_framed
from manifests.framedref import FramedRef
from syncclient.cachedobject import CachedObject, Sift, join_spans
from syncclient.hosts import Hosts
from syncclient.sources.host import Span


class CachedFramed:
    """One framed object in the cache; ``kind`` is what it must be, ``name`` says it in errors."""

    def __init__(self, path: Path, ref: FramedRef, kind: str, name: str) -> None:
        self._object = CachedObject(path, ref.digest, ref.size_bytes)
        self._ref = ref
        self._kind = kind
        self._header: FramedHeader | None = None
        self.name = name

    @property
    def header(self) -> FramedHeader:
        """The header, if it is in the cache; else StoreError.  Blocking."""
        if self._header is None:
            data = self._object.read(*self._ref.header_span)
            if Digest.of(data) != self._ref.header_digest:
                raise self._absence()
            # A wrong digest is a hole to fill; anything else that is wrong is the publisher's.
            self._header = decode_framed(data, self._ref, self._kind, self.name)
        return self._header

    async def open(self, hosts: Hosts) -> FramedHeader:
        """The header, fetched if it is not here.

        ManifestError if the publisher's bytes are wrong, TransferError if no host has them.
        """
        try:
            return await asyncio.to_thread(lambda: self.header)
        except StoreError:
            await self._object.fill(hosts, [self._ref.header_span], self._sift_header)
        return await asyncio.to_thread(lambda: self.header)

    def _sift_header(self, start: int, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        if Digest.of(data) != self._ref.header_digest:
            raise ManifestError(f"{self.name}.header", "not the bytes that the descriptor names")
        yield start, memoryview(data)

    # ----------------------------------------------------------------- frames

    def held(self, frames: Iterable[FrameKey]) -> dict[FrameKey, bytes]:
        """Those of some frames that are in the cache and intact.  Blocking; asks nobody."""
        header, found = self.header, dict[FrameKey, bytes]()
        for frame in frames:
            data = self._object.read(*header.span(frame))
            if header.is_intact(frame, data):
                found[frame] = data
        return found

    def require(self, frame: FrameKey) -> bytes:
        """A frame, if it is in the cache; else StoreError.  Blocking."""
        data = self.held([frame]).get(frame)
        if data is None:
            raise self._absence()
        return data

    def _absence(self) -> StoreError:
        message = f"{self.name} is not in the cache"
        return StoreError(message, hint="Run the command while a host can be reached.")

    async def fetch(self, hosts: Hosts, frames: Iterable[FrameKey]) -> dict[FrameKey, bytes]:
        """Some frames, all in memory: those that are held, the others by few joined ranges.

        :meth:`open` must have been awaited.  Errors are those of it.
        """
        wanted = list(dict.fromkeys(frames))
        found = await asyncio.to_thread(self.held, wanted)
        missing = sorted(
            (self.header.span(frame), frame) for frame in wanted if frame not in found
        )
        if missing:
            spans = join_spans(span for span, _ in missing)
            await self._object.fill(hosts, spans, self._sifter(missing, found))
        return found

    def _sifter(self, missing: list[tuple[Span, FrameKey]], found: dict[FrameKey, bytes]) -> Sift:
        """Checks the missing frames in a range and keeps them; what lies between is dropped."""

        def sift(start: int, data: memoryview) -> Iterator[tuple[int, memoryview]]:
            view = memoryview(data)
            first = bisect_left(missing, start, key=lambda item: item[0][0])
            for (at, stop), frame in islice(missing, first, None):
                if at >= start + len(data):
                    break
                piece = view[at - start : stop - start]
                found[frame] = self.header.check(frame, bytes(piece))
                yield at, piece

        return sift

    def close(self) -> None:
        """Let go of the mapped file."""
        self._object.close()
