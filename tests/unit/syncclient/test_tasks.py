"""What a process of a crew finds of the files it is to check."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from manifests.digest import digest_bytes
from manifests.errors import StoreError
from syncclient.tasks import _READ_BYTES, CheckTask, Wrong, check_task


def check(root: Path, files: dict[int, bytes]) -> Wrong:
    """Compare ``ID.png`` in a folder with what each ought to hold."""
    task = CheckTask(
        str(root),
        ("b",),
        ("jpg", "png"),
        array("I", files).tobytes(),
        bytes([1]) * len(files),
        b"".join(map(digest_bytes, files.values())),
    )
    return check_task(task)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "b"
    made.mkdir()
    return made


@pytest.mark.parametrize("size", [0, 1, _READ_BYTES - 1, _READ_BYTES, 3 * _READ_BYTES + 7])
def test_files_of_any_size_are_read_whole(folder: Path, size: int) -> None:
    data = os.urandom(size)
    (folder / "7.png").write_bytes(data)
    assert check(folder.parent, {7: data}) == []
    assert check(folder.parent, {7: data + b"more"}) == [(0, True)]
    with (folder / "7.png").open("r+b") as file:
        file.seek(-1 if size else 0, os.SEEK_END)
        file.write(b"x" if data[-1:] != b"x" else b"y")
    assert check(folder.parent, {7: data}) == [(0, True)]


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        lambda path: path.symlink_to(path.with_name("right.png")),
        lambda path: path.mkdir(),
    ],
)
def test_what_is_no_file_is_wrong_and_there(folder: Path, make: Callable[[Path], None]) -> None:
    (folder / "right.png").write_bytes(b"")
    make(folder / "7.png")
    assert check(folder.parent, {7: b""}) == [(0, True)]


def test_each_row_is_told_apart(folder: Path) -> None:
    for number in (1, 2, 4):
        (folder / f"{number}.png").write_bytes(b"%d" % number)
    expected = {1: b"1", 2: b"other", 3: b"3", 4: b"4"}
    assert check(folder.parent, expected) == [(1, True), (2, False)]


def test_a_folder_that_is_not_there_lacks_everything(tmp_path: Path) -> None:
    assert check(tmp_path, {1: b"", 2: b""}) == [(0, False), (1, False)]


def test_a_folder_that_cannot_be_opened_says_nothing_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="symbolic link"):
        check(tmp_path, {1: b""})
