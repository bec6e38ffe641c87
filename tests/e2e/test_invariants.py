"""What must always hold (docs/explanation), point by point, with the real command line.

1. No file is visible under its final name before its BLAKE3 matched.
2. ``kill -9`` at any instant, then the same command: tests/e2e/test_kill_client.py.
3. Nothing is deleted without --delete; what is deleted goes to the trash; a guard stops at 10 %.
4. What is not ours is the user's: never overwritten, moved aside and named.
5. Nothing is written outside the tree.
6. Memory does not grow with the number of files; disk space is checked before the start.
7. Exit code 0 only if the tree is complete for its selection.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from manifests.columns import CHUNK_BYTES
from manifests.digest import digest_bytes
from tests.support.client import Run, bucketsync, contents, started, trashed
from tests.support.mounts import tmpfs
from tests.support.rawhost import (
    Answer,
    RawHost,
    Request,
    Script,
    cut,
    flip,
    for_paths,
    garble,
    raw_host,
    refuse,
    slow,
    times,
)
from tests.support.releases import LAYOUT, Publisher, make_publisher, random_files
from tests.support.watch import watching

LARGE = 7
# Long enough for small files to be far apart (4 KiB), so that no gap between wanted ones is read.
SIZE_BYTES = 6000


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """Two releases; the second changes ids 1 to 12, drops 21 to 24, renames 31, adds 201 on."""
    made = make_publisher(tmp_path_factory.mktemp("releases"))
    first = random_files(range(1, 101), size_bytes=SIZE_BYTES)
    first |= random_files(range(1, 31), variant="512px", size_bytes=500)
    first["original", LARGE] = ("mp4", os.urandom(2 * CHUNK_BYTES + 99))
    made.publish("y1", first, {"README": b"one", "lists/pools.json": b"[]"})
    second = {key: value for key, value in first.items() if key[1] not in range(21, 25)}
    changed = [*range(1, 13), *range(201, 221)]
    second |= random_files(changed, size_bytes=SIZE_BYTES, seed="second")
    second["original", 31] = ("gif", second["original", 31][1])
    second["original", LARGE] = ("mp4", os.urandom(2 * CHUNK_BYTES + 99))
    made.publish("y2", second, {"README": b"two"})
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


def file_of(tree: Path, number: int, variant: str = "original") -> Path:
    (found,) = tree.glob(f"{variant}/{LAYOUT.bucket_of(number):04d}/{number}.*")
    return found


def upgrade(tree: Path, host: RawHost, *flags: str | Path) -> Run:
    """Upgrade from another host of the same repository."""
    return bucketsync("upgrade", tree, "--mirror", host.url, *flags)


# ---------------------------------------------------------------- 1. whole or not at all


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("bad", [garble, cut(4000)], ids=["wrong bytes", "cut"])
def test_names_appear_with_the_right_bytes_at_once(
    tree: Path, publisher: Publisher, bad: Script, jobs: str
) -> None:
    """The kernel sees final names come by renames, once each, and nothing written to them."""
    script = times(12, for_paths("packs/", bad))
    folders = [*tree.glob("original/*"), *tree.glob("512px/*"), tree]
    with raw_host(publisher.repo, script) as host, watching(folders) as watch:
        done = upgrade(tree, host, "--jobs", jobs)
        events = watch.read()
    assert done.code == 0
    assert {kind for kind, _ in events} == {"moved here"}
    new = {
        path for path, data in publisher.newest.tree().items() if not _is_of(publisher, path, data)
    }
    assert sorted(str(path.relative_to(tree)) for _, path in events) == sorted(new)
    assert contents(tree).items() >= publisher.newest.tree().items()


def _is_of(publisher: Publisher, path: str, data: bytes) -> bool:
    """Whether the first release has that file as well."""
    return publisher.editions["y1"].tree().get(path) == data


def test_a_host_of_nothing_but_wrong_bytes_places_nothing(
    publisher: Publisher, tmp_path: Path
) -> None:
    def files_only(request: Request, answer: Answer) -> Answer:
        wrong = request.path.startswith(("packs/", "files/"))
        return garble(request, answer) if wrong else answer

    with raw_host(publisher.repo, files_only) as host:
        done = bucketsync("clone", host.url, tmp_path / "tree", "--release", "y1")
    assert done.code == 3
    assert contents(tmp_path / "tree") == {"README": b"one", "lists/pools.json": b"[]"}
    assert done["files_failed"] == 130
    assert done["files_added"] == 2


# ---------------------------------------------------------------- 3. deletions


def dropped(publisher: Publisher) -> set[str]:
    """Paths of the first release that the second one has no more."""
    return publisher.editions["y1"].tree().keys() - publisher.newest.tree().keys()


def test_nothing_is_deleted_unless_told(tree: Path, publisher: Publisher, host: RawHost) -> None:
    done = upgrade(tree, host)
    assert (done.code, done["files_removed"]) == (0, 0)
    assert contents(tree).keys() == publisher.newest.tree().keys() | dropped(publisher)
    assert trashed(tree) == {}
    assert "--delete moves them" in done.text


def test_what_is_deleted_lies_in_the_trash(
    tree: Path, publisher: Publisher, host: RawHost
) -> None:
    # Four files of two variants, one that was renamed, one asset.
    assert len(dropped(publisher)) == 10
    done = upgrade(tree, host, "--delete")
    assert (done.code, done["files_removed"]) == (0, 10)
    assert contents(tree) == publisher.newest.tree()
    old = publisher.editions["y1"].tree()
    assert trashed(tree) == {f"deleted/{path}": old[path] for path in dropped(publisher)}
    assert bucketsync("trash", "restore", tree)["files"] == 10
    assert contents(tree) == publisher.newest.tree() | {p: old[p] for p in dropped(publisher)}


@pytest.mark.parametrize("limit", ["9", "0", "7%", "0%"])
def test_a_guard_stops_before_anything_is_changed(tree: Path, host: RawHost, limit: str) -> None:
    before = contents(tree)
    done = upgrade(tree, host, "--delete", "--max-delete", limit)
    assert done.code == 25
    assert "10 of " in done.error
    assert "--max-delete" in done.error
    assert contents(tree) == before


@pytest.mark.parametrize("limit", ["10", "8%", "100%"])
def test_the_guard_lets_pass_what_is_allowed(
    tree: Path, publisher: Publisher, host: RawHost, limit: str
) -> None:
    assert upgrade(tree, host, "--delete", "--max-delete", limit).code == 0
    assert contents(tree) == publisher.newest.tree()


def test_the_guard_is_at_ten_percent_and_yes_does_not_widen_it(
    tree: Path, publisher: Publisher, host: RawHost
) -> None:
    """Less of a tree makes the same ten files a greater share of it."""
    narrow = ("--bucket", "0..4")
    for path in tree.glob("*/000[5-9]"):
        shutil.rmtree(path)
    old, new = publisher.editions["y1"].tree(), publisher.newest.tree()
    here = [path for path in old if path.split("/")[-2:-1] and path.split("/")[-2] < "0005"]
    gone = [path for path in here if path not in new]
    assert 0.1 < len(gone) / len(here) < 0.2
    done = upgrade(tree, host, *narrow, "--delete", "--yes")
    assert done.code == 25
    done = upgrade(tree, host, *narrow, "--delete", "--max-delete", "20%")
    assert done.code == 0
    assert contents(tree).keys() & gone == set()


def test_nothing_is_deleted_where_something_could_not_be_had(
    tree: Path, publisher: Publisher
) -> None:
    lacking = for_paths("files/y2/original/0001/201.", refuse(404))
    shutil.rmtree(tree / ".bucketsync/cache")
    with raw_host(publisher.repo, lacking, packs=False) as host:
        config = tree / ".bucketsync/config.toml"
        config.write_text(config.read_text().replace("127.0.0.1", "127.0.0.2"))
        done = upgrade(tree, host, "--delete", "--retries", "1")
    assert (done.code, done["files_removed"]) == (3, 0)
    assert dropped(publisher) <= contents(tree).keys()
    (failed,) = done.named("failed")
    assert failed["path"] == "original/0001/201.png"


# ---------------------------------------------------------------- 4. ours and the user's


def test_our_older_versions_are_replaced_without_delete(
    tree: Path, publisher: Publisher, host: RawHost
) -> None:
    done = upgrade(tree, host)
    assert done["files_changed"] == 13
    assert done["files_aside"] == 0
    assert contents(tree).items() >= publisher.newest.tree().items()
    assert trashed(tree) == {}


def test_our_older_versions_are_known_without_any_record(
    tree: Path, publisher: Publisher, host: RawHost
) -> None:
    for path in (tree / ".bucketsync").glob("state.db*"):
        path.unlink()
    for path in tree.rglob("*.*"):
        if ".bucketsync" not in path.parts:
            os.utime(path, ns=(5, 5))
    done = upgrade(tree, host)
    assert (done["files_changed"], done["files_aside"]) == (13, 0)
    assert contents(tree).items() >= publisher.newest.tree().items()


def test_what_the_user_changed_is_moved_aside_and_named(
    tree: Path, publisher: Publisher, host: RawHost
) -> None:
    """A changed file, one that another name of ours was put over, one at a new entry's place."""
    mine = {
        "original/0002/2.jpg": b"edited",
        "original/0003/3.png": file_of(tree, 13).read_bytes(),
        "original/0001/201.png": b"made by the user",
        "512px/0001/1.png": b"converted",
        "README": b"my notes",
    }
    for path, data in mine.items():
        (tree / path).write_bytes(data)
    done = upgrade(tree, host)
    assert (done.code, done["files_aside"]) == (0, 5)
    assert contents(tree).items() >= publisher.newest.tree().items()
    assert trashed(tree) == {f"aside/{path}": data for path, data in mine.items()}
    assert {event["path"] for event in done.named("aside")} == mine.keys()
    for event in done.named("aside"):
        assert Path(event["moved_to"]).read_bytes() == mine[event["path"]]


