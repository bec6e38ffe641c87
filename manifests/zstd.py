"""zstd: frames that state their size, and decompression of what a host sent, within a limit.

The size is looked at before memory is taken for it (``docs/reference/format.md``, *Compressed*).
"""

from __future__ import annotations

import threading

import zstandard

from manifests.errors import ManifestError

# A frame header, a few empty blocks, a checksum.
_MAX_EMPTY_BYTES = 32


class _Kept(threading.local):
    """What each thread keeps: to set zstd up takes 9 to 46 us, to use it on a frame 1 to 6."""

    def __init__(self) -> None:
        self.decompress = zstandard.ZstdDecompressor().decompress
        self.compressors: dict[int, zstandard.ZstdCompressor] = {}


_kept = _Kept()


def compress(data: bytes, level: int) -> bytes:
    """One frame, which states the size of ``data``."""
    compressors = _kept.compressors
    if level not in compressors:
        compressors[level] = zstandard.ZstdCompressor(level=level, write_content_size=True)
    return compressors[level].compress(data)


def inflate(data: bytes | memoryview, where: str, limit: int) -> bytes:
    """What was compressed; ManifestError unless it is one frame of at most ``limit`` bytes."""
    try:
        stated = zstandard.frame_content_size(data)
        if not 0 <= stated <= limit:
            raise ManifestError(where, f"states {stated} bytes, at most {limit} are possible")
        if stated == 0:
            return _nothing(data, where)
        raw: bytes = _kept.decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ManifestError(where, f"not a zstd frame ({error})") from error
    return raw


def _nothing(data: bytes | memoryview, where: str) -> bytes:
    """No bytes, from a frame that states so: ``decompress`` would not look at the rest of it."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    if (
        len(data) > _MAX_EMPTY_BYTES
        or bytes(data[:4]) != zstandard.FRAME_HEADER
        or frame.decompress(data)
        or not frame.eof
        or frame.unused_data
    ):
        raise ManifestError(where, "not a zstd frame (more than the 0 bytes that it states)")
    return b""
