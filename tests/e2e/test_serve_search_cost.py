"""What searches cost a host: many at once, ones that hang, ones that nobody waits for."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from msgspec.structs import replace

from server.hosting.app import ServeConfig, make_app
from server.searching.question import SearchLimits
from tests.support.host import TIMEOUT_S, Host, running_host
from tests.support.searchable import POSTS, make_searchable, search_url
from tests.support.world import World

CLIENTS = 200
# All ask from one address.
ONE_WORKER = SearchLimits(workers=1, address_at_once=8)
_WORKER = b"server.searching.worker"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_searchable(tmp_path_factory.mktemp("cost"))


@pytest.fixture
def host(world: World) -> Iterator[Host]:
    with running_host(world.repo) as found:
        yield found


def workers_of(pid: int) -> list[int]:
    """The search processes of a server."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(n) for n in children if _WORKER in Path(f"/proc/{n}/cmdline").read_bytes()]


@dataclass(frozen=True, kw_only=True)
class Told:
    """An answer to a search."""

    status: int
    fields: dict[str, Any]
    retry_after: str | None


class Application:
    """The application in this process, with one worker."""

    def __init__(self, world: World, limits: SearchLimits = ONE_WORKER) -> None:
        self.warnings: list[str] = []
        config = ServeConfig(repo=world.repo, warn=self.warnings.append, search=limits)
        self._server = TestServer(make_app(config))

    async def __aenter__(self) -> Self:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    def session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(self._server.make_url("/"))

    async def search(self, q: str) -> Told:
        async with self.session() as session, session.get(search_url(q=q)) as found:
            return Told(
                status=found.status,
                fields=await found.json(),
                retry_after=found.headers.get("Retry-After"),
            )

    def workers(self) -> list[int]:
        return workers_of(os.getpid())

    async def stopped_worker(self) -> int:
        """Have a worker, and stop it, as a step would that never ends."""
        assert (await self.search("even")).status == 200
        (worker,) = self.workers()
        os.kill(worker, signal.SIGSTOP)
        return worker


def from_address(host: Host, address: str) -> aiohttp.ClientSession:
    """Many connections from an address of loopback, of which Linux has a whole network."""
    connector = aiohttp.TCPConnector(limit=0, local_addr=(address, 0))
    return aiohttp.ClientSession(host.url, connector=connector)


async def test_many_ask_at_once(host: Host) -> None:
    """Each is answered, or told to come again."""
    expected = [sum(n % 97 == rest for n in range(1, POSTS + 1)) for rest in range(97)]

    async def client(number: int) -> None:
        path = search_url(q=f"tag_{number % 97} order:score", limit=5)
        async with from_address(host, f"127.0.1.{number}") as session:
            while True:
                async with session.get(path) as found:
                    answer = await found.json()
                if found.status == 200:
                    assert answer["count"] == expected[number % 97]
                    return
                assert (found.status, answer["error"]) == (503, "busy")
                assert found.headers["Retry-After"] == "2"

    async with asyncio.timeout(TIMEOUT_S):
        await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    assert len(workers_of(host.process.pid)) == SearchLimits().workers


async def test_files_are_served_while_a_search_hangs(world: World) -> None:
    async with (
        Application(world, replace(ONE_WORKER, time_s=1.0, grace_s=1.0)) as app,
        app.session() as session,
    ):
        worker = await app.stopped_worker()
        hanging = asyncio.create_task(app.search("third"))
        served, slowest_s = 0, 0.0
        while not hanging.done():
            started_s = time.monotonic()
            async with session.get(world.url("y0", "small", 1)) as found:
                assert await found.read() == world.files["y0", "small", 1]
            slowest_s = max(slowest_s, time.monotonic() - started_s)
            served += 1
        refused = await hanging
        assert (refused.status, refused.fields["error"]) == (422, "time")
        assert served > 100
        assert slowest_s < 1.0
        # The process is gone, and another one answers.
        assert worker not in app.workers()
        assert (await app.search("third")).fields["count"] == POSTS // 3
        assert app.warnings == []


async def test_a_query_stops_when_its_time_is_over(world: World) -> None:
    async with Application(world, replace(ONE_WORKER, time_s=0.0)) as app:
        refused = await app.search("even")
        assert (refused.status, refused.fields["error"]) == (422, "time")
        assert refused.retry_after is None
        (worker,) = app.workers()
        assert (await app.search("even")).status == 422
        assert app.workers() == [worker]


