"""Lock files: the same bytes for whoever has one, and what is no lock file is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import blake3
import pytest

from server.signing import open_signing
from tests.support.client import Run, bucketsync, contents
from tests.support.publisher import LAYOUT, Publisher
from tests.support.rawhost import raw_host

IDS = [3, 7, 12, 31]


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    made = Publisher(tmp_path_factory.mktemp("locks"))
    made.fill(range(1, 41))
    made.publish("y1")
    return made


@pytest.fixture(scope="module")
def lock(publisher: Publisher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lock")
    (folder / "ids").write_text(" ".join(map(str, IDS)))
    with raw_host(publisher.repo) as host:
        tree = folder / "tree"
        assert bucketsync("clone", host.url, tree, "--ids", folder / "ids").code == 0
    run = bucketsync("lock", tree, "--out", folder / "paper.lock")
    assert (run.code, run["ids"], run["release"]) == (0, len(IDS), "y1")
    assert run["digest"] == blake3.blake3((folder / "paper.lock").read_bytes()).hexdigest()
    return folder / "paper.lock"


def locked_files(publisher: Publisher) -> dict[str, bytes]:
    published = publisher.release_files("y1")
    paths = [LAYOUT.entry_path("original", number, "dat").text for number in IDS]
    return {path: published[path] for path in paths}


def clone(repo: Path, tree: Path, *flags: str | Path) -> Run:
    with raw_host(repo) as host:
        return bucketsync("clone", host.url, tree, *flags, "--retries", "1")


def test_a_lock_needs_no_signature_that_is_still_valid(
    publisher: Publisher, lock: Path, tmp_path: Path
) -> None:
    repo = shutil.copytree(publisher.repo, tmp_path / "expired")
    signing = open_signing(repo, publisher.repo.with_name("repo-keys"))
    signing.refresh(now=datetime.now(UTC) - timedelta(days=4000), everything=True)
    assert clone(repo, tmp_path / "plain").code == 6
    run = clone(repo, tmp_path / "tree", "--lock", lock)
    assert run.code == 0
    assert "expired on" in run.text
    assert contents(tmp_path / "tree") == locked_files(publisher)
    assert bucketsync("verify", tmp_path / "tree")["files_checked"] == len(IDS)


def test_a_lock_outlives_the_publishers_metadata(
    publisher: Publisher, lock: Path, tmp_path: Path
) -> None:
    repo = shutil.copytree(publisher.repo, tmp_path / "bare")
    shutil.rmtree(repo / "tuf/metadata")
    run = clone(repo, tmp_path / "tree", "--lock", lock)
    assert run.code == 0, run.text
    assert contents(tmp_path / "tree") == locked_files(publisher)


def test_a_clone_by_a_lock_goes_on(publisher: Publisher, lock: Path, tmp_path: Path) -> None:
    with raw_host(publisher.repo) as host:
        for added in (len(IDS), 1):
            run = bucketsync("clone", host.url, tmp_path / "tree", "--lock", lock)
            assert (run.code, run["files_added"]) == (0, added)
            (tmp_path / "tree" / next(iter(locked_files(publisher)))).unlink()


Change = Callable[[dict[str, Any], list[str]], None]


def other_descriptor(head: dict[str, Any], _: list[str]) -> None:
    head["descriptor"]["blake3"] = "0" * 64


def other_file(head: dict[str, Any], rows: list[str]) -> None:
    """A lock that agrees with itself, and not with the release."""
    path, size, digest = json.loads(rows[0])
    rows[0] = json.dumps([path, size, digest[::-1]], separators=(",", ":")) + "\n"
    head["files"] = blake3.blake3("".join(rows).encode()).hexdigest()


def cut_off(_: dict[str, Any], rows: list[str]) -> None:
    rows.pop()


def newer_format(head: dict[str, Any], _: list[str]) -> None:
    head["format"] = 2


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (other_descriptor, (6, "not the descriptor that the lock file names")),
        (other_file, (6, "the release y1 has")),
        (cut_off, (2, "its files are not those that its first line names")),
        (newer_format, (2, "format 2, expected 1")),
    ],
)
def test_another_lock_is_refused(
    publisher: Publisher, lock: Path, tmp_path: Path, change: Change, refusal: tuple[int, str]
) -> None:
    first, *rows = lock.read_text().splitlines(keepends=True)
    head = json.loads(first)
    change(head, rows)
    (tmp_path / "bad.lock").write_text(json.dumps(head) + "\n" + "".join(rows))
    run = clone(publisher.repo, tmp_path / "tree", "--lock", tmp_path / "bad.lock")
    assert run.code == refusal[0]
    assert refusal[1] in run.error
    assert not (tmp_path / "tree").exists() or contents(tmp_path / "tree") == {}


def test_what_is_no_lock_names_its_line(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "odd.lock").write_text("[]\n")
    run = clone(publisher.repo, tmp_path / "tree", "--lock", tmp_path / "odd.lock")
    assert run.code == 2
    assert "odd.lock:1: not a line of a lock file" in run.error


def test_a_lock_says_all_that_is_to_be_fetched(
    publisher: Publisher, lock: Path, tmp_path: Path
) -> None:
    run = clone(publisher.repo, tmp_path / "tree", "--lock", lock, "--variant", "original")
    assert run.code == 2
    assert "--variant cannot stand beside --lock" in run.error
