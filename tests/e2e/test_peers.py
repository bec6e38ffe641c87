"""Peers end to end: our seeders and our clients, on loopback, through our tracker or directly."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from manifests.paths import PRIVATE_FOLDER
from syncclient.torrents.apart import SwarmProcess
from tests.support.client import Run, bucketsync, contents, started, trashed
from tests.support.host import Host, running_host
from tests.support.peers import LOOPBACK, SeedProcess, seeding
from tests.support.publisher import Publisher

# Never a tracker's turn: these tests name their peers.
ALONE = ("--source", "torrent", *LOOPBACK)
BOTH = ("--source", "auto", *LOOPBACK)
FILES = 400


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    made = Publisher(tmp_path_factory.mktemp("publisher"))
    made.fill(range(1, FILES + 1), size_bytes=6000)
    made.write(made.place(1000), os.urandom(9_000_000))
    made.write(made.place(1001), b"")
    made.fill(range(1, 100), "small", 500)
    (made.tree / "README").write_bytes(b"one")
    made.publish("y1", "--date", "2020-01-01")
    for number in range(1, 41):
        made.write(made.place(number), os.urandom(5000))
    made.fill(range(2000, 2050), size_bytes=6000)
    made.publish("y2", "--date", "2021-01-01")
    return made


@pytest.fixture(scope="module")
def host(publisher: Publisher) -> Iterator[Host]:
    with running_host(publisher.repo, "--announce-interval", "2") as running:
        yield running


@pytest.fixture(scope="module")
def plain(publisher: Publisher) -> Iterator[Host]:
    """The same without a tracker."""
    with running_host(publisher.repo, "--no-tracker") as running:
        yield running


@pytest.fixture(scope="module")
def full(plain: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole of y2, cloned over HTTP; nobody changes it."""
    tree = tmp_path_factory.mktemp("full") / "tree"
    bucketsync("clone", plain.url, tree, "--source", "http", "--release", "y2")
    return tree


@pytest.fixture
def swarms(monkeypatch: pytest.MonkeyPatch) -> list[SwarmProcess]:
    """The processes of libtorrent that runs start; they ask peers for however little."""
    begun: list[SwarmProcess] = []

    class Counted(SwarmProcess):
        async def __aenter__(self) -> Self:
            begun.append(self)
            return await super().__aenter__()

    monkeypatch.setattr("syncclient.torrents.peers.WORTH_BYTES", 0)
    monkeypatch.setattr("syncclient.torrents.joining.SwarmProcess", Counted)
    return begun


def staged(tree: Path) -> list[Path]:
    return list((tree / PRIVATE_FOLDER / "staging").iterdir())


def sent_by(peer: SeedProcess) -> int:
    return max((event["bytes_sent"] for event in peer.named("status")), default=0)


def padding(files: dict[str, bytes]) -> int:
    """Zeros that peers send of a hybrid: up to the end of each file's last 16 KiB."""
    return sum(-len(data) % 2**14 for data in files.values())


def test_a_release_comes_from_a_peer_that_the_tracker_names(
    host: Host, publisher: Publisher, tmp_path: Path
) -> None:
    seeder = tmp_path / "seeder"
    bucketsync("clone", host.url, seeder, "--source", "http")
    with seeding(seeder) as peer:
        assert peer.files == FILES + 2 + 99 + 50
        run = bucketsync("clone", host.url, tmp_path / "tree", *ALONE)
        peer.wait_until(lambda: any(event["copies"] > 0 for event in peer.named("status")))
        summary = peer.stop()
    assert run.code == 0
    assert contents(tmp_path / "tree") == publisher.tree_files()
    held = contents(tmp_path / "tree")
    wanted = sum(map(len, held.values())) - len(b"one")
    assert wanted <= run["sources"]["torrent"] <= 1.1 * (wanted + padding(held))
    # Over HTTP came signatures, manifests, metainfo and the one asset.
    assert run["sources"]["http"] < 200_000
    assert summary["bytes_sent"] == run["sources"]["torrent"]
    assert summary["torrents"] == 3
    assert staged(tmp_path / "tree") == []
    assert bucketsync("verify", tmp_path / "tree").code == 0


