"""The whole job on real data: OpenMoji's four releases, year by year and in one jump."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import client, differences, publisher, serving
from tests.support.needs import needs
from tests.support.npm import VERSIONS, openmoji_trees

RELEASES = [f"openmoji{version}" for version in VERSIONS]
METADATA = "metadata"


@pytest.fixture(scope="module")
def trees() -> list[Path]:
    return openmoji_trees()


@pytest.fixture(scope="module")
def url(trees: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    repo = tmp_path_factory.mktemp("openmoji") / "repo"
    publisher("init", repo, "--dataset", "openmoji")
    for release, tree in zip(RELEASES, trees, strict=True):
        publisher("publish", repo, "--release", release, "--tree", tree)
    with serving(repo) as address:
        yield address


def assert_same(tree: Path, source: Path) -> None:
    assert differences(tree, source, METADATA) == []


def test_year_by_year_and_back(url: str, trees: list[Path], tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    client("clone", url, tree, "--release", RELEASES[0])
    assert_same(tree, trees[0])
    for release, source in zip(RELEASES[1:], trees[1:], strict=True):
        changed = ["upgrade", tree, "--to", release, "--delete", "--max-delete", "100%"]
        client(*changed)
        assert_same(tree, source)
    assert client("status", tree).summary["files_missing"] == 0

    past = tmp_path / "past"
    done = client("checkout", RELEASES[0], past, "--tree", tree).summary
    assert_same(past, trees[0])
    assert done["files_linked"] > done["files_fetched"] > 0


def test_one_jump_fetches_little_and_verifies(url: str, trees: list[Path], tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    client("clone", url, tree, "--release", RELEASES[0])
    done = client("upgrade", tree, "--delete", "--max-delete", "100%").summary
    assert_same(tree, trees[-1])
    assert done["release"] == RELEASES[-1]
    assert done["bytes_received"] < 1.05 * done["bytes_written"] + 100 * (
        done["files_added"] + done["files_changed"]
    )
    verified = client("verify", tree).summary
    assert verified["files_damaged"] == verified["files_missing"] == 0
    again = client("upgrade", tree).summary
    assert again["requests"] <= 2
    assert again["files_kept"] == verified["files_checked"]


@needs("rsync")
def test_an_rsync_tree_of_last_year_is_adopted(
    url: str, trees: list[Path], tmp_path: Path
) -> None:
    last_year = tmp_path / "openmoji-15"
    subprocess.run(["rsync", "-a", f"{trees[2]}/", last_year], check=True)
    tree = last_year.rename(tmp_path / "openmoji-16")
    done = client("adopt", url, tree).summary
    assert done["files_adopted"] == done["files_kept"] > 8000
    assert done["bytes_received"] < 3_000_000
    missing = [
        path for path in differences(tree, trees[3], METADATA) if not (tree / path).exists()
    ]
    assert missing == []
    assert client("status", tree).summary["files_missing"] == 0
