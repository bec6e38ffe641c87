"""What the repository's file system can do with files of the tree, and whether it has room."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from manifests.errors import StoreError
from manifests.units import format_count, format_size
from server.publishing.links import Method
from server.repository import Repository
from syncclient.tree import open_regular, reflink

# What manifests, records and folders take for each file, roughly.
_OVERHEAD_BYTES: Final = 256


def usable_methods(
    repository: Repository, sample: Path | None, wanted: tuple[Method, ...]
) -> tuple[Method, ...]:
    """Those of ``wanted`` that work from the tree to the repository, tried with one of its files.

    Without a ``sample`` there is nothing to link.  COPY always works.
    """
    tries = {Method.REFLINK: _can_reflink, Method.HARD: _can_link}
    if sample is None:
        return (Method.COPY,)
    return tuple(
        method
        for method in wanted
        if method is Method.COPY or tries[method](sample, repository.new_temporary())
    )


def _can_reflink(sample: Path, temporary: Path) -> bool:
    source = open_regular(sample)
    try:
        with temporary.open("xb") as file:
            return reflink(source, file.fileno())
    finally:
        os.close(source)
        temporary.unlink(missing_ok=True)


def _can_link(sample: Path, temporary: Path) -> bool:
    try:
        os.link(sample, temporary, follow_symlinks=False)
    except OSError:
        return False
    temporary.unlink()
    return True


def require_room(repository: Repository, files: int, size_bytes: int, hint: str) -> None:
    """StoreError unless so many new files of so many bytes fit beside what is there.

    ``size_bytes`` is counted in whole blocks; ``hint`` says what else the publisher could do.
    """
    info = os.statvfs(repository.root)
    free_bytes = info.f_bavail * info.f_frsize
    needed_bytes = size_bytes + files * _OVERHEAD_BYTES
    if needed_bytes > free_bytes:
        raise StoreError(
            f"{repository.root}: copies of {format_count(files)} files need "
            f"{format_size(needed_bytes)}, and {format_size(free_bytes)} are free",
            hint=hint,
        )
    # File systems without a table of inodes say that they have none.
    if info.f_files and files > info.f_favail:
        raise StoreError(
            f"{repository.root}: copies of {format_count(files)} files need as many inodes, and "
            f"{format_count(info.f_favail)} are free",
            hint=hint,
        )
