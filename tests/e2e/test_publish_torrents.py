"""Torrents that publish makes: what is in them, and that everybody makes the same."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from manifests.model import Descriptor
from manifests.torrents.bencode import decode
from manifests.torrents.refs import TorrentRef
from server.repository import Repository
from tests.support.needs import library
from tests.support.publisher import LAYOUT, Publisher
from tests.support.torrents import libtorrent_makes

DATE = ("--date", "2020-01-01")
LATER = ("--date", "2021-01-01")
LARGE_BYTES = 5_000_000


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    made = Publisher(tmp_path)
    made.fill(range(1, 60))
    made.write(made.place(100), bytes(range(256)) * (LARGE_BYTES // 256))
    made.write(made.place(101), b"")
    made.fill(range(1, 20), "small")
    return made


def refs(descriptor: Descriptor, layer: int = -1) -> dict[str, list[TorrentRef]]:
    return {name: list(found) for name, found in descriptor.layers[layer].torrents.items()}


def document(publisher: Publisher, ref: TorrentRef) -> Any:  # noqa: ANN401 (bencoded)
    data = Repository(root=publisher.repo).object_path(ref.digest).read_bytes()
    assert len(data) == ref.size_bytes
    return decode(data, "torrent", max_bytes=10**7, max_values=10**6)


def test_it_is_what_libtorrent_makes_of_the_published_files(
    publisher: Publisher, tmp_path: Path
) -> None:
    lt = library("libtorrent")
    run = publisher.publish("y1", *DATE)
    descriptor = publisher.releases()["y1"]
    (ref,) = refs(descriptor)["original"]
    files = {}
    for path in sorted((publisher.repo / "files/y1/original").rglob("*.dat")):
        files[int(path.stem)] = ("dat", path.read_bytes())
    piece_bytes = descriptor.layers[-1].torrents["original"].piece_bytes
    made = libtorrent_makes(lt, tmp_path / "lt", files, piece_bytes, layout=LAYOUT)
    ours = document(publisher, ref)
    assert ours[b"info"] == made[b"info"]
    assert ours[b"piece layers"] == made[b"piece layers"]
    found = lt.load_torrent_buffer(lt.bencode(made)).info_hashes
    assert (found.v1.to_bytes(), found.v2.to_bytes()) == (
        ref.info_hashes.v1,
        ref.info_hashes.v2,
    )
    assert run.summary["torrents"] == 2
    assert run.summary["torrent_bytes"] == sum(
        one.size_bytes for found in refs(descriptor).values() for one in found
    )


def test_every_way_to_publish_makes_the_same(publisher: Publisher, tmp_path: Path) -> None:
    publisher.publish("y1", *DATE)
    expected = refs(publisher.releases()["y1"])
    for number, flags in enumerate((["--jobs", "2"], ["--link", "hard"], ["--in-place"])):
        other = Publisher(tmp_path / str(number))
        shutil.copytree(publisher.tree, other.tree, dirs_exist_ok=True)
        other.publish("y1", *DATE, *flags)
        assert refs(other.releases()["y1"]) == expected, flags


def test_hashes_that_were_lost_are_made_again(publisher: Publisher) -> None:
    # An audit that forbids the release ends the run after all files were read and linked.
    publisher.fill(range(200, 210))
    publisher.place(200).write_bytes(b"")
    publisher.write(publisher.tree / "original" / "000" / "8.jpg", b"no picture")
    publisher.publish("y1", *DATE, "--strict", expect=4)
    expected = Publisher(publisher.root / "other")
    shutil.copytree(publisher.tree, expected.tree, dirs_exist_ok=True)
    expected.publish("y1", *DATE)
    record = publisher.repo / ".publish/record.db"
    with sqlite3.connect(record) as db:
        assert db.execute("SELECT count(*) FROM pieces").fetchone()[0] > 0
        db.execute("DELETE FROM pieces")
    db.close()
    run = publisher.publish("y1", *DATE)
    assert run.summary["files_hashed"] == 0
    assert refs(publisher.releases()["y1"]) == refs(expected.releases()["y1"])
    with sqlite3.connect(record) as db:
        assert db.execute("SELECT count(*) FROM pieces").fetchone()[0] == 0
    db.close()


def test_a_layer_keeps_its_torrents(publisher: Publisher) -> None:
    publisher.publish("y1", *DATE)
    first = publisher.releases()["y1"]
    publisher.fill(range(300, 305))
    publisher.publish("y2", *LATER)
    second = publisher.releases()["y2"]
    assert second.layers[0] == first.layers[0]
    assert set(refs(second)) == {"original"}
    (ref,) = refs(second)["original"]
    tree = document(publisher, ref)[b"info"][b"file tree"]
    names = sorted(name for bucket in tree.values() for name in bucket)
    assert names == [b"%d.dat" % number for number in range(300, 305)]


def test_trackers_and_web_seeds_stand_around_the_info_dictionary(publisher: Publisher) -> None:
    publisher.publish(
        "y1",
        *DATE,
        *("--tracker", "https://a.example/announce,https://b.example/announce"),
        *("--tracker", "udp://c.example:1337", "--web-seed", "https://host.example/data/"),
    )
    (ref,) = refs(publisher.releases()["y1"])["small"]
    found = document(publisher, ref)
    assert found[b"announce"] == b"https://a.example/announce"
    assert found[b"announce-list"] == [
        [b"https://a.example/announce", b"https://b.example/announce"],
        [b"udp://c.example:1337"],
    ]
    assert found[b"url-list"] == [b"https://host.example/data/files/y1/"]
    plain = Publisher(publisher.root / "plain")
    shutil.copytree(publisher.tree, plain.tree, dirs_exist_ok=True)
    plain.publish("y1", *DATE)
    (other,) = refs(plain.releases()["y1"])["small"]
    assert other.info_hashes == ref.info_hashes
    assert other.digest != ref.digest


def test_flags_change_what_is_made(publisher: Publisher) -> None:
    publisher.publish("y1", *DATE, "--v2-only", "--private", "--piece-size", "64KiB")
    made = publisher.releases()["y1"].layers[-1].torrents["small"]
    assert (made.hybrid, made.private, made.piece_bytes) == (False, True, 65536)
    info = document(publisher, made.torrents[0])[b"info"]
    assert info[b"private"] == 1
    assert b"pieces" not in info


def test_none_are_made_if_none_are_wanted(publisher: Publisher) -> None:
    run = publisher.publish("y1", *DATE, "--no-torrents")
    assert refs(publisher.releases()["y1"]) == {}
    assert run.summary["torrents"] == 0


@pytest.mark.parametrize(
    "flags",
    [("--piece-size", "100k"), ("--tracker", "nonsense"), ("--web-seed", "/srv/data")],
)
def test_what_cannot_be_is_refused_at_once(publisher: Publisher, flags: tuple[str, str]) -> None:
    run = publisher.publish("y1", *DATE, *flags, expect=2)
    assert not (publisher.repo / "files/y1").exists()
    assert "error" in run.stderr
