"""A host that does as a test wants: honest by itself, with a script that may bend each answer.

A small HTTP/1.1 server on asyncio streams in a thread of its own, so that a client under test may
be in this process or in another one.  Everything it was asked and sent is in its log.  What is
honest it knows from bytes (:func:`raw_host`) or asks of a real server (:func:`proxy`).
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, unquote

from tests.support.host import ask

_PIECE_BYTES = 16 * 1024
# Longer than the busiest machine needs.
_PATIENCE_S = 60.0
_BOUNDARY = "a-boundary-that-is-in-no-file"
_RANGE = re.compile(r"(\d+)-(\d+)")
# Headers that a proxy hands on, there and back; lengths it makes itself.
_FORWARDED = {"range", "accept-encoding"}
_RETURNED = {"content-type", "content-range", "content-encoding", "retry-after", "location"}

Span = tuple[int, int]
# The bytes of a path (without the first slash), or None for 404.
Content = Callable[[str], bytes | None]


class Ranges(Enum):
    """What a host makes of a Range header."""

    MANY = "several ranges give several parts"
    ONE = "several ranges give everything"
    NONE = "ranges are not understood"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked, ``target`` as it came; ``spans`` are half open, None without a Range."""

    path: str
    headers: Mapping[str, str]
    target: str = ""

    @property
    def spans(self) -> list[Span] | None:
        """The ranges asked for."""
        text = self.headers.get("range")
        if text is None:
            return None
        return [(int(first), int(last) + 1) for first, last in _RANGE.findall(text)]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is sent: after ``cut_after`` bytes of the body the connection ends.

    After ``stall_after`` bytes nothing more comes, and the connection stays.  ``pace_bytes_s`` is
    how fast the body goes out, 0 for as fast as it can, ``head_pace_bytes_s`` the same of what
    comes before it.  ``raw`` is sent instead of everything else.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None
    stall_after: int | None = None
    pace_bytes_s: float = 0
    head_pace_bytes_s: float = 0
    raw: Iterator[bytes] | None = None


Script = Callable[[Request, Answer], Answer]
# What a host without a script answers.
Honest = Callable[[Request], Answer]


@dataclass(kw_only=True)
class Exchange:
    """One line of the log; ``at_s`` (monotonic) is when the request had come.

    ``sent_bytes`` of the body grow while the answer goes out.
    """

    request: Request
    status: int
    at_s: float
    sent_bytes: int = 0

    @property
    def path(self) -> str:
        """What was asked for."""
        return self.request.path


def honest(_: Request, answer: Answer) -> Answer:
    """A script that changes nothing."""
    return answer


def multipart(data: bytes, parts: Sequence[Span]) -> Answer:
    """A 206 with these parts, in this order."""
    blocks = []
    for start, stop in parts:
        head = (
            f"--{_BOUNDARY}\r\nContent-Type: application/octet-stream\r\n"
            f"Content-Range: bytes {start}-{stop - 1}/{len(data)}\r\n\r\n"
        )
        blocks += [head.encode(), data[start:stop], b"\r\n"]
    kind = f"multipart/byteranges; boundary={_BOUNDARY}"
    body = b"".join([*blocks, f"--{_BOUNDARY}--\r\n".encode()])
    return Answer(status=206, headers={"Content-Type": kind}, body=body)


def single_part(data: bytes, span: Span) -> Answer:
    """A 206 with one part."""
    stop = min(span[1], len(data))
    headers = {"Content-Range": f"bytes {span[0]}-{stop - 1}/{len(data)}"}
    return Answer(status=206, headers=headers, body=data[span[0] : stop])


def repository_content(repo: Path, *, packs: bool = True) -> Content:
    """What a host of a repository has: its files, and with ``packs`` the packs they make."""

    def content(path: str) -> bytes | None:
        place = repo / path
        if place.is_file() and ".." not in Path(path).parts:
            return place.read_bytes()
        if packs and path.startswith("packs/"):
            folder = repo / "files" / path.removeprefix("packs/")
            names = sorted(folder.glob("*.*"), key=lambda found: int(found.stem))
            return b"".join(name.read_bytes() for name in names) or None
        return None

    return content


