"""What a store asks of the system, one step at a time: names, new files, errors, room.

Only files are read and written here; where they go, and what may be replaced, is decided in
:mod:`syncclient.store`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from manifests.errors import ExitCode, StoreError
from syncclient.files import FileStat, write_all

_RENAME_NOREPLACE = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_SPACE_ERRORS = {errno.ENOSPC, errno.EDQUOT}
_NO_SUPPORT = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


def sync_file_system(folder: Path) -> None:
    """Return when all that was written to the file system of ``folder`` is on disk (syncfs)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _LIBC.syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(fd)


def rename_noreplace(old: str, old_fd: int, new: str, new_fd: int) -> None:
    """Rename that fails with FileExistsError where ``new`` is taken (renameat2)."""
    done = _LIBC.renameat2(old_fd, os.fsencode(old), new_fd, os.fsencode(new), _RENAME_NOREPLACE)
    if done == 0:
        return
    code = ctypes.get_errno()
    if code not in _NO_SUPPORT:
        raise OSError(code, os.strerror(code), old, None, new)
    # NFS, exFAT: look, then rename. The window is ours alone: the tree is locked by this run.
    with suppress(FileNotFoundError):
        os.stat(new, dir_fd=new_fd, follow_symlinks=False)
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    os.rename(old, new, src_dir_fd=old_fd, dst_dir_fd=new_fd)


def is_ours_alone(fd: int) -> bool:
    """Whether an open file is a regular one with no other name."""
    info = os.fstat(fd)
    return stat.S_ISREG(info.st_mode) and info.st_nlink == 1


def stat_at(name: str, dir_fd: int) -> FileStat | None:
    """Size, mtime and inode of what has a name in an open folder; None if nothing has."""
    try:
        info = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return FileStat(info.st_size, info.st_mtime_ns, info.st_ino)


def write_new(name: str, folder_fd: int, data: bytes | memoryview, mtime_ns: int) -> None:
    """Make a file with these bytes and this mtime; none if that fails."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o666, dir_fd=folder_fd)
    try:
        write_all(fd, data)
        os.utime(fd, ns=(mtime_ns, mtime_ns))
    except BaseException:
        os.unlink(name, dir_fd=folder_fd)
        raise
    finally:
        os.close(fd)


@contextmanager
def translated(root: Path, *parts: str) -> Iterator[None]:
    """OSError of the body as StoreError that names the file, ``parts`` below ``root``."""
    try:
        yield
    except OSError as error:
        raise store_error(error, root.joinpath(*parts)) from error


def store_error(error: OSError, path: Path) -> StoreError:
    """What the disk refused, as an error that names the file."""
    if error.errno in _SPACE_ERRORS:
        message = f"{path}: no space left on the disk"
        hint = "Make room and run the same command again; what is there stays."
        return StoreError(message, hint=hint, exit_code=ExitCode.STORAGE)
    return StoreError(f"{path}: {error.strerror or error}")


def free_bytes(folder: Path) -> int:
    """Bytes that an ordinary user can still write to the file system of ``folder``."""
    return shutil.disk_usage(_existing(folder)).free


def device_of(folder: Path) -> int:
    """Names the file system of ``folder``, or of where it would be made."""
    return _existing(folder).stat().st_dev


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())
