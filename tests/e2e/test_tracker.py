"""The tracker of ``serve`` over real HTTP, and the torrents for people beside it.

Peers are told apart by their addresses on loopback, of which Linux has a whole network; answers
are read by libtorrent's own decoder.  Each test has torrents of its own, so one host serves all.
"""

from __future__ import annotations

import http.client
import re
import socket
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from contextlib import closing
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urljoin, urlsplit

import pytest

from manifests.errors import TransferError
from manifests.torrents.announce import (
    MAX_ANNOUNCEMENT_BYTES,
    MAX_NEIGHBOURS_BYTES,
    Announcement,
    Neighbours,
    State,
)
from manifests.torrents.refs import TorrentRef
from syncclient.sources.host import HttpOptions
from syncclient.sources.http import HttpSource
from tests.support.client import contents
from tests.support.host import TIMEOUT_S, Answer, Host, running_host, send_raw
from tests.support.needs import library
from tests.support.publisher import Publisher
from tests.support.stock.bare import bare_peer

ONE, TWO, THREE, PROXY = (f"127.0.0.{number}" for number in (11, 12, 13, 14))
UNKNOWN: Final = bytes(range(200, 220))
VARIANTS = tuple(f"v{number:02}" for number in range(24))
TORRENT_TYPE = "application/x-bittorrent"


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    made = Publisher(tmp_path_factory.mktemp("publisher"))
    for variant in VARIANTS:
        made.fill(range(1, 5), variant)
    made.publish("y1", "--date", "2020-01-01")
    return made


@pytest.fixture(scope="module")
def host(publisher: Publisher) -> Iterator[Host]:
    with running_host(publisher.repo, "--announce-interval", "1200") as running:
        yield running


@pytest.fixture(scope="module")
def refs(publisher: Publisher) -> dict[str, TorrentRef]:
    """The torrent of each variant."""
    (layer,) = publisher.releases()["y1"].layers
    return {variant: found.torrents[0] for variant, found in layer.torrents.items()}


@pytest.fixture(scope="module")
def unused(refs: dict[str, TorrentRef]) -> Iterator[TorrentRef]:
    return iter(refs.values())


@pytest.fixture
def torrent(unused: Iterator[TorrentRef]) -> TorrentRef:
    """One that nobody has announced."""
    return next(unused)


@pytest.fixture
def info_hash(torrent: TorrentRef) -> bytes:
    """The first name of a torrent that nobody has announced."""
    return torrent.info_hashes.announced[0]


# ------------------------------------------------------------------------- talking to a tracker


def request(  # noqa: PLR0913 (what a request has)
    host: Host,
    path: str,
    source: str = "127.0.0.1",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    method: str = "GET",
) -> Answer:
    """One request from an address of loopback; a body is posted."""
    parts = urlsplit(host.url)
    connection = http.client.HTTPConnection(
        parts.hostname or "", host.port, timeout=TIMEOUT_S, source_address=(source, 0)
    )
    with closing(connection):
        connection.request(method if body is None else "POST", path, body, dict(headers or {}))
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(status=response.status, headers=found, body=response.read())


def decoded(answer: Answer) -> dict[bytes, Any]:
    """What a tracker says; never compressed, never kept (some clients expect neither)."""
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "text/plain"
    assert answer.headers["cache-control"] == "no-store"
    assert "content-encoding" not in answer.headers
    found: dict[bytes, Any] = library("libtorrent").bdecode(answer.body)
    return found


def announce(
    host: Host,
    info_hash: bytes,
    source: str = ONE,
    headers: Mapping[str, str] | None = None,
    **said: object,
) -> dict[bytes, Any]:
    """Announce as a client that lacks something, but for what ``said`` says otherwise."""
    fields: dict[str, object] = {
        "info_hash": info_hash,
        "peer_id": b"-XX0000-\0\xff\x20+&=%\n?#/~",
        "port": 6881,
        "uploaded": 0,
        "downloaded": 0,
        "left": 1,
        "compact": 1,
        "key": "0BADCAFE",
    }
    query = urlencode(fields | said, quote_via=quote)
    return decoded(request(host, f"/announce?{query}", source, headers))


