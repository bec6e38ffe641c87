"""Reading a tree: what a folder holds, and bytes that are only believed if nothing moved."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from manifests.columns import CHUNK_BYTES
from manifests.digest import digest_bytes
from manifests.errors import StoreError
from syncclient.files import WRITE_BYTES
from syncclient.tree import (
    FileStat,
    copy_bytes,
    hash_open,
    list_bucket,
    open_below,
    open_regular,
    stat_of,
    write_all,
)


def test_a_folder_is_listed_by_id_and_extension(tmp_path: Path) -> None:
    folder = tmp_path / "original" / "0001"
    folder.mkdir(parents=True)
    for name in ("11.png", "1.png", "1.jpg", "21.webm"):
        (folder / name).write_bytes(name.encode())
        os.utime(folder / name, ns=(5, 1_600_000_000_123_456_789))
    listing = list_bucket(str(tmp_path), ("original", "0001"))
    assert [listing.name(row) for row in range(4)] == ["1.jpg", "1.png", "11.png", "21.webm"]
    assert listing.sizes.tolist() == [5, 5, 6, 7]
    assert set(listing.mtimes.tolist()) == {1_600_000_000_123_456_789}
    assert listing.inodes.tolist() == [
        (folder / listing.name(row)).stat().st_ino for row in range(4)
    ]
    assert listing.folder_mtime_ns == folder.stat().st_mtime_ns
    assert listing.others == ()


def test_what_no_entry_can_be_is_listed_apart(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "1.jpg").mkdir()
    (folder / "2.jpg").symlink_to("/etc/passwd")
    os.mkfifo(folder / "3.jpg")
    (folder / "notes.txt").write_text("mine")
    (folder / "007.jpg").write_text("not how an id is written")
    listing = list_bucket(str(tmp_path), ("b",))
    assert len(listing) == 0
    assert dict(listing.others) == {
        "1.jpg": "folder",
        "2.jpg": "symlink",
        "3.jpg": "special",
        "notes.txt": "name",
        "007.jpg": "name",
    }


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    listing = list_bucket(str(tmp_path), ("original", "0001"))
    assert (len(listing), listing.folder_mtime_ns) == (0, -1)


@pytest.mark.parametrize("depth", [0, 1])
def test_no_step_to_a_folder_follows_a_link(tmp_path: Path, depth: int) -> None:
    outside = tmp_path / "outside"
    (outside / "0001").mkdir(parents=True)
    (outside / "0001" / "1.jpg").write_text("not ours")
    tree = tmp_path / "tree"
    (tree / "original").mkdir(parents=True)
    if depth == 0:
        (tree / "original").rmdir()
        (tree / "original").symlink_to(outside)
    else:
        (tree / "original" / "0001").symlink_to(outside / "0001")
    with pytest.raises(StoreError, match="symbolic link") as caught:
        list_bucket(str(tree), ("original", "0001"))
    assert "--variant-dir" in caught.value.hint


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "original").write_text("a file")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(StoreError, match="original is a symbolic link or a file"):
            open_below(fd, ("original", "0001"))
    finally:
        os.close(fd)


def test_a_file_that_vanishes_during_the_look_is_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        (tmp_path / name).touch()

    listdir = os.listdir

    def meddle(fd: int) -> list[str]:
        names = listdir(fd)
        (tmp_path / "2.jpg").unlink()
        return names

    monkeypatch.setattr("syncclient.files.os.listdir", meddle)
    assert set(list_bucket(str(tmp_path), ()).ids.tolist()) == {1, 3}


@pytest.mark.parametrize(
    "size", [0, 1, 1000, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES + 7]
)
def test_a_file_is_hashed_whole_and_by_the_chunk(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    with path.open("rb") as file:
        found = hash_open(file.fileno(), with_chunks=True)
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        assert hash_open(file.fileno(), with_chunks=False).chunks == b""
    chunks = [data[at : at + CHUNK_BYTES] for at in range(0, size, CHUNK_BYTES)]
    assert found.digest == digest_bytes(data)
    assert found.chunks == (b"".join(map(digest_bytes, chunks)) if size > CHUNK_BYTES else b"")
    info = path.stat()
    assert found.stat == FileStat(size, info.st_mtime_ns, info.st_ino)


@pytest.mark.parametrize("size", [100, 2 * CHUNK_BYTES])
@pytest.mark.parametrize("change", ["grow", "shrink", "touch"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, size: int, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    fd = open_regular(path)
    honest = stat_of

    def meddle(opened: int) -> FileStat:
        found = honest(opened)
        if change == "grow":
            with path.open("ab") as file:
                file.write(b"more")
        elif change == "shrink":
            os.truncate(path, size // 2)
        else:
            os.utime(path, ns=(1, 1))
        return found

    monkeypatch.setattr("syncclient.files.stat_of", meddle)
    try:
        with pytest.raises(StoreError):
            hash_open(fd, with_chunks=False)
    finally:
        os.close(fd)


def test_links_and_pipes_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    for name, code in (("link", errno.ELOOP), ("pipe", errno.EINVAL)):
        with pytest.raises(OSError) as caught:  # noqa: PT011 (its number is what matters)
            open_regular(tmp_path / name)
        assert caught.value.errno == code


def test_bytes_are_written_by_the_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = os.write, list[int]()

    def write(fd: int, data: memoryview) -> int:
        asked.append(len(data))
        # The first time the disk takes no more than a byte.
        return real(fd, data[:1] if len(asked) == 1 else data)

    monkeypatch.setattr(os, "write", write)
    data = os.urandom(2 * WRITE_BYTES + 3)
    with (tmp_path / "file").open("wb", buffering=0) as file:
        write_all(file.fileno(), data)
    assert (tmp_path / "file").read_bytes() == data
    assert asked == [WRITE_BYTES, WRITE_BYTES, WRITE_BYTES, 2]


def test_a_copy_is_whole_or_an_error(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(data)
    with (tmp_path / "a").open("rb") as source, (tmp_path / "b").open("wb") as target:
        copy_bytes(source.fileno(), target.fileno(), len(data))
        with pytest.raises(StoreError, match="ended at byte 3000000 of 3000001"):
            copy_bytes(source.fileno(), target.fileno(), len(data) + 1)
    assert (tmp_path / "b").read_bytes() == data
