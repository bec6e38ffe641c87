"""BLAKE3 digests as values.  The only module that knows which hash names our objects."""

from __future__ import annotations

import re

import blake3
from msgspec import Struct

from manifests.errors import ManifestError

DIGEST_BYTES = 32
# Files larger than this also carry one digest a chunk, so that a broken video is repaired in part.
CHUNK_BYTES = 4 * 2**20
_HEX = re.compile(r"[0-9A-Fa-f]{64}")


def digest_bytes(data: bytes | bytearray | memoryview) -> bytes:
    """The 32 bytes of the digest of bytes in memory, for loops where an object each is dear."""
    return blake3.blake3(data).digest()


class Digest(Struct, frozen=True, order=True):
    """A BLAKE3 digest (256 bits) of some bytes that were, or will be, checked."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != DIGEST_BYTES:
            raise ManifestError("digest", f"expected {DIGEST_BYTES} bytes, got {len(self.raw)}")

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Digest:
        """The digest of bytes in memory."""
        return cls(digest_bytes(data))

    @classmethod
    def from_hex(cls, text: str) -> Digest:
        """Parse 64 hexadecimal digits; raises ManifestError for anything else."""
        if _HEX.fullmatch(text) is None:
            raise ManifestError("digest", f"expected 64 hexadecimal digits, got {text[:80]!r}")
        return cls(bytes.fromhex(text))

    @property
    def hex(self) -> str:
        """64 lower-case hexadecimal digits."""
        return self.raw.hex()

    def __str__(self) -> str:
        """Hexadecimal, as users see digests everywhere."""
        return self.hex


def keystream(seed: bytes, start: int, size_bytes: int) -> bytes:
    """Bytes ``start`` to ``start + size_bytes`` of the endless output of BLAKE3 over a seed."""
    return blake3.blake3(seed).digest(length=size_bytes, seek=start)