def test_what_the_user_changed_is_not_deleted_either(
    tree: Path, publisher: Publisher, host: RawHost
) -> None:
    file_of(tree, 21).write_bytes(b"mine by now")
    os.utime(file_of(tree, 22))
    done = upgrade(tree, host, "--delete")
    assert (done.code, done["files_removed"]) == (0, 9)
    mine = f"original/0001/{file_of(tree, 21).name}"
    assert contents(tree) == publisher.newest.tree() | {mine: b"mine by now"}


def test_damage_under_an_unchanged_time_is_replaced_not_kept(
    tree: Path, publisher: Publisher, host: RawHost
) -> None:
    path = file_of(tree, 41)
    info, data = path.stat(), bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert bucketsync("verify", tree).code == 4
    done = bucketsync("verify", tree, "--repair", "--mirror", host.url)
    assert (done.code, done["files_repaired"]) == (0, 1)
    assert trashed(tree) == {}
    assert path.read_bytes() == publisher.editions["y1"].files["original", 41][1]


def test_an_edit_in_the_same_moment_is_noticed(tree: Path, host: RawHost) -> None:
    """Git's racy rule: same size, same time, written right after the look that recorded it."""
    path = file_of(tree, 2)
    os.utime(path)
    assert bucketsync("status", tree, "--offline").code == 0
    info = path.stat()
    path.write_bytes(b"u" * info.st_size)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    done = upgrade(tree, host)
    assert (done.code, done["files_aside"]) == (0, 1)
    assert trashed(tree) == {f"aside/original/0002/{path.name}": b"u" * info.st_size}


