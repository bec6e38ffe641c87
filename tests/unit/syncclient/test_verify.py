"""Verification: every byte, a share of them, or as many as time allows; offline."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from syncclient.state import State
from syncclient.verify import _slices
from tests.support.client import Run, bucketsync, contents, trashed
from tests.support.rawhost import raw_host
from tests.support.releases import (
    Publisher,
    entries_of,
    make_publisher,
    random_files,
)

README = b"read me"


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """One release with 100 files and an asset."""
    made = make_publisher(tmp_path_factory.mktemp("release"))
    made.publish("y1", random_files(range(1, 101), size_bytes=300), {"README": README})
    return made


@pytest.fixture(scope="module")
def cloned(publisher: Publisher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete tree of a host that is gone."""
    tree = tmp_path_factory.mktemp("cloned") / "tree"
    with raw_host(publisher.repo) as host:
        assert bucketsync("clone", host.url, tree).code == 0
    return tree


@pytest.fixture
def tree(cloned: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(cloned, tmp_path / "tree", symlinks=True)


def flip_bit(path: Path) -> None:
    """Damage as a disk does it: size and time stay."""
    info, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def file_of(tree: Path, number: int) -> Path:
    (found,) = tree.glob(f"original/{number % 10:04d}/{number}.*")
    return found


def verify(tree: Path, *flags: str) -> Run:
    return bucketsync("verify", tree, "--retries", "1", *flags)


def test_a_right_tree_is_complete_without_any_host(tree: Path, publisher: Publisher) -> None:
    done = verify(tree)
    assert done.code == 0
    assert (done["files_checked"], done["files_damaged"], done["files_missing"]) == (101, 0, 0)
    assert done["bytes_checked"] == sum(len(d) for d in publisher.newest.tree().values())
    assert done["files_repaired"] == 0


def test_damage_is_found_and_named_though_time_and_size_hold(tree: Path) -> None:
    flip_bit(file_of(tree, 7))
    flip_bit(tree / "README")
    file_of(tree, 8).unlink()
    done = verify(tree)
    assert done.code == 4
    assert (done["files_damaged"], done["files_missing"]) == (2, 1)
    assert {event["path"] for event in done.named("damaged")} == {
        "original/0007/7.png",
        "README",
    }
    assert {event["path"] for event in done.named("missing")} == {"original/0008/8.jpg"}


def test_only_missing_is_incomplete(tree: Path) -> None:
    (tree / "README").unlink()
    assert verify(tree).code == 3


@pytest.mark.parametrize("kind", ["link", "folder", "other bytes"])
def test_anything_that_is_not_the_entry_is_damage(tree: Path, kind: str) -> None:
    path = file_of(tree, 7)
    path.unlink()
    if kind == "link":
        path.symlink_to(file_of(tree, 17))
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"of the user")
    assert (verify(tree).code, verify(tree)["files_damaged"]) == (4, 1)


def test_repair_replaces_damage_and_moves_the_users_aside(
    tree: Path, publisher: Publisher
) -> None:
    flip_bit(file_of(tree, 7))
    flip_bit(tree / "README")
    file_of(tree, 8).unlink()
    file_of(tree, 9).write_bytes(b"of the user")
    with raw_host(publisher.repo) as host:
        done = verify(tree, "--repair", "--mirror", host.url)
        assert done.code == 0
        assert done["files_repaired"] == 4
        assert len(host.asked("objects/")) == 1
    assert contents(tree) == publisher.newest.tree()
    assert trashed(tree) == {"aside/original/0009/9.png": b"of the user"}
    assert verify(tree).code == 0


def test_a_repair_that_finds_no_host_leaves_the_damage_told(tree: Path) -> None:
    flip_bit(file_of(tree, 7))
    done = verify(tree, "--repair")
    assert (done.code, done["files_damaged"], done["files_repaired"]) == (4, 1, 0)
    assert "cannot be reached" in done.error
    assert verify(tree).code == 4


def test_damage_that_was_mended_unnoticed_is_not_fetched_again(
    tree: Path, publisher: Publisher
) -> None:
    """A repair that is killed has placed files of which the state says that they are damaged."""
    for path in (file_of(tree, 7), tree / "README"):
        flip_bit(path)
    assert verify(tree).code == 4
    for path in (file_of(tree, 7), tree / "README"):
        flip_bit(path)
    with raw_host(publisher.repo) as host:
        done = bucketsync("upgrade", tree, "--mirror", host.url)
        assert (done.code, done["files_changed"], done["files_aside"]) == (0, 0, 0)
        assert host.asked("packs/") == host.asked("files/") == host.asked("objects/") == []
    assert bucketsync("status", tree, "--offline").code == 0


def test_a_sample_reads_a_share(tree: Path) -> None:
    done = verify(tree, "--sample", "30%")
    assert done.code == 0
    assert 5 < done["files_checked"] < 70
    for path in tree.glob("original/*/*"):
        flip_bit(path)
    done = verify(tree, "--sample", "50%")
    assert done.code == 4
    assert 10 < done["files_damaged"] < 90


def test_what_a_sample_or_a_resume_read_is_kept_apart(tree: Path) -> None:
    verify(tree, "--sample", "100%")
    verify(tree, "--sample", "50%")
    assert verify(tree, "--resume")["files_checked"] == 101


def test_a_round_that_was_cut_short_goes_on(tree: Path) -> None:
    done = verify(tree, "--max-duration", "0")
    assert (done.code, done["finished"]) == (8, False)
    checked = done["files_checked"]
    done = verify(tree, "--resume")
    assert (done.code, done["finished"]) == (0, True)
    assert done["files_checked"] >= 101 - checked
    assert verify(tree)["files_checked"] == 101


def test_a_resumed_round_reads_again_what_was_not_right(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a round that was cut short: what it noted is still there."""
    monkeypatch.setattr(State, "forget_verified", lambda _: None)
    flip_bit(file_of(tree, 7))
    file_of(tree, 8).unlink()
    assert verify(tree).code == 4
    done = verify(tree, "--resume")
    assert done.code == 4
    assert (done["files_damaged"], done["files_missing"]) == (1, 1)
    assert done["files_checked"] == 21


def test_a_resumed_round_leaves_out_what_was_read(tree: Path) -> None:
    """Read bucket by bucket: the state remembers which."""
    import sqlite3  # noqa: PLC0415 (nothing else here looks into the state)
    from contextlib import closing  # noqa: PLC0415

    with closing(sqlite3.connect(tree / ".bucketsync/state.db")) as db, db:
        db.executemany("INSERT INTO verified VALUES ('original', ?)", [(n,) for n in range(7)])
    flip_bit(file_of(tree, 3))
    done = verify(tree, "--resume")
    assert done["files_checked"] == 31
    assert done.code == 0
    assert verify(tree, "--resume").code == 4


def test_tasks_are_bounded_in_files_and_bytes() -> None:
    small = dict.fromkeys(range(10, 10_010, 10), ("jpg", b"x"))
    pieces = list(_slices(entries_of(small)))
    assert max(piece.stop - piece.start for piece in pieces) == 256
    assert pieces[0].start == 0
    assert pieces[-1].stop == 1000
    assert list(_slices(entries_of({}))) == []
