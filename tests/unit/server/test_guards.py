"""What a listing of a layer proves of its hard links, and what still takes a look at the file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from server.publishing.absences import has_mounts
from server.publishing.guards import GuardTask, is_intact
from server.publishing.look import Found, Look, find_recorded
from server.record import STAT_ROW, StatRows
from syncclient.tree import list_bucket
from tests.support.publisher import Publisher

NAMES = ("1.dat", "9.dat", "17.png")
PARTS = ("original", "001")
_HOUR_NS = 3600 * 10**9


class Linked:
    """A bucket of a tree, and a layer of hard links of its files."""

    def __init__(self, root: Path) -> None:
        self.tree, self.layer = root / "tree", root / "layer"
        self.folder = self.layer.joinpath(*PARTS)
        self.folder.mkdir(parents=True)
        self.tree.joinpath(*PARTS).mkdir(parents=True)
        for number, name in enumerate(NAMES):
            path = self.tree.joinpath(*PARTS, name)
            path.write_bytes(bytes(10 + number))
            then = path.stat().st_mtime_ns - _HOUR_NS
            os.utime(path, ns=(then, then))
            (self.folder / name).hardlink_to(path)
        self.rows = self._rows()

    def _rows(self) -> StatRows:
        listing = list_bucket(str(self.layer), PARTS)
        rows = np.empty(len(listing), STAT_ROW)
        rows["bucket"], rows["id"] = 1, listing.ids
        rows["ext"] = np.array(listing.extensions, "S16")[listing.exts]
        rows["size"], rows["mtime_ns"] = listing.sizes, listing.mtimes
        rows["inode"] = listing.inodes
        return rows

    def found(self) -> Found:
        """The files of the tree, just looked at."""
        listing = list_bucket(str(self.tree), PARTS)
        look = Look.of(listing, int(listing.mtimes.max()) + _HOUR_NS)
        folder_fd = os.open(self.tree.joinpath(*PARTS), os.O_RDONLY)
        try:
            found = look.find_all(folder_fd)
        finally:
            os.close(folder_fd)
        assert found is not None
        return found

    def is_intact(self, found: Found | None = None) -> bool:
        task = GuardTask(
            root=str(self.layer), variant="original", folder_name="001", expected={"y1": self.rows}
        )
        return is_intact(task, found or self.found())


@pytest.fixture
def linked(tmp_path: Path) -> Linked:
    return Linked(tmp_path)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files of the layer that are looked at, as they are."""
    names: list[str] = []

    def find_and_note(
        folder_fd: int, wanted: list[str], *columns: npt.NDArray[Any]
    ) -> frozenset[int] | None:
        names.extend(wanted)
        return find_recorded(folder_fd, wanted, *columns)

    monkeypatch.setattr("server.publishing.guards.find_recorded", find_and_note)
    return names


def test_hard_links_of_what_was_seen_need_no_look(linked: Linked, looked_at: list[str]) -> None:
    assert linked.is_intact()
    assert looked_at == []


def test_a_file_that_the_tree_has_no_more_is_looked_at(
    linked: Linked, looked_at: list[str]
) -> None:
    linked.tree.joinpath(*PARTS, "9.dat").unlink()
    assert linked.is_intact()
    assert looked_at == ["9.dat"]
    with (linked.folder / "9.dat").open("ab") as file:
        file.write(b"more")
    assert not linked.is_intact()


def test_files_on_another_device_are_looked_at(linked: Linked, looked_at: list[str]) -> None:
    found = linked.found()
    assert linked.is_intact(found._replace(devices=frozenset({0})))
    assert looked_at == list(NAMES)


def test_an_inode_number_of_another_device_proves_nothing(linked: Linked) -> None:
    found = linked.found()
    with (linked.folder / "9.dat").open("ab") as file:
        file.write(b"more")
    # As if the tree's file of this number lay elsewhere, and nobody had written to that.
    both = found.devices | {0}
    assert not linked.is_intact(found._replace(devices=both))


def test_a_copy_in_the_place_of_a_link_is_found(linked: Linked) -> None:
    path = linked.folder / "9.dat"
    copy = linked.layer / "copy"
    shutil.copy2(path, copy)
    copy.replace(path)
    assert not linked.is_intact()


def test_links_that_changed_places_are_found(linked: Linked) -> None:
    one, other, aside = linked.folder / "1.dat", linked.folder / "9.dat", linked.layer / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    assert not linked.is_intact()


def test_a_file_that_is_gone_or_has_another_extension_is_found(linked: Linked) -> None:
    path = linked.folder / "17.png"
    path.rename(path.with_suffix(".dat"))
    assert not linked.is_intact()
    path.with_suffix(".dat").unlink()
    assert not linked.is_intact()


@pytest.mark.parametrize(
    ("column", "value"), [("size", 7), ("mtime_ns", 7), ("inode", 7), ("ext", b"png")]
)
def test_what_was_seen_must_be_what_was_published(
    linked: Linked, column: str, value: int | bytes
) -> None:
    linked.rows[column][1] = value
    assert not linked.is_intact()


@pytest.mark.parametrize("link", [False, True])
def test_a_folder_that_is_gone_or_a_link_is_not_intact(linked: Linked, *, link: bool) -> None:
    aside = linked.layer / "aside"
    linked.folder.rename(aside)
    if link:
        linked.folder.symlink_to(aside)
    assert not linked.is_intact()


def test_a_carriage_return_ends_no_line_of_the_mounts(tmp_path: Path) -> None:
    """The kernel writes it as it is: here in the names of a folder and of a device."""
    table, folder = tmp_path / "mountinfo", str(tmp_path / "one\rother")
    line = "36 35 98:0 / {} rw - tmpfs any\rdevice rw\n"
    table.write_text(line.format("/"), newline="")
    assert not has_mounts(folder, table)
    table.write_text(line.format("/") + line.format(f"{folder}/original"), newline="")
    assert has_mounts(folder, table)


def test_mounts_are_found_below_a_folder_alone(tmp_path: Path) -> None:
    table, folder = tmp_path / "mountinfo", tmp_path / "with space"
    line = "36 35 98:0 / {} rw,noatime master:1 - ext4 /dev/sda1 rw\n"
    shown = str(folder).replace(" ", "\\040")
    beside = (shown, f"{shown}er/1.dat", "/")
    table.write_text("".join(line.format(point) for point in beside))
    assert not has_mounts(str(folder), table)
    table.write_text(line.format("/") + line.format(f"{shown}/original/001/1.dat"))
    assert has_mounts(str(folder), table)
    assert has_mounts(str(folder), tmp_path / "missing")


@pytest.mark.parametrize("mounts", [False, True])
@pytest.mark.parametrize("flags", [("--in-place",), ("--link", "hard")])
def test_an_unchanged_tree_is_looked_at_once_unless_a_listing_hides_a_mount(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    looked_at: list[str],
    flags: tuple[str, ...],
    *,
    mounts: bool,
) -> None:
    publisher = Publisher(tmp_path)
    publisher.fill(range(1, 30))
    run = publisher.publish("y1", "--date", "2021-06-01", *flags)
    if "hard" in flags and not run.summary["links"]["hard"]:
        pytest.skip("reflinks are made here")
    monkeypatch.setattr("server.publishing.absences.has_mounts", lambda _folder: mounts)
    publisher.publish("y2", "--date", "2022-06-01", *flags)
    assert len(looked_at) == (29 if mounts else 0)
    assert publisher.notices().absences == ()