# ---------------------------------------------------------------- 5. nothing outside


@pytest.mark.parametrize("level", ["original", "original/0001", "original/0001/1.png"])
def test_a_planted_link_leads_nowhere(
    tree: Path, host: RawHost, tmp_path: Path, level: str
) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(tree / "original", outside)
    before = contents(outside)
    place = tree / level
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink()
    place.symlink_to(outside / Path(level).relative_to("original"))
    done = upgrade(tree, host, "--delete")
    assert contents(outside) == before
    if level.endswith(".png"):
        assert done.code == 0
        assert not place.is_symlink()
    else:
        assert done.code == 7
        assert "symbolic link" in done.error
        assert "--variant-dir" in done.error


@pytest.mark.parametrize("level", ["original", "original/0005"])
def test_a_link_that_is_swapped_in_while_we_run_leads_nowhere(
    tree: Path, publisher: Publisher, tmp_path: Path, level: str
) -> None:
    outside = tmp_path / "outside"
    (outside / "0005").mkdir(parents=True)

    def swap(_: Request, answer: Answer) -> Answer:
        if not (tree / level).is_symlink():
            (tree / level).rename(tree.parent / "was here")
            (tree / level).symlink_to(outside / Path(level).relative_to("original"))
        return answer

    with raw_host(publisher.repo, for_paths("packs/y2/", swap)) as running:
        done = upgrade(tree, running, "--jobs", "1", "--connections", "1")
    assert done.code in {0, 7}
    assert contents(outside) == {}
    # What was written before the swap went to where the folder had been moved: it was open.
    if level == "original":
        assert done.code == 7


