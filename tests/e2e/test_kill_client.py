"""``kill -9`` of a clone and of an upgrade at any instant, then the same command.

After each kill no visible file is wrong; the last run makes the same tree as an undisturbed one;
and no byte of a file that was finished is asked for again.  Twenty kills each, half of them with
worker processes.
"""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from manifests.paths import PRIVATE_FOLDER
from tests.support.client import Process, bucketsync, contents, started
from tests.support.rawhost import RawHost, raw_host, repository_content, slow
from tests.support.releases import Publisher, make_publisher, random_files
from tests.support.survival import fetched_again, places

KILLS = 10
# Larger than the gaps that are fetched along: a finished file between two missing ones counts.
FILE_BYTES = 6000
FILES = 400
# A bucket takes a quarter of a second: some finish before a kill, some do not.
PACE_BYTES_S = 1_000_000
# The longest that a process goes on after its host has sent what it is killed for.
LATE_S = 0.02


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    made = make_publisher(tmp_path_factory.mktemp("publisher"))
    first = random_files(range(1, FILES + 1), size_bytes=FILE_BYTES)
    made.publish("y1", first, {"README": b"one"})
    changed = random_files(range(1, 100), size_bytes=FILE_BYTES, seed="y2")
    added = random_files(range(FILES + 1, 2 * FILES), size_bytes=FILE_BYTES)
    gone = {("original", number) for number in range(200, 220)}
    second = {key: data for key, data in (first | changed | added).items() if key not in gone}
    made.publish("y2", second, {"README": b"two"})
    return made


@pytest.fixture
def host(publisher: Publisher) -> Iterator[RawHost]:
    with raw_host(repository_content(publisher.repo), slow(PACE_BYTES_S)) as running:
        yield running


def die(process: Process, host: RawHost, sent_bytes: int, late_s: float) -> bool:
    """Kill when the host has sent so much, and a moment later; whether it had not ended before."""
    host.wait_for_bytes(sent_bytes)
    with suppress(subprocess.TimeoutExpired):
        process.wait_for(late_s)
        return False
    process.send(signal.SIGKILL)
    process.wait()
    return True


def right(tree: Path, editions: list[dict[str, bytes]]) -> dict[str, bytes]:
    """What is visible in a tree; all of it must be the bytes of one of the editions."""
    found = contents(tree) if tree.exists() else {}
    wrong = [path for path, data in found.items() if all(e.get(path) != data for e in editions)]
    assert wrong == []
    return found


def kill_often(  # noqa: PLR0913 (a job, and all that it is held against)
    words: tuple[str, ...],
    tree: Path,
    publisher: Publisher,
    host: RawHost,
    old: dict[str, bytes],
    new: dict[str, bytes],
) -> None:
    source = random.Random(" ".join(words[2:]))  # noqa: S311 (instants of kills)
    packs = places(publisher)
    wanted = sum(len(data) for path, data in new.items() if old.get(path) != data)
    step_bytes = wanted // (2 * KILLS)
    for _ in range(KILLS):
        finished = {
            path for path, data in right(tree, [old, new]).items() if new.get(path) == data
        }
        before = len(host.log)
        with started(*words) as process:
            sent_bytes = host.sent_bytes + source.randrange(step_bytes)
            assert die(process, host, sent_bytes, source.uniform(0, LATE_S))
        assert fetched_again(host.log[before:], finished, packs) == []
    before = len(host.log)
    finished = {path for path, data in right(tree, [old, new]).items() if new.get(path) == data}
    assert finished
    done = bucketsync(*words)
    assert done.code == 0
    assert done["files_added"] + done["files_changed"] <= len(new) - len(finished)
    assert fetched_again(host.log[before:], finished, packs) == []
    assert contents(tree) == new
    staging = tree / PRIVATE_FOLDER / "staging"
    assert list(staging.iterdir()) == []


@pytest.mark.parametrize("jobs", ["1", "2"], ids=["one process", "worker processes"])
def test_a_clone_survives(publisher: Publisher, host: RawHost, tmp_path: Path, jobs: str) -> None:
    tree, new = tmp_path / "tree", publisher.editions["y1"].tree()
    words = ("clone", host.url, str(tree), "--release", "y1", "--jobs", jobs)
    kill_often(words, tree, publisher, host, {}, new)


@pytest.mark.parametrize("jobs", ["1", "2"], ids=["one process", "worker processes"])
def test_an_upgrade_survives(
    publisher: Publisher, host: RawHost, tmp_path: Path, jobs: str
) -> None:
    tree = tmp_path / "tree"
    old, new = (publisher.editions[name].tree() for name in ("y1", "y2"))
    host.script = lambda _, answer: answer
    assert bucketsync("clone", host.url, tree, "--release", "y1").code == 0
    host.script = slow(PACE_BYTES_S)
    words = ("upgrade", str(tree), "--delete", "--jobs", jobs)
    kill_often(words, tree, publisher, host, old, new)
