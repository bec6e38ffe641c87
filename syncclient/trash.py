"""What deletions and replacements put aside: listed, restored, emptied.

Trash lies in ``.bucketsync/trash/RUN/KIND/PATH`` of each place; KIND is ``deleted`` (ours, dropped
by a release) or ``aside`` (the user's, was in the way).
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from manifests.errors import StoreError
from syncclient.store import TRASH, Store
from syncclient.tree import open_below

_KINDS = ("deleted", "aside")


class Trashed(Struct, frozen=True, kw_only=True):
    """One file in the trash of one place."""

    root: Path
    run: str
    kind: str
    path: str
    size_bytes: int

    @property
    def location(self) -> Path:
        """Where the file is now."""
        return self.root.joinpath(*TRASH, self.run, self.kind, self.path)


def runs(root: Path, older_than_s: float = 0.0) -> list[Path]:
    """The trash folders of runs that ended at least so many seconds ago, oldest first."""
    trash = root.joinpath(*TRASH)
    if not trash.is_dir() or trash.is_symlink() or trash.parent.is_symlink():
        return []
    limit_s = time.time() - older_than_s
    found = [p for p in trash.iterdir() if p.is_dir() and not p.is_symlink()]
    return sorted(path for path in found if _began_s(path) <= limit_s)


def _began_s(run: Path) -> float:
    try:
        return float(time.mktime(time.strptime(run.name[:16], "%Y%m%dT%H%M%SZ"))) - time.timezone
    except ValueError:
        return run.stat().st_mtime


def listing(roots: Iterable[Path], older_than_s: float = 0.0) -> Iterator[Trashed]:
    """Every file in the trash of some places."""
    for root in roots:
        for run in runs(root, older_than_s):
            for kind in _KINDS:
                if not (run / kind).is_symlink():
                    yield from _files(root, run, kind)


def _files(root: Path, run: Path, kind: str) -> Iterator[Trashed]:
    top = run / kind
    for folder, folders, names in os.walk(top):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in sorted([*names, *links]):
            path = Path(folder, name)
            info = path.lstat()
            yield Trashed(
                root=root,
                run=run.name,
                kind=kind,
                path=str(path.relative_to(top)),
                size_bytes=info.st_size if stat.S_ISREG(info.st_mode) else 0,
            )


def restore(item: Trashed) -> bool:
    """Put a file back where it was; False if something stands there now, which is left alone.

    StoreError where a link stands in the way, on either side: none is followed.
    """
    *folder, name = Path(item.path).parts
    with Store(item.root, item.run) as place:
        return place.put_back((*TRASH, item.run, item.kind, *folder), tuple(folder), name)


def empty(root: Path, older_than_s: float = 0.0) -> None:
    """Delete for good what runs put aside at least so many seconds ago."""
    chosen = runs(root, older_than_s)
    with _opened(root, chosen) as trash:
        for run in chosen:
            try:
                shutil.rmtree(run.name, dir_fd=trash)
            except OSError as error:
                message = f"{run}: {error.filename}: {error.strerror}"
                raise StoreError(message) from error


def remove_empty_folders(root: Path) -> None:
    """Take away folders of the trash that hold nothing any more."""
    chosen = runs(root)
    with _opened(root, chosen) as trash:
        for run in chosen:
            for _, folders, _, fd in os.fwalk(run.name, topdown=False, dir_fd=trash):
                _remove_if_empty(folders, fd)
        _remove_if_empty([run.name for run in chosen], trash)


def _remove_if_empty(folders: Iterable[str], parent: int) -> None:
    for name in folders:
        with suppress(OSError):
            os.rmdir(name, dir_fd=parent)


@contextmanager
def _opened(root: Path, chosen: list[Path]) -> Iterator[int]:
    """A descriptor of the trash, which no link swapped in later leads elsewhere; -1 if empty."""
    if not chosen:
        yield -1
        return
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        trash = open_below(root_fd, TRASH)
    finally:
        os.close(root_fd)
    try:
        yield trash
    finally:
        os.close(trash)
