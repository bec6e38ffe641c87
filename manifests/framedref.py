"""How a descriptor names a framed object; :mod:`manifests.framed` reads and writes them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from manifests import codec
from manifests.digest import Digest

# Decompressed; a tag index of five million posts has 0.5 MB, rows of metadata of them 8 MB.
MAX_HEADER_BYTES = 256 * 2**20


class FramedRef(Struct, frozen=True, kw_only=True):
    """A framed object, as the descriptor names it; its header is its last bytes."""

    digest: Digest
    size_bytes: int
    header_digest: Digest
    header_bytes: int

    def to_map(self) -> dict[str, Any]:
        """The map that stands in the descriptor."""
        return {
            "digest": self.digest.raw,
            "size": self.size_bytes,
            "header_digest": self.header_digest.raw,
            "header_size": self.header_bytes,
        }

    @classmethod
    def from_fields(cls, fields: codec.Fields) -> FramedRef:
        """Read it back; a header may not be larger than its object."""
        size = fields.uint("size")
        return cls(
            digest=fields.digest("digest"),
            size_bytes=size,
            header_digest=fields.digest("header_digest"),
            header_bytes=fields.uint("header_size", min(size, MAX_HEADER_BYTES)),
        )

    @property
    def header_span(self) -> tuple[int, int]:
        """Start and stop of the header in the object."""
        return self.size_bytes - self.header_bytes, self.size_bytes
