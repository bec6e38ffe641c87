"""Framed objects: blobs of which a reader fetches only the frames it needs, and checks each.

A framed object is a magic, frames, and a compressed header at its end (byte tables:
``docs/reference/format.md``).  Frames belong to named *sections*; the header says of each where it
lies, how long it is, what its BLAKE3 is, and the *key* of what it begins with: an id, a tag, a
row.  The descriptor names the object and its header by digest and size, so that two range requests
from a host that nobody trusts are enough to read any frame.

What is in a frame is its section's affair.  Most hold *parts* (:func:`pack_parts`), many of them
columns of integers as *planes* (:func:`pack_planes`): the lowest bytes of all values, then the
next bytes, each compressed on its own.  Bytes of one place are alike, so that plain zstd comes
near to their entropy, and numpy puts them together without a loop.

Every length is bounded before memory is taken for it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field

from manifests import codec
from manifests.columns import I64, U8, U32
from manifests.digest import DIGEST_BYTES, Digest, digest_bytes
from manifests.errors import ManifestError
from manifests.framedref import MAX_HEADER_BYTES, FramedRef
from manifests.zstd import compress, inflate

MAGIC = b"bsyncfr1"
MAX_FRAME_BYTES = 256 * 2**20
MAX_SECTIONS = 1000
_LEVEL = 3
_FRAME_ROW_BYTES = 8 + 4 + 4 + DIGEST_BYTES
_COUNT = struct.Struct("<I")

# A section and the number of a frame in it.
FrameKey: TypeAlias = tuple[str, int]


class Section(Struct, frozen=True, kw_only=True, eq=False):
    """Where the k frames of one section lie, and what they begin with.

    starts (k,) i64 · lengths (k,) u32 · keys (k,) u32, not descending · digests (k, 32) u8.
    """

    starts: I64
    lengths: U32
    keys: U32
    digests: U8

    def __len__(self) -> int:
        """Frames."""
        return len(self.keys)

    def find(self, key: int) -> int:
        """The last frame whose key is not greater, -1 for none."""
        return int(np.searchsorted(self.keys, key, side="right")) - 1


_NO_SECTION = Section(
    starts=np.empty(0, np.int64),
    lengths=np.empty(0, np.uint32),
    keys=np.empty(0, np.uint32),
    digests=np.empty((0, DIGEST_BYTES), np.uint8),
)


class FramedHeader(Struct, frozen=True, kw_only=True, eq=False):
    """The header of a framed object; ``about`` is its kind's own map."""

    kind: str
    about: codec.Fields
    sections: Mapping[str, Section]
    where: str

    def section(self, name: str) -> Section:
        """A section; one without frames where there is none of this name."""
        return self.sections.get(name, _NO_SECTION)

    def span(self, frame: FrameKey) -> tuple[int, int]:
        """Start and stop of a frame in the object."""
        section, number = self.sections[frame[0]], frame[1]
        start = int(section.starts[number])
        return start, start + int(section.lengths[number])

    def is_intact(self, frame: FrameKey, data: bytes | bytearray | memoryview) -> bool:
        """Whether these are the bytes of a frame."""
        section = self.sections[frame[0]]
        return digest_bytes(data) == bytes(section.digests[frame[1]])

    def check(self, frame: FrameKey, data: bytes) -> bytes:
        """The bytes of a frame, once they are known to be it; else ManifestError."""
        if not self.is_intact(frame, data):
            raise ManifestError(self.place(frame), "not the bytes that the header names")
        return data

    def place(self, frame: FrameKey) -> str:
        """Where a frame stands, for an error."""
        return f"{self.where}.{frame[0]}[{frame[1]}]"


def decode_framed(data: bytes, ref: FramedRef, kind: str, where: str) -> FramedHeader:
    """Read the header of an object of this ``kind`` from its last bytes.

    ManifestError unless they are what ``ref`` names and every frame lies within the object.
    """
    if Digest.of(data) != ref.header_digest or len(data) != ref.header_bytes:
        raise ManifestError(f"{where}.header", "not the bytes that the descriptor names")
    raw = inflate(data, f"{where}.header", MAX_HEADER_BYTES)
    fields = codec.decode(raw, f"{where}.header", max_bytes=MAX_HEADER_BYTES)
    found = fields.text("kind", 64)
    if found != kind:
        raise ManifestError(fields.place("kind"), f"expected {kind!r}, got {found!r}")
    held = fields.map("sections")
    names = held.keys()
    if len(names) > MAX_SECTIONS:
        raise ManifestError(held.where, f"more than {MAX_SECTIONS} sections")
    end = ref.size_bytes - ref.header_bytes
    return FramedHeader(
        kind=kind,
        about=fields.map("about"),
        sections={name: _section(held.map(name), end) for name in names},
        where=where,
    )