def scrape(host: Host, *hashes: bytes) -> dict[bytes, tuple[int, int, int]]:
    """Seeds, leechers and downloads of each torrent that the tracker knows."""
    query = urlencode([("info_hash", item) for item in hashes], quote_via=quote)
    files = decoded(request(host, f"/scrape?{query}"))[b"files"]
    return {
        info_hash: (found[b"complete"], found[b"incomplete"], found[b"downloaded"])
        for info_hash, found in files.items()
    }


def batch(
    host: Host,
    states: Mapping[bytes, State],
    source: str = ONE,
    port: int = 6881,
    numwant: int = 50,
) -> Neighbours:
    """A batch announce."""
    asked = Announcement(
        port=port, numwant=numwant, hashes=list(states), states=list(states.values())
    )
    answer = request(host, "/announce/batch", source, body=asked.encode())
    assert answer.status == 200, answer
    return Neighbours.decode(answer.body, len(states))


def endpoint(address: str, port: int = 6881) -> bytes:
    """As BEP 23 and BEP 7 have it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.inet_pton(family, address) + port.to_bytes(2, "big")


def endpoints(found: bytes, width: int = 6) -> set[bytes]:
    assert len(found) % width == 0
    return {found[at : at + width] for at in range(0, len(found), width)}


# ------------------------------------------------------------------------- announce and scrape


@pytest.mark.parametrize("which", [0, 1], ids=["v1", "v2"])
def test_peers_of_a_hybrid_meet_under_each_of_its_hashes(
    host: Host, torrent: TorrentRef, which: int
) -> None:
    assert torrent.info_hashes.v1 is not None
    hashes = (torrent.info_hashes.v1, torrent.info_hashes.v2[:20])
    found = announce(host, hashes[which], ONE, left=0, port=1001, event="started")
    assert found == {
        b"complete": 1,
        b"incomplete": 0,
        b"downloaded": 0,
        b"interval": 1200,
        b"min interval": 300,
        b"peers": b"",
    }
    found = announce(host, hashes[which], TWO, port=1002, event="started")
    assert found[b"peers"] == endpoint(ONE, 1001)
    assert (found[b"complete"], found[b"incomplete"]) == (1, 1)
    # The same address with another port is another peer, and a seed needs no seeds.
    announce(host, hashes[which], ONE, left=0, port=1003)
    found = announce(host, hashes[which], ONE, left=0, port=1001)
    assert found[b"peers"] == endpoint(TWO, 1002)
    assert announce(host, hashes[1 - which], THREE)[b"peers"] == b""


def test_a_scrape_counts_what_events_did(host: Host, torrent: TorrentRef) -> None:
    first, second = torrent.info_hashes.announced
    assert scrape(host, first, UNKNOWN, second) == {first: (0, 0, 0), second: (0, 0, 0)}
    announce(host, first, ONE, event="started")
    announce(host, first, TWO, event="started", left=0)
    assert scrape(host, first, second) == {first: (1, 1, 0), second: (0, 0, 0)}
    announce(host, first, ONE, event="completed", left=0)
    assert scrape(host, first) == {first: (2, 0, 1)}
    announce(host, first, TWO, event="stopped", left=0)
    assert scrape(host, first) == {first: (1, 0, 1)}
    # A part is all it wants (BEP 21): it lacks something, and it is there.
    announce(host, first, THREE, event="paused")
    assert scrape(host, first) == {first: (1, 1, 1)}
    announce(host, first, ONE, event="stopped", left=0)
    announce(host, first, THREE, event="stopped")
    assert scrape(host, first) == {first: (0, 0, 1)}
    assert scrape(host, UNKNOWN) == {}


def test_who_has_stopped_is_told_nobody_and_named_to_nobody(host: Host, info_hash: bytes) -> None:
    announce(host, info_hash, ONE)
    assert announce(host, info_hash, TWO)[b"peers"] == endpoint(ONE)
    assert announce(host, info_hash, ONE, event="stopped")[b"peers"] == b""
    assert announce(host, info_hash, TWO)[b"peers"] == b""


def test_an_answer_has_as_many_peers_as_are_wanted(host: Host, info_hash: bytes) -> None:
    everybody = {endpoint(ONE, port) for port in range(2000, 2060)}
    for port in range(2000, 2060):
        announce(host, info_hash, ONE, port=port)
    for numwant, expected in ((0, 0), (1, 1), (7, 7), (60, 60), (10**9, 60), (-1, 50)):
        found = announce(host, info_hash, TWO, numwant=numwant)[b"peers"]
        assert len(endpoints(found)) == len(found) // 6 == expected
        assert endpoints(found) <= everybody
    # Empty values, and wishes about the form of the answer, are none that matter.
    found = announce(host, info_hash, TWO, event="", no_peer_id=1, supportcrypto=1)
    assert len(found[b"peers"]) == 50 * 6


def test_a_peer_is_where_its_connection_comes_from(host: Host, info_hash: bytes) -> None:
    others = {"ip": "10.1.2.3", "ipv4": "10.1.2.3:5", "ipv6": "[2001:db8::1]:5"}
    headers = {"X-Forwarded-For": "10.1.2.3", "Forwarded": "for=10.1.2.3", "X-Real-IP": "10.1.2.3"}
    announce(host, info_hash, ONE, headers, **others)
    found = announce(host, info_hash, TWO)
    assert found[b"peers"] == endpoint(ONE)
    assert b"peers6" not in found


@pytest.fixture(scope="module")
def proxied(publisher: Publisher) -> Iterator[Host]:
    with running_host(publisher.repo, "--trusted-proxy", PROXY) as running:
        yield running


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        pytest.param("10.1.2.3", "10.1.2.3", id="v4"),
        pytest.param("10.6.6.6, 10.1.2.3", "10.1.2.3", id="what the client said comes first"),
        pytest.param("2001:db8::7", "2001:db8::7", id="v6"),
        pytest.param("::ffff:10.1.2.3", "10.1.2.3", id="mapped"),
    ],
)
def test_a_proxy_that_is_trusted_says_where_a_peer_is(
    proxied: Host, info_hash: bytes, forwarded: str, expected: str
) -> None:
    announce(proxied, info_hash, PROXY, {"X-Forwarded-For": forwarded})
    announce(proxied, info_hash, ONE, {"X-Forwarded-For": "10.9.9.9"})
    found = announce(proxied, info_hash, TWO)
    named = endpoints(found[b"peers"]) | endpoints(found.get(b"peers6", b""), 18)
    assert named == {endpoint(expected), endpoint(ONE)}


def test_a_proxy_that_adds_a_line_of_its_own_is_believed_by_that_line(
    proxied: Host, info_hash: bytes
) -> None:
    # HAProxy's "option forwardfor" leaves the lines of the client where they are.
    query = urlencode({"info_hash": info_hash, "port": 6881, "left": 1}, quote_via=quote)
    with closing(
        http.client.HTTPConnection("127.0.0.1", proxied.port, source_address=(PROXY, 0))
    ) as connection:
        connection.putrequest("GET", f"/announce?{query}")
        connection.putheader("X-Forwarded-For", "10.6.6.6")
        connection.putheader("X-Forwarded-For", "10.1.2.3")
        connection.endheaders()
        assert connection.getresponse().status == 200
    assert announce(proxied, info_hash, TWO)[b"peers"] == endpoint("10.1.2.3")


def test_a_proxy_that_says_nonsense_is_refused(proxied: Host, info_hash: bytes) -> None:
    found = announce(proxied, info_hash, PROXY, {"X-Forwarded-For": "unknown"})
    assert found == {b"failure reason": b"no address"}


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on loopback")
def test_peers_that_come_by_ipv6_are_named_in_their_own_list(
    publisher: Publisher, info_hash: bytes
) -> None:
    with running_host(publisher.repo, "--host", "::1") as host:
        announce(host, info_hash, "::1", port=1001, left=0)
        found = announce(host, info_hash, "::1", port=1002)
        assert (found[b"peers"], found[b"peers6"]) == (b"", endpoint("::1", 1001))
        near = batch(host, {info_hash: State.LEECHING}, "::1", 1003)
        assert near.peers == [b""]
        assert endpoints(near.peers6[0], 18) == {endpoint("::1", 1001), endpoint("::1", 1002)}


# ------------------------------------------------------------------------- what is refused


def test_a_torrent_of_somebody_else_is_refused(host: Host) -> None:
    found = announce(host, UNKNOWN)
    assert found == {b"failure reason": b"this tracker does not have that torrent"}


KNOWN = "info_hash=HASH&peer_id=-XX0000-000000000000"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/announce", "info_hash"),
        ("/announce?", "info_hash"),
        ("/announce?info_hash=&port=1", "20 bytes"),
        ("/announce?info_hash=%&port=1", "20 bytes"),
        (f"/announce?{KNOWN}&port=1&info_hash=HASH", "one info_hash"),
        (f"/announce?info_hash={UNKNOWN.hex()}&port=1", "20 bytes"),
        (f"/announce?{KNOWN}", "port"),
        (f"/announce?{KNOWN}&port=0", "port"),
        (f"/announce?{KNOWN}&port=65536", "port"),
        (f"/announce?{KNOWN}&port=-1", "port"),
        (f"/announce?{KNOWN}&port=%31%00", "port"),
        (f"/announce?{KNOWN}&port=1&left=-1", "left is not a number"),
        (f"/announce?{KNOWN}&port=1&left=1e3", "left is not a number"),
        (f"/announce?{KNOWN}&port=1&numwant=many", "numwant is not a number"),
        (f"/announce?{KNOWN}&port=1&event=ended", "event"),
        (f"/announce?{KNOWN}&port=1&event=%ff%00", "event"),
        ("/scrape", "info_hash"),
        ("/scrape?info_hash=x", "20 bytes"),
        ("/scrape?" + "&".join(["info_hash=%41BCDEFGHIJKLMNOPQRST"] * 101), "100"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_breaks(
    host: Host, refs: dict[str, TorrentRef], path: str, reason: str
) -> None:
    known = refs[VARIANTS[-1]].info_hashes.announced[0]
    found = decoded(request(host, path.replace("HASH", quote(known))))
    assert list(found) == [b"failure reason"]
    assert reason in found[b"failure reason"].decode()
    assert scrape(host, known)[known] == (0, 0, 0)


@pytest.mark.parametrize(
    "line",
    [
        b"/announce?info_hash=" + b"\xff" * 20 + b"&port=1",
        b"/scrape?info_hash=\xe2\x82",
        b"/announce?" + b"&x=1" * 20_000,
    ],
    ids=["no ASCII", "no UTF-8", "long"],
)
def test_what_is_no_url_is_refused(host: Host, line: bytes) -> None:
    end = b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = send_raw(host.port, b"GET " + line + end)
    # aiohttp has two parsers, and only the one in C refuses bytes that are no ASCII.
    assert answer.split(b" ", 2)[1] in {b"400", b"414"} or b"14:failure reason" in answer


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"d8:announce", 400),
        (Announcement(port=1, numwant=1, hashes=[], states=[]).encode()[:-1], 400),
        (
            Announcement(port=1, numwant=1, hashes=[UNKNOWN], states=[State.SEEDING])
            .encode()
            .replace(b"states\xc4\x01\x01", b"states\xc4\x01\x09"),
            400,
        ),
        (Announcement(port=0, numwant=1, hashes=[], states=[]).encode(), 400),
        (Announcement(port=1, numwant=1, hashes=[b"short"], states=[State.SEEDING]).encode(), 400),
        (bytes(MAX_ANNOUNCEMENT_BYTES + 1), 413),
    ],
    ids=["empty", "bencoded", "cut", "state", "port", "hash", "long"],
)
def test_a_batch_that_is_none_is_refused(host: Host, body: bytes, status: int) -> None:
    answer = request(host, "/announce/batch", body=body)
    assert answer.status == status
    assert answer.body.count(b"\n") <= 1
    assert b"Traceback" not in answer.body


async def test_our_client_posts_batches_between_documents_on_one_connection(host: Host) -> None:
    hashes = [UNKNOWN, bytes(20)]
    asked = Announcement(port=1, numwant=5, hashes=hashes, states=[State.LEECHING] * 2).encode()
    async with HttpSource(host.url, HttpOptions(connections=1)) as source:
        for _ in range(2):
            answer = await source.post("announce/batch", asked, MAX_NEIGHBOURS_BYTES)
            assert Neighbours.decode(answer, len(hashes)).interval_s == 1200
            await source.document("torrents/info-hashes.txt", 100_000)
        with pytest.raises(TransferError) as caught:
            await source.post("tuf/metadata/timestamp.json", asked, MAX_NEIGHBOURS_BYTES)
    assert caught.value.status == 405


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_batch_is_posted(host: Host, method: str) -> None:
    assert request(host, "/announce/batch", method=method).status == 405


def test_an_address_that_asks_too_much_is_told_so(host: Host, info_hash: bytes) -> None:
    greedy = "127.0.0.99"
    many = {number.to_bytes(20, "big"): State.LEECHING for number in range(20_000)}
    assert batch(host, many, greedy).peers == [b""] * len(many)
    # 50 a second come back, which 400 are not within any time that this takes.
    some = dict(list(many.items())[:400])
    asked = Announcement(port=1, numwant=1, hashes=list(some), states=list(some.values()))
    answer = request(host, "/announce/batch", greedy, body=asked.encode())
    assert answer.status == 429
    assert b"too many announces from this address" in answer.body
    # By this a client waits, and does not take the host for one without a tracker.
    assert int(answer.headers["retry-after"]) > 0
    query = "&".join(f"info_hash={number:020}" for number in range(100))
    found = decoded(request(host, f"/scrape?{query}", greedy))
    assert found == {b"failure reason": b"too many announces from this address, slow down"}
    assert batch(host, {info_hash: State.LEECHING}, TWO).peers == [b""]


def test_a_host_without_a_tracker_answers_none(publisher: Publisher, info_hash: bytes) -> None:
    with running_host(publisher.repo, "--no-tracker") as host:
        query = urlencode({"info_hash": info_hash, "port": 1})
        assert request(host, f"/announce?{query}").status == 404
        assert request(host, f"/scrape?{query}").status == 404
        assert request(host, "/announce/batch", body=b"").status in {404, 405}
        lt = library("libtorrent")
        for url in links(host, "y1").torrents:
            assert lt.load_torrent_buffer(host.get(url).body).trackers == []


# ------------------------------------------------------------------------- the batch announce


def test_a_batch_is_told_the_peers_that_announces_are(host: Host, torrent: TorrentRef) -> None:
    first, second = torrent.info_hashes.announced
    announce(host, first, ONE, left=0, port=1001)
    announce(host, second, ONE, left=0, port=1001)
    announce(host, first, TWO, port=1002)
    near = batch(
        host,
        {second: State.LEECHING, UNKNOWN: State.LEECHING, first: State.LEECHING},
        THREE,
        1003,
    )
    assert near.interval_s == 1200
    assert near.peers[:2] == [endpoint(ONE, 1001), b""]
    found = announce(host, first, "127.0.0.15")[b"peers"]
    assert endpoints(near.peers[2]) == endpoints(found) - {endpoint(THREE, 1003)}
    assert endpoints(found) == {endpoint(ONE, 1001), endpoint(TWO, 1002), endpoint(THREE, 1003)}
    assert near.peers6 == [b"", b"", b""]
    assert near.waiting == [True, False, True]
    assert near.seeds == [1, 0, 1]


def test_states_of_a_batch_are_those_of_announces(host: Host, torrent: TorrentRef) -> None:
    first, second = torrent.info_hashes.announced
    batch(host, {first: State.SEEDING, second: State.LEECHING}, ONE, 1001)
    assert scrape(host, first, second) == {first: (1, 0, 0), second: (0, 1, 0)}
    assert announce(host, first, TWO)[b"peers"] == endpoint(ONE, 1001)
    # A seed is told who lacks something; one that rests is only told that there is somebody.
    assert batch(host, {first: State.SEEDING}, ONE, 1001).peers == [endpoint(TWO)]
    rests = batch(host, {first: State.RESTING, second: State.RESTING}, THREE)
    assert (rests.peers, rests.waiting) == ([b"", b""], [True, True])
    assert scrape(host, first)[first] == (1, 1, 0)
    assert batch(host, {first: State.LEECHING}, THREE, numwant=0).peers == [b""]
    batch(host, {first: State.STOPPED, second: State.STOPPED}, ONE, 1001)
    batch(host, {first: State.STOPPED}, THREE)
    assert scrape(host, first, second) == {first: (0, 1, 0), second: (0, 0, 0)}


# ------------------------------------------------------------------------- torrents for people


class _Links(HTMLParser):
    """Where a page points to."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.all += [value or "" for name, value in attrs if name == "href"]

    @property
    def torrents(self) -> list[str]:
        return [link for link in self.all if link.endswith(".torrent")]

    @property
    def magnets(self) -> list[str]:
        return [link for link in self.all if link.startswith("magnet:")]


