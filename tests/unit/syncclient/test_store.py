"""The store: names appear whole, nothing of the user's is overwritten, no link leads out."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from manifests.digest import digest_bytes
from manifests.errors import ExitCode, StoreError
from syncclient.disk import free_bytes, sync_file_system
from syncclient.files import WRITE_BYTES
from syncclient.store import Store, run_name
from syncclient.tree import FileStat
from tests.support.mounts import ext4, tmpfs
from tests.support.watch import watching

FOLDER = ("original", "0001")
MTIME_NS = 1_600_000_000 * 10**9
DATA = b"the bytes of the release"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree that is not there yet."""
    return tmp_path / "tree"


@contextmanager
def store_of(tree: Path) -> Iterator[Store]:
    with Store(tree, "run") as store:
        yield store


def stat_now(path: Path) -> FileStat:
    info = path.stat()
    return FileStat(info.st_size, info.st_mtime_ns, info.st_ino)


def place(store: Store, data: bytes = DATA, replaces: FileStat | None = None) -> str | None:
    """Place a file as 1.jpg; where what stood there was moved to."""
    aside = store.place_bytes(FOLDER, "1.jpg", data, digest_bytes(data), MTIME_NS, replaces)
    return None if aside is None else aside.moved_to


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def open_descriptors() -> list[str]:
    return names(Path("/proc/self/fd"))


def staged(tree: Path) -> list[str]:
    """Files in staging; an open store has a folder there."""
    staging = tree / ".bucketsync" / "staging"
    return sorted(path.name for path in staging.rglob("*") if not path.is_dir())


def test_a_file_gets_its_name_bytes_and_time(tree: Path) -> None:
    with store_of(tree) as store:
        assert place(store) is None
    path = tree / "original/0001/1.jpg"
    assert path.read_bytes() == DATA
    assert path.stat().st_mtime_ns == MTIME_NS
    assert staged(tree) == []


def test_modes_follow_the_umask(tree: Path) -> None:
    before = os.umask(0o027)
    try:
        with store_of(tree) as store:
            place(store)
    finally:
        os.umask(before)
    assert (tree / "original/0001/1.jpg").stat().st_mode & 0o777 == 0o640


def test_only_what_the_plan_saw_is_replaced(tree: Path) -> None:
    path = tree / "original/0001/1.jpg"
    with store_of(tree) as store:
        place(store, b"older")
        assert place(store, DATA, replaces=stat_now(path)) is None
    assert path.read_bytes() == DATA
    assert not (tree / ".bucketsync/trash").exists()


@pytest.mark.parametrize("seen", [True, False])
def test_what_appeared_since_the_plan_is_moved_aside(tree: Path, *, seen: bool) -> None:
    path = tree / "original/0001/1.jpg"
    with store_of(tree) as store:
        place(store, b"older")
        expected = stat_now(path) if seen else None
        path.unlink()
        path.write_bytes(b"of the user")
        moved_to = place(store, DATA, replaces=expected)
        assert moved_to == str(tree / ".bucketsync/trash/run/aside/original/0001/1.jpg")
    assert path.read_bytes() == DATA
    assert Path(moved_to).read_bytes() == b"of the user"


def test_our_own_bytes_are_welcome_whoever_put_them_there(tree: Path) -> None:
    path = tree / "original/0001/1.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    with store_of(tree) as store:
        assert place(store) is None
    assert path.read_bytes() == DATA
    assert staged(tree) == []


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_what_is_no_file_is_moved_aside_as_it_is(tree: Path, kind: str, tmp_path: Path) -> None:
    path = tree / "original/0001/1.jpg"
    path.parent.mkdir(parents=True)
    if kind == "folder":
        path.mkdir()
        (path / "inside").write_text("kept")
    elif kind == "link":
        (tmp_path / "victim").write_bytes(b"outside")
        path.symlink_to(tmp_path / "victim")
    else:
        os.mkfifo(path)
    with store_of(tree) as store:
        moved = Path(place(store) or "")
    assert path.read_bytes() == DATA
    assert not path.is_symlink()
    if kind == "folder":
        assert (moved / "inside").read_text() == "kept"
    elif kind == "link":
        assert moved.is_symlink()
        assert (tmp_path / "victim").read_bytes() == b"outside"
    else:
        assert moved.is_fifo()


