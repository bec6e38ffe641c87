"""Staging in memory, for torrents of small files.

To create a small file takes a disk's file system longer than to fetch it, and a file that was
staged on it is created, linked and removed.  So a torrent whose wanted files are small and fit
into a budget is staged in ``/dev/shm``, and the workers write each file once, into the tree.

The folder is locked (flock) while its run lives; what a run that was killed left there, the next
one removes.  Where there is no such folder, or little room in it, staging is on the disk.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 (a folder of mode 0700 is made in it)
# Above that a file's bytes take longer than its creation.
SMALL_BYTES: Final = 128 * 2**10
_PAGE_BYTES: Final = 4096
# Of what is free, others may want the rest.
_SHARE: Final = 2


class MemoryStaging:
    """Folders in memory within a budget; :func:`open_memory` makes one."""

    def __init__(self, root: Path | None, budget_bytes: int) -> None:
        self._root = root
        self._left_bytes = budget_bytes if root is not None else 0
        self._taken: dict[Path, int] = {}

    def take(self, name: str, files: int, size_bytes: int) -> Path | None:
        """A folder for so many files and bytes, which is not made yet; None without room."""
        if self._root is None or size_bytes > files * SMALL_BYTES:
            return None
        needed_bytes = size_bytes + files * _PAGE_BYTES
        if needed_bytes > self._left_bytes:
            return None
        folder = self._root / name
        self._left_bytes -= needed_bytes
        self._taken[folder] = needed_bytes
        return folder

    def holds(self, folder: Path) -> bool:
        """Whether a folder of staging is one of these."""
        return folder in self._taken

    def give_back(self, folder: Path) -> None:
        """It has been removed; nothing happens for a folder that is on the disk."""
        self._left_bytes += self._taken.pop(folder, 0)


NO_MEMORY: Final = MemoryStaging(None, 0)


@contextmanager
def open_memory(budget_bytes: int, place: Path = SHARED_MEMORY) -> Iterator[MemoryStaging]:
    """Staging in memory until the end of the context, of at most half of what is free there."""
    prefix = f"bucketsync-{os.getuid()}-"
    try:
        _remove_left_over(place, prefix)
        info = os.statvfs(place)
        budget_bytes = min(budget_bytes, info.f_bavail * info.f_frsize // _SHARE)
        made = _make_folder(place, prefix) if budget_bytes else None
    except OSError:
        made = None
    if made is None:
        yield NO_MEMORY
        return
    root, lock = made
    try:
        yield MemoryStaging(root, budget_bytes)
    finally:
        shutil.rmtree(root, ignore_errors=True)
        os.close(lock)


def _make_folder(place: Path, prefix: str) -> tuple[Path, int] | None:
    """A new folder and its lock; None if another run takes it for one that was left."""
    root = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if root.exists():
            return root, lock
    os.close(lock)
    return None


def _remove_left_over(place: Path, prefix: str) -> None:
    """Remove the folders of runs that were killed: nobody holds their locks."""
    for folder in place.glob(f"{prefix}*"):
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
