"""Many clients, slow clients and clients that stop taking: what they cost a host."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from server.commands.serve import SHUTDOWN_S
from server.hosting.app import ServeConfig, make_app
from tests.support.byteranges import parts_of
from tests.support.host import TIMEOUT_S, Host, reading_processes, running_host
from tests.support.world import World, make_world

CLIENTS = 200
SLOW_CLIENTS = 24
# A bucket of files that are read, and one with a file that is sent by sendfile.
SMALL_FILES = dict.fromkeys(range(10, 250, 10), 900_000)
LARGE_FILE = {11: 20 * 2**20}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = make_world(tmp_path_factory.mktemp("load"))
    sizes = {**SMALL_FILES, **LARGE_FILE, **{n: 2000 + n for n in range(1005, 3005, 10)}}
    for post_id, size_bytes in sizes.items():
        made.put("original", post_id, size_bytes)
    made.publish("y1")
    return made


@pytest.fixture
def host(world: World) -> Iterator[Host]:
    with running_host(world.repo) as found:
        yield found


async def test_hundreds_of_clients_are_served_at_once(world: World, host: Host) -> None:
    pack = world.pack("y1", "original", 5)
    ids = [key[2] for key in world.files if key[2] > 1000]

    async def client(number: int) -> None:
        source = random.Random(number)  # noqa: S311 (which files, not secrets)
        connector = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(host.url, connector=connector) as session:
            for post_id in source.sample(ids, 5):
                async with session.get(world.url("y1", "original", post_id)) as found:
                    assert await found.read() == world.files["y1", "original", post_id]
            starts = sorted(source.sample(range(len(pack) - 3000), 2))
            header = ",".join(f"{start}-{start + 2999}" for start in starts)
            headers = {"Range": f"bytes={header}"}
            path = world.pack_url("y1", "original", 5)
            async with session.get(path, headers=headers) as found:
                parts = parts_of(found.headers, await found.read())
            assert [data for *_, data in parts] == [pack[n : n + 3000] for n in starts]

    async with asyncio.timeout(TIMEOUT_S):
        await asyncio.gather(*(client(number) for number in range(CLIENTS)))


def begin_slowly(port: int, path: str) -> socket.socket:
    """Ask for a large answer, wait until it comes, and take nothing of it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    connection.settimeout(TIMEOUT_S)
    connection.connect(("127.0.0.1", port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    connection.recv(1, socket.MSG_PEEK)
    return connection


def receive(connection: socket.socket) -> bytes:
    """The body of an answer of known length that goes on until the connection ends."""
    data = b"".join(iter(lambda: connection.recv(2**20), b""))
    return data.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("bucket", [0, 1])
def test_slow_clients_cost_little_memory_and_hold_up_nobody(
    world: World, host: Host, bucket: int
) -> None:
    path = world.pack_url("y1", "original", bucket)
    host.get(path)
    before = host.memory_bytes()
    with ExitStack() as stack:
        for _ in range(SLOW_CLIENTS):
            stack.enter_context(begin_slowly(host.port, path))
        assert host.get(path).body == world.pack("y1", "original", bucket)
        grown = host.memory_bytes() - before
    assert grown < SLOW_CLIENTS * 2 * 2**20
    assert len(world.pack("y1", "original", bucket)) > 8 * 2 * 2**20


@pytest.mark.parametrize("bucket", [0, 1])
async def test_a_client_that_takes_nothing_is_cut_off(world: World, bucket: int) -> None:
    warnings: asyncio.Queue[str] = asyncio.Queue()
    app = make_app(ServeConfig(repo=world.repo, warn=warnings.put_nowait, stall_s=0.2))
    async with TestServer(app) as server:
        path = world.pack_url("y1", "original", bucket)
        connection = await asyncio.to_thread(begin_slowly, server.port or 0, path)
        with connection:
            warning = await asyncio.wait_for(warnings.get(), TIMEOUT_S)
            body = await asyncio.to_thread(receive, connection)
    assert warning == f"{path}: connection cut: the client took nothing"
    assert len(body) < len(world.pack("y1", "original", bucket))
    assert warnings.empty()


@pytest.mark.parametrize("bucket", [0, 1])
def test_clients_that_vanish_leave_nothing_open(world: World, host: Host, bucket: int) -> None:
    path = world.pack_url("y1", "original", bucket)
    # The first is a reset, and the second an end that is one too, with bytes not taken.
    for linger in (struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)):
        for _ in range(8):
            with begin_slowly(host.port, path) as connection:
                # The first is a reset, and the second an end that is as good.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    assert host.get(path).body == world.pack("y1", "original", bucket)
    patience_s = time.monotonic() + TIMEOUT_S
    while client_sockets(host):
        assert time.monotonic() < patience_s
    assert host.stop() == 0
    assert [event for event in host.events if event["event"] == "warning"] == []


def client_sockets(host: Host) -> list[str]:
    """What the host and the processes that read for it have open of connections of clients."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    here, listens = f":{host.port:04X}", "0A"
    known = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(here) and row[3] != listens}
    found = []
    for pid in (host.process.pid, *reading_processes(host.process.pid)):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.append(str(link.readlink()))
    return [name for name in found if name in known]


def test_a_process_that_is_killed_costs_one_answer(world: World, host: Host) -> None:
    path = world.pack_url("y1", "original", 0)
    host.get(path)
    (pid,) = reading_processes(host.process.pid)
    os.kill(pid, signal.SIGSTOP)
    with socket.create_connection(("127.0.0.1", host.port), timeout=TIMEOUT_S) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        # Whoever comes meanwhile has another process.
        assert host.get(path).body == world.pack("y1", "original", 0)
        os.kill(pid, signal.SIGKILL)
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    assert host.get(path).body == world.pack("y1", "original", 0)
    host.stop()
    (warning,) = [event["message"] for event in host.events if event["event"] == "warning"]
    assert "connection cut: a process that reads files was ended" in warning


def test_an_answer_under_way_is_finished_before_the_end(world: World, host: Host) -> None:
    content = world.pack("y1", "original", 0)
    idle = socket.create_connection(("127.0.0.1", host.port), timeout=TIMEOUT_S)
    with idle, begin_slowly(host.port, world.pack_url("y1", "original", 0)) as connection:
        host.process.send_signal(signal.SIGTERM)
        # Idle connections are closed once no more are accepted.
        assert idle.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            host.get("/healthz")
        assert receive(connection) == content
        assert host.wait() == 0


def test_a_client_that_takes_nothing_does_not_hold_up_the_end(world: World, host: Host) -> None:
    with begin_slowly(host.port, world.pack_url("y1", "original", 0)):
        started_at = time.monotonic()
        assert host.stop() == 0
        assert time.monotonic() - started_at < SHUTDOWN_S + 3
