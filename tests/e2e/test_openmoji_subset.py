"""A tagged part of OpenMoji: cloned, upgraded through the years, frozen, and had again.

What is selected is found a second time by a plain loop over the publisher's lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.client import Run, bucketsync, contents
from tests.support.commands import publisher, serving
from tests.support.npm import VERSIONS, openmoji_trees

RELEASES = [f"openmoji{version}" for version in VERSIONS]
QUERY = "(human or water or *animal* or travel) -people-body -*flag*"
# One variant is enough here.
COLOUR = ("--variant", "original")
EVERYTHING_MAY_GO = ("--delete", "--max-delete", "100%")


def matches(tags: set[str]) -> bool:
    """What QUERY says, in Python."""
    named = tags & {"human", "water", "travel"} or any("animal" in tag for tag in tags)
    return bool(named) and "people-body" not in tags and not any("flag" in tag for tag in tags)


def selected(tree: Path) -> set[int]:
    """The ids of a publisher's tree that match, in a loop over its lines."""
    lines = (tree / "metadata/posts000000000000.json").read_bytes().splitlines()
    rows = map(json.loads, lines)
    return {int(row["id"]) for row in rows if matches(set(row["tag_string"].split()))}


def subset(tree: Path) -> dict[str, bytes]:
    """The publisher's pictures of these ids by path."""
    paths = [f"original/{post % 1000:04d}/{post}.svg" for post in selected(tree)]
    return {path: (tree / path).read_bytes() for path in paths}


def dropped(run: Run) -> set[str]:
    """What a run named as not selected any more."""
    return {str(event["path"]) for event in run.named("dropped")}


def client(verb: str, *words: str | Path) -> Run:
    """A run that ends well."""
    run = bucketsync(verb, *words)
    assert run.code == 0, run.text
    return run


@pytest.fixture(scope="module")
def trees() -> list[Path]:
    return openmoji_trees()


@pytest.fixture(scope="module")
def url(trees: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    repo = tmp_path_factory.mktemp("openmoji") / "repo"
    publisher("init", repo, "--dataset", "openmoji")
    for release, tree in zip(RELEASES, trees, strict=True):
        publisher("publish", repo, "--release", release, "--tree", tree, *COLOUR)
    with serving(repo) as address:
        yield address


def test_the_years_differ(trees: list[Path]) -> None:
    """The query has newcomers, and posts that lost their tags, or the rest would show nothing."""
    years = [selected(tree) for tree in trees]
    assert all(new - old for old, new in pairwise(years))
    assert years[1] - years[2]
    assert min(map(len, years)) > 100


def test_all_places_find_the_same(url: str, trees: list[Path], tmp_path: Path) -> None:
    where = ("--url", url, "--state-dir", tmp_path)
    for release, tree in zip(RELEASES, trees, strict=True):
        found = client("search", QUERY, *where, "--release", release)
        assert found["ids"] == sorted(selected(tree), reverse=True)
        here = client("search", QUERY, "--metadata", tree / "metadata")
        assert here["ids"] == found["ids"]


def test_a_subset_stays_one(url: str, trees: list[Path], tmp_path: Path) -> None:
    tree, removed = tmp_path / "tree", 0
    client("clone", url, tree, "--release", RELEASES[0], "--select", QUERY)
    held = subset(trees[0])
    assert contents(tree) == held
    for release, source in zip(RELEASES[1:], trees[1:], strict=True):
        wanted = subset(source)
        run = client("upgrade", tree, "--to", release)
        assert dropped(run) == held.keys() - wanted.keys()
        assert run["files_added"] == len(wanted.keys() - held.keys())
        # What does not match any more stays as it was.
        assert contents(tree) == held | wanted
        assert client("status", tree, "--offline")["files_missing"] == 0
        run = client("upgrade", tree, "--to", release, *EVERYTHING_MAY_GO)
        assert run["files_removed"] == len(held.keys() - wanted.keys())
        assert contents(tree) == wanted
        held, removed = wanted, removed + run["files_removed"]
    assert removed > 0
    verified = client("verify", tree)
    assert (verified["files_checked"], verified["files_damaged"]) == (len(held), 0)


def test_one_jump_gives_the_same(url: str, trees: list[Path], tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    client("clone", url, tree, "--release", RELEASES[0], "--select", QUERY)
    client("upgrade", tree, *EVERYTHING_MAY_GO)
    assert contents(tree) == subset(trees[-1])


def test_a_lock_file_is_reproduced(url: str, trees: list[Path], tmp_path: Path) -> None:
    """By who has it, and by who asks the same; in years to come, too."""
    old = RELEASES[1]
    mine, theirs, asked = tmp_path / "mine", tmp_path / "theirs", tmp_path / "asked"
    client("clone", url, mine, "--release", RELEASES[0], "--select", QUERY)
    client("upgrade", mine, "--to", old, *EVERYTHING_MAY_GO)
    digest = client("lock", mine, "--out", tmp_path / "mine.lock")["digest"]
    client("clone", url, theirs, "--lock", tmp_path / "mine.lock")
    assert contents(theirs) == subset(trees[1])
    client("clone", url, asked, "--release", old, "--select", QUERY)
    for tree in (theirs, asked):
        again = client("lock", tree, "--out", tmp_path / "again.lock")
        assert (again["digest"], again["ids"]) == (digest, len(selected(trees[1])))
        assert (tmp_path / "again.lock").read_bytes() == (tmp_path / "mine.lock").read_bytes()
