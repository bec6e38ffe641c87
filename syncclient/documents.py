"""Small files that must be whole: settings, descriptors, notices."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import aiofiles

from manifests.errors import StoreError


async def write_durably(path: Path, data: bytes) -> None:
    """Replace a small file whole, on disk before its name changes; StoreError if that fails."""
    temporary = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        async with aiofiles.open(temporary, "wb") as file:
            await file.write(data)
            await file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        temporary.replace(path)
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise StoreError(message) from error
