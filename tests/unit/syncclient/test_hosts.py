"""Several hosts asked in turn: the first good answer counts, whoever else fails, and how."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from manifests.errors import ExitCode, ManifestError, TransferError
from syncclient.hosts import Hosts
from syncclient.sources.host import HttpOptions
from tests.support.rawhost import (
    Answer,
    Ranges,
    RawHost,
    Script,
    cut,
    flip,
    honest,
    raw_host,
    refuse,
    times,
)

DATA = bytes(range(200)) * 50
SPANS = [(0, 100), (5000, 6000), (9000, 10_000)]


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncclient.hosts._FIRST_WAIT_S", 0.01)


def content(path: str) -> bytes | None:
    return DATA if path == "data" else None


@asynccontextmanager
async def hosts_of(
    *scripts: Script, tries: int = 3, ranges: Ranges = Ranges.MANY
) -> AsyncIterator[tuple[Hosts, list[RawHost]]]:
    async with AsyncExitStack() as stack:
        raw = [stack.enter_context(raw_host(content, script, ranges=ranges)) for script in scripts]
        urls = [host.url for host in raw]
        options = HttpOptions(timeout_s=5)
        yield await stack.enter_async_context(Hosts(urls, options, tries)), raw


def right(data: bytes) -> bytes:
    if data != DATA:
        raise ManifestError("data", "not the bytes that are named")
    return data


async def read(hosts: Hosts) -> dict[int, bytes]:
    found: dict[int, bytes] = {}

    async def take(index: int, data: memoryview) -> None:
        start, stop = SPANS[index]
        if bytes(data) != DATA[start:stop]:
            raise ManifestError("data", "not the bytes that are named")
        assert index not in found
        found[index] = bytes(data)

    await hosts.spans("data", SPANS, take)
    return found


EXPECTED = {index: DATA[start:stop] for index, (start, stop) in enumerate(SPANS)}


async def test_the_first_host_is_preferred() -> None:
    async with hosts_of(honest, honest) as (hosts, raw):
        assert await hosts.document("data", 10_000, right) == DATA
        assert [len(host.log) for host in raw] == [1, 0]
        assert hosts.take_traffic().received_bytes == len(DATA)
        assert hosts.take_traffic().requests == 0


CUT = cut(10)


@pytest.mark.parametrize("bad", [refuse(404), refuse(500), refuse(403), flip, CUT])
async def test_the_next_host_is_asked_at_once(bad: Script) -> None:
    async with hosts_of(bad, honest) as (hosts, raw):
        assert await hosts.document("data", 10_000, right) == DATA
        # What is cut is asked for once more, in the ordinary way.
        assert [len(host.log) for host in raw] == [2 if bad is CUT else 1, 1]
        assert await read(hosts) == EXPECTED


async def test_a_host_that_failed_is_asked_last_until_it_does_better() -> None:
    async with hosts_of(times(1, refuse(500)), honest) as (hosts, raw):
        assert hosts.in_order() == [0, 1]
        for _ in range(3):
            assert await hosts.document("data", 10_000, right) == DATA
            assert hosts.in_order() == [1, 0]
        assert [len(host.log) for host in raw] == [1, 3]
        assert await hosts.document("data", 10_000, right, only=0) == DATA
        assert hosts.in_order() == [0, 1]


async def test_a_host_that_recovers_is_enough() -> None:
    async with hosts_of(times(2, refuse(500))) as (hosts, raw):
        assert await hosts.document("data", 10_000, right) == DATA
        assert len(raw[0].log) == 3


async def test_tries_come_to_an_end() -> None:
    async with hosts_of(flip) as (hosts, raw):
        with pytest.raises(TransferError, match="sent wrong bytes: data: not the bytes"):
            await hosts.document("data", 10_000, right)
        assert len(raw[0].log) == 3
        with pytest.raises(TransferError):
            await hosts.document("data", 10_000, right, tries=1)
        assert len(raw[0].log) == 4


async def test_what_no_host_has_is_not_asked_for_again() -> None:
    async with hosts_of(refuse(404), refuse(410)) as (hosts, raw):
        with pytest.raises(TransferError) as caught:
            await hosts.document("data", 10_000, right)
        assert caught.value.missing
        assert [len(host.log) for host in raw] == [1, 1]


async def test_a_redirect_that_is_not_allowed_is_not_tried_again() -> None:
    def away(_: object, __: object) -> Answer:
        return Answer(status=302, headers={"Location": "http://elsewhere.example/data"})

    async with hosts_of(away) as (hosts, raw):
        with pytest.raises(TransferError, match="elsewhere") as caught:
            await hosts.document("data", 10_000, right)
        assert caught.value.exit_code == ExitCode.REFUSED
        # In the fast way, and in that which understands redirects.
        assert len(raw[0].log) == 2


async def test_one_host_alone_may_be_asked() -> None:
    async with hosts_of(honest, refuse(404)) as (hosts, raw):
        with pytest.raises(TransferError):
            await hosts.document("data", 10_000, right, only=1)
        assert [len(host.log) for host in raw] == [0, 1]


async def test_a_busy_host_is_given_the_time_it_asks_for() -> None:
    async with hosts_of(times(1, refuse(503, Retry_After="1"))) as (hosts, _):
        started_s = time.monotonic()
        assert await hosts.document("data", 10_000, right) == DATA
        assert time.monotonic() - started_s >= 1


async def test_what_came_before_a_cut_is_not_fetched_again() -> None:
    async with hosts_of(cut(700), honest) as (hosts, raw):
        assert await read(hosts) == EXPECTED
        assert raw[0].log[0].request.spans == SPANS
        assert raw[1].log[0].request.spans == SPANS[1:]


async def test_a_host_without_ranges_serves_spans_in_one_download() -> None:
    async with hosts_of(honest, ranges=Ranges.NONE) as (hosts, raw):
        assert await read(hosts) == EXPECTED
        assert [exchange.sent_bytes for exchange in raw[0].log].count(len(DATA)) <= len(raw[0].log)
        assert hosts.take_traffic().received_bytes <= len(DATA)


async def test_without_hosts_nothing_comes() -> None:
    async with Hosts([], HttpOptions(), 3) as hosts:
        with pytest.raises(TransferError, match="no host"):
            await hosts.document("data", 10, right)
