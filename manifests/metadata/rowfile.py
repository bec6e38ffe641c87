"""Rows of metadata as an object: the publisher's own lines, of which a reader fetches a few.

A table is a framed object of kind ``rows``.  Every row has a *key*: in the table ``posts`` the
post's id, in any other the number of its line, from 1; keys ascend strictly.  A frame holds some
rows, about 64 KiB of lines or one longer line, compressed, and their keys beside them, so that
nobody parses JSON to find a post (byte table: ``docs/reference/format.md``).

A line is all that stands before its line feed, a carriage return included, and is kept to the
byte; each has a line feed at its end, also the last one of a publisher's file that had none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from msgspec import Struct

from manifests.columns import I64, U32
from manifests.errors import ManifestError
from manifests.framed import (
    FramedHeader,
    FrameKey,
    Section,
    pack_parts,
    pack_planes,
    unpack_parts,
    unpack_planes,
)
from manifests.zstd import compress, inflate

KIND = "rows"
# The one section of the object.
SECTION = "rows"
# The table whose keys are ids; the others come whole.
POSTS = "posts"
FRAME_TEXT_BYTES = 64 * 2**10
# The longest line that readers of metadata take, with its end.
MAX_LINE_BYTES = 16 * 2**20 + 2
_LEVEL = 3
_NEWLINE = 10


class Rows(Struct, frozen=True, kw_only=True, eq=False):
    """The n rows of a frame: keys (n,) u32 ascending, all lines, and where each ends (n,) i64."""

    keys: U32
    text: bytes
    ends: I64

    def __len__(self) -> int:
        """Rows."""
        return len(self.keys)

    def pick(self, keys: U32) -> bytes:
        """The lines of those rows whose keys are among some ascending ones, in order."""
        # Of a million keys few lie in a frame.
        first = np.searchsorted(keys, self.keys[0])
        last = np.searchsorted(keys, self.keys[-1], side="right")
        wanted = np.flatnonzero(np.isin(self.keys, keys[first:last], assume_unique=True))
        if len(wanted) == len(self):
            return self.text
        starts = np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])
        places = zip(starts[wanted].tolist(), self.ends[wanted].tolist(), strict=True)
        return b"".join([self.text[start:stop] for start, stop in places])


class RowFrame(Struct, frozen=True, kw_only=True):
    """Rows about to become a frame: ascending keys, and lines without their line feeds."""

    keys: list[int]
    lines: list[bytes]

    @property
    def text_bytes(self) -> int:
        """Bytes of the lines with their ends."""
        return sum(map(len, self.lines)) + len(self.lines)


def encode_frames(frames: Iterable[RowFrame]) -> list[bytes]:
    """The bytes of some frames."""
    encoded = list[bytes]()
    for frame in frames:
        keys = np.array(frame.keys, np.uint32)
        text = compress(b"\n".join([*frame.lines, b""]), _LEVEL)
        encoded.append(pack_parts([pack_planes(np.diff(keys, prepend=keys[:1])), text]))
    return encoded


def cut_frames(rows: Iterable[tuple[int, bytes]]) -> Iterator[RowFrame]:
    """Frames of rows: (key, line without its line feed), keys ascending strictly."""
    keys: list[int] = []
    lines: list[bytes] = []
    size = 0
    for key, line in rows:
        if lines and size + len(line) >= FRAME_TEXT_BYTES:
            yield RowFrame(keys=keys, lines=lines)
            keys, lines, size = [], [], 0
        keys.append(key)
        lines.append(line)
        size += len(line) + 1
    if lines:
        yield RowFrame(keys=keys, lines=lines)


def row_frames(header: FramedHeader, keys: U32 | None) -> list[FrameKey]:
    """The frames that can hold rows of some ascending keys, or all frames; ascending."""
    section = header.section(SECTION)
    if keys is None:
        return [(SECTION, number) for number in range(len(section))]
    numbers = np.unique(np.searchsorted(section.keys, keys, side="right")) - 1
    return [(SECTION, number) for number in numbers.tolist() if number >= 0]


def decode_rows(header: FramedHeader, frame: FrameKey, data: bytes) -> Rows:
    """The rows of a frame whose bytes are known to be it.

    ManifestError unless each has a key, those ascend, and all are before the next frame's.
    """
    section, where = header.section(SECTION), header.place(frame)
    steps_part, packed = unpack_parts(data, 2, where)
    text = inflate(packed, f"{where}.lines", MAX_LINE_BYTES)
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == _NEWLINE) + 1
    if not len(ends) or ends[-1] != len(text):
        raise ManifestError(f"{where}.lines", "expected whole lines")
    steps = unpack_planes(steps_part, len(ends), np.uint32, f"{where}.keys").astype(np.int64)
    keys = int(section.keys[frame[1]]) + np.cumsum(steps)
    if steps[0] != 0 or not np.all(steps[1:]) or keys[-1] >= _next_key(section, frame[1]):
        raise ManifestError(f"{where}.keys", "not ascending, or not the keys of this frame")
    return Rows(keys=keys.astype(np.uint32), text=text, ends=ends.astype(np.int64))


def _next_key(section: Section, number: int) -> int:
    """What all keys of a frame are less than."""
    return int(section.keys[number + 1]) if number + 1 < len(section) else 2**32
