"""Plain requests, which a host answers without aiohttp, among others: nobody sees a difference.

A host that writes a line for each request (``-v``) has aiohttp answer all of them, so it says what
the answers are to be.
"""

from __future__ import annotations

import re
import select
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from manifests.torrents.announce import Announcement, State
from tests.support.abuse import all_of, connect, send, shorter, state_of
from tests.support.faultreport import Record
from tests.support.host import TIMEOUT_S, Host, running_host
from tests.support.world import World, make_world

LARGE = 24 * 2**20
HOST = b"Host: x\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
# Says which requests aiohttp was lent, and when it was given all.
NOTING = """
import sys
from server.hosting.connections import Connection
lend, give = Connection._lend, Connection._give_all
def noting(what, call):
    def noted(self, *data):
        print(what, *(part.split()[1].decode() for part in data), file=sys.stderr)
        call(self, *data)
    return noted
Connection._lend = noting("lent", lend)
Connection._give_all = noting("given", give)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = make_world(tmp_path_factory.mktemp("plain"))
    for post_id in range(10, 110, 10):
        made.put("original", post_id, 3_000)
    made.put("original", 1, LARGE)
    made.publish("y1")
    before = state_of(made.repo)
    yield made
    assert state_of(made.repo) == before


@pytest.fixture(scope="module")
def host(world: World) -> Iterator[Host]:
    with running_host(world.repo) as found:
        warm(found, world)
        yield found


@pytest.fixture(scope="module")
def other(world: World) -> Iterator[Host]:
    """One that has aiohttp answer everything."""
    with running_host(world.repo, "-v") as found:
        yield found


def warm(host: Host, world: World) -> None:
    """Have a host read its buckets."""
    for bucket in (0, 1):
        assert host.get(world.pack_url("y1", "original", bucket)).status == 200


def get(path: str, *lines: bytes, method: bytes = b"GET") -> bytes:
    head = b"%b %b HTTP/1.1\r\n" % (method, path.encode())
    return head + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def asked(host: Host, *parts: bytes) -> bytes:
    """What comes for some bytes, sent in these parts, until the host ends the connection."""
    with connect(host.port) as connection:
        for part in parts:
            if not send(connection, part):
                break
        return all_of(connection)


def statuses(answers: bytes) -> list[int]:
    """The statuses of all answers, also of those that follow a body."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


def alike(answers: bytes) -> bytes:
    """Answers without what is another one each time."""
    boundaries = dict.fromkeys(re.findall(rb"boundary=(\w{32})", answers))
    for number, boundary in enumerate(boundaries):
        answers = answers.replace(boundary, b"%032d" % number)
    return re.sub(rb"\r\nDate: [^\r]*", b"", answers)


def lines_of(answers: bytes) -> list[bytes]:
    """Answers whose headers may come in another order, line by line."""
    head, end, rest = answers.partition(b"\r\n\r\n")
    return [*sorted(head.split(b"\r\n")), end, rest]


# --------------------------------------------------------------------------- the same answers


def headers_of(world: World) -> dict[str, tuple[bytes, ...]]:
    del world
    return {
        "nothing": (),
        "range": (b"Range: bytes=5-99",),
        "ranges": (b"Range: bytes=5-99,200-299,-7",),
        "ranges from two lines of a client": (b"range: bytes=0-0, ,9-9",),
        "another unit": (b"Range: lines=0-5",),
        "no range": (b"Range: bytes=first-",),
        "behind the end": (b"Range: bytes=99999999-",),
        "any tag": (b"If-None-Match: *",),
        "other tag": (b'If-None-Match: "a", W/"b"',),
        "must match": (b'If-Match: "a"',),
        "later": (b"If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT",),
        "before": (b"If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT",),
        "if range": (b'If-Range: "a"', b"Range: bytes=0-9"),
        "keep-alive": (b"Connection: keep-alive", b"Accept-Encoding: gzip, br"),
    }


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("path", ["pack", "file", "no pack", "no file", "escaped", "query"])
def test_answers_are_those_of_aiohttp(
    world: World, host: Host, other: Host, path: str, method: bytes
) -> None:
    pack, file = world.pack_url("y1", "original", 0), world.url("y1", "original", 20)
    url = {
        "pack": pack,
        "file": file,
        "no pack": pack + "9",
        "no file": file + "x",
        "escaped": pack.replace("packs", "pack%73"),
        "query": file + "?a=b",
    }[path]
    for lines in headers_of(world).values():
        data = get(url, *lines, method=method) + LAST
        ours, theirs = (alike(asked(one, data)) for one in (host, other))
        assert lines_of(ours) == lines_of(theirs)


