"""``--with-metadata``: the publisher's own lines about what is selected, kept right like files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from server.cli import main as server
from tests.support.client import bucketsync, trashed
from tests.support.mounts import tmpfs
from tests.support.publisher import Publisher
from tests.support.rawhost import RawHost, for_paths, raw_host, refuse

POSTS = 3000
# A post of the metadata that has no file, and one that nobody has told of.
NO_FILE, UNKNOWN = 2999, 777_777
SOME = [1, 2, 3, 50, 90, NO_FILE]
TABLES = {"artists": b'{"id":"2"}\n{"id":"1"}\n', "tags": b'{"id":"7","name":"a"}\n'}


def line(post_id: int, year: int) -> bytes:
    row = {"id": str(post_id), "tag_string": f"tag{post_id} year{year}", "pad": "é" * 200}
    return json.dumps(row, ensure_ascii=False).encode()


def lines(ids: Iterable[int], year: int) -> bytes:
    return b"".join(line(post_id, year) + b"\n" for post_id in ids)


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """y1: shards out of order, the later one tells anew of some posts.  y2: new from 2500 on."""
    made = Publisher(tmp_path_factory.mktemp("rows"))
    made.fill(range(1, 101))
    folder = made.tree / "metadata"
    superseded = lines(range(1499, 1400, -1), 0)
    first = lines(range(POSTS, 1499, -1), 1) + superseded
    made.write(folder / "posts000000000000.json", first)
    made.write(folder / "posts000000000001.json", lines(range(1, 1500), 1)[:-1])
    for table, text in TABLES.items():
        made.write(folder / f"{table}000000000000.json", text)
    made.publish("y1", "--date", "2021-01-01")
    made.fill(range(101, 111))
    made.write(folder / "posts000000000000.json", lines(range(2500, POSTS), 2))
    made.write(folder / "posts000000000001.json", lines(range(1, 2500), 1))
    made.publish("y2", "--date", "2022-01-01")
    return made


@pytest.fixture
def host(publisher: Publisher) -> Iterator[RawHost]:
    with raw_host(publisher.repo) as running:
        yield running


def rows(tree: Path, release: str, table: str = "posts") -> bytes:
    return (tree / "metadata" / release / f"{table}.json").read_bytes()


def write_ids(folder: Path, ids: Iterable[int]) -> Path:
    path = folder / "ids.txt"
    path.write_text("\n".join(map(str, ids)))
    return path


def clone_some(host: RawHost, folder: Path) -> Path:
    """A tree of y1 with 5 files and rows of 6 posts."""
    ids = write_ids(folder, [*SOME, UNKNOWN])
    flags = ("--release", "y1", "--ids", ids, "--with-metadata")
    assert bucketsync("clone", host.url, folder / "tree", *flags).code == 0
    return folder / "tree"


@pytest.fixture
def alone(publisher: Publisher, tmp_path: Path) -> Path:
    """Such a tree, whose host is gone."""
    with raw_host(publisher.repo) as running:
        return clone_some(running, tmp_path)


def test_a_lock_brings_the_rows_too_if_they_are_asked_for(host: RawHost, tmp_path: Path) -> None:
    first = clone_some(host, tmp_path)
    assert bucketsync("lock", first, "--out", tmp_path / "lock").code == 0
    second = tmp_path / "second"
    flags = ("--lock", tmp_path / "lock", "--with-metadata")
    assert bucketsync("clone", host.url, second, *flags).code == 0
    with_files = [line(number, 1) for number in SOME if number != NO_FILE]
    assert rows(second, "y1").splitlines() == with_files
    assert rows(second, "y1", "tags") == rows(first, "y1", "tags")


def test_publish_says_what_it_ships(publisher: Publisher) -> None:
    first, second = publisher.releases()["y1"], publisher.releases()["y2"]
    assert [table.name for table in first.tables] == ["artists", "posts", "tags"]
    assert first.tables[1].rows == POSTS
    assert first.tables[1].raw_bytes == len(lines(range(1, POSTS + 1), 1))
    # A table that did not change is the same object.
    assert (first.tables[0], first.tables[2]) == (second.tables[0], second.tables[2])
    assert first.tables[1] != second.tables[1]


def test_a_whole_clone_has_every_line(host: RawHost, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    run = bucketsync("clone", host.url, tree, "--release", "y1", "--with-metadata")
    assert run.code == 0
    assert rows(tree, "y1") == lines(range(1, POSTS + 1), 1)
    for table, text in TABLES.items():
        assert rows(tree, "y1", table) == text
    assert run["files_added"] == 100 + 3
    written = sum(path.stat().st_size for path in (tree / "original").rglob("*.dat"))
    written += len(rows(tree, "y1")) + sum(map(len, TABLES.values()))
    assert run["bytes_written"] == written
    before = len(host.log)
    again = bucketsync("upgrade", tree, "--to", "y1")
    assert (again["files_kept"], again["files_added"]) == (103, 0)
    assert not [exchange for exchange in host.log[before:] if "objects/" in exchange.path]


def test_a_subset_brings_its_lines_and_few_bytes(
    publisher: Publisher, host: RawHost, tmp_path: Path
) -> None:
    tree = clone_some(host, tmp_path)
    assert rows(tree, "y1") == lines(SOME, 1)
    assert rows(tree, "y1", "artists") == TABLES["artists"]
    posts = publisher.releases()["y1"].tables[1].ref
    digest = posts.digest.hex
    sent = sum(exchange.sent_bytes for exchange in host.asked(f"objects/{digest[:2]}/{digest}"))
    assert sent < posts.size_bytes / 2
    assert bucketsync("status", tree, "--offline").code == 0


def test_buckets_bring_the_lines_of_their_files(host: RawHost, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    flags = ("--release", "y1", "--bucket", "2..3", "--with-metadata")
    assert bucketsync("clone", host.url, tree, *flags).code == 0
    assert rows(tree, "y1") == lines([n for n in range(1, 101) if n % 8 in {2, 3}], 1)


def test_an_upgrade_brings_the_next_release_and_keeps_the_past(
    host: RawHost, tmp_path: Path
) -> None:
    tree = clone_some(host, tmp_path)
    run = bucketsync("upgrade", tree)
    assert run.code == 0
    assert rows(tree, "y2") == lines([1, 2, 3, 50, 90], 1) + line(NO_FILE, 2) + b"\n"
    assert rows(tree, "y1") == lines(SOME, 1)
    assert run["files_added"] == 3


def test_a_selection_that_grows_is_written_anew(host: RawHost, tmp_path: Path) -> None:
    tree = clone_some(host, tmp_path)
    more = write_ids(tmp_path, [*SOME, 60])
    run = bucketsync("upgrade", tree, "--to", "y1", "--ids", more)
    assert (run["files_added"], run["files_changed"], run["files_aside"]) == (1, 1, 0)
    assert rows(tree, "y1") == lines([1, 2, 3, 50, 60, 90, NO_FILE], 1)


def test_damage_is_found_and_repaired_offline(alone: Path) -> None:
    tree, path = alone, alone / "metadata/y1/posts.json"
    path.write_bytes(path.read_bytes().replace(b"tag50", b"tag51"))
    (tree / "metadata/y1/tags.json").unlink()
    run = bucketsync("verify", tree)
    assert (run.code, run["files_damaged"], run["files_missing"]) == (4, 1, 1)
    names = {event["path"] for name in ("damaged", "missing") for event in run.named(name)}
    assert names == {"metadata/y1/posts.json", "metadata/y1/tags.json"}
    run = bucketsync("verify", tree, "--repair")
    assert (run.code, run["files_repaired"]) == (0, 2)
    assert rows(tree, "y1") == lines(SOME, 1)
    assert bucketsync("verify", tree).code == 0


def test_damage_below_an_unchanged_mtime_is_repaired_in_place(alone: Path) -> None:
    tree, path = alone, alone / "metadata/y1/posts.json"
    stat = path.stat()
    path.write_bytes(path.read_bytes().replace(b"tag50", b"tag51"))
    os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    assert bucketsync("status", tree, "--offline").code == 0
    assert bucketsync("verify", tree).code == 4
    assert bucketsync("status", tree, "--offline").code == 4
    assert bucketsync("verify", tree, "--repair").code == 0
    assert rows(tree, "y1") == lines(SOME, 1)
    assert trashed(tree) == {}


def test_a_missing_file_is_told_and_made_again(host: RawHost, tmp_path: Path) -> None:
    tree = clone_some(host, tmp_path)
    (tree / "metadata/y1/posts.json").unlink()
    run = bucketsync("status", tree, "--offline")
    assert (run.code, run["files_missing"]) == (3, 1)
    assert bucketsync("upgrade", tree, "--to", "y1")["files_added"] == 1
    assert rows(tree, "y1") == lines(SOME, 1)


def test_a_lost_state_costs_a_look_at_the_cache(alone: Path) -> None:
    (alone / ".bucketsync/state.db").unlink()
    run = bucketsync("status", alone, "--offline")
    assert (run.code, run["files_ok"]) == (0, 5 + 3)


def test_a_file_of_the_users_moves_aside(host: RawHost, tmp_path: Path) -> None:
    tree = clone_some(host, tmp_path)
    mine = tree / "metadata/y2/posts.json"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    run = bucketsync("upgrade", tree)
    assert (run.code, run["files_aside"]) == (0, 1)
    assert b"mine" in trashed(tree).values()
    assert NO_FILE in {int(json.loads(text)["id"]) for text in rows(tree, "y2").splitlines()}


def test_adopt_keeps_lines_that_are_right(host: RawHost, tmp_path: Path) -> None:
    tree = clone_some(host, tmp_path)
    shutil.rmtree(tree / ".bucketsync")
    inode = (tree / "metadata/y1/posts.json").stat().st_ino
    ids = write_ids(tmp_path, SOME)
    flags = ("--release", "y1", "--ids", ids, "--with-metadata")
    run = bucketsync("adopt", host.url, tree, *flags)
    assert (run.code, run["files_aside"]) == (0, 0)
    assert (tree / "metadata/y1/posts.json").stat().st_ino == inode
    assert bucketsync("status", tree, "--offline")["files_ok"] == 5 + 3


def test_a_checkout_has_the_lines_of_its_release(publisher: Publisher, tmp_path: Path) -> None:
    with raw_host(publisher.repo) as host:
        tree = clone_some(host, tmp_path)
        assert bucketsync("upgrade", tree).code == 0
    assert bucketsync("checkout", "y1", tmp_path / "past", "--tree", tree).code == 0
    assert rows(tmp_path / "past", "y1") == lines(SOME, 1)
    assert not (tmp_path / "past/metadata/y2").exists()


def test_a_host_that_fails_costs_no_file_that_was_finished(
    publisher: Publisher, tmp_path: Path
) -> None:
    digest = publisher.releases()["y1"].tables[1].ref.digest.hex
    tree, flags = tmp_path / "tree", ("--release", "y1", "--with-metadata", "--retries", "1")
    with raw_host(
        publisher.repo, for_paths(f"objects/{digest[:2]}/{digest}", refuse(503))
    ) as host:
        run = bucketsync("clone", host.url, tree, *flags)
        assert run.code == 5
        assert run["files_added"] == 100 + 1
    assert bucketsync("status", tree, "--offline")["files_missing"] == 2
    with raw_host(publisher.repo) as host:
        run = bucketsync("upgrade", tree, "--mirror", host.url, "--to", "y1", "--retries", "1")
        assert (run.code, run["files_added"], run["files_kept"]) == (0, 2, 101)
    assert rows(tree, "y1") == lines(range(1, POSTS + 1), 1)


def test_files_of_metadata_are_counted_before_the_start(host: RawHost, tmp_path: Path) -> None:
    """There is room for the files and for what must stay free, not for the rows as well."""
    with tmpfs(tmp_path / "disk", size_bytes=65 * 2**20) as disk:
        flags = ("--release", "y1", "--with-metadata")
        run = bucketsync("clone", host.url, disk / "tree", *flags)
        assert run.code == 7
        assert "are to be written, but only" in run.error
        assert not (disk / "tree/original").exists()
        assert bucketsync("clone", host.url, disk / "other", "--release", "y1").code == 0


def test_a_release_without_metadata_is_told(tmp_path: Path) -> None:
    made = Publisher(tmp_path)
    made.fill(range(1, 4))
    made.publish("bare")
    with raw_host(made.repo) as host:
        run = bucketsync("clone", host.url, tmp_path / "clone", "--with-metadata")
    assert run.code == 0
    assert "bare was published without metadata" in run.text
    assert not (tmp_path / "clone/metadata").exists()


def test_a_plan_names_the_files_and_is_carried_out(host: RawHost, tmp_path: Path) -> None:
    tree = clone_some(host, tmp_path)
    plan = tmp_path / "plan"
    run = bucketsync("plan", tree, "--out", plan)
    assert run["files_to_add"] == 3
    folders = [json.loads(text).get("folder") for text in plan.read_text().splitlines()]
    assert "metadata/y2" in folders
    run = bucketsync("apply", plan)
    assert (run.code, run["files_added"], run["steps_stale"]) == (0, 3, 0)
    assert rows(tree, "y2", "tags") == TABLES["tags"]


def test_no_metadata_unless_asked_for(host: RawHost, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    assert bucketsync("clone", host.url, tree, "--bucket", "1").code == 0
    assert not (tree / "metadata").exists()
    run = bucketsync("adopt", host.url, tree, "--with-metadata", "--no-fetch")
    assert run.code == 3
    assert bucketsync("upgrade", tree).code == 0
    assert rows(tree, "y2", "artists") == TABLES["artists"]


def test_both_generations_of_the_sample(tmp_path: Path) -> None:
    """2019 has rows of the old sort, 2020 of the new one: each comes as it was written."""
    years, repo = tmp_path / "years", tmp_path / "repo"
    assert server(["sample", str(years), "--releases", "2", "--posts", "30", "-q"]) == 0
    assert server(["init", str(repo), "--dataset", "sample", "-q"]) == 0
    for year in ("2019", "2020"):
        words = ["--release", year, "--tree", str(years / year), "--jobs", "1", "-q"]
        assert server(["publish", str(repo), *words]) == 0
    files = {
        "2019": years / "2019/metadata/2019/2019000000000000.json",
        "2020": years / "2020/metadata/posts000000000000.json",
    }
    with raw_host(repo) as host:
        for year, file in files.items():
            bucketsync("clone", host.url, tmp_path / year, "--release", year, "--with-metadata")
            theirs = {
                json.loads(text)["id"]: text
                for text in file.read_bytes().splitlines(keepends=True)
            }
            by_id = [theirs[number] for number in sorted(theirs, key=int)]
            assert rows(tmp_path / year, year) == b"".join(by_id)
        tags = (years / "2020/metadata/tags000000000000.json").read_bytes()
        assert rows(tmp_path / "2020", "2020", "tags") == tags
