"""The trash: everything put aside is listed, comes back where it was, or goes for good."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from manifests.errors import StoreError
from syncclient import trash
from syncclient.config import TreeConfig, save_tree_config
from syncclient.selection import Selection
from syncclient.store import Store
from tests.support.client import bucketsync, contents

OLD, NEW = "20200101T000000Z-1", "20210101T000000Z-1"


@pytest.fixture
async def tree(tmp_path: Path) -> Path:
    """A tree without a host: two runs put files aside."""
    made = tmp_path / "tree"
    config = TreeConfig(
        dataset="d", urls=("u",), root_fingerprint="", release="r", selection=Selection()
    )
    await save_tree_config(made, config)
    for run, kind, name in ((OLD, "deleted", "1.jpg"), (NEW, "aside", "2.jpg")):
        fill(made, run, kind, name)
    return made


def fill(tree: Path, run: str, kind: str, name: str) -> None:
    folder = tree / "original" / "0001"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(name.encode())
    with Store(tree, run) as store:
        store.put_aside(("original", "0001"), name, kind=kind)


def test_everything_is_listed(tree: Path) -> None:
    done = bucketsync("trash", "list", tree)
    assert (done.code, done["files"], done["bytes"]) == (0, 2, 10)
    assert [
        (event["run"], event["kind"], event["path"], event["bytes"])
        for event in done.named("file")
    ] == [
        (OLD, "deleted", "original/0001/1.jpg", 5),
        (NEW, "aside", "original/0001/2.jpg", 5),
    ]


def test_it_comes_back_where_it_was(tree: Path) -> None:
    shutil.rmtree(tree / "original")
    done = bucketsync("trash", "restore", tree)
    assert (done.code, done["files"]) == (0, 2)
    assert contents(tree) == {"original/0001/1.jpg": b"1.jpg", "original/0001/2.jpg": b"2.jpg"}
    assert bucketsync("trash", "list", tree)["files"] == 0
    assert list((tree / ".bucketsync/trash").iterdir()) == []


def test_nothing_is_overwritten(tree: Path) -> None:
    (tree / "original/0001/1.jpg").write_bytes(b"here by now")
    done = bucketsync("trash", "restore", tree)
    assert (done.code, done["files"]) == (3, 1)
    assert contents(tree)["original/0001/1.jpg"] == b"here by now"
    assert bucketsync("trash", "list", tree)["files"] == 1


def test_it_goes_for_good_by_age(tree: Path) -> None:
    years = (time.time() - 1_590_000_000) / 86400 / 365
    done = bucketsync("trash", "empty", tree, "--older-than", f"{years:.4f}y")
    assert (done.code, done["files"]) == (0, 1)
    assert bucketsync("trash", "list", tree).named("file")[0]["path"] == "original/0001/2.jpg"
    assert bucketsync("trash", "empty", tree)["files"] == 1
    assert bucketsync("trash", "list", tree)["files"] == 0
    assert bucketsync("trash", "list", tree, "--older-than", "1h")["files"] == 0


@pytest.mark.parametrize("action", ["restore", "empty"])
def test_a_dry_run_changes_nothing(tree: Path, action: str) -> None:
    assert bucketsync("trash", action, tree, "-n")["files"] == 2
    assert bucketsync("trash", "list", tree)["files"] == 2
    assert contents(tree) == {}


def test_what_is_no_file_is_listed_and_comes_back_too(tree: Path, tmp_path: Path) -> None:
    folder = tree / "original" / "0001"
    (folder / "3.jpg").symlink_to(tmp_path)
    (folder / "4.jpg").mkdir()
    (folder / "4.jpg" / os.fsdecode(b"caf\xe9")).write_bytes(b"inside")
    (folder / "5.jpg").symlink_to("nowhere")
    with Store(tree, NEW) as store:
        for name in ("3.jpg", "4.jpg", "5.jpg"):
            store.put_aside(("original", "0001"), name, kind="aside")
    assert bucketsync("trash", "list", tree)["files"] == 5
    assert bucketsync("trash", "restore", tree)["files"] == 5
    assert (folder / "3.jpg").readlink() == tmp_path
    assert (folder / "5.jpg").readlink() == Path("nowhere")
    assert len(contents(folder / "4.jpg")) == 1


@pytest.mark.parametrize("level", ["original", "original/0001"])
def test_nothing_comes_back_through_a_link(tree: Path, tmp_path: Path, level: str) -> None:
    outside = tmp_path / "outside"
    (outside / "0001").mkdir(parents=True)
    shutil.rmtree(tree / "original")
    (tree / level).parent.mkdir(exist_ok=True)
    (tree / level).symlink_to(outside)
    done = bucketsync("trash", "restore", tree)
    assert done.code == 7
    assert "symbolic link" in done.error
    assert list(outside.rglob("*.jpg")) == []


@pytest.mark.parametrize("action", ["list", "restore", "empty"])
@pytest.mark.parametrize(
    "level",
    [".", "trash", f"trash/{OLD}", f"trash/{OLD}/deleted", f"trash/{OLD}/deleted/original"],
)
def test_a_link_in_the_trash_leads_nowhere(
    tree: Path, tmp_path: Path, action: str, level: str
) -> None:
    place, outside = tree / ".bucketsync" / level, tmp_path / "outside"
    shutil.copytree(place, outside)
    before = contents(outside)
    assert before
    shutil.rmtree(place)
    place.symlink_to(outside)
    done = bucketsync("trash", action, tree)
    assert contents(outside) == before
    if level in {".", "trash"}:
        assert done.code in {7, 10}
        assert "link" in done.error
    else:
        assert done["files"] <= 2
    assert "original/0001/1.jpg" not in contents(tree)


def test_what_cannot_be_put_back_is_named(tree: Path) -> None:
    item = next(trash.listing([tree]))
    item.location.unlink()
    with pytest.raises(StoreError, match=r"1\.jpg: No such file"):
        trash.restore(item)
