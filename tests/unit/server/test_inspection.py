"""Looking into the files of a bucket, whatever state they are in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from manifests.paths import Layout
from server.audit.content import Content, Kind, Problem
from server.audit.inspection import inspect_bucket, inspect_file, merge_files
from server.walk import StrayKind
from tests.support import media

LAYOUT = Layout(buckets=10, digits=2)


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_a_bucket_as_a_table(tmp_path: Path) -> None:
    whole = media.encoded("PNG", 50, 60)
    put(tmp_path / "original/03/13.png", whole)
    put(tmp_path / "original/03/3.jpg", media.encoded("JPEG")[:-9])
    put(tmp_path / "original/03/4.jpg", b"")
    bucket = inspect_bucket(tmp_path, "original", "03", LAYOUT)
    files = bucket.files
    assert [files.name(row) for row in range(len(files))] == ["3.jpg", "13.png"]
    assert files.column("size").tolist()[1] == len(whole)
    assert files.column("kind").tolist() == [Kind.JPEG, Kind.PNG]
    assert files.column("problem").tolist() == [Problem.NO_END, Problem.NONE]
    assert (files.column("width").tolist(), files.column("height").tolist()) == (
        [40, 50],
        [30, 60],
    )
    assert [stray.kind for stray in bucket.strays] == [StrayKind.WRONG_BUCKET]


def test_buckets_become_one_table_by_id(tmp_path: Path) -> None:
    for path in (
        "original/03/13.png",
        "original/03/3.jpg",
        "original/01/11.gif",
        "original/01/1.png",
    ):
        put(tmp_path / path, media.encoded("PNG"))
    buckets = [inspect_bucket(tmp_path, "original", name, LAYOUT) for name in ("03", "01", "09")]
    files = merge_files([bucket.files for bucket in buckets])
    names = [files.name(row) for row in range(len(files))]
    assert names == ["1.png", "3.jpg", "11.gif", "13.png"]
    assert len(merge_files([])) == 0


def test_large_files_are_looked_into_in_pieces(tmp_path: Path) -> None:
    whole = media.encoded("BMP", 400, 300)
    put(tmp_path / "1.bmp", whole)
    assert len(whole) > 300_000
    assert inspect_file(str(tmp_path / "1.bmp")) == Content(kind=Kind.BMP, width=400, height=300)
    put(tmp_path / "1.bmp", whole[:-1])
    assert inspect_file(str(tmp_path / "1.bmp")).problem is Problem.PAST_END


@pytest.mark.parametrize("sort", ["missing", "folder", "link", "fifo"])
def test_what_is_no_readable_file_is_unreadable(tmp_path: Path, sort: str) -> None:
    path = tmp_path / "1.jpg"
    if sort == "folder":
        path.mkdir()
    elif sort == "link":
        path.symlink_to("/etc/passwd")
    elif sort == "fifo":
        os.mkfifo(path)
    assert inspect_file(str(path)).problem is Problem.UNREADABLE
