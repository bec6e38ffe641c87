"""Small files that must be whole: settings, descriptors, notices, signed metadata.

A crash of the machine leaves the old file or the new one.  What lies under the temporary name,
left by a run that was killed or planted there, is taken away, neither followed nor written to.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiofiles

from manifests.errors import StoreError


async def write_durably(path: Path, data: bytes) -> None:
    """Replace a small file whole; StoreError if that fails, and then the old one stands."""
    try:
        with _temporary_of(path) as temporary:
            async with aiofiles.open(temporary, "wb", opener=_open_own) as file:
                await file.write(data)
                await file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
            await asyncio.to_thread(_give_name, temporary, path)
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise StoreError(message) from error


def replace_durably(path: Path, pieces: Iterable[bytes]) -> None:
    """The same for who is in a thread already; OSError if the disk refuses."""
    with _temporary_of(path) as temporary:
        with open(temporary, "wb", opener=_open_own) as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        _give_name(temporary, path)


@contextmanager
def _temporary_of(path: Path) -> Iterator[Path]:
    """The name under which a new file is written; nothing has it before, or after an error."""
    temporary = path.with_name(path.name + ".new")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _open_own(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _give_name(temporary: Path, path: Path) -> None:
    """Rename, and bring the name to the disk: an fsync of the file alone leaves it open."""
    temporary.replace(path)
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
