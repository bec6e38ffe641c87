"""qBittorrent subscribes to the feed of a release: from there on everything goes by itself.

The feed names torrents, the torrents name our tracker, the tracker names our seeder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import bucketsync, contents
from tests.support.host import Host, running_host
from tests.support.needs import needs
from tests.support.peers import seeding
from tests.support.publisher import Publisher
from tests.support.stock.qbittorrent import QBittorrent, qbittorrent

pytestmark = needs("qbittorrent-nox")

FEED = "pictures"


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    made = Publisher(tmp_path / "publisher")
    made.fill(range(1, 60), size_bytes=20_000)
    made.fill(range(1, 40), "small", 3000)
    made.publish("y1", "--date", "2020-01-01")
    made.fill(range(60, 90), size_bytes=20_000)
    made.publish("y2", "--date", "2021-01-01")
    return made


def subscribe(client: QBittorrent, host: Host, release: str, folder: Path) -> None:
    """As a user does: a feed, and a rule that takes everything of it."""
    url = f"{host.url.rstrip('/')}/torrents/{release}/feed.xml"
    rule = {
        "enabled": True,
        "mustContain": "",
        "affectedFeeds": [url],
        "savePath": str(folder),
        "torrentContentLayout": "Original",
    }
    client.call("rss/setRule", ruleName=release, ruleDef=json.dumps(rule))
    client.call("rss/addFeed", url=url, path=FEED)


def articles(client: QBittorrent) -> list[dict[str, Any]]:
    """What it has read of the feed."""
    found: list[dict[str, Any]] = client.ask("rss/items", withData="true")[FEED]["articles"]
    return found


def test_a_subscriber_gets_a_release_into_the_right_paths(
    publisher: Publisher, tmp_path: Path
) -> None:
    layers = publisher.releases()["y2"].layers
    refs = [ref for layer in layers for found in layer.torrents.values() for ref in found]
    with running_host(publisher.repo, "--announce-interval", "2") as host:
        bucketsync("clone", host.url, tmp_path / "seeder", "--source", "http")
        with seeding(tmp_path / "seeder"), qbittorrent(tmp_path / "profile") as client:
            subscribe(client, host, "y2", tmp_path / "tree")
            client._process.until(lambda: len(client.torrents()) >= len(refs), "not added")
            client.wait_complete()
            found = articles(client)
            added = client.torrents().values()
    names = [(ref.info_hashes.v1, ref.info_hashes.v2) for ref in refs]
    told = [(item["infohash_v1"], item["infohash_v2"]) for item in added]
    assert sorted((bytes.fromhex(v1), bytes.fromhex(v2)) for v1, v2 in told) == sorted(names)
    assert contents(tmp_path / "tree") == publisher.tree_files()
    assert {item["title"] for item in found} == {
        "y1 original 000-007",
        "y1 small 000-007",
        "y2 original 000-007",
    }
    # By these a reader knows again what it has read, whatever address it came from.
    assert {item["id"] for item in found} == {ref.info_hashes.v2.hex() for ref in refs}
