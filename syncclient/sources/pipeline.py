"""One connection to a host on which requests are pipelined, and what comes back on it.

Several are under way before the first is answered (RFC 9112, 9.3.2); answers come in their order.
Bytes go from the socket to where they are checked and written.  Rules:

* Only the plain answer is taken: 200 or 206 with its length, and exactly what was asked for.
* Whatever else a host says is :class:`BulkError`; one that refuses is :class:`RefusedError`.
* Nothing is received beyond what was asked for; headers are bounded.

Which requests go out on which connection is the affair of :mod:`syncclient.sources.bulk`.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Generator, Sequence
from enum import Enum, auto
from typing import Final, cast

from msgspec import Struct, field

from manifests.digest import CHUNK_BYTES
from syncclient.sources.floor import SpeedFloor
from syncclient.sources.host import Span, joined
from syncclient.sources.intake import Intake

Piece = tuple[int, memoryview]

_RECEIVE_BYTES: Final = 256 * 2**10
_MAX_HEAD_BYTES: Final = 32 * 2**10
_MAX_PART_HEAD_BYTES: Final = 4 * 2**10
# An answer that refuses is read to its end if it is no longer than this, and its connection kept.
_MAX_REFUSAL_BYTES: Final = 64 * 2**10
# What may wait for the caller before its connection is left to fill up.
_HELD_BYTES: Final = 8 * 2**20
# Pieces that adjoin are received into one room, if they are no more than this.
_ROOM_BYTES: Final = CHUNK_BYTES
# What is shown of an answer before it is whole: so much, or what has waited for so long.  To wake
# the caller for each half megabyte costs a few percent of a run of small files.
_SHOWN_BYTES: Final = CHUNK_BYTES
_SHOWN_AFTER_S: Final = 0.1
_OK: Final = 200
_PARTIAL: Final = 206
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ?(.*)")
_DIGITS: Final = re.compile(r"\d{1,19}", re.ASCII)
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(?:\d{1,19}|\*)", re.ASCII)
_BOUNDARY: Final = re.compile(
    r'multipart/byteranges; *boundary="?([^";\s]{1,70})"?', re.IGNORECASE
)


class BulkError(Exception):
    """The host did not give the plain answer; ask it in the ordinary way."""


class RefusedError(BulkError):
    """The host answered with another status, such as 404, and perhaps a time to come again."""

    def __init__(self, path: str, status: int, reason: str, retry_after: str | None) -> None:
        super().__init__(f"answers {status} {reason}".rstrip())
        self.path = path
        self.status = status
        self.retry_after = retry_after


class Train(Struct, eq=False):
    """Some requests whose pieces one caller waits for.

    ``left`` pieces are to come; ``begun`` are those of an answer that is not whole, which are
    ``ready`` when ``late`` comes.  ``refusal`` is the gravest of what the host said of those that
    it would not give.
    ``paused`` is the connection that waits until the caller has taken what is ``ready``.
    """

    left: int
    ready: list[Piece] = field(default_factory=list)
    ready_bytes: int = 0
    begun: list[Piece] = field(default_factory=list)
    begun_bytes: int = 0
    late: asyncio.TimerHandle | None = None
    refusal: RefusedError | None = None
    error: BulkError | None = None
    received_bytes: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    paused: Pipeline | None = None

    def show(self) -> None:
        """Let the caller have all that came."""
        if self.late is not None:
            self.late.cancel()
            self.late = None
        self.ready += self.begun
        self.ready_bytes += self.begun_bytes
        self.begun, self.begun_bytes = [], 0
        self.news.set()

    def take(self) -> list[Piece]:
        """What was shown since the last call."""
        self.news.clear()
        ready, self.ready, self.ready_bytes = self.ready, [], 0
        self.resume()
        return ready

    def resume(self) -> None:
        """Let the connection go on."""
        if self.paused is not None:
            self.paused.resume()
            self.paused = None


class Request(Struct, eq=False):
    """One request and the pieces of its answer.

    ``spans`` are the pieces still to come, the first of them number ``first``.  They are asked for
    as ``Kind`` says; with a ``body`` that is posted.
    """

    train: Train
    path: str
    kind: Kind
    first: int
    spans: Sequence[Span]
    body: bytes = b""

    def deliver(self, piece: memoryview) -> None:
        """Hand over the next piece."""
        train = self.train
        train.begun.append((self.first, piece))
        train.begun_bytes += len(piece)
        train.left -= 1
        self.first, self.spans = self.first + 1, self.spans[1:]

    def refuse(self, error: RefusedError) -> None:
        """Note that the host answered, but not with the bytes."""
        self.train.left -= len(self.spans)
        worst = self.train.refusal
        self.train.refusal = worst if worst and worst.status > error.status else error
        self.train.news.set()
        self.spans = ()

    @property
    def asked(self) -> Sequence[Span]:
        """The ranges that are asked for; none for a whole resource."""
        return joined(self.spans) if self.kind is Kind.RANGES else ()


class Kind(Enum):
    """How pieces are asked for: as the ranges that they make up, or as a whole resource.

    A document is a whole resource of at most the size of its one piece.
    """

    RANGES = auto()
    WHOLE = auto()
    DOCUMENT = auto()


class Pipeline(asyncio.BufferedProtocol):
    """One connection: requests go out at once, answers come in their order."""

    def __init__(self, floor: SpeedFloor, intake: Intake) -> None:
        self.waiting: deque[Request] = deque()
        self.is_closed = False
        # Whether anything came: a connection that was used may be closed at any time.
        self.has_answered = False
        self._floor = floor
        self._intake = intake
        self._pauses = 0
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(_RECEIVE_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._stop = 0
        # The rest of a room whose bytes are received where they belong.
        self._direct = self._view[:0]
        self._steps = self._answers()

    # ----------------------------------------------------------------- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for answers."""
        self._transport = cast("asyncio.Transport", transport)
        self._intake.join(self)
        self.begin()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (asyncio gives no hint)
        """Where the next bytes go."""
        return self._direct or self._view[self._stop :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes that came."""
        self._floor.brought(nbytes)
        if self._direct:
            self._direct = self._direct[nbytes:]
        else:
            self._stop += nbytes
        try:
            next(self._steps, None)
        except BulkError as error:
            self.close(error)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (it is lost, for whatever cause)
        """Let those who wait know."""
        self.close()

    # ----------------------------------------------------------------- our side

    def begin(self) -> None:
        """Wait for the first answer."""
        next(self._steps)

    def send(self, requests: Sequence[Request], texts: bytes) -> None:
        """Send requests on an open pipeline; their answers are awaited in this order."""
        self.waiting.extend(requests)
        if self._transport is not None:
            self._transport.write(texts)

    def pause(self) -> None:
        """Receive nothing more; each call wants one of :meth:`resume`."""
        self._pauses += 1
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Receive again, unless somebody else still wants it to rest."""
        self._pauses -= 1
        if self._transport is not None and not self._pauses:
            self._transport.resume_reading()

    def grant(self, seconds: float) -> None:
        """Take note that for so long nothing is received, through no fault of the host's."""
        self._floor.pause(seconds)

    def close(self, error: BulkError | None = None) -> None:
        """Close the connection; ``error`` is that of the request which was being answered."""
        if self.is_closed:
            return
        self.is_closed = True
        self._intake.leave(self)
        if self._transport is not None:
            self._transport.abort()
        if error is not None and self.waiting:
            self.waiting[0].train.error = error
        for request in self.waiting:
            request.train.show()
        self.waiting.clear()

    # ----------------------------------------------------------------- the answers

    def _answers(self) -> Generator[None, None, None]:
        """Read answers one after another; goes on whenever bytes have come."""
        while not self.is_closed:
            text = yield from self._until(b"\r\n\r\n", _MAX_HEAD_BYTES)
            if not self.waiting:
                raise BulkError("sent an answer that nobody asked for")
            status, reason, headers = _parse_head(text)
            yield from self._answer(self.waiting[0], status, reason, headers)
            self.waiting.popleft()
            if headers.get("connection", "").lower() == "close":
                self.close()

    def _answer(
        self, request: Request, status: int, reason: str, headers: dict[str, str]
    ) -> Generator[None, None, None]:
        """Read the body of one answer."""
        length, asked = _length(headers), request.asked
        if status != (_PARTIAL if asked else _OK):
            if status in {_OK, _PARTIAL} or length > _MAX_REFUSAL_BYTES:
                raise BulkError(f"answers {status}")
            # What a refusal says is no part of what was received.
            yield from self._drop(length)
            again = headers.get("retry-after")
            request.refuse(RefusedError(request.path, status, reason, again))
            return
        boundary = _BOUNDARY.fullmatch(headers.get("content-type", "")) if asked else None
        if boundary is not None:
            yield from self._parts(request, asked, boundary[1].encode(), length)
            return
        if request.kind is Kind.DOCUMENT and length <= request.spans[0][1]:
            request.spans = ((0, length),)
        if len(asked) > 1 or length != request.spans[-1][1] - request.spans[0][0]:
            raise BulkError(f"sends {length} bytes")
        if asked:
            _check_range(headers, asked[0])
        while request.spans:
            yield from self._pieces(request)

    def _parts(
        self, request: Request, asked: Sequence[Span], boundary: bytes, length: int
    ) -> Generator[None, None, None]:
        """The parts of a multipart answer (RFC 9110, 14.6): what was asked for, in that order."""
        train, before = request.train, request.train.received_bytes
        for span in asked:
            text = yield from self._until(b"\r\n\r\n", _MAX_PART_HEAD_BYTES)
            train.received_bytes += len(text) + 4
            mark, _, lines = text.lstrip(b"\r\n").partition(b"\r\n")
            if mark != b"--" + boundary:
                raise BulkError("sends a malformed multipart answer")
            _check_range(_parse_headers(lines), span)
            place, stop = span
            while place < stop:
                place = yield from self._pieces(request)
        rest = length - (train.received_bytes - before)
        if not 0 <= rest <= _MAX_PART_HEAD_BYTES:
            raise BulkError("sends a multipart answer of another length")
        yield from self._drop(rest)
        train.received_bytes += rest

    def _pieces(self, request: Request) -> Generator[None, None, int]:
        """Receive pieces that adjoin into one room, and deliver each when it is whole.

        Where the last of them ends.
        """
        start, stop = request.spans[0]
        for begin, end in request.spans[1:]:
            if begin != stop or end - start > _ROOM_BYTES:
                break
            stop = end
        room, have, place = self._intake.room(stop - start), 0, start
        while True:
            first, place = place, request.spans[0][1]
            have = yield from self._receive(room, have, place - start)
            self._deliver(request, room[first - start : place - start])
            if place == stop:
                return place

    def _deliver(self, request: Request, piece: memoryview) -> None:
        train = request.train
        train.received_bytes += len(piece)
        self.has_answered = True
        request.deliver(piece)
        if not request.spans or train.begun_bytes >= _SHOWN_BYTES:
            train.show()
        else:
            self._show_later(train)
        if train.ready_bytes > _HELD_BYTES and train.paused is None:
            self.pause()
            train.paused = self

    def _show_later(self, train: Train) -> None:
        """Show what came when it has waited for some time, in which nothing kept us from more."""
        if train.late is None and self._transport is not None:
            loop = asyncio.get_running_loop()
            train.late = loop.call_later(_SHOWN_AFTER_S, self._show, train)

    def _show(self, train: Train) -> None:
        train.late = None
        if self._pauses:
            self._show_later(train)
        else:
            train.show()

    # ----------------------------------------------------------------- the bytes

    def _until(self, mark: bytes, most: int) -> Generator[None, None, bytes]:
        """The bytes before ``mark``, of which there are at most ``most``."""
        while (end := self._buffer.find(mark, self._start, self._stop)) < 0:
            rest = self._stop - self._start
            if rest > most:
                raise BulkError("sends endless headers")
            self._buffer[:rest] = self._buffer[self._start : self._stop]
            self._start, self._stop = 0, rest
            yield
        text = bytes(self._view[self._start : end])
        self._start = end + len(mark)
        return text

    def _receive(self, room: memoryview, have: int, least: int) -> Generator[None, None, int]:
        """Go on filling a room: from what is buffered, then straight from the socket.

        How much of it is filled, at least ``least``.
        """
        more = min(len(room) - have, self._stop - self._start)
        room[have : have + more] = self._view[self._start : self._start + more]
        self._start, have = self._start + more, have + more
        while have < least:
            self._start = self._stop = 0
            self._direct = room[have:]
            yield
            have = len(room) - len(self._direct)
        return have

    def _drop(self, size_bytes: int) -> Generator[None, None, None]:
        """Read over so many bytes."""
        yield from self._receive(memoryview(bytearray(size_bytes)), 0, size_bytes)


def read_answers(data: bytes, spans: Sequence[Span], *, whole_bytes: int) -> list[Piece]:
    """The pieces in the answers to a request for ranges and to one for a whole resource.

    Reads them as a connection would that gave these bytes; BulkError for all that is not plain.
    """
    train, pipeline = Train(len(spans) + 1), Pipeline(SpeedFloor(2**62, 1), Intake())
    pipeline.waiting.append(Request(train, "x", Kind.RANGES, 0, spans))
    pipeline.waiting.append(Request(train, "x", Kind.WHOLE, len(spans), ((0, whole_bytes),)))
    pipeline.begin()
    view = memoryview(data)
    while view and not pipeline.is_closed:
        room = pipeline.get_buffer(-1)
        count = min(len(room), len(view))
        room[:count], view = view[:count], view[count:]
        pipeline.buffer_updated(count)
    train.show()
    if train.error is not None:
        raise train.error
    return train.take()


def _parse_head(text: bytes) -> tuple[int, str, dict[str, str]]:
    """Status, reason and headers of an answer, names in lower case."""
    line, _, lines = text.partition(b"\r\n")
    match = _STATUS.fullmatch(line)
    if match is None:
        raise BulkError("does not speak HTTP/1.1")
    return int(match[1]), match[2].decode("latin-1")[:80], _parse_headers(lines)


def _parse_headers(lines: bytes) -> dict[str, str]:
    pairs = [line.partition(":") for line in lines.decode("latin-1").split("\r\n")]
    return {name.lower(): value.strip() for name, _, value in pairs}


def _length(headers: dict[str, str]) -> int:
    """The length of a body that is sent as it is."""
    length = headers.get("content-length", "")
    coded = headers.get("content-encoding", "identity") != "identity"
    if coded or "transfer-encoding" in headers or not _DIGITS.fullmatch(length):
        raise BulkError("does not say how much it sends")
    return int(length)


def _check_range(headers: dict[str, str], span: Span) -> None:
    match = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    if match is None or (int(match[1]), int(match[2]) + 1) != span:
        raise BulkError("sends another range")