def links(host: Host, release: str) -> _Links:
    """What the page of a release links to; relative links as paths."""
    path = f"/torrents/{release}/"
    answer = host.get(path)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    reader = _Links()
    reader.feed(answer.body.decode())
    reader.all = [link if ":" in link else urljoin(path, link) for link in reader.all]
    return reader


def names(hashes: Any) -> tuple[bytes, bytes]:  # noqa: ANN401 (libtorrent's info_hash_t)
    """Both info-hashes of what libtorrent has read."""
    return hashes.v1.to_bytes(), hashes.v2.to_bytes()


def test_a_page_offers_every_torrent_of_a_release(host: Host, refs: dict[str, TorrentRef]) -> None:
    lt, page = library("libtorrent"), links(host, "y1")
    expected = [(ref.info_hashes.v1, ref.info_hashes.v2) for ref in refs.values()]
    trackers = [f"{host.url.rstrip('/')}/announce"]
    read = []
    for path in page.torrents:
        answer = host.get(path)
        assert answer.headers["content-type"] == TORRENT_TYPE
        assert path.endswith(answer.headers["content-disposition"].split('"')[1])
        params = lt.load_torrent_buffer(answer.body)
        assert params.trackers == trackers
        assert not params.ti.priv()
        read.append(names(params.ti.info_hashes()))
    assert sorted(read) == sorted(expected)
    magnets = [lt.parse_magnet_uri(link) for link in page.magnets]
    assert sorted(names(found.info_hashes) for found in magnets) == sorted(expected)
    assert all(found.trackers == trackers for found in magnets)
    assert "/torrents/y1/feed.xml" in page.all


