"""The only writer of a tree.

One :class:`Store` serves one *place*: the folder that holds a variant's buckets (or the tree
itself, for assets) and the private folder with staging and trash on the same file system.  Its
rules:

* Bytes go to an own file in staging, are checked there (or were checked in memory), get their
  mtime, and only then receive their final name by one rename.
* Every step to a folder is taken from an open descriptor with O_NOFOLLOW, so a link planted in the
  tree, even while we run, leads nowhere.
* What stands under the final name is replaced only if it is exactly the file the plan saw;
  anything else is the user's and is moved aside into the trash, never overwritten.

Methods block; they run in worker threads or processes, never on the event loop.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Self

from msgspec import Struct

from manifests.errors import StoreError
from manifests.paths import PRIVATE_FOLDER
from syncclient.disk import (
    is_ours_alone,
    rename_noreplace,
    stat_at,
    store_error,
    translated,
    write_new,
)
from syncclient.files import (
    OPEN_FOLDER,
    WRITE_BYTES,
    FileStat,
    copy_bytes,
    hash_open,
    open_below,
    open_regular,
    reflink,
)

STAGING = (PRIVATE_FOLDER, "staging")
TRASH = (PRIVATE_FOLDER, "trash")
_OPEN_FOLDERS = 128


class Aside(Struct, frozen=True, kw_only=True):
    """A file of the user's that was in the way: where it stood and where it is now."""

    path: str
    moved_to: str


# Name, verified bytes, digest, mtime, and what may be replaced; what was moved aside.
PlaceBytes = Callable[[str, bytes | memoryview, bytes, int, FileStat | None], Aside | None]