def test_they_are_counted_as_those_of_aiohttp(world: World) -> None:
    path = world.pack_url("y1", "original", 0)
    found = []
    for flags in ((), ("-v",)):
        with running_host(world.repo, *flags) as host:
            warm(host, world)
            for lines in headers_of(world).values():
                asked(host, get(path, *lines) * 2 + LAST)
            metrics = host.metrics()
            found.append({n: v for n, v in metrics.items() if "seconds" not in n})
            assert metrics['http_seconds_total{route="packs"}'] > 0
    assert found[0] == found[1]


# --------------------------------------------------------------------------- one after another


def mixed(world: World) -> list[bytes]:
    """Requests of every kind, each with its bytes."""
    pack, file = world.pack_url("y1", "original", 0), world.url("y1", "original", 20)
    body = Announcement(port=1, numwant=1, hashes=[bytes(20)], states=[State.SEEDING]).encode()
    post = b"POST /announce/batch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    return [
        get(pack, b"Range: bytes=0-99"),
        get(pack, method=b"HEAD"),
        get(file),
        get("/"),
        get(pack, b"Range: bytes=7-9,30-39"),
        get(pack, b"If-None-Match: *"),
        get("/tuf/metadata/1.root.json"),
        get("/nothing"),
        get(pack),
        get(file, b"X-Unknown: 1"),
        get(pack, b"Range: bytes=1-2"),
        post + body,
        get(file, method=b"HEAD"),
        get(pack, b"Range: bytes=3-4"),
    ]


def test_a_mix_of_requests_is_answered_in_its_order(
    world: World, host: Host, other: Host, record: Record
) -> None:
    requests = mixed(world)
    tried = 0
    for first in range(len(requests)):
        data = b"".join(requests[first:] + requests[:first]) + LAST
        ours, theirs = alike(asked(host, data)), alike(asked(other, data))
        assert statuses(ours) == statuses(theirs)
        assert sorted(ours.split(b"\r\n")) == sorted(theirs.split(b"\r\n"))
        tried += 1
    record("server: plain requests among others", tried=tried, survived=tried)


def test_a_head_may_be_cut_at_every_byte(world: World, host: Host, other: Host) -> None:
    pack = world.pack_url("y1", "original", 0)
    two = get(pack, b"Range: bytes=0-9,20-29") + get(world.url("y1", "original", 20))
    wanted = lines_of(alike(asked(other, two + LAST)))
    for cut in range(1, len(two)):
        with connect(host.port) as connection:
            connection.sendall(two[:cut])
            # Until the first answer begins, or nothing comes for lack of a head.
            select.select([connection], [], [], 0.002)
            connection.sendall(two[cut:] + LAST)
            assert lines_of(alike(all_of(connection))) == wanted
    assert lines_of(alike(asked(host, *(bytes([byte]) for byte in two + LAST)))) == wanted


def test_aiohttp_is_lent_what_it_must_answer_and_no_more(world: World) -> None:
    pack, odd = world.pack_url("y1", "original", 0), b"X-Odd: 1"
    with running_host(world.repo, prelude=NOTING, keep_lines=True) as host:
        asked(
            host,
            get(pack) + get(pack) + get(pack, method=b"HEAD") + get(pack),
            get("/nothing") + get(pack) + get("/odd", odd) + get(pack) + LAST,
        )
        assert host.stop() == 0
    noted = [line for line in host.lines if line.split()[0] in {"lent", "given"}]
    # The bucket was not at hand at first; and who was odd once has aiohttp to the end.
    assert noted == [f"lent {pack}", f"lent {pack}", "lent /nothing", "given"]


# --------------------------------------------------------------------------- smuggling

INNER = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
SMUGGLED = {
    "length": (b"Content-Length: %d" % len(INNER), INNER),
    "length in underscores": (b"Content_Length: %d" % len(INNER), b""),
    "length, space before the colon": (b"Content-Length : %d" % len(INNER), INNER),
    "length, folded": (b"X: a\r\n Content-Length: 5", b""),
    "length behind a bare LF": (b"Accept: a\nContent-Length: %d" % len(INNER), INNER),
    "length behind a bare CR": (b"Accept: a\rContent-Length: %d" % len(INNER), INNER),
    "chunks": (b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER)),
    "chunks, tab": (b"Transfer-Encoding:\tchunked", b"0\r\n\r\n" + INNER),
    "chunks, odd": (b"Transfer-Encoding: xchunked", b"0\r\n\r\n" + INNER),
    "chunks, length": (b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"0\r\n\r\n" + INNER),
    "end by LF": (b"Accept: a\n\nGET /smuggled HTTP/1.1\r\nHost: y", b""),
    "end by LF CR LF": (b"Accept: a\n\r\nGET /smuggled HTTP/1.1\r\nHost: y", b""),
    "expect": (b"Expect: 100-continue\r\nContent-Length: %d" % len(INNER), INNER),
    "two hosts": (b"Host: y", b""),
    "close": (b"Connection: close", INNER),
    "NUL": (b"Accept: a\0b", b""),
}  # fmt: skip


