"""A tree into which somebody has put what is no file of a release.

Whatever stands where, nothing outside the tree is written, moved or taken away, the run ends with
a code of its contract, and once the thing is gone the same command completes.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from manifests.columns import CHUNK_BYTES
from tests.support.client import Run, bucketsync, contents, started
from tests.support.faultreport import Record
from tests.support.marks import long_but
from tests.support.rawhost import RawHost, raw_host, repository_content, slow
from tests.support.releases import Publisher, make_publisher, random_files

LARGE = 7
OUTSIDE = {"0001/1.png": b"outside", "0005/5.png": b"outside as well", "README": b"outside too"}


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """Two releases; the second changes, adds and drops files, one of them of several chunks."""
    made = make_publisher(tmp_path_factory.mktemp("releases"))
    first = random_files(range(1, 61), size_bytes=6000)
    first |= random_files(range(1, 21), variant="512px", size_bytes=500)
    first["original", LARGE] = ("mp4", os.urandom(CHUNK_BYTES + 99))
    made.publish("y1", first, {"README": b"one", "lists/pools.json": b"[]"})
    second = {key: value for key, value in first.items() if key[1] not in range(21, 25)}
    second |= random_files([*range(1, 7), *range(61, 71)], size_bytes=6000, seed="second")
    second["original", LARGE] = ("mp4", os.urandom(CHUNK_BYTES + 99))
    made.publish("y2", second, {"README": b"two", "lists/pools.json": b"[1]"})
    return made


@pytest.fixture(scope="module")
def cloned(publisher: Publisher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of the first release, not to be changed."""
    tree = tmp_path_factory.mktemp("cloned") / "tree"
    with raw_host(publisher.repo) as host:
        assert bucketsync("clone", host.url, tree, "--release", "y1").code == 0
    return tree


@pytest.fixture(scope="module")
def host(publisher: Publisher) -> Iterator[RawHost]:
    with raw_host(publisher.repo) as running:
        yield running