def test_the_tracker_is_named_as_the_visitor_names_the_host(host: Host) -> None:
    lt, path = library("libtorrent"), links(host, "y1").torrents[0]
    for headers, expected in (
        ({"Host": "data.example"}, ["http://data.example/announce"]),
        (
            {"Host": "data.example:8443", "X-Forwarded-Proto": "https"},
            ["https://data.example:8443/announce"],
        ),
        ({"Host": "[2001:db8::1]:80"}, ["http://[2001:db8::1]:80/announce"]),
        ({"Host": "a/b?c"}, []),
    ):
        found = lt.load_torrent_buffer(host.get(path, headers).body)
        assert found.trackers == expected


def test_a_feed_lists_the_same_torrents(host: Host, refs: dict[str, TorrentRef]) -> None:
    answer = host.get("/torrents/y1/feed.xml")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/rss+xml")
    root = ET.fromstring(answer.body)  # noqa: S314 (our own)
    assert (root.tag, root.get("version")) == ("rss", "2.0")
    (channel,) = root
    told = {item.tag: item.text for item in channel if item.tag != "item"}
    assert told.keys() >= {"title", "link", "description"}
    assert all(told.values())
    lt, found = library("libtorrent"), {}
    for item in channel.iter("item"):
        fields = {part.tag: part.text or "" for part in item}
        enclosure = item.find("enclosure")
        assert enclosure is not None
        url = enclosure.get("url", "")
        assert url == fields["link"]
        assert url.startswith(host.url)
        assert enclosure.get("type") == TORRENT_TYPE
        assert parsedate_to_datetime(fields["pubDate"]).isoformat() == "2020-01-01T00:00:00+00:00"
        data = host.get(urlsplit(url).path).body
        found[fields["guid"]] = lt.load_torrent_buffer(data).ti.info_hashes().v2.to_bytes()
        assert int(enclosure.get("length", "0")) == len(data)
    assert found == {ref.info_hashes.v2.hex(): ref.info_hashes.v2 for ref in refs.values()}