@pytest.mark.parametrize("name", SMUGGLED)
@pytest.mark.parametrize("before", ["plain", "lent", "nothing"])
def test_what_two_might_read_in_two_ways_is_read_as_aiohttp_does(
    world: World, host: Host, other: Host, name: str, before: str
) -> None:
    line, body = SMUGGLED[name]
    pack = world.pack_url("y1", "original", 0)
    ahead, status = {
        "plain": (get(pack, b"Range: bytes=0-9"), [206]),
        "lent": (get("/nothing"), [404]),
        "nothing": (b"", []),
    }[before]
    odd = get(pack, b"Range: bytes=0-9", line) + body + get(pack) + LAST
    wanted = statuses(asked(other, odd))
    assert statuses(asked(host, ahead + odd)) == status + wanted
    # The same in two parts, wherever they meet.
    for middle in (len(ahead), len(ahead) + 30, len(ahead) + 100):
        data = ahead + odd
        assert statuses(asked(host, data[:middle], data[middle:])) == status + wanted


def test_a_request_half_of_which_aiohttp_has_is_not_begun_anew(world: World, host: Host) -> None:
    """What came behind an odd request belongs to aiohttp, also when that is answered."""
    pack = get(world.pack_url("y1", "original", 0), b"Range: bytes=0-9")
    with connect(host.port) as connection:
        connection.sendall(get("/nothing", b"X-Odd: 1") + b"GET /healthz HTTP/1.1\r\nX-Odd: ")
        assert connection.recv(12) == b"HTTP/1.1 404"
        connection.sendall(pack)
        connection.sendall(LAST)
        assert statuses(all_of(connection)) in ([400], [200, 200])


# --------------------------------------------------------------------------- slow heads


# What comes next of a head that was plain so far, and is none any more; nor is it whole.
ODD = {
    "a tab": b"\t",
    "an odd name": b"\r\nX_Odd: a\r\nAccept: ",
    "too long": b"a" * 7000 + b"\r\nAccept: " + b"a" * 1000,
}


def test_the_clock_of_a_head_goes_on_when_aiohttp_takes_it_over(
    world: World, record: Record
) -> None:
    """Who began before somebody else is told to go before him, whatever else he sent since."""
    file = get(world.url("y1", "original", 20), b"Range: bytes=0-9")
    begun = b"GET / HTTP/1.1\r\nHost: x\r\nAccept: "
    # All connections are looked at every 50 ms.
    prelude = NOTING + shorter(head_s=3.0, window_s=0.3)
    with running_host(world.repo, prelude=prelude, keep_lines=True) as host, ExitStack() as stack:
        warm(host, world)
        slow = {}
        for before, status in ((b"", b""), (file, b" 206 "), (get("/nothing"), b" 404 ")):
            for odd in ODD.values():
                connection = stack.enter_context(connect(host.port))
                connection.sendall(before + begun)
                assert status in (connection.recv(2**16) if before else b"")
                slow[connection] = odd
        for _ in range(15):
            for connection in slow:
                connection.sendall(b"a")
            assert select.select(slow, [], [], 0.1)[0] == []
        younger = stack.enter_context(connect(host.port))
        younger.sendall(begun)
        # An answer says that the host has read what was sent before.
        warm(host, world)
        for connection, odd in slow.items():
            connection.sendall(odd)
        for connection in slow:
            while not select.select([connection], [], [], 0.05)[0]:
                connection.sendall(b"a")
            assert statuses(all_of(connection)) == [408]
        younger.sendall(b"*/*\r\n\r\n")
        assert b" 200 " in younger.recv(2**16)
        assert host.refusals("head_time") == len(slow)
        assert host.stop() == 0
    assert host.lines.count("given") == len(slow)
    record("server: slow heads that aiohttp takes over", tried=len(slow), survived=len(slow))


# --------------------------------------------------------------------------- clients that go


