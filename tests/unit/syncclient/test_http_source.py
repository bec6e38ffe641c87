"""A host asked in the fast way: what it does not just give is asked for in the ordinary way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest

from manifests.errors import TransferError
from syncclient.sources.bulk import Bulk
from syncclient.sources.host import HttpOptions, Span, fitting, joined, range_header
from syncclient.sources.http import HttpSource
from syncclient.sources.limits import TokenBucket
from tests.support.rawhost import (
    Answer,
    Ranges,
    RawHost,
    Request,
    Script,
    cut,
    for_paths,
    honest,
    multipart,
    once,
    raw_host,
    refuse,
    times,
)

DATA = bytes(range(256)) * 400
SPANS = [(0, 10), (500, 900), (10_000, 10_001), (50_000, 99_000), (len(DATA) - 5, len(DATA))]
EXPECTED = {index: DATA[start:stop] for index, (start, stop) in enumerate(SPANS)}
FILES = {f"f/{number}": DATA[number : 3 * number] for number in range(300)}


def content(path: str) -> bytes | None:
    return {"data": DATA, **FILES}.get(path)


@asynccontextmanager
async def source_of(
    script: Script = honest, ranges: Ranges = Ranges.MANY
) -> AsyncIterator[tuple[HttpSource, RawHost]]:
    options = HttpOptions(timeout_s=5, connections=2)
    with raw_host(content, script, ranges=ranges) as host:
        async with HttpSource(host.url, options) as source:
            yield source, host


async def read(source: HttpSource, spans: Sequence[Span] = SPANS) -> dict[int, bytes]:
    """The ranges by index; each must come once."""
    found: dict[int, bytes] = {}
    async with aclosing(source.ranges("data", spans)) as bunches:
        async for bunch in bunches:
            assert not found.keys() & {index for index, _ in bunch}
            found |= {index: bytes(data) for index, data in bunch}
    return found


async def read_files(source: HttpSource) -> dict[str, bytes]:
    paths, found = list(FILES), dict[str, bytes]()
    async with aclosing(source.files(paths, [len(FILES[path]) for path in paths])) as bunches:
        async for bunch in bunches:
            found |= {paths[index]: bytes(data) for index, data in bunch}
    return found


async def test_ranges_come_by_one_request_and_are_counted() -> None:
    async with source_of() as (source, host):
        assert await read(source) == EXPECTED
        traffic = source.traffic.take()
        assert traffic.requests == len(host.log) == 1
        assert traffic.received_bytes == host.sent_bytes


@pytest.mark.parametrize(
    "spans", [[(0, 10), (10, 300), (500, 900), (900, 901)], [(7, 8), (8, 99)]]
)
@pytest.mark.parametrize("ranges", [Ranges.MANY, Ranges.ONE])
async def test_spans_that_adjoin_are_asked_for_as_one_range(
    spans: list[Span], ranges: Ranges
) -> None:
    async with source_of(ranges=ranges) as (source, host):
        found = await read(source, spans)
        assert found == {n: DATA[start:stop] for n, (start, stop) in enumerate(spans)}
        asked = host.log[0].request.spans
        assert asked == [(spans[0][0], spans[1][1]), *joined(spans[2:])]
        assert len(asked) == len(spans) // 2
        assert len(host.log) == (1 if ranges is Ranges.MANY or len(asked) == 1 else 2 + len(asked))


async def test_what_waits_for_the_rest_of_its_answer_is_shown_all_the_same() -> None:
    def stalling(_: Request, answer: Answer) -> Answer:
        return replace(answer, stall_after=700)

    spans = [(0, 300), (300, 600), (600, 900)]
    async with (
        source_of(stalling) as (source, _),
        aclosing(source.ranges("data", spans)) as bunches,
    ):
        found = [(index, bytes(data)) for index, data in await anext(bunches)]
    assert found == [(0, DATA[:300]), (1, DATA[300:600])]


async def test_in_the_ordinary_way_too_what_came_before_an_error_is_shown() -> None:
    spans, found = [(0, 300), (300, 600), (600, 900)], dict[int, bytes]()
    with raw_host(content, cut(700)) as host:
        limited = HttpSource(host.url, HttpOptions(timeout_s=5), TokenBucket(10**9))
        async with limited as source, aclosing(source.ranges("data", spans)) as bunches:
            with pytest.raises(TransferError, match="cut"):  # noqa: PT012 (what comes before it is asserted)
                async for bunch in bunches:
                    found |= {index: bytes(data) for index, data in bunch}
    assert found == {0: DATA[:300], 1: DATA[300:600]}


async def test_what_a_cut_leaves_is_not_asked_for_again() -> None:
    spans = [(0, 300), (300, 600), (600, 900)]
    async with source_of(once(cut(700), honest)) as (source, host):
        assert len(await read(source, spans)) == len(spans)
        assert [each.request.spans for each in host.log] == [[(0, 900)], [(600, 900)]]


async def test_more_ranges_than_one_request_may_name() -> None:
    spans = [(place, place + 7) for place in range(0, 102_000, 300)]
    async with source_of() as (source, host):
        found = await read(source, spans)
        assert found == {n: DATA[start:stop] for n, (start, stop) in enumerate(spans)}
        assert 2 < len(host.log) < 5


async def test_many_files_come_over_few_connections() -> None:
    async with source_of() as (source, host):
        assert await read_files(source) == FILES
        assert len(host.log) == len(FILES)
        assert host.connections <= 2


async def test_an_empty_document_is_one() -> None:
    async with source_of() as (source, _):
        assert await source.document("f/0", 10) == b""


@pytest.mark.parametrize("ranges", [Ranges.ONE, Ranges.NONE])
async def test_a_host_of_fewer_ranges_gives_the_same(ranges: Ranges) -> None:
    async with source_of(ranges=ranges) as (source, _):
        if ranges is Ranges.NONE:
            with pytest.raises(TransferError) as caught:
                await read(source)
            assert caught.value.status == 200
        else:
            assert await read(source) == EXPECTED


def another_range(_: Request, answer: Answer) -> Answer:
    return replace(answer, headers={**answer.headers, "Content-Range": "bytes 3-12/102400"})


def chunked(_: Request, answer: Answer) -> Answer:
    head = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/102400\r\n"
    body = b"Transfer-Encoding: chunked\r\n\r\na\r\n%b\r\n0\r\n\r\n" % answer.body
    return replace(answer, raw=iter([head + body]))


def longer(_: Request, answer: Answer) -> Answer:
    return replace(answer, body=answer.body + b"more")


def backwards(request: Request, answer: Answer) -> Answer:
    spans = request.spans or []
    return multipart(DATA, spans[::-1]) if len(spans) > 1 else answer


@pytest.mark.parametrize(
    ("bent", "spans"),
    [
        (another_range, SPANS[:1]),
        (chunked, SPANS[:1]),
        (longer, SPANS[:1]),
        (backwards, SPANS),
        (cut(700), SPANS),
    ],
)
async def test_what_is_not_plain_is_asked_for_in_the_ordinary_way(
    bent: Script, spans: Sequence[Span]
) -> None:
    async with source_of(once(bent, honest)) as (source, host):
        assert await read(source, spans) == {n: EXPECTED[n] for n in range(len(spans))}
        assert len(host.log) == 2


async def test_a_host_that_is_never_plain_is_soon_asked_in_the_ordinary_way_alone() -> None:
    async with source_of(backwards) as (source, host):
        for _ in range(10):
            assert await read(source) == EXPECTED
        assert len(host.log) == 13


async def test_a_file_that_is_missing_keeps_no_other_from_coming() -> None:
    async with source_of(for_paths("f/7", refuse(404))) as (source, host):
        found = await read_files(source)
        assert found == {path: data for path, data in FILES.items() if not path.startswith("f/7")}
        assert host.connections <= 2


async def test_a_busy_host_is_not_asked_twice() -> None:
    async with source_of(refuse(503, Retry_After="7")) as (source, host):
        with pytest.raises(TransferError, match="answers 503 Service") as caught:
            await read(source)
        assert (caught.value.status, caught.value.retry_after_s) == (503, 7)
        assert len(host.log) == 1


async def test_a_connection_closed_after_some_answers_is_replaced() -> None:
    left = iter(range(10**6))

    def tired(_: Request, answer: Answer) -> Answer:
        if next(left) % 40 == 39:
            return replace(answer, headers={**answer.headers, "Connection": "close"})
        return answer

    async with source_of(tired) as (source, host):
        assert await read_files(source) == FILES
        assert host.connections > 5


async def test_who_gives_up_leaves_the_others_their_answers() -> None:
    async with source_of() as (source, _):
        async with aclosing(source.ranges("data", SPANS)) as bunches:
            assert await anext(bunches)
        assert await read(source) == EXPECTED


async def test_a_refusal_comes_after_what_others_got() -> None:
    async with source_of(times(1, refuse(404))) as (source, host):
        with pytest.raises(TransferError) as caught:
            await source.document("data", 10)
        assert caught.value.missing
        assert len(host.log) == 1


@pytest.mark.parametrize("length", [9, 11])
async def test_a_document_that_is_too_long_says_so(length: int) -> None:
    async with source_of() as (source, _):
        if length > 10:
            with pytest.raises(TransferError, match="more than the 10"):
                await source.document("f/11", 10)
        else:
            assert await source.document(f"f/{length // 2}", 10) == FILES[f"f/{length // 2}"]


def test_nothing_is_loaded_for_a_host_that_answers_plainly() -> None:
    with raw_host(content) as host:
        code = (
            "import asyncio, sys\n"
            "from syncclient.sources.http import HttpSource\n"
            "from syncclient.sources.host import HttpOptions\n"
            "async def main():\n"
            f"    async with HttpSource({host.url!r}, HttpOptions()) as source:\n"
            "        assert await source.document('data', 200_000)\n"
            "asyncio.run(main())\n"
            "print('aiohttp' in sys.modules)"
        )
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stdout == "False\n"


def test_a_request_names_as_many_ranges_as_a_header_may_hold() -> None:
    spans = [(start, start + 10) for start in range(10**9, 10**9 + 10_000, 20)]
    count = fitting(spans)
    assert 100 < count <= 128
    assert len(range_header(spans[:count])) <= 3800
    assert fitting(spans[:1]) == 1
    assert fitting(spans, 3) == 3
    assert fitting([]) == 0


def test_spans_that_adjoin_are_one_range_of_a_header() -> None:
    spans = [(start, start + 10) for start in range(9 * 10**8, 11 * 10**8, 10**6)]
    halves = [half for a, b in spans for half in ((a, a + 5), (a + 5, b))]
    assert fitting(halves) == 2 * fitting(spans) == 2 * 128
    assert joined(halves) == spans
    assert fitting(halves, 1) == 2
    wide = [(10**18 + start, 10**18 + start + 10) for start in range(0, 10_000, 20)]
    assert len(range_header(wide[: fitting(wide)])) <= 3800


@pytest.mark.parametrize(
    ("url", "suits"),
    [("http://a/b", True), ("https://a", True), ("http://u:p@a/", False), ("ftp://a", False)],
)
def test_what_needs_a_password_is_left_to_the_ordinary_way(url: str, *, suits: bool) -> None:
    assert Bulk.suits(url) is suits
