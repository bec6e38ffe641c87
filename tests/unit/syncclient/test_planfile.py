"""A plan as a file: what it says is done and nothing else, and what changed since is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from manifests.errors import ConfigError
from syncclient.planfile import read_plan
from tests.support.client import Run, bucketsync, contents, trashed
from tests.support.rawhost import RawHost, raw_host
from tests.support.releases import Publisher, make_publisher, random_files


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """Two releases: ids 1 to 3 change, 4 and 5 go, 101 and 102 come; assets do the same."""
    made = make_publisher(tmp_path_factory.mktemp("release"))
    first = random_files(range(1, 101), size_bytes=300)
    made.publish("y1", first, {"README": b"one", "old/gone": b"old"})
    second = {key: value for key, value in first.items() if key[1] not in {4, 5}}
    second |= random_files([1, 2, 3, 101, 102], size_bytes=300, seed="second")
    made.publish("y2", second, {"README": b"two", "new": b"new"})
    return made


@pytest.fixture(scope="module")
def host(publisher: Publisher) -> Iterator[RawHost]:
    """An honest host."""
    with raw_host(publisher.repo) as running:
        yield running


@pytest.fixture(scope="module")
def cloned(host: RawHost, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of the first release, not to be changed."""
    tree = tmp_path_factory.mktemp("cloned") / "tree"
    assert bucketsync("clone", host.url, tree, "--release", "y1").code == 0
    return tree


@pytest.fixture
def tree(cloned: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(cloned, tmp_path / "tree", symlinks=True)


def plan(tree: Path, *flags: str) -> Path:
    out = tree.parent / "plan"
    done = bucketsync("plan", tree, "--out", out, *flags)
    assert done.code == 0
    return out


def steps(path: Path) -> dict[str, dict[str, list[str]]]:
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()[1:]]
    return {line.pop("folder"): line for line in lines}


def apply(path: Path, *words: str | Path) -> Run:
    return bucketsync("apply", path, *words)


def test_a_plan_says_what_an_upgrade_would_do(tree: Path, publisher: Publisher) -> None:
    before = contents(tree)
    done = bucketsync("plan", tree, "--out", tree.parent / "plan", "--delete")
    assert done["files_to_add"] == 3
    assert done["files_to_change"] == 4
    assert done["files_to_remove"] == 3
    new = publisher.newest.files
    sizes = [len(new["original", number][1]) for number in (1, 2, 3, 101, 102)]
    assert done["bytes_to_fetch"] == sum(sizes) + len(b"two") + len(b"new")
    assert steps(tree.parent / "plan") == {
        "": {"add": ["new"], "change": ["README"], "remove": ["old/gone"]},
        "original/0001": {"add": ["101.png"], "change": ["1.png"]},
        "original/0002": {"add": ["102.jpg"], "change": ["2.jpg"]},
        "original/0003": {"change": ["3.png"]},
        "original/0004": {"remove": ["4.jpg"]},
        "original/0005": {"remove": ["5.png"]},
    }
    assert contents(tree) == before
    assert bucketsync("status", tree)["release"] == "y1"


def test_a_plan_is_carried_out(tree: Path, publisher: Publisher) -> None:
    done = apply(plan(tree, "--delete", "--max-delete", "100%"), "--max-delete", "100%")
    assert done.code == 0
    assert (done["files_added"], done["files_changed"], done["files_removed"]) == (3, 4, 3)
    assert contents(tree) == publisher.newest.tree()
    status = bucketsync("status", tree)
    assert (status.code, status["release"]) == (0, "y2")


def test_without_delete_nothing_is_removed(tree: Path, publisher: Publisher) -> None:
    done = apply(plan(tree))
    assert (done.code, done["files_removed"]) == (0, 0)
    gone = {"original/0004/4.jpg", "original/0005/5.png", "old/gone"}
    assert contents(tree).keys() == publisher.newest.tree().keys() | gone


def test_twice_is_once(tree: Path) -> None:
    path = plan(tree, "--delete", "--max-delete", "100%")
    apply(path, "--max-delete", "100%")
    done = apply(path, "--max-delete", "100%")
    assert (done.code, done["steps_stale"], done["files_added"]) == (0, 0, 0)


def test_only_what_was_left_in_a_plan_is_done(tree: Path, publisher: Publisher) -> None:
    """The rest of the release is missing then, and that is no complete tree."""
    path = plan(tree)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if b"0001" not in line))
    done = apply(path)
    assert (done.code, done["steps_stale"]) == (3, 0)
    missing = {"original/0001/101.png"}
    assert contents(tree).keys() >= publisher.newest.tree().keys() - missing
    assert not contents(tree).keys() & missing


def test_what_was_left_out_of_a_plan_is_missing_afterwards(tree: Path) -> None:
    """Also where as many files are in the folder as are wanted, since one stays that is to go."""
    for number in (14, 24):
        (tree / f"original/0004/{number}.jpg").unlink()
    path = plan(tree)
    path.write_bytes(
        path.read_bytes().replace(b'"24.jpg"', b"").replace(b'"14.jpg",', b'"14.jpg"')
    )
    assert apply(path).code == 3
    assert not (tree / "original/0004/24.jpg").exists()
    status = bucketsync("status", tree)
    assert (status.code, status["files_missing"], status["files_extra"]) == (3, 1, 3)