@pytest.fixture
def tree(cloned: Path, tmp_path: Path) -> Path:
    return shutil.copytree(cloned, tmp_path / "tree", symlinks=True)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    for path, data in OUTSIDE.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def look_of(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """All that must not change below a folder: kind and mode, mtime, inode, bytes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        found[str(path.relative_to(folder))] = (
            info.st_mode,
            info.st_mtime_ns,
            info.st_ino,
            data,
        )
    return found


# --------------------------------------------------------------------------- what is planted


@dataclass(frozen=True, kw_only=True)
class Plant:
    """Something put at a path of the tree, in place of what stood there.

    ``codes`` are the exit codes an upgrade may have then; one that is not 0 names the path.
    """

    path: str
    make: Callable[[Path, Path], None]
    codes: frozenset[int] = frozenset({0})

    def put(self, tree: Path, outside: Path) -> None:
        """Put it there."""
        place = tree / self.path
        self.clear(tree)
        place.parent.mkdir(parents=True, exist_ok=True)
        self.make(place, outside)

    def clear(self, tree: Path) -> None:
        """Take away what stands at the path, without following it."""
        place = tree / self.path
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)


def link_to(target: str) -> Callable[[Path, Path], None]:
    return lambda place, outside: place.symlink_to(outside / target)


def same_file_as(target: str) -> Callable[[Path, Path], None]:
    return lambda place, outside: place.hardlink_to(outside / target)


def fifo(place: Path, _: Path) -> None:
    os.mkfifo(place)


def bind_socket(place: Path, _: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        # The path may be longer than what a socket's address can hold.
        here = os.open(place.parent, os.O_RDONLY)
        try:
            made.bind(f"/proc/self/fd/{here}/{place.name}")
        finally:
            os.close(here)


def device(place: Path, _: Path) -> None:
    """/dev/zero, of which there is no end; where only root may make one, a pipe."""
    try:
        os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        os.mkfifo(place)


def folder(place: Path, _: Path) -> None:
    place.mkdir()
    (place / "1.png").write_bytes(b"in a folder")


def file(place: Path, _: Path) -> None:
    place.write_bytes(b"a file")


STORAGE, REFUSED = frozenset({7}), frozenset({6, 7, 10})
PRIVATE = ("lock", "config.toml", "config.toml.new", "state.db", "state.db-wal", "tuf", "cache")
SPECIAL = {"pipe": fifo, "socket": bind_socket, "device": device, "folder": folder}
PLANTS = {
    "link for a variant": Plant(path="original", make=link_to("."), codes=STORAGE),
    "link for a bucket": Plant(path="original/0001", make=link_to("0001"), codes=STORAGE),
    "link for an unknown bucket": Plant(path="original/9999", make=link_to("0001")),
    "link for a file": Plant(path="original/0001/1.png", make=link_to("0001/1.png")),
    "link for a dropped file": Plant(path="original/0001/21.png", make=link_to("0001/1.png")),
    "link for an asset": Plant(path="README", make=link_to("README")),
    "link for a folder of assets": Plant(path="lists", make=link_to("."), codes=STORAGE),
    "dangling link": Plant(path="original/0002/2.jpg", make=link_to("nothing")),
    "link to a folder for a file": Plant(path="original/0001/1.png", make=link_to("0001")),
    "other name of a file": Plant(path="original/0001/1.png", make=same_file_as("0001/1.png")),
    "other name of a dropped file": Plant(
        path="original/0001/21.png", make=same_file_as("0001/1.png")
    ),
    "other name of an asset": Plant(path="README", make=same_file_as("README")),
    "file for a variant": Plant(path="original", make=file, codes=STORAGE),
    "file for a bucket": Plant(path="original/0001", make=file, codes=STORAGE),
    "file for staging": Plant(path=".bucketsync/staging", make=file, codes=STORAGE),
    "file for the cache": Plant(path=".bucketsync/cache", make=file, codes=STORAGE),
    "folder for the lock": Plant(path=".bucketsync/lock", make=folder, codes=STORAGE),
    "folder for the settings": Plant(path=".bucketsync/config.toml", make=folder, codes=REFUSED),
    "folder for the state": Plant(path=".bucketsync/state.db", make=folder, codes=STORAGE),
    "link for the client's folder": Plant(path=".bucketsync", make=link_to("."), codes=REFUSED),
    "link for staging": Plant(path=".bucketsync/staging", make=link_to("."), codes=STORAGE),
    "link for the trash": Plant(path=".bucketsync/trash", make=link_to("."), codes=STORAGE),
    **{
        f"{name} for a file": Plant(path="original/0001/1.png", make=make)
        for name, make in SPECIAL.items()
    },
    **{f"{name} for an asset": Plant(path="README", make=make) for name, make in SPECIAL.items()},
    **{
        f"{name} for a bucket": Plant(path="original/0001", make=make, codes=STORAGE)
        for name, make in SPECIAL.items()
        if name != "folder"
    },
    **{
        f"link for {name}": Plant(
            path=f".bucketsync/{name}", make=link_to("README"), codes=REFUSED
        )
        for name in PRIVATE
    },
}


EVERY_DAY = {
    "link for the client's folder",
    "link for staging",
    "link for config.toml.new",
    "other name of a file",
    "device for a file",
    "pipe for a bucket",
    "folder for the state",
    "socket for an asset",
}


def part_of_the_large_file(tree: Path, publisher: Publisher) -> Path:
    """Where the client stages the file of several chunks; found by cutting a run short."""
    with raw_host(publisher.repo) as running:
        running.script = lambda request, answer: (
            slow(CHUNK_BYTES / 2)(request, answer) if ".mp4" in request.path else answer
        )
        with started("upgrade", tree, "--mirror", running.url) as process:
            while not (parts := list((tree / ".bucketsync/staging").glob("*.part"))):
                assert process.children() is not None
            process.send(signal.SIGKILL)
            process.wait()
    return parts[0].relative_to(tree)


def upgrade(tree: Path, host: RawHost, *flags: str) -> Run:
    words = ("--mirror", host.url, "--delete", "--max-delete", "50%", "--retries", "1")
    return bucketsync("upgrade", tree, *words, *flags)


@pytest.mark.parametrize("name", long_but(EVERY_DAY, PLANTS))
def test_what_was_planted_leads_nowhere_and_stops_nothing_for_good(  # noqa: PLR0913
    tree: Path, outside: Path, publisher: Publisher, host: RawHost, record: Record, name: str
) -> None:
    plant = PLANTS[name]
    kept = shutil.copytree(tree / ".bucketsync", outside.parent / "kept", symlinks=True)
    plant.put(tree, outside)
    before = look_of(outside)
    done = upgrade(tree, host)
    wrong = look_of(outside) != before
    record("planted in the tree", survived=done.code in plant.codes, wrong=int(wrong))
    assert not wrong
    assert done.code in plant.codes, done.text
    if done.code != 0:
        assert plant.path.rpartition("/")[2] in done.error
        plant.clear(tree)
        if plant.path.startswith(".bucketsync"):
            shutil.rmtree(tree / ".bucketsync", ignore_errors=True)
            shutil.copytree(kept, tree / ".bucketsync", symlinks=True)
        done = upgrade(tree, host)
        assert done.code == 0, done.text
    assert look_of(outside) == before
    left = {plant.path: contents(tree).get(plant.path, b"")} if "unknown" in name else {}
    found = {path: data for path, data in contents(tree).items() if path not in left}
    dropped = "original/0001/21.png"
    if "dropped" in name:
        assert found.pop(dropped)
    assert found == publisher.newest.tree()


@pytest.mark.parametrize("make", [link_to("README"), same_file_as("README"), fifo])
def test_what_was_planted_in_staging_is_taken_away(
    tree: Path, outside: Path, publisher: Publisher, host: RawHost, make: Callable[..., None]
) -> None:
    """At the very name under which a large file is fetched, which anybody can work out."""
    plant = Plant(path=str(part_of_the_large_file(tree, publisher)), make=make)
    plant.put(tree, outside)
    before = look_of(outside)
    assert upgrade(tree, host).code == 0
    assert look_of(outside) == before
    assert contents(tree) == publisher.newest.tree()


@pytest.mark.parametrize("make", [link_to("README"), same_file_as("README")])
def test_what_was_planted_in_the_cache_is_not_written_through(
    tree: Path, outside: Path, publisher: Publisher, host: RawHost, make: Callable[..., None]
) -> None:
    shutil.rmtree(tree / ".bucketsync/cache")
    before = look_of(outside)
    manifests = publisher.descriptors[-1].layers[-1].manifests.values()
    for ref in manifests:
        place = tree / ".bucketsync/cache" / ref.digest.hex[:2] / ref.digest.hex
        place.parent.mkdir(parents=True, exist_ok=True)
        make(place, outside)
    done = upgrade(tree, host)
    assert look_of(outside) == before
    assert done.code in {0, 7}
    if done.code:
        assert "symbolic link" in done.error
        shutil.rmtree(tree / ".bucketsync/cache")
        assert upgrade(tree, host).code == 0
    assert contents(tree) == publisher.newest.tree()


def test_names_in_another_case_are_the_users(
    tree: Path, publisher: Publisher, host: RawHost, record: Record
) -> None:
    """Where case tells names apart, as on every disk of Linux's own."""
    renamed = {"original/0001/1.png": "original/0001/1.PNG", "README": "readme"}
    before = contents(tree)
    for old, new in renamed.items():
        (tree / old).rename(tree / new)
    done = upgrade(tree, host)
    mine = {new: before[old] for old, new in renamed.items()}
    found = contents(tree)
    lost = [path for path, data in mine.items() if found.get(path) != data]
    record("names in another case", survived=done.code == 0, lost=len(lost))
    assert (done.code, lost) == (0, [])
    assert found == publisher.newest.tree() | mine


# --------------------------------------------------------------------------- other verbs

VERBS: dict[str, tuple[str, ...]] = {
    "status": ("status", "{tree}", "--offline"),
    "verify": ("verify", "{tree}"),
    "verify --repair": ("verify", "{tree}", "--repair", "--mirror", "{url}"),
    "checkout": ("checkout", "y1", "{tree}/../past", "--tree", "{tree}", "--mirror", "{url}"),
    "trash empty": ("trash", "empty", "{tree}"),
    "adopt": ("adopt", "{url}", "{tree}"),
    "lock": ("lock", "{tree}", "--out", "{tree}/../lock"),
}


@pytest.mark.long
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", PLANTS)
def test_no_verb_is_led_astray(  # noqa: PLR0913
    tree: Path, outside: Path, host: RawHost, record: Record, name: str, verb: str
) -> None:
    PLANTS[name].put(tree, outside)
    before = look_of(outside)
    words = [word.format(tree=tree, url=host.url) for word in VERBS[verb]]
    done = bucketsync(words[0], *words[1:])
    wrong = look_of(outside) != before
    expected = done.code in {0, 2, 3, 4, 6, 7, 10}
    record(
        f"planted: {verb}", survived=expected and "Traceback" not in done.text, wrong=int(wrong)
    )
    assert not wrong
    assert expected, done.text


# --------------------------------------------------------------------------- swapped while we run

# Exchanges two names of a folder at once (renameat2), again and again, until its stdin ends.
_FLIPPER = """
import ctypes, select, sys
libc = ctypes.CDLL(None)
a, b = (word.encode() for word in sys.argv[1:])
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    libc.renameat2(-100, a, -100, b, 2)
"""


@pytest.mark.parametrize(
    ("level", "target"),
    long_but(
        {"original/0001"},
        [
            ("original", "."),
            ("original/0001", "0001"),
            ("original/0005", "0005"),
            (".bucketsync/staging", "."),
            (".bucketsync/trash", "."),
        ],
    ),
)
def test_a_folder_that_flips_to_a_link_and_back_leads_nowhere(  # noqa: PLR0913
    tree: Path,
    outside: Path,
    publisher: Publisher,
    record: Record,
    level: str,
    target: str,
) -> None:
    (tree / "original/0001/1.png").write_bytes(b"of the user, to be moved aside")
    place, other = tree / level, outside.parent / "other"
    place.mkdir(exist_ok=True)
    other.symlink_to(outside / target)
    before = look_of(outside)
    with raw_host(repository_content(publisher.repo), slow(300_000)) as running:
        words = [sys.executable, "-c", _FLIPPER, str(place), str(other)]
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as flipper:
            assert flipper.stdout is not None
            flipper.stdout.readline()
            codes = {upgrade(tree, running, "--jobs", "1").code for _ in range(3)}
            flipper.communicate("stop")
        if place.is_symlink():
            place.unlink()
            other.rename(place)
        else:
            other.unlink()
        running.script = lambda _, answer: answer
        assert look_of(outside) == before
        assert codes <= {0, 3, 7}, codes
        done = upgrade(tree, running)
    record("folder flips to a link", survived=done.code == 0)
    assert done.code == 0, done.text
    assert look_of(outside) == before
    assert contents(tree) == publisher.newest.tree()


# --------------------------------------------------------------------------- without rights


def powerless(words: list[str]) -> list[str]:
    """As root the rights of files mean nothing: without its capabilities it is any other owner."""
    if os.geteuid() != 0:
        return words
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *words]


