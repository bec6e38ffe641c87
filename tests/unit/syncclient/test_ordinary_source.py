"""One HTTP host, honest or not: what it sends is what was asked for, or an error that names it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from email.utils import formatdate

import pytest

from manifests.errors import ConfigError, ExitCode, TransferError
from syncclient.config import check_url
from syncclient.sources.floor import SpeedFloor
from syncclient.sources.host import HttpOptions, Span, Traffic
from syncclient.sources.limits import TokenBucket
from syncclient.sources.ordinary import OrdinarySource
from tests.support.rawhost import (
    Answer,
    Ranges,
    Request,
    Script,
    cut,
    honest,
    multipart,
    raw_host,
    refuse,
    single_part,
    slow,
    times,
)

DATA = bytes(range(256)) * 400
SPANS = [(0, 10), (500, 900), (900, 950), (50_000, 50_001), (len(DATA) - 5, len(DATA))]
OPTIONS = HttpOptions(timeout_s=5)


def content(path: str) -> bytes | None:
    return {"data": DATA, "small": DATA[:1000]}.get(path)


def opened(url: str, options: HttpOptions = OPTIONS) -> OrdinarySource:
    floor = SpeedFloor(options.min_rate, options.timeout_s)
    return OrdinarySource(url, options, TokenBucket(options.bwlimit), floor, Traffic())


@asynccontextmanager
async def source_of(
    script: Script = honest, ranges: Ranges = Ranges.MANY, options: HttpOptions = OPTIONS
) -> AsyncIterator[OrdinarySource]:
    with raw_host(content, script, ranges=ranges) as host:
        async with opened(host.url, options) as source:
            yield source


async def read(
    source: OrdinarySource, spans: Sequence[Span] = SPANS, *, or_whole: bool = False
) -> dict[int, bytes]:
    """The ranges by index; each must come once."""
    found: dict[int, bytes] = {}
    async with aclosing(source.ranges("data", spans, or_whole=or_whole)) as ranges:
        async for index, data in ranges:
            assert index not in found
            found[index] = bytes(data)
    return found


EXPECTED = {index: DATA[start:stop] for index, (start, stop) in enumerate(SPANS)}


# --------------------------------------------------------------------------- documents


async def test_a_document_is_read_whole_and_counted() -> None:
    async with source_of() as source:
        assert await source.document("data", len(DATA)) == DATA
        assert await source.whole("data", len(DATA)) == DATA
        traffic = source.traffic.take()
        assert (traffic.received_bytes, traffic.requests) == (2 * len(DATA), 2)
        assert source.traffic.take().requests == 0


async def test_a_document_is_no_longer_than_it_may_be() -> None:
    async with source_of() as source:
        with pytest.raises(TransferError, match=f"is {len(DATA)} bytes, more than the 1000"):
            await source.document("data", 1000)
        assert source.traffic.received_bytes == 0


async def test_a_document_without_a_length_is_no_longer_than_it_may_be() -> None:
    def endless(_: Request, __: Answer) -> Answer:
        def raw() -> Iterator[bytes]:
            yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            while True:
                yield b"10000\r\n" + bytes(65536) + b"\r\n"

        return Answer(raw=raw())

    async with source_of(endless) as source:
        with pytest.raises(TransferError, match="more than the 100000 bytes"):
            await source.document("data", 100_000)
        assert source.traffic.received_bytes < 10**7


async def test_a_resource_has_the_size_it_should_have() -> None:
    async with source_of() as source:
        with pytest.raises(TransferError, match=f"has {len(DATA)} bytes, expected"):
            await source.whole("data", len(DATA) + 1)


@pytest.mark.parametrize("after", [0, 1, 5000])
async def test_a_cut_is_an_error_wherever_it_comes(after: int) -> None:
    async with source_of(cut(after)) as source:
        with pytest.raises(TransferError, match="/data"):
            await source.document("data", len(DATA))
        with pytest.raises(TransferError, match="/data"):
            await read(source, [(0, 5000), (6000, 90_000)])
        with pytest.raises(TransferError, match="/data"):
            async for _ in source.stretch("data", [(0, 5000), (5000, 90_000)]):
                pass


@pytest.mark.parametrize(("status", "missing"), [(404, True), (410, True), (403, False)])
async def test_a_refusal_has_its_status(status: int, *, missing: bool) -> None:
    async with source_of(refuse(status)) as source:
        for ask in (source.document("data", 10), read(source)):
            with pytest.raises(TransferError, match=f"/data answers {status}") as caught:
                await ask
            assert (caught.value.status, caught.value.missing) == (status, missing)


@pytest.mark.parametrize(
    ("text", "low_s", "high_s"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("999999", 300, 300),
        ("in 100 s", 60, 100),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
    ],
)
async def test_a_busy_host_says_how_long_to_wait(text: str, low_s: float, high_s: float) -> None:
    if text == "in 100 s":
        text = formatdate(time.time() + 100, usegmt=True)
    async with source_of(refuse(503, Retry_After=text)) as source:
        with pytest.raises(TransferError) as caught:
            await source.document("data", 10)
        assert caught.value.retry_after_s is not None
        assert low_s <= caught.value.retry_after_s <= high_s


@pytest.mark.parametrize("text", ["soon", "-3", "1.5", ""])
async def test_a_wait_that_cannot_be_read_is_none(text: str) -> None:
    async with source_of(refuse(429, Retry_After=text)) as source:
        with pytest.raises(TransferError) as caught:
            await source.document("data", 10)
        assert (caught.value.retry_after_s, caught.value.status) == (None, 429)


async def test_a_compressed_answer_is_refused_unread() -> None:
    def gzip(_: Request, answer: Answer) -> Answer:
        return replace(answer, headers={**answer.headers, "Content-Encoding": "gzip"})

    async with source_of(gzip) as source:
        for ask in (source.document("data", len(DATA)), read(source)):
            with pytest.raises(TransferError, match=r"compressed \(gzip\)"):
                await ask
        assert source.traffic.received_bytes == 0


async def test_nothing_is_compressed_because_nobody_asked_for_it() -> None:
    seen: list[Request] = []

    def look(request: Request, answer: Answer) -> Answer:
        seen.append(request)
        return answer

    async with source_of(look) as source:
        await source.document("data", len(DATA))
    assert seen[0].headers["accept-encoding"] == "identity"
    assert seen[0].headers["user-agent"].startswith("bucketsync/")


async def test_an_endless_header_is_given_up() -> None:
    def endless(_: Request, __: Answer) -> Answer:
        def raw() -> Iterator[bytes]:
            yield b"HTTP/1.1 200 OK\r\n"
            number = 0
            while number < 10**6:
                yield b"X-%d: %s\r\n" % (number, b"x" * 4000)
                number += 1

        return Answer(raw=raw())

    async with source_of(endless) as source:
        with pytest.raises(TransferError, match="no HTTP answer"):
            await source.document("data", 10)


async def test_what_is_no_http_is_an_error() -> None:
    def noise(_: Request, __: Answer) -> Answer:
        return Answer(raw=iter([b"SSH-2.0-OpenSSH_9.2p1\r\n"]))

    async with source_of(noise) as source:
        with pytest.raises(TransferError, match="no HTTP answer"):
            await source.document("data", 10)


async def test_a_host_that_is_not_there_is_named() -> None:
    with raw_host(content) as host:
        url = host.url
    async with opened(url) as source:
        with pytest.raises(TransferError, match=f"{url}/data cannot be reached") as caught:
            await source.document("data", 10)
        assert caught.value.status is None


async def test_a_stalled_answer_is_given_up() -> None:
    async with source_of(slow(1), options=HttpOptions(timeout_s=0.2)) as source:
        with pytest.raises(TransferError, match="gave no answer"):
            await source.document("data", len(DATA))


async def test_a_trickle_is_given_up_though_it_never_stalls() -> None:
    options = HttpOptions(timeout_s=0.2)
    async with source_of(slow(100), options=options) as source:
        with pytest.raises(TransferError, match=r"less than 1,000 bytes a second for 0\.2 s"):
            await source.whole("small", 1000)
        # Bounded by the window, not by what was asked for: here a thousand seconds' worth.
        with pytest.raises(TransferError, match="less than 1,000"):
            async for _ in source.stretch("data", [(0, len(DATA))]):
                pass


async def test_answers_that_share_a_slow_line_are_slow_together_only() -> None:
    options = HttpOptions(timeout_s=1, min_rate=600)
    async with source_of(slow(200), options=options) as source:
        with pytest.raises(TransferError, match="less than 600"):
            await source.whole("small", 1000)
        # Each is as slow as that one, and takes longer than its first window.
        found = await asyncio.gather(*(source.whole("small", 1000) for _ in range(20)))
    assert found == [DATA[:1000]] * 20


async def test_without_a_floor_a_trickle_is_waited_for() -> None:
    async with source_of(slow(500), options=HttpOptions(timeout_s=0.5, min_rate=0)) as source:
        assert await source.whole("small", 1000) == DATA[:1000]


async def test_a_host_that_we_hold_back_ourselves_is_not_slow() -> None:
    options = HttpOptions(timeout_s=0.2, bwlimit=len(DATA), min_rate=10**9)
    async with source_of(options=options) as source:
        await asyncio.gather(*(source.document("data", len(DATA)) for _ in range(2)))


async def test_paths_are_quoted_once() -> None:
    seen: list[str] = []

    def look(request: Request, _: Answer) -> Answer:
        seen.append(request.path)
        return Answer(body=b"x")

    async with source_of(look) as source:
        await source.document("a b/ü%20?.json", 10)
    assert seen == ["a b/ü%20?.json"]


# --------------------------------------------------------------------------- ranges


async def test_several_ranges_come_in_one_request() -> None:
    async with source_of() as source:
        assert await read(source) == EXPECTED
        assert source.traffic.requests == 1


async def test_a_connection_is_used_again() -> None:
    with raw_host(content) as host:
        async with opened(host.url) as source:
            for _ in range(5):
                await read(source)
                await read(source, [(3, 5)])
                await source.document("data", len(DATA))
        assert len(host.log) == 15
        assert host.connections == 1


async def test_the_end_of_a_multipart_is_waited_for() -> None:
    """Else the connection would have to be closed; it comes in a packet of its own here."""

    def end_later(_: Request, answer: Answer) -> Answer:
        return replace(answer, pace_bytes_s=20 * (len(answer.body) - 20))

    with raw_host(content, end_later) as host:
        async with opened(host.url) as source:
            for _ in range(3):
                assert await read(source) == EXPECTED
        assert host.connections == 1


def joined(request: Request, answer: Answer) -> Answer:
    """Neighbours in one part, as nginx does not but RFC 9110 allows."""
    spans = request.spans or []
    if len(spans) < 3:
        return answer
    return multipart(DATA, [spans[0], (spans[1][0], spans[2][1]), *spans[3:]])


def reordered(request: Request, answer: Answer) -> Answer:
    spans = request.spans or []
    return multipart(DATA, spans[::-1]) if len(spans) > 1 else answer


def one_part_for_all(request: Request, _: Answer) -> Answer:
    spans = request.spans or []
    return single_part(DATA, (spans[0][0], spans[-1][1]))


def only_the_first(request: Request, _: Answer) -> Answer:
    return single_part(DATA, (request.spans or [])[0])


def only_some(request: Request, answer: Answer) -> Answer:
    spans = request.spans or []
    return multipart(DATA, spans[:2]) if len(spans) > 2 else answer


def at_most(count: int, status: int) -> Script:
    """A host that takes so many ranges and refuses more."""

    def script(request: Request, answer: Answer) -> Answer:
        return Answer(status=status) if len(request.spans or []) > count else answer

    return script


@pytest.mark.parametrize(
    "script",
    [joined, reordered, one_part_for_all, only_the_first, at_most(1, 416), at_most(2, 400)],
)
async def test_a_host_may_answer_ranges_as_it_likes(script: Script) -> None:
    async with source_of(script) as source:
        assert await read(source) == EXPECTED


async def test_a_multipart_that_ends_early_is_an_error() -> None:
    async with source_of(only_some) as source:
        with pytest.raises(TransferError, match="malformed"):
            await read(source)


async def test_a_host_that_takes_one_range_is_asked_one_by_one() -> None:
    async with source_of(ranges=Ranges.ONE) as source:
        assert await read(source) == EXPECTED
        source.traffic.take()
        assert await read(source) == EXPECTED
        # Two of them adjoin.
        assert source.traffic.take().requests == len(SPANS) - 1


async def test_a_host_without_ranges_is_refused_or_read_whole() -> None:
    async with source_of(ranges=Ranges.NONE) as source:
        with pytest.raises(TransferError) as caught:
            await read(source)
        assert caught.value.status == 200
        source.traffic.take()
        assert await read(source, or_whole=True) == EXPECTED
        assert source.traffic.take().received_bytes == len(DATA)
        assert await read(source, [(0, len(DATA))]) == {0: DATA}


async def test_a_stretch_is_delivered_chunk_by_chunk_also_without_ranges() -> None:
    spans = [(1000, 2000), (2000, 2001), (2001, 9000)]
    for ranges in (Ranges.MANY, Ranges.NONE):
        async with source_of(ranges=ranges) as source:
            found = [(index, bytes(data)) async for index, data in source.stretch("data", spans)]
            assert found == [(index, DATA[a:b]) for index, (a, b) in enumerate(spans)]
            assert source.traffic.requests == 1


async def test_a_range_header_stays_short() -> None:
    seen: list[str] = []

    def look(request: Request, answer: Answer) -> Answer:
        seen.append(request.headers["range"])
        return answer

    spans = [(place, place + 1) for place in range(0, len(DATA), 200)]
    async with source_of(look) as source:
        assert len(await read(source, spans)) == len(spans)
    assert max(map(len, seen)) < 4096
    assert len(seen) < 10


def shifted(request: Request, _: Answer) -> Answer:
    """Bytes from one place further, as if they were those asked for."""
    return multipart(DATA, [(start + 1, stop + 1) for start, stop in request.spans or []])


def overlong(_: Request, answer: Answer) -> Answer:
    return replace(answer, body=answer.body + b"and more")


def without_place(_: Request, answer: Answer) -> Answer:
    return replace(answer, headers={}, body=answer.body.replace(b"Content-Range", b"Content-Size"))


def misplaced(text: str) -> Script:
    return lambda _, __: Answer(status=206, headers={"Content-Range": text}, body=b"x" * 10)


def endless_part(_: Request, __: Answer) -> Answer:
    def raw() -> Iterator[bytes]:
        yield b"HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=B\r\n"
        yield b"Transfer-Encoding: chunked\r\n\r\n5\r\n--B\r\n\r\n"
        for _ in range(10**5):
            yield b"10000\r\n" + b"x" * 65536 + b"\r\n"

    return Answer(raw=raw())


def endless_lines(_: Request, __: Answer) -> Answer:
    body = b"--B\r\n" + b"X-Header: x\r\n" * 100_000
    return Answer(
        status=206, headers={"Content-Type": "multipart/byteranges; boundary=B"}, body=body
    )


def no_boundary(_: Request, answer: Answer) -> Answer:
    return replace(answer, headers={"Content-Type": "multipart/byteranges"})


@pytest.mark.parametrize(
    "script",
    [
        shifted,
        without_place,
        misplaced("bytes 0-8/1000000"),
        misplaced("bytes 7-3/1000000"),
        misplaced("bytes 0-99999999999999999999/*"),
        misplaced("all of it"),
        misplaced("bytes 99999-100008/102400"),
        endless_part,
        endless_lines,
        no_boundary,
    ],
)
async def test_bytes_that_were_not_asked_for_are_refused(script: Script) -> None:
    async with source_of(script) as source:
        with pytest.raises(TransferError, match="/data"):
            await read(source)
        with pytest.raises(TransferError, match="/data"):
            async for _ in source.stretch("data", [(0, 10), (10, 20)]):
                pass
        assert source.traffic.received_bytes < 10**7


async def test_a_single_range_has_its_very_place_and_length() -> None:
    async with source_of(misplaced("bytes 0-9/1000000")) as source:
        assert await read(source, [(0, 10)]) == {0: b"x" * 10}
        for span in ((0, 9), (1, 10), (0, 11), (5, 15)):
            with pytest.raises(TransferError, match="sent bytes 0 to 9"):
                await read(source, [span])
    async with source_of(overlong) as source:
        with pytest.raises(TransferError, match="sent more bytes than it said"):
            await read(source, [(0, 10)])


# --------------------------------------------------------------------------- redirects, limits


def to(url: str, status: int = 302) -> Script:
    return lambda _, __: Answer(status=status, headers={"Location": url})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_on_the_same_host_is_followed(status: int) -> None:
    async with source_of(times(1, to("/elsewhere/../data", status))) as source:
        assert await source.document("data", len(DATA)) == DATA
        assert source.traffic.requests == 2


async def test_a_redirect_to_another_host_is_refused() -> None:
    with raw_host(content) as other:
        async with source_of(to(f"{other.url}/data")) as source:
            with pytest.raises(TransferError, match="which is another host") as caught:
                await source.document("data", len(DATA))
        assert other.log == []
    assert caught.value.exit_code == ExitCode.REFUSED
    assert "--allow-redirect 127.0.0.1" in caught.value.hint


async def test_a_redirect_to_an_allowed_host_is_followed_with_its_range() -> None:
    with raw_host(content) as other:
        allowed = HttpOptions(timeout_s=5, allow_redirect=("127.0.0.1",))
        async with source_of(to(f"{other.url}/data"), options=allowed) as source:
            assert await read(source) == EXPECTED
        assert other.log[0].request.spans == [(0, 10), (500, 950), *SPANS[3:]]


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/data", "//", ""])
async def test_a_redirect_out_of_http_is_refused(location: str) -> None:
    allowed = HttpOptions(timeout_s=5, allow_redirect=("127.0.0.1", ""))
    async with source_of(to(location), options=allowed) as source:
        with pytest.raises(TransferError):
            await source.document("data", 10)


async def test_redirects_in_a_ring_end() -> None:
    async with source_of(to("/data")) as source:
        with pytest.raises(TransferError, match="more than 5 redirects"):
            await source.document("data", 10)


async def test_a_rate_holds_over_all_that_is_received() -> None:
    options = HttpOptions(timeout_s=5, bwlimit=100_000)
    async with source_of(options=options) as source:
        started_s = time.monotonic()
        await source.document("data", len(DATA))
        # Half a second's worth may come at once.
        assert time.monotonic() - started_s >= len(DATA) / 100_000 - 0.6


@pytest.mark.parametrize(
    "url", ["https://a.example/birds", "http://127.0.0.1:8080", "http://[::1]/"]
)
def test_an_address_is_http(url: str) -> None:
    assert check_url(url + "/") == url.rstrip("/")


@pytest.mark.parametrize(
    "url", ["", "birds", "/srv/repo", "ftp://a/b", "http://", "http://a/?q", "http://a/#f"]
)
def test_anything_else_is_no_address(url: str) -> None:
    with pytest.raises(ConfigError, match="address of a repository"):
        check_url(url)
