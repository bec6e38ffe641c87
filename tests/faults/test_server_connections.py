"""A host under too many connections, too slow ones and idle ones; everybody else is served."""

from __future__ import annotations

import resource
import select
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from server.hosting.gate import ConnectionLimits
from tests.support.abuse import (
    all_of,
    connect,
    exchange,
    is_served,
    many_files,
    send,
    shorter,
    state_of,
    statuses,
)
from tests.support.faultreport import Record
from tests.support.host import TIMEOUT_S, running_host
from tests.support.world import World, make_world

ATTACKER, OTHER = "127.0.0.66", "127.0.0.99"
LARGE = 24 * 2**20
MIB = 2**20
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = make_world(tmp_path_factory.mktemp("connections"))
    for post_id in range(10, 210, 10):
        made.put("original", post_id, 5_000)
    made.put("original", 1, LARGE)
    made.publish("y1")
    before = state_of(made.repo)
    yield made
    assert state_of(made.repo) == before


def small(world: World) -> tuple[str, bytes]:
    """A file that a well-behaved client asks for meanwhile."""
    return world.url("y1", "original", 10), world.files["y1", "original", 10]


# --------------------------------------------------------------------------- slow


def test_heads_a_byte_at_a_time_have_an_end(world: World, record: Record) -> None:
    """Slowloris: each byte comes in time, and the head never."""
    tried = 100
    with running_host(world.repo, prelude=shorter(head_s=1.0)) as host, ExitStack() as stack:
        slow = [stack.enter_context(connect(host.port, ATTACKER)) for _ in range(tried)]
        left = set(slow)
        head = iter(b"GET / HTTP/1.1\r\nX: " + b"a" * 2**20)
        while left:
            byte = bytes([next(head)])
            for connection in tuple(left):
                send(connection, byte)
            readable, _, _ = select.select(list(left), [], [], 0.05)
            for connection in readable:
                left.discard(connection)
                assert statuses(all_of(connection)) == [408]
            assert is_served(host, *small(world))
        assert host.refusals("head_time") == tried
        record(
            "server: heads a byte at a time",
            tried=tried,
            survived=tried,
            peak_bytes=host.memory_bytes("VmHWM"),
        )


