"""The dictionary: every tag, ascending by the UTF-8 of its name, in frames of 1,024.

A tag's number is its place in the dictionary; its posting list has the same number.  Names that
only an alias or an implication knows are in it too, without posts.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from manifests.columns import U8, U32
from manifests.errors import ManifestError
from manifests.framed import (
    pack_bytes,
    pack_parts,
    pack_planes,
    unpack_parts,
    unpack_planes,
)
from manifests.zstd import inflate

FRAME_NAMES = 1024
# In UTF-8.  Danbooru's limit is 170 characters.
MAX_NAME_BYTES = 1024
MAX_TAGS = 2**26
MAX_IMPLICATIONS = 2**22
_PARTS = 4


def cut_text(text: str, max_bytes: int = MAX_NAME_BYTES) -> bytes:
    """The UTF-8 of a text, or of as many of its first characters as fit."""
    data = text.encode("utf-8", "replace")
    return data if len(data) <= max_bytes else data[:max_bytes].decode("utf-8", "ignore").encode()


class Names(Struct, frozen=True, kw_only=True, eq=False):
    """n tags in a row.

    names (n,) UTF-8 · categories (n,) u8 · counts (n,) u32 posts · aliases (n,) u32: 1 + the
    number of the tag that the name stands for, 0 for none.
    """

    names: list[bytes]
    categories: U8
    counts: U32
    aliases: U32

    def __len__(self) -> int:
        """Tags."""
        return len(self.names)

    def find(self, name: bytes) -> int | None:
        """The place of a name."""
        place = bisect_right(self.names, name) - 1
        return place if place >= 0 and self.names[place] == name else None


def encode_names(tags: Names) -> bytes:
    """A frame of the dictionary."""
    return pack_parts(
        [
            _pack_texts(tags.names),
            pack_planes(tags.categories),
            pack_planes(tags.counts),
            pack_planes(tags.aliases),
        ]
    )


def decode_names(data: bytes, count: int, where: str) -> Names:
    """A frame of ``count`` tags; ManifestError unless their names ascend strictly."""
    texts, categories, counts, aliases = unpack_parts(data, _PARTS, where)
    return Names(
        names=decode_name_list(texts, count, f"{where}.names"),
        categories=unpack_planes(categories, count, np.uint8, f"{where}.categories"),
        counts=unpack_planes(counts, count, np.uint32, f"{where}.counts"),
        aliases=unpack_planes(aliases, count, np.uint32, f"{where}.aliases"),
    )


def _pack_texts(names: list[bytes]) -> bytes:
    lengths = np.fromiter(map(len, names), np.uint16, len(names))
    return pack_parts([pack_planes(lengths), pack_bytes(b"".join(names))])


def encode_name_list(names: list[bytes]) -> bytes:
    """Names alone: the first of each frame."""
    return _pack_texts(names)


def decode_name_list(data: bytes | memoryview, count: int, where: str) -> list[bytes]:
    """``count`` names that ascend strictly."""
    packed_lengths, packed = unpack_parts(data, 2, where)
    lengths: npt.NDArray[np.uint16] = unpack_planes(packed_lengths, count, np.uint16, where)
    if np.any(lengths > MAX_NAME_BYTES):
        raise ManifestError(where, f"a name of more than {MAX_NAME_BYTES} bytes")
    ends = np.cumsum(lengths, dtype=np.int64).tolist()
    total = ends[-1] if ends else 0
    raw = inflate(packed, where, total)
    if len(raw) != total:
        raise ManifestError(where, f"expected {total} bytes of names, got {len(raw)}")
    names = [raw[start:stop] for start, stop in zip([0, *ends[:-1]], ends, strict=True)]
    if any(after <= before for before, after in pairwise(names)):
        raise ManifestError(where, "names do not ascend")
    return names