def test_an_asset_does_not_follow_a_link_either(tree: Path, host: RawHost, tmp_path: Path) -> None:
    (tree / "README").unlink()
    (tmp_path / "victim").write_bytes(b"outside")
    (tree / "README").symlink_to(tmp_path / "victim")
    assert upgrade(tree, host).code == 0
    assert (tmp_path / "victim").read_bytes() == b"outside"
    assert (tree / "README").read_bytes() == b"two"


def test_a_release_runs_no_code_where_the_client_is_called(tmp_path: Path) -> None:
    """Files named like modules of Python, at the top of the tree where somebody types upgrade."""
    publisher = make_publisher(tmp_path)
    evil = b"open('taken over', 'w'); raise SystemExit"
    names = ("pickle", "numpy", "asyncio", "multiprocessing", "blake3", "sitecustomize")
    files = random_files(range(1, 21))
    publisher.publish("y1", files, {f"{name}.py": evil for name in names})
    publisher.publish("y2", files | random_files(range(21, 31)), {})
    with raw_host(publisher.repo) as host:
        tree = tmp_path / "tree"
        assert bucketsync("clone", host.url, tree, "--release", "y1").code == 0
        with started("upgrade", "--jobs", "2", cwd=tree) as process:
            assert process.finish().code == 0
    assert not (tree / "taken over").exists()


# ---------------------------------------------------------------- 6. memory and disk


def tiny_content(publisher: Publisher, count: int) -> Callable[[str], bytes | None]:
    """A host of ``count`` files of eight bytes, which it does not keep on a disk."""
    files = {
        bucket: b"".join(
            number.to_bytes(8, "big") for number in range(bucket or 10, count + 1, 10)
        )
        for bucket in range(10)
    }

    def content(path: str) -> bytes | None:
        if path.startswith("packs/"):
            return files[int(path.rpartition("/")[2])]
        place = publisher.repo / path
        return place.read_bytes() if place.is_file() else None

    return content


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    """A file costs its columns and a note for two seconds, a few hundred bytes in all."""
    peaks = {}
    for count in (4_000, 20_000):
        folder = tmp_path / str(count)
        publisher = make_publisher(folder)
        files = {("original", n): ("jpg", n.to_bytes(8, "big")) for n in range(1, count + 1)}
        publisher.publish("y1", files, store=False)
        with (
            raw_host(tiny_content(publisher, count)) as host,
            started("clone", host.url, folder / "tree", "--jobs", "2") as process,
        ):
            peaks[count] = process.peak_bytes()
        assert len(list((folder / "tree").glob("original/*/*"))) == count
        shutil.rmtree(folder)
    assert (peaks[20_000] - peaks[4_000]) / 16_000 < 1000


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(
    publisher: Publisher, tmp_path: Path
) -> None:
    with (
        raw_host(publisher.repo) as host,
        tmpfs(tmp_path / "small", size_bytes=70 * 2**20) as disk,
    ):
        done = bucketsync("clone", host.url, disk / "tree")
        assert done.code == 7
        assert f"{disk / 'tree'}: " in done.error
        assert "are to be written, but only" in done.error
        assert contents(disk / "tree") == {}
        assert host.asked("packs/") == host.asked("files/") == []


def test_variants_on_one_disk_need_their_room_together(
    publisher: Publisher, tmp_path: Path
) -> None:
    """Each of them would find room, beside the 64 MiB that must stay free."""
    blocks = {name: _blocks(publisher, name) for name in ("original", "512px")}
    assert blocks["512px"] > 20
    room = 2**26 + 4096 * (blocks["original"] + 10)
    with (
        raw_host(publisher.repo) as host,
        tmpfs(tmp_path / "small", size_bytes=room) as disk,
    ):
        flags = [f"--variant-dir={name}={disk / name}" for name in blocks]
        words: tuple[str | Path, ...] = (host.url, tmp_path / "tree", *flags)
        done = bucketsync("clone", *words)
        assert done.code == 7
        assert "are to be written, but only" in done.error
        assert contents(disk) == {}
        for name in blocks:
            assert bucketsync("clone", *words, "--variant", name).code == 0
            shutil.rmtree(disk / name)