def test_all_hashes_are_listed_for_other_trackers(host: Host, refs: dict[str, TorrentRef]) -> None:
    answer = host.get("/torrents/info-hashes.txt")
    assert answer.headers["content-type"].startswith("text/plain")
    text = answer.body.decode("ascii")
    assert re.fullmatch(r"([0-9a-f]{40}\n)+", text)
    expected = {item.hex() for ref in refs.values() for item in ref.info_hashes.announced}
    assert sorted(text.split()) == sorted(expected)


@pytest.mark.parametrize(
    "path",
    ["", "y9/", "y9/feed.xml", "y1/none.torrent", "y1/../../root.torrent", "y1/%2e%2e/x.torrent"],
)
def test_there_is_nothing_else(host: Host, path: str) -> None:
    assert host.get(f"/torrents/{path}").status == 404


def test_private_torrents_know_their_tracker_and_old_ones_are_still_tracked(
    tmp_path: Path,
) -> None:
    lt, publisher = library("libtorrent"), Publisher(tmp_path)
    publisher.fill(range(1, 5))
    publisher.publish("y1", "--date", "2020-01-01", "--private")
    publisher.fill(range(5, 9))
    own = ("--tracker", "https://t.example/announce")
    publisher.publish("y2", "--date", "2021-01-01", "--private", "--v2-only", *own)
    with running_host(publisher.repo) as host:
        old, new = (
            lt.load_torrent_buffer(host.get(path).body) for path in links(host, "y2").torrents
        )
        assert old.ti.priv()
        assert old.trackers == [f"{host.url.rstrip('/')}/announce"]
        assert new.ti.priv()
        # One that was published with trackers is served as it was published.
        assert new.trackers == ["https://t.example/announce"]
        assert not new.ti.info_hashes().has_v1()
        for info_hash in (*names(old.ti.info_hashes()), new.ti.info_hashes().v2.to_bytes()):
            assert announce(host, info_hash[:20])[b"incomplete"] == 1
        listed = host.get("/torrents/info-hashes.txt").body.split()
        assert len(listed) == 3


