"""Manifests for tests: honest entries from few words, and forgeries whose digests all match.

A forger here has the publisher's keys: header, frames and reference agree byte for byte, and only
what they say is wrong.  That is what a decoder must not take on trust.
"""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import zstandard

from manifests import codec
from manifests.columns import U32, Entries, chunk_counts
from manifests.digest import Digest, digest_bytes
from manifests.errors import ManifestError
from manifests.manifest import Removed
from manifests.model import ManifestRef

BUCKETS = 10


def by_bucket(ids: Iterable[int], buckets: int = BUCKETS) -> U32:
    """Ids in the order of a manifest."""
    return np.array(sorted(ids, key=lambda post_id: (post_id % buckets, post_id)), np.uint32)


def make_entries(
    files: Mapping[int, tuple[int, str]], buckets: int = BUCKETS, salt: str = ""
) -> Entries:
    """Entries from ``{id: (size, extension)}``; digests come from id, size and ``salt``."""
    ids = by_bucket(files, buckets).tolist()
    table = tuple(sorted({files[post_id][1] for post_id in ids}))
    sizes = np.array([files[post_id][0] for post_id in ids], np.uint64)
    names = [f"{post_id} {files[post_id][0]} {salt}" for post_id in ids]
    counts = chunk_counts(sizes).tolist()
    return Entries(
        extensions=table,
        ids=np.array(ids, np.uint32),
        sizes=sizes,
        exts=np.array([table.index(files[post_id][1]) for post_id in ids], np.uint8),
        digests=_digests(names),
        offsets=np.zeros(len(ids), np.uint64),
        layers=np.zeros(len(ids), np.uint16),
        chunks=_digests(
            f"{name} {number}"
            for name, count in zip(names, counts, strict=True)
            for number in range(count)
        ),
    )


