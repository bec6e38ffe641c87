"""Whether layers that share their bytes with a tree still hold what was published of one bucket.

A file of such a *guarded* layer is compared with its record (:mod:`server.record`).  Most are hard
links of files of the tree that have just been looked at.  An inode number of a device is one file,
whatever its names: if a listing of the layer's folder tells the number that was seen in the tree,
so are size and mtime what was seen there, and no second look is needed, which is three times as
dear (docs/adr/0020-inode-numbers.md).  Every other file is looked at.  A listing tells nothing of
a file that another is mounted over, which :class:`server.publishing.absences.Guard` minds, and on
some file systems (overlays, in user space) numbers that no look has; these only prove nothing.

What is found intact is so at the moment of the look at the tree, which the release describes too;
a file overwritten later, while a publish still reads others, is found by the next one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from msgspec import Struct

from manifests.columns import Bools
from manifests.errors import StoreError
from manifests.layers import Rows, match
from server.publishing.look import Found, Look, find_recorded
from server.record import STAT_ROW, StatRows
from syncclient.tree import open_below


class GuardTask(Struct, frozen=True, kw_only=True, eq=False):
    """One bucket folder below ``root``, and by layer what its files in there should be."""

    root: str
    variant: str
    folder_name: str
    expected: Mapping[str, StatRows]


@contextmanager
def opened(task: GuardTask) -> Iterator[int]:
    """The folder of a task; FileNotFoundError, or StoreError if a part of its path is a link."""
    root_fd = os.open(task.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        folder_fd = open_below(root_fd, (task.variant, task.folder_name))
    finally:
        os.close(root_fd)
    try:
        yield folder_fd
    finally:
        os.close(folder_fd)


def is_as_recorded(rows: StatRows, folder_fd: int) -> bool:
    """Whether each of these files lies in an open folder as it was published, by a look at it."""
    if not len(rows):
        return True
    columns = (rows[name] for name in ("size", "mtime_ns", "inode"))
    return find_recorded(folder_fd, _names(rows), *columns) is not None


def is_intact(task: GuardTask, found: Found) -> bool:
    """Whether all is as expected, where the files of a tree have just been ``found``.

    False says only that this takes a closer look, also where the folder cannot be read.
    """
    try:
        with opened(task) as folder_fd:
            linked = _find_linked(found, folder_fd)
            return all(
                is_as_recorded(rows[~_are_seen(rows, found.look, linked)], folder_fd)
                for rows in task.expected.values()
            )
    except (OSError, StoreError):
        return False


def _find_linked(found: Found, folder_fd: int) -> Rows:
    """Rows of the look whose very files lie under their names in an open folder as well."""
    if found.devices != {os.fstat(folder_fd).st_dev}:
        return np.empty(0, np.intp)
    with os.scandir(folder_fd) as listing:
        inodes = {item.name: item.inode() for item in listing}
    listed = np.array([inodes.get(name, 0) for name in found.names], np.uint64)
    return np.flatnonzero(listed == found.look.inodes)


def _are_seen(rows: StatRows, look: Look, linked: Rows) -> Bools:
    """Which files are ``linked`` rows of the look, which saw them as they were published."""
    own, places = match(look.ids[linked], rows["id"])
    own, known = linked[own], rows[places]
    same = (
        (np.array(look.extensions, STAT_ROW["ext"])[look.exts[own]] == known["ext"])
        & (look.sizes[own] == known["size"])
        & (look.mtimes[own] == known["mtime_ns"])
        & (look.inodes[own] == known["inode"])
    )
    seen = np.zeros(len(rows), np.bool_)
    seen[places[same]] = True
    return seen


def _names(rows: StatRows) -> list[str]:
    extensions = rows["ext"].astype("U").tolist()
    pairs = zip(rows["id"].tolist(), extensions, strict=True)
    return [f"{post_id}.{extension}" for post_id, extension in pairs]