def test_a_head_in_pieces_is_no_fault(world: World) -> None:
    with running_host(world.repo) as host, connect(host.port) as connection:
        for byte in GET:
            connection.sendall(bytes([byte]))
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_connections_that_ask_nothing_are_closed(world: World, record: Record) -> None:
    tried = 200
    with running_host(world.repo, prelude=shorter(idle_s=1.0)) as host, ExitStack() as stack:
        silent = [stack.enter_context(connect(host.port, ATTACKER)) for _ in range(tried // 2)]
        idle = [stack.enter_context(connect(host.port, ATTACKER)) for _ in range(tried // 2)]
        for connection in idle:
            connection.sendall(GET)
            assert connection.recv(12) == b"HTTP/1.1 200"
        assert is_served(host, *small(world))
        assert [all_of(connection) for connection in silent] == [b""] * (tried // 2)
        assert all(all_of(connection) for connection in idle)
        record("server: idle connections", tried=tried, survived=tried)


@pytest.mark.parametrize("bucket", ["pack", "sendfile", "small"])
def test_readers_of_a_byte_a_second_are_cut_off(world: World, record: Record, bucket: str) -> None:
    """They take something again and again, so they never stall; but not enough."""
    path = {
        "pack": world.pack_url("y1", "original", 1),
        "sendfile": world.url("y1", "original", 1),
        "small": world.pack_url("y1", "original", 0),
    }[bucket]
    tried = 20
    prelude = shorter(window_s=1.0, min_bytes_s=50_000, idle_s=3600.0)
    with running_host(world.repo, prelude=prelude) as host, ExitStack() as stack:
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * (
            1 + 99 * (bucket == "small")
        )
        slow = [
            stack.enter_context(connect(host.port, ATTACKER, window_bytes=4096))
            for _ in range(tried)
        ]
        for connection in slow:
            connection.sendall(request)
        while host.refusals("slow_reader") < tried:
            for connection in slow:
                with suppress(ConnectionError):
                    connection.recv(1)
            assert is_served(host, *small(world))
        # What was sent before is all that there is.
        for connection in slow:
            assert len(all_of(connection)) < MIB
        record(
            f"server: readers of a byte a second ({bucket})",
            tried=tried,
            survived=tried,
            peak_bytes=host.memory_bytes("VmHWM"),
        )


def test_a_reader_that_is_fast_enough_is_kept(world: World) -> None:
    """Also over many windows."""
    prelude = shorter(window_s=0.2, min_bytes_s=1024)
    with running_host(world.repo, prelude=prelude) as host:
        connection = connect(host.port, window_bytes=2**16)
        path = world.url("y1", "original", 1)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        found = bytearray()
        with connection:
            while part := connection.recv(2**17):
                found += part
                if len(found) < 6 * MIB:
                    select.select([], [], [], 0.01)
        assert found.partition(b"\r\n\r\n")[2] == world.files["y1", "original", 1]
        assert host.refusals("slow_reader") == 0


# --------------------------------------------------------------------------- many


def test_an_address_has_so_many_connections(world: World, record: Record) -> None:
    limit = 20
    flags = ("--max-connections-per-address", str(limit))
    with running_host(world.repo, *flags) as host, ExitStack() as stack:
        held = [stack.enter_context(connect(host.port, ATTACKER)) for _ in range(limit)]
        for connection in held:
            connection.sendall(GET)
            assert connection.recv(12) == b"HTTP/1.1 200"
        refused = exchange(host, LAST, ATTACKER)
        assert statuses(refused) == [429]
        assert b"\r\nRetry-After: 2\r\n" in refused
        assert is_served(host, *small(world))
        # One that goes makes room for one.
        held.pop().close()
        while statuses(exchange(host, LAST, ATTACKER)) != [200]:
            pass
        assert host.refusals("address_connections") >= 1
        record("server: connections of one address", survived=1)


def test_a_proxy_of_ours_speaks_for_many(world: World) -> None:
    flags = ("--max-connections-per-address", "1", "--trusted-proxy", ATTACKER)
    with running_host(world.repo, *flags) as host, ExitStack() as stack:
        for _ in range(5):
            connection = stack.enter_context(connect(host.port, ATTACKER))
            connection.sendall(GET)
            assert connection.recv(12) == b"HTTP/1.1 200"
        held = stack.enter_context(connect(host.port, OTHER))
        held.sendall(GET)
        assert held.recv(12) == b"HTTP/1.1 200"
        assert statuses(exchange(host, LAST, OTHER)) == [429]


def test_idle_connections_make_room_where_all_are_taken(world: World, record: Record) -> None:
    flags = ("--max-connections", "30")
    with running_host(world.repo, *flags) as host, ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(connect(host.port, ATTACKER)).sendall(GET[:5])
        while (status := statuses(exchange(host, LAST, OTHER))) != [200]:
            assert status == [503]
        assert host.refusals("connections") >= 1
        assert host.refusals("head_time") >= 1
        record("server: all connections taken", survived=1)


def test_thousands_of_connections_cost_little(world: World, record: Record) -> None:
    """From a dozen addresses, half of them with something in their hands."""
    limits, tried = ConnectionLimits(), 4000
    with many_files(tried + 500), running_host(world.repo) as host, ExitStack() as stack:
        assert is_served(host, *small(world))
        before = host.memory_bytes()
        path = world.pack_url("y1", "original", 1)
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        held = []
        for number in range(tried):
            source = f"127.0.7.{number % 12 + 1}"
            connection = stack.enter_context(connect(host.port, source, window_bytes=4096))
            send(connection, request if number % 2 else GET[:5])
            held.append(connection)
        grown = host.memory_bytes("VmHWM") - before
        assert grown < limits.total * 1.5 * MIB
        # Those who do nothing go, and somebody else comes in.
        while not is_served(host, *small(world)):
            pass
        assert host.metrics()["http_connections"] <= limits.total
        record(
            "server: thousands of connections",
            tried=tried,
            survived=tried,
            peak_bytes=host.memory_bytes("VmHWM"),
        )


def test_thousands_of_requests_ahead_are_answered_and_not_kept(
    world: World, record: Record
) -> None:
    tried = 5000
    with running_host(world.repo) as host, connect(host.port, ATTACKER) as connection:
        path, content = small(world)
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        assert is_served(host, path, content)
        before = host.memory_bytes()
        connection.settimeout(0)
        waiting, found = memoryview(request * tried), bytearray()
        # As much as the server takes without an answer being read.
        while waiting and select.select([], [connection], [], 0.5)[1]:
            waiting = waiting[connection.send(waiting) :]
        assert is_served(host, path, content)
        assert host.memory_bytes("VmHWM") - before < 30 * MIB
        while found.count(b"HTTP/1.1 200 OK") < tried:
            readable, writable, _ = select.select(
                [connection], [connection] * bool(waiting), [], TIMEOUT_S
            )
            assert readable or writable
            if writable:
                waiting = waiting[connection.send(waiting) :]
            if readable:
                found += connection.recv(2**20)
        assert found.count(content) >= tried - 1
        record(
            "server: requests sent ahead",
            tried=tried,
            survived=tried,
            peak_bytes=host.memory_bytes("VmHWM"),
        )


# --------------------------------------------------------------------------- open files


def test_a_low_limit_of_open_files_means_fewer_connections(world: World, record: Record) -> None:
    possible = 22
    prelude = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))"
    with (
        running_host(world.repo, prelude=prelude, keep_lines=True) as host,
        ExitStack() as stack,
    ):
        for number in range(400):
            stack.enter_context(connect(host.port, f"127.0.7.{number % 4 + 1}")).sendall(GET[:5])
        while not is_served(host, *small(world)):
            pass
        assert host.metrics()["http_connections"] <= possible
        assert host.stop() == 0
    assert host.lines[1].startswith(f"{possible} connections instead of 1000")
    # What could not be accepted in between is not worth a line each.
    assert len(host.lines) < 6
    record("server: low limit of open files", survived=1)


def test_no_file_left_to_open_ends_nothing(world: World, record: Record) -> None:
    with running_host(world.repo, keep_lines=True) as host:
        path, content = small(world)
        with connect(host.port) as connection, ExitStack() as stack:
            connection.sendall(GET)
            assert connection.recv(4096)
            used = len(list(Path(f"/proc/{host.process.pid}/fd").iterdir()))
            soft, hard = resource.prlimit(host.process.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(host.process.pid, resource.RLIMIT_NOFILE, (used + 1, hard))
            # One is taken by a connection, so no file can be opened for another.
            stack.enter_context(connect(host.port)).sendall(GET)
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = connection.recv(4096)
            assert statuses(answer) == [503]
            assert b"\r\nRetry-After: 2\r\n" in answer
            waiting = [stack.enter_context(connect(host.port)) for _ in range(50)]
            for other in waiting:
                other.sendall(GET)
            connection.sendall(GET)
            assert statuses(connection.recv(4096)) == [200]
            resource.prlimit(host.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
            # Those that could not be accepted are now.
            for other in waiting:
                assert other.recv(12) == b"HTTP/1.1 200"
        assert is_served(host, path, content)
        assert host.refusals("open_files") >= 2
        assert host.stop() == 0
    assert sum("Too many open files" in line for line in host.lines) == 1
    record("server: no open files left", survived=1)


# --------------------------------------------------------------------------- heads


@pytest.mark.parametrize(
    ("line", "size_bytes"),
    [
        (b"X-%d: a\r\n", 2**20),
        (b"X-%d: " + b"a" * 8000 + b"\r\n", 2**22),
        (b"X-%d: " + b"a" * 100_000 + b"\r\n", 2**22),
        (b"Cookie: a=%d\r\n", 2**20),
        (b" folded %d\r\n", 2**20),
    ],
    ids=["many", "large", "too large", "same", "folded"],
)
def test_a_flood_of_headers_is_refused(
    world: World, record: Record, line: bytes, size_bytes: int
) -> None:
    tried = 30
    with running_host(world.repo) as host, ExitStack() as stack:
        assert is_served(host, *small(world))
        before = host.memory_bytes()
        flood = b"".join(line % number for number in range(size_bytes // len(line)))
        for _ in range(tried):
            connection = stack.enter_context(connect(host.port, ATTACKER))
            send(connection, b"GET / HTTP/1.1\r\nHost: x\r\n" + flood)
            found = statuses(all_of(connection))
            # The connection may be gone before the answer can be read.
            assert found in ([400], [431], [])
            assert is_served(host, *small(world))
        assert host.memory_bytes("VmHWM") - before < 20 * MIB
        record("server: floods of headers", tried=tried, survived=tried)


def test_a_head_that_is_too_large_is_told_so(world: World) -> None:
    """In pieces each of which is allowed; and the count begins anew with each request."""
    most = ConnectionLimits().head_bytes
    with running_host(world.repo) as host:
        lines = [b"X-%d: " % n + b"a" * 7000 + b"\r\n" for n in range(most // 7000 + 1)]
        fits = b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"".join(lines[:-1])
        with connect(host.port) as connection:
            for _ in range(3):
                for start in range(0, len(fits), 5000):
                    connection.sendall(fits[start : start + 5000])
                connection.sendall(b"\r\n")
                assert statuses(connection.recv(4096)) == [200]
            connection.sendall(fits + lines[-1])
            assert statuses(all_of(connection)) == [431]
        assert host.refusals("head_bytes") == 1


def test_a_head_grows_no_more_while_an_answer_is_sent(world: World) -> None:
    with running_host(world.repo) as host:
        path = world.url("y1", "original", 1)
        with connect(host.port, ATTACKER, window_bytes=4096) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert connection.recv(1)
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
            line = b"X: " + b"a" * 7000 + b"\r\n"
            while send(connection, line):
                pass
        assert host.refusals("head_bytes") == 1
        # What is sent ahead while an answer is sent is no head that grows.
        with connect(host.port, OTHER, window_bytes=4096) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert connection.recv(1)
            ahead = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 7000 + b"\r\n\r\n"
            last = ahead.replace(b"Host", b"Connection: close\r\nHost")
            connection.sendall(ahead * 9 + last)
            assert all_of(connection).count(b"HTTP/1.1 200 OK") == 10
        assert host.refusals("head_bytes") == 1


def test_the_host_is_watched_to_the_end(world: World) -> None:
    """A slow client does not hold up the end of the process."""
    with running_host(world.repo) as host, connect(host.port) as connection:
        connection.sendall(GET[:5])
        assert host.stop() == 0


def test_nobody_is_told_for_ever(world: World) -> None:
    """Who is turned away and says nothing has few seconds, and then is gone."""
    with running_host(world.repo, "--max-connections", "1") as host, connect(host.port) as held:
        held.sendall(GET)
        assert held.recv(12) == b"HTTP/1.1 200"
        with ExitStack() as stack:
            turned = [stack.enter_context(connect(host.port, OTHER)) for _ in range(200)]
            # More than can be told are closed at once, the others soon.
            assert {all_of(connection) for connection in turned} == {b""}
        # By then the idle one has made room.
        assert host.refusals("connections_untold") >= 1
        assert host.refusals("idle_when_crowded") == 1
