"""The client's verbs as people use them: hosts that fail or are gone, trees that lost a part."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from manifests.columns import CHUNK_BYTES
from server.signing import open_signing
from syncclient.state import State
from tests.support.buckets import There, to_record
from tests.support.client import Run, bucketsync, contents, started, trashed
from tests.support.commands import publisher as publishing
from tests.support.commands import serving
from tests.support.mounts import tmpfs
from tests.support.rawhost import (
    Answer,
    RawHost,
    Request,
    Script,
    cut,
    for_paths,
    garble,
    once,
    raw_host,
    refuse,
    slow,
    times,
)
from tests.support.releases import LAYOUT, Publisher, make_publisher, random_files

FILES = 2000
SIZE_BYTES = 700
LARGE = 3 * CHUNK_BYTES + 77


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """Two releases of two variants; the second has 1,000 new and changed originals, one large."""
    made = make_publisher(tmp_path_factory.mktemp("releases"))
    first = random_files(range(1, FILES + 1), size_bytes=SIZE_BYTES)
    first |= random_files(range(1, 101), variant="512px", size_bytes=100)
    first["original", 7] = ("mp4", os.urandom(LARGE))
    made.publish("y1", first, {"README": b"one"})
    second = first | random_files(range(11, 511), size_bytes=SIZE_BYTES, seed="second")
    second |= random_files(range(FILES + 1, FILES + 501), size_bytes=SIZE_BYTES)
    second["original", 8] = ("mp4", os.urandom(LARGE))
    second = {key: value for key, value in second.items() if key != ("original", 5)}
    made.publish("y2", second, {"README": b"two"})
    return made


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """Two releases of a few files."""
    made = make_publisher(tmp_path_factory.mktemp("small"))
    files = random_files(range(1, 101), size_bytes=SIZE_BYTES)
    files |= random_files(range(1, 51), variant="512px", size_bytes=100)
    made.publish("y1", files, {"README": b"one"})
    made.publish("y2", files | random_files(range(101, 121), size_bytes=SIZE_BYTES), {})
    return made


@pytest.fixture
def host(small: Publisher) -> Iterator[RawHost]:
    """An honest host of the small releases."""
    with raw_host(small.repo) as running:
        yield running


@pytest.fixture(scope="module")
def cloned(small: Publisher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of the first small release whose host is gone; not to be changed."""
    tree = tmp_path_factory.mktemp("cloned") / "tree"
    with raw_host(small.repo) as running:
        assert bucketsync("clone", running.url, tree, "--release", "y1").code == 0
    return tree