class Store:
    """Writes below one folder; use as a context manager, which closes its descriptors."""

    def __init__(self, root: Path, run: str) -> None:
        """``run`` names this run's part of the trash, such as ``20261122T192000Z``."""
        self.root = root
        self.run = run
        self._new_names = map("%x".__mod__, itertools.count())
        self._root_fd = -1
        self._staging_fd = -1
        self._own = ""
        self._own_fd = -1
        self._folders: OrderedDict[tuple[str, ...], int] = OrderedDict()

    def __enter__(self) -> Self:
        """Open the place and its staging folder, made if missing."""
        with translated(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            self._root_fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._staging_fd = self._open_folder(STAGING)
            except BaseException:
                os.close(self._root_fd)
                raise
        return self

    def __exit__(self, *_: object) -> None:
        """Close every descriptor, and take away the folder in staging."""
        if self._own:
            os.close(self._own_fd)
            # What an error left in it goes when nothing is missing any more.
            with suppress(OSError):
                os.rmdir(self._own, dir_fd=self._staging_fd)
            self._own, self._own_fd = "", -1
        for fd in [*self._folders.values(), self._staging_fd, self._root_fd]:
            os.close(fd)
        self._folders.clear()

    # ----------------------------------------------------------------- folders

    def _open_folder(self, parts: tuple[str, ...]) -> int:
        """Open a folder below the root, making what is missing."""
        try:
            return open_below(self._root_fd, parts)
        except FileNotFoundError:
            for depth in range(1, len(parts) + 1):
                parent = open_below(self._root_fd, parts[: depth - 1])
                try:
                    with suppress(FileExistsError):
                        os.mkdir(parts[depth - 1], dir_fd=parent)
                finally:
                    os.close(parent)
            return open_below(self._root_fd, parts)

    def folder(self, parts: tuple[str, ...]) -> int:
        """A descriptor of a folder, kept open among the last 128 used; made if missing."""
        fd = self._folders.pop(parts, -1)
        if fd < 0:
            fd = self._open_folder(parts)
        return self._keep_open(parts, fd)

    def _keep_open(self, parts: tuple[str, ...], fd: int) -> int:
        if len(self._folders) >= _OPEN_FOLDERS:
            os.close(self._folders.popitem(last=False)[1])
        self._folders[parts] = fd
        return fd

    def _is_there(self, parts: tuple[str, ...]) -> bool:
        """Whether there is such a folder."""
        if parts not in self._folders:
            try:
                self._keep_open(parts, open_below(self._root_fd, parts))
            except FileNotFoundError:
                return False
        return True

    def remove_folder_if_empty(self, parts: tuple[str, ...]) -> None:
        """Remove a folder that a deletion emptied; one with anything in it stays."""
        fd = self._folders.pop(parts, -1)
        if fd >= 0:
            os.close(fd)
        try:
            parent = open_below(self._root_fd, parts[:-1])
        except FileNotFoundError:
            return
        try:
            with suppress(OSError):
                os.rmdir(parts[-1], dir_fd=parent)
        finally:
            os.close(parent)

    # ----------------------------------------------------------------- staging

    def clean_staging(self) -> None:
        """Remove what runs that were killed left behind; for when nothing is missing any more."""
        with translated(self.root):
            for name in os.listdir(self._staging_fd):  # noqa: PTH208 (an open folder)
                self._clear_name(name)

    def _clear_name(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self._staging_fd)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            shutil.rmtree(name, ignore_errors=True, dir_fd=self._staging_fd)

    def _new_name(self) -> str:
        """A name for a file or folder in this store's own part of staging, which ``_own_fd`` is.

        Processes that make files in one folder wait for each other: a quarter of the time that a
        file takes in the kernel.  Nobody else has a part of that name, no run that was killed
        either: in a container the numbers of processes are the same every time.
        """
        if not self._own:
            own = os.urandom(8).hex()
            os.mkdir(own, dir_fd=self._staging_fd)
            self._own_fd = os.open(own, OPEN_FOLDER, dir_fd=self._staging_fd)
            self._own = own
        return next(self._new_names)

    def open_part(self, name: str) -> int:
        """Open (or begin) the staged part of a large file.

        What it holds from an earlier run is not trusted: the caller hashes it again. What is no
        file of ours alone (a link, a pipe, another name of a file outside) is taken away.
        """
        with translated(self.root, *STAGING, name):
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with suppress(FileNotFoundError):
                try:
                    fd = os.open(name, flags, dir_fd=self._staging_fd)
                except OSError as error:
                    if error.errno not in {errno.ELOOP, errno.ENXIO, errno.EISDIR}:
                        raise
                else:
                    if is_ours_alone(fd):
                        return fd
                    os.close(fd)
                self._clear_name(name)
            return os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=self._staging_fd)

    def copy_into(self, fd: int, folder: tuple[str, ...], name: str) -> None:
        """Fill a staged part with the file in the tree, whose good chunks may serve."""
        source = open_regular(name, dir_fd=self.folder(folder))
        try:
            if not reflink(source, fd):
                copy_bytes(source, fd, os.fstat(source).st_size)
        finally:
            os.close(source)

    def write_part(self, fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write bytes of a staged part."""
        with translated(self.root, *STAGING):
            view = memoryview(data)
            while view:
                done = os.pwrite(fd, view[:WRITE_BYTES], offset)
                view, offset = view[done:], offset + done

    def drop_part(self, name: str) -> None:
        """Remove a staged part."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._staging_fd)

    # ----------------------------------------------------------------- placing

    @contextmanager
    def placing(self, folder: tuple[str, ...]) -> Iterator[PlaceBytes]:
        """A way to place files of one folder, as :meth:`place_bytes` does.

        A folder that is not there yet is filled in staging and then named, with all files in it:
        that spares each file a name of its own until then.  They are visible at the end of the
        context, also if it ends by an error.
        """
        with translated(self.root, *folder):
            if self._is_there(folder):
                fresh = None
            else:
                name = self._new_name()
                fresh = _NewFolder(self._own_fd, name)
        if fresh is None:
            yield partial(self.place_bytes, folder)
            return
        try:
            yield partial(self._place_in, fresh, folder)
        finally:
            with translated(self.root, *folder):
                self._name_folder(fresh, folder)

    def _place_in(  # noqa: PLR0913 (as place_bytes)
        self,
        fresh: _NewFolder,
        folder: tuple[str, ...],
        name: str,
        data: bytes | memoryview,
        digest: bytes,
        mtime_ns: int,
        replaces: FileStat | None,  # noqa: ARG002 (there is nothing in a new folder)
    ) -> None:
        try:
            write_new(name, fresh.fd, data, mtime_ns)
        except OSError as error:
            raise store_error(error, self.root.joinpath(*folder, name)) from error
        fresh.digests[name] = digest

    def _name_folder(self, fresh: _NewFolder, folder: tuple[str, ...]) -> None:
        """Give a folder its name; if somebody took it meanwhile, each file its own."""
        if not fresh.digests:
            fresh.drop()
            return
        try:
            parent = self.folder(folder[:-1])
            rename_noreplace(fresh.name, self._own_fd, folder[-1], parent)
        except FileExistsError:
            for name, digest in fresh.digests.items():
                staged = self._new_name()
                os.rename(name, staged, src_dir_fd=fresh.fd, dst_dir_fd=self._own_fd)
                self._name(self._own_fd, staged, folder, name, digest, None)
            fresh.drop()
        else:
            self._keep_open(folder, fresh.fd)

    def place_bytes(  # noqa: PLR0913 (a file is its folder, name, bytes, mtime and what it replaces)
        self,
        folder: tuple[str, ...],
        name: str,
        data: bytes | memoryview,
        digest: bytes,
        mtime_ns: int,
        replaces: FileStat | None,
    ) -> Aside | None:
        """Give verified bytes their final name; see :meth:`place_staged` for ``replaces``."""
        try:
            staged = self._new_name()
            write_new(staged, self._own_fd, data, mtime_ns)
            return self._name(self._own_fd, staged, folder, name, digest, replaces)
        except OSError as error:
            raise store_error(error, self.root.joinpath(*folder, name)) from error

    def place_staged(  # noqa: PLR0913
        self,
        staged: str,
        folder: tuple[str, ...],
        name: str,
        digest: bytes,
        mtime_ns: int,
        replaces: FileStat | None,
    ) -> Aside | None:
        """Give a verified staged file its final name.

        ``replaces`` is the file that the plan saw there and may replace, None if it saw nothing.
        Anything else found there is moved aside and returned, unless it already has our bytes.
        """
        with translated(self.root, *folder, name):
            os.utime(staged, ns=(mtime_ns, mtime_ns), dir_fd=self._staging_fd)
            return self._name(self._staging_fd, staged, folder, name, digest, replaces)

    def place_copy(  # noqa: PLR0913
        self,
        source_fd: int,
        folder: tuple[str, ...],
        name: str,
        digest: bytes,
        mtime_ns: int,
        replaces: FileStat | None,
        link_from: str = "",
    ) -> tuple[str, Aside | None]:
        """Give the bytes of an open, verified file a name here: by reflink, hard link or copy.

        A hard link is made only if ``link_from`` (the path of ``source_fd``) still names that
        inode. Returns how it was made and what was moved aside.
        """
        with translated(self.root, *folder, name):
            staged = self._new_name()
            how = self._stage_copy(source_fd, staged, link_from, mtime_ns)
            return how, self._name(self._own_fd, staged, folder, name, digest, replaces)

    def place_link(  # noqa: PLR0913
        self,
        source_fd: int,
        source: str,
        folder: tuple[str, ...],
        name: str,
        digest: bytes,
        mtime_ns: int,
        replaces: FileStat | None,
    ) -> Aside | None:
        """Give an open, verified file of our own staging (at ``source``) its final name as well.

        It keeps its staging name, under which peers still read it, until that is taken away; on a
        file system without hard links it is copied.
        """
        with translated(self.root, *folder, name):
            staged = self._new_name()
            os.utime(source_fd, ns=(mtime_ns, mtime_ns))
            if not self._link(source_fd, staged, source):
                return self.place_copy(source_fd, folder, name, digest, mtime_ns, replaces)[1]
            return self._name(self._own_fd, staged, folder, name, digest, replaces)

    def _stage_copy(self, source_fd: int, staged: str, link_from: str, mtime_ns: int) -> str:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(staged, flags, 0o666, dir_fd=self._own_fd)
        try:
            if reflink(source_fd, fd):
                os.utime(fd, ns=(mtime_ns, mtime_ns))
                return "reflink"
            if link_from and self._hard_link(source_fd, staged, link_from):
                return "hard"
            copy_bytes(source_fd, fd, os.fstat(source_fd).st_size)
            os.utime(fd, ns=(mtime_ns, mtime_ns))
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(staged, dir_fd=self._own_fd)
            raise
        finally:
            os.close(fd)
        return "copy"

    def _hard_link(self, source_fd: int, staged: str, link_from: str) -> bool:
        linked = staged + "-link"
        if not self._link(source_fd, linked, link_from):
            return False
        os.rename(linked, staged, src_dir_fd=self._own_fd, dst_dir_fd=self._own_fd)
        return True

    def _link(self, source_fd: int, linked: str, link_from: str) -> bool:
        """Give an open file a new name in staging, if ``link_from`` still names that file."""
        try:
            os.link(link_from, linked, dst_dir_fd=self._own_fd, follow_symlinks=False)
        except OSError:
            return False
        found = os.stat(linked, dir_fd=self._own_fd, follow_symlinks=False)
        if not os.path.samestat(found, os.fstat(source_fd)):
            os.unlink(linked, dir_fd=self._own_fd)
            return False
        return True

    def _name(  # noqa: PLR0913 (what is staged where, and where it goes)
        self,
        staged_fd: int,
        staged: str,
        folder: tuple[str, ...],
        name: str,
        digest: bytes,
        replaces: FileStat | None,
    ) -> Aside | None:
        target = self.folder(folder)
        if replaces is not None and stat_at(name, target) == replaces:
            os.rename(staged, name, src_dir_fd=staged_fd, dst_dir_fd=target)
            return None
        try:
            rename_noreplace(staged, staged_fd, name, target)
        except FileExistsError:
            return self._name_where_taken(staged_fd, staged, folder, name, digest)
        return None

    def _name_where_taken(
        self, staged_fd: int, staged: str, folder: tuple[str, ...], name: str, digest: bytes
    ) -> Aside | None:
        """Something appeared since the plan: our bytes are welcome, anything else moves aside."""
        target = self.folder(folder)
        with suppress(OSError, StoreError):
            fd = open_regular(name, dir_fd=target)
            try:
                if hash_open(fd, with_chunks=False).digest == digest:
                    os.unlink(staged, dir_fd=staged_fd)
                    return None
            finally:
                os.close(fd)
        aside = self.put_aside(folder, name, kind="aside")
        rename_noreplace(staged, staged_fd, name, target)
        return aside

    # ----------------------------------------------------------------- moving aside

    def put_aside(self, folder: tuple[str, ...], name: str, *, kind: str) -> Aside:
        """Move a file (of any type) into the trash: ``kind`` is ``deleted`` or ``aside``."""
        parts = (*TRASH, self.run, kind, *folder)
        with translated(self.root, *folder, name):
            source, trash = self.folder(folder), self.folder(parts)
            new = name
            for number in itertools.count(1):
                try:
                    rename_noreplace(name, source, new, trash)
                    break
                except FileExistsError:
                    new = f"{name}.{number}"
        shown = "/".join((*folder, name))
        return Aside(path=shown, moved_to=str(self.root.joinpath(*parts, new)))

    def put_back(self, trash: tuple[str, ...], folder: tuple[str, ...], name: str) -> bool:
        """Move a file from a folder of the trash to where it was; False if that is taken."""
        with translated(self.root, *folder, name):
            try:
                rename_noreplace(name, self.folder(trash), name, self.folder(folder))
            except FileExistsError:
                return False
        return True

    def remove_expected(self, folder: tuple[str, ...], name: str, expected: FileStat) -> bool:
        """Move what the release dropped to the trash; False if it is not the one expected."""
        with translated(self.root, *folder, name):
            if stat_at(name, self.folder(folder)) != expected:
                return False
        self.put_aside(folder, name, kind="deleted")
        return True


class _NewFolder:
    """A folder in staging that will be moved into the tree; ``digests`` are those of its files."""

    def __init__(self, staging_fd: int, name: str) -> None:
        os.mkdir(name, dir_fd=staging_fd)
        self.name = name
        self.fd = os.open(name, OPEN_FOLDER, dir_fd=staging_fd)
        self.digests: dict[str, bytes] = {}
        self._staging_fd = staging_fd

    def drop(self) -> None:
        """Take the empty folder away."""
        os.close(self.fd)
        os.rmdir(self.name, dir_fd=self._staging_fd)


def run_name() -> str:
    """A name for this run's part of the trash; sorts by time."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
