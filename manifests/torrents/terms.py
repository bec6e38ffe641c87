"""What descriptions of torrents and torrents themselves agree on; without numpy."""

from __future__ import annotations

from msgspec import Struct

from manifests.errors import ConfigError
from manifests.paths import Layout

# libtorrent reads no .torrent of more than 10,000,000 bytes; trackers and web seeds need some.
MAX_METAINFO_BYTES = 10_000_000
BLOCK_BYTES = 16 * 2**10
MIN_PIECE_BYTES = BLOCK_BYTES
# The largest file of a release, 1 TiB, has 32,768 pieces of this size.
MAX_PIECE_BYTES = 32 * 2**20
V1_BYTES = 20
V2_BYTES = 32


def check_piece_bytes(piece_bytes: int) -> int:
    """``piece_bytes`` if it is a power of two from 16 KiB to 32 MiB, else ConfigError."""
    in_range = MIN_PIECE_BYTES <= piece_bytes <= MAX_PIECE_BYTES
    if not in_range or piece_bytes.bit_count() != 1:
        raise ConfigError(
            f"a piece of a torrent cannot have {piece_bytes} bytes",
            hint="Give a power of two from 16KiB to 32MiB.",
        )
    return piece_bytes


def run_label(layout: Layout, first_bucket: int, last_bucket: int, part: int) -> str:
    """The name of a run of buckets, ``0000-0011``, or of a part of one, ``0003.2``."""
    first, last = layout.bucket_name(first_bucket), layout.bucket_name(last_bucket)
    return f"{first}.{part}" if part else f"{first}-{last}"


class InfoHashes(Struct, frozen=True, kw_only=True):
    """SHA-1 of the info dictionary, None if v2 only, and its SHA-256."""

    v1: bytes | None
    v2: bytes

    @property
    def announced(self) -> tuple[bytes, ...]:
        """The 20 bytes that trackers and the DHT know the swarms by: v1, and v2 cut short."""
        cut = self.v2[:20]
        return (cut,) if self.v1 is None else (self.v1, cut)
