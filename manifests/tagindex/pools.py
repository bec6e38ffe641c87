"""Pools: named, ordered lists of posts.  Exports before 2021 know no names and no order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from manifests.columns import I64, U8, U32, ragged_index
from manifests.errors import ManifestError
from manifests.framed import (
    pack_bytes,
    pack_parts,
    pack_planes,
    unpack_count,
    unpack_parts,
    unpack_planes,
)
from manifests.metadata.tables import PoolTable
from manifests.tagindex.names import cut_text
from manifests.zstd import inflate

SERIES, DELETED = 1, 2
FRAME_POOLS = 4096
MAX_NAMES_BYTES = 64 * 2**20
# Posts of all pools of a frame; the largest pools of Danbooru have some ten thousand.
MAX_MEMBERS = 2**24
_PARTS = 6


class Pools(Struct, frozen=True, kw_only=True, eq=False):
    """n pools by ascending id.

    ids (n,) u32 · flags (n,) u8, SERIES and DELETED · names n texts, "" where none is known ·
    starts (n + 1,) i64 where the members of each begin in ``posts`` (m,) u32, ids in their order.
    """

    ids: U32
    flags: U8
    names: list[str]
    starts: I64
    posts: U32

    def __len__(self) -> int:
        """Pools."""
        return len(self.ids)

    def members(self, place: int) -> U32:
        """The ids of the posts of one pool, in its order."""
        return self.posts[self.starts[place] : self.starts[place + 1]]

    def part(self, first: int, last: int) -> Pools:
        """The pools ``first:last``."""
        starts = self.starts[first : last + 1]
        return Pools(
            ids=self.ids[first:last],
            flags=self.flags[first:last],
            names=self.names[first:last],
            starts=starts - starts[0],
            posts=self.posts[starts[0] : starts[-1]],
        )


def no_pools() -> Pools:
    """None at all."""
    nothing = np.empty(0, np.uint32)
    return Pools(
        ids=nothing,
        flags=np.empty(0, np.uint8),
        names=[],
        starts=np.zeros(1, np.int64),
        posts=nothing,
    )


def join_pools(parts: list[Pools]) -> Pools:
    """Pools of several frames, one after another."""
    if not parts:
        return no_pools()
    counts = np.concatenate([np.diff(part.starts) for part in parts])
    return Pools(
        ids=np.concatenate([part.ids for part in parts]),
        flags=np.concatenate([part.flags for part in parts]),
        names=[name for part in parts for name in part.names],
        starts=np.append(0, np.cumsum(counts)),
        posts=np.concatenate([part.posts for part in parts]),
    )


def join_tables(tables: list[PoolTable]) -> Pools:
    """Pools as they were read; where two rows tell of one pool, the later one counts."""
    ids = np.concatenate([np.empty(0, np.uint32), *(table.ids for table in tables)])
    series = np.concatenate([np.empty(0, np.bool_), *(table.is_series for table in tables)])
    deleted = np.concatenate([np.empty(0, np.bool_), *(table.is_deleted for table in tables)])
    counts = np.concatenate([np.empty(0, np.int64), *(t.member_counts for t in tables)])
    members = np.concatenate([np.empty(0, np.uint32), *(table.members for table in tables)])
    names = [name for table in tables for name in table.names]
    starts = np.append(0, np.cumsum(counts)).astype(np.int64)
    _, from_end = np.unique(ids[::-1], return_index=True)
    last = len(ids) - 1 - from_end
    return Pools(
        ids=ids[last],
        flags=(SERIES * series[last] + DELETED * deleted[last]).astype(np.uint8),
        names=[names[place] for place in last.tolist()],
        starts=np.append(0, np.cumsum(counts[last])).astype(np.int64),
        posts=members[ragged_index(starts[last], counts[last].astype(np.int64))],
    )


def encode_pools(pools: Pools) -> bytes:
    """A frame of pools."""
    names = [cut_text(name.replace("\0", " ")) for name in pools.names]
    return pack_parts(
        [
            np.array([len(pools)], "<u4").tobytes(),
            pack_planes(pools.ids),
            pack_planes(pools.flags),
            pack_bytes(b"\0".join([*names, b""])),
            pack_planes(np.diff(pools.starts).astype(np.uint32)),
            pack_planes(pools.posts),
        ]
    )


def decode_pools(data: bytes, where: str) -> Pools:
    """A frame of pools back."""
    head, ids, flags, names, counts, posts = unpack_parts(data, _PARTS, where)
    count = unpack_count(head, FRAME_POOLS, where)
    sizes: npt.NDArray[np.uint32] = unpack_planes(counts, count, np.uint32, f"{where}.counts")
    starts = np.append(0, np.cumsum(sizes, dtype=np.int64))
    raw = inflate(names, f"{where}.names", MAX_NAMES_BYTES)
    texts = raw.split(b"\0")[:-1]
    if len(texts) != count:
        raise ManifestError(f"{where}.names", f"expected {count}, got {len(texts)}")
    if starts[-1] > MAX_MEMBERS:
        raise ManifestError(f"{where}.posts", f"{starts[-1]} posts, more than {MAX_MEMBERS}")
    return Pools(
        ids=unpack_planes(ids, count, np.uint32, f"{where}.ids"),
        flags=unpack_planes(flags, count, np.uint8, f"{where}.flags"),
        names=[text.decode("utf-8", "replace") for text in texts],
        starts=starts,
        posts=unpack_planes(posts, int(starts[-1]), np.uint32, f"{where}.posts"),
    )