def test_the_tracker_follows_new_releases(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    publisher.fill(range(1, 5))
    publisher.publish("y1", "--date", "2020-01-01")
    with running_host(publisher.repo) as host:
        before = host.get("/torrents/info-hashes.txt").body.split()
        publisher.fill(range(5, 9))
        publisher.publish("y2", "--date", "2021-01-01")
        after = before
        deadline_s = time.monotonic() + TIMEOUT_S
        while len(after) == len(before):
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
            after = host.get("/torrents/info-hashes.txt").body.split()
        assert len(after) == len(before) + 2
        for item in after:
            assert b"peers" in announce(host, bytes.fromhex(item.decode()))


# ------------------------------------------------------------------------- with real peers


def test_two_peers_find_each_other_through_nothing_but_the_tracker(
    host: Host, publisher: Publisher, refs: dict[str, TorrentRef], tmp_path: Path
) -> None:
    # Not those that other tests announced addresses of, at which nobody is.
    variant = VARIANTS[-2]
    (path,) = (link for link in links(host, "y1").torrents if f"-{variant}-" in link)
    served = host.get(path).body
    hashes = refs[variant].info_hashes.announced
    with bare_peer() as seed, bare_peer() as other:
        seed.seed(served, publisher.tree)
        # Nobody is named to it but itself, whom it does not talk to.
        other.download([served], tmp_path, other.address)
        counts = scrape(host, *hashes)
    wanted = {
        name: data
        for name, data in publisher.tree_files().items()
        if name.startswith(f"{variant}/")
    }
    assert contents(tmp_path) == wanted
    assert sum(seeds + leechers for seeds, leechers, _ in counts.values()) >= 2
