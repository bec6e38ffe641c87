"""A new file system for every run, so that none pays for what another left behind.

ext4 on a file in memory, mounted through a loop device: what is measured is processor and kernel,
not a disk.  Removing a tree and making it again on one file system costs three times as much as
making it on a new one (docs/explanation/performance.md), so that would measure the order of runs.
Who may not mount gets a new folder, and the report says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.needs import find_program, path_of

_MEMORY = Path("/dev/shm")  # noqa: S108 (folders below are made by mkdtemp)
_SPARE_BYTES = 2**30
# A file takes an inode, a name, and half a block of waste; twice that costs nothing in a sparse
# image.
_FILE_BYTES = 2**13
# ext4 gives up delayed allocation, and writes back at once, where less is free than about twice
# what is not yet written (ext4_nonda_switch): nothing of a run may come near that.
_ROOM = 4
_DIRTY = Path("/proc/sys/vm")
# Written back neither because there is much nor because it is old: within a run nothing is.
_QUIET_WRITEBACK = {
    "dirty_ratio": "90",
    "dirty_background_ratio": "80",
    "dirty_expire_centisecs": "360000",
    "dirty_writeback_centisecs": "360000",
}
MOUNT_OPTIONS = "loop,noatime"


def may_mount() -> bool:
    """Whether runs get a file system of their own here."""
    return os.geteuid() == 0 and _MEMORY.is_dir() and find_program("mkfs.ext4") is not None


@contextmanager
def quiet_writeback() -> Iterator[None]:
    """Hold writeback back until the end of the context, where the kernel lets this user.

    What is so already is left alone: another benchmark runs, and will put back what was before.
    """
    old = {}
    try:
        for name, value in _QUIET_WRITEBACK.items():
            path = _DIRTY / name
            before = path.read_text().strip()
            if before != value:
                path.write_text(value)
                old[name] = before
        yield
    except PermissionError:
        yield
    finally:
        for name, value in old.items():
            (_DIRTY / name).write_text(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disks:
    """Makes places for runs that hold so many bytes in so many files."""

    size_bytes: int
    files: int
    # Of the file system; a file takes one at least, twice: in its cache and in the image.
    block_bytes: int = 4096
    mounted: bool = field(default_factory=may_mount)

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """An empty file system, or folder, that is gone at the end of the context."""
        if not self.mounted:
            with tempfile.TemporaryDirectory(prefix="bucketsync-bench-") as name:
                yield Path(name)
            return
        folder = Path(tempfile.mkdtemp(prefix="bucketsync-bench-", dir=_MEMORY))
        image, place = folder / "image", folder / "place"
        place.mkdir()
        try:
            self._make(image)
            subprocess.run([path_of("mount"), "-o", MOUNT_OPTIONS, image, place], check=True)
            try:
                yield place
            finally:
                subprocess.run([path_of("umount"), place], check=True)
        finally:
            shutil.rmtree(folder)

    def _make(self, image: Path) -> None:
        with image.open("wb") as file:
            file.truncate(_ROOM * (self.size_bytes + self.files * _FILE_BYTES) + _SPARE_BYTES)
        inodes = self.files + 20_000
        # All tables now: else a kernel thread writes them while something is measured.
        tables = "lazy_itable_init=0,lazy_journal_init=0"
        command = [path_of("mkfs.ext4"), "-q", "-F", "-m", "0", "-b", str(self.block_bytes)]
        subprocess.run([*command, "-N", str(inodes), "-E", tables, image], check=True)
