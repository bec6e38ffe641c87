"""``kill -9`` of a publish at any instant: nothing published is harmed, nothing is done twice."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from manifests.model import Descriptor
from tests.support.publisher import LAYOUT, Publisher, files_below

FILES = 400
# Before this, no process has come to its first file.
START_S = 0.3


def date(number: int) -> str:
    return f"{2000 + number}-06-01"


def change(publisher: Publisher, number: int) -> None:
    """A year of work on the tree: some files new, some changed, some gone, an asset changed."""
    first = 1 + number * FILES
    publisher.fill(range(first, first + FILES), size_bytes=4000)
    for post_id in range(max(1, first - FILES), first, 10):
        publisher.write(publisher.place(post_id), f"changed in {number}".encode())
    for post_id in range(max(5, first - FILES + 4), first, 50):
        publisher.place(post_id).unlink()
    publisher.write(publisher.tree / "README", f"year {number}".encode())


def is_killed(process: subprocess.Popen[bytes], delay_s: float) -> bool:
    """Kill after a while, unless the process has ended before."""
    try:
        _, stderr = process.communicate(timeout=delay_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    assert process.returncode == 0, stderr.decode()
    return False


@pytest.mark.parametrize(
    ("kills", "jobs", "flags"),
    [(20, "1", ()), (3, "2", ("--link", "hard")), (3, "2", ("--in-place",))],
)
def test_a_publish_killed_again_and_again_ends_like_one_that_was_not(
    tmp_path: Path, kills: int, jobs: str, flags: tuple[str, ...]
) -> None:
    publisher, undisturbed = Publisher(tmp_path / "killed"), Publisher(tmp_path / "undisturbed")
    chance = random.Random(7)  # noqa: S311
    releases: dict[str, Descriptor] = {}
    number = 0
    while kills > 0:
        release = f"y{number}"
        all_flags = ("--jobs", jobs, "--materialize-packs", *flags, "--date", date(number))
        change(publisher, number)
        change(undisturbed, number)
        began_at = time.monotonic()
        assert not is_killed(undisturbed.start(release, *all_flags), 600)
        longest_s = time.monotonic() - began_at
        while is_killed(publisher.start(release, *all_flags), chance.uniform(START_S, longest_s)):
            kills -= 1
            live = publisher.releases()
            assert {name: live[name] for name in releases} == releases
            for name in releases if not flags else ():
                publisher.release_files(name)
            if release in live:
                break
        releases = publisher.releases()
        assert releases == undisturbed.releases()
        number += 1
    # What the last kill left behind, if it came after the signature, goes with the next publish.
    for each in (publisher, undisturbed):
        change(each, number)
        assert not is_killed(each.start(f"y{number}", *all_flags, "--date", date(number)), 600)
    assert publisher.published_bytes() == undisturbed.published_bytes()


def finished_buckets(publisher: Publisher) -> int:
    """Buckets that an unfinished publish will not have to do again."""
    path = publisher.repo / ".publish" / "record.db"
    if not path.exists():
        return 0
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return int(db.execute("SELECT count(*) FROM links").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        db.close()


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(path.parent.name))
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_a_killed_publish_had_done_is_not_done_again(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    publisher.fill(range(1, 801), size_bytes=200_000)
    process = publisher.start("y1", "--jobs", "2", "--date", date(1))
    while finished_buckets(publisher) < 2 and process.poll() is None:
        os.sched_yield()
    workers = children(process.pid)
    process.kill()
    process.communicate()
    known = finished_buckets(publisher)
    assert 2 <= known < LAYOUT.buckets
    while any(map(is_running, workers)):
        os.sched_yield()
    kept = {path: path.stat().st_ino for path in (publisher.repo / "files/y1").rglob("*.dat")}
    summary = publisher.publish("y1", "--date", date(1)).summary
    per_bucket = 800 // LAYOUT.buckets
    assert summary["files_hashed"] == 800 - known * per_bucket
    assert summary["links"]["copy"] + summary["links"]["reflink"] == 800
    same = [path for path, inode in kept.items() if path.stat().st_ino == inode]
    assert len(same) >= known * per_bucket
    assert publisher.release_files("y1") == publisher.tree_files()
    assert files_below(publisher.repo / "files" / ".tmp") == {}


def test_a_publish_killed_just_after_signing_is_complete(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    publisher.fill(range(1, 20))
    signed = publisher.publish("y1", "--date", date(1))
    with sqlite3.connect(publisher.repo / ".publish" / "record.db") as record:
        record.execute("INSERT INTO links VALUES ('y1', 'original', 0, x'')")
    record.close()
    again = publisher.publish("y1", "--date", date(1))
    assert again.summary["release"] == signed.summary["release"]
    assert publisher.release_files("y1") == publisher.tree_files()
    publisher.publish("y1", "--date", date(1), expect=2)


def test_files_that_changed_since_the_kill_are_taken_as_they_are_now(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    publisher.fill(range(1, 801), size_bytes=200_000)
    process = publisher.start("y1", "--jobs", "2", "--date", date(1))
    while finished_buckets(publisher) < 2 and process.poll() is None:
        os.sched_yield()
    process.kill()
    process.communicate()
    done = sorted((publisher.repo / "files/y1/original").rglob("*.dat"))
    changed, gone = int(done[0].stem), int(done[1].stem)
    publisher.write(publisher.place(changed), b"changed after the kill")
    publisher.place(gone).unlink()
    publisher.publish("y1", "--date", date(2))
    assert publisher.release_files("y1") == publisher.tree_files()
    below = files_below(publisher.repo / "files" / "y1")
    assert below == publisher.tree_files()
    dates = {path.stat().st_mtime for path in (publisher.repo / "files/y1").rglob("*.dat")}
    assert dates == {publisher.releases()["y1"].created}


def test_a_layer_given_up_is_taken_away(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    publisher.fill(range(1, 801), size_bytes=200_000)
    process = publisher.start("mistake", "--jobs", "2", "--date", date(1))
    while finished_buckets(publisher) < 2 and process.poll() is None:
        os.sched_yield()
    process.kill()
    process.communicate()
    run = publisher.publish("y1", "--date", date(1))
    assert "what is left of mistake" in run.stderr
    assert sorted(path.name for path in (publisher.repo / "files").iterdir()) == ["y1"]
