"""Layers that share their bytes with the tree: hard links, and --in-place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from server.publishing.absences import find_lost
from server.publishing.guards import GuardTask
from server.record import ServedRecord
from tests.support.publisher import Publisher, files_below

DATE = ("--date", "2021-06-01")
LATER = ("--date", "2022-06-01")


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    made = Publisher(tmp_path)
    made.fill(range(1, 60))
    return made


def absences(publisher: Publisher) -> list[tuple[str, str, str, list[int]]]:
    return [
        (absence.layer, absence.variant, absence.reason, absence.ids.tolist())
        for absence in publisher.notices().absences
    ]


def test_in_place_makes_no_files_and_warns(publisher: Publisher) -> None:
    run = publisher.publish("y1", *DATE, "--in-place")
    assert not (publisher.repo / "files" / "y1").exists()
    assert "keeps no copies" in run.stderr
    assert run.summary["links"] == {"reflink": 0, "hard": 0, "copy": 0}


def test_the_served_record_has_the_stat_of_each_file_in_place(publisher: Publisher) -> None:
    publisher.publish("y1", *DATE, "--in-place")
    record = ServedRecord(publisher.repo)
    source = record.source("y1")
    assert source is not None
    assert source.folder == publisher.tree
    rows = record.expected("y1", "original", 3)
    assert rows is not None
    assert rows["id"].tolist() == list(range(3, 60, 8))
    for row in rows:
        info = publisher.place(int(row["id"]), row["ext"].decode()).stat()
        assert (row["size"], row["mtime_ns"], row["inode"]) == (
            info.st_size,
            info.st_mtime_ns,
            info.st_ino,
        )


def test_copies_need_no_record(publisher: Publisher) -> None:
    publisher.publish("y1", *DATE)
    record = ServedRecord(publisher.repo)
    assert record.layers() == ()
    assert record.source("y1") is None
    assert record.expected("y1", "original", 3) is None


@pytest.mark.parametrize("flags", [("--in-place",), ("--link", "hard")])
def test_a_file_overwritten_in_place_is_absent_from_the_old_release(
    publisher: Publisher, flags: tuple[str, ...]
) -> None:
    publisher.publish("y1", *DATE, *flags)
    assert absences(publisher) == []
    publisher.overwrite(publisher.place(3), b"written in place")
    publisher.overwrite(publisher.place(11), b"written in place")
    run = publisher.publish("y2", *LATER)
    assert absences(publisher) == [("y1", "original", "overwritten", [3, 11])]
    assert run.summary["unavailable"] == 2
    assert "overwritten in the tree" in run.stderr
    assert (publisher.repo / "files/y2/original/003/3.dat").read_bytes() == b"written in place"


def test_a_file_replaced_or_removed_is_absent_in_place(publisher: Publisher) -> None:
    publisher.publish("y1", *DATE, "--in-place")
    publisher.write(publisher.place(3), b"another inode")
    publisher.place(4).unlink()
    publisher.place(5).rename(publisher.place(5, "png"))
    publisher.publish("y2", *LATER, "--in-place")
    assert absences(publisher) == [
        ("y1", "original", "gone", [4, 5]),
        ("y1", "original", "overwritten", [3]),
    ]


def test_a_file_replaced_or_removed_stays_whole_behind_a_hard_link(publisher: Publisher) -> None:
    publisher.publish("y1", *DATE, "--link", "hard")
    before = publisher.release_files("y1")
    publisher.write(publisher.place(3), b"another inode")
    publisher.place(4).unlink()
    publisher.publish("y2", *LATER, "--link", "hard")
    assert absences(publisher) == []
    assert publisher.release_files("y1") == before


def test_hard_links_leave_the_files_of_the_tree_as_they_are(publisher: Publisher) -> None:
    path = publisher.place(3)
    path.chmod(0o640)
    before = path.stat()
    run = publisher.publish("y1", *DATE, "--link", "hard")
    after = path.stat()
    assert (after.st_mtime_ns, after.st_mode) == (before.st_mtime_ns, before.st_mode)
    if run.summary["links"]["hard"]:
        assert (publisher.repo / "files/y1/original/003/3.dat").samefile(path)
        assert "never write to one in place" in run.stderr


def test_an_absence_ends_when_the_file_is_back(publisher: Publisher) -> None:
    publisher.publish("y1", *DATE, "--in-place")
    aside = publisher.root / "aside"
    publisher.place(3).rename(aside)
    publisher.publish("y2", *LATER, "--in-place")
    assert absences(publisher) == [("y1", "original", "gone", [3])]
    aside.rename(publisher.place(3))
    publisher.publish("y3", "--date", "2023-06-01", "--in-place")
    assert absences(publisher) == []


def test_absences_outlive_releases_that_change_nothing(publisher: Publisher) -> None:
    publisher.publish("y1", *DATE, "--in-place")
    publisher.place(3).unlink()
    publisher.publish("y2", *LATER)
    publisher.publish("y3", "--date", "2023-06-01")
    assert absences(publisher) == [("y1", "original", "gone", [3])]


def test_packs_of_a_tree_in_place_are_checked(publisher: Publisher) -> None:
    publisher.publish("y1", *DATE, "--in-place", "--materialize-packs")
    packs = files_below(publisher.repo / "packs" / "y1")
    expected = b"".join(publisher.place(post_id).read_bytes() for post_id in range(3, 60, 8))
    assert packs["original/003"] == expected


def test_a_copy_is_made_where_no_hard_link_can_be(publisher: Publisher, tmp_path: Path) -> None:
    """The most links that a file of ext4 can have are 65,000; a few file systems allow more."""
    crowd = tmp_path / "crowd"
    crowd.mkdir()
    try:
        for number in range(65_001):
            os.link(publisher.place(3), crowd / str(number))
    except OSError:
        publisher.publish("y1", *DATE, "--link", "hard")
        assert publisher.release_files("y1") == publisher.tree_files()
        assert not (publisher.repo / "files/y1/original/003/3.dat").samefile(publisher.place(3))


@pytest.mark.parametrize("flags", [(), ("--variant", "small")])
def test_a_file_that_the_layer_has_lost_is_absent_though_the_tree_has_it(
    publisher: Publisher, flags: tuple[str, ...]
) -> None:
    publisher.fill(range(1, 9), "small")
    if not publisher.publish("y1", *DATE, "--link", "hard").summary["links"]["hard"]:
        pytest.skip("reflinks are made here")
    layer = publisher.repo / "files" / "y1" / "original"
    (layer / "003" / "3.dat").unlink()
    copy = publisher.root / "copy"
    shutil.copy2(publisher.place(4), copy)
    copy.replace(layer / "004" / "4.dat")
    publisher.publish("y2", *LATER, "--link", "hard", *flags)
    assert absences(publisher) == [
        ("y1", "original", "gone", [3]),
        ("y1", "original", "overwritten", [4]),
    ]


def test_everything_is_gone_with_the_folder_it_was_in(publisher: Publisher) -> None:
    publisher.publish("y1", *DATE, "--in-place")
    rows = ServedRecord(publisher.repo).expected("y1", "original", 3)
    assert rows is not None
    for root in (publisher.root / "unmounted", publisher.root / "repo"):
        task = GuardTask(
            root=str(root),
            variant="original",
            folder_name="003",
            expected={"y1": np.array(rows)},
        )
        (lost,) = find_lost(task)
        assert lost.gone.tolist() == list(range(3, 60, 8))
        assert lost.overwritten.tolist() == []