def test_a_new_name_is_given_in_one_step_that_replaces_nothing(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaces(*_: object, **__: object) -> None:
        pytest.fail("this would overwrite what appears at the last moment")

    with store_of(tree) as store:
        monkeypatch.setattr(os, "rename", replaces)
        place(store)
        with pytest.raises(StoreError, match="No such file"):
            store.put_aside(FOLDER, "2.jpg", kind="aside")


# --------------------------------------------------------------------------- new folders


def place_some(store: Store, meanwhile: Callable[[], object] = str, count: int = 3) -> None:
    """Place so many files in FOLDER, and let something happen before they are visible."""
    with store.placing(FOLDER) as place_one:
        for number in range(1, count + 1):
            place_one(f"{number}.jpg", DATA, digest_bytes(DATA), MTIME_NS, None)
        meanwhile()


def test_a_new_folder_appears_with_all_its_files(tree: Path) -> None:
    variant = tree / "original"
    variant.mkdir(parents=True)
    with store_of(tree) as store, watching([variant]) as watch:
        place_some(store, lambda: names(variant) == [] or pytest.fail("seen too early"))
        assert watch.read() == [("moved here", variant / "0001")]
        place(store)
    files = list((variant / "0001").iterdir())
    assert sorted(path.name for path in files) == ["1.jpg", "2.jpg", "3.jpg"]
    assert {(path.read_bytes(), path.stat().st_mtime_ns) for path in files} == {(DATA, MTIME_NS)}
    assert staged(tree) == []


def test_a_folder_that_appears_meanwhile_is_kept_as_it_is(tree: Path) -> None:
    def appears() -> None:
        (tree / "original/0001").mkdir(parents=True)
        (tree / "original/0001/2.jpg").write_bytes(b"the user's own")
        (tree / "original/0001/9.txt").write_bytes(b"a caption")

    with store_of(tree) as store:
        place_some(store, appears)
    folder = tree / "original/0001"
    assert names(folder) == ["1.jpg", "2.jpg", "3.jpg", "9.txt"]
    assert (folder / "2.jpg").read_bytes() == DATA
    assert (tree / ".bucketsync/trash/run/aside/original/0001/2.jpg").read_bytes() == (
        b"the user's own"
    )
    assert staged(tree) == []


def test_a_link_that_appears_meanwhile_leads_nowhere(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()

    def appears() -> None:
        (tree / "original").mkdir(parents=True)
        (tree / "original/0001").symlink_to(outside)

    with store_of(tree) as store, pytest.raises(StoreError):
        place_some(store, appears)
    assert names(outside) == []


def test_what_was_placed_before_an_error_is_visible(tree: Path) -> None:
    def fails() -> None:
        raise StoreError("full")

    with store_of(tree) as store, pytest.raises(StoreError, match="full"):
        place_some(store, fails)
    assert names(tree / "original/0001") == ["1.jpg", "2.jpg", "3.jpg"]
    assert staged(tree) == []


def test_a_folder_that_is_there_is_filled_where_it_stands(tree: Path) -> None:
    path = tree / "original/0001/1.jpg"
    with store_of(tree) as store:
        place(store, b"older")
        with store.placing(FOLDER) as place_one:
            aside = place_one("1.jpg", DATA, digest_bytes(DATA), MTIME_NS, stat_now(path))
            assert aside is None
            assert path.read_bytes() == DATA
    assert not (tree / ".bucketsync/trash").exists()
    assert staged(tree) == []


def test_no_folder_is_made_for_nothing(tree: Path) -> None:
    with store_of(tree) as store:
        place_some(store, count=0)
    assert not (tree / "original").exists()
    assert staged(tree) == []


def test_names_in_the_trash_never_collide(tree: Path) -> None:
    with store_of(tree) as store:
        moved = []
        for number in range(3):
            (tree / "original/0001").mkdir(parents=True, exist_ok=True)
            (tree / "original/0001/1.jpg").unlink(missing_ok=True)
            (tree / "original/0001/1.jpg").write_text(f"user {number}")
            moved.append(Path(place(store) or ""))
    assert [path.read_text() for path in moved] == ["user 0", "user 1", "user 2"]
    assert [path.name for path in moved] == ["1.jpg", "1.jpg.1", "1.jpg.2"]


@pytest.mark.parametrize("level", ["original", "original/0001", ".bucketsync/staging"])
def test_no_link_in_the_tree_is_followed(tree: Path, tmp_path: Path, level: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tree / level).parent.mkdir(parents=True)
    (tree / level).symlink_to(outside)
    with pytest.raises(StoreError, match="symbolic link"), store_of(tree) as store:
        place(store)
    assert list(outside.iterdir()) == []


def test_no_link_in_the_trash_is_followed(tree: Path, tmp_path: Path) -> None:
    with store_of(tree) as store:
        place(store)
        (tree / ".bucketsync/trash").symlink_to(tmp_path)
        with pytest.raises(StoreError, match="symbolic link"):
            store.put_aside(FOLDER, "1.jpg", kind="deleted")
    assert (tree / "original/0001/1.jpg").read_bytes() == DATA


def test_a_removal_takes_what_was_expected_and_nothing_else(tree: Path) -> None:
    path = tree / "original/0001/1.jpg"
    with store_of(tree) as store:
        place(store)
        expected = stat_now(path)
        os.utime(path, ns=(1, MTIME_NS + 1))
        assert not store.remove_expected(FOLDER, "1.jpg", expected)
        assert path.exists()
        assert store.remove_expected(FOLDER, "1.jpg", stat_now(path))
        assert not store.remove_expected(FOLDER, "1.jpg", expected)
        assert not path.exists()
        store.remove_folder_if_empty(FOLDER)
    assert (tree / ".bucketsync/trash/run/deleted/original/0001/1.jpg").read_bytes() == DATA
    assert not (tree / "original/0001").exists()


def test_a_folder_with_something_in_it_stays(tree: Path) -> None:
    with store_of(tree) as store:
        place(store)
        store.remove_folder_if_empty(FOLDER)
        store.remove_folder_if_empty(("original", "0002"))
        place(store, b"again")
    assert (tree / "original/0001/1.jpg").read_bytes() == b"again"


def test_staging_is_cleaned_of_everything(tree: Path) -> None:
    with store_of(tree) as store:
        for name in ("ab-1", "large.part"):
            (tree / ".bucketsync/staging" / name).write_text("left by a killed run")
        store.clean_staging()
    assert staged(tree) == []


def test_a_part_is_kept_until_it_gets_its_name(tree: Path) -> None:
    with store_of(tree) as store:
        fd = store.open_part("large.part")
        store.write_part(fd, bytearray(b"world"), 6)
        os.close(fd)
        fd = store.open_part("large.part")
        store.write_part(fd, bytearray(b"hello "), 0)
        os.close(fd)
        assert (
            store.place_staged(
                "large.part", FOLDER, "2.mp4", digest_bytes(b"hello world"), MTIME_NS, None
            )
            is None
        )
        store.drop_part("large.part")
    path = tree / "original/0001/2.mp4"
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (b"hello world", MTIME_NS)


@pytest.mark.parametrize("kind", ["link", "other name", "pipe", "folder"])
def test_a_part_that_is_not_ours_alone_is_begun_anew(
    tree: Path, tmp_path: Path, kind: str
) -> None:
    part, victim = tree / ".bucketsync/staging/large.part", tmp_path / "victim"
    victim.write_bytes(b"outside")
    with store_of(tree) as store:
        if kind == "link":
            part.symlink_to(victim)
        elif kind == "other name":
            part.hardlink_to(victim)
        elif kind == "pipe":
            os.mkfifo(part)
        else:
            part.mkdir()
        fd = store.open_part("large.part")
        store.write_part(fd, b"ours", 0)
        os.close(fd)
    assert victim.read_bytes() == b"outside"
    assert (part.read_bytes(), part.stat().st_nlink) == (b"ours", 1)


def test_a_part_that_cannot_be_opened_now_is_kept(tree: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with store_of(tree) as store:
        fd = store.open_part("large.part")
        store.write_part(fd, b"fetched", 0)
        os.close(fd)
        with ExitStack() as stack:
            resource.setrlimit(resource.RLIMIT_NOFILE, (fd, before[1]))
            stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
            with pytest.raises(StoreError, match="Too many open files"):
                store.open_part("large.part")
        assert (tree / ".bucketsync/staging/large.part").read_bytes() == b"fetched"


def test_a_part_is_written_by_the_piece(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = os.pwrite, list[int]()

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        asked.append(len(data))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    data = os.urandom(2 * WRITE_BYTES + 3)
    with store_of(tree) as store:
        fd = store.open_part("large.part")
        store.write_part(fd, data, 1)
        os.close(fd)
        assert (tree / ".bucketsync/staging/large.part").read_bytes() == b"\0" + data
    assert asked == [WRITE_BYTES, WRITE_BYTES, 3]


def test_a_part_is_filled_with_what_is_in_the_tree(tree: Path) -> None:
    with store_of(tree) as store:
        place(store)
        fd = store.open_part("large.part")
        store.copy_into(fd, FOLDER, "1.jpg")
        os.close(fd)
        assert (tree / ".bucketsync/staging/large.part").read_bytes() == DATA


@pytest.mark.parametrize("exchanged", [True, False])
def test_a_staged_file_gets_its_name_as_well(tree: Path, *, exchanged: bool) -> None:
    path, part = tree / "original/0001/1.jpg", tree / ".bucketsync/staging/peers.part"
    with store_of(tree) as store:
        fd = store.open_part(part.name)
        store.write_part(fd, DATA, 0)
        if exchanged:
            part.unlink()
            part.write_bytes(b"something else")
        digest = digest_bytes(DATA)
        assert store.place_link(fd, str(part), FOLDER, path.name, digest, MTIME_NS, None) is None
        os.close(fd)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (DATA, MTIME_NS)
    assert path.samefile(part) == (not exchanged)
    assert staged(tree) == ["peers.part"]


@pytest.mark.parametrize("link", [True, False])
def test_a_copy_has_the_bytes_and_perhaps_the_inode(
    tree: Path, tmp_path: Path, *, link: bool
) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    os.utime(source, ns=(MTIME_NS, MTIME_NS))
    with store_of(tree) as store, source.open("rb") as opened:
        how, aside = store.place_copy(
            opened.fileno(),
            FOLDER,
            "1.jpg",
            digest_bytes(DATA),
            MTIME_NS,
            None,
            link_from=str(source) if link else "",
        )
    path = tree / "original/0001/1.jpg"
    assert aside is None
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (DATA, MTIME_NS)
    assert how in {"reflink", "hard" if link else "copy"}
    assert path.samefile(source) == (how == "hard")


def test_a_source_that_was_exchanged_is_not_linked(tree: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    with store_of(tree) as store, source.open("rb") as opened:
        source.unlink()
        source.write_bytes(b"something else")
        how, _ = store.place_copy(
            opened.fileno(), FOLDER, "1.jpg", digest_bytes(DATA), MTIME_NS, None, str(source)
        )
    assert how in {"copy", "reflink"}
    assert (tree / "original/0001/1.jpg").read_bytes() == DATA


def test_more_folders_than_descriptors_are_served(tree: Path) -> None:
    before = len(open_descriptors())
    with store_of(tree) as store:
        for turn in range(2):
            for bucket in range(200):
                folder = ("original", f"{bucket:04d}")
                store.place_bytes(folder, f"{turn + 1}.jpg", DATA, digest_bytes(DATA), 0, None)
        assert (
            len(open_descriptors()) - before == 128 + 3
        )  # folders, the root, staging, our part of it
    assert len(list(tree.glob("original/*/*.jpg"))) == 400


def test_no_descriptor_is_left_open(tree: Path) -> None:
    before = open_descriptors()
    with store_of(tree) as store:
        for name in ("1.jpg", "2.jpg"):
            with store.placing(FOLDER) as place_one:
                place_one(name, DATA, digest_bytes(DATA), MTIME_NS, None)
            place(store)
        (tree / "original/0001/1.jpg").unlink()
        (tree / "original/0001/2.jpg").unlink()
        store.remove_folder_if_empty(FOLDER)
    assert open_descriptors() == before


def test_a_disk_that_cannot_write_is_told(tmp_path: Path) -> None:
    with ext4(tmp_path / "disk", size_bytes=2**24) as disk:
        sync_file_system(disk.folder)
        (disk.folder / "file").write_bytes(DATA)
        disk.lose_power()
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            sync_file_system(disk.folder)


def test_a_full_disk_is_told_and_leaves_no_trace(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", size_bytes=256 * 1024) as disk, store_of(disk) as store:
        place(store)
        with pytest.raises(StoreError, match="no space left") as caught:
            store.place_bytes(FOLDER, "2.jpg", bytes(10**6), bytes(32), 0, None)
        assert caught.value.exit_code == ExitCode.STORAGE
        assert names(disk / "original/0001") == ["1.jpg"]
        assert staged(disk) == []


def test_free_room_is_asked_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", size_bytes=1024 * 1024) as disk:
        assert 0 < free_bytes(disk / "not" / "yet") <= 1024 * 1024
        assert free_bytes(tmp_path / "not" / "yet") > 1024 * 1024


def test_runs_sort_by_time() -> None:
    assert run_name() <= run_name()
    assert run_name().endswith(f"-{os.getpid()}")


def test_no_other_run_has_our_part_of_staging(tree: Path) -> None:
    """In a container the numbers of processes are the same every time."""
    code = (
        "import os, pathlib, sys; os.getpid = lambda: 7\n"
        "from syncclient.store import Store\n"
        "with Store(pathlib.Path(sys.argv[1]), 'run') as store, store.placing(('a', 'b')):\n"
        "    print(os.listdir(store.root / '.bucketsync/staging'))"
    )
    words = [sys.executable, "-P", "-c", code, str(tree)]
    parts = [subprocess.run(words, capture_output=True, check=True).stdout for _ in range(2)]
    assert parts[0] != parts[1]
    assert names(tree / ".bucketsync/staging") == []


def test_what_an_error_left_in_our_part_of_staging_is_cleaned_up(tree: Path) -> None:
    with store_of(tree) as store:
        place(store)
        (part,) = (tree / ".bucketsync/staging").iterdir()
        (part / "left").write_text("by an error")
    assert staged(tree) == ["left"]
    with store_of(tree) as store:
        store.clean_staging()
    assert names(tree / ".bucketsync/staging") == []
