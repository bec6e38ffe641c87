"""What happens to names in some folders, as the kernel tells it (inotify(7)): none is missed."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_EVENT = struct.Struct("iIII")
_KINDS = {
    0x00000002: "modified",
    0x00000040: "moved away",
    0x00000080: "moved here",
    0x00000100: "created",
    0x00000200: "deleted",
    0x00004000: "lost",
}
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(kw_only=True)
class Watch:
    """Events so far, as (kind, path), in their order."""

    fd: int
    folders: dict[int, Path]
    events: list[tuple[str, Path]] = field(default_factory=list)

    def read(self) -> list[tuple[str, Path]]:
        """Take what the kernel has; everything since the beginning."""
        while data := self._some():
            place = 0
            while place < len(data):
                number, mask, _, length = _EVENT.unpack_from(data, place)
                place += _EVENT.size
                name = data[place : place + length].rstrip(b"\0").decode()
                place += length
                kinds = [kind for bit, kind in _KINDS.items() if mask & bit]
                assert "lost" not in kinds
                self.events += [(kind, self.folders[number] / name) for kind in kinds]
        return self.events

    def _some(self) -> bytes:
        try:
            return os.read(self.fd, 2**20)
        except BlockingIOError:
            return b""


@contextmanager
def watching(folders: Iterable[Path]) -> Iterator[Watch]:
    """Watch folders, which must be there, until the end of the context."""
    fd = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert fd >= 0
    try:
        mask = sum(_KINDS)
        found = {
            _LIBC.inotify_add_watch(fd, os.fsencode(folder), mask): folder for folder in folders
        }
        assert -1 not in found
        yield Watch(fd=fd, folders=found)
    finally:
        os.close(fd)
