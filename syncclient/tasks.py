"""What processes of a crew do: look at folders, read files.  Plain values in, plain values out.

Imported by every one of them, so it imports next to nothing.
"""

from __future__ import annotations

import os
import stat
from array import array
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import blake3

from manifests.digest import DIGEST_BYTES
from manifests.errors import StoreError
from syncclient.files import (
    OPEN_READ,
    UNKNOWN,
    AsLeft,
    FolderLook,
    hash_open,
    look_below,
    open_below,
    open_regular,
)

# Read at once: larger than most files, small enough to stay in the cache of a processor.
_READ_BYTES = 2**20


class FolderTask(NamedTuple):
    """A folder to look at, and how it was left."""

    root: str
    parts: tuple[str, ...]
    left: AsLeft = UNKNOWN


class HashTask(NamedTuple):
    """Files of one folder to be hashed."""

    root: str
    parts: tuple[str, ...]
    names: list[str]


class CheckTask(NamedTuple):
    """n entries of one folder to be read and compared with their digests.

    Native numbers: ids (n,) u32 · exts (n,) u8 index into ``extensions`` · digests (n, 32) u8.
    """

    root: str
    parts: tuple[str, ...]
    extensions: tuple[str, ...]
    ids: bytes
    exts: bytes
    digests: bytes

    def names(self) -> list[str]:
        """The file name of each row."""
        pairs = zip(array("I", self.ids), self.exts, strict=True)
        return [f"{post_id}.{self.extensions[ext]}" for post_id, ext in pairs]


# Rows of a CheckTask that are not right, and whether something stands under the name.
Wrong = list[tuple[int, bool]]


def list_task(task: FolderTask) -> FolderLook:
    """A look at one bucket folder; StoreError if it cannot be listed."""
    try:
        return look_below(*task)
    except OSError as error:
        raise _unlistable(task.root, task.parts, error) from error


def _unlistable(root: str, parts: tuple[str, ...], error: OSError) -> StoreError:
    """What to tell about a folder that the system does not list; nothing is deduced from it."""
    message = f"{Path(root, *parts)}: {error.strerror}"
    return StoreError(message, hint="A folder that cannot be listed is never read as empty.")


def _open_folder(root: str, parts: tuple[str, ...]) -> int | None:
    """A descriptor of a folder below ``root``; None if it does not exist.

    StoreError if it cannot be opened.
    """
    try:
        root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return open_below(root_fd, parts)
        finally:
            os.close(root_fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unlistable(root, parts, error) from error


def hash_task(task: HashTask) -> list[bytes | None]:
    """Digests of some files of one folder; None for one that cannot be read or is changing."""
    folder = _open_folder(task.root, task.parts)
    if folder is None:
        return [None] * len(task.names)
    try:
        return [_digest(name, folder) for name in task.names]
    finally:
        os.close(folder)


def _digest(name: str, folder: int) -> bytes | None:
    with suppress(OSError, StoreError):
        fd = open_regular(name, dir_fd=folder)
        try:
            return hash_open(fd, with_chunks=False).digest
        finally:
            os.close(fd)
    return None


def check_task(task: CheckTask) -> Wrong:
    """Read some entries of one folder; which of them are not right."""
    folder = _open_folder(task.root, task.parts)
    if folder is None:
        return [(row, False) for row in range(len(task.exts))]
    wrong, digests, start = Wrong(), task.digests, 0
    buffer = memoryview(bytearray(_READ_BYTES))
    buffers, most = (buffer,), len(buffer)
    try:
        # A file takes 12 us, half of them in the kernel; each call that can be spared counts.
        for row, name in enumerate(task.names()):
            digest = digests[start : start + DIGEST_BYTES]
            start += DIGEST_BYTES
            try:
                fd = os.open(name, OPEN_READ, dir_fd=folder)
            except OSError:
                wrong.append((row, _is_there(name, folder)))
                continue
            try:
                count = os.readv(fd, buffers)
                # A file ends where a read falls short of the buffer.
                if 0 < count < most and blake3.blake3(buffer[:count]).digest() == digest:
                    continue
                right = _holds(fd, digest, buffer, count)
            except OSError:
                right = False
            finally:
                os.close(fd)
            if not right:
                wrong.append((row, True))
    finally:
        os.close(folder)
    return wrong


def _holds(fd: int, digest: bytes, buffer: memoryview, count: int) -> bool:
    """Whether an open file, of which ``count`` bytes are in the buffer, has that digest."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return False
    hasher = blake3.blake3()
    while count:
        hasher.update(buffer[:count])
        count = os.readv(fd, (buffer,))
    return hasher.digest() == digest


def _is_there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError:
        # It cannot be told, so it is not said to be missing.
        return True
    return True
