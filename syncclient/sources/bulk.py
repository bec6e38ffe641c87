"""Ranges and small files of one host at full speed: pipelined HTTP/1.1, and no more than that.

Most of a large run is one kind of request, made thousands of times.  This makes it cheap: requests
are shared out among few connections (:mod:`syncclient.sources.pipeline`).  Where a host does not
give the plain answer the caller meets BulkError, and asks again in the ordinary way
(:mod:`syncclient.sources.ordinary`), which follows redirects, waits, and can explain.

What a host did not answer before it closed a connection that it had used is asked for anew.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import islice
from typing import Final
from urllib.parse import quote, urlsplit

from syncclient.sources.floor import SpeedFloor
from syncclient.sources.host import (
    USER_AGENT,
    HttpOptions,
    Span,
    Traffic,
    fitting,
    range_header,
)
from syncclient.sources.intake import Intake
from syncclient.sources.pipeline import BulkError, Kind, Piece, Pipeline, Request, Train

__all__ = ["Bulk", "Piece"]

# Requests of one caller under way at once.
_WINDOW: Final = 64


class Bulk:
    """The connections to one host; belongs to one event loop.  Close it at the end.

    Whoever waits meets BulkError for an answer that is not the plain one.  How long to wait is the
    caller's affair; what comes is told to ``floor``, and when to receive by ``intake``.
    """

    def __init__(self, url: str, options: HttpOptions, floor: SpeedFloor, intake: Intake) -> None:
        parts = urlsplit(url)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._address = parts.hostname or "", parts.port or (443 if self._tls else 80)
        self._base = parts.path.rstrip("/")
        self._tail = (
            f" HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: {USER_AGENT}\r\n"
            "Accept-Encoding: identity\r\n"
        )
        self._options = options
        self._floor = floor
        self._intake = intake
        self._pipelines: list[Pipeline] = []
        self._opening = asyncio.Lock()

    @staticmethod
    def suits(url: str) -> bool:
        """Whether a host needs nothing that is not done here, such as a password."""
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and parts.username is None

    def close(self) -> None:
        """Close every connection."""
        for pipeline in self._pipelines:
            pipeline.close()
        self._pipelines.clear()

    async def document(
        self, path: str, max_bytes: int, traffic: Traffic, body: bytes = b""
    ) -> bytes:
        """A whole resource of at most ``max_bytes``, or what is answered to ``body``."""
        train = Train(1)
        request = Request(train, path, Kind.DOCUMENT, 0, ((0, max_bytes),), body)
        data = b""
        async with aclosing(self._run(train, deque([request]), traffic)) as bunches:
            async for bunch in bunches:
                data = bytes(bunch[0][1])
        return data

    def ranges(
        self, path: str, wanted: Sequence[Span], traffic: Traffic
    ) -> AsyncGenerator[list[Piece], None]:
        """The bytes of spans by their number, in their order, as many at a time as have come."""
        return self.together([(path, wanted)], traffic)

    def together(
        self, wanted: Sequence[tuple[str, Sequence[Span]]], traffic: Traffic
    ) -> AsyncGenerator[list[Piece], None]:
        """The bytes of spans of several resources; they are numbered right through."""
        train, requests, number = Train(0), deque[Request](), 0
        for path, spans in wanted:
            first = 0
            while first < len(spans):
                some = spans[first : first + fitting(islice(spans, first, None))]
                requests.append(Request(train, path, Kind.RANGES, number + first, some))
                first += len(some)
            number += len(spans)
        train.left = number
        return self._run(train, requests, traffic)

    def wholes(
        self, paths: Sequence[str], sizes: Sequence[int], traffic: Traffic
    ) -> AsyncGenerator[list[Piece], None]:
        """Whole resources of known sizes, each by a request; as :meth:`ranges`."""
        train = Train(len(paths))
        requests = deque(
            Request(train, path, Kind.WHOLE, number, ((0, size),))
            for number, (path, size) in enumerate(zip(paths, sizes, strict=True))
        )
        return self._run(train, requests, traffic)

    async def _run(
        self, train: Train, requests: deque[Request], traffic: Traffic
    ) -> AsyncGenerator[list[Piece], None]:
        """Keep requests under way until all pieces are there."""
        counted, sent, pipeline = 0, list[Request](), None
        try:
            while train.left or train.ready:
                if train.left and (pipeline is None or pipeline.is_closed):
                    if pipeline is not None and not pipeline.has_answered:
                        raise BulkError("closes connections")
                    requests.extendleft(reversed([one for one in sent if one.spans]))
                    sent, pipeline = [], await self._pipeline()
                sent = [one for one in sent if one.spans]
                if pipeline is not None and requests and len(sent) <= _WINDOW // 2:
                    sent += self._send(pipeline, requests, _WINDOW - len(sent), traffic)
                await train.news.wait()
                traffic.received_bytes += train.received_bytes - counted
                counted = train.received_bytes
                if pieces := train.take():
                    yield pieces
                if train.error is not None:
                    raise train.error
        finally:
            train.resume()
            if train.left and pipeline is not None:
                pipeline.close()
        if train.refusal is not None:
            raise train.refusal

    def _send(
        self, pipeline: Pipeline, requests: deque[Request], most: int, traffic: Traffic
    ) -> list[Request]:
        """Send up to ``most`` of the requests; those."""
        chosen = [requests.popleft() for _ in range(min(most, len(requests)))]
        traffic.requests += len(chosen)
        pipeline.send(chosen, b"".join([self._text(request) for request in chosen]))
        return chosen

    def _text(self, request: Request) -> bytes:
        asked = request.asked
        wanted = f"Range: {range_header(asked)}\r\n" if asked else ""
        method, body = ("POST", request.body) if request.body else ("GET", b"")
        posted = f"Content-Length: {len(body)}\r\n" if body else ""
        target = f"{self._base}/{quote(request.path)}"
        return f"{method} {target}{self._tail}{wanted}{posted}\r\n".encode() + body

    async def _pipeline(self) -> Pipeline:
        """The open connection with the least to do, or a new one while there may be more."""
        async with self._opening:
            self._pipelines = [pipeline for pipeline in self._pipelines if not pipeline.is_closed]
            best = min(self._pipelines, key=lambda pipeline: len(pipeline.waiting), default=None)
            most = max(1, self._options.connections)
            if best is not None and (not best.waiting or len(self._pipelines) >= most):
                return best
            host, port = self._address
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(self._options.timeout_s):
                    _, pipeline = await loop.create_connection(
                        lambda: Pipeline(self._floor, self._intake), host, port, ssl=self._tls
                    )
            except OSError as error:
                raise BulkError("cannot be reached") from error
            self._pipelines.append(pipeline)
            return pipeline
