"""``serve`` as clients see it: what lies under each URL, and what requests get."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from http.client import HTTPConnection, parse_headers
from pathlib import Path

import blake3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manifests.errors import ExitCode
from manifests.units import format_count
from server.cli import main
from server.hosting.ranges import MAX_RANGE_HEADER_BYTES
from tests.support.byteranges import parts_of
from tests.support.host import TIMEOUT_S, Answer, Host, ask, running_host, send_raw
from tests.support.world import World, make_world

IMMUTABLE = "public, max-age=31536000, immutable"
PAST = "Sat, 01 Jan 2022 00:00:00 GMT"
# A bucket of small files, one with a file that is sent by sendfile, and one with empty files.
SIZES = {
    **{post_id: 700 + post_id for post_id in range(10, 400, 10)},
    1: 500,
    11: 3 * 2**20,
    21: 2**20,
    31: 1,
    2: 0,
    12: 7,
    22: 0,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = make_world(tmp_path_factory.mktemp("serve"))
    for post_id, size_bytes in SIZES.items():
        made.put("original", post_id, size_bytes)
    (made.tree / "README.txt").write_text("an asset")
    made.publish("y1", "--date", "2022-01-01")
    return made


@pytest.fixture(scope="module")
def host(world: World) -> Iterator[Host]:
    with running_host(world.repo) as found:
        yield found


def places(world: World) -> dict[str, bytes]:
    """One URL of each kind that ranges are served of, and what lies there."""
    found = {
        world.pack_url("y1", "original", n): world.pack("y1", "original", n) for n in (0, 1, 2)
    }
    found |= {world.url("y1", "original", n): world.files["y1", "original", n] for n in (10, 11)}
    listed = [path for path in (*world.objects(), *world.metadata()) if "timestamp" not in path]
    return found | {path: (world.repo / path[1:]).read_bytes() for path in listed}


def test_everything_that_was_published_is_served(world: World, host: Host) -> None:
    for (layer, variant, post_id), data in world.files.items():
        assert host.get(world.url(layer, variant, post_id)).body == data
    for path, data in places(world).items():
        found = host.get(path)
        assert (found.status, found.body) == (200, data), path
        assert found.headers["content-length"] == str(len(data))
        assert found.headers["accept-ranges"] == "bytes"
        assert "content-encoding" not in found.headers


def test_the_timestamp_is_asked_for_again_each_time(world: World, host: Host) -> None:
    path = "/tuf/metadata/timestamp.json"
    found = host.get(path)
    assert found.body == (world.repo / path[1:]).read_bytes()
    assert found.headers["cache-control"] == "no-cache"
    assert found.headers["content-type"] == "application/json"
    assert "last-modified" not in found.headers
    assert host.get(path, {"If-None-Match": found.headers["etag"]}).status == 304


def test_what_cannot_change_is_cached_for_ever(world: World, host: Host) -> None:
    for path in places(world):
        found = host.get(path).headers
        if path.startswith("/tuf/metadata/"):
            assert found["cache-control"] == "public, max-age=60"
        else:
            assert found["cache-control"] == IMMUTABLE
        assert "last-modified" in found


def test_a_file_has_its_digest_and_the_date_of_its_layer(world: World, host: Host) -> None:
    found = host.get(world.url("y1", "original", 31)).headers
    digest = blake3.blake3(world.files["y1", "original", 31]).hexdigest()
    assert found["etag"] == f'"{digest}"'
    assert found["last-modified"] == PAST
    assert found["content-type"] == "text/csv"
    assert found["x-content-type-options"] == "nosniff"


def test_head_has_the_headers_of_get_and_no_body(world: World, host: Host) -> None:
    for path in (*places(world), "/", "/healthz", "/nowhere", "/packs/y1/original/9999"):
        get, head = host.get(path), ask(host.port, path, method="HEAD")
        assert head.body == b""
        assert head.status == get.status
        assert without_date(head) == without_date(get)


def without_date(found: Answer) -> dict[str, str]:
    return {name: value for name, value in found.headers.items() if name != "date"}


# --------------------------------------------------------------------------- ranges

specs = st.one_of(
    st.tuples(st.integers(0, 2**22), st.integers(0, 2**20)).map(lambda p: f"{p[0]}-{sum(p)}"),
    st.integers(0, 2**22).map(lambda first: f"{first}-"),
    st.integers(1, 2**22).map(lambda count: f"-{count}"),
    st.integers(0, 40_000).map(lambda first: f"{first}-{first + 3}"),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_ranges_hold_what_they_name(world: World, host: Host, data: st.DataObject) -> None:
    path, content = data.draw(st.sampled_from(sorted(places(world).items())))
    wanted = data.draw(st.lists(specs, min_size=1, max_size=5))
    found = host.get(path, {"Range": "bytes=" + ",".join(wanted)})
    if found.status == 416:
        assert found.headers["content-range"] == f"bytes */{len(content)}"
        return
    assert found.status == 206
    assert int(found.headers["content-length"]) == len(found.body)
    for first, size, part in parts_of(found.headers, found.body):
        assert size == len(content)
        assert part == content[first : first + len(part)]


def test_a_file_is_found_in_its_pack(world: World, host: Host) -> None:
    ids = (11, 31, 1)
    offsets = [(world.offset("y1", "original", n), SIZES[n]) for n in ids]
    header = "bytes=" + ",".join(f"{start}-{start + size - 1}" for start, size in offsets)
    found = host.get(world.pack_url("y1", "original", 1), {"Range": header})
    assert [part for _, _, part in parts_of(found.headers, found.body)] == [
        world.files["y1", "original", n] for n in ids
    ]


def test_hundreds_of_ranges_come_in_one_answer(world: World, host: Host) -> None:
    for path in (world.pack_url("y1", "original", 0), world.url("y1", "original", 11)):
        header = "bytes=" + ",".join(f"{start * 9}-{start * 9 + 4}" for start in range(512))
        found = host.get(path, {"Range": header})
        content = places(world)[path]
        parts = parts_of(found.headers, found.body)
        assert [part for *_, part in parts] == [content[n * 9 : n * 9 + 5] for n in range(512)]


def test_if_range_gives_the_whole_once_it_is_another(world: World, host: Host) -> None:
    for path, content in places(world).items():
        etag = host.get(path).headers["etag"]
        same = host.get(path, {"Range": "bytes=0-0", "If-Range": etag})
        assert (same.status, same.body) == (206, content[:1])
        other = host.get(path, {"Range": "bytes=0-0", "If-Range": '"other"'})
        assert (other.status, other.body) == (200, content)


def test_a_range_header_has_a_limit(world: World, host: Host) -> None:
    path = world.pack_url("y1", "original", 1)
    long = "bytes=" + "," * (MAX_RANGE_HEADER_BYTES - 100) + "0-0"
    assert host.get(path, {"Range": long}).status == 206
    assert host.get(path, {"Range": long + "," * 200}).status == 431


def test_requests_sent_ahead_are_answered_in_order(world: World, host: Host) -> None:
    contents = places(world)
    paths = [path for path in contents if path.startswith(("/packs/", "/files/"))] * 3
    requests = "".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n" for path in paths)
    with socket.create_connection(("127.0.0.1", host.port), timeout=TIMEOUT_S) as connection:
        connection.sendall(requests.encode())
        with connection.makefile("rb") as stream:
            for path in paths:
                assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
                head = parse_headers(stream)
                assert stream.read(int(head["Content-Length"])) == contents[path]


def test_an_old_client_gets_its_answer_and_the_end(world: World, host: Host) -> None:
    for path, content in places(world).items():
        found = send_raw(host.port, f"GET {path} HTTP/1.0\r\n\r\n".encode())
        assert found.partition(b"\r\n\r\n")[2] == content


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/tuf/metadata/timestamp.json", "/packs/y1/original/0000"])
def test_there_is_nothing_but_get_and_head(host: Host, method: str, path: str) -> None:
    found = ask(host.port, path, method=method)
    assert found.status == 405
    assert found.headers["allow"] == "GET,HEAD"


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/tuf",
        "/tuf/metadata/",
        "/tuf/metadata/99.root.json",
        "/tuf/metadata/timestamp.json/",
        "/objects/ab/" + "ab" * 32,
        "/objects/ab/" + "cd" * 32,
        "/files/y1/original/0000/11.csv",
        "/files/y1/original/0001/11.dat",
        "/files/y1/original/0001/011.csv",
        "/files/y1/original/0001/99991.csv",
        "/files/y1/original/1/11.csv",
        "/files/y1/512px/0001/11.csv",
        "/files/y0/original/0001/11.csv",
        "/packs/y1/original/0003",
        "/packs/y1/original/0010",
        "/packs/y1/original/00001",
        "/packs/y1/original",
        "/packs/y0/original/0001",
    ],
)
def test_what_is_not_there_is_not_found(host: Host, path: str) -> None:
    found = host.get(path)
    assert found.status == 404
    assert found.headers["cache-control"] == "no-cache"


TRICKS = [
    prefix + trick
    for prefix in (
        "/",
        "/tuf/metadata/",
        "/tuf/targets/",
        "/files/y1/original/0001/",
        "/packs/y1/",
    )
    for trick in (
        ".publish/settings.json",
        "../.publish/settings.json",
        "../../.publish/settings.json",
        "%2e%2e/%2e%2e/.publish/settings.json",
        "..%2f..%2f.publish%2fsettings.json",
        "%252e%252e%252f.publish",
        "..\\..\\.publish\\settings.json",
        "..%5c..%5c.publish%5csettings.json",
        "/.publish/settings.json",
        "//etc/passwd",
        "%2fetc%2fpasswd",
        "..;/.publish/settings.json",
        "timestamp.json%00.png",
        "timestamp.json%0a",
        ".",
        "..",
        "%ff%fe",
        "a" * 5000,
    )
]


@pytest.mark.parametrize("target", TRICKS)
def test_no_path_leads_out(host: Host, target: str) -> None:
    request = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    found = send_raw(host.port, request.encode())
    assert found.split(b" ", 2)[1] in {b"400", b"404"}
    assert b'"buckets"' not in found


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET \x00 HTTP/1.1",
        b"GET /tuf/metadata/timestamp.json\x00 HTTP/1.1",
        b"GET  HTTP/1.1",
        b"GET / HTTP/9.9",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET http://[::1 HTTP/1.1",
    ],
)
def test_what_is_no_http_is_refused(host: Host, request_line: bytes) -> None:
    found = send_raw(host.port, request_line + b"\r\nHost: x\r\n\r\n")
    assert found.split(b" ", 2)[1:2] == [b"400"]
    assert host.get("/healthz").status == 200


def test_keys_and_records_are_not_served(world: World, host: Host) -> None:
    private = [path for path in (world.repo / ".publish").rglob("*") if path.is_file()]
    private += (world.repo.with_name("repo-keys")).rglob("*")
    assert len(private) > 3
    for path in private:
        relative = path.relative_to(world.repo.parent)
        assert host.get(f"/{relative}").status == 404
        assert host.get(f"/{relative.relative_to(relative.parts[0])}").status == 404


# --------------------------------------------------------------------------- people and monitors


def test_the_front_page_says_what_there_is_and_how_to_get_it(host: Host) -> None:
    found = host.get("/")
    page = found.body.decode()
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    assert "<script" not in page
    assert f"<b>bucketsync clone</b> {host.url} tiny \\\n    --trust-root " in page
    assert format_count(len(SIZES)) in page
    assert "2022-01-01" in page
    hostile = host.get("/", {"Host": '"><script>', "X-Forwarded-Proto": "https"}).body.decode()
    assert "https://&quot;&gt;&lt;script&gt;" in hostile
    assert "<script" not in hostile


def test_health_names_the_newest_release(host: Host) -> None:
    found = json.loads(host.get("/healthz").body)
    assert (found["status"], found["releases"], found["newest"]) == ("ok", 1, "y1")


def test_metrics_count_requests_by_kind(world: World, host: Host) -> None:
    host.get(world.pack_url("y1", "original", 0))
    host.get("/nowhere")
    lines = host.get("/metrics").body.decode().splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(samples['bucketsync_http_requests_total{route="packs",status="200"}']) >= 1
    assert float(samples['bucketsync_http_requests_total{route="none",status="404"}']) >= 1
    assert float(samples["bucketsync_sent_bytes_total"]) >= len(world.pack("y1", "original", 0))
    assert samples["bucketsync_releases"] == "1"
    assert samples["bucketsync_http_in_flight"] == "1"


# --------------------------------------------------------------------------- life


def test_a_new_release_is_served_without_a_restart(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    with running_host(world.repo) as host:
        assert "Nothing has been published" in host.get("/").body.decode()
        assert json.loads(host.get("/healthz").body)["newest"] is None
        for release, post_id in (("y1", 5), ("y2", 15)):
            data = world.put("original", post_id, 1000)
            assert host.get(world.url(release, "original", post_id)).status == 404
            world.publish(release)
            assert host.get(world.url(release, "original", post_id)).body == data
        assert host.get(world.url("y1", "original", 5)).body == world.files["y1", "original", 5]
        assert host.stop() == 0
    assert host.events[-1]["requests"] == 7


def test_what_cannot_be_read_leaves_the_old_releases_served(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    data = world.put("original", 5, 1000)
    world.publish("y1")
    timestamp = world.repo / "tuf" / "metadata" / "timestamp.json"
    signed = timestamp.read_bytes()
    with running_host(world.repo) as host:
        for broken in (b"", b"{}", signed.replace(b'"timestamp"', b'"targets"')):
            timestamp.write_bytes(broken)
            assert host.get("/packs/unknown/original/0005").status == 404
            assert host.get("/healthz").status == 503
            assert host.get(world.url("y1", "original", 5)).body == data
        timestamp.write_bytes(signed)
        assert host.get("/packs/unknown/original/0005").status == 404
        assert host.get("/healthz").status == 200


def test_a_pack_on_disk_is_sent_as_it_is(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    for post_id in range(10, 100, 10):
        world.put("original", post_id, 300_000)
    world.publish("y1", "--materialize-packs")
    path, content = world.pack_url("y1", "original", 0), world.pack("y1", "original", 0)
    with running_host(world.repo) as host:
        for post_id in range(10, 100, 10):
            world.path("y1", "original", post_id).rename(tmp_path / str(post_id))
        found = host.get(path)
        assert found.body == content
        many = host.get(path, {"Range": "bytes=0-9,1000000-2500000,-5"})
        assert [len(part) for *_, part in parts_of(many.headers, many.body)] == [10, 1_500_001, 5]
        for post_id in range(10, 100, 10):
            (tmp_path / str(post_id)).rename(world.path("y1", "original", post_id))
        (world.repo / path[1:]).unlink()
        virtual = host.get(path)
        assert virtual.body == content
        assert without_date(virtual) == without_date(found)


def test_a_copy_without_the_publishers_folder_is_served(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    data = world.put("original", 5, 1000)
    world.publish("y1", "--link", "hard")
    (world.repo / ".publish").rename(tmp_path / "private")
    with running_host(world.repo) as host:
        assert host.get(world.url("y1", "original", 5)).body == data


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_what_it_did(world: World, number: signal.Signals) -> None:
    with running_host(world.repo) as host:
        body = host.get(world.pack_url("y1", "original", 1)).body
        with socket.create_connection(("127.0.0.1", host.port), timeout=TIMEOUT_S) as idle:
            assert host.stop(number) == 0
            assert idle.recv(1) == b""
    assert host.events[0] == {"event": "listening", "url": host.url}
    summary = host.events[-1]
    assert (summary["event"], summary["verb"], summary["exit_code"]) == ("summary", "serve", 0)
    assert (summary["requests"], summary["bytes_sent"]) == (1, len(body))


def test_each_request_has_a_line_with_v(world: World) -> None:
    with running_host(world.repo, "-v", keep_lines=True) as host:
        host.get(world.url("y1", "original", 31))
        host.get("/nowhere?a=%22b%22")
        send_raw(host.port, b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert host.stop() == 0
    # Files are sent by others, who may tell of it when the next answer is under way.
    serving, *requests, stopped = host.lines
    found, missing, answered, refused = sorted(requests)
    assert serving == f"Serving {world.repo} at {host.url} (Ctrl-C stops it)"
    assert found.startswith('127.0.0.1 "GET /files/y1/original/0001/31.csv" 200 1 ')
    assert missing.startswith('127.0.0.1 "GET /nowhere?a=%22b%22" 404 14 ')
    assert refused.startswith("Error handling request from 127.0.0.1: InvalidURLError: 400")
    assert answered.startswith('127.0.0.1 "UNKNOWN /" 400 ')
    assert stopped.startswith("Stopped after")


def test_what_is_no_http_is_no_news_without_v(world: World) -> None:
    with running_host(world.repo, keep_lines=True) as host:
        send_raw(host.port, b"\x16\x03\x01\r\n\r\n")
        assert host.stop() == 0
    assert len(host.lines) == 2


def test_one_connection_too_many_is_told_to_come_back(world: World) -> None:
    with running_host(world.repo, "--max-connections", "2") as host:
        kept = [HTTPConnection("127.0.0.1", host.port, timeout=TIMEOUT_S) for _ in range(2)]
        for connection in kept:
            connection.request("GET", "/healthz")
            assert connection.getresponse().read()
        refused = host.get("/healthz")
        assert refused.status == 503
        assert refused.headers["retry-after"] == "2"
        kept[0].request("GET", "/healthz")
        assert kept[0].getresponse().status == 200
        for connection in kept:
            connection.close()


def test_what_is_no_repository_is_not_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(tmp_path), "--port", "0"]) == ExitCode.USAGE
    assert "is not a repository" in capsys.readouterr().err


def test_a_port_in_use_is_named(
    world: World, host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(world.repo), "--port", str(host.port)]) == ExitCode.NETWORK
    assert f"127.0.0.1:{host.port}" in capsys.readouterr().err