def test_a_client_that_goes_away_is_counted_and_missed(world: World, record: Record) -> None:
    tried = 20
    path = world.pack_url("y1", "original", 1)
    with running_host(world.repo) as host:
        warm(host, world)
        for _ in range(tried):
            with connect(host.port, window_bytes=4096) as connection:
                connection.sendall(get(path) * 3)
                assert connection.recv(100)
        # One is asking.
        while host.metrics()["http_in_flight"] > 1 or host.metrics()["http_connections"] > 1:
            pass
        # Each is counted once, as gone or as cut; what it had asked for besides was not begun.
        found = host.metrics()
        counted = [
            found.get(f'http_requests_total{{route="packs",status="{n}"}}', 0) for n in (200, 499)
        ]
        assert sum(counted) == tried + 2
        assert host.get(path).body == world.pack("y1", "original", 1)
    record("server: clients that go away", tried=tried, survived=tried)


def test_an_answer_may_take_longer_than_a_connection_may_be_idle(world: World) -> None:
    path = world.pack_url("y1", "original", 1)
    with running_host(world.repo, prelude=shorter(idle_s=1.0)) as host:
        warm(host, world)
        with connect(host.port, window_bytes=2**16) as connection:
            connection.sendall(get(path) + LAST)
            found = bytearray()
            while part := connection.recv(2**17):
                found += part
                if len(found) < 8 * 2**20:
                    select.select([], [], [], 0.01)
        assert statuses(bytes(found)) == [200, 200]
        # And one that is idle afterwards is closed.
        with connect(host.port) as connection:
            connection.sendall(get(path, b"Range: bytes=0-9"))
            assert all_of(connection).startswith(b"HTTP/1.1 206")


def test_what_is_sent_ahead_is_not_kept_without_bound(world: World, record: Record) -> None:
    """Requests that nobody has begun with wait in the client's system, not here."""
    tried = 10
    path = world.pack_url("y1", "original", 1)
    ahead = get(path, b"Range: bytes=0-0", b"Referer: " + b"a" * 6000) * 1000
    with running_host(world.repo) as host, ExitStack() as stack:
        warm(host, world)
        before = host.memory_bytes()
        for _ in range(tried):
            connection = stack.enter_context(connect(host.port, window_bytes=4096))
            connection.sendall(get(path))
            connection.settimeout(0)
            waiting = memoryview(ahead)
            while waiting and select.select([], [connection], [], 0.2)[1]:
                waiting = waiting[connection.send(waiting) :]
            assert waiting
        assert host.memory_bytes("VmHWM") - before < tried * 2**20 + 30 * 2**20
    record("server: requests ahead of a slow client", tried=tried, survived=tried)


def test_an_answer_under_way_is_finished_before_the_end(world: World) -> None:
    path, content = world.pack_url("y1", "original", 1), world.pack("y1", "original", 1)
    with running_host(world.repo) as host:
        warm(host, world)
        with connect(host.port, window_bytes=2**16) as connection:
            connection.sendall(get(path) + get(path))
            found = connection.recv(2**16)
            host.process.send_signal(signal.SIGTERM)
            found += all_of(connection)
        assert host.wait() == 0
    # And no other one is begun.
    assert found.partition(b"\r\n\r\n")[2] == content


def test_a_file_that_changed_is_named(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    for post_id in (10, 20):
        world.put("original", post_id, 1000)
    world.publish("y1")
    pack = world.pack_url("y1", "original", 0)
    with running_host(world.repo) as host:
        warm_up = asked(host, get(pack) + LAST)
        assert statuses(warm_up) == [200, 200]
        world.path("y1", "original", 20).unlink()
        found = asked(host, get(pack) + get(pack, b"Range: bytes=0-999") + LAST)
        assert statuses(found) == [410, 206, 200]
        assert b'"ids":[20]' in found
        metrics = host.metrics()
        assert metrics['http_requests_total{route="packs",status="410"}'] == 1
        assert metrics["refused_files_total"] == 1
        # Once for each, though aiohttp was asked for the first one again.
        assert (metrics["pack_index_misses_total"], metrics["pack_index_hits_total"]) == (1, 2)
        assert metrics["http_in_flight"] == 1


def test_a_client_that_stalls_is_cut_off(world: World) -> None:
    prelude = "import functools, server.commands.serve as s\n"
    prelude += "s.ServeConfig = functools.partial(s.ServeConfig, stall_s=1.0)"
    path = world.pack_url("y1", "original", 1)
    with running_host(world.repo, prelude=prelude) as host:
        warm(host, world)
        with connect(host.port, window_bytes=4096) as connection:
            connection.sendall(get(path))
            while not host.metrics()["cut_answers_total"]:
                pass
            connection.settimeout(TIMEOUT_S)
            assert len(all_of(connection)) < LARGE
        assert host.metrics()['http_requests_total{route="packs",status="200"}'] == 3
