"""A host under requests that nobody means well: each gets its status, and nothing is written."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from manifests.torrents.announce import MAX_ANNOUNCEMENT_BYTES, Announcement, State
from tests.support.abuse import all_of, connect, exchange, is_served, send, state_of, statuses
from tests.support.faultreport import Record
from tests.support.host import Host, ask, running_host
from tests.support.searchable import make_searchable, search_url
from tests.support.world import World

MIB = 2**20
SECRET = b"a secret beside the repository"
POST = b"POST /announce/batch HTTP/1.1\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
END = b"Host: x\r\nConnection: close\r\n\r\n"
PACK = "/packs/y0/original/0001"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = make_searchable(tmp_path_factory.mktemp("requests"))
    (made.repo.parent / "secret").write_bytes(SECRET)
    before = state_of(made.repo.parent)
    yield made
    # No request of this file has written anything.
    assert state_of(made.repo.parent) == before


@pytest.fixture(scope="module")
def host(world: World) -> Iterator[Host]:
    with running_host(world.repo) as found:
        yield found


@pytest.fixture(autouse=True)
def others(world: World, host: Host) -> Iterator[None]:
    """Whatever was asked, somebody else is served, and memory is bounded."""
    path, content = world.url("y0", "small", 1), world.files["y0", "small", 1]
    assert is_served(host, path, content)
    before = host.memory_bytes()
    yield
    assert is_served(host, path, content)
    assert host.memory_bytes() - before < 60 * MIB


# --------------------------------------------------------------------------- what is no request

NO_REQUESTS = {
    "HTTP/0.9": (b"GET /\r\n\r\n", {200, 400}),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400}),
    "HTTP/9.9": (b"GET / HTTP/9.9\r\n" + END, {400}),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), {400}),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", {400}),
    "RDP": (b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\1\0\x08\0\3\0\0\0", {400}),
    "zeros": (bytes(1000), {400}),
    "random": (bytes(range(1, 256)) * 40, {400}),
    "no host": (b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", {200, 400}),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: y\r\n" + END, {400}),
    "header without colon": (b"GET / HTTP/1.1\r\nnonsense\r\n" + END, {400}),
    "header with space": (b"GET / HTTP/1.1\r\nX : 1\r\n" + END, {400}),
    "header with NUL": (b"GET / HTTP/1.1\r\nX: \x00\r\n" + END, {400}),
    "header with CR": (b"GET / HTTP/1.1\r\nX: a\rb\r\n" + END, {400}),
    "method": (b"G\xe9T / HTTP/1.1\r\n" + END, {400}),
    "unknown method": (b"BREW / HTTP/1.1\r\n" + END, {400, 405}),
    "long method": (b"A" * 100_000 + b" / HTTP/1.1\r\n" + END, {400}),
    "long line": (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n" + END, {414}),
    "very long line": (b"GET /" + b"a/" * MIB + b" HTTP/1.1\r\n" + END, {414}),
    "long query": (b"GET /api/search?q=" + b"a" * MIB + b" HTTP/1.1\r\n" + END, {414}),
    "large header": (b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n" + END, {431}),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 200 + END, {431}),
    # Where two servers would not agree on where a request ends.
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n" + END, {400}),
    "length and chunks": (POST + b"Content-Length: 5\r\n" + CHUNKED + END + b"0\r\n\r\n", {400}),
    "chunks twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n" + END, {400}),
    "chunks not last": (POST + b"Transfer-Encoding: chunked, gzip\r\n" + END, {400}),
    "negative length": (POST + b"Content-Length: -1\r\n" + END, {400}),
    "signed length": (POST + b"Content-Length: +5\r\n" + END + b"aaaaa", {400}),
    "length of words": (POST + b"Content-Length: five\r\n" + END, {400}),
    "huge length": (POST + b"Content-Length: 99999999999999999999\r\n" + END, {400, 413}),
    "huge chunk": (POST + CHUNKED + END + b"fffffffffffffffff\r\n", {400}),
    "chunk of words": (POST + CHUNKED + END + b"zz\r\n", {400}),
    "absolute": (b"GET http://elsewhere/etc/passwd HTTP/1.1\r\n" + END, {404}),
    "broken absolute": (b"GET http://[::1 HTTP/1.1\r\n" + END, {400}),
    "connect": (b"CONNECT elsewhere:443 HTTP/1.1\r\n" + END, {400, 404, 405}),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\n" + END, {400, 404, 405}),
    "websocket": (b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n" + END, {200, 400}),
    "h2c": (b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n" + END, {200}),
    "expectation": (b"GET / HTTP/1.1\r\nExpect: 200-maybe\r\n" + END, {417}),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_REQUESTS)
def test_what_is_no_request_gets_its_status(host: Host, record: Record, name: str) -> None:
    data, allowed = NO_REQUESTS[name]
    found = statuses(exchange(host, data))
    # A connection that ended before all was sent may be gone before the answer was read.
    assert (found and found[0] in allowed) or (not found and len(data) > 2**16), found
    assert len(found) <= 1
    record("server: what is no request", survived=1)


def test_what_is_no_request_is_counted(host: Host) -> None:
    exchange(host, b"\x16\x03\x01\r\n\r\n")
    name = 'http_requests_total{route="malformed",status="400"}'
    before = host.metrics()[name]
    found = exchange(host, b"\x16\x03\x01\r\n\r\n")
    assert host.metrics()[name] == before + 1
    assert b"aiohttp" not in found.partition(b"\r\n\r\n")[0]


def test_a_request_cannot_be_smuggled_in_a_body(host: Host) -> None:
    inner = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    length = b"Content-Length: %d\r\n" % len(inner)
    found = exchange(host, POST + length + END + inner)
    assert statuses(found) == [400]
    found = exchange(host, b"GET /healthz HTTP/1.1\r\n" + length + END + inner)
    assert statuses(found) == [200]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "MKCOL", "PROPFIND", "LOCK"])
def test_nothing_can_be_written(world: World, host: Host, record: Record, method: str) -> None:
    paths = [world.url("y0", "small", 1), "/", "/api/search", "/announce", "/files/new", "/new"]
    for path in paths:
        data = f"{method} {path} HTTP/1.1\r\nContent-Length: 5\r\n".encode() + END + b"bytes"
        assert statuses(exchange(host, data))[0] in {404, 405}
    record("server: methods that write", tried=len(paths), survived=len(paths))


# --------------------------------------------------------------------------- bodies


def test_a_body_that_is_expected_to_be_refused_is_not_waited_for(host: Host) -> None:
    head = POST + b"Content-Length: %d\r\nExpect: 100-continue\r\n"
    with connect(host.port) as connection:
        connection.sendall(head % (100 * MIB) + END)
        found = b""
        while b"HTTP/1.1 413" not in found:
            found += connection.recv(4096)


def test_a_body_without_end_is_refused(host: Host, record: Record) -> None:
    chunk = b"10000\r\n" + bytes(2**16) + b"\r\n"
    with connect(host.port) as connection:
        connection.sendall(POST + CHUNKED + END)
        sent = 0
        while sent < 64 * MIB and send(connection, chunk):
            sent += len(chunk)
        assert statuses(all_of(connection)) in ([413], [])
    record("server: bodies without end", survived=1)


def test_a_compressed_body_is_not_unpacked(host: Host) -> None:
    data = POST + b"Content-Encoding: gzip\r\nContent-Length: 20\r\n"
    assert statuses(exchange(host, data + END + bytes(20))) == [400]


def test_a_body_a_byte_at_a_time_has_an_end(world: World, record: Record) -> None:
    tried = 20
    prelude = "import server.tracking.handlers as h; h.BODY_S = 1.0"
    with running_host(world.repo, prelude=prelude) as host:
        head = POST + b"Content-Length: 100000\r\n" + END
        slow = [connect(host.port, f"127.0.8.{number + 1}") for number in range(tried)]
        for connection in slow:
            connection.sendall(head)
            connection.settimeout(0.05)
        waiting = set(slow)
        while waiting:
            for connection in tuple(waiting):
                send(connection, b"a")
                try:
                    assert statuses(connection.recv(4096)) == [408]
                except TimeoutError:
                    continue
                waiting.discard(connection)
                connection.close()
        assert host.refusals("body_time") == tried
    record("server: bodies a byte at a time", tried=tried, survived=tried)


def test_an_address_has_few_batches_at_once(host: Host, record: Record) -> None:
    source, head = "127.0.0.77", POST + b"Content-Length: 9\r\n"
    held: list[socket.socket] = []
    while not host.refusals("batches"):
        held.append(connect(host.port, source))
        held[-1].sendall(head + END)
        assert len(held) < 50
    assert statuses(all_of(held[-1])) == [429]
    asked = Announcement(port=1, numwant=1, hashes=[bytes(20)], states=[State.SEEDING]).encode()
    length = b"Content-Length: %d\r\n" % len(asked)
    batch = POST + length + END + asked
    assert statuses(exchange(host, batch, "127.0.0.78")) == [200]
    for connection in held:
        connection.close()
    record("server: batch announces of one address", survived=1)


# --------------------------------------------------------------------------- ranges

HUGE = 2**64
RANGES = {
    "thousands": "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 6000, 2)),
    "513 parts": "bytes=" + ",".join(f"{n * 9}-{n * 9}" for n in range(513)),
    "a byte a thousand times": "bytes=" + ",".join(["0-0"] * 1000),
    "a byte thrice": "bytes=0-0,0-0,0-0",
    "overlapping": "bytes=" + ",".join(["0-"] * 3),
    "all suffixes": "bytes=" + ",".join(f"-{n}" for n in range(1, 500)),
    "reversed": "bytes=9-0",
    "nothing at the end": "bytes=-0",
    "behind the end": f"bytes={HUGE}-",
    "huge": f"bytes={HUGE}-{HUGE + 1}",
    "hundred digits": "bytes=" + "9" * 100 + "-",
    "negative": "bytes=--1",
    "words": "bytes=first-last",
    "commas": "bytes=" + "," * 1000,
    "empty": "bytes=",
    "spaces": "bytes=0 - 5",
    "signs": "bytes=+0-+5",
    "underscores": "bytes=1_0-2_0",
}


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("path", [PACK, "/files/y0/original/0001/1.csv"])
def test_absurd_ranges_are_refused(host: Host, record: Record, path: str, name: str) -> None:
    found = ask(host.port, path, {"Range": RANGES[name]})
    assert found.status in {416, 431}
    assert len(found.body) < 1000
    record("server: absurd ranges", survived=1)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        (f"bytes=0-{HUGE}", 500_000),
        (f"bytes=-{HUGE}", 500_000),
        ("bytes=5-,0-4", None),
        ("bytes=499999-499999,0-0", None),
        ("bytes=0-0, ,0-0", None),
    ],
)
def test_odd_ranges_that_mean_something_are_answered(
    host: Host, text: str, size_bytes: int | None
) -> None:
    found = ask(host.port, "/files/y0/original/0001/1.csv", {"Range": text})
    assert found.status == 206
    assert len(found.body) < 500_000 + 4000
    assert size_bytes is None or len(found.body) == size_bytes


def test_other_units_and_broken_conditions_change_nothing(host: Host) -> None:
    path = "/files/y0/small/0001/1.csv"
    for headers in (
        {"Range": "lines=0-5"},
        {"If-None-Match": '"' + "a" * 9000 + '"'},
        {"If-None-Match": '"' * 999},
        {"If-Modified-Since": "Mon, 99 Foo 99999999999999 99:99:99 GMT"},
        {"If-Range": "\x01", "Range": "bytes=0-0"},
    ):
        found = ask(host.port, path, headers)
        assert (found.status, len(found.body)) in {(200, 100), (400, len(found.body))}


# --------------------------------------------------------------------------- paths


def _tricks(world: World) -> list[str]:
    outside = [
        "secret",
        "repo-keys/root.json",
        "tree/original/0001/1.csv",
        "repo/.publish/settings.json",
    ]
    steps = ["../", "..%2f", "%2e%2e/", "%2e%2e%2f", "%252e%252e%252f", "..\\", "..%5c"]
    steps += ["..;/", "..%00/", "..%c0%af", "%u002e%u002e/", ".../", "./../", "//../", "%2f..%2f"]
    starts = ["/", "//", "/files/", "/files/y0/original/0001/", "/tuf/metadata/", "/objects/ab/",
              "/packs/y0/", "/torrents/y0/", "/entries/y0/original/"]  # fmt: skip
    tricks = [
        start + step * depth + target
        for start in starts
        for step in steps
        for depth in (1, 5)
        for target in outside
    ]
    absolute = [f"{start}{world.repo.parent}/secret" for start in starts]
    return [*tricks, *absolute, *(f"{start}%2f{world.repo.parent}/secret" for start in starts)]


def test_no_path_leads_out(world: World, host: Host, record: Record) -> None:
    tricks = _tricks(world)
    requests = [f"GET {path} HTTP/1.1\r\n".encode() + END for path in tricks]
    for path, request in zip(tricks, requests, strict=True):
        found = exchange(host, request)
        assert statuses(found)[0] in {400, 404}, path
        assert SECRET not in found
        assert b'"buckets"' not in found
    record("server: path tricks", tried=len(tricks), survived=len(tricks))


def test_no_private_file_has_a_path(world: World, host: Host, record: Record) -> None:
    private = [path for path in world.repo.rglob("*") if path.is_file()]
    private = [path for path in private if path.relative_to(world.repo).parts[0].startswith(".")]
    private += [path for path in (world.repo.parent / "repo-keys").rglob("*") if path.is_file()]
    assert len(private) > 5
    for path in private:
        for start in (world.repo, world.repo.parent):
            if path.is_relative_to(start):
                assert host.get("/" + quote(str(path.relative_to(start)))).status == 404
    record("server: private files", tried=len(private), survived=len(private))


def test_links_that_lead_out_are_not_followed(tmp_path: Path, record: Record) -> None:
    """A host may have been given a mirror by somebody; a link in it shows nothing of his disk."""
    world = make_searchable(tmp_path)
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET * 10)
    loose = world.path("y0", "small", 1)
    places = {
        world.url("y0", "small", 1): loose,
        world.objects()[0]: world.repo / world.objects()[0][1:],
        "/tuf/metadata/9.targets.json": world.repo / "tuf/metadata/9.targets.json",
        "/tuf/targets/x": world.repo / "tuf/targets/x",
    }
    for path in places.values():
        path.unlink(missing_ok=True)
        path.symlink_to(secret)
    with running_host(world.repo) as host:
        for url in places:
            found = host.get(url)
            assert found.status in {404, 410}
            assert SECRET not in found.body
        assert SECRET not in host.get(world.pack_url("y0", "small", 1)).body
        loose.unlink()
        os.mkfifo(loose)
        assert host.get(world.url("y0", "small", 1)).status == 410
    record("server: links that lead out", tried=len(places), survived=len(places))


# --------------------------------------------------------------------------- searches, announces

QUERIES = {
    "nested": "(" * 1300 + "a" + ")" * 1300,
    "unclosed": "(" * 4000,
    "negated": "-" * 4000,
    "either": " ".join(["~a"] * 1300),
    "wildcards": " ".join(["*"] * 1900),
    "one wildcard": "*" * 4000,
    "wildcard alternation": "*a" * 2000,
    "random": "random:99999999999999999999",
    "order": "order:" + "a" * 3900,
    "orders": " ".join(f"order:{name}" for name in ("score", "id", "md5", "random") * 90),
    "numbers": "id:" + ",".join(["1..2"] * 700),
    "digits": "score:>" + "9" * 3900,
    "ages": "age:<" + "9" * 3900 + "y",
    "controls": "\x00\x01\x02\x7f\ud7ff",
    "long tag": "a" * 3999,
    "many tags": " ".join(f"t{n}" for n in range(800)),
}


@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.parametrize("page", ["/api/search", "/search"])
def test_queries_that_ask_too_much_are_answered_or_refused(
    host: Host, record: Record, page: str, name: str
) -> None:
    path = search_url(q=QUERIES[name]).replace("/api/search", page)
    found = ask(host.port, path)
    assert found.status in {200, 400, 414, 422, 431}
    assert len(found.body) < 64 * 2**10
    record("server: queries that ask too much", survived=1)


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({"q": "", "limit": 10**9}, 422),
        ({"q": "", "limit": -1}, 400),
        ({"q": "", "after": "9" * 50}, 400),
        ({"q": "", "release": "../../etc"}, 404),
        ({"q": "", "tz": "../../etc/passwd"}, 400),
        ({"q": "", "tz": "a" * 65}, 414),
        ({"q": "", "seed": "a" * 257}, 414),
        ({"q": "a" * 4001}, 414),
        ({"q": "", "x" * 100: 1}, 400),
    ],
)
def test_parameters_have_bounds(host: Host, parameters: dict[str, object], status: int) -> None:
    assert ask(host.port, search_url(**parameters)).status == status


ANNOUNCES = {
    "no hash": "/announce",
    "half a hash": "/announce?info_hash=abc&port=1",
    "hashes": "/announce?" + "&".join(["info_hash=" + "%00" * 20] * 90) + "&port=1",
    "port": "/announce?info_hash=" + "%00" * 20 + "&port=" + "9" * 900,
    "numwant": "/announce?info_hash=" + "%00" * 20 + "&port=1&numwant=" + "9" * 19,
    "event": "/announce?info_hash=" + "%00" * 20 + "&port=1&event=" + "a" * 5000,
    "parameters": "/announce?" + "&".join(f"a{n}=1" for n in range(1000)),
    "scrape all": "/scrape",
    "scrapes": "/scrape?" + "&".join(["info_hash=" + "a" * 20] * 200),
}


@pytest.mark.parametrize("name", ANNOUNCES)
def test_announces_that_are_none_are_refused(host: Host, record: Record, name: str) -> None:
    found = ask(host.port, ANNOUNCES[name])
    assert found.status == 200
    assert found.body.startswith(b"d14:failure reason")
    record("server: announces that are none", survived=1)


def test_a_batch_has_a_size(host: Host) -> None:
    body = bytes(MAX_ANNOUNCEMENT_BYTES + 1)
    length = b"Content-Length: %d\r\n" % len(body)
    data = POST + length + END
    assert statuses(exchange(host, data)) == [413]


def test_an_address_that_announces_too_much_is_told_so(host: Host, record: Record) -> None:
    hashes = [n.to_bytes(20, "big") for n in range(15_000)]
    asked = Announcement(
        port=1, numwant=1, hashes=hashes, states=[State.LEECHING] * len(hashes)
    ).encode()
    data = POST + b"Content-Length: %d\r\n" % len(asked) + END + asked
    source = "127.0.0.79"
    before = host.refusals("announces")
    found = [exchange(host, data, source) for _ in range(2)]
    assert [statuses(answer)[0] for answer in found] == [200, 429]
    assert b"\r\nRetry-After: 60\r\n" in found[1]
    assert host.refusals("announces") == before + 1
    record("server: announces of one address", survived=1)
