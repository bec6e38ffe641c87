"""Nothing is taken for a wish to delete everything, and what was deleted comes back.

Disks that are not mounted, releases that have lost most of their files, and the way of a file into
the trash and out of it.  The guard itself, point by point: tests/e2e/test_invariants.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.client import bucketsync, contents, trashed
from tests.support.faultreport import Record
from tests.support.marks import long_but
from tests.support.mounts import tmpfs
from tests.support.rawhost import RawHost, raw_host
from tests.support.releases import Publisher, make_publisher, random_files

DISK_BYTES = 96 * 2**20
KEPT = 10


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """Three releases of two variants; the last has a tenth of the files."""
    made = make_publisher(tmp_path_factory.mktemp("releases"))
    first = random_files(range(1, 151), size_bytes=2000)
    first |= random_files(range(1, 61), variant="512px", size_bytes=500)
    made.publish("y1", first, {"README": b"one"})
    second = first | random_files(range(151, 161), size_bytes=2000)
    made.publish("y2", second, {"README": b"one"})
    few = {key: value for key, value in second.items() if key[1] <= KEPT}
    made.publish("y3", few, {})
    return made


@pytest.fixture(scope="module")
def host(publisher: Publisher) -> Iterator[RawHost]:
    with raw_host(publisher.repo) as running:
        yield running


@pytest.fixture(scope="module")
def cloned(host: RawHost, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("cloned") / "tree"
    assert bucketsync("clone", host.url, tree, "--release", "y1").code == 0
    return tree


@pytest.fixture
def tree(cloned: Path, tmp_path: Path) -> Path:
    return shutil.copytree(cloned, tmp_path / "tree", symlinks=True)


# --------------------------------------------------------------------------- a release of little


@pytest.mark.parametrize(
    "flags", [(), ("--yes",), ("--max-delete", "50%"), ("--max-delete", "99")]
)
def test_a_release_that_lost_most_of_its_files_does_not_empty_a_tree(
    tree: Path, host: RawHost, record: Record, flags: tuple[str, ...]
) -> None:
    before = contents(tree)
    done = bucketsync("upgrade", tree, "--delete", "--mirror", host.url, *flags)
    record("release of little", survived=done.code == 25, lost=len(before) - len(contents(tree)))
    assert done.code == 25
    assert "--max-delete" in done.error
    assert contents(tree) == before
    assert bucketsync("status", tree, "--offline")["release"] == "y1"


def test_a_plan_of_deletions_is_held_by_the_guard_too(
    tree: Path, host: RawHost, tmp_path: Path
) -> None:
    before, plan = contents(tree), tmp_path / "plan"
    words = ("--to", "y3", "--delete", "--out", plan, "--mirror", host.url)
    assert bucketsync("plan", tree, *words).code == 0
    assert bucketsync("apply", plan, "--mirror", host.url).code == 25
    assert contents(tree) == before
    allowed = bucketsync("apply", plan, "--mirror", host.url, "--max-delete", "100%")
    assert allowed.code == 0, allowed.text


def test_what_was_deleted_on_purpose_comes_back_whole(
    tree: Path, publisher: Publisher, host: RawHost, record: Record
) -> None:
    """Deleted, restored, deleted again: two runs of the trash, and one file stands there again."""
    before, few = contents(tree), publisher.newest.tree()
    words = ("upgrade", tree, "--delete", "--mirror", host.url, "--max-delete", "100%")
    assert bucketsync(*words).code == 0
    assert contents(tree) == few
    assert trashed(tree) == {f"deleted/{path}": before[path] for path in before.keys() - few}
    listed = bucketsync("trash", "list", tree)
    assert (listed["files"], listed["bytes"]) == (
        len(before) - len(few),
        sum(len(data) for path, data in before.items() if path not in few),
    )
    mine = tree / "512px/0001/31.png"
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_bytes(b"the user's own by now")
    done = bucketsync("trash", "restore", tree)
    assert (done.code, done["files"]) == (3, listed["files"] - 1)
    assert contents(tree) == before | {"512px/0001/31.png": b"the user's own by now"}
    assert trashed(tree) == {"deleted/512px/0001/31.png": before["512px/0001/31.png"]}
    assert bucketsync(*words).code == 0
    assert contents(tree) == few | {"512px/0001/31.png": b"the user's own by now"}
    mine.unlink()
    assert bucketsync("trash", "restore", tree)["files"] == listed["files"]
    lost = [path for path, data in before.items() if contents(tree).get(path) != data]
    record("trash round trip", survived=1, lost=len(lost))
    assert lost == []
    assert bucketsync("upgrade", tree, "--to", "y1", "--mirror", host.url).code == 0
    assert bucketsync("trash", "empty", tree)["files"] == 0


# --------------------------------------------------------------------------- disks not mounted


@pytest.mark.parametrize("variant", long_but({"512px"}, ["original", "512px"]))
@pytest.mark.parametrize("state", ["there", "lost"])
@pytest.mark.parametrize("place", long_but({"empty"}, ["empty", "gone"]))
def test_a_variant_whose_disk_is_not_mounted_is_not_fetched_again(  # noqa: PLR0913
    publisher: Publisher,
    host: RawHost,
    tmp_path: Path,
    record: Record,
    variant: str,
    state: str,
    place: str,
) -> None:
    """Neither onto the disk of the mount point, nor is anything deleted elsewhere."""
    tree, mount = tmp_path / "tree", tmp_path / "mount"
    with tmpfs(mount, size_bytes=DISK_BYTES):
        flags = ("--variant-dir", f"{variant}={mount / 'files'}")
        assert bucketsync("clone", host.url, tree, "--release", "y1", *flags).code == 0
    if place == "empty":
        (mount / "files").mkdir()
    if state == "lost":
        for path in (tree / ".bucketsync").glob("state.db*"):
            path.unlink()
    before = contents(tree)
    for to in ("y1", "y2"):
        words = ("upgrade", tree, "--to", to, "--delete", "--mirror", host.url)
        done = bucketsync(*words)
        assert done.code == 7, done.text
        assert "mounted" in done.error
        assert str(mount) in done.error
    assert bucketsync("verify", tree, "--repair").code in {3, 7}
    assert bucketsync("status", tree, "--offline").code == 3
    lost = [path for path in before if path not in contents(tree)]
    record("disk not mounted", survived=1, lost=len(lost))
    assert lost == []
    assert contents(mount) == {}
    assert bucketsync("upgrade", tree, "--to", "y1", "--mirror", host.url, "--yes").code == 0
    assert len(contents(mount)) == sum(v == variant for v, _ in publisher.editions["y1"].files)


@pytest.mark.parametrize(
    "words",
    long_but(
        [("upgrade", "{tree}", "--delete")],
        [
            (("upgrade", "{tree}", "--delete"),),
            (("verify", "{tree}", "--repair"),),
            (("status", "{tree}"),),
            (("plan", "{tree}", "--out", "{tree}/../plan"),),
            (("trash", "empty", "{tree}"),),
            (("seed", "{tree}"),),
            (("checkout", "y1", "{tree}/../past", "--tree", "{tree}"),),
        ],
    ),
)
def test_a_tree_whose_disk_is_not_mounted_is_no_tree(
    host: RawHost, tmp_path: Path, record: Record, words: tuple[str, ...]
) -> None:
    tree = tmp_path / "mount"
    with tmpfs(tree, size_bytes=DISK_BYTES):
        assert bucketsync("clone", host.url, tree, "--release", "y1").code == 0
    done = bucketsync(words[0], *(word.format(tree=tree) for word in words[1:]))
    record("disk not mounted", survived=done.code == 10)
    assert done.code == 10, done.text
    assert list(tree.iterdir()) == []
