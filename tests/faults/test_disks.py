"""Disks that fill up, run out of names, refuse to be written to, lack reflinks, or break.

A run that meets one ends with exit 7 and says where; nothing that was there is harmed, and after
room has been made the same command completes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from syncclient.tree import reflink
from tests.support.client import bucketsync, contents
from tests.support.faultreport import Record
from tests.support.marks import long_but
from tests.support.mounts import Disk, ext4, fill, small_disk, tmpfs
from tests.support.needs import path_of
from tests.support.publisher import Publisher as Maker
from tests.support.rawhost import Answer, RawHost, Request, raw_host
from tests.support.releases import Publisher
from tests.support.survival import JOBS, Job, publish_two

# Above the 64 MiB that a run leaves free, with room for what is fetched.
ROOM_BYTES = 96 * 2**20


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return publish_two(tmp_path_factory.mktemp("publisher"))


@pytest.fixture
def host(publisher: Publisher) -> Iterator[RawHost]:
    with raw_host(publisher.repo) as running:
        yield running


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", size_bytes=ROOM_BYTES) as folder:
        yield folder


def fill_at(disk: Path, prefix: str, count: int) -> Callable[[Request, Answer], Answer]:
    """Somebody else takes all room of the disk just before an answer about such a path."""
    seen = 0

    def script(request: Request, answer: Answer) -> Answer:
        nonlocal seen
        seen += request.path.startswith(prefix)
        if seen == count and not (disk / "filler").exists():
            fill(disk)
        return answer

    return script


def check_full_disk(job: Job, disk: Path, host: RawHost, record: Record, kind: str) -> None:
    """Run on a full disk, make room, run again."""
    done = bucketsync(*job.words)
    filled = (disk / "filler").exists()
    wrong, lost = job.wrong(), job.lost()
    (disk / "filler").unlink(missing_ok=True)
    host.script = lambda _, answer: answer
    again = bucketsync(*job.words)
    record(kind, survived=again.code == 0, lost=len(lost), wrong=len(wrong))
    assert filled
    assert (wrong, lost) == ([], [])
    assert done.code == 7, done.text
    assert "space" in done.error or "full" in done.error
    assert again.code == 0, again.text
    job.check_complete()


@pytest.mark.parametrize(
    ("verb", "prefix", "count"),
    [
        ("clone", "tuf/", 1),
        pytest.param("clone", "tuf/metadata/2", 1, marks=pytest.mark.long),
        pytest.param("clone", "objects/", 1, marks=pytest.mark.long),
        pytest.param("clone", "packs/", 1, marks=pytest.mark.long),
        ("clone", "packs/", 6),
        ("upgrade", "packs/", 3),
        ("verify --repair", "packs/", 3),
        pytest.param("adopt", "tuf/targets", 1, marks=pytest.mark.long),
        pytest.param("adopt", "packs/", 3, marks=pytest.mark.long),
        pytest.param("checkout", "packs/", 2, marks=pytest.mark.long),
    ],
)
def test_a_disk_that_fills_up_is_told_and_the_same_command_goes_on(  # noqa: PLR0913
    publisher: Publisher,
    host: RawHost,
    disk: Path,
    record: Record,
    verb: str,
    prefix: str,
    count: int,
) -> None:
    job = JOBS[verb](publisher, host.url, disk)
    host.script = fill_at(disk, prefix, count)
    check_full_disk(job, disk, host, record, f"full disk: {verb}")


@pytest.mark.parametrize("verb", long_but({"upgrade"}, ["status", "verify", "upgrade"]))
def test_a_disk_that_is_full_from_the_start(
    publisher: Publisher, host: RawHost, disk: Path, record: Record, verb: str
) -> None:
    """Nothing can be written but what is there already: the state is a cache, so it may be."""
    tree = disk / "tree"
    assert bucketsync("clone", host.url, tree, "--release", "y2").code == 0
    before = contents(tree)
    fill(disk)
    done = bucketsync(verb, tree)
    record("full disk: from the start", survived=done.code in {0, 7})
    assert done.code in {0, 7}, done.text
    assert contents(tree) == before == publisher.newest.tree()
    (disk / "filler").unlink()
    assert bucketsync(verb, tree).code == 0


@pytest.mark.parametrize("prefix", long_but({"packs/"}, ["tuf/", "objects/", "packs/"]))
def test_records_on_a_full_disk_of_their_own(  # noqa: PLR0913
    publisher: Publisher, host: RawHost, disk: Path, tmp_path: Path, record: Record, prefix: str
) -> None:
    """The tree has room; state, cache and signed metadata have none."""
    tree = tmp_path / "tree"
    words = ("clone", host.url, str(tree), "--release", "y1", "--state-dir", str(disk))
    job = Job(words=words, folder=tree, before={}, after=publisher.editions["y1"].tree())
    host.script = fill_at(disk, prefix, 1)
    check_full_disk(job, disk, host, record, "full disk: records")


@pytest.mark.parametrize("names", long_but({120}, [30, 60, 120, 300]))
def test_a_disk_without_names_left_is_a_full_one(
    publisher: Publisher, host: RawHost, tmp_path: Path, record: Record, names: int
) -> None:
    with tmpfs(tmp_path / "disk", size_bytes=ROOM_BYTES, options=f"nr_inodes={names}") as disk:
        tree = disk / "tree"
        words = ("clone", host.url, str(tree), "--release", "y1")
        job = Job(words=words, folder=tree, before={}, after=publisher.editions["y1"].tree())
        done = bucketsync(*job.words)
        assert done.code == 7, done.text
        assert "space" in done.error
        assert job.wrong() == []
        grow = ["mount", "-o", "remount,nr_inodes=10000", str(disk)]
        subprocess.run(grow, check=True, capture_output=True)
        again = bucketsync(*job.words)
        record("no inodes left", survived=again.code == 0)
        assert again.code == 0, again.text
        job.check_complete()


# --------------------------------------------------------------------------- publishing


@pytest.mark.parametrize("link", long_but({"copy"}, ["copy", "hard"]))
def test_a_publish_on_a_full_disk_leaves_the_old_release(
    disk: Path, tmp_path: Path, record: Record, link: str
) -> None:
    maker = Maker(disk / "publisher")
    # What the test itself looks through has room elsewhere.
    (tmp_path / "trust").mkdir()
    (disk / "publisher/trust").symlink_to(tmp_path / "trust")
    maker.fill(range(1, 40), size_bytes=3000)
    maker.publish("y0", "--date", "2020-06-01", "--link", link)
    old, files = maker.releases(), maker.release_files("y0")
    maker.fill(range(40, 80), size_bytes=3000)
    fill(disk)
    for left_bytes in (0, 2**16, 2**18, 2**20):
        os.truncate(disk / "filler", (disk / "filler").stat().st_size - left_bytes)
        code, text = _publish(maker, link)
        assert code in {0, 7}, text
        if code == 0:
            break
        assert any(word in text for word in ("space", "full", "I/O error", "are free")), text
        assert "hashed again" not in text
        assert maker.releases() == old
        assert maker.release_files("y0") == files
    (disk / "filler").unlink()
    if code:
        code, text = _publish(maker, link)
    record("full disk: publish", survived=code == 0)
    assert code == 0, text
    assert maker.release_files("y1") == maker.tree_files()


def _publish(maker: Maker, link: str) -> tuple[int, str]:
    process = maker.start("y1", "--date", "2021-06-01", "--link", link, "--jobs", "1")
    _, text = process.communicate()
    return process.returncode, text.decode()


# --------------------------------------------------------------------------- other disks


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Disk]:
    with ext4(tmp_path / "image", size_bytes=ROOM_BYTES) as made:
        yield made


@pytest.mark.long
@pytest.mark.parametrize(
    "words",
    [
        ("upgrade", "{tree}", "--delete"),
        ("verify", "{tree}", "--repair"),
        ("status", "{tree}", "--offline"),
        ("trash", "empty", "{tree}"),
    ],
)
def test_a_disk_that_is_read_only_is_told(
    publisher: Publisher, host: RawHost, image: Disk, record: Record, words: tuple[str, ...]
) -> None:
    tree = image.folder / "tree"
    assert bucketsync("clone", host.url, tree, "--release", "y1").code == 0
    image.unmount()
    image.mount("ro")
    done = bucketsync(words[0], *(word.format(tree=tree) for word in words[1:]))
    record("read-only disk", survived=done.code == 7)
    assert done.code == 7, done.text
    assert "ead-only" in done.error or "readonly" in done.error
    assert contents(tree) == publisher.editions["y1"].tree()


@pytest.mark.long
def test_a_tree_on_a_read_only_disk_is_a_source_all_the_same(
    publisher: Publisher, host: RawHost, image: Disk, tmp_path: Path
) -> None:
    tree = image.folder / "tree"
    assert bucketsync("clone", host.url, tree, "--release", "y1").code == 0
    image.unmount()
    image.mount("ro")
    done = bucketsync("checkout", "y1", tmp_path / "past", "--tree", tree)
    assert done.code == 0, done.text
    assert done["links"] == {"copy": len(publisher.editions["y1"].files) + 1}
    assert contents(tmp_path / "past") == publisher.editions["y1"].tree()


@pytest.mark.long
def test_a_folder_that_the_disk_cannot_list_is_never_read_as_empty(
    publisher: Publisher, host: RawHost, image: Disk, record: Record
) -> None:
    """The block of a bucket folder is overwritten on the device, as a bad sector would be."""
    tree = image.folder / "tree"
    assert bucketsync("clone", host.url, tree, "--release", "y1").code == 0
    image.unmount()
    _break_folder(image, "/tree/original/0003")
    image.mount()
    with pytest.raises(OSError, match="0003"):
        list((tree / "original/0003").iterdir())
    before = {path for path in contents(tree) if "/0003/" not in path}
    for words in (("upgrade", tree, "--delete"), ("verify", tree, "--repair")):
        done = bucketsync(*map(str, words))
        assert done.code == 7, done.text
        assert "original/0003" in done.error
        assert "never read as empty" in done.error
        assert contents(tree).keys() >= before
    record("unreadable folder on a bad disk", survived=1)
    image.unmount()
    subprocess.run([path_of("e2fsck"), "-fy", str(image.image)], capture_output=True, check=False)
    image.mount()
    done = bucketsync("upgrade", str(tree), "--delete")
    assert done.code == 0, done.text
    assert contents(tree) == publisher.newest.tree()


def _break_folder(image: Disk, folder: str) -> None:
    """Overwrite the first block of a folder in the image of a disk that is not mounted."""
    words = ["debugfs", "-R", f"blocks {folder}", str(image.image)]
    found = subprocess.run(words, capture_output=True, text=True, check=True)
    info = subprocess.run(
        ["dumpe2fs", "-h", str(image.image)], capture_output=True, text=True, check=True
    )
    (size,) = [int(x.split()[-1]) for x in info.stdout.splitlines() if "Block size" in x]
    with image.image.open("r+b") as file:
        file.seek(int(found.stdout.split()[0]) * size)
        file.write(b"\xff" * size)


@pytest.mark.long
def test_a_disk_that_breaks_under_a_run_is_told_and_harms_nothing(
    publisher: Publisher, host: RawHost, image: Disk, record: Record
) -> None:
    """Every access is an I/O error from some request on."""
    job = JOBS["upgrade"](publisher, host.url, image.folder)
    image.unmount()
    image.mount()
    seen = 0

    def script(request: Request, answer: Answer) -> Answer:
        nonlocal seen
        seen += request.path.startswith("packs/")
        if seen == 2:
            seen += 1
            image.commit_names()
            image.lose_power()
        return answer

    host.script = script
    done = bucketsync(*job.words)
    assert done.code == 7, done.text
    assert "I/O error" in done.error or "disk" in done.error
    image.start_again()
    host.script = lambda _, answer: answer
    # The boot is the same one, as far as the client knows, so it believes what it has recorded.
    assert bucketsync("verify", job.folder, "--repair").code == 0
    again = bucketsync(*job.words)
    record("disk breaks", survived=again.code == 0, lost=len(job.lost()), wrong=len(job.wrong()))
    assert again.code == 0, again.text
    job.check_complete()


@pytest.mark.parametrize("kind", ["tmpfs", pytest.param("ext4", marks=pytest.mark.long)])
def test_without_reflinks_files_are_linked_or_copied(
    publisher: Publisher, host: RawHost, tmp_path: Path, kind: str
) -> None:
    with ExitStack() as stack:
        if kind == "ext4":
            made = ext4(tmp_path / "disk", size_bytes=ROOM_BYTES)
            disk = stack.enter_context(made).folder
        else:
            disk = stack.enter_context(tmpfs(tmp_path / "disk", size_bytes=ROOM_BYTES))
        assert not _can_reflink(disk)
        tree = disk / "tree"
        assert bucketsync("clone", host.url, tree, "--release", "y1").code == 0
        near = bucketsync("checkout", "y1", disk / "near", "--tree", tree)
        far = bucketsync("checkout", "y1", tmp_path / "far", "--tree", tree)
        assert (near["links"].keys(), far["links"].keys()) == ({"hard"}, {"copy"})
        # An upgrade replaces names, so what is linked elsewhere keeps its bytes.
        assert bucketsync("upgrade", tree).code == 0
        expected = publisher.editions["y1"].tree()
        assert contents(disk / "near") == contents(tmp_path / "far") == expected
        shutil.rmtree(tree)


def _can_reflink(folder: Path) -> bool:
    (folder / "a").write_bytes(b"x" * 4096)
    with (folder / "a").open("rb") as one, (folder / "b").open("wb") as other:
        return reflink(one.fileno(), other.fileno())
