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
from dataclasses import dataclass
from pathlib import Path

from manifests.errors import StoreError
from syncclient.store import TRASH

_KINDS = ("deleted", "aside")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trashed:
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
    if not trash.is_dir() or trash.is_symlink():
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
    """Put a file back where it was; False if something stands there now, which is left alone."""
    target = item.root / item.path
    try:
        _safe_parents(item.root, target.parent)
        os.link(item.location, target, follow_symlinks=False)
        item.location.unlink()
    except FileExistsError:
        return False
    except OSError as error:
        message = f"{target}: cannot be restored ({error.strerror})"
        raise StoreError(message) from error
    return True


def _safe_parents(root: Path, folder: Path) -> None:
    """Make the folders down to ``folder``; StoreError if one of them is a link."""
    here = root
    for part in folder.relative_to(root).parts:
        here /= part
        if here.is_symlink():
            message = f"{here} is a symbolic link; bucketsync follows none inside a tree"
            raise StoreError(message)
        here.mkdir(exist_ok=True)


def empty(root: Path, older_than_s: float = 0.0) -> None:
    """Delete for good what runs put aside at least so many seconds ago."""
    for run in runs(root, older_than_s):
        try:
            shutil.rmtree(run)
        except OSError as error:
            message = f"{error.filename}: {error.strerror}"
            raise StoreError(message) from error


def remove_empty_folders(root: Path) -> None:
    """Take away folders of the trash that hold nothing any more."""
    for run in runs(root):
        for folder, _, _ in os.walk(run, topdown=False):
            if not any(Path(folder).iterdir()):
                Path(folder).rmdir()