async def test_beyond_the_queue_one_is_to_come_again(world: World) -> None:
    async with Application(world, replace(ONE_WORKER, waiting=1, time_s=1.0, grace_s=0.5)) as app:
        await app.stopped_worker()
        answers = await asyncio.gather(*(app.search(f"tag_{n}") for n in range(4)))
        assert sorted(told.status for told in answers) == [200, 422, 503, 503]
        for told in answers:
            if told.status == 503:
                assert (told.fields["error"], told.retry_after) == ("busy", "2")


async def test_an_address_that_asks_for_much_waits_for_itself(host: Host) -> None:
    """Of its searches one is answered at a time, some wait, and nobody else is held up."""
    limits, path = SearchLimits(), search_url(q="order:score", limit=5)
    assert host.get(path).status == 200
    (worker,) = workers_of(host.process.pid)
    os.kill(worker, signal.SIGSTOP)
    async with (
        asyncio.timeout(TIMEOUT_S),
        from_address(host, "127.0.2.1") as greedy,
        from_address(host, "127.0.2.2") as modest,
    ):
        asked = [asyncio.create_task(searched(greedy, path)) for _ in range(20)]
        refused = len(asked) - limits.address_at_once - limits.address_waiting
        for finished in itertools.islice(asyncio.as_completed(asked), refused):
            assert await finished == (429, "address", "2")
        assert (await searched(modest, path))[0] == 200
        os.kill(worker, signal.SIGCONT)
        statuses = [status for status, *_ in await asyncio.gather(*asked)]
    assert statuses.count(200) == len(asked) - refused
    metrics = host.get("/metrics").body.decode()
    assert f'bucketsync_refusals_total{{reason="searches"}} {refused}\n' in metrics


async def searched(session: aiohttp.ClientSession, path: str) -> tuple[int, str, str]:
    """Status, sort of error and Retry-After of an answer."""
    async with session.get(path) as found:
        answer = await found.json()
        return found.status, answer.get("error", ""), found.headers.get("Retry-After", "")


async def test_who_waits_too_long_is_to_come_again(world: World) -> None:
    async with Application(world, replace(ONE_WORKER, wait_s=0.1, time_s=1.0, grace_s=0.5)) as app:
        await app.stopped_worker()
        answers = await asyncio.gather(*(app.search(f"tag_{n}") for n in range(2)))
        assert sorted(told.status for told in answers) == [422, 503]


async def test_a_worker_that_grew_is_replaced(world: World) -> None:
    async with Application(world, replace(ONE_WORKER, kept_bytes=1)) as app:
        for _ in range(2):
            assert (await app.search("even")).fields["count"] == POSTS // 2
            assert app.workers() == []


async def test_a_worker_that_ended_by_itself_is_replaced(world: World) -> None:
    async with Application(world) as app:
        worker = await app.stopped_worker()
        os.kill(worker, signal.SIGKILL)
        # The first one may find out, and is told to ask again.
        answers = [(await app.search("third")).status for _ in range(2)]
        assert answers[-1] == 200
        assert answers[0] in {200, 503}


async def test_no_worker_outlives_the_application(world: World) -> None:
    async with Application(world) as app:
        await app.stopped_worker()
    assert app.workers() == []


def test_nobody_is_searched_for_who_went_away(host: Host) -> None:
    assert host.get(search_url(q="even")).status == 200
    (worker,) = workers_of(host.process.pid)
    os.kill(worker, signal.SIGSTOP)
    with closing(http.client.HTTPConnection("127.0.0.1", host.port)) as connection:
        connection.request("GET", search_url(q="third"))
        wait_until(lambda: in_flight(host) == 2)
    # The request has an end although its search has none yet.
    wait_until(lambda: in_flight(host) == 1)
    metrics = host.get("/metrics").body.decode()
    assert 'bucketsync_http_requests_total{route="search",status="499"} 1\n' in metrics
    os.kill(worker, signal.SIGCONT)
    assert json.loads(host.get(search_url(q="third")).body)["count"] == POSTS // 3
    assert worker in workers_of(host.process.pid)


def in_flight(host: Host) -> int:
    """Requests that are being answered, this one among them."""
    for line in host.get("/metrics").body.decode().splitlines():
        if line.startswith("bucketsync_http_in_flight "):
            return int(line.split()[1])
    raise AssertionError


def wait_until(is_so: Callable[[], bool]) -> None:
    """Ask until it is so."""
    end_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < end_s


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_server(host: Host, number: signal.Signals) -> None:
    host.get(search_url(q="even"))
    (worker,) = workers_of(host.process.pid)
    fd = os.pidfd_open(worker)
    try:
        host.process.send_signal(number)
        assert select.select([fd], [], [], TIMEOUT_S)[0]
    finally:
        os.close(fd)
    assert host.wait() == (0 if number == signal.SIGTERM else -number)