def _digests(names: Iterable[str]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    raw = b"".join(digest_bytes(name.encode()) for name in names)
    return np.frombuffer(raw, np.uint8).reshape(-1, 32)


def make_removed(reasons: Mapping[int, str], buckets: int = BUCKETS) -> Removed:
    """Removed ids from ``{id: reason}``."""
    ids = by_bucket(reasons, buckets)
    table = tuple(sorted(set(reasons.values())))
    codes = [table.index(reasons[post_id]) for post_id in ids.tolist()]
    return Removed(ids=ids, codes=np.array(codes, np.uint8), reasons=table)


def compress(raw: bytes) -> bytes:
    """One zstd frame that states its size."""
    return zstandard.ZstdCompressor().compress(raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame and its row.  What is None is made to fit; the rest is as the forger wants it."""

    bucket: int = 0
    first: int = 1
    steps: Sequence[int] = (0,)
    sizes: Sequence[int] = (100,)
    exts: Sequence[int] | None = None
    chunks: bytes = b""
    extra: bytes = b""
    raw: bytes | None = None
    data: bytes | None = None
    count: int | None = None
    file_bytes: int | None = None

    def inside(self) -> bytes:
        """The bytes before compression."""
        if self.raw is not None:
            return self.raw
        n = len(self.steps)
        exts = self.exts if self.exts is not None else [0] * n
        columns = [
            struct.pack(f"<{n}I", *self.steps),
            struct.pack(f"<{n}I", *(size & 0xFFFFFFFF for size in self.sizes)),
            bytes(size >> 32 for size in self.sizes),
            bytes(exts),
            b"d" * 32 * n,
        ]
        return b"".join(columns) + self.chunks + self.extra

    def stored(self) -> bytes:
        """The bytes in the object."""
        return compress(self.inside()) if self.data is None else self.data

    def row(self) -> tuple[int, int, int, int, int]:
        """Bucket, first slot, count, bytes of files and length, as the header states them."""
        count = len(self.steps) if self.count is None else self.count
        file_bytes = sum(self.sizes) if self.file_bytes is None else self.file_bytes
        return self.bucket, self.first, count, file_bytes, len(self.stored())


@dataclass(frozen=True, slots=True, kw_only=True)
class Forged:
    """An object and a reference that agree; ``header`` is how it begins, ``tail`` how it ends."""

    header: bytes
    frames: list[bytes]
    tail: bytes
    ref: ManifestRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgery:
    """What goes into a forged manifest; ``fields`` and ``ref`` have the last word."""

    frames: Sequence[Frame] = (Frame(),)
    removed: int = 0
    tail: bytes = b""
    fields: Mapping[str, Any] = field(default_factory=dict)
    ref: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The header's map."""
        rows = [frame.row() for frame in self.frames]
        columns = list(zip(*rows, strict=True)) if rows else [()] * 5
        keys = (("bucket", "I"), ("first", "I"), ("count", "H"), ("bytes", "Q"), ("length", "I"))
        packed = {
            key: struct.pack(f"<{len(rows)}{kind}", *column)
            for (key, kind), column in zip(keys, columns, strict=True)
        }
        return {
            "format": 1,
            "buckets": BUCKETS,
            "extensions": ["jpg"],
            "reasons": ["gone"],
            "rows": len(rows),
            **packed,
            "digest": b"".join(digest_bytes(frame.stored()) for frame in self.frames),
            "removed": self.removed,
            "removed_length": len(self.tail),
            "removed_digest": digest_bytes(self.tail),
            **self.fields,
        }

    def make(self) -> Forged:
        """Compress the header and describe the object."""
        raw = codec.encode(self.document())
        return self.seal(compress(raw), len(raw))

    def seal(self, header: bytes, raw_bytes: int) -> Forged:
        """Put a prefix before a compressed header, and make the reference for it."""
        return self.describe(struct.pack("<8sII", b"bsyncmf1", len(header), raw_bytes) + header)

    def describe(self, header: bytes) -> Forged:
        """The reference for an object that begins with any bytes."""
        frames = [frame.stored() for frame in self.frames]
        rows = [frame.row() for frame in self.frames]
        stated: dict[str, Any] = {
            "digest": Digest.of(b"".join([header, *frames, self.tail])),
            "size_bytes": len(header) + sum(map(len, frames)) + len(self.tail),
            "header_digest": Digest.of(header),
            "header_bytes": len(header),
            "entries": sum(row[2] for row in rows),
            "file_bytes": sum(row[3] for row in rows),
            "removed": self.removed,
        }
        ref = ManifestRef(**{**stated, **self.ref})
        return Forged(header=header, frames=frames, tail=self.tail, ref=ref)


def lies_about_its_size(raw: bytes, stated: int) -> bytes:
    """One raw block in a frame that states another size (RFC 8878, 3.1.1)."""
    block = struct.pack("<I", (len(raw) << 3) | 1)[:3] + raw
    return struct.pack("<IBI", 0xFD2FB528, 0b1010_0000, stated) + block


def unsized(raw: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False).compress(raw)


def with_a_dictionary(raw: bytes) -> bytes:
    held = zstandard.ZstdCompressionDict(raw * 3, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdCompressor(dict_data=held).compress(raw)


def skippable(raw: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A50, len(raw)) + raw


# Bytes in the place of a compressed part, made from what should be in it.
HOSTILE_FRAMES: dict[str, Callable[[bytes], bytes]] = {
    "no frame": lambda raw: raw,
    "nothing": lambda _: b"",
    "no size stated": unsized,
    "a byte after it": lambda raw: compress(raw) + b"\0",
    "cut short": lambda raw: compress(raw)[:-1],
    "with a dictionary": with_a_dictionary,
    "two frames": lambda raw: compress(raw) + compress(raw),
    "a frame of nothing, then one": lambda raw: compress(b"") + compress(raw),
    "a skippable frame": skippable,
    "a skippable frame, then one": lambda raw: skippable(b"x") + compress(raw),
    "states too much": lambda raw: lies_about_its_size(raw, len(raw) + 1),
    "states too little": lambda raw: lies_about_its_size(raw, len(raw) - 1),
    "states four gibibytes": lambda raw: lies_about_its_size(raw, 2**32 - 1),
    "more inside": lambda raw: compress(raw + b"\0"),
    "less inside": lambda raw: compress(raw[:-1]),
    "nothing inside": lambda _: compress(b""),
}


def peak_bytes_of_refusal(attempt: Callable[[], object]) -> int:
    """Memory that was needed, at most, to refuse something."""
    tracemalloc.start()
    try:
        with pytest.raises(ManifestError):
            attempt()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