@pytest.fixture
def tree(cloned: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(cloned, tmp_path / "tree", symlinks=True)


ONCE = ("--retries", "1")


# --------------------------------------------------------------------------- what things cost


def test_an_upgrade_costs_what_changed(publisher: Publisher, tmp_path: Path) -> None:
    """At most 1.05 times the changed bytes, and 100 bytes of manifests a changed file."""
    tree = tmp_path / "tree"
    with raw_host(publisher.repo) as host:
        assert bucketsync("clone", host.url, tree, "--release", "y1").code == 0
        assert contents(tree) == publisher.editions["y1"].tree()
        host.log.clear()
        done = bucketsync("upgrade", tree)
        old, new = publisher.editions["y1"].tree(), publisher.newest.tree()
        changed = {path: data for path, data in new.items() if old.get(path) != data}
        assert (done.code, done["files_added"], done["files_changed"]) == (0, 501, 501)
        assert contents(tree).items() >= new.items()
        manifests = sum(exchange.sent_bytes for exchange in host.asked("objects/")) - len(b"two")
        assert manifests <= 100 * len(changed)
        total = sum(len(data) for data in changed.values())
        assert host.sent_bytes <= 1.05 * total
        assert done["bytes_received"] <= 1.05 * total
        assert done["bytes_received"] == host.sent_bytes - _refused(host)
        assert done["requests"] == len(host.log)
        assert done["bytes_written"] == total
        assert done["sources"] == {"http": done["bytes_received"], "torrent": 0, "local": 0}


def _refused(host: RawHost) -> int:
    """Bytes of error pages, which nobody reads."""
    return sum(exchange.sent_bytes for exchange in host.log if exchange.status >= 400)


def test_an_upgrade_with_nothing_new_makes_two_requests(tree: Path, small: Publisher) -> None:
    with raw_host(small.repo) as host:
        assert bucketsync("upgrade", tree, "--mirror", host.url, *ONCE).code == 0
        host.log.clear()
        done = bucketsync("upgrade", tree, "--mirror", host.url, *ONCE)
    assert done.code == 0
    assert len(host.log) <= 2
    assert (done["files_added"], done["bytes_written"]) == (0, 0)


def test_a_host_with_nothing_new_is_asked_one_thing(tree: Path, small: Publisher) -> None:
    known = tree / ".bucketsync/tuf/pinned/known.json"
    with raw_host(small.repo) as host:

        def asked(*flags: str) -> list[str]:
            host.log.clear()
            assert bucketsync("upgrade", tree, *flags).code == 0
            return [exchange.request.path for exchange in host.log]

        settings = tree / ".bucketsync/config.toml"
        text = re.sub(
            r"urls = \[.*?\]", f'urls = ["{host.url}"]', settings.read_text(), flags=re.DOTALL
        )
        settings.write_text(text)
        asked()
        assert asked() == asked("--quick") == ["tuf/metadata/timestamp.json"]
        # Whatever is not exactly as it was verified is verified again.
        for spoil in (known, tree / ".bucketsync/tuf/snapshot.json"):
            spoil.write_bytes(spoil.read_bytes()[:-9])
            assert len(asked()) > 1
            assert len(asked()) == 1


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_rate_holds_over_the_whole_run(publisher: Publisher, tmp_path: Path, jobs: str) -> None:
    rate = 100_000
    with raw_host(publisher.repo) as host:
        started_s = time.monotonic()
        words = ("--bucket", "1", "--bwlimit", "100k", "--jobs", jobs)
        done = bucketsync("clone", host.url, tmp_path / "tree", "--release", "y1", *words)
        seconds = time.monotonic() - started_s
    assert done.code == 0
    assert done["bytes_received"] > 150_000
    # Half a second's worth may come at once: for the manifests, and for the files.
    assert done["bytes_received"] <= rate * (seconds + 1)


# --------------------------------------------------------------------------- selections


def test_a_selection_is_kept(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("# mine\n7\n8 12\noriginal/0001/2001.png\n99999\n")
    tree = tmp_path / "tree"
    with raw_host(publisher.repo) as host:
        words = ("--variant", "original", "--ids", str(tmp_path / "ids"))
        assert bucketsync("clone", host.url, tree, "--release", "y1", *words).code == 0
        first = publisher.editions["y1"].tree(["original"], [7, 8, 12])
        assert contents(tree) == first
        status = bucketsync("status", tree)
        assert (status["files_ok"], status["newest"]) == (3, "y2")
        done = bucketsync("upgrade", tree, "--delete", "--max-delete", "100%")
        assert done.code == 0
        assert contents(tree) == publisher.newest.tree(["original"], [7, 8, 12, 2001])
        # A selection by buckets beside it, until it is changed again.
        assert bucketsync("upgrade", tree, "--bucket", "2..7").code == 0
        assert bucketsync("status", tree)["files_ok"] == 2
        assert bucketsync("verify", tree)["files_checked"] == 2
        done = bucketsync("upgrade", tree, "--delete", "--max-delete", "100%")
        assert (done.code, done["files_removed"]) == (0, 2)
        narrow = publisher.newest.tree(["original"], [7, 12])
        assert contents(tree) == narrow
        assert trashed(tree).keys() >= {f"deleted/{path}" for path in first.keys() - narrow.keys()}


def test_a_clone_that_goes_on_may_change_its_selection(host: RawHost, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    assert bucketsync("clone", host.url, tree, "--variant", "512px").code == 0
    assert len(contents(tree)) == 50
    assert bucketsync("clone", host.url, tree, "--variant", "original").code == 0
    assert bucketsync("status", tree)["selection"] == "variants original"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--variant", "gray"), "no variant 'gray', but 512px, original"),
        (("--bucket", "3..99"), "bucket 99 does not exist"),
        (("--release", "y9"), "there is no release 'y9'; the publisher signed: y1, y2"),
        (("--ids", "/nowhere/ids"), "/nowhere/ids: cannot be read"),
        (("--bwlimit", "fast"), "'fast' is not a size"),
        (("--variant-dir", "original"), "expected NAME=PATH"),
        (("--variant-dir=original=/x", "--variant-dir=512px=/x"), "cannot share a folder"),
        (("--mirror", "ftp://a.example"), "not the address of a repository"),
    ],
)
def test_a_wish_that_cannot_be_is_told_and_leaves_no_tree(
    host: RawHost, tmp_path: Path, words: tuple[str, str], says: str
) -> None:
    done = bucketsync("clone", host.url, tmp_path / "tree", *words)
    assert done.code == 2
    assert says in done.error
    assert bucketsync("status", tmp_path / "tree").code == 10


def test_a_variant_may_lie_on_another_disk(small: Publisher, tmp_path: Path) -> None:
    with raw_host(small.repo) as host, tmpfs(tmp_path / "disk", size_bytes=100 * 2**20) as disk:
        tree, other = tmp_path / "tree", disk / "originals"
        flag = f"--variant-dir=original={other}"
        assert bucketsync("clone", host.url, tree, "--release", "y1", flag).code == 0
        old = small.editions["y1"].tree()
        assert contents(tree) == {p: d for p, d in old.items() if not p.startswith("original/")}
        assert contents(other) == _below(old, "original/")
        (other / "0001" / "1.png").write_bytes(b"mine")
        done = bucketsync("upgrade", tree)
        assert done.code == 0
        assert contents(other) == _below(small.newest.tree(), "original/")
        assert trashed(other) == {"aside/0001/1.png": b"mine"}
        assert bucketsync("verify", tree).code == 0
        assert bucketsync("trash", "list", tree)["files"] == 1
        assert bucketsync("checkout", "y1", tmp_path / "old", "--tree", tree).code == 0
        assert contents(tmp_path / "old") == old


def _below(tree: dict[str, bytes], prefix: str) -> dict[str, bytes]:
    return {path[len(prefix) :]: data for path, data in tree.items() if path.startswith(prefix)}


def test_records_may_lie_elsewhere(host: RawHost, small: Publisher, tmp_path: Path) -> None:
    tree, records = tmp_path / "tree", ("--state-dir", str(tmp_path / "records"))
    assert bucketsync("clone", host.url, tree, "--release", "y1", *records).code == 0
    assert {path.name for path in (tree / ".bucketsync").iterdir()} == {
        "config.toml",
        "lock",
        "staging",
    }
    assert bucketsync("upgrade", tree, *records).code == 0
    assert contents(tree).items() >= small.newest.tree().items()


# --------------------------------------------------------------------------- hosts that fail


def test_mirrors_share_the_work_and_stand_in_for_each_other(
    publisher: Publisher, tmp_path: Path
) -> None:
    """One is dead, one sends wrong bytes, one is slow: the fourth is enough."""
    with raw_host(publisher.repo) as gone:
        dead = gone.url
    with (
        raw_host(publisher.repo, for_paths("packs/", garble)) as wrong,
        raw_host(publisher.repo, for_paths("packs/", slow(3000))) as slowly,
        raw_host(publisher.repo, for_paths("packs/", slow(2_000_000))) as good,
    ):
        mirrors = [f"--mirror={url}" for url in (wrong.url, slowly.url, good.url)]
        started_s = time.monotonic()
        words = (*mirrors, "--release", "y1", "--timeout", "5", "--retries", "3")
        done = bucketsync("clone", dead, tmp_path / "tree", *words)
        seconds = time.monotonic() - started_s
        assert wrong.asked("packs/")
        assert slowly.asked("packs/")
    assert done.code == 0
    assert contents(tmp_path / "tree") == publisher.editions["y1"].tree()
    # The slow one alone would take a bucket of 140 kB for 47 s.
    assert seconds < 30


def test_a_busy_host_is_waited_for_as_it_asks(small: Publisher, tmp_path: Path) -> None:
    busy = for_paths("packs/", refuse(429, Retry_After="1"))
    # The packs of all buckets are asked for at once: of both variants, and of the second layer.
    with raw_host(small.repo, times(3 * LAYOUT.buckets, busy)) as host:
        done = bucketsync("clone", host.url, tmp_path / "tree", "--retries", "2")
        refused = [e.at_s for e in host.log if e.status == 429]
        later = [e.at_s for e in host.asked("packs/") if e.at_s > max(refused)]
    assert done.code == 0
    assert min(later) - min(refused) >= 1
    assert contents(tmp_path / "tree") == small.newest.tree()


def test_what_is_busy_at_the_start_is_waited_for_too(small: Publisher, tmp_path: Path) -> None:
    busy = for_paths("tuf/metadata/timestamp.json", refuse(503, Retry_After="1"))
    with raw_host(small.repo, times(1, busy)) as host:
        started_s = time.monotonic()
        assert bucketsync("clone", host.url, tmp_path / "tree").code == 0
        assert time.monotonic() - started_s >= 1


def test_a_redirect_to_another_host_needs_leave(small: Publisher, tmp_path: Path) -> None:
    with raw_host(small.repo) as other:

        def away(request: Request, _: Answer) -> Answer:
            return Answer(status=307, headers={"Location": f"{other.url}/{request.path}"})

        with raw_host(small.repo, for_paths("packs/", away)) as host:
            done = bucketsync("clone", host.url, tmp_path / "a")
            assert done.code == 6
            assert "--allow-redirect 127.0.0.1" in done.error
            assert other.log == []
            assert contents(tmp_path / "a") == {}
            done = bucketsync("clone", host.url, tmp_path / "a", "--allow-redirect", "127.0.0.1")
            assert done.code == 0
            assert other.asked("packs/")
        with raw_host(small.repo, away) as host:
            assert bucketsync("clone", host.url, tmp_path / "b").code == 6
    assert contents(tmp_path / "a") == small.newest.tree()


def test_without_any_host_the_network_is_to_blame(small: Publisher, tmp_path: Path) -> None:
    with raw_host(small.repo) as host:
        gone = host.url
    done = bucketsync("clone", gone, tmp_path / "tree", *ONCE)
    assert done.code == 5
    assert gone in done.error
    assert bucketsync("releases", gone, *ONCE).code == 5


def test_a_host_that_dies_half_way_is_the_network_and_a_new_one_goes_on(
    small: Publisher, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    left = 6

    def mortal(_: Request, answer: Answer) -> Answer:
        nonlocal left
        left -= 1
        return answer if left >= 0 else replace(answer, cut_after=0)

    with raw_host(small.repo, for_paths("packs/", mortal)) as host:
        done = bucketsync("clone", host.url, tree, "--retries", "2", "--release", "y1")
        assert done.code == 5
        assert "run the same command again" in done.error
        kept = contents(tree)
        assert 0 < len(kept) < 151
        left = 10**6
        host.log.clear()
        done = bucketsync("clone", host.url, tree)
        assert (done.code, done["files_kept"], done["files_added"]) == (
            0,
            len(kept),
            151 - len(kept),
        )
    assert contents(tree) == small.editions["y1"].tree()


def test_files_that_no_host_has_are_named(small: Publisher, tmp_path: Path) -> None:
    lacks = for_paths("files/y1/original/0001/", refuse(404))
    gone = for_paths("files/y1/original/0001/", refuse(410))
    with (
        raw_host(small.repo, lacks, packs=False) as host,
        raw_host(small.repo, gone, packs=False) as mirror,
        raw_host(small.repo, packs=False) as whole,
    ):
        done = bucketsync("clone", host.url, tmp_path / "tree", "--mirror", mirror.url)
        assert (done.code, done["files_failed"]) == (3, 10)
        named = {event["path"] for event in done.named("failed")}
        tree = small.newest.tree()
        assert named == {p for p in tree if p.startswith("original/0001/")} - {
            "original/0001/101.png",
            "original/0001/111.png",
        }
        assert contents(tmp_path / "tree") == {p: d for p, d in tree.items() if p not in named}
        done = bucketsync("upgrade", tmp_path / "tree", "--mirror", whole.url)
        assert (done.code, done["files_added"]) == (0, 10)
    assert contents(tmp_path / "tree") == tree


def test_files_are_made_durable_by_a_later_run_not_at_once(host: RawHost, tmp_path: Path) -> None:
    def boots() -> set[str]:
        with closing(sqlite3.connect(state)) as db:
            return {boot for (boot,) in db.execute("SELECT boot FROM bucket")}

    tree = tmp_path / "tree"
    state = tree / ".bucketsync/state.db"
    assert bucketsync("clone", host.url, tree).code == 0
    this_boot = boots()
    assert bucketsync("status", tree).code == 0
    assert boots() == this_boot != {""}
    os.utime(state, (0, 0))
    assert bucketsync("status", tree).code == 0
    assert boots() == {""}


# --------------------------------------------------------------------------- large files


GONE = once(cut(2 * CHUNK_BYTES + 1000), refuse(500))


def cut_after_two_chunks(request: Request, answer: Answer) -> Answer:
    """The line breaks in the middle of a video, and the host is gone."""
    return for_paths("files/y1/original/0007/7.mp4", GONE)(request, answer)


def test_a_large_file_goes_on_chunk_by_chunk(publisher: Publisher, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tmp_path / "ids").write_text("7")
    words = ("--release", "y1", "--ids", str(tmp_path / "ids"))
    with raw_host(publisher.repo, cut_after_two_chunks) as host:
        assert bucketsync("clone", host.url, tree, *words, *ONCE).code == 5
        assert not list(tree.glob("original/*/7.mp4"))
        host.script = lambda _, answer: answer
        host.log.clear()
        assert bucketsync("clone", host.url, tree).code == 0
        sent = sum(exchange.sent_bytes for exchange in host.asked("files/"))
    assert sent == LARGE - 2 * CHUNK_BYTES
    assert contents(tree)["original/0007/7.mp4"] == publisher.newest.files["original", 7][1]


def test_a_large_file_is_repaired_by_the_chunk(publisher: Publisher, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tmp_path / "ids").write_text("7")
    words = ("--release", "y1", "--ids", str(tmp_path / "ids"))
    with raw_host(publisher.repo) as host:
        assert bucketsync("clone", host.url, tree, *words).code == 0
        path = tree / "original/0007/7.mp4"
        info = path.stat()
        with path.open("r+b") as file:
            file.seek(CHUNK_BYTES + 5)
            file.write(b"damage")
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
        host.log.clear()
        done = bucketsync("verify", tree, "--repair")
        assert (done.code, done["files_repaired"]) == (0, 1)
        assert sum(exchange.sent_bytes for exchange in host.asked("files/")) == CHUNK_BYTES
    assert path.read_bytes() == publisher.newest.files["original", 7][1]
    assert list((tree / ".bucketsync/staging").iterdir()) == []


# --------------------------------------------------------------------------- offline and expired


def expire(tree: Path, small: Publisher, tmp_path: Path) -> Path:
    """A repository whose signatures are over, and a tree that knows no others; the repository."""
    repo = shutil.copytree(small.repo, tmp_path / "expired")
    signing = open_signing(repo, small.repo.with_name("repo-keys"))
    signing.refresh(now=small.now - timedelta(days=4000), everything=True)
    metadata, kept = repo / "tuf/metadata", tree / ".bucketsync/tuf"
    shutil.copyfile(metadata / "timestamp.json", kept / "timestamp.json")
    for role in ("snapshot", "targets"):
        versions = metadata.glob(f"*.{role}.json")
        newest = max(versions, key=lambda path: int(path.name.partition(".")[0]))
        shutil.copyfile(newest, kept / f"{role}.json")
    return repo


def offline_runs(tree: Path, tmp_path: Path, small: Publisher) -> None:
    """Everything that needs no host, and says what is so."""
    old = small.editions["y1"].tree()
    status = bucketsync("status", tree, *ONCE)
    assert (status.code, status["newest"], status["files_ok"]) == (0, None, 151)
    assert bucketsync("verify", tree, *ONCE).code == 0
    listed = bucketsync("releases", tree, *ONCE)
    assert [release["name"] for release in listed["releases"]] == ["y1", "y2"]
    done = bucketsync("checkout", "y1", tmp_path / "out", "--tree", tree, *ONCE)
    assert (done.code, done["files_linked"], done["files_fetched"]) == (0, 151, 0)
    assert contents(tmp_path / "out") == old
    assert bucketsync("verify", tmp_path / "out", *ONCE).code == 0
    path = tree / "original/0001/1.png"
    # Not in place: the checkout may share its inode.
    path.unlink()
    path.write_bytes(b"not this")
    verified = bucketsync("verify", tree, *ONCE)
    assert (verified.code, verified["files_damaged"]) == (4, 1)
    assert bucketsync("status", tree, *ONCE).code == 4
    path.unlink()
    status = bucketsync("status", tree, *ONCE)
    assert (status.code, status["files_missing"]) == (3, 1)
    # And what is missing may come from another tree on this machine.
    done = bucketsync("upgrade", tree, "--to", "y1", "--local", tmp_path / "out", *ONCE)
    assert (done.code, done["files_added"], done["sources"]["local"]) == (
        0,
        1,
        len(old["original/0001/1.png"]),
    )
    assert contents(tree) == old


def test_a_tree_outlives_its_host(tree: Path, tmp_path: Path, small: Publisher) -> None:
    offline_runs(tree, tmp_path, small)


def test_a_tree_outlives_its_signatures(tree: Path, tmp_path: Path, small: Publisher) -> None:
    expire(tree, small, tmp_path)
    offline_runs(tree, tmp_path, small)


def test_an_upgrade_says_what_expired_and_finishes_what_was_begun(
    tree: Path, tmp_path: Path, small: Publisher
) -> None:
    repo = expire(tree, small, tmp_path)
    shutil.rmtree(tree / "original/0001")
    with raw_host(repo) as host:
        done = bucketsync("upgrade", tree, "--mirror", host.url, *ONCE)
        assert done.code == 6
        assert "expired on" in done.error
        assert "bucketsync-server refresh" in done.error
        assert contents(tree) == small.editions["y1"].tree()
        shutil.rmtree(tree / "original/0002")
        url = load_url(tree)
        done = bucketsync("clone", url, tree, "--mirror", host.url, *ONCE)
        assert done.code == 0
        fresh = bucketsync("clone", host.url, tmp_path / "fresh", *ONCE)
        assert fresh.code == 6
    assert contents(tree) == small.editions["y1"].tree()


def load_url(tree: Path) -> str:
    (line,) = [
        line
        for line in (tree / ".bucketsync/config.toml").read_text().splitlines()
        if "://" in line
    ]
    return line.split('"')[1]


def test_a_checkout_fetches_what_is_not_here(tree: Path, small: Publisher, tmp_path: Path) -> None:
    shutil.rmtree(tree / "original/0003")
    with raw_host(small.repo) as host:
        words = ("--tree", tree, "--mirror", host.url, *ONCE)
        done = bucketsync("checkout", "y2", tmp_path / "out", *words)
        assert (done.code, done["files_linked"], done["files_fetched"]) == (0, 140, 30)
        assert contents(tmp_path / "out") == small.newest.tree()
        # Once more, it goes on: nothing is left to do.
        done = bucketsync("checkout", "y2", tmp_path / "out", *words)
        assert (done.code, done["files_kept"]) == (0, 170)
        assert bucketsync("checkout", "y1", tmp_path / "out", *words).code == 2
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    assert bucketsync("checkout", "y1", tmp_path / "full", "--tree", tree).code == 2


def test_a_checkout_that_was_interrupted_goes_on(
    tree: Path, small: Publisher, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert bucketsync("checkout", "y1", out, "--tree", tree).code == 0
    for name in ("config.toml", "state.db", "tuf/timestamp.json"):
        (out / ".bucketsync" / name).unlink()
    shutil.rmtree(out / "original")
    shutil.rmtree(out / "512px")
    (out / "README").unlink()
    assert bucketsync("checkout", "y1", out, "--tree", tree).code == 0
    assert contents(out) == small.editions["y1"].tree()


# --------------------------------------------------------------------------- lost and locked


def test_a_tree_that_lost_its_settings_is_adopted(
    tree: Path, host: RawHost, small: Publisher
) -> None:
    (tree / ".bucketsync/config.toml").unlink()
    done = bucketsync("upgrade", tree)
    assert done.code == 10
    assert "bucketsync adopt URL DIR" in done.error
    done = bucketsync("clone", host.url, tree)
    assert done.code == 2
    assert "adopt" in done.error
    host.log.clear()
    done = bucketsync("adopt", host.url, tree, "--release", "y1")
    assert (done.code, done["files_kept"], done["files_added"]) == (0, 151, 0)
    assert host.asked("packs/") == host.asked("files/") == []
    assert contents(tree) == small.editions["y1"].tree()


def test_what_rsync_made_is_taken_over(small: Publisher, host: RawHost, tmp_path: Path) -> None:
    """No record, no times: whatever is right is kept, whatever is not is fetched."""
    tree = tmp_path / "tree"
    for path, data in small.editions["y1"].tree(["original"]).items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(data)
    (tree / "original/0001/1.png").write_bytes(b"the user's")
    (tree / "original/0002/2.jpg").unlink()
    done = bucketsync("adopt", host.url, tree)
    assert (done.code, done["files_adopted"], done["files_aside"]) == (0, 98, 1)
    assert done["files_added"] == 22
    assert bucketsync("status", tree)["selection"] == "variants original"
    expected = small.newest.tree(["original"]) | {"README": b"one"}
    assert contents(tree) == expected
    assert trashed(tree) == {"aside/original/0001/1.png": b"the user's"}


def test_a_folder_without_any_variant_is_not_adopted(host: RawHost, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    done = bucketsync("adopt", host.url, tmp_path / "letters")
    assert done.code == 2
    assert "no folder of a variant" in done.error
    assert bucketsync("status", tmp_path / "letters").code == 10
    assert bucketsync("adopt", host.url, tmp_path / "nowhere").code == 2


@pytest.mark.parametrize("damage", ["garbage", "newer", "gone", "torn"])
def test_a_lost_state_costs_time_and_no_bytes(tree: Path, small: Publisher, damage: str) -> None:
    path = tree / ".bucketsync/state.db"
    if damage == "gone":
        path.unlink()
    elif damage == "garbage":
        path.write_bytes(b"no database" * 999)
    else:
        data = bytearray(path.read_bytes())
        if damage == "newer":
            data[60:64] = (99).to_bytes(4, "big")
        else:
            data[8192:] = bytes(len(data) - 8192)
        path.write_bytes(data)
    with raw_host(small.repo) as host:
        done = bucketsync("upgrade", tree, "--to", "y1", "--mirror", host.url, *ONCE)
        assert host.log == []
    assert (done.code, done["files_kept"], done["files_added"]) == (0, 151, 0)
    assert len(done.named("warning")) == (damage != "gone")
    assert bucketsync("status", tree, "--offline").code == 0


def test_two_runs_on_one_tree_are_one_too_many(tree: Path, small: Publisher) -> None:
    words = ("--jobs", "1", *ONCE)
    with (
        raw_host(small.repo, for_paths("packs/", slow(200))) as host,
        started("upgrade", tree, "--mirror", host.url, *words) as process,
    ):
        host.wait_for("packs/")
        done = bucketsync("upgrade", tree)
        process.send(signal.SIGINT)
        ended = process.finish()
    assert done.code == 11
    assert "another run" in done.error
    assert ended.code == 130
    assert bucketsync("status", tree, "--offline").code == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupt_stops_cleanly_and_says_how_to_go_on(
    small: Publisher, tmp_path: Path, number: signal.Signals, jobs: str
) -> None:
    tree = tmp_path / "tree"
    with raw_host(small.repo, for_paths("packs/", slow(20_000))) as host:
        with started("clone", host.url, tree, "--jobs", jobs) as process:
            host.wait_for("packs/", 4)
            children = process.children()
            process.send(number)
            ended = process.finish()
        assert ended.code == 130
        assert "run the same command again to go on" in ended.text
        assert "Traceback" not in ended.text
        assert not any(Path(f"/proc/{pid}").exists() for pid in children)
        kept = contents(tree)
        host.script = lambda _, answer: answer
        done = bucketsync("clone", host.url, tree)
        assert (done.code, done["files_kept"]) == (0, len(kept))
    assert contents(tree) == small.newest.tree()


def test_a_worker_that_is_killed_is_told_and_costs_nothing(
    small: Publisher, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    with raw_host(small.repo, for_paths("packs/", slow(20_000))) as host:
        with started("clone", host.url, tree, "--jobs", "2") as process:
            host.wait_for("packs/")
            os.kill(process.children()[0], signal.SIGKILL)
            ended = process.finish()
        assert ended.code == 1
        assert "worker process ended" in ended.error
        host.script = lambda _, answer: answer
        assert bucketsync("clone", host.url, tree).code == 0
    assert contents(tree) == small.newest.tree()


# --------------------------------------------------------------------------- trust and occasions


def test_another_trees_files_are_a_source(tree: Path, small: Publisher, tmp_path: Path) -> None:
    with raw_host(small.repo) as host:
        done = bucketsync("clone", host.url, tmp_path / "new", "--local", tree)
        assert (done.code, done["files_added"]) == (0, 170)
        old = small.editions["y1"].tree()
        local = sum(len(data) for path, data in old.items() if path != "README")
        assert done["sources"]["local"] == local
    assert contents(tmp_path / "new") == small.newest.tree()
    # Copies: what is changed here changes nothing there.
    (tmp_path / "new/original/0001/1.png").write_bytes(b"changed")
    assert contents(tree) == old


def test_the_root_is_the_one_that_was_named(small: Publisher, tmp_path: Path) -> None:
    root = small.repo / "tuf/metadata/1.root.json"
    fingerprint = hashlib.sha256(root.read_bytes()).hexdigest()
    with raw_host(small.repo) as host:
        for number, text in enumerate((str(root), fingerprint, f"SHA256:{fingerprint.upper()}")):
            done = bucketsync("clone", host.url, tmp_path / str(number), "--trust-root", text)
            assert done.code == 0
            assert "first use" not in done.text
        done = bucketsync("clone", host.url, tmp_path / "x", "--trust-root", "0" * 64)
        assert done.code == 6
        assert fingerprint in done.error
        done = bucketsync("clone", host.url, tmp_path / "y")
        assert "first use" in done.text
        assert fingerprint in done.text


def test_releases_are_listed_with_counts_dates_and_bases(
    small: Publisher, host: RawHost, tree: Path
) -> None:
    for where in (host.url, tree):
        done = bucketsync("releases", where, *ONCE)
        assert done.code == 0
        first, second = done["releases"]
        assert (first["name"], first["base"]) == ("y1", None)
        assert (second["name"], second["base"]) == ("y2", "y1")
        assert first["created"] < second["created"]
        originals = [d for (v, _), (_, d) in small.newest.files.items() if v == "original"]
        assert second["variants"]["original"] == {
            "files": 120,
            "bytes": sum(map(len, originals)),
        }


def test_a_dry_run_writes_no_file(host: RawHost, tree: Path, tmp_path: Path) -> None:
    before = contents(tree)
    done = bucketsync("upgrade", tree, "-n", "--mirror", host.url, *ONCE)
    assert (done.code, done["files_to_add"]) == (0, 20)
    assert contents(tree) == before
    assert bucketsync("status", tree, "--offline")["release"] == "y1"
    done = bucketsync("clone", host.url, tmp_path / "new", "-n")
    assert (done.code, done["files_to_add"]) == (0, 170)
    assert contents(tmp_path / "new") == {}
    assert bucketsync("status", tmp_path / "new").code == 10


def test_an_older_release_is_an_upgrade_too(
    host: RawHost, small: Publisher, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    assert bucketsync("clone", host.url, tree).code == 0
    done = bucketsync("upgrade", tree, "--to", "y1", "--delete", "--max-delete", "20")
    assert (done.code, done["files_removed"], done["files_added"]) == (0, 20, 1)
    assert contents(tree) == small.editions["y1"].tree()


def test_a_variant_that_a_release_dropped_goes_like_files_that_it_dropped(tmp_path: Path) -> None:
    source, repo, tree = tmp_path / "source", tmp_path / "repo", tmp_path / "tree"
    for variant, number in itertools.product(("original", "512px"), range(1, 41)):
        path = source / variant / f"{number % 10:04d}" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
    publishing("init", repo, "--dataset", "small", "--buckets", 10)
    publishing("publish", repo, "--release", "y1", "--tree", source, "--no-torrents")
    flags = ("--variant", "original", "--no-torrents")
    publishing("publish", repo, "--release", "y2", "--tree", source, *flags)
    with serving(repo) as url:
        assert bucketsync("clone", url, tree, "--release", "y1").code == 0
        (tree / "512px/0001/1.bin").write_bytes(b"mine")
        kept = bucketsync("upgrade", tree)
        assert (kept.code, kept["files_removed"], kept["files_kept"]) == (0, 0, 40)
        assert bucketsync("upgrade", tree, "--delete").code == 25
        done = bucketsync("upgrade", tree, "--delete", "--max-delete", "39")
        assert (done.code, done["files_removed"]) == (0, 39)
    assert [path for path in contents(tree) if path.startswith("512px")] == ["512px/0001/1.bin"]
    assert bucketsync("status", tree, "--offline").code == 0
    with closing(sqlite3.connect(tree / ".bucketsync/state.db")) as db:
        assert db.execute("SELECT DISTINCT variant FROM bucket").fetchall() == [("original",)]


def test_what_stands_for_a_dropped_variant_now_is_the_users(
    tree: Path, host: RawHost, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tree / ".bucketsync/state.db")) as db:
        db.execute(
            "INSERT INTO bucket SELECT '64px', bucket, folder_mtime, settled, files, boot, data "
            "FROM bucket WHERE variant = 'original'"
        )
        db.commit()
    (tree / "64px").symlink_to(tmp_path)
    done = bucketsync("upgrade", tree, "--mirror", host.url, "--delete", *ONCE)
    assert (done.code, done["files_removed"]) == (0, 1)
    assert "64px is no folder any more" in done.text
    (tree / "64px").unlink()
    assert bucketsync("status", tree, "--offline").code == 0
    with closing(sqlite3.connect(tree / ".bucketsync/state.db")) as db:
        found = db.execute("SELECT DISTINCT variant FROM bucket ORDER BY variant").fetchall()
    assert found == [("512px",), ("original",)]


def test_files_of_a_dropped_variant_that_are_assets_now_stay(tmp_path: Path) -> None:
    files = random_files(range(1, 31), size_bytes=SIZE_BYTES)
    paths = {f"512px/{n % 10:04d}/{n}.jpg": b"%d" % n for n in range(1, 21)}
    made = make_publisher(tmp_path / "made")
    made.publish("y1", files, paths)
    tree = tmp_path / "tree"
    with raw_host(made.repo) as running:
        assert bucketsync("clone", running.url, tree).code == 0
        with closing(State(tree / ".bucketsync/state.db", print)) as state:
            for bucket in range(10):
                here = (tree / f"512px/{bucket:04d}").iterdir()
                seen = {
                    path.name: There(data=path.read_bytes(), mtime_ns=path.stat().st_mtime_ns)
                    for path in here
                }
                state.store("512px", bucket, to_record(seen))
        done = bucketsync("upgrade", tree, "--delete", "--max-delete", "100%")
        assert (done.code, done["files_removed"], done["files_kept"]) == (0, 0, 50)
    assert contents(tree).keys() >= paths.keys()


def test_status_knows_of_a_newer_release(host: RawHost, tree: Path) -> None:
    status = bucketsync("status", tree, "--mirror", host.url, *ONCE)
    assert (status.code, status["release"], status["newest"]) == (0, "y1", "y2")
    (tree / "original/0001/mine.txt").write_text("mine")
    (tree / "original/0001/31.png").unlink()
    status = bucketsync("status", tree, "--offline")
    assert (status.code, status["files_missing"], status["files_extra"]) == (3, 1, 1)
    shutil.rmtree(tree / "original")
    status = bucketsync("status", tree, "--offline")
    assert (status.code, status["files_missing"]) == (3, 100)


def clone(host: RawHost, folder: Path, *words: str) -> Run:
    return bucketsync("clone", host.url, folder, *words)


def test_a_clone_needs_a_folder_of_its_own(host: RawHost, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    done = clone(host, tmp_path / "full")
    assert done.code == 2
    assert "bucketsync adopt URL DIR" in done.error
    (tmp_path / "file").write_text("mine")
    assert clone(host, tmp_path / "file").code == 2
    done = clone(host, tree)
    assert done.code == 2
    assert "is a tree of" in done.error
    assert contents(tmp_path / "full") == {"letter.txt": b"mine"}


def garbled_metadata(_: Request, answer: Answer) -> Answer:
    """A host that alters what is signed."""
    return replace(answer, body=answer.body.replace(b"y2", b"y3"))


@pytest.mark.parametrize(
    "script",
    [for_paths("tuf/metadata/", garbled_metadata), for_paths("tuf/targets/", garble)],
)
def test_what_is_not_signed_is_refused(small: Publisher, tmp_path: Path, script: Script) -> None:
    with raw_host(small.repo, script) as host:
        done = clone(host, tmp_path / "tree", *ONCE)
    assert done.code == 6
    assert contents(tmp_path / "tree") == {}
