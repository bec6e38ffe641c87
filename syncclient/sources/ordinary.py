"""One HTTP host asked in the ordinary way: whatever it answers is understood, or explained.

The only module that imports aiohttp.  A host is not trusted: every length is known before it is
read, no answer is decompressed, redirects leave the host only where the user allowed it, and a
host that is slower than a floor is given up.  What the host can do (several ranges in one request)
is learnt as we go.  Every failure is a :class:`TransferError` that names the URL.

Sources: RFC 9110 (14 range requests, 10.2.3 Retry-After, 15.4 redirects).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Self
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from msgspec import Struct
from yarl import URL

from manifests.errors import TransferError
from syncclient.sources.floor import SpeedFloor
from syncclient.sources.host import (
    MAX_RANGES,
    USER_AGENT,
    HttpOptions,
    RedirectError,
    Span,
    Traffic,
    address,
    fitting,
    joined,
    range_header,
    retry_after_s,
)
from syncclient.sources.limits import TokenBucket

_READ_BYTES = 2**20
_MAX_REDIRECTS = 5
_MAX_PART_HEADERS = 16
# What may follow the last part of a multipart answer.
_MAX_END_BYTES = 1024
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_OK = HTTPStatus.OK
_PARTIAL = HTTPStatus.PARTIAL_CONTENT
# What hosts answer that do not do (so many) ranges.
_RANGE_REFUSALS = {200, 400, 416, 431}
_REDIRECTS = {301, 302, 303, 307, 308}


class OrdinarySource(Struct):
    """One host; enter it to open its connections.  Belongs to one event loop."""

    url: str
    options: HttpOptions
    limiter: TokenBucket
    floor: SpeedFloor
    traffic: Traffic
    _most_ranges: int = MAX_RANGES
    _session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Make the connection pool; nothing is sent yet."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=self.options.timeout_s,
                sock_read=self.options.timeout_s,
            ),
            headers={
                "Accept-Encoding": "identity",
                "User-Agent": USER_AGENT,
            },
            auto_decompress=False,
            read_bufsize=_READ_BYTES,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    # ----------------------------------------------------------------- what callers ask for

    async def document(self, path: str, max_bytes: int) -> bytes:
        """A whole small resource of at most ``max_bytes``."""
        async with self._request(path, {}) as response:
            self._expect(response, path, {_OK})
            length = response.content_length
            if length is not None and length > max_bytes:
                raise self._error(path, f"is {length} bytes, more than the {max_bytes} it may be")
            data = bytearray()
            while chunk := await response.content.read(_READ_BYTES):
                data += chunk
                await self._count(len(chunk))
                if len(data) > max_bytes:
                    raise self._error(path, f"is more than the {max_bytes} bytes it may be")
            if length is not None and len(data) != length:
                raise self._error(path, f"was cut after {len(data)} of {length} bytes")
            return bytes(data)

    async def post(self, path: str, body: bytes, max_bytes: int) -> bytes:
        """What a host answers to a document; TransferError unless it takes it."""
        async with self._request(path, {}, body) as response:
            self._expect(response, path, {_OK})
            data = await response.content.read(max_bytes + 1)
            while len(data) <= max_bytes and (more := await response.content.read(_READ_BYTES)):
                data += more
            await self._count(len(data))
            if len(data) > max_bytes:
                raise self._error(path, f"is more than the {max_bytes} bytes it may be")
            return data

    async def whole(self, path: str, size_bytes: int) -> bytes:
        """A whole resource whose size is known."""
        data = await self.document(path, size_bytes)
        if len(data) != size_bytes:
            raise self._error(path, f"has {len(data)} bytes, expected {size_bytes}")
        return data

    async def ranges(
        self, path: str, wanted: Sequence[Span], *, or_whole: bool = False
    ) -> AsyncGenerator[tuple[int, bytearray], None]:
        """The bytes of each half-open span, with its index; each once, in any order.

        Several spans go into one request while the host plays along; when it does not, fewer, down
        to one at a time.  From a host without ranges everything is read with ``or_whole``, else
        that is an error with status 200.
        """
        left = list(range(len(wanted)))
        while left:
            group = left[: fitting((wanted[index] for index in left), self._most_ranges)]
            spans = [wanted[index] for index in group]
            asked = len(joined(spans))
            delivered: set[int] = set()
            try:
                async for place, data in self._request_spans(path, spans):
                    delivered.add(group[place])
                    yield group[place], data
            except _RangesRefusedError as error:
                if or_whole and error.status == _OK and asked == 1:
                    async for place, data in self._from_whole(path, [wanted[n] for n in left]):
                        yield left[place], data
                    return
                if asked == 1 or delivered:
                    raise
                self._most_ranges = max(1, asked // 2)
            if delivered and len(delivered) < len(group):
                # A host may answer some of the ranges only (RFC 9110, 14.2).
                self._most_ranges = 1
            left = [index for index in left if index not in delivered]

    async def _from_whole(
        self, path: str, spans: Sequence[Span]
    ) -> AsyncGenerator[tuple[int, bytearray], None]:
        """Ascending spans out of a whole resource; what lies between is read and dropped."""
        async with self._request(path, {}) as response:
            self._expect(response, path, {_OK})
            position = 0
            for index, (start, stop) in enumerate(spans):
                await self._skip(response, path, start - position)
                yield index, await self._read(response, path, stop - start)
                position = stop

    async def stretch(
        self, path: str, spans: Sequence[Span]
    ) -> AsyncGenerator[tuple[int, bytearray], None]:
        """Adjoining spans in one request, each delivered as soon as it is complete.

        A host without ranges sends everything from the start; what is before is read and dropped.
        """
        start, stop = spans[0][0], spans[-1][1]
        async with self._request(path, {"Range": range_header([(start, stop)])}) as response:
            self._expect(response, path, {_OK, _PARTIAL})
            if response.status == _OK:
                got = (0, response.content_length or stop)
            else:
                got = self._content_range(response.headers, path)
            if got[0] > start or got[1] < stop or (got[0] < start and response.status == _PARTIAL):
                raise self._error(path, f"sent bytes {got[0]} to {got[1] - 1}, not what was asked")
            await self._skip(response, path, start - got[0])
            for index, (begin, end) in enumerate(spans):
                yield index, await self._read(response, path, end - begin)

    async def _skip(self, response: aiohttp.ClientResponse, path: str, size_bytes: int) -> None:
        while size_bytes:
            size_bytes -= len(await self._read(response, path, min(size_bytes, _READ_BYTES)))

    # ----------------------------------------------------------------- ranges

    async def _request_spans(
        self, path: str, spans: Sequence[Span]
    ) -> AsyncGenerator[tuple[int, bytearray], None]:
        ranges = joined(spans)
        async with self._request(path, {"Range": range_header(ranges)}) as response:
            if response.status in _RANGE_REFUSALS and not self._is_whole(response, ranges):
                raise _RangesRefusedError(
                    f"{self._url(path)} answers {response.status} to a request for ranges",
                    status=response.status,
                )
            self._expect(response, path, {_OK, _PARTIAL})
            if response.content_type == "multipart/byteranges":
                async for found in self._parts(response, path, spans):
                    yield found
                return
            got = (
                ranges[0]
                if response.status == _OK
                else self._content_range(response.headers, path)
            )
            async for found in self._slices(response, path, got, dict(enumerate(spans))):
                yield found
            if await response.content.read(1):
                raise self._error(path, "sent more bytes than it said")

    def _is_whole(self, response: aiohttp.ClientResponse, ranges: Sequence[Span]) -> bool:
        """A host without ranges may still answer a request for all bytes."""
        return (
            response.status == _OK
            and len(ranges) == 1
            and ranges[0] == (0, response.content_length)
        )

    def _content_range(self, headers: Mapping[str, str], path: str) -> Span:
        text = headers.get("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(text.strip())
        if match is None or int(match[2]) < int(match[1]):
            raise self._error(path, f"sent a part without a valid Content-Range ({text[:80]!r})")
        return int(match[1]), int(match[2]) + 1

    async def _parts(
        self, response: aiohttp.ClientResponse, path: str, spans: Sequence[Span]
    ) -> AsyncGenerator[tuple[int, bytearray], None]:
        """The parts of a multipart/byteranges body (RFC 9110, 14.6), in any order."""
        boundary = self._boundary(response, path)
        left = dict(enumerate(spans))
        while left:
            line = await self._line(response, path)
            if line == b"":
                continue
            if line != b"--" + boundary:
                raise self._error(path, "sent a malformed multipart answer")
            got = await self._part_range(response, path)
            async for index, data in self._slices(response, path, got, left):
                del left[index]
                yield index, data
        await self._finish(response)

    async def _finish(self, response: aiohttp.ClientResponse) -> None:
        """Read the last boundary: only a connection that was read to the end is used again."""
        rest = 0
        while rest <= _MAX_END_BYTES and (chunk := await response.content.read(_MAX_END_BYTES)):
            rest += len(chunk)
            await self._count(len(chunk))

    def _boundary(self, response: aiohttp.ClientResponse, path: str) -> bytes:
        match = re.search(
            r'boundary="?([^";]{1,70})"?', response.headers.get("Content-Type", ""), re.IGNORECASE
        )
        if match is None:
            raise self._error(path, "sent a multipart answer without a boundary")
        return match[1].encode()

    async def _line(self, response: aiohttp.ClientResponse, path: str) -> bytes:
        try:
            line = await response.content.readline()
        except (ValueError, HttpProcessingError) as error:
            raise self._error(path, "sent an endless header line") from error
        if not line.endswith(b"\n"):
            raise self._error(path, "was cut in the middle of a multipart answer")
        await self._count(len(line))
        return line.rstrip(b"\r\n")

    async def _part_range(self, response: aiohttp.ClientResponse, path: str) -> Span:
        found: dict[str, str] = {}
        for _ in range(_MAX_PART_HEADERS):
            line = await self._line(response, path)
            if not line:
                return self._content_range(found, path)
            name, _, value = line.decode("latin-1").partition(":")
            found[name.strip().title()] = value.strip()
        raise self._error(path, "sent too many headers in a part")

    async def _slices(
        self, response: aiohttp.ClientResponse, path: str, got: Span, left: dict[int, Span]
    ) -> AsyncGenerator[tuple[int, bytearray], None]:
        """The wanted spans inside one part; a host may have joined neighbours."""
        inside = sorted(
            (span, index)
            for index, span in left.items()
            if got[0] <= span[0] and span[1] <= got[1]
        )
        first, last = min(left.values())[0], max(left.values(), key=lambda span: span[1])[1]
        if not inside or got[0] < first or got[1] > last:
            raise self._error(
                path, f"sent bytes {got[0]} to {got[1] - 1}, which were not asked for"
            )
        position = got[0]
        for (start, stop), index in inside:
            if start < position:
                raise self._error(path, "sent overlapping parts")
            await self._skip(response, path, start - position)
            yield index, await self._read(response, path, stop - start)
            position = stop
        await self._skip(response, path, got[1] - position)

    async def _read(
        self, response: aiohttp.ClientResponse, path: str, size_bytes: int
    ) -> bytearray:
        data = bytearray()
        while len(data) < size_bytes:
            chunk = await response.content.read(min(size_bytes - len(data), _READ_BYTES))
            if not chunk:
                raise self._error(path, f"was cut after {len(data)} of {size_bytes} bytes")
            data += chunk
            await self._count(len(chunk))
        return data

    async def _count(self, size_bytes: int) -> None:
        self.traffic.received_bytes += size_bytes
        self.floor.brought(size_bytes)
        if pause_s := self.limiter.book(size_bytes):
            self.floor.pause(pause_s)
            await asyncio.sleep(pause_s)

    # ----------------------------------------------------------------- one request

    @asynccontextmanager
    async def _request(
        self, path: str, headers: dict[str, str], body: bytes | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a GET, or a POST of ``body``; follow allowed redirects, translate foreign errors.

        Errors of the answer's body, too.
        """
        if self._session is None:
            raise self._error(path, "was asked for before the source was opened")
        url = self._url(path)
        try:
            async with self.floor.held():
                response = await self._follow(url, headers, body)
                try:
                    yield response
                finally:
                    # Reading to the end frees the connection for the next request; a body that was
                    # given up half way closes it.
                    response.release() if response.content.at_eof() else response.close()
        except TimeoutError as error:
            raise self._error(path, self.floor.complaint) from error
        except aiohttp.ClientPayloadError as error:
            text = f"was cut, or is malformed ({_first_line(_reason(error))})"
            raise self._error(path, text) from error
        except aiohttp.ClientResponseError as error:
            text = f"is answered by what is no HTTP answer ({_first_line(error.message)})"
            raise self._error(path, text) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._error(path, f"cannot be reached ({_reason(error)})") from error

    async def _follow(
        self, url: str, headers: dict[str, str], body: bytes | None
    ) -> aiohttp.ClientResponse:
        session = self._session
        if session is None:
            raise self._error(url, "was asked for before the source was opened")
        for _ in range(_MAX_REDIRECTS + 1):
            self.traffic.requests += 1
            response = await session.request(
                "GET" if body is None else "POST",
                URL(url, encoded=True),
                headers=headers,
                data=body,
                allow_redirects=False,
            )
            if response.status not in _REDIRECTS:
                return response
            location = urljoin(url, response.headers.get("Location", ""))
            response.close()
            self._check_redirect(url, location)
            url = location
        message = f"{url}: more than {_MAX_REDIRECTS} redirects"
        raise TransferError(message)

    def _check_redirect(self, url: str, location: str) -> None:
        here, there = urlsplit(self.url), urlsplit(location)
        allowed = {here.netloc, *self.options.allow_redirect}
        downgraded = here.scheme == "https" and there.scheme != "https"
        known = there.netloc in allowed or (there.hostname or "") in allowed
        if known and there.scheme in {"http", "https"} and not downgraded:
            return
        message = f"{url} redirects to {location[:200]}, which is another host"
        raise RedirectError(message, hint=f"Allow it with --allow-redirect {there.hostname}.")

    def _url(self, path: str) -> str:
        return address(self.url, path)

    def _error(self, path: str, problem: str) -> TransferError:
        return TransferError(f"{self._url(path)} {problem}")

    def _expect(self, response: aiohttp.ClientResponse, path: str, statuses: set[int]) -> None:
        encoding = response.headers.get("Content-Encoding", "identity")
        if response.status in statuses and encoding == "identity":
            return
        if response.status in statuses:
            raise self._error(
                path, f"is sent compressed ({encoding[:40]}), which was not asked for"
            )
        raise TransferError(
            f"{self._url(path)} answers {response.status} {response.reason or ''}".rstrip(),
            status=response.status,
            retry_after_s=retry_after_s(response.headers.get("Retry-After")),
        )


class _RangesRefusedError(TransferError):
    """The host does not do (so many) ranges."""


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or str(error.os_error)
    return str(error) or type(error).__name__


def _first_line(text: str) -> str:
    """As much of a foreign message as a person reads; it may quote what a host sent."""
    return text.partition("\n")[0][:200]