def test_a_selection_brings_what_is_selected_and_no_more(
    plain: Host, full: Path, tmp_path: Path
) -> None:
    ids = tmp_path / "ids"
    ids.write_text("\n".join(map(str, range(5, 300, 7))))
    with seeding(full) as peer:
        words = ("--peer", peer.address, "--ids", str(ids), "--variant", "original")
        run = bucketsync("clone", plain.url, tmp_path / "tree", *ALONE, *words)
    assert run.code == 0
    held = contents(tmp_path / "tree")
    assert {int(Path(path).stem) for path in held} == set(range(5, 300, 7))
    wanted = sum(map(len, held.values()))
    assert wanted <= run["sources"]["torrent"] <= 1.1 * (wanted + padding(held))


def test_hosts_and_peers_share_the_work(plain: Host, full: Path, tmp_path: Path) -> None:
    with seeding(full) as peer:
        words = ("--peer", peer.address, "--bwlimit", "8M")
        run = bucketsync("clone", plain.url, tmp_path / "tree", *BOTH, *words)
    assert run.code == 0
    assert contents(tmp_path / "tree") == contents(full)
    held = contents(full)
    most = sum(map(len, held.values())) + padding(held)
    assert run["sources"]["torrent"] > 0
    assert run["sources"]["http"] + run["sources"]["torrent"] < 1.1 * most + 200_000


def test_libtorrent_starts_when_a_tracker_names_a_peer(
    publisher: Publisher, full: Path, tmp_path: Path, swarms: list[SwarmProcess]
) -> None:
    with running_host(publisher.repo, "--announce-interval", "2") as host:
        run = bucketsync("clone", host.url, tmp_path / "first", *BOTH)
        assert (run.code, run["sources"]["torrent"], swarms) == (0, 0, [])
        with seeding(tmp_path / "first"):
            run = bucketsync("clone", host.url, tmp_path / "alone", *ALONE)
            assert (run.code, len(swarms)) == (0, 1)
            # By now the tracker knows the seeder for sure.
            run = bucketsync("clone", host.url, tmp_path / "second", *BOTH)
    assert (run.code, len(swarms)) == (0, 2)
    assert run["sources"]["torrent"] > 0
    assert contents(tmp_path / "first") == contents(tmp_path / "second") == contents(full)


def test_without_a_tracker_libtorrent_starts_if_torrents_name_one(
    plain: Host, tmp_path: Path, swarms: list[SwarmProcess]
) -> None:
    run = bucketsync("clone", plain.url, tmp_path / "none", *BOTH)
    assert (run.code, swarms) == (0, [])
    other = Publisher(tmp_path / "other")
    other.fill(range(1, 100), size_bytes=6000)
    other.publish("y1", "--tracker", "http://127.0.0.1:9/announce")
    with running_host(other.repo, "--no-tracker") as host:
        run = bucketsync("clone", host.url, tmp_path / "tree", *BOTH)
    assert (run.code, len(swarms)) == (0, 1)
    assert contents(tmp_path / "tree") == other.tree_files()


def test_a_dead_swarm_stalls_nothing(plain: Host, full: Path, tmp_path: Path) -> None:
    run = bucketsync("clone", plain.url, tmp_path / "tree", *BOTH, "--peer", "127.0.0.1:9")
    assert run.code == 0
    assert run["sources"]["torrent"] == 0
    assert contents(tmp_path / "tree") == contents(full)


def test_without_anybody_the_run_says_so_and_ends(plain: Host, tmp_path: Path) -> None:
    run = bucketsync("clone", plain.url, tmp_path / "tree", *ALONE, "--timeout", "1")
    assert run.code == 3
    # Nobody could be asked, so nothing was begun.
    assert run["files_failed"] == FILES + 2 + 99 + 50
    assert "no peer delivered it" in run.named("failed")[0]["message"]


def test_an_upgrade_comes_from_peers_that_hold_only_the_old_release(
    plain: Host, tmp_path: Path, publisher: Publisher
) -> None:
    old = tmp_path / "old"
    bucketsync("clone", plain.url, old, "--source", "http", "--release", "y1")
    with seeding(old) as peer:
        words = ("--release", "y2", "--peer", peer.address, "--bwlimit", "8M")
        run = bucketsync("clone", plain.url, tmp_path / "tree", *BOTH, *words)
    assert run.code == 0
    assert contents(tmp_path / "tree") == publisher.tree_files()
    # The old release has most of what the new one is.
    assert run["sources"]["torrent"] > 5_000_000


