"""What a client was in the middle of when something broke, and what must hold afterwards.

A :class:`Job` is a verb on a tree: what was there before, what is there when it is complete.  In
between every visible file is one or the other, whatever happened.
"""

from __future__ import annotations

import os
import select
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from manifests.paths import PRIVATE_FOLDER
from tests.support.client import bucketsync, contents
from tests.support.rawhost import Exchange
from tests.support.releases import Publisher, make_publisher, random_files

# Larger than the gaps that are fetched along: a finished file between two missing ones counts.
FILE_BYTES = 6000
FILES = 300
# Longer than the busiest machine needs to end a process.
_PATIENCE_S = 120.0
# What a user has put beside the files of a release, and over one of them.
_MINE = {"notes.txt": b"mine", "original/0003/seen.txt": b"mine too"}

Tree = dict[str, bytes]


def publish_two(folder: Path) -> Publisher:
    """A repository of two releases; the second adds, changes and drops files of the first."""
    made = make_publisher(folder)
    first = random_files(range(1, FILES + 1), size_bytes=FILE_BYTES)
    made.publish("y1", first, {"README": b"one"})
    changed = random_files(range(1, 60), size_bytes=FILE_BYTES, seed="y2")
    added = random_files(range(FILES + 1, 2 * FILES), size_bytes=FILE_BYTES)
    gone = {("original", number) for number in range(200, 215)}
    second = {key: data for key, data in (first | changed | added).items() if key not in gone}
    made.publish("y2", second, {"README": b"two"})
    return made


@dataclass(frozen=True, kw_only=True)
class Job:
    """A verb on ``folder``: its words, the trees before and after, and other trees it reads."""

    words: tuple[str, ...]
    folder: Path
    before: Tree
    after: Tree
    # Bytes that must be found somewhere afterwards: in place, or in the trash.
    mine: Tree = field(default_factory=dict)

    def wrong(self) -> list[str]:
        """Visible files that are neither as before nor as they are to be."""
        found = contents(self.folder) if self.folder.exists() else {}
        ours = (self.before, self.after)
        return [path for path, data in found.items() if all(t.get(path) != data for t in ours)]

    def finished(self) -> set[str]:
        """Visible files that are as they are to be."""
        found = contents(self.folder) if self.folder.exists() else {}
        return {path for path, data in found.items() if self.after.get(path) == data}

    def lost(self) -> list[str]:
        """Files of the user's that are neither in place nor in the trash."""
        found = contents(self.folder) if self.folder.exists() else {}
        trash = self.folder / PRIVATE_FOLDER / "trash"
        kept = {*found.values(), *(p.read_bytes() for p in trash.rglob("*") if p.is_file())}
        return [path for path, data in self.mine.items() if data not in kept]

    def check_complete(self) -> None:
        """Everything is there, nothing is wrong, lost or left over."""
        assert contents(self.folder) == self.after
        assert self.lost() == []
        staging = self.folder / PRIVATE_FOLDER / "staging"
        assert not staging.exists() or list(staging.iterdir()) == []


Make = Callable[[Publisher, str, Path], Job]


def _write(tree: Path, files: Mapping[str, bytes]) -> None:
    for path, data in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(data)


def clone_job(publisher: Publisher, url: str, folder: Path) -> Job:
    """Begin with nothing."""
    after, tree = publisher.editions["y1"].tree(), folder / "tree"
    words = ("clone", url, str(tree), "--release", "y1")
    return Job(words=words, folder=tree, before={}, after=after)


def _cloned(url: str, tree: Path, release: str) -> None:
    assert bucketsync("clone", url, tree, "--release", release).code == 0


def upgrade_job(publisher: Publisher, url: str, folder: Path) -> Job:
    """To another release, deletions too; two files are the user's own, and one he changed."""
    tree = folder / "tree"
    _cloned(url, tree, "y1")
    edited = {"original/0002/2.jpg": b"edited by the user"}
    _write(tree, _MINE | edited)
    before, after = publisher.editions["y1"].tree(), publisher.editions["y2"].tree()
    words = ("upgrade", str(tree), "--to", "y2", "--delete")
    mine = _MINE | edited
    return Job(words=words, folder=tree, before=before | mine, after=after | _MINE, mine=mine)


def repair_job(publisher: Publisher, url: str, folder: Path) -> Job:
    """Of a tree with damage that size and time do not show, and with files gone."""
    tree = folder / "tree"
    _cloned(url, tree, "y2")
    damaged = {}
    for path in sorted((tree / "original").glob("*/*"))[::3]:
        info, data = path.stat(), bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
        damaged[str(path.relative_to(tree))] = bytes(data)
    for path in sorted((tree / "original").glob("*/*"))[1::3]:
        path.unlink()
    after = publisher.editions["y2"].tree()
    words = ("verify", str(tree), "--repair")
    return Job(words=words, folder=tree, before=damaged, after=after)


def adopt_job(publisher: Publisher, url: str, folder: Path) -> Job:
    """Of a folder with the files of the year before; nothing is deleted."""
    tree = folder / "tree"
    before, after = publisher.editions["y1"].tree(), publisher.editions["y2"].tree()
    _write(tree, before | _MINE)
    words = ("adopt", url, str(tree), "--release", "y2")
    return Job(
        words=words,
        folder=tree,
        before=before | _MINE,
        after=before | _MINE | after,
        mine=_MINE,
    )


def checkout_job(publisher: Publisher, url: str, folder: Path) -> Job:
    """A past release beside a tree, whose dropped and changed files come from the host."""
    tree, past = folder / "source", folder / "tree"
    _cloned(url, tree, "y2")
    words = ("checkout", "y1", str(past), "--tree", str(tree))
    return Job(words=words, folder=past, before={}, after=publisher.editions["y1"].tree())


JOBS: dict[str, Make] = {
    "clone": clone_job,
    "upgrade": upgrade_job,
    "verify --repair": repair_job,
    "adopt": adopt_job,
    "checkout": checkout_job,
}


# --------------------------------------------------------------------------- what was asked for


def places(publisher: Publisher) -> dict[str, dict[str, tuple[int, int]]]:
    """For each pack, the span of bytes of each path of a tree that lies in it."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for folder in publisher.repo.glob("files/*/*/*"):
        start, spans = 0, {}
        for file in sorted(folder.iterdir(), key=lambda path: int(path.stem)):
            stop = start + file.stat().st_size
            spans["/".join(file.parts[-3:])] = (start, stop)
            start = stop
        found["packs/" + "/".join(folder.parts[-3:])] = spans
    return found


def fetched_again(
    log: Iterable[Exchange], finished: set[str], packs: dict[str, dict[str, tuple[int, int]]]
) -> list[str]:
    """The finished files of which a byte was asked for."""
    again = []
    for exchange in log:
        for path, (first, last) in packs.get(exchange.path, {}).items():
            asked = exchange.request.spans or []
            if path in finished and any(start < last and first < stop for start, stop in asked):
                again.append(path)
        again += [path for path in finished if exchange.path.endswith(path)]
    return again


# --------------------------------------------------------------------------- processes


def wait_until_gone(pids: Iterable[int]) -> None:
    """Return when processes have ended; TimeoutError if one goes on."""
    for pid in pids:
        with suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                ended, _, _ = select.select([fd], [], [], _PATIENCE_S)
            finally:
                os.close(fd)
            if not ended:
                raise TimeoutError(f"process {pid} goes on")


def empty(folder: Path) -> None:
    """Take everything out of a folder."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
