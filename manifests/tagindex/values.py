"""Columns of posts in frames of 65,536 rows, in the order of the ids.

Times and ids grow from row to row, so what is stored of them is the step from the row before.  The
column `md5` is not in the order of the ids: its frames hold (md5, ordinal) by ascending md5, keyed
by the first four bytes, so that one md5 is looked up in one frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.columns import U8, U32
from manifests.errors import ManifestError
from manifests.framed import (
    pack_bytes,
    pack_parts,
    pack_planes,
    unpack_count,
    unpack_parts,
    unpack_planes,
)
from manifests.metadata.columns import COLUMNS
from manifests.zstd import inflate

FRAME_ROWS = 65536
FRAME_MD5S = 4096
MD5_BYTES = 16
MAX_POSTS = 2**28
# Codes of extensions are single bytes, 0 for none.
MAX_EXTENSIONS = 256
# Sources of one frame together; longer texts than 64 KiB are cut by the builder.
MAX_SOURCES_BYTES = 256 * 2**20
_STEPS = {"id", "created_at", "updated_at"}


def column_dtype(name: str) -> np.dtype[Any]:
    """The type of a column's values."""
    return np.dtype(np.uint32 if name == "id" else COLUMNS[name].dtype)


def encode_column(name: str, values: npt.NDArray[Any]) -> bytes:
    """A frame of a column of integers."""
    kept = values.astype(column_dtype(name))
    if name in _STEPS:
        kept = np.diff(kept, prepend=kept.dtype.type(0))
        if name != "id":
            # Small steps back are small numbers too: 0, -1, 1, -2 become 0, 1, 2, 3.
            kept = (kept << 1) ^ (kept >> 63)
    return pack_planes(kept)


def decode_column(name: str, data: bytes, count: int, where: str) -> npt.NDArray[Any]:
    """``count`` values of a column."""
    values = unpack_planes(data, count, column_dtype(name), where)
    if name not in _STEPS:
        return values
    if name != "id":
        folded = values.view(np.uint64)
        values = (folded >> np.uint64(1)).view(np.int64) ^ -(values & 1)
    return np.cumsum(values, dtype=values.dtype)


def encode_sources(texts: bytes) -> bytes:
    """A frame of texts, each followed by a zero byte."""
    return pack_bytes(texts)


def decode_sources(data: bytes, count: int, where: str) -> bytes:
    """``count`` texts, each followed by a zero byte."""
    raw = inflate(data, where, MAX_SOURCES_BYTES)
    if raw.count(b"\0") != count or not raw.endswith(b"\0"):
        raise ManifestError(where, f"expected {count} texts, got {raw.count(bytes(1))}")
    return raw


def encode_md5s(md5s: U8, ordinals: U32) -> bytes:
    """A frame of (md5, ordinal), ascending by md5: (n, 16) u8, (n,) u32."""
    count = np.array([len(ordinals)], "<u4").tobytes()
    return pack_parts([count, pack_planes(md5s), pack_planes(ordinals)])


def decode_md5s(data: bytes, where: str) -> tuple[npt.NDArray[np.void], U32]:
    """md5s (n,) as fixed strings of bytes that compare as such, and their ordinals."""
    head, md5s, ordinals = unpack_parts(data, 3, where)
    count = unpack_count(head, FRAME_MD5S, where)
    found = unpack_planes(md5s, count, f"V{MD5_BYTES}", where)
    return found, unpack_planes(ordinals, count, np.uint32, where)