def from_bytes(content: Content, ranges: Ranges) -> Honest:
    """The honest answers of a host that has these bytes, and does so many ranges."""

    def answer(request: Request) -> Answer:
        data = content(request.path)
        if data is None:
            return Answer(status=404, body=b"no such thing\n")
        spans = request.spans
        if spans is None or ranges is Ranges.NONE:
            return Answer(body=data)
        if any(start >= len(data) for start, _ in spans):
            return Answer(status=416, headers={"Content-Range": f"bytes */{len(data)}"})
        if len(spans) == 1:
            return single_part(data, spans[0])
        return multipart(data, spans) if ranges is Ranges.MANY else Answer(body=data)

    return answer


def from_server(port: int) -> Honest:
    """The answers of a real server, each asked for when a request comes."""

    def answer(request: Request) -> Answer:
        kept = {name: request.headers[name] for name in _FORWARDED & request.headers.keys()}
        found = ask(port, "/" + quote(request.path), kept)
        headers = {name.title(): found.headers[name] for name in _RETURNED & found.headers.keys()}
        return Answer(status=found.status, headers=headers, body=found.body)

    return answer


class RawHost:
    """A running host; made by :func:`raw_host` or :func:`proxy`."""

    def __init__(self, honestly: Honest, script: Script) -> None:
        self.honestly = honestly
        self.script = script
        self.log: list[Exchange] = []
        self.port = 0
        self.connections = 0
        self._logged = threading.Condition()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def sent_bytes(self) -> int:
        """Bytes of all bodies so far."""
        return sum(exchange.sent_bytes for exchange in self.log)

    def asked(self, prefix: str) -> list[Exchange]:
        """The exchanges about paths that begin so."""
        return [exchange for exchange in self.log if exchange.path.startswith(prefix)]

    def wait_for(self, prefix: str, count: int = 1) -> None:
        """Return when so many requests have come about paths that begin so, or TimeoutError."""
        self._wait_until(lambda: len(self.asked(prefix)) >= count)

    def wait_for_bytes(self, count: int) -> None:
        """Return when so many bytes of bodies have gone out, or TimeoutError."""
        self._wait_until(lambda: self.sent_bytes >= count)

    def _wait_until(self, holds: Callable[[], bool]) -> None:
        with self._logged:
            if not self._logged.wait_for(holds, _PATIENCE_S):
                raise TimeoutError

    def start(self) -> None:
        """Listen on a free port."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Drop every connection."""
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen())

    async def _listen(self) -> None:
        self._stopped = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=200)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopped.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._exchange(reader, writer):
                    pass
                # What was sent before a cut arrives.
                writer.close()
                await writer.wait_closed()
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        at_s = time.monotonic()
        lines = [line.partition(":") for line in head[1:] if line]
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        target = head[0].split(" ")[1]
        request = Request(path=unquote(target)[1:], headers=headers, target=target)
        # A script may take its time (or end a process) without holding up other connections.
        answer = await asyncio.to_thread(self._answer, request)
        exchange = Exchange(request=request, status=answer.status, at_s=at_s)
        with self._logged:
            self.log.append(exchange)
            self._logged.notify_all()
        async for count in self._send(writer, answer):
            with self._logged:
                exchange.sent_bytes += count
                self._logged.notify_all()
        hangs_up = answer.headers.get("Connection") == "close"
        return answer.cut_after is None and answer.raw is None and not hangs_up

    def _answer(self, request: Request) -> Answer:
        return self.script(request, self.honestly(request))

    async def _send(self, writer: asyncio.StreamWriter, answer: Answer) -> AsyncIterator[int]:
        if answer.raw is not None:
            for piece in answer.raw:
                yield len(piece)
                writer.write(piece)
                await writer.drain()
            return
        headers = {"Content-Length": str(len(answer.body)), **answer.headers}
        reason = HTTPStatus(answer.status).phrase
        lines = [f"HTTP/1.1 {answer.status} {reason}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        async for _ in self._paced(writer, head, answer.head_pace_bytes_s):
            pass
        stops = [stop for stop in (answer.cut_after, answer.stall_after) if stop is not None]
        body = answer.body[: min(stops)] if stops else answer.body
        async for count in self._paced(writer, body, answer.pace_bytes_s):
            yield count
        if answer.stall_after is not None:
            await self._stopped.wait()

    async def _paced(
        self, writer: asyncio.StreamWriter, data: bytes, pace_bytes_s: float
    ) -> AsyncIterator[int]:
        step = max(1, min(_PIECE_BYTES, int(pace_bytes_s / 20))) if pace_bytes_s else _PIECE_BYTES
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            yield len(piece)
            writer.write(piece)
            await writer.drain()
            if pace_bytes_s:
                await asyncio.sleep(len(piece) / pace_bytes_s)


@contextmanager
def raw_host(
    content: Path | Content,
    script: Script = honest,
    *,
    ranges: Ranges = Ranges.MANY,
    packs: bool = True,
) -> Iterator[RawHost]:
    """Serve a repository, or anything, until the end of the context."""
    if isinstance(content, Path):
        content = repository_content(content, packs=packs)
    with _running(RawHost(from_bytes(content, ranges), script)) as host:
        yield host


@contextmanager
def proxy(port: int, script: Script = honest) -> Iterator[RawHost]:
    """Stand between clients and a real server on this machine until the end of the context."""
    with _running(RawHost(from_server(port), script)) as host:
        yield host


@contextmanager
def _running(host: RawHost) -> Iterator[RawHost]:
    host.start()
    try:
        yield host
    finally:
        host.stop()


# --------------------------------------------------------------------------- scripts


def for_paths(prefix: str, script: Script) -> Script:
    """A script for paths that begin so; other answers stay honest."""

    def chosen(request: Request, answer: Answer) -> Answer:
        return script(request, answer) if request.path.startswith(prefix) else answer

    return chosen


def times(count: int, script: Script) -> Script:
    """A script for the first ``count`` answers that it would change, then honest."""
    left = count
    lock = threading.Lock()

    def some(request: Request, answer: Answer) -> Answer:
        nonlocal left
        bent = script(request, answer)
        with lock:
            if bent is answer or left <= 0:
                return answer
            left -= 1
            return bent

    return some


def once(script: Script, then: Script) -> Script:
    """A script for the first answer, and another one for all that follow."""
    first = threading.Lock()

    def either(request: Request, answer: Answer) -> Answer:
        return (script if first.acquire(blocking=False) else then)(request, answer)

    return either


def refuse(status: int, **headers: str) -> Script:
    """Answer with a status; an underscore in a header's name stands for a dash."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _, __: Answer(status=status, headers=named)


def flip(_: Request, answer: Answer) -> Answer:
    """One wrong bit in each part: the body has its length, and every byte its place."""
    body = bytearray(answer.body)
    for place in range(len(body) // 2, len(body), max(1, len(body) // 2)):
        body[place] ^= 1
    return replace(answer, body=bytes(body))


def garble(_: Request, answer: Answer) -> Answer:
    """Every byte wrong, and none missing."""
    return replace(answer, body=answer.body.translate(bytes(range(255, -1, -1))))


def slow(pace_bytes_s: float) -> Script:
    """Send bodies at a pace."""
    return lambda _, answer: replace(answer, pace_bytes_s=pace_bytes_s)


def cut(after_bytes: int) -> Script:
    """End the connection in the middle of a body."""
    return lambda _, answer: replace(answer, cut_after=min(after_bytes, len(answer.body)))
