"""One suite for every host of a repository: all must deliver the same, however they deliver it.

Our own server, the real nginx with packs and without, and plain hosts that understand ranges in
part, or not at all.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from manifests.columns import CHUNK_BYTES
from manifests.errors import TransferError
from syncclient.cachedobject import object_path
from syncclient.sources.host import HttpOptions
from syncclient.sources.http import HttpSource
from tests.support.client import bucketsync, contents
from tests.support.host import running_host
from tests.support.nginx import running_nginx, shown_servers
from tests.support.rawhost import (
    Answer,
    Ranges,
    Request,
    multipart,
    raw_host,
    repository_content,
)
from tests.support.releases import LAYOUT, Publisher, make_publisher, random_files

DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "host-with-nginx.md"
LARGE = bytes(range(251)) * ((2 * CHUNK_BYTES + 12_345) // 251)


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """Two releases with small files, empty ones and a large one; assets of both sizes."""
    made = make_publisher(tmp_path_factory.mktemp("releases"))
    first = random_files(range(1, 201), size_bytes=5000)
    first |= {("original", number): ("txt", b"") for number in (31, 61, 201)}
    first["original", 7] = ("mp4", LARGE)
    made.publish("y1", first, {"README": b"one"})
    second = first | random_files(range(101, 161), size_bytes=5000, seed="second")
    second |= random_files(range(301, 321), size_bytes=5000)
    made.publish("y2", second, {"README": b"two", "docs/large": LARGE[::-1]})
    return made


@contextmanager
def our_server(repo: Path, _: Path) -> Iterator[str]:
    with running_host(repo) as host:
        yield host.url


@contextmanager
def nginx(repo: Path, scratch: Path) -> Iterator[str]:
    changes = {"root /srv/danbooru;": f"root {repo};"}
    with running_nginx(shown_servers(DOCUMENT)[0], scratch, changes) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def nginx_with_packs(repo: Path, scratch: Path) -> Iterator[str]:
    copy = scratch / "repo"
    shutil.copytree(repo, copy)
    content = repository_content(repo)
    for folder in copy.glob("files/*/*/*"):
        path = "packs/" + "/".join(folder.parts[-3:])
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes(content(path) or b"")
    with nginx(copy, scratch) as url:
        yield url


def plain(ranges: Ranges, *, packs: bool) -> Callable[[Path, Path], AbstractContextManager[str]]:
    @contextmanager
    def serve(repo: Path, _: Path) -> Iterator[str]:
        with raw_host(repo, ranges=ranges, packs=packs) as host:
            yield host.url

    return serve


@contextmanager
def in_its_own_order(repo: Path, _: Path) -> Iterator[str]:
    """Parts from the last to the first, with neighbours joined into one."""
    content = repository_content(repo)

    def script(request: Request, answer: Answer) -> Answer:
        spans, data = request.spans or [], content(request.path) or b""
        if len(spans) < 2:
            return answer
        joined = [spans[0]]
        for start, stop in spans[1:]:
            if start - joined[-1][1] < 6000 and len(joined) > 1:
                joined[-1] = (joined[-1][0], stop)
            else:
                joined.append((start, stop))
        return multipart(data, joined[::-1])

    with raw_host(content, script) as host:
        yield host.url


HOSTS = {
    "our server": our_server,
    "nginx": nginx,
    "nginx with packs": nginx_with_packs,
    "several ranges": plain(Ranges.MANY, packs=True),
    "one range": plain(Ranges.ONE, packs=True),
    "one range, no packs": plain(Ranges.ONE, packs=False),
    "no ranges": plain(Ranges.NONE, packs=True),
    "no ranges, no packs": plain(Ranges.NONE, packs=False),
    "parts in its own order": in_its_own_order,
}


@dataclass(frozen=True, kw_only=True)
class Site:
    """A host under test and the repository that it serves."""

    url: str
    publisher: Publisher

    def bytes_of(self, path: str) -> bytes:
        """What is to be delivered."""
        return repository_content(self.publisher.repo)(path) or b""

    @asynccontextmanager
    async def source(self) -> AsyncIterator[HttpSource]:
        async with HttpSource(self.url, HttpOptions(timeout_s=10)) as source:
            yield source


@pytest.fixture(scope="module", params=list(HOSTS))
def site(
    request: pytest.FixtureRequest,
    publisher: Publisher,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """Each kind of host."""
    with HOSTS[request.param](publisher.repo, tmp_path_factory.mktemp("host")) as url:
        yield Site(url=url, publisher=publisher)


def manifest_path(publisher: Publisher) -> str:
    return object_path(publisher.descriptors[0].layers[0].manifests["original"].digest)


async def test_documents_come_whole_and_within_their_bound(site: Site) -> None:
    path = "tuf/metadata/1.root.json"
    expected = site.bytes_of(path)
    async with site.source() as source:
        assert await source.document(path, 10**6) == expected
        assert await source.document(path, len(expected)) == expected
        with pytest.raises(TransferError, match="more than"):
            await source.document(path, len(expected) - 1)


@pytest.mark.parametrize(
    "path", ["tuf/metadata/9.root.json", "objects/ab/" + "ab" * 32, "files/y1/original/0001/9.png"]
)
async def test_what_is_not_there_is_missing(site: Site, path: str) -> None:
    async with site.source() as source:
        with pytest.raises(TransferError) as caught:
            await source.document(path, 1000)
        assert caught.value.missing


async def test_loose_files_come_whole(site: Site) -> None:
    entries = ((1, "png"), (2, "jpg"), (31, "txt"), (200, "jpg"))
    paths = [f"files/y1/{LAYOUT.entry_path('original', *entry)}" for entry in entries]
    expected = [site.bytes_of(path) for path in paths]
    found: dict[int, bytes] = {}
    async with site.source() as source:
        for path, data in zip(paths, expected, strict=True):
            assert await source.whole(path, len(data)) == data
        async with aclosing(source.files(paths, [len(data) for data in expected])) as bunches:
            async for bunch in bunches:
                found |= {index: bytes(piece) for index, piece in bunch}
    assert found == dict(enumerate(expected))


@pytest.mark.parametrize("step", [1, 37, 997])
async def test_ranges_of_an_object_are_its_bytes(site: Site, step: int) -> None:
    path = manifest_path(site.publisher)
    data = site.bytes_of(path)
    wanted = [(place, min(place + 20, len(data))) for place in range(0, len(data), 20 + step)]
    found: dict[int, bytes] = {}
    async with (
        site.source() as source,
        aclosing(source.ranges(path, wanted, or_whole=True)) as ranges,
    ):
        async for bunch in ranges:
            for index, piece in bunch:
                assert index not in found
                found[index] = bytes(piece)
    assert found == {n: data[start:stop] for n, (start, stop) in enumerate(wanted)}


async def test_a_large_file_comes_in_stretches(site: Site) -> None:
    path = "files/y1/original/0007/7.mp4"
    spans = [(CHUNK_BYTES, 2 * CHUNK_BYTES), (2 * CHUNK_BYTES, len(LARGE))]
    async with site.source() as source, aclosing(source.stretch(path, spans)) as bunches:
        found = [(index, bytes(data)) async for bunch in bunches for index, data in bunch]
    assert found == [(index, LARGE[start:stop]) for index, (start, stop) in enumerate(spans)]


def test_a_tree_is_the_same_from_every_host(site: Site, tmp_path: Path) -> None:
    """Whole, in part, upgraded, repaired."""
    publisher, tree = site.publisher, tmp_path / "tree"
    old, new = (publisher.editions[name].tree() for name in ("y1", "y2"))
    assert bucketsync("clone", site.url, tree, "--release", "y1").code == 0
    assert contents(tree) == old
    assert bucketsync("upgrade", tree).code == 0
    assert contents(tree) == new
    (tmp_path / "ids").write_text("1 3 31 7 101 103 111 200 301")
    part = tmp_path / "part"
    assert bucketsync("clone", site.url, part, "--ids", tmp_path / "ids").code == 0
    assert contents(part) == publisher.newest.tree(ids=[1, 3, 31, 7, 101, 103, 111, 200, 301])
    for path in list(part.rglob("*.png"))[:2]:
        path.unlink()
    assert bucketsync("verify", part, "--repair").code == 0
    assert bucketsync("status", part).code == 0


def test_hosts_of_every_kind_stand_in_for_each_other(
    site: Site, publisher: Publisher, tmp_path: Path
) -> None:
    with raw_host(publisher.repo, ranges=Ranges.NONE, packs=False) as other:
        done = bucketsync("clone", site.url, tmp_path / "tree", "--mirror", other.url)
    assert done.code == 0
    assert contents(tmp_path / "tree") == publisher.newest.tree()
