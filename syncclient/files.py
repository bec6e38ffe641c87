"""Files and folders of a tree: opening, hashing, linking, what a folder holds.  Without numpy.

Nothing here follows a symbolic link or waits on a FIFO.  Processes that only look at folders or
read files import this and little else: their start is part of every run.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from array import array
from collections.abc import Iterable
from typing import NamedTuple

import blake3

from manifests.digest import CHUNK_BYTES
from manifests.errors import StoreError
from manifests.paths import parse_entry_name, parse_entry_names

OPEN_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


# ioctl number of Linux's FICLONE (linux/fs.h): share the extents of another file.
_FICLONE = 0x40049409
_COPY_BYTES = 8 * 2**20
# Written to a file at once.  The kernel takes memory for it in pieces as large as the write, and
# large ones a virtual machine may first have to ask back from its host: with 1 MiB that took up to
# six times as long, with 256 KiB up to three times (docs/explanation/performance.md).
WRITE_BYTES = 64 * 2**10
# Errors that mean "this file system cannot do it", not "the disk is broken".
_UNSUPPORTED = {
    errno.EOPNOTSUPP,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOTTY,
    errno.ENOSYS,
    errno.EPERM,
    errno.EMLINK,
    errno.ETXTBSY,
}


class FileStat(NamedTuple):
    """What says that a file did not change: size in bytes, mtime in nanoseconds, inode."""

    size_bytes: int
    mtime_ns: int
    inode: int


class FileHash(NamedTuple):
    """One reading of a file: its BLAKE3, one digest a chunk if it is large, and its stat."""

    digest: bytes
    chunks: bytes
    stat: FileStat


def printable(name: str) -> str:
    """A file name as text that can be encoded: bytes that are no UTF-8 become escapes."""
    return os.fsencode(name).decode(errors="backslashreplace")


def open_regular(path: str | os.PathLike[str], *, dir_fd: int | None = None) -> int:
    """A descriptor of a regular file; OSError: ELOOP for a link, EINVAL for a FIFO or device."""
    fd = os.open(path, OPEN_READ, dir_fd=dir_fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return fd


def stat_of(fd: int) -> FileStat:
    """Size, mtime and inode of an open file."""
    info = os.fstat(fd)
    return FileStat(info.st_size, info.st_mtime_ns, info.st_ino)


def hash_open(fd: int, *, with_chunks: bool) -> FileHash:
    """Read an open file once, from its start; the stat is taken before and must hold after.

    Raises StoreError (changed while it was read) if size or mtime moved meanwhile.
    """
    before = stat_of(fd)
    if before.size_bytes <= CHUNK_BYTES:
        data = _read_exactly(fd, before.size_bytes)
        result = FileHash(blake3.blake3(data).digest(), b"", before)
    else:
        result = _hash_large(fd, before, with_chunks=with_chunks)
    if stat_of(fd) != before:
        message = "the file changed while it was read"
        raise StoreError(message, hint="Run again when nothing writes to it.")
    return result


def _read_exactly(fd: int, size_bytes: int) -> bytes:
    """Up to ``size_bytes + 1`` bytes: a file that grew meanwhile shows as a wrong length."""
    data = os.read(fd, size_bytes + 1)
    while len(data) <= size_bytes and (more := os.read(fd, size_bytes + 1 - len(data))):
        data += more
    return data


def _hash_large(fd: int, before: FileStat, *, with_chunks: bool) -> FileHash:
    whole, chunks = blake3.blake3(), []
    buffer = bytearray(CHUNK_BYTES)
    view = memoryview(buffer)
    position = 0
    while filled := _fill(fd, view):
        whole.update(view[:filled])
        if with_chunks:
            chunks.append(blake3.blake3(view[:filled]).digest())
        position += filled
    if position != before.size_bytes:
        message = f"expected {before.size_bytes} bytes, read {position}"
        raise StoreError(message, hint="The file changed while it was read; run again.")
    return FileHash(whole.digest(), b"".join(chunks), before)


def _fill(fd: int, view: memoryview) -> int:
    """Read until ``view`` is full or the file ends; the number of bytes read."""
    filled = 0
    while filled < len(view) and (count := os.readv(fd, [view[filled:]])):
        filled += count
    return filled


# --------------------------------------------------------------------------- folders


class FolderColumns(NamedTuple):
    """The files of a folder that an entry could be, n rows sorted by (id, extension).

    Native numbers: ids (n,) u32 · exts (n,) u16 index into ``extensions`` · sizes (n,) u64 ·
    mtimes (n,) i64 ns · inodes (n,) u64.  ``others`` are all further names, with why.
    """

    extensions: tuple[str, ...] = ()
    ids: bytes = b""
    exts: bytes = b""
    sizes: bytes = b""
    mtimes: bytes = b""
    inodes: bytes = b""
    others: tuple[tuple[str, str], ...] = ()


# Fingerprint and time of a folder that does not exist, and the time of one that is not known.
ABSENT = b"-"
ABSENT_NS = -2
UNSURE = -1


class FolderLook(NamedTuple):
    """A look at a folder.

    The fingerprint stands for the names of everything in the folder, and the kind, size and mtime
    of each.  ``mtime_ns`` of the folder was read before the names.  ``columns`` are all files; of
    a folder that is :class:`AsLeft` those that were asked for, None if none were.
    """

    fingerprint: bytes
    mtime_ns: int
    columns: FolderColumns | None

    @classmethod
    def of_nothing(cls, left: AsLeft) -> FolderLook:
        """A look at a folder that does not exist."""
        return cls(ABSENT, ABSENT_NS, None if left.fingerprint == ABSENT else FolderColumns())


class AsLeft(NamedTuple):
    """What a folder looked like when it was left, and whose files are asked for if it still does.

    It still does if it has the ``fingerprint``; or, without a look inside, if its mtime is
    ``mtime_ns`` (UNSURE: look inside).
    """

    fingerprint: bytes = b""
    names: tuple[str, ...] = ()
    mtime_ns: int = UNSURE


UNKNOWN = AsLeft()


def look_at_folder(fd: int, left: AsLeft = UNKNOWN) -> FolderLook:
    """Look at the open folder ``fd``; nothing in it is opened, no link is followed."""
    mtime_ns = os.fstat(fd).st_mtime_ns
    if UNSURE != left.mtime_ns == mtime_ns:
        some = _columns(*_still_here(fd, sorted(left.names))) if left.names else None
        return FolderLook(left.fingerprint, mtime_ns, some)
    names = sorted(os.listdir(fd))
    try:
        stats = [os.stat(name, dir_fd=fd, follow_symlinks=False) for name in names]
    except FileNotFoundError:
        # Something is gone since the names were read: it is not here.
        names, stats = _still_here(fd, names)
    kinds = array("L", [stat.S_IFMT(info.st_mode) for info in stats])
    sizes = array("Q", [info.st_size for info in stats])
    mtimes = array("q", [info.st_mtime_ns for info in stats])
    found = fingerprint(names, kinds.tobytes(), sizes.tobytes(), mtimes.tobytes())
    if found != left.fingerprint:
        return FolderLook(found, mtime_ns, _columns(names, stats))
    here = dict(zip(names, stats, strict=True)) if left.names else {}
    asked = sorted(here.keys() & left.names)
    some = _columns(asked, [here[name] for name in asked]) if left.names else None
    return FolderLook(found, mtime_ns, some)


def _still_here(fd: int, names: Iterable[str]) -> tuple[list[str], list[os.stat_result]]:
    here: list[str] = []
    stats: list[os.stat_result] = []
    for name in names:
        try:
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        here.append(name)
        stats.append(info)
    return here, stats


def fingerprint(names: Iterable[str], kinds: bytes, sizes: bytes, mtimes: bytes) -> bytes:
    """BLAKE3 over all that tells whether something in a folder may have changed.

    ``names`` ascend, and none holds a NUL; of each the type bits of its mode, its size in bytes
    and its mtime in ns, as native 64-bit numbers.
    """
    hasher = blake3.blake3(os.fsencode("\0".join(names)))
    hasher.update(b"\0\0")
    for column in (kinds, sizes, mtimes):
        hasher.update(column)
    return hasher.digest()


def _columns(names: list[str], stats: list[os.stat_result]) -> FolderColumns:
    """What is in a folder, whose ``names`` are sorted."""
    others: list[tuple[str, str]] = []
    named = parse_entry_names(names)
    if named is None or not all(stat.S_ISREG(mode) for mode in {info.st_mode for info in stats}):
        names, stats, others = _sifted(names, stats)
        named = parse_entry_names(names)
    ids, extensions = named or ([], [])
    table = {name: code for code, name in enumerate(dict.fromkeys(extensions))}
    # Two names with the same id stand by extension already.
    order = sorted(range(len(ids)), key=ids.__getitem__)
    infos = [stats[row] for row in order]
    return FolderColumns(
        extensions=tuple(table),
        ids=array("I", [ids[row] for row in order]).tobytes(),
        exts=array("H", [table[extensions[row]] for row in order]).tobytes(),
        sizes=array("Q", [info.st_size for info in infos]).tobytes(),
        mtimes=array("q", [info.st_mtime_ns for info in infos]).tobytes(),
        inodes=array("Q", [info.st_ino for info in infos]).tobytes(),
        others=tuple(others),
    )


def _sifted(
    names: list[str], stats: list[os.stat_result]
) -> tuple[list[str], list[os.stat_result], list[tuple[str, str]]]:
    """The names that an entry could have, and their stats; all others, with why."""
    here: list[str] = []
    infos: list[os.stat_result] = []
    others: list[tuple[str, str]] = []
    for name, info in zip(names, stats, strict=True):
        if parse_entry_name(name) is None or not stat.S_ISREG(info.st_mode):
            others.append((name, _kind(info.st_mode)))
        else:
            here.append(name)
            infos.append(info)
    return here, infos, others


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISLNK(mode):
        return "symlink"
    return "name" if stat.S_ISREG(mode) else "special"


def open_below(root_fd: int, parts: tuple[str, ...]) -> int:
    """A descriptor of the folder ``parts`` below an open folder; no component may be a link.

    Raises FileNotFoundError, or StoreError (exit 7) where a component is a symbolic link.
    """
    fd = os.dup(root_fd)
    for depth, part in enumerate(parts):
        try:
            inner = os.open(part, OPEN_FOLDER, dir_fd=fd)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                shown = "/".join(parts[: depth + 1])
                message = f"{shown} is a symbolic link or a file, expected a folder"
                raise StoreError(message, hint=_LINK_HINT) from error
            raise
        finally:
            os.close(fd)
        fd = inner
    return fd


_LINK_HINT = (
    "bucketsync follows no links inside a tree. Keep a variant on another disk with "
    "--variant-dir NAME=PATH."
)


def look_below(root: str, parts: tuple[str, ...], left: AsLeft = UNKNOWN) -> FolderLook:
    """A look at one folder below ``root``; an empty one if it does not exist."""
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_below(root_fd, parts)
    except FileNotFoundError:
        return FolderLook.of_nothing(left)
    finally:
        os.close(root_fd)
    try:
        return look_at_folder(fd, left)
    finally:
        os.close(fd)


# --------------------------------------------------------------------------- making files


def reflink(source_fd: int, target_fd: int) -> bool:
    """Share the extents of one open file with another; False where the file system cannot."""
    try:
        fcntl.ioctl(target_fd, _FICLONE, source_fd)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of some bytes to an open file, from its position on."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view[:WRITE_BYTES]) :]


def copy_bytes(source_fd: int, target_fd: int, size_bytes: int) -> None:
    """Copy ``size_bytes`` from the start of one file to the start of another, in the kernel."""
    position = 0
    while position < size_bytes:
        count = min(_COPY_BYTES, size_bytes - position)
        try:
            done = os.copy_file_range(source_fd, target_fd, count, position, position)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            done = os.pwrite(target_fd, os.pread(source_fd, count, position), position)
        if done == 0:
            message = f"the source ended at byte {position} of {size_bytes}"
            raise StoreError(message, hint="It changed while it was copied; run again.")
        position += done