def user_changes(tree: Path) -> None:
    (tree / "original/0001/1.png").write_bytes(b"of the user")


def user_adds(tree: Path) -> None:
    (tree / "original/0001/101.png").write_bytes(b"of the user")


def user_keeps(tree: Path) -> None:
    """What was to be removed is the user's by now."""
    (tree / "original/0004/4.jpg").write_bytes(b"of the user")


def user_changes_an_asset(tree: Path) -> None:
    (tree / "README").write_bytes(b"of the user")


def user_keeps_an_asset(tree: Path) -> None:
    (tree / "old/gone").write_bytes(b"of the user")


@pytest.mark.parametrize(
    "change",
    [user_changes, user_adds, user_keeps, user_changes_an_asset, user_keeps_an_asset],
)
def test_a_step_on_a_file_that_changed_since_is_refused(
    tree: Path, change: Callable[[Path], None]
) -> None:
    path = plan(tree, "--delete", "--max-delete", "100%")
    change(tree)
    done = apply(path, "--max-delete", "100%")
    assert (done.code, done["steps_stale"]) == (3, 1)
    assert b"of the user" in contents(tree).values()
    assert trashed(tree).keys() <= {
        "deleted/original/0004/4.jpg",
        "deleted/original/0005/5.png",
        "deleted/old/gone",
    }
    # All other steps are done.
    assert "original/0002/102.jpg" in contents(tree)


def test_what_was_lost_since_is_missing_and_told(tree: Path) -> None:
    path = plan(tree)
    (tree / "original/0009/9.png").unlink()
    done = apply(path)
    assert (done.code, done["steps_stale"]) == (3, 0)
    assert not (tree / "original/0009/9.png").exists()


def test_what_the_user_has_is_put_aside_only_if_the_plan_says_so(tree: Path) -> None:
    user_changes(tree)
    path = plan(tree)
    assert steps(path)["original/0001"]["aside"] == ["1.png"]
    done = apply(path)
    assert (done.code, done["files_aside"]) == (0, 1)
    assert trashed(tree) == {"aside/original/0001/1.png": b"of the user"}


def test_a_plan_keeps_its_selection(tree: Path) -> None:
    path = plan(tree, "--bucket", "1")
    assert apply(path).code == 0
    assert "original/0001/101.png" in contents(tree)
    assert "original/0002/102.jpg" not in contents(tree)
    assert bucketsync("status", tree)["selection"] == "all variants, buckets 1 to 1"


def test_ids_of_a_plan_are_kept_too(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("2\n102\n")
    path = plan(tree, "--ids", str(tmp_path / "ids"))
    assert steps(path) == {"original/0002": {"add": ["102.jpg"], "change": ["2.jpg"]}}
    assert apply(path).code == 0
    assert bucketsync("status", tree)["files_ok"] == 2


def test_a_plan_knows_its_tree(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plan(tree)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert apply(path, "-n").code == 0
    assert apply(path, tmp_path / "elsewhere").code == 10
    assert apply(path).code == 0


def test_a_dry_run_changes_nothing(tree: Path) -> None:
    before = contents(tree)
    done = apply(plan(tree, "--delete"), "-n")
    assert (done.code, done["files_to_add"]) == (0, 3)
    assert contents(tree) == before


def test_a_plan_for_another_dataset_or_release_is_refused(tree: Path) -> None:
    path = plan(tree)
    text = path.read_bytes()
    path.write_bytes(text.replace(b'"tiny"', b'"other"'))
    assert "a plan for other" in apply(path).error
    head = orjson.loads(text.splitlines()[0])
    path.write_bytes(text.replace(head["descriptor"].encode(), b"0" * 64))
    done = apply(path)
    assert done.code == 2
    assert "another y2" in done.error


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"{", b"["),
        (b'"format":1', b'"format":2'),
        (b'"dataset"', b'"data"'),
        (b'"ids":null', b'"ids":"many"'),
        (b'"ids":null', b'"ids":[-1]'),
        (b'"buckets":null', b'"buckets":[1]'),
        (b'"folder"', b'"place"'),
        (b'"add":[', b'"add":7,"more":['),
    ],
)
def test_what_is_no_plan_is_named_with_its_line(tree: Path, old: bytes, new: bytes) -> None:
    path = plan(tree)
    text = path.read_bytes()
    assert old in text
    path.write_bytes(text.replace(old, new))
    with pytest.raises(ConfigError, match=str(path)):
        read_plan(path)
    assert apply(path).code == 2


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "nowhere" in apply(tmp_path / "nowhere").error


def test_a_plan_that_cannot_be_written_is_named(tree: Path) -> None:
    done = bucketsync("plan", tree, "--out", tree / "no" / "folder")
    assert done.code == 7
    assert "no/folder" in done.error
