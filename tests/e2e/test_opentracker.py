"""A repository whose tracker is opentracker, as docs/how-to/run-a-tracker.md sets it up.

``serve`` runs without its own tracker, and nobody names a peer: that seeders and clients meet is
opentracker's doing, through libtorrent, which announces to the trackers of the torrents.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from manifests.torrents.refs import TorrentRef
from tests.support.client import bucketsync, contents
from tests.support.host import Host, running_host
from tests.support.needs import needs
from tests.support.opentracker import Opentracker, opentracker
from tests.support.peers import LOOPBACK, seeding
from tests.support.publisher import Publisher

pytestmark = needs("opentracker")

MIB = 2**20
ALONE = ("--source", "torrent", *LOOPBACK)


@dataclass(frozen=True)
class World:
    """A repository, its host, its tracker, and a tree with all of it."""

    publisher: Publisher
    host: Host
    tracker: Opentracker
    tree: Path

    @property
    def refs(self) -> list[TorrentRef]:
        """All torrents, oldest layer first."""
        layers = self.publisher.releases()["y2"].layers
        return [ref for layer in layers for found in layer.torrents.values() for ref in found]


@pytest.fixture(scope="module", params=["public", "private"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    root = tmp_path_factory.mktemp("world")
    with opentracker(root / "opentracker") as tracker:
        publisher = Publisher(root / "publisher")
        flags = ["--tracker", tracker.url, *(["--private"] if request.param == "private" else [])]
        publisher.fill(range(1, 60), size_bytes=6000)
        publisher.fill(range(1, 20), "small")
        for post_id in range(1000, 1035):
            publisher.write(publisher.place(post_id), os.urandom(2 * MIB))
        publisher.publish("y1", "--date", "2020-01-01", *flags)
        publisher.fill(range(60, 80), size_bytes=6000)
        publisher.publish("y2", "--date", "2021-01-01", *flags)
        with running_host(publisher.repo, "--no-tracker") as host:
            tracker.allow(host.get("/torrents/info-hashes.txt").body)
            bucketsync("clone", host.url, root / "tree", "--source", "http")
            yield World(publisher, host, tracker, root / "tree")


def wait_for_seeds(world: World) -> None:
    """Return when every torrent has one; libtorrent announces both hashes of a hybrid."""
    for ref in world.refs:
        for info_hash in ref.info_hashes.announced:
            world.tracker.wait_seeds(info_hash, 1)


def test_a_release_comes_from_a_seeder_that_opentracker_names(
    world: World, tmp_path: Path
) -> None:
    with seeding(world.tree) as peer:
        wait_for_seeds(world)
        run = bucketsync("clone", world.host.url, tmp_path / "tree", *ALONE)
        summary = peer.stop()
    assert run.code == 0
    files = world.publisher.tree_files()
    assert contents(tmp_path / "tree") == files
    received = run["sources"]["torrent"]
    assert received >= sum(map(len, files.values()))
    # The two count at moments of their own, so a few blocks may be on their way.
    assert abs(summary["bytes_sent"] - received) <= 4 * 2**14


def test_its_peers_relieve_the_host(world: World, tmp_path: Path) -> None:
    with seeding(world.tree) as peer:
        wait_for_seeds(world)
        words = ("--source", "auto", *LOOPBACK, "--bwlimit", "30M")
        run = bucketsync("clone", world.host.url, tmp_path / "tree", *words)
        summary = peer.stop()
    assert run.code == 0
    assert contents(tmp_path / "tree") == world.publisher.tree_files()
    assert run["sources"]["torrent"] > 0
    assert summary["bytes_sent"] >= run["sources"]["torrent"]


def test_a_torrent_that_is_not_listed_is_refused(world: World) -> None:
    fields = {"peer_id": "-XX0000-000000000000", "port": 6881, "left": 1, "compact": 1}
    found = world.tracker.announce(b"somebody else's hash", **fields)
    assert list(found) == [b"failure reason"]
    assert b"not authorized" in found[b"failure reason"]
    for ref in world.refs:
        for info_hash in ref.info_hashes.announced:
            assert b"peers" in world.tracker.announce(info_hash, **fields, event="stopped")