def _blocks(publisher: Publisher, variant: str) -> int:
    tree = publisher.newest.tree([variant])
    return sum(-(-len(data) // 4096) for path, data in tree.items() if path.startswith(variant))


# ---------------------------------------------------------------- 7. exit codes


def no_readme(request: Request, answer: Answer) -> Answer:
    return Answer(status=410) if request.path.endswith(digest_bytes(b"one").hex()) else answer


@pytest.mark.parametrize(
    "script",
    [
        for_paths("files/y1/original/0003/3.", refuse(404)),
        for_paths("files/y1/original/0003/3.", flip),
        for_paths("objects/", no_readme),
    ],
    ids=["missing", "wrong", "asset"],
)
def test_zero_only_for_a_complete_tree(
    publisher: Publisher, tmp_path: Path, script: Script
) -> None:
    with raw_host(publisher.repo, script, packs=False) as host:
        done = bucketsync("clone", host.url, tmp_path / "tree", "--release", "y1")
    assert (done.code, done["files_failed"]) == (3, 1)
    (failed,) = done.named("failed")
    missing = publisher.editions["y1"].tree().keys() - contents(tmp_path / "tree").keys()
    assert missing == {failed["path"]}
    status = bucketsync("status", tmp_path / "tree", "--offline")
    assert (status.code, status["files_missing"]) == (3, 1)


def test_what_the_release_itself_lacks_is_complete(tmp_path: Path) -> None:
    publisher = make_publisher(tmp_path)
    files = random_files(range(1, 31))
    publisher.publish("y1", files)
    publisher.withdraw("y1", "original", [3, 13])
    with raw_host(publisher.repo) as host:
        done = bucketsync("clone", host.url, tmp_path / "tree")
        assert (done.code, done["files_unavailable"], done["files_added"]) == (0, 2, 28)
        status = bucketsync("status", tmp_path / "tree")
    assert (status.code, status["files_unavailable"], status["files_missing"]) == (0, 2, 0)
    verified = bucketsync("verify", tmp_path / "tree")
    assert (verified.code, verified["files_unavailable"]) == (0, 2)


@pytest.mark.parametrize("flag", ["--no-fetch", "-n"])
def test_an_adoption_that_fetches_nothing_is_complete_only_if_nothing_lacks(
    tree: Path, host: RawHost, flag: str
) -> None:
    shutil.rmtree(tree / ".bucketsync")
    words = ("adopt", host.url, tree, "--release", "y1", flag)
    assert bucketsync(*words).code == 0
    file_of(tree, 41).unlink()
    done = bucketsync(*words)
    # -n tells what would be done, which is never an error.
    assert done.code == (3 if flag == "--no-fetch" else 0)
    assert not list(tree.glob("original/0001/41.*"))


def test_slow_is_not_incomplete(publisher: Publisher, tmp_path: Path) -> None:
    with raw_host(publisher.repo, for_paths("packs/", slow(400_000))) as host:
        done = bucketsync("clone", host.url, tmp_path / "tree", "--variant", "512px")
    assert done.code == 0
    assert contents(tmp_path / "tree") == publisher.newest.tree(variants=["512px"])


def test_every_field_of_the_contract_is_there(tree: Path, host: RawHost, tmp_path: Path) -> None:
    """The table of summary fields that scripts rely on."""
    changed = {
        *("files_added", "files_changed", "files_removed", "files_kept", "bytes_written"),
        *("bytes_received", "requests", "seconds", "sources", "release"),
    }
    planned = {"files_to_add", "files_to_change", "files_to_remove", "bytes_to_fetch"}
    plan = tmp_path / "plan"
    runs: Mapping[str, tuple[Run, set[str]]] = {
        "clone": (bucketsync("clone", host.url, tmp_path / "new"), changed),
        "plan": (bucketsync("plan", tree, "--out", plan), planned),
        "dry": (bucketsync("upgrade", tree, "-n"), planned),
        "apply": (bucketsync("apply", plan), changed),
        "upgrade": (bucketsync("upgrade", tree), changed),
        "adopt": (bucketsync("adopt", host.url, tree), changed | {"files_adopted"}),
        "status": (
            bucketsync("status", tree),
            {
                *("files_ok", "files_missing", "files_changed", "files_extra"),
                *("release", "newest", "scan"),
            },
        ),
        "verify": (
            bucketsync("verify", tree),
            {
                *("files_checked", "bytes_checked", "files_damaged", "files_missing"),
                "files_repaired",
            },
        ),
        "releases": (bucketsync("releases", tree), {"releases"}),
        "checkout": (
            bucketsync("checkout", "y1", tmp_path / "old", "--tree", tree),
            {"files_linked", "files_fetched", "files_unavailable"},
        ),
        "trash": (bucketsync("trash", "list", tree), {"files", "bytes"}),
    }
    for name, (run, fields) in runs.items():
        assert run.code == 0, name
        assert run.summary.keys() >= fields, name
    assert runs["clone"][0]["sources"].keys() == {"http", "torrent", "local"}
