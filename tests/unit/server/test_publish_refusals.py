"""What publish refuses, and that nothing is visible of it afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from manifests.paths import Layout
from server.signing import Settings
from tests.support.mounts import tmpfs
from tests.support.publisher import LAYOUT, Publisher

DATE = ("--date", "2021-06-01")
LATER = ("--date", "2022-06-01")
# A PNG without its end.
CUT_PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55")


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    made = Publisher(tmp_path)
    made.fill(range(1, 40))
    return made


def error_of(publisher: Publisher, *flags: str, release: str = "y2", expect: int) -> str:
    """The message and hint of a refused publish, which must have left no trace."""
    before = publisher.releases()
    run = publisher.publish(release, *flags, expect=expect)
    assert publisher.releases() == before
    errors = [event for event in run.events if event["event"] == "error"]
    return " ".join(f"{error['message']} {error['hint']}" for error in errors)


def test_a_name_is_published_once(publisher: Publisher) -> None:
    publisher.publish("y1", *DATE)
    assert "already published" in error_of(publisher, *LATER, release="y1", expect=2)
    assert "differs" in error_of(publisher, *LATER, release="Y1", expect=2)


@pytest.mark.parametrize("name", ["none", "notices", "a/b", "..", ""])
def test_some_names_are_none(publisher: Publisher, name: str) -> None:
    assert error_of(publisher, *DATE, release=name, expect=2)


def test_a_second_publisher_is_sent_away(publisher: Publisher) -> None:
    with (publisher.repo / ".publish" / "publish.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another run" in error_of(publisher, *DATE, expect=11)
    publisher.publish("y1", *DATE)


def test_strict_publishes_nothing_with_an_error(publisher: Publisher) -> None:
    publisher.write(publisher.place(3, "png"), CUT_PNG)
    publisher.place(3).unlink()
    run = publisher.publish("y1", *DATE, "--strict", expect=4)
    assert run.summary["findings"] == {"truncated": 1}
    assert publisher.releases() == {}
    assert publisher.publish("y1", *DATE).summary["files_hashed"] == 0
    assert publisher.release_files("y1") == publisher.tree_files()


def test_a_notice_does_not_stop_a_strict_publisher(publisher: Publisher) -> None:
    publisher.write(publisher.tree / "original" / "003" / "odd.txt", b"an asset")
    run = publisher.publish("y1", *DATE, "--strict")
    assert run.summary["findings"] == {"odd-name": 1}


def test_metadata_is_compared_with_the_files(publisher: Publisher) -> None:
    posts = "".join(f'{{"id": {number}, "file_ext": "dat"}}\n' for number in range(1, 42))
    publisher.write(publisher.tree / "metadata" / "posts.json", posts.encode())
    counts = publisher.publish("y1", *DATE, "--strict", expect=4).summary["findings"]
    assert counts == {"post-without-file": 2}


def test_the_settings_must_fit_the_base(publisher: Publisher) -> None:
    publisher.publish("y1", *DATE)
    settings = publisher.repo / ".publish" / "settings.json"
    settings.write_bytes(
        Settings(dataset="pictures", layout=Layout(buckets=8, digits=2)).to_bytes()
    )
    (publisher.tree / "original" / "03").mkdir()
    assert "8 buckets of 3 digits" in error_of(publisher, *LATER, expect=2)


def test_a_lost_variant_is_no_accident(publisher: Publisher) -> None:
    publisher.fill(range(1, 20), "small")
    publisher.publish("y1", *DATE)
    (publisher.tree / "small").rename(publisher.root / "unmounted")
    assert "has no files of small" in error_of(publisher, *LATER, expect=2)
    publisher.publish("y2", *LATER, "--variant", "original")
    assert publisher.releases()["y2"].variants == ("original",)
    (publisher.root / "unmounted").rename(publisher.tree / "small")
    publisher.publish("y3", "--date", "2023-06-01")
    assert publisher.release_files("y3") == publisher.tree_files()


def test_an_unknown_base_is_named(publisher: Publisher) -> None:
    publisher.publish("y1", *DATE)
    assert "published are: y1" in error_of(publisher, *LATER, "--base", "y0", expect=2)


def test_a_repository_inside_its_tree_would_publish_itself(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    publisher.fill(range(1, 40))
    outer = ("--tree", str(tmp_path), "--variant", "tree")
    assert "would be published" in error_of(publisher, *DATE, *outer, expect=2)


def test_keys_are_looked_for_before_anything_is_read(publisher: Publisher) -> None:
    keys = publisher.root / "repo-keys"
    keys.rename(publisher.root / "drawer")
    assert "needs 1 of its keys" in error_of(publisher, *DATE, expect=2)
    assert not (publisher.repo / "files").exists()
    publisher.publish("y1", *DATE, "--keys", str(publisher.root / "drawer"))


@pytest.mark.parametrize("date", ["soon", "1969-01-01", "2021-13-01"])
def test_dates_are_dates(publisher: Publisher, date: str) -> None:
    assert "date" in error_of(publisher, "--date", date, expect=2)


def test_the_date_of_a_build_is_used(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1622505600")
    publisher.publish("y1")
    assert publisher.releases()["y1"].created == 1622505600


def test_a_damaged_object_of_the_base_is_named(publisher: Publisher) -> None:
    publisher.publish("y1", *DATE)
    digest = publisher.releases()["y1"].layers[0].manifests["original"].digest.hex
    path = publisher.repo / "objects" / digest[:2] / digest
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(data)
    publisher.write(publisher.place(3), b"changed")
    assert digest in error_of(publisher, *LATER, expect=7)
    publisher.publish("y2", *LATER, "--base", "none")
    assert publisher.release_files("y2") == publisher.tree_files()


def test_an_unreadable_file_is_named(publisher: Publisher) -> None:
    publisher.place(3).unlink()
    publisher.place(3).symlink_to("11.dat")
    publisher.publish("y1", *DATE)
    assert "original/003/3.dat" not in publisher.release_files("y1")


class Scribbler:
    """Writes to a file in place: once while somebody has it open, or all the time."""

    def __init__(self, path: Path, *, once: bool) -> None:
        self._path = path
        self._once = once
        self._stop = threading.Event()
        self.writes = 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        fd = os.open(self._path, os.O_WRONLY)
        while not self._stop.is_set():
            if self._once and not self._is_being_read(fd):
                continue
            self.writes += 1
            os.pwrite(fd, self.writes.to_bytes(8, "little"), 0)
            if self._once:
                break
        os.close(fd)

    def _is_being_read(self, own_fd: int) -> bool:
        """Whether this process has the file open elsewhere and has read a part of it."""
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                if int(link.name) != own_fd and link.readlink() == self._path:
                    info = Path(f"/proc/self/fdinfo/{link.name}").read_text()
                    return int(info.split()[1]) > 0
        return False


@pytest.fixture
def large(publisher: Publisher) -> Path:
    path = publisher.place(3, "film")
    publisher.place(3).unlink()
    publisher.write(path, bytes(64 * 2**20))
    return path


def test_a_file_that_changes_while_it_is_read_is_read_again(
    publisher: Publisher, large: Path
) -> None:
    with Scribbler(large, once=True) as scribbler:
        publisher.publish("y1", *DATE, "--jobs", "1")
    assert scribbler.writes == 1
    published = publisher.repo / "files" / "y1" / "original" / "003" / "3.film"
    assert published.read_bytes() == large.read_bytes()
    assert publisher.release_files("y1") == publisher.tree_files()


def test_a_file_that_keeps_changing_stops_the_publish(publisher: Publisher, large: Path) -> None:
    with Scribbler(large, once=False):
        message = error_of(publisher, *DATE, "--jobs", "1", expect=7)
    assert "original/003/3.film changed while it was read, twice" in message
    publisher.publish("y1", *DATE)
    assert publisher.release_files("y1") == publisher.tree_files()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    with tmpfs(tmp_path / "disk", size_bytes=4 * 2**20, options="nr_inodes=1000") as folder:
        yield folder


def test_the_room_is_looked_at_before_anything_is_copied(small_disk: Path, tmp_path: Path) -> None:
    publisher = Publisher(small_disk / "publisher")
    tree = tmp_path / "tree"
    large = Publisher(tmp_path / "elsewhere")
    large.fill(range(1, 100), size_bytes=60_000)
    large.tree.rename(tree)
    publisher.tree.rmdir()
    publisher.tree.symlink_to(tree)
    message = error_of(publisher, *DATE, expect=7)
    assert "copies of 99 files need" in message
    assert "--in-place" in message
    assert not (publisher.repo / "files" / "y2").exists()
    publisher.publish("y2", *DATE, "--in-place")


def test_a_full_disk_is_no_harm(small_disk: Path) -> None:
    publisher = Publisher(small_disk / "publisher")
    publisher.fill(range(1, 40), size_bytes=20_000)
    publisher.publish("y1", *DATE)
    before = publisher.release_files("y1")
    # Files whose size says that they need no room, but which must be copied after all.
    for post_id in range(1, 40):
        path = publisher.place(post_id)
        publisher.write(path, os.urandom(path.stat().st_size))
    filler = small_disk / "filler"
    info = os.statvfs(small_disk)
    filler.write_bytes(bytes((info.f_bavail - 60) * info.f_frsize))
    message = error_of(publisher, *LATER, expect=7)
    assert "No space left" in message
    assert "--link hard" in message
    assert publisher.release_files("y1") == before
    filler.unlink()
    publisher.publish("y2", *LATER)
    assert publisher.release_files("y2") == publisher.tree_files()
    assert LAYOUT.buckets == len(list((publisher.repo / "files/y2/original").iterdir()))