@pytest.mark.parametrize(
    ("path", "mode", "codes"),
    long_but(
        [("original/0001", 0o000, {7}), ".bucketsync/state.db", "original/0001/1.png"],
        [
            ("original/0001", 0o000, {7}),
            ("original/0001", 0o300, {7}),
            ("original/0001", 0o500, {7}),
            ("original", 0o000, {7}),
            ("lists", 0o000, {7}),
            (".bucketsync", 0o500, {7}),
            (".bucketsync", 0o000, {7, 10}),
            (".bucketsync/state.db", 0o000, {7}),
            (".bucketsync/state.db", 0o400, {7}),
            (".bucketsync/staging", 0o500, {7}),
            (".bucketsync/config.toml", 0o000, {7, 10}),
            (".bucketsync/tuf/timestamp.json", 0o000, {0, 6, 7}),
            (".bucketsync/cache", 0o500, {7}),
            (".", 0o500, {7}),
            ("original/0001/1.png", 0o000, {0}),
            ("original/0001/31.png", 0o000, {0}),
        ],
    ),
)
def test_what_may_not_be_read_or_written_is_named_and_widens_nothing(  # noqa: PLR0913
    tree: Path,
    publisher: Publisher,
    host: RawHost,
    record: Record,
    path: str,
    mode: int,
    codes: set[int],
) -> None:
    before = contents(tree)
    (tree / ".bucketsync/staging").mkdir(exist_ok=True)
    (tree / path).chmod(mode)
    flags = ("--mirror", host.url, "--delete", "--max-delete", "50%", "--retries", "1")
    with started("upgrade", tree, *flags, within=powerless) as process:
        done = process.finish()
    with suppress(FileNotFoundError):
        (tree / path).chmod(0o755 if (tree / path).is_dir() else 0o644)
    lost = [name for name in before if name not in contents(tree)]
    failed = done.code != 0
    record("unreadable", survived=done.code in codes, lost=len(lost) if failed else 0)
    assert done.code in codes, done.text
    if failed:
        # Who cannot stage a file names the file.
        assert Path(path).name in done.error or path in {".", ".bucketsync/staging"}
        assert "ermission" in done.error or "readonly" in done.error or "unable" in done.error
        assert done["files_removed"] == 0 if "files_removed" in done.summary else True
        assert lost == []
        done = upgrade(tree, host)
    assert done.code == 0, done.text
    assert contents(tree) == publisher.newest.tree()
