"""Materialised packs: the files of a bucket of a layer, written one after another.

``serve`` needs none of them; a static host or an object store without our server does.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import blake3
from msgspec import Struct

from manifests.columns import Entries
from manifests.errors import StoreError
from server.publishing.links import disk_error
from syncclient.tree import open_regular, write_all

_READ_BYTES: Final = 4 * 2**20
_MODE: Final = 0o444


class PackTask(Struct, frozen=True, kw_only=True, eq=False):
    """A pack to be written to ``temporary``: files of ``folder`` in the order of ``entries``."""

    variant: str
    bucket: int
    folder: str
    entries: Entries
    temporary: str
    date_ns: int


def write_pack(task: PackTask) -> PackTask:
    """Write one pack and check the digest of each file on the way; returns its argument.

    StoreError names a file that is not what was published.
    """
    out = os.open(task.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    try:
        for row, name in enumerate(task.entries.names()):
            path = f"{task.folder}/{name}"
            if _append(path, out) != task.entries.digests[row].tobytes():
                raise StoreError(
                    f"{path} is not what was hashed", hint="Run the same command again."
                )
        os.utime(out, ns=(task.date_ns, task.date_ns))
    except OSError as error:
        raise disk_error(task.folder, error) from error
    finally:
        os.close(out)
    return task


def _append(path: str, out: int) -> bytes:
    """Copy a file to the end of an open one; its digest."""
    digest = blake3.blake3()
    with open(open_regular(Path(path)), "rb", buffering=0) as file:  # noqa: PTH123 (a descriptor)
        while data := file.read(_READ_BYTES):
            digest.update(data)
            write_all(out, data)
    return digest.digest()
