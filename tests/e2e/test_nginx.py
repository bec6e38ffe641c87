"""A repository behind the real nginx, configured as ``docs/how-to/host-with-nginx.md`` shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.byteranges import parts_of
from tests.support.host import Host, ask, running_host, send_raw
from tests.support.needs import needs
from tests.support.nginx import running_nginx, shown_servers
from tests.support.world import World, make_world

pytestmark = needs("nginx")

DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "host-with-nginx.md"
STATIC, PROXY = shown_servers(DOCUMENT)
IDS = (*range(10, 700, 10), 5, 15)


@dataclass(frozen=True, kw_only=True)
class Site:
    """A published repository, and the port under which nginx hosts it."""

    world: World
    port: int


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = make_world(tmp_path_factory.mktemp("nginx"))
    for post_id in IDS:
        made.put("original", post_id, 3000 + post_id)
    made.put("original", 25, 3 * 2**20)
    (made.tree / "README.txt").write_text("an asset")
    made.publish("y1", "--materialize-packs")
    return made


@pytest.fixture(scope="module")
def host(world: World) -> Iterator[Host]:
    with running_host(world.repo) as found:
        yield found


@pytest.fixture(scope="module")
def static(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    changes = {"root /srv/danbooru;": f"root {world.repo};"}
    with running_nginx(STATIC, tmp_path_factory.mktemp("static"), changes) as port:
        yield Site(world=world, port=port)


@pytest.fixture(scope="module")
def proxied(world: World, host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    changes = {"proxy_pass http://127.0.0.1:8080;": f"proxy_pass {host.url};"}
    with running_nginx(PROXY, tmp_path_factory.mktemp("proxy"), changes) as port:
        yield Site(world=world, port=port)


@pytest.fixture(params=["static", "proxied"])
def site(request: pytest.FixtureRequest) -> Site:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Site)
    return found


def places(world: World) -> dict[str, bytes]:
    """Everything a client asks for, and what it must get."""
    found = {world.url(*key): data for key, data in world.files.items()}
    found |= {world.pack_url("y1", "original", n): world.pack("y1", "original", n) for n in (0, 5)}
    listed = (*world.objects(), *world.metadata())
    return found | {path: (world.repo / path[1:]).read_bytes() for path in listed}


def test_everything_is_served_as_our_own_server_does(site: Site, host: Host) -> None:
    for path, content in places(site.world).items():
        found, ours = ask(site.port, path), host.get(path)
        assert (found.status, found.body) == (ours.status, ours.body) == (200, content), path
        for name in ("cache-control", "content-length", "accept-ranges"):
            assert found.headers[name] == ours.headers[name], (path, name)


def test_ranges_are_served_one_by_one_and_many_at_once(site: Site) -> None:
    world = site.world
    for path, content in places(world).items():
        found = ask(site.port, path, {"Range": "bytes=3-9"})
        assert (found.status, found.body) == (206, content[3:10])
    path, content = world.pack_url("y1", "original", 0), world.pack("y1", "original", 0)
    spans = [(world.offset("y1", "original", n), 3000 + n) for n in range(10, 700, 20)]
    header = "bytes=" + ",".join(f"{start}-{start + size - 1}" for start, size in spans)
    found = ask(site.port, path, {"Range": header})
    assert [data for *_, data in parts_of(found.headers, found.body)] == [
        content[start : start + size] for start, size in spans
    ]


def test_a_long_range_header_is_accepted(site: Site) -> None:
    header = "bytes=" + ",".join(f"{n * 400:020d}-{n * 400 + 9:020d}" for n in range(300))
    assert 12_000 < len(header) < 16_000
    path, content = (
        site.world.pack_url("y1", "original", 0),
        site.world.pack("y1", "original", 0),
    )
    found = ask(site.port, path, {"Range": header})
    assert [data for *_, data in parts_of(found.headers, found.body)] == [
        content[n * 400 : n * 400 + 10] for n in range(300)
    ]


def test_an_answer_is_resumed_with_its_own_tag(site: Site) -> None:
    for path, content in places(site.world).items():
        tag = ask(site.port, path).headers["etag"]
        found = ask(site.port, path, {"Range": "bytes=5-", "If-Range": tag})
        assert (found.status, found.body) == (206, content[5:])
        found = ask(site.port, path, {"Range": "bytes=5-", "If-Range": '"other"'})
        assert (found.status, found.body) == (200, content)


@pytest.mark.parametrize(
    "target",
    [
        "/.publish/settings.json",
        "/files/../.publish/settings.json",
        "/files/%2e%2e/.publish/settings.json",
        "/files/..%2f.publish/settings.json",
        "//.publish/settings.json",
        "/objects/..%5c.publish/settings.json",
        "/../repo-keys/",
        "/files/.tmp/",
        "/metrics",
        "/files/",
        "/packs",
    ],
)
def test_what_is_private_is_not_there(site: Site, target: str) -> None:
    stage = site.world.repo / "files" / ".tmp"
    stage.mkdir(exist_ok=True)
    assert (site.world.repo / ".publish" / "settings.json").is_file()
    found = send_raw(
        site.port, f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    )
    assert found.split(b" ", 2)[1] in {b"400", b"403", b"404"}


def test_nothing_can_be_written(site: Site) -> None:
    for method in ("POST", "PUT", "DELETE"):
        assert ask(site.port, site.world.url("y1", "original", 5), method=method).status == 405


def test_the_page_shows_the_name_that_was_asked_for(proxied: Site) -> None:
    page = ask(proxied.port, "/", {"Host": "danbooru.example.org"}).body.decode()
    assert "bucketsync clone</b> http://danbooru.example.org tiny " in page
