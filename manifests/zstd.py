"""Decompression of what a host sent: one zstd frame that states its size, within a limit.

The size is looked at before memory is taken for it (``docs/reference/format.md``, *Compressed*).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import zstandard

from manifests.errors import ManifestError

# Takes the bytes, where they stand, and how many bytes they may become.
Inflate: TypeAlias = Callable[[bytes | memoryview, str, int], bytes]
# A frame header, a few empty blocks, a checksum.
_MAX_EMPTY_BYTES = 32


def inflate(data: bytes | memoryview, where: str, limit: int) -> bytes:
    """What was compressed; ManifestError unless it is one frame of at most ``limit`` bytes."""
    return inflater()(data, where, limit)


def inflater() -> Inflate:
    """:func:`inflate` for many frames; threads must not share it (zstandard docs)."""
    decompress = zstandard.ZstdDecompressor().decompress

    def inflate(data: bytes | memoryview, where: str, limit: int) -> bytes:
        try:
            stated = zstandard.frame_content_size(data)
            if not 0 <= stated <= limit:
                raise ManifestError(where, f"states {stated} bytes, at most {limit} are possible")
            if stated == 0:
                return _nothing(data, where)
            raw: bytes = decompress(data, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise ManifestError(where, f"not a zstd frame ({error})") from error
        return raw

    return inflate


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