def test_a_peer_with_wrong_bytes_does_no_harm(
    plain: Host, full: Path, publisher: Publisher, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(full, bad, symlinks=True)
    # As a failing disk would: other bytes, the same size and time.
    for number in range(50, 200):
        path = bad / publisher.place(number).relative_to(publisher.tree)
        times = path.stat()
        path.write_bytes(os.urandom(times.st_size))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with seeding(bad) as liar, seeding(full) as peer:
        words = ("--peer", liar.address, "--peer", peer.address)
        run = bucketsync("clone", plain.url, tmp_path / "tree", *ALONE, *words)
    assert run.code == 0
    assert contents(tmp_path / "tree") == contents(full)
    with seeding(bad) as liar:
        run = bucketsync("clone", plain.url, tmp_path / "other", *BOTH, "--peer", liar.address)
    assert run.code == 0
    assert contents(tmp_path / "other") == contents(full)


def test_a_crash_of_libtorrent_costs_no_file(plain: Host, full: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    with seeding(full, "--upload-limit", "4M") as peer:
        words = (plain.url, tree, *ALONE, "--peer", peer.address)
        with started("clone", *words) as process:
            peer.wait_until(lambda: sent_by(peer) > 1_000_000)
            for child in process.children():
                if b"torrents.apart" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(child, signal.SIGSEGV)
            run = process.finish()
    assert run.code == 0
    assert any("libtorrent crashed" in event["message"] for event in run.named("warning"))
    assert contents(tree) == contents(full)
    assert staged(tree) == []


def test_what_a_later_release_replaced_is_neither_offered_nor_touched(
    plain: Host, publisher: Publisher, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    bucketsync("clone", plain.url, tree, "--source", "http", "--release", "y1")
    with seeding(tree, "--look-every", "0.5") as peer:
        before = peer.files
        bucketsync("upgrade", tree, "--source", "http")
        removed = tree / publisher.place(77).relative_to(publisher.tree)
        removed.unlink()
        # 40 files have newer bytes, and one is gone.
        peer.wait_until(
            lambda: (
                bool(peer.named("status")[-1:])
                and peer.named("status")[-1]["files"] == before - 41
            )
        )
        expected = contents(tree)
        words = ("--release", "y1", "--peer", peer.address, "--timeout", "2")
        run = bucketsync("clone", plain.url, tmp_path / "other", *ALONE, *words)
    assert run.code == 3
    assert run["files_failed"] == 41
    assert contents(tree) == expected
    assert trashed(tree) == {}


def test_a_file_that_was_edited_is_not_offered_after_the_next_start(
    full: Path, publisher: Publisher, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(full, tree, symlinks=True)
    (tree / publisher.place(60).relative_to(publisher.tree)).write_bytes(b"mine")
    with seeding(full) as whole, seeding(tree) as peer:
        assert peer.files == whole.files - 1


def test_killed_clones_leave_nothing_wrong_and_go_on(
    plain: Host, full: Path, tmp_path: Path
) -> None:
    tree, expected = tmp_path / "tree", contents(full)
    with seeding(full, "--upload-limit", "4M") as peer:
        words = (plain.url, tree, *ALONE, "--peer", peer.address)
        for pause_s in (0.8, 1.2, 1.6, 2.0):
            with started("clone", *words) as process:
                time.sleep(pause_s)
                process.send(signal.SIGKILL)
                process.wait()
            if tree.exists():
                found = contents(tree)
                assert {path: expected[path] for path in found} == found
        run = bucketsync("clone", *map(str, words))
    assert run.code == 0
    assert contents(tree) == expected
    assert staged(tree) == []


def test_a_swarm_helps_its_seeder(host: Host, publisher: Publisher, tmp_path: Path) -> None:
    seeder, files = tmp_path / "seeder", publisher.tree_files()
    size_bytes = sum(map(len, files.values())) + padding(files)
    bucketsync("clone", host.url, seeder, "--source", "http")
    selections = [(), (), ("--variant", "original"), ("--bucket", "0..5"), ()]
    with seeding(seeder, "--upload-limit", "2M") as peer:
        leechers = [
            started("clone", host.url, tmp_path / str(number), *ALONE, *flags)
            for number, flags in enumerate(selections)
        ]
        processes = [leecher.__enter__() for leecher in leechers]
        runs: list[Run] = [process.finish() for process in processes]
        for leecher in leechers:
            leecher.__exit__(None, None, None)
        sent = peer.stop()["bytes_sent"]
    assert [run.code for run in runs] == [0] * len(runs)
    for number, flags in enumerate(selections):
        found = contents(tmp_path / str(number))
        if not flags:
            assert found == files
        assert {path: files[path] for path in found} == found
    assert sent < 2 * size_bytes
