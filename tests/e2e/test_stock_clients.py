"""Stock BitTorrent clients as peers of ours: the real programs, both ways."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.client import bucketsync, contents
from tests.support.host import Host, running_host
from tests.support.needs import library, needs
from tests.support.peers import LOOPBACK, seeding, torrents_of
from tests.support.publisher import Publisher
from tests.support.stock.base import StockClient
from tests.support.stock.deluge import deluge
from tests.support.stock.qbittorrent import qbittorrent
from tests.support.stock.webtorrent import webtorrent

KIB = 1024
PIECE_BYTES = 64 * KIB
Start = Callable[[Path], AbstractContextManager[StockClient]]


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """Many small files, and the special ones: nothing, one piece, one byte around it."""
    made = Publisher(tmp_path_factory.mktemp("publisher"))
    special = [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 0, 5 * 2**20, 16 * KIB]
    small = [number * 7919 % (300 * KIB) for number in range(1, 100)]
    chance = random.Random(1)  # noqa: S311
    for post_id, size in enumerate([*special, *small], start=1):
        made.write(made.place(post_id), chance.randbytes(size))
    made.fill(range(1, 40), "small", 3000)
    made.publish("y1", "--date", "2020-01-01", "--piece-size", "64KiB")
    return made


@pytest.fixture(scope="module")
def host(publisher: Publisher) -> Iterator[Host]:
    with running_host(publisher.repo, "--no-tracker") as running:
        yield running


@pytest.fixture(scope="module")
def ours(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("ours") / "tree"
    bucketsync("clone", host.url, tree, "--source", "http")
    return tree


CLIENTS = [
    pytest.param(qbittorrent, marks=needs("qbittorrent-nox"), id="qbittorrent"),
    pytest.param(deluge, marks=needs("deluged"), id="deluge"),
    pytest.param(webtorrent, marks=needs("node", "npm"), id="webtorrent"),
]


def pads_of(torrent: bytes) -> dict[str, bytes]:
    """The pad files (BEP 47) that a client stores which takes them for files."""
    lt = library("libtorrent")
    info = lt.load_torrent_buffer(torrent).ti
    # 2.1 has another name for it.
    files = info.layout() if hasattr(info, "layout") else info.files()
    return {
        files.file_path(number): bytes(files.file_size(number))
        for number in range(files.num_files())
        if files.file_flags(number) & lt.file_storage.flag_pad_file
    }


def write(files: dict[str, bytes], folder: Path) -> None:
    for text, data in files.items():
        path = folder / text
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.mark.parametrize("start", CLIENTS)
def test_a_stock_client_downloads_from_ours_into_the_right_paths(
    start: Start, publisher: Publisher, ours: Path, tmp_path: Path
) -> None:
    expected = publisher.tree_files()
    with seeding(ours) as peer, start(tmp_path / "profile") as client:
        for torrent in torrents_of(publisher, "y1"):
            client.add(torrent, tmp_path / "tree", [("127.0.0.1", peer.port)])
        client.wait_complete()
        if not client.knows_pads:
            expected = {path: data for path, data in expected.items() if data}
            for torrent in torrents_of(publisher, "y1"):
                expected |= pads_of(torrent)
    assert contents(tmp_path / "tree") == expected


@pytest.mark.parametrize("start", CLIENTS)
def test_ours_downloads_from_a_stock_client_that_seeds_a_tree_that_is_there(
    start: Start, publisher: Publisher, host: Host, tmp_path: Path
) -> None:
    tree, files = tmp_path / "tree", publisher.tree_files()
    write(files, tree)
    with start(tmp_path / "profile") as client:
        for torrent in torrents_of(publisher, "y1"):
            if not client.knows_pads:
                write(pads_of(torrent), tree)
            client.add(torrent, tree)
        client.wait_complete()
        words = ("--source", "torrent", *LOOPBACK, "--peer", f"127.0.0.1:{client.port}")
        before = contents(tree)
        run = bucketsync("clone", host.url, tmp_path / "found", *words)
        assert run.code == 0
    assert contents(tmp_path / "found") == files
    assert run["sources"]["torrent"] >= sum(map(len, files.values()))
    assert contents(tree) == before
