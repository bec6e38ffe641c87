"""Framed objects in memory, and how a descriptor names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from manifests.digest import Digest
from manifests.framed import FramedWriter
from manifests.framedref import FramedRef


def framed(
    kind: str, write: Callable[[FramedWriter], Mapping[str, Any]]
) -> tuple[FramedRef, bytes]:
    """A framed object of what ``write`` adds, with the map that it gives, and its name."""
    parts: list[bytes] = []
    writer = FramedWriter(kind, parts.append)
    size, header_digest, header_bytes = writer.finish(write(writer))
    data = b"".join(parts)
    ref = FramedRef(
        digest=Digest.of(data),
        size_bytes=size,
        header_digest=header_digest,
        header_bytes=header_bytes,
    )
    return ref, data
