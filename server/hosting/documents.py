"""Whole files of a repository that nobody writes to: signed metadata, targets, objects, packs.

A name may be given to another file (timestamp.json is), so what is sent must be of one file: a
small document is read when it is opened, a large one is watched like the files of a pack.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import Struct

from server.hosting.joined import JoinedFiles, one_name
from server.hosting.reading import raise_unless_absent
from syncclient.tree import FileStat, open_regular, stat_of

SMALL_BYTES: Final = 256 * 2**10


class Document(Struct, frozen=True, kw_only=True):
    """A file as it was opened: its stat, and its bytes if they are few."""

    path: Path
    stat: FileStat
    data: bytes | None

    def joined(self) -> JoinedFiles:
        """The file as a run of its own, to be read while it is what it was."""
        return JoinedFiles(
            folder=os.fspath(self.path.parent),
            names=one_name(self.path.name),
            starts=np.array([0, self.stat.size_bytes], np.int64),
            mtimes=np.array([self.stat.mtime_ns], np.int64),
            inodes=np.array([self.stat.inode], np.uint64),
        )


def read_document(path: Path, *, max_bytes: int = SMALL_BYTES) -> Document | None:
    """A regular file, with its bytes if there are at most ``max_bytes``; None if there is none."""
    try:
        fd = open_regular(path)
    except OSError as error:
        raise_unless_absent(error)
        return None
    with os.fdopen(fd, "rb") as file:
        found = stat_of(fd)
        data = file.read(found.size_bytes) if found.size_bytes <= max_bytes else None
    return Document(path=path, stat=found, data=data)