def _section(fields: codec.Fields, end: int) -> Section:
    count = fields.uint("frames", MAX_HEADER_BYTES // _FRAME_ROW_BYTES)
    starts = np.frombuffer(fields.blob("start", 8 * count), "<u8").astype(np.int64)
    lengths = np.frombuffer(fields.blob("length", 4 * count), "<u4")
    # Not start + length, which would wrap around.
    latest = min(end, 2**63 - 1) - lengths.astype(np.int64)
    if np.any(starts < len(MAGIC)) or np.any(starts > latest):
        raise ManifestError(fields.where, "a frame lies outside the object")
    if np.any(lengths > MAX_FRAME_BYTES):
        raise ManifestError(fields.where, f"a frame of more than {MAX_FRAME_BYTES} bytes")
    keys = np.frombuffer(fields.blob("key", 4 * count), "<u4")
    if np.any(keys[1:] < keys[:-1]):
        raise ManifestError(fields.place("key"), "not ascending")
    digests = np.frombuffer(fields.blob("digest", DIGEST_BYTES * count), np.uint8)
    return Section(
        starts=starts, lengths=lengths, keys=keys, digests=digests.reshape(count, DIGEST_BYTES)
    )


class _Frames(Struct):
    starts: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)

    def to_map(self) -> dict[str, Any]:
        return {
            "frames": len(self.starts),
            "start": np.array(self.starts, "<u8").tobytes(),
            "length": np.array(self.lengths, "<u4").tobytes(),
            "key": np.array(self.keys, "<u4").tobytes(),
            "digest": b"".join(self.digests),
        }


class FramedWriter:
    """Writes a framed object front to back; nothing is kept but where its frames lie.

    ``write`` takes the object's bytes in order; who calls knows how to hash and keep them.
    """

    def __init__(self, kind: str, write: Callable[[bytes], object]) -> None:
        self._kind = kind
        self._write = write
        self._sections: dict[str, _Frames] = {}
        self._size = len(MAGIC)
        write(MAGIC)

    def add(self, section: str, key: int, data: bytes) -> None:
        """Write the next frame of a section; keys of a section do not descend."""
        frames = self._sections.setdefault(section, _Frames())
        frames.starts.append(self._size)
        frames.lengths.append(len(data))
        frames.keys.append(key)
        frames.digests.append(digest_bytes(data))
        self._write(data)
        self._size += len(data)

    def finish(self, about: Mapping[str, Any]) -> tuple[int, Digest, int]:
        """Write the header; the object's size, and digest and length of the header."""
        header = codec.encode(
            {
                "format": codec.FORMAT,
                "kind": self._kind,
                "about": about,
                "sections": {name: held.to_map() for name, held in self._sections.items()},
            }
        )
        packed = compress(header, _LEVEL)
        self._write(packed)
        return self._size + len(packed), Digest.of(packed), len(packed)


# ----------------------------------------------------------------- what frames are made of


def pack_parts(parts: Sequence[bytes]) -> bytes:
    """Some parts as one frame: the length of each (u32), then all of them."""
    return b"".join([*(_COUNT.pack(len(part)) for part in parts), *parts])


def unpack_parts(data: bytes | memoryview, count: int, where: str) -> list[memoryview]:
    """The parts of a frame; ManifestError unless there are ``count`` and nothing else."""
    head = _COUNT.size * count
    if len(data) < head:
        raise ManifestError(where, f"expected {count} parts, got {len(data)} bytes")
    lengths = np.frombuffer(data, "<u4", count).astype(np.int64)
    if head + int(lengths.sum()) != len(data):
        raise ManifestError(where, f"expected {head + int(lengths.sum())} bytes, got {len(data)}")
    view, parts, start = memoryview(data), [], head
    for length in lengths.tolist():
        parts.append(view[start : start + length])
        start += length
    return parts


def unpack_count(part: memoryview, limit: int, where: str) -> int:
    """The part that says how many values others have (u32); ManifestError for above ``limit``."""
    if len(part) != _COUNT.size:
        raise ManifestError(where, f"expected a count, got {len(part)} bytes")
    count: int = _COUNT.unpack(part)[0]
    if count > limit:
        raise ManifestError(where, f"expected at most {limit}, got {count}")
    return count


def pack_planes(values: npt.NDArray[Any]) -> bytes:
    """A column, one plane a byte of its type: (n,) integers, lowest byte first, or (n, w) bytes.

    A plane of zeros alone has no bytes, one that zstd does not shrink stands as it is.
    """
    width = values.shape[1] if values.ndim > 1 else values.dtype.itemsize
    column = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
    planes = column.view(np.uint8).reshape(len(values), width)
    return pack_parts([_plane(planes[:, place]) for place in range(width)])


def _plane(plane: U8) -> bytes:
    if not plane.any():
        return b""
    raw = plane.tobytes()
    packed = compress(raw, _LEVEL)
    return packed if len(packed) < len(raw) else raw


def unpack_planes(
    data: bytes | memoryview, count: int, dtype: npt.DTypeLike, where: str
) -> npt.NDArray[Any]:
    """A column of ``count`` values back; ManifestError if it has another length.

    ``V16`` is the type of values that were given as 16 bytes each.
    """
    kind = np.dtype(dtype).newbyteorder("<")
    width = kind.itemsize
    planes = np.zeros((count, width), np.uint8)
    for place, part in enumerate(unpack_parts(data, width, where)):
        if len(part):
            raw = part if len(part) == count else inflate(part, where, count)
            if len(raw) != count:
                raise ManifestError(where, f"expected {count} values, got {len(raw)}")
            planes[:, place] = np.frombuffer(raw, np.uint8)
    return np.asarray(planes.reshape(-1).view(kind)).astype(np.dtype(dtype), copy=False)


def pack_bytes(data: bytes) -> bytes:
    """Some bytes, compressed."""
    return compress(data, _LEVEL)
